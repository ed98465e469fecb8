"""
Plants each fault of `mutants/*.toml` in a copy of the package and runs the tests that must fail for it.

`make mutants` runs all, `make mutants ARGS='lane budget'` those whose name holds one of the words. Exits with 1 when
a fault survives. The checkout is never touched. A fault in C is compiled; without a compiler those are left out, and
named.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).parent.parent
COPIED = ("twisted_ingest", "twisted", "tests", "benchmarks", "pyproject.toml", "docs", "README.md")
"""What the tests read of the project."""
PATIENCE = 180.0
"""Seconds one test may take; a fault that makes it hang has not been noticed."""
COMPILED = (".c", ".h")
COMPILER = shutil.which(os.environ.get("CC", "cc"))
FAILED = 1
"""Pytest's exit status for tests that ran and failed; a module that cannot be imported proves nothing."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault: ``find``, which occurs once in ``file``, becomes ``replace``; each of ``killed_by`` must fail."""

    name: str
    file: str
    find: str
    replace: str
    killed_by: tuple[str, ...]
    origin: str
    """The file it was read from."""

    def planted(self, text: str) -> str:
        """Give the source with the fault in it. Raises ``ValueError`` where it fits nowhere, or in several places."""
        places = text.count(self.find)
        if places != 1:
            raise ValueError(f"{self.origin}: {self.name}: its text occurs {places} times in {self.file}")
        return text.replace(self.find, self.replace)


def load(folder: pathlib.Path = ROOT / "mutants") -> list[Mutant]:
    """Read all faults."""
    found = []
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["mutant"]:
            tests = entry.pop("killed_by")
            killed_by = (tests,) if isinstance(tests, str) else tuple(tests)
            found.append(Mutant(**entry, killed_by=killed_by, origin=path.name))
    return found


def copy_project(folder: pathlib.Path) -> None:
    """Copy what tests need."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, folder / name)


def build(folder: pathlib.Path) -> None:
    """Compile the fast paths of a copy anew. Raises ``CalledProcessError`` where that cannot be done."""
    command = [COMPILER or "cc", "-O1", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}"]
    for source in sorted(folder.glob("twisted_ingest/*/_*.c")):
        target = source.with_suffix(".abi3.so")
        subprocess.run([*command, str(source), "-o", str(target)], capture_output=True, text=True, check=True)


def run_tests(folder: pathlib.Path, tests: Iterable[str], patience: float = PATIENCE) -> tuple[int, str]:
    """Run tests in a copy; gives pytest's exit status and output, -1 where they did not come to an end."""
    # The path first, so that server processes import the copy too, not what is installed.
    environment = {**os.environ, "PYTHONPATH": str(folder), "CI": "true", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired:
        return -1, f"no end within {patience:g} s"
    return done.returncode, done.stdout + done.stderr


def survivors_of(mutant: Mutant) -> tuple[list[str], float]:
    """Plant one fault; gives what did not notice it, and how many seconds that took."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ingest-mutant-") as name:
        folder = pathlib.Path(name)
        copy_project(folder)
        source = folder / mutant.file
        source.write_text(mutant.planted(source.read_text()))
        if source.suffix in COMPILED:
            build(folder)
        blind = [test for test in mutant.killed_by if run_tests(folder, [test])[0] != FAILED]
    return blind, time.monotonic() - began


def check_sound(mutants: list[Mutant]) -> str:
    """Run all the tests without a fault, which must pass; gives what to say where they do not."""
    tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.killed_by))
    with tempfile.TemporaryDirectory(prefix="ingest-mutant-") as name:
        copy_project(pathlib.Path(name))
        status, output = run_tests(pathlib.Path(name), tests, PATIENCE * len(tests))
    return output if status else ""


def misfit(mutant: Mutant) -> str:
    """Say why a fault cannot be planted; empty where it can."""
    try:
        mutant.planted((ROOT / mutant.file).read_text())
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def report(mutant: Mutant, blind: list[str], seconds: float) -> str:
    """Write one row."""
    tests = ", ".join(test.rpartition("::")[2] for test in mutant.killed_by)
    outcome = f"SURVIVED {', '.join(blind)}" if blind else tests
    return f"| {mutant.name} | {outcome} | {seconds:.1f} |"


def main(words: list[str], workers: int) -> int:
    """Plant all the faults asked for; gives the exit status."""
    mutants = [mutant for mutant in load() if not words or any(word in mutant.name for word in words)]
    if COMPILER is None:
        left_out = [mutant for mutant in mutants if mutant.file.endswith(COMPILED)]
        mutants = [mutant for mutant in mutants if mutant not in left_out]
        print("".join(f"no compiler, left out: {mutant.name}\n" for mutant in left_out), end="")
    misfits = list(filter(None, map(misfit, mutants))) if mutants else [f"no fault is named so: {' '.join(words)}"]
    if misfits:
        print("\n".join(misfits))
        return 1
    print("| fault | killed by | seconds |\n|---|---|---|", flush=True)
    unsound = check_sound(mutants)
    if unsound:
        print(f"these fail without any fault:\n{unsound}")
        return 1
    survived = 0
    with ThreadPoolExecutor(workers) as pool:
        for mutant, (blind, seconds) in zip(mutants, pool.map(survivors_of, mutants), strict=True):
            survived += bool(blind)
            print(report(mutant, blind, seconds), flush=True)
    print(f"\n{len(mutants) - survived} of {len(mutants)} faults killed")
    return 1 if survived else 0


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Plant faults, and see that tests notice each.")
    arguments.add_argument("words", nargs="*", help="only faults whose name holds one of these")
    arguments.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = arguments.parse_args()
    sys.exit(main(given.words, given.workers))
