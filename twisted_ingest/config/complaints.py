"""
What pydantic found, in the operator's words.
"""

from typing import Any

from pydantic import BaseModel

from twisted_ingest.config.checks import nearest
from twisted_ingest.config.model import AdminSettings, LimitSettings, ListenerSettings, Settings, SpoolSettings
from twisted_ingest.config.positions import Path
from twisted_ingest.sinks.registry import sink_types
from twisted_ingest.units import quote


def path_of(detail: Any) -> Path:
    """Give the path of a mistake, without what pydantic adds: the member of a union, the mark of a dictionary key."""
    parts = [str(part) for part in detail["loc"]]
    if detail["type"] == "string_pattern_mismatch":
        parts.pop()
    if len(parts) > 3 and parts[0] == "sinks":  # noqa: PLR2004
        del parts[2]
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
        return f"unknown key {key!r} in {table}{nearest(key, _keys(path, detail))}"
    if kind == "missing":
        return f"{table} needs the key {key!r}"
    if kind in ("enum", "literal_error"):
        words = [word.strip("' ") for word in detail["ctx"]["expected"].replace(" or ", ",").split(",")]
        hint = nearest(value, words) if isinstance(value, str) else ""
        hint = "" if hint.startswith(" (known") else hint
        return f"{key}: {quote(value)} is not known{hint} (one of {', '.join(words)})"
    if kind == "union_tag_invalid":
        tag = value["type"]
        return f"type: {quote(tag)} is not a sink{nearest(str(tag), list(sink_types()))}"
    if kind == "union_tag_not_found":
        return f"[{'.'.join(path)}] needs the key 'type': one of {', '.join(sink_types())}"
    if kind == "string_pattern_mismatch":
        return f"{key!r} is not a name: letters, digits, '_', '.' and '-' only, at most 64"
    if kind == "string_too_short":
        return f"{key}: it must not be empty"
    if kind in _KINDS:
        return f"{key}: {quote(value)} is not {_KINDS[kind]}"
    return f"{key}: {detail['msg'].removeprefix('Value error, ')}"


def _keys(path: Path, detail: Any) -> list[str]:
    """List the keys that the table of an unknown key may have."""
    tables: dict[str, type[BaseModel]] = {
        "limits": LimitSettings,
        "admin": AdminSettings,
        "spool": SpoolSettings,
        "listeners": ListenerSettings,
    }
    if len(path) == 1:
        return list(Settings.model_fields)
    if path[0] == "sinks":
        return list(sink_types()[str(detail["loc"][2])].table.model_fields)
    return list(tables[path[0]].model_fields)
