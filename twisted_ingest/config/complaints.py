"""
What pydantic found, in the operator's words.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_args

from twisted_ingest.config.meant import nearest
from twisted_ingest.config.model import Settings
from twisted_ingest.config.positions import Path
from twisted_ingest.sinks.registry import sink_types
from twisted_ingest.sources.registry import types_in
from twisted_ingest.units import quote

KINDS: dict[str, Callable[[], Mapping[str, Any]]] = {
    "listeners": partial(types_in, "listeners"),
    "sources": partial(types_in, "sources"),
    "sinks": sink_types,
}
"""What there are kinds of, by the tables that hold them."""


_OF_KEYS = ("string_pattern_mismatch", "value_error")
"""What pydantic may find wrong with the keys of a table of the operator's own names."""


def path_of(detail: Any) -> Path:
    """Give the path of a mistake, without what pydantic adds: the member of a union, the mark of a dictionary key."""
    parts = [str(part) for part in detail["loc"]]
    if detail["type"] in _OF_KEYS and parts[-1] == "[key]":
        parts.pop()
    if len(parts) > 2 and parts[0] in KINDS:  # noqa: PLR2004
        del parts[2]
    if detail["type"] == "union_tag_invalid":
        parts.append("protocol" if parts[0] == "listeners" else "type")
    return tuple(parts)


_KINDS = {
    "string_type": "text in quotes",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}
"""What belongs where pydantic found something else, by its name for the mistake."""


def complaint(path: Path, detail: Any) -> str:
    """Say what is wrong with the value at a path, and the nearest word that would be right."""
    kind, value, key = detail["type"], detail["input"], path[-1]
    table = f"[{'.'.join(path[:-1])}]" if len(path) > 1 else "the file"
    if kind == "extra_forbidden":
        return _unknown(path, detail, table)
    if kind == "missing":
        return f"{table} needs the key {key!r}"
    if kind in ("enum", "literal_error"):
        words = [word.strip("' ") for word in detail["ctx"]["expected"].replace(" or ", ",").split(",")]
        return _not_known(key, value, words)
    if kind == "union_tag_invalid":
        if key == "protocol":
            return _not_known(key, value[key], list(types_in("listeners")))
        return f"{key}: {quote(value[key])} is not a {path[0][:-1]}{nearest(str(value[key]), list(KINDS[path[0]]()))}"
    if kind == "union_tag_not_found":
        return f"[{'.'.join(path)}] needs the key 'type': one of {', '.join(KINDS[path[0]]())}"
    if kind == "string_pattern_mismatch":
        return f"{key!r} is not a name: letters, digits, '_', '.' and '-' only, at most 64"
    if kind == "string_too_short":
        return f"{key}: it must not be empty"
    if kind in _KINDS:
        return f"{key}: {quote(value)} is not {_KINDS[kind]}"
    return f"{key}: {detail['msg'].removeprefix('Value error, ')}"


def _not_known(key: str, value: object, words: list[str]) -> str:
    hint = nearest(value, words) if isinstance(value, str) else ""
    hint = "" if hint.startswith(" (known") else hint
    return f"{key}: {quote(value)} is not known{hint} (one of {', '.join(words)})"


def _unknown(path: Path, detail: Any, table: str) -> str:
    key = path[-1]
    if path[0] == "listeners":
        reason = types_in("listeners")[str(detail["loc"][2])].foreign.get(key)
        if reason is not None:
            return f"{key}: {reason}"
    return f"unknown key {key!r} in {table}{nearest(key, _keys(path, detail))}"


def _keys(path: Path, detail: Any) -> list[str]:
    """List the keys that the table of an unknown key may have."""
    table: Any = Settings
    inner = path[:-1]
    if path[0] in KINDS and len(path) > 1:
        table, inner = KINDS[path[0]]()[str(detail["loc"][2])].table, path[2:-1]
    for part in inner:
        table = _table_in(table.model_fields[part].annotation)
    return list(table.model_fields)


def _table_in(annotation: Any) -> Any:
    """Give the table that a key holds, which may be left out."""
    return next((each for each in get_args(annotation) if each is not type(None)), annotation)
