"""The list of planted faults cannot rot: each still fits its source and names a test that exists."""

import ast
import functools
import pathlib
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from mutants.run import ROOT, Mutant, load


@functools.cache
def names_in(path: pathlib.Path) -> set[str]:
    """Give the tests of a file as pytest calls them, classes and the file itself included."""
    found = {path.name}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found.add(f"{path.name}::{node.name}")
            methods = (each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            found.update(f"{path.name}::{node.name}::{name}" for name in methods)
        elif isinstance(node, ast.FunctionDef):
            found.add(f"{path.name}::{node.name}")
    return found


class MutantTests(SynchronousTestCase):
    def test_each_fits(self) -> None:
        """The text of every fault occurs once in its file, which compiles with the fault, where it is Python."""
        for mutant in load():
            text = (ROOT / mutant.file).read_text()
            self.assertEqual(text.count(mutant.find), 1, f"{mutant.origin}: {mutant.name}")
            self.assertNotEqual(mutant.planted(text), text, mutant.name)
            if mutant.file.endswith(".py"):
                compile(mutant.planted(text), mutant.file, "exec")

    def test_each_names_tests_that_exist(self) -> None:
        """Every fault has a name of its own and at least one test, which is there."""
        mutants = load()
        self.assertEqual(set(Counter(mutant.name for mutant in mutants).values()), {1})
        for mutant in mutants:
            self.assertTrue(mutant.killed_by, mutant.name)
            for test in mutant.killed_by:
                path = ROOT / test.partition("::")[0]
                self.assertIn(test.replace(str(pathlib.Path(test).parent) + "/", "", 1), names_in(path), mutant.name)

    def test_what_fits_nowhere_is_refused(self) -> None:
        """A fault whose text is not there, or there twice, is not planted."""
        mutant = Mutant("x", "f.py", "a", "b", ("t",), "o.toml")
        self.assertRaises(ValueError, mutant.planted, "")
        self.assertRaises(ValueError, mutant.planted, "aa")
        self.assertEqual(mutant.planted("cac"), "cbc")
