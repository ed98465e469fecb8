"""
What flags make of a configuration: tables for addresses, and values in tables.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from twisted_ingest.config.addresses import ENDPOINT_SCHEMES
from twisted_ingest.config.draft import Draft
from twisted_ingest.config.meant import nearest, sink_meant
from twisted_ingest.config.model import DEFAULT_ENDPOINT, DEFAULT_PATH, LimitSettings
from twisted_ingest.config.positions import Path
from twisted_ingest.sinks.registry import sink_types
from twisted_ingest.sources.registry import LINES, TAGS, ListenerTable, SourceType, source_types

# Flags that stand for one key; the others (listen, framing, sink) make or change tables.
FLAG_PATHS: dict[str, Path] = {
    **{name.replace("_", "-"): ("limits", name) for name in LimitSettings.model_fields},
    "admin": ("admin", "endpoint"),
    "log-format": ("log_format",),
}


CLOSING = {"allow": "--allow NETWORK", "proxy_protocol_from": "--proxy-protocol-from NETWORK"}
"""Keys that keep people out, and the flag that does the same for all listeners."""


def overlay_sources(draft: Draft, sources: Mapping[str, Sequence[str]], *, closed_by: Collection[str]) -> None:
    """
    Make a table for each address, by flag; those of a section replace the file's. Without any there is a default.

    ``closed_by`` are the keys of `CLOSING` that flags give.
    """
    kinds = {flag: kind for kind in source_types().values() for flag in (kind.flag, kind.tls_flag) if flag}
    given = [(kinds[flag], address, f"--{flag}") for flag, addresses in sources.items() for address in addresses]
    if any(draft.raw.get(section, {}) != {} for section in TAGS) or given:
        first = {kind.section: origin for kind, _, origin in reversed(given)}
    else:
        given, first = [(source_types()[LINES], DEFAULT_ENDPOINT, "default")], {"listeners": "default"}
    for section, flag in first.items():
        _refuse_plain(draft, section, given)
        _tell_replaced_sources(draft, section, flag, closed_by)
        draft.raw[section] = {}
        draft.forget(section)
    draft.raw.setdefault("listeners", {})
    for kind, address, origin in given:
        _put_source(draft, kind, address, origin)


def _put_source(draft: Draft, kind: SourceType[Any], address: str, origin: str) -> None:
    taken = [name for section in TAGS if isinstance(draft.raw.get(section), dict) for name in draft.raw[section]]
    speaks_tls = origin == f"--{kind.tls_flag}"
    wanted = _listener_name(kind, address, speaks_tls=speaks_tls) if kind.section == "listeners" else kind.word
    name = _free_name(taken, wanted)
    draft.put((kind.section, name, kind.address), address, origin)
    if kind.word != LINES:
        draft.put((kind.section, name, TAGS[kind.section]), kind.word, origin)
    if speaks_tls:
        draft.put((kind.section, name, "tls"), {}, origin)


def _refuse_plain(draft: Draft, section: str, given: Sequence[tuple[SourceType[Any], str, str]]) -> None:
    """Refuse flags that would have plain listeners in place of the file's that ask for certificates."""
    asking = [name for name, table in draft.tables(section) if "client_ca" in (table.get("tls") or ())]
    plain = [origin for kind, _, origin in given if kind.section == section and origin != f"--{kind.tls_flag}"]
    if asking and plain:
        draft.complain(
            plain[0],
            f"it replaces the {section} of {draft.origins.get((), 'the file')}, of which {', '.join(asking)} let in "
            f"only who has a certificate: everybody could connect (change it in the file and leave out {plain[0]})",
        )


def _tell_replaced_sources(draft: Draft, section: str, flag: str, closed_by: Collection[str]) -> None:
    """Warn that a flag replaces what the file has; refuse where that would let in whom the file keeps out."""
    tables, file = draft.tables(section), draft.origins.get((), "the file")
    for key, fix in CLOSING.items():
        closed = [name for name, table in tables if key in table]
        if closed and key not in closed_by:
            draft.complain(
                flag,
                f"it replaces the {section} of {file}, and with them the {key} of {', '.join(closed)}: "
                f"everybody could connect (give {fix} too, or change it in the file and leave out {flag})",
            )
            return
    if tables:
        names = ", ".join(name for name, _ in tables)
        draft.warn(flag, f"it replaces the {section} of {file}, with all their settings: {names}")


def _tell_replaced_sinks(draft: Draft) -> None:
    tables = draft.raw.get("sinks")
    if isinstance(tables, dict) and tables:
        file = draft.origins.get((), "the file")
        draft.warn("--sink", f"it replaces the sinks of {file}, with all their settings: {', '.join(map(str, tables))}")


def overlay_sinks(draft: Draft, sinks: Sequence[str], *, has_own_sinks: bool) -> None:
    """Make a table for each sink; they replace the file's. Without any there is a default."""
    if sinks or draft.raw.get("sinks", {}) == {}:
        _tell_replaced_sinks(draft)
        draft.raw["sinks"] = {}
        draft.forget("sinks")
        for spec in sinks:
            _put_sink(draft, spec, f"--sink {spec}")
        if not sinks and not has_own_sinks:
            _put_sink(draft, f"file:{DEFAULT_PATH}", "default")


def overlay(draft: Draft, flags: Mapping[str, str]) -> None:
    """Put in the values of flags, which override the file's."""
    for flag, value in flags.items():
        if flag == "framing":
            put_in_listeners(draft, "framing", value)
        elif flag in FLAG_PATHS:
            path = FLAG_PATHS[flag]
            draft.put(path, value, f"--{flag}")
            if path[-1] in ListenerTable.model_fields and path[0] == "limits":
                # A flag overrides the file, also where the file has it per listener.
                _take_from_listeners(draft, path[-1])


def put_in_listeners(draft: Draft, key: str, value: Any) -> None:
    """Put a value into every listener whose kind has such a key, or may have: its kind is a mistake."""
    for name, table in draft.tables("listeners"):
        kind = source_types().get(str(table.get("protocol", LINES)))
        if kind is None or key in kind.table.model_fields:
            draft.put(("listeners", name, key), value, f"--{key.replace('_', '-')}")


def _take_from_listeners(draft: Draft, key: str) -> None:
    for name, table in draft.tables("listeners"):
        table.pop(key, None)
        draft.forget("listeners", name, key)


_TRANSPORT_AND_PORT = re.compile(r"(tcp6?):(?:(?:.*:)?port=)?([0-9]{1,5})(?::|$)", re.ASCII)


def _listener_name(kind: SourceType[Any], endpoint: str, *, speaks_tls: bool) -> str:
    """Name a listener by transport (or protocol) and port; wrong endpoints too, the complaint comes later."""
    own = "-".join(filter(None, ("" if kind.word == LINES else kind.word, "tls" if speaks_tls else "")))
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


def _put_sink(draft: Draft, spec: str, origin: str) -> None:
    """Read ``file:PATH?fsync=always``: a word, what it calls its address, and further keys."""
    word, colon, rest = spec.partition(":")
    if colon and word in sink_types().broken:
        draft.complain(origin, str(sink_types().broken[word]))
        return
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


def _complain_of_sink(draft: Draft, spec: str, word: str) -> None:
    meant = sink_meant(spec, [word for word, kind in sink_types().items() if kind.address is None])
    if meant is not None:
        draft.complain("--sink", f"{spec!r} is not a sink; did you mean {meant!r}?")
        return
    *most, last = (kind.form for kind in sink_types().values())
    hint = f"{nearest(word, list(sink_types()))} (try {', '.join(most)} or {last})"
    draft.complain("--sink", f"{spec!r} is not a sink{hint}")
