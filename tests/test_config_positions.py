"""Positions: every key of a TOML file is found on the line where the operator wrote it."""

import tomllib
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.config.positions import Path, key_lines

# How a key may be written, and what it then means; the number keeps keys apart.
KEY_FORMS = [
    ("k-{0}", "k-{0}"),
    ("{0}", "{0}"),
    ('"k {0}"', "k {0}"),
    ("'k\"{0}'", 'k"{0}'),
    ("'a.b\\{0}'", "a.b\\{0}"),
    ('"\\u0041[{0}"', "A[{0}"),
    ('"\\"#=\'{0}"', "\"#='{0}"),
]
VALUES = [
    "1",
    "true",
    "1979-05-27 07:32:00",
    '"a = 1 # [x]"',
    "'[[\"'",
    '""',
    '"\\\\"',
    '"\\"["',
    '"""\nfake = 1\n[fake]\n"""',
    '"""a""""',
    '["""[""""", "[", \'\'\'"\'\'\'\']',
    '""" \\""" [ \\\n  joined"""',
    "'''\n\\\nfake = '1'\n'''",
    "[]",
    "[\n  1, # ] not the end\n  '[', \"]\",\n  [2, 3,\n],\n]",
    "{ a = 1, b = { c = '}' } }",
    "[\n  { fake = 1 },\n  { fake = '''\n''' },\n]",
]
FILLERS = ["", "   ", "# k-1 = 2", "\t# [table] \"\"\" '''"]

PARTS = st.lists(st.sampled_from(KEY_FORMS), min_size=1, max_size=3)


@dataclass
class Document:
    """A TOML text under construction, and where its keys stand."""

    lines: list[str] = field(default_factory=list)
    written: dict[Path, int] = field(default_factory=dict)
    implied: dict[Path, int] = field(default_factory=dict)
    number: int = 0

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def key(self, forms: list[tuple[str, str]], dot: str) -> tuple[str, Path]:
        """Spell a new key: what is written, and the path that it means."""
        self.number += 1
        parts = [(form.format(self.number), meaning.format(self.number)) for form, meaning in forms]
        return dot.join(part for part, _ in parts), tuple(meaning for _, meaning in parts)

    def add(self, statement: str, path: Path) -> None:
        here = self.text.count("\n") + 2 if self.lines else 1
        self.written[path] = here
        for length in range(1, len(path)):
            self.implied.setdefault(path[:length], here)
        self.lines.append(statement)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Write TOML of all shapes."""
    document = Document()
    table: Path = ()
    for _ in range(draw(st.integers(0, 8))):
        document.lines += draw(st.lists(st.sampled_from(FILLERS), max_size=2))
        spelled, path = document.key(draw(PARTS), draw(st.sampled_from([".", " . "])))
        indent, comment = draw(st.sampled_from(["", "  "])), draw(st.sampled_from(["", ' # "[']))
        if draw(st.integers(0, 2)) == 0:
            table = path
            document.add(f"{indent}[ {spelled} ]{comment}", path)
        else:
            document.add(f"{indent}{spelled} = {draw(st.sampled_from(VALUES))}{comment}", table + path)
    return document


def resolves(document: Any, path: Path) -> bool:
    """Tell whether a path leads somewhere; what is in an array of tables is not looked at."""
    for part in path:
        if isinstance(document, list):
            return True
        if not isinstance(document, dict) or part not in document:
            return False
        document = document[part]
    return True


class KeyLineTests(SynchronousTestCase):
    @settings(max_examples=150)
    @given(documents(), st.sampled_from(["\n", "\r\n"]))
    def test_every_key_is_found(self, document: Document, newline: str) -> None:
        """Each table and key is found on its own line, and nothing inside a value is taken for one."""
        text = document.text.replace("\n", newline)
        tomllib.loads(text)
        self.assertEqual(key_lines(text), document.implied | document.written)

    @settings(max_examples=200)
    @given(
        st.lists(
            st.sampled_from(
                ["a", "b", ".", " ", "=", "=1", "\n", "\n", "[", "]", "{", "}", ",", "#", '"', "'", '"""', "'''", "\\"]
            ),
            max_size=14,
        ).map("".join)
    )
    def test_whatever_tomllib_accepts(self, text: str) -> None:
        """Any text that tomllib accepts is scanned without an error, no top-level key missed, no path made up."""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            return
        lines = key_lines(text)
        self.assertEqual({path[0] for path in lines}, set(document))
        self.assertEqual([path for path in lines if not resolves(document, path)], [])

    def test_table_that_others_imply(self) -> None:
        """A table without a header of its own stands where its first key does; a later header wins."""
        lines = key_lines("limits.memory = 1\n[sinks.a]\n[sinks]\n")
        self.assertEqual(lines, {("limits", "memory"): 1, ("limits",): 1, ("sinks", "a"): 2, ("sinks",): 3})

    def test_array_of_tables(self) -> None:
        """The first element of an array of tables gives its lines."""
        self.assertEqual(key_lines("[[a]]\nb = 1\n[[a]]\nb = 2\n"), {("a",): 1, ("a", "b"): 2})

    def test_inline_table(self) -> None:
        """The keys of an inline table are left to the key that holds it."""
        self.assertEqual(key_lines("\nlimits = { memory = 1 }\n"), {("limits",): 2})

    def test_quotes_before_closing_quotes(self) -> None:
        """Quotes that belong to the end of a multi-line string do not open another one."""
        self.assertEqual(key_lines('a = ["""x"""", "[", "]"]\nb = 1'), {("a",): 1, ("b",): 2})

    def test_empty(self) -> None:
        """An empty file has no keys."""
        self.assertEqual(key_lines(""), {})
