"""
Where each key of a TOML file stands.

`tomllib` gives values without positions. This scan walks a file that `tomllib` has accepted already, so it
may be lenient: it needs to tell keys from the insides of strings and arrays, nothing more.
"""

import re
import tomllib
from typing import Any

Path = tuple[str, ...]

_KEY_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = re.compile(rf"\s*({_KEY_PART}(?:\s*\.\s*{_KEY_PART})*)\s*")
# What can hide a bracket or a quote from the count: strings of all four kinds, and comments.
# A string in three quotes may end in one or two more that belong to it.
_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?""""{0,2}|'
    r"'''.*?''''{0,2}|"
    r'"(?:[^"\\\n]|\\.)*"|'
    r"'[^'\n]*'|#[^\n]*|[\[\]{}]|\n",
    re.DOTALL,
)


def _split(dotted: str) -> Path:
    """Take a dotted key apart; `tomllib` knows what its quotes and escapes mean."""
    table: Any = tomllib.loads(f"{dotted} = 0")
    parts = []
    while isinstance(table, dict):
        ((part, table),) = table.items()
        parts.append(part)
    return tuple(parts)


def key_lines(text: str) -> dict[Path, int]:
    """
    Map the path of every table and key to its line, counted from 1.

    A table that only other keys imply stands where the first of them does. Keys inside inline tables are left out.
    """
    lines: dict[Path, int] = {}
    implied: dict[Path, int] = {}
    table: Path = ()
    for number, statement in _statements(text):
        stripped = statement.lstrip()
        if stripped.startswith("["):
            match = _DOTTED.match(stripped.lstrip("["))
            if match:
                table = _split(match[1])
                _note(lines, implied, table, number)
            continue
        match = _DOTTED.match(stripped)
        if match and stripped[match.end() :].startswith("="):
            _note(lines, implied, table + _split(match[1]), number)
    return implied | lines


def _note(lines: dict[Path, int], implied: dict[Path, int], path: Path, number: int) -> None:
    lines.setdefault(path, number)
    for length in range(1, len(path)):
        implied.setdefault(path[:length], number)


def _statements(text: str) -> list[tuple[int, str]]:
    """Cut the text into statements: lines, joined where a string or an array goes on over several."""
    found: list[tuple[int, str]] = []
    start, number, begun_at, depth = 0, 1, 1, 0
    for match in _TOKEN.finditer(text):
        piece = match[0]
        if piece in "[{":
            depth += 1
        elif piece in "]}":
            depth -= 1
        elif piece == "\n":
            number += 1
            if depth == 0:
                found.append((begun_at, text[start : match.start()]))
                start, begun_at = match.end(), number
        else:
            number += piece.count("\n")
    found.append((begun_at, text[start:]))
    return found
