"""
The one model of all settings. Flags and TOML both fill it; defaults come from `twisted_ingest.limits`.
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union

from pydantic import Discriminator, Field, Tag, create_model

from twisted_ingest import limits
from twisted_ingest.admin.hosts import HostList
from twisted_ingest.config.fields import (
    About,
    Count,
    Duration,
    FilePath,
    HostNames,
    Name,
    OptionalCount,
    OptionalDuration,
    OptionalRate,
    OptionalSize,
    PrefixIPv6,
    Size,
    Table,
    Takes,
)
from twisted_ingest.config.positions import Path
from twisted_ingest.errors import Durability, Oversize, SpoolPolicy
from twisted_ingest.limits import ListenerLimits
from twisted_ingest.sinks.registry import SinkTable, sink_types
from twisted_ingest.sources.registry import LINES, ListenerTable, SourceTable, source_types, types_in
from twisted_ingest.units import format_duration, quote

DEFAULT_ENDPOINT = "tcp:1514:interface=127.0.0.1"
DEFAULT_ADMIN = "tcp:9108:interface=127.0.0.1"
DEFAULT_PATH = "ingest-data/ingest.log"
DEFAULT_SPOOL = "ingest-data/spool"


class LimitSettings(Table):
    """``[limits]``: bounds of the process, and of every listener that does not set its own."""

    max_length: Annotated[Size, About("SIZE", "of a record, delimiter excluded")] = limits.MAX_LENGTH
    oversize: Annotated[
        Oversize,
        About(
            "truncate|drop|close:",
            "a record longer than that",
            "``truncate`` keeps the first ``max_length`` bytes, ``drop`` skips the record, "
            "``close`` ends the connection",
        ),
    ] = Oversize.TRUNCATE
    idle_timeout: Annotated[
        OptionalDuration,
        About(
            "DURATION|off:",
            "silence that ends a connection",
            default=f"{format_duration(limits.IDLE_TIMEOUT)}, until the first record; given, always",
        ),
    ] = limits.IDLE_TIMEOUT
    frame_timeout: Annotated[OptionalDuration, About("DURATION|off:", "from a record's first byte to its end")] = (
        limits.FRAME_TIMEOUT
    )
    max_connections: Annotated[
        Count | None,
        Takes.RESTART,
        About(
            "N",
            "in all",
            "at this number accepting stops until one closes",
            f"{limits.DESCRIPTOR_SHARE * 100:.0f} % of the descriptor limit, at most {limits.MAX_CONNECTIONS}",
        ),
    ] = None
    max_connections_per_peer: Annotated[
        OptionalCount, Takes.RESTART, About("N|off", "per remote address", "further ones are refused")
    ] = None
    connection_rate_per_peer: Annotated[
        OptionalRate,
        Takes.RESTART,
        About("RATE|off,", "such as 10/s, per remote address", "how often one may connect, one second's worth at once"),
    ] = None
    peer_prefix_ipv6: Annotated[
        PrefixIPv6,
        Takes.RESTART,
        About(
            "BITS",
            "of an IPv6 address that tell remote addresses apart for limits per address",
            "a host has a whole network of them; IPv4 written as IPv6 is the same address as IPv4",
        ),
    ] = limits.PEER_PREFIX_IPV6
    rate: Annotated[
        OptionalRate, About("RATE|off", "per connection, such as 10k/s (records) or 1MiB/s", "how fast it is read")
    ] = None
    rate_per_peer: Annotated[
        OptionalRate, About("RATE|off", "per remote address, on each listener", "all its connections together")
    ] = None
    memory: Annotated[Size, Takes.RESTART, About("SIZE", "of the byte budget of the process")] = limits.MEMORY
    connection_memory: Annotated[Size, Takes.RESTART, About("SIZE", "that one connection may hold of it")] = (
        limits.CONNECTION_MEMORY
    )
    drain_timeout: Annotated[
        Duration,
        About("DURATION", "for finishing at a stop", "reading on and flushing; the whole stop takes at most 3 s more"),
    ] = limits.DRAIN_TIMEOUT


class SpoolSettings(Table):
    """``[spool]``: of every sink that has ``spool = true``, in a directory of its own below this one."""

    directory: Annotated[FilePath, About("PATH:", "where spools are, each in a directory of its own below it")] = (
        DEFAULT_SPOOL
    )
    max_bytes: Annotated[Size, About("SIZE", "of each spool")] = limits.SPOOL_BYTES
    free_space_floor: Annotated[OptionalSize, About("SIZE|off", "that spools leave free on their file system")] = (
        limits.FREE_SPACE_FLOOR
    )
    policy: Annotated[
        SpoolPolicy,
        About("block|drop-oldest:", "what a full spool does: hold back, or give up what has waited longest"),
    ] = SpoolPolicy.BLOCK


class AdminSettings(Table):
    """``[admin]``. The endpoint ``off`` means no admin server."""

    endpoint: Annotated[str, About("ENDPOINT|off:", "metrics, health, status")] = DEFAULT_ADMIN
    hosts: Annotated[
        HostNames,
        About("NAME", "by which the admin endpoint may be asked, besides addresses and localhost", default="none"),
    ] = HostList()


class Settings(Table):
    """Everything an operator can set."""

    listeners: dict[Name, ListenerTable]
    sources: dict[Name, SourceTable] = Field(default_factory=dict)
    sinks: dict[Name, SinkTable]
    limits: LimitSettings = LimitSettings()
    spool: SpoolSettings = SpoolSettings()
    admin: AdminSettings = AdminSettings()
    log_format: Annotated[Literal["text", "json"], About("text|json:", "our own log, on standard error")] = "text"

    @property
    def inputs(self) -> dict[str, ListenerTable | SourceTable]:
        """All that records come from, listeners first."""
        return {**self.listeners, **self.sources}

    def sinks_of(self, name: str) -> dict[str, SinkTable]:
        """Give the sinks that the records of a source go to: those that it names, or all."""
        chosen = self.inputs[name].sinks
        return {sink: table for sink, table in self.sinks.items() if chosen is None or sink in chosen}

    def paths(self) -> dict[tuple[str, ...], str]:
        """Give every path that is written to, with the key it stands at."""
        found: dict[tuple[str, ...], str] = {}
        for name, sink in self.sinks.items():
            for place in sink_types()[sink.type].all_places(sink):
                if place.key is not None:
                    found["sinks", name, place.key] = place.what
        if any(sink.spool for sink in self.sinks.values()):
            found["spool", "directory"] = self.spool.directory
        return found

    def durability(self, name: str) -> Durability:
        """Give what a source asks for; one that answers promises the disk unless told otherwise."""
        table = self.inputs[name]
        asked: Durability | None = getattr(table, "durability", None)
        return asked or source_types()[table.word].promises or Durability.WRITTEN

    def promises(self) -> dict[str, Durability]:
        """Give what is promised of the records of each listener of which something is: it answers, or was asked to."""
        return {
            name: self.durability(name)
            for name, listener in self.listeners.items()
            if listener.durability or source_types()[listener.protocol].promises
        }

    def listener_limits(self, name: str) -> ListenerLimits:
        """Join the settings of a listener, or of another source, with the common ones."""
        own, common = self.inputs[name], self.limits
        defaults = source_types()[own.word].defaults

        def pick(field: str) -> Any:
            if field in own.model_fields_set:
                return getattr(own, field)
            is_set = field in common.model_fields_set or field not in defaults
            return getattr(common, field) if is_set else defaults[field]

        idle_is_explicit = "idle_timeout" in own.model_fields_set | common.model_fields_set
        return ListenerLimits(
            protocol=own.word,
            durability=self.durability(name),
            framing=getattr(own, "framing", None),
            max_record_bytes=pick("max_length"),
            oversize=pick("oversize"),
            idle_timeout_seconds=pick("idle_timeout"),
            idle_until_first_record=not idle_is_explicit,
            frame_timeout_seconds=pick("frame_timeout"),
            allow=getattr(own, "allow", None),
            proxies=getattr(own, "proxy_protocol_from", None),
            rate=pick("rate"),
            rate_per_peer=pick("rate_per_peer"),
            receive_buffer_bytes=getattr(own, "receive_buffer", None),
        )


def table_of(path: Path) -> tuple[type[Table], str]:
    """Give the table that a setting of the process is in, and its key there."""
    table: Any = Settings
    for part in path[:-1]:
        table = table.model_fields[part].annotation
    return table, path[-1]


@cache
def settings_model() -> type[Settings]:
    """Give the model with a table for each kind of sink and of source that there is."""
    listeners = _any_of(types_in("listeners"), ListenerTable, "protocol", LINES)
    sources = _any_of(types_in("sources"), SourceTable, "type")
    sinks = _any_of(sink_types(), SinkTable, "type")
    return create_model(
        "Settings",
        __base__=Settings,
        listeners=(listeners, ...),
        sources=(sources, Field(default_factory=dict)),
        sinks=(sinks, ...),
    )


def _any_of(kinds: Mapping[str, Any], common: type[Table], tag: str, default: str | None = None) -> Any:
    """Give the type of a table of tables, each of one of these kinds; the key ``tag`` says of which."""

    def choose(table: Any) -> str | None:
        if not isinstance(table, dict):
            return ""  # is told that it is no table
        word = table.get(tag, default)
        # A word that is no kind's is quoted, so that none, the empty one included, is taken for the tags below.
        return word if word is None or (isinstance(word, str) and word in kinds) else quote(word)

    tables = [Annotated[kind.table, Tag(word)] for word, kind in kinds.items()]
    # Two more tags, which no word in a file can be: pydantic needs two members, also where there is no kind at all.
    union: Any = Union[(*tables, Annotated[common, Tag("")], Annotated[Table, Tag(" ")])]
    return dict[Name, Annotated[union, Discriminator(choose)]]
