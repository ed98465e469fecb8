"""
Which sources there are, and what each kind of them is, in one place.

A module of this room names its kinds in ``KINDS``; other distributions add theirs by the entry point
``twisted_ingest.sources`` (docs/plugins.md). Settings, flags, ``--help``, checks and the making of sources go by these.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, get_args

from twisted_ingest.config.fields import (
    About,
    BufferSize,
    Networks,
    OptionalDuration,
    OptionalRate,
    Proxies,
    SinkNames,
    Size,
    Table,
    Takes,
)
from twisted_ingest.config.kinds import Kinds, check_keys, find_kinds
from twisted_ingest.errors import Durability, Oversize
from twisted_ingest.flow.intake import Intake
from twisted_ingest.interfaces import ISource
from twisted_ingest.limits import ListenerLimits
from twisted_ingest.observe.events import Events
from twisted_ingest.server.admission import Admission
from twisted_ingest.sources.tls import TLSTable

GROUP = "twisted_ingest.sources"
"""The group of entry points, each of which names a `SourceType`."""

LINES = "lines"
"""What a listener speaks where its table does not say."""


COMMON = About("", "as in [limits], for this one", default="that of [limits]")


class ListenerTable(Table):
    """
    ``[listeners.NAME]``, as far as all protocols have it in common. What is not set here comes from ``[limits]``.

    The table of a kind adds its own keys, and says by ``protocol: Literal["word"]`` which it is.
    """

    endpoint: Annotated[str, Takes.PART, About("ENDPOINT:", "a Twisted endpoint: tcp, tcp6, unix or systemd")]
    protocol: Annotated[str, About("WORD:", "what is spoken", default=LINES)]
    durability: Annotated[
        Durability | None,
        Takes.PART,
        About(
            "memory|written|fsync:",
            "what a record must have reached before it counts as taken",
            default="what the protocol promises; else written",
        ),
    ] = None
    max_length: Annotated[Size | None, COMMON] = None
    oversize: Annotated[Oversize | None, COMMON] = None
    idle_timeout: Annotated[OptionalDuration, COMMON] = None
    frame_timeout: Annotated[OptionalDuration, COMMON] = None
    rate: Annotated[OptionalRate, COMMON] = None
    rate_per_peer: Annotated[OptionalRate, COMMON] = None
    allow: Annotated[
        Networks | None, About("NETWORKS", "whose peers may connect; names are not looked up", default="everybody's")
    ] = None
    proxy_protocol_from: Annotated[
        Proxies | None,
        About(
            "NETWORKS",
            "of proxies that begin every connection with a PROXY header (v1 or v2); nobody else may connect",
            "limits, ``allow`` and ``peer`` go by the address that the header announces; see docs/proxy.md",
            default="no header is expected",
        ),
    ] = None
    receive_buffer: Annotated[
        BufferSize | None, Takes.PART, About("SIZE", "of the socket's receive buffer", default="the kernel's tuning")
    ] = None

    tls: Annotated[
        TLSTable | None, Takes.PART, About("TABLE:", "TLS, and then nothing else is spoken; see below", default="none")
    ] = None

    sinks: Annotated[
        SinkNames | None, Takes.PART, About("NAMES", "of the sinks that records go to", default="all sinks")
    ] = None

    @property
    def word(self) -> str:
        """The word of its kind."""
        return self.protocol


class SourceTable(Table):
    """
    ``[sources.NAME]``, as far as all kinds have it in common: those that go and fetch, where a listener waits.

    The table of a kind adds its own keys, and says by ``type: Literal["word"]`` which it is.
    """

    type: Annotated[str, About("WORD:", "the kind of source")]

    sinks: Annotated[
        SinkNames | None, Takes.PART, About("NAMES", "of the sinks that records go to", default="all sinks")
    ] = None

    @property
    def word(self) -> str:
        """The word of its kind."""
        return self.type


class SourceContext(NamedTuple):
    """What a source may need to be made."""

    reactor: Any
    events: Events
    wall_time: Callable[[], float]
    """Gives Unix time."""
    ids: Iterator[int]
    """Numbers connections; the sources of a process share it."""
    limits: ListenerLimits
    intake: Intake
    admission: Admission


TAGS = {"listeners": "protocol", "sources": "type"}
"""Where sources are configured, and the key that says there of which kind one is."""

T = TypeVar("T", bound=ListenerTable | SourceTable)


def _nothing(_: Any, __: ListenerLimits) -> tuple[()]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceType(Generic[T]):
    """A kind of source. `word` is what stands in its table, as ``protocol`` of a listener and as ``type`` of others."""

    table: type[T]
    """Its keys."""
    make: Callable[[str, T, SourceContext], ISource]
    """Makes a source from its name and its table; acquires nothing yet. Raises nothing."""
    flag: str
    """The flag, without its dashes, that makes one from its address alone."""
    summary: str
    """What comes from where, for ``--help``: a few words that follow the address."""
    tls_flag: str | None = None
    """The flag that makes one which speaks TLS; ``None``: this kind does not, and refuses the table of it."""
    address: str = "endpoint"
    """The key whose value follows the flag."""
    page: str = "docs/operations.md"
    """Where to read about it: a page of ours, or an address."""
    promises: Durability | None = None
    """What each record is promised, unless the operator says otherwise, by an answer; ``None``: there is none."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What ``[limits]`` is for this kind where neither it nor the table says so, by keys of it."""
    foreign: Mapping[str, str] = field(default_factory=dict)
    """Keys that other kinds have and this one refuses, with the reason."""
    problems: Callable[[T, ListenerLimits], Iterable[tuple[str, str]]] = _nothing
    """Gives keys and what is wrong with them, where one key alone cannot say it."""

    @property
    def word(self) -> str:
        """The word that operators write."""
        return str(get_args(self.table.model_fields[TAGS[self.section]].annotation)[0])

    @property
    def section(self) -> str:
        """The table of tables that its own is in: ``listeners`` or ``sources``."""
        return "listeners" if issubclass(self.table, ListenerTable) else "sources"


@cache
def source_types() -> Kinds[SourceType[Any]]:
    """Give all kinds of sources; found once, since what is installed does not change while a process lives."""
    return find_kinds(__name__.rpartition(".")[0], GROUP, _check)


def types_in(section: str) -> Mapping[str, SourceType[Any]]:
    """Give the kinds that are configured in a table of tables, by their words."""
    return {word: kind for word, kind in source_types().items() if kind.section == section}


def _check(kind: object) -> SourceType[Any]:
    if not isinstance(kind, SourceType):
        raise TypeError(f"{type(kind).__name__} is no SourceType")
    table: object = kind.table
    if not (isinstance(table, type) and issubclass(table, ListenerTable | SourceTable)):
        raise TypeError("its table is no subclass of ListenerTable or SourceTable")
    check_keys(table, TAGS[kind.section], kind.address)
    return kind
