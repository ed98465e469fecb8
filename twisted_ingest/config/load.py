"""
From flags and a TOML file to `Settings`, or to every mistake at once.

Parse first, then overlay, then validate: a value keeps its origin (flag, file and line, default) all the
way, for the error message and for ``/status``.
"""

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

from pydantic import ValidationError

from twisted_ingest.config import checks
from twisted_ingest.config.checks import ENDPOINT_SCHEMES, nearest
from twisted_ingest.config.complaints import complaint, path_of
from twisted_ingest.config.meant import path_caution, quotes_meant, sink_meant
from twisted_ingest.config.model import (
    DEFAULT_ENDPOINT,
    DEFAULT_PATH,
    LimitSettings,
    Settings,
    settings_model,
)
from twisted_ingest.config.positions import Path, key_lines
from twisted_ingest.errors import Caution, ConfigurationError, Problem
from twisted_ingest.escaping import escape
from twisted_ingest.sinks.registry import sink_types
from twisted_ingest.sources.registry import LINES, TAGS, ListenerTable, SourceType, source_types

# Flags that stand for one key; the others (listen, framing, sink) make or change tables.
FLAG_PATHS: dict[str, Path] = {
    **{name.replace("_", "-"): ("limits", name) for name in LimitSettings.model_fields},
    "admin": ("admin", "endpoint"),
    "log-format": ("log_format",),
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """Valid settings, and where each one that was set comes from."""

    settings: Settings
    origins: Mapping[Path, str]
    cautions: tuple[Caution, ...] = ()

    def origin(self, *path: str) -> str:
        """Say where a setting comes from: a flag, ``FILE:LINE``, or ``default``."""
        return self.origins.get(path, "default")


@dataclass(slots=True)
class _Draft:
    """What has been gathered so far."""

    raw: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    cautions: list[Caution] = field(default_factory=list)

    def complain(self, where: str, message: str) -> None:
        """Add a problem once, as one line whatever the operator's words hold."""
        problem = Problem(escape(where), escape(message))
        if problem not in self.problems:
            self.problems.append(problem)

    def warn(self, where: str, message: str) -> None:
        """Add a caution, as one line."""
        self.cautions.append(Caution(escape(where), escape(message)))

    def put(self, path: Path, value: Any, origin: str) -> None:
        table = self.raw
        for part in path[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                return  # the file has a value where a table belongs; validation says so
        table[path[-1]] = value
        self.origins[path] = origin

    def forget(self, *path: str) -> None:
        """Drop the origins of a table that a flag replaces."""
        self.origins = {known: origin for known, origin in self.origins.items() if known[: len(path)] != path}

    def where(self, path: Path) -> str:
        """Find the origin of a path, or of the nearest table around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return self.origins.get((), "configuration")


def load(
    file: str | None,
    flags: Mapping[str, str],
    listen: Sequence[str],
    sinks: Sequence[str],
    allow: Sequence[str] = (),
    *,
    relp: Sequence[str] = (),
    sources: Mapping[str, Sequence[str]] = MappingProxyType({}),
    admin_hosts: Sequence[str] = (),
    has_own_sinks: bool = False,
) -> Loaded:
    """
    Build the settings from a file and flags; a flag overrides the file.

    ``flags`` holds single-valued flags without their dashes, ``allow`` the networks that every listener admits;
    ``listen`` and ``relp`` are endpoints for lines and for RELP, ``sources`` the addresses of any kind of source by its
    flag, ``admin_hosts`` names of the admin endpoint. With ``has_own_sinks`` an application adds sinks of its own: then
    there need be no other, and none is made by default.
    Raises `ConfigurationError` with every mistake found.
    """
    draft = _Draft()
    if file is not None:
        _read(draft, file)
    _overlay_sources(draft, {"listen": listen, "relp": relp, **sources}, is_allow_given=bool(allow))
    _overlay_sinks(draft, sinks, has_own_sinks=has_own_sinks)
    _overlay(draft, flags)
    if allow:
        _put_in_listeners(draft, "allow", list(allow))
    if admin_hosts:
        draft.put(("admin", "hosts"), list(admin_hosts), "--admin-host")
    settings, mistaken = _validate(draft)
    for paths, message in checks.problems(settings, has_own_sinks=has_own_sinks):
        # What a mistaken value would have meant is anybody's guess: no second complaint about it.
        if not any(_overlap(path, wrong) for path in paths for wrong in mistaken):
            set_here = [path for path in paths if path in draft.origins] or list(paths)
            draft.complain(draft.where(set_here[0]), message)
    if draft.problems:
        raise ConfigurationError(sorted(draft.problems, key=_reading_order))
    for path, text in settings.paths().items():
        caution = path_caution(text)
        if caution is not None:
            draft.warn(draft.where(path), caution)
    return Loaded(settings, draft.origins, tuple(draft.cautions))


def _overlap(one: Path, other: Path) -> bool:
    """Tell whether one path is the other, or a table around it."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _reading_order(problem: Problem) -> int:
    """Put flags first, as they were found, then the file from top to bottom."""
    line = problem.where.rpartition(":")[2]
    return int(line) if not problem.where.startswith("--") and line.isdecimal() else 0


def _read(draft: _Draft, file: str) -> None:
    try:
        with open(file, "rb") as stream:
            text = stream.read().decode("utf-8-sig")
    except OSError as error:
        draft.complain(f"--config {file}", f"cannot read the file: {error.strerror}")
    except UnicodeDecodeError as error:
        draft.complain(file, f"the file is not UTF-8 (byte {error.start})")
    else:
        _parse(draft, file, text)


def _parse(draft: _Draft, file: str, text: str) -> None:
    try:
        draft.raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        draft.complain(*_syntax_problem(file, text, str(error)))
    except (ValueError, RecursionError) as error:
        # Numbers of thousands of digits, thousands of brackets: tomllib lets through what Python says.
        draft.complain(file, f"the file cannot be read as TOML: {error}")
    else:
        draft.origins.update({path: f"{file}:{line}" for path, line in key_lines(text).items()})
        draft.origins.setdefault((), file)


_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def _syntax_problem(file: str, text: str, message: str) -> tuple[str, str]:
    """Turn tomllib's message into where and what; without a line it means the end of the file."""
    position = _POSITION.search(message)
    line = position[1] if position and position[1] else text.rstrip().count("\n") + 1
    lines = text.split("\n")
    meant = quotes_meant(lines[int(line) - 1]) if int(line) <= len(lines) else None
    hint = "" if meant is None else f"; text stands in quotes, did you mean: {meant}"
    return f"{file}:{line}", _POSITION.sub("", message) + hint


def _overlay_sources(draft: _Draft, sources: Mapping[str, Sequence[str]], *, is_allow_given: bool) -> None:
    kinds = {kind.flag: kind for kind in source_types().values()}
    given = [(kinds[flag], address, f"--{flag}") for flag, addresses in sources.items() for address in addresses]
    if any(draft.raw.get(section, {}) != {} for section in TAGS) or given:
        first = {kind.section: origin for kind, _, origin in reversed(given)}
    else:
        given, first = [(source_types()[LINES], DEFAULT_ENDPOINT, "default")], {"listeners": "default"}
    for section, flag in first.items():
        _tell_replaced_sources(draft, section, flag, is_allow_given=is_allow_given)
        draft.raw[section] = {}
        draft.forget(section)
    draft.raw.setdefault("listeners", {})
    for kind, address, origin in given:
        _put_source(draft, kind, address, origin)


def _put_source(draft: _Draft, kind: SourceType[Any], address: str, origin: str) -> None:
    taken = [name for section in TAGS if isinstance(draft.raw.get(section), dict) for name in draft.raw[section]]
    name = _free_name(taken, _listener_name(kind, address) if kind.section == "listeners" else kind.word)
    draft.put((kind.section, name, kind.address), address, origin)
    if kind.word != LINES:
        draft.put((kind.section, name, TAGS[kind.section]), kind.word, origin)


def _tell_replaced_sources(draft: _Draft, section: str, flag: str, *, is_allow_given: bool) -> None:
    """Warn that a flag replaces what the file has; refuse where that would let in whom the file keeps out."""
    tables, file = _tables(draft, section), draft.origins.get((), "the file")
    closed = [name for name, table in tables if "allow" in table]
    if closed and not is_allow_given:
        draft.complain(
            flag,
            f"it replaces the {section} of {file}, and with them the allow of {', '.join(closed)}: "
            f"everybody could connect (give --allow NETWORK too, or change it in the file and leave out {flag})",
        )
    elif tables:
        names = ", ".join(name for name, _ in tables)
        draft.warn(flag, f"it replaces the {section} of {file}, with all their settings: {names}")


def _tell_replaced_sinks(draft: _Draft) -> None:
    tables = draft.raw.get("sinks")
    if isinstance(tables, dict) and tables:
        file = draft.origins.get((), "the file")
        draft.warn("--sink", f"it replaces the sinks of {file}, with all their settings: {', '.join(map(str, tables))}")


def _overlay_sinks(draft: _Draft, sinks: Sequence[str], *, has_own_sinks: bool) -> None:
    if sinks or draft.raw.get("sinks", {}) == {}:
        _tell_replaced_sinks(draft)
        draft.raw["sinks"] = {}
        draft.forget("sinks")
        for spec in sinks:
            _put_sink(draft, spec, f"--sink {spec}")
        if not sinks and not has_own_sinks:
            _put_sink(draft, f"file:{DEFAULT_PATH}", "default")


def _overlay(draft: _Draft, flags: Mapping[str, str]) -> None:
    for flag, value in flags.items():
        if flag == "framing":
            _put_in_listeners(draft, "framing", value)
        else:
            path = FLAG_PATHS[flag]
            draft.put(path, value, f"--{flag}")
            if path[-1] in ListenerTable.model_fields and path[0] == "limits":
                # A flag overrides the file, also where the file has it per listener.
                _take_from_listeners(draft, path[-1])


def _tables(draft: _Draft, section: str = "listeners") -> list[tuple[str, dict[str, Any]]]:
    tables = draft.raw.get(section)
    if not isinstance(tables, dict):
        return []
    return [(name, table) for name, table in tables.items() if isinstance(table, dict)]


def _put_in_listeners(draft: _Draft, key: str, value: Any) -> None:
    """Put a value into every listener whose kind has such a key, or may have: its kind is a mistake."""
    for name, table in _tables(draft):
        kind = source_types().get(str(table.get("protocol", LINES)))
        if kind is None or key in kind.table.model_fields:
            draft.put(("listeners", name, key), value, f"--{key}")


def _take_from_listeners(draft: _Draft, key: str) -> None:
    for name, table in _tables(draft):
        table.pop(key, None)
        draft.forget("listeners", name, key)


_TRANSPORT_AND_PORT = re.compile(r"(tcp6?):(?:(?:.*:)?port=)?([0-9]{1,5})(?::|$)", re.ASCII)


def _listener_name(kind: SourceType[Any], endpoint: str) -> str:
    """Name a listener by transport (or protocol) and port; wrong endpoints too, the complaint comes later."""
    own = "" if kind.word == LINES else kind.word
    match = _TRANSPORT_AND_PORT.match(endpoint)
    if match:
        return f"{own or match[1]}-{match[2]}"
    scheme = endpoint.partition(":")[0]
    return own or (scheme if scheme in ENDPOINT_SCHEMES else "listener")


def _free_name(taken: Collection[str], name: str) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _put_sink(draft: _Draft, spec: str, origin: str) -> None:
    """Read ``file:PATH?fsync=always``: a word, what it calls its address, and further keys."""
    word, colon, rest = spec.partition(":")
    if not colon or word not in sink_types():
        _complain_of_sink(draft, spec, word)
        return
    kind = sink_types()[word]
    address, _, query = rest.partition("?")
    table: dict[str, Any] = {"type": word}
    if kind.address is not None:
        table[kind.address] = address
    elif address:
        draft.complain("--sink", f"{spec!r}: nothing but options may follow {word!r} and its colon")
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key in table:
            draft.complain("--sink", f"{spec!r}: {key!r} is given twice")
            continue
        table[key] = value
    name = _free_name(draft.raw["sinks"], word)
    for key, value in table.items():
        draft.put(("sinks", name, key), value, origin)
    draft.origins["sinks", name] = origin


def _complain_of_sink(draft: _Draft, spec: str, word: str) -> None:
    meant = sink_meant(spec, [word for word, kind in sink_types().items() if kind.address is None])
    if meant is not None:
        draft.complain("--sink", f"{spec!r} is not a sink; did you mean {meant!r}?")
        return
    *most, last = (kind.form for kind in sink_types().values())
    hint = f"{nearest(word, list(sink_types()))} (try {', '.join(most)} or {last})"
    draft.complain("--sink", f"{spec!r} is not a sink{hint}")


def _validate(draft: _Draft) -> tuple[Settings, list[Path]]:
    """
    Complain of every mistake that a value has by itself.

    The answer is the settings without the mistaken values, so that the rest can be checked further, and their paths.
    """
    mistaken: list[Path] = []
    while True:
        try:
            return settings_model().model_validate(draft.raw), mistaken
        except ValidationError as error:
            found = [(path_of(detail), detail) for detail in error.errors()]
        for path, detail in found:
            # What follows from a mistake that was taken out is none of its own.
            if not any(_overlap(path, wrong) for wrong in mistaken):
                draft.complain(draft.where(path), complaint(path, detail))
        # Without a value that it needs, a table is missing something in the next round, and goes as a whole.
        wrong = [path[:-1] if detail["type"] == "missing" else path for path, detail in found]
        for path in wrong:
            _remove(draft.raw, path)
        mistaken += wrong


def _remove(raw: dict[str, Any], path: Path) -> None:
    table: Any = raw
    for part in path[:-1]:
        table = table.get(part, {})
    table.pop(path[-1], None)
    for name in ("listeners", "sinks"):
        raw.setdefault(name, {})
