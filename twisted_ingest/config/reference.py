"""
The page of all settings, made from the model and the kinds: ``python -m twisted_ingest.config.reference``.
"""

import sys
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from twisted_ingest.config.fields import OFF, About, shown_default
from twisted_ingest.config.given import FLAG_PATHS
from twisted_ingest.config.kinds import OWN, Kinds
from twisted_ingest.config.model import AdminSettings, LimitSettings, Settings, SpoolSettings
from twisted_ingest.config.tls import PEER_FLAG, TLS_FLAGS
from twisted_ingest.sinks.registry import SinkTable, SinkType, sink_types
from twisted_ingest.sources.registry import LINES, ListenerTable, SourceTable, SourceType, source_types
from twisted_ingest.sources.tls import TLSTable
from twisted_ingest.units import exact_size

HEAD = """\
# All settings

Made from the code (`python -m twisted_ingest.config.reference`), as `--help` is. How they work together is in
[operations.md](operations.md).
"""


def page() -> str:
    """Write the page."""
    return "\n".join([HEAD, *_sections()])


def _sections() -> Iterator[str]:
    yield from _table("[limits]: bounds of the process, and of listeners that set none of their own", LimitSettings)
    yield from _table("[listeners.NAME]: what all have", ListenerTable)
    yield from _table("[listeners.NAME] tls = {...}", TLSTable)
    for kind in _ours(source_types()):
        yield from _source(kind)
    yield from _table("[sinks.NAME]: what all have", SinkTable)
    for kind in _ours(sink_types()):
        yield from _sink(kind)
    yield from _table("[spool]: of all sinks with spool = true", SpoolSettings)
    yield from _table("[admin]", AdminSettings)
    yield from _rows("Outside of tables", Settings, ["log_format"])


def _ours(kinds: Kinds[Any]) -> Iterator[Any]:
    """Give the kinds that are ours: the page is the same wherever it is made."""
    return (kind for word, kind in kinds.items() if kinds.owner(word) == OWN)


def _source(kind: SourceType[Any]) -> Iterator[str]:
    base: type[BaseModel] = ListenerTable if kind.section == "listeners" else SourceTable
    tag = "protocol" if kind.section == "listeners" else "type"
    yield f"## [{kind.section}.NAME] with {tag} = {kind.word!r}\n".replace("'", '"')
    yield f"`--{kind.flag} {kind.address.upper()}`: {kind.address.upper()} {kind.summary}.\n"
    if kind.tls_flag is not None:
        yield f"`--{kind.tls_flag} {kind.address.upper()}`: the same over TLS ([tls.md](tls.md)).\n"
    if kind.defaults:
        values = ", ".join(
            f"`{key}` {OFF if value is None else exact_size(value)}" for key, value in kind.defaults.items()
        )
        yield f"Where neither this table nor `[limits]` says so: {values}.\n"
    yield from _rows("", kind.table, [key for key in kind.table.model_fields if key not in base.model_fields])


def _sink(kind: SinkType[Any]) -> Iterator[str]:
    yield f'## [sinks.NAME] with type = "{kind.word}"\n'
    promise = f"It gives durability `{kind.durability.value}` at most"
    yield f"`--sink {kind.form}`: {kind.summary}. {promise}, with a spool in front `fsync`.\n"
    yield from _rows("", kind.table, [key for key in kind.table.model_fields if key not in SinkTable.model_fields])


def _table(title: str, table: type[BaseModel]) -> Iterator[str]:
    yield from _rows(title, table, list(table.model_fields))


def _rows(title: str, table: type[BaseModel], keys: list[str]) -> Iterator[str]:
    if title:
        yield f"## {title}\n"
    if not keys:
        return
    yield "| key | flag | default | what it is |\n|---|---|---|---|"
    for key in keys:
        about = About.of(table, key)
        text = f"{about.form} {about.text}{f'; {about.more}' if about.more else ''}".strip().replace("|", r"\|")
        default = "" if table.model_fields[key].is_required() and not about.default else shown_default(table, key)
        yield f"| `{key}` | {_flag(table, key)} | {default} | {text.replace('``', '`')} |"
    yield ""


def _flag(table: type[BaseModel], key: str) -> str:
    """Give the flag of a key; what makes tables (``--listen``, ``--sink``) has none of a key's own."""
    paths = {LimitSettings: ("limits", key), AdminSettings: ("admin", key), Settings: (key,)}
    own = {"hosts": "admin-host", "allow": "allow", "peers": PEER_FLAG}.get(key)
    if table is TLSTable and own is None:
        own = next((flag for flag, each in TLS_FLAGS.items() if each == key), None)
    if own is None and key == "framing" and table is source_types()[LINES].table:
        own = "framing"
    flags = [own] if own else [flag for flag, path in FLAG_PATHS.items() if path == paths.get(table)]
    return ", ".join(f"`--{flag}`" for flag in flags)


if __name__ == "__main__":
    sys.stdout.write(page())
