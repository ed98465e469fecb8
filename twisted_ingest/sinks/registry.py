"""
Which sinks there are, and what each kind of them is, in one place.

A module of this room names its kinds in ``KINDS``; other distributions add theirs by the entry point
``twisted_ingest.sinks`` (docs/plugins.md). Settings, ``--help``, checks and the making of sinks go by these.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, get_args

from pydantic import BeforeValidator

from twisted_ingest.config.fields import About, Table
from twisted_ingest.config.kinds import Kinds, check_keys, find_kinds
from twisted_ingest.errors import Durability
from twisted_ingest.interfaces import ISink
from twisted_ingest.observe.events import Events
from twisted_ingest.units import quote

GROUP = "twisted_ingest.sinks"
"""The group of entry points, each of which names a `SinkType`."""


def _letter_path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("file:") or value == "file:" or "\0" in value:
        raise ValueError(f'{quote(value)} is not where dead letters can go (try "file:PATH")')
    return value.removeprefix("file:")


LetterPath = Annotated[str, BeforeValidator(_letter_path)]


class SinkTable(Table):
    """
    ``[sinks.NAME]``, as far as all kinds have it in common.

    The table of a kind adds its own keys, and says by ``type: Literal["word"]`` which kind it is.
    """

    type: Annotated[str, About("WORD:", "the kind of sink")]
    required: Annotated[
        bool,
        About("true|false:", "answers and senders wait for it; one that is not loses what it cannot hold"),
    ] = True
    spool: Annotated[bool, About("true|false:", "a durable queue in front of it")] = False
    dead_letter: Annotated[
        LetterPath | None,
        About("file:PATH", "for records that the sink will never take, a JSON object a line", default="none"),
    ] = None


class Place(NamedTuple):
    """Something that a sink has for itself: no other sink may write to it."""

    what: str
    """A path, as it was given or not; or a few words."""
    key: str | None = None
    """The key whose value is a path, which a check looks at; ``None``: it is no path."""


STANDARD_OUTPUT = Place("standard output")


class SinkContext(NamedTuple):
    """What a sink may need to be made."""

    reactor: Any
    events: Events
    wall_time: Callable[[], float]
    """Gives Unix time."""
    sync_for: str | None
    """Names who relies on what this sink has synced, for a message; ``None``: nobody does."""
    is_patient: bool
    """A spool in front keeps what the sink cannot take, so that a start need not fail for what may pass."""
    charge: Callable[[int], None]
    """Charges bytes to the budget of the process, for what a sink keeps besides the groups it was handed; negative, it
    gives them back."""


T = TypeVar("T", bound=SinkTable)


def _nothing(_: Any) -> tuple[()]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkType(Generic[T]):
    """A kind of sink. `word` is what stands before the colon in ``--sink``, and in the table's ``type``."""

    table: type[T]
    """Its keys: those of a table, and the options of ``--sink word:?key=value``."""
    make: Callable[[str, T, SinkContext], ISink]
    """Makes a sink from its name and its table; acquires nothing yet (`ISink.start` does). Raises nothing."""
    durability: Durability
    """The most that a sink of this kind gives, as in `ISink`."""
    summary: str
    """What becomes of the records, for ``--help``: a few words that follow ``--sink word:``."""
    page: str = "docs/operations.md"
    """Where to read about it: a page of ours, or an address."""
    address: str | None = None
    """The key whose value follows the word and its colon; ``None``: nothing but options may."""
    places: Callable[[T], Iterable[Place]] = _nothing
    """Gives what no other sink may write to."""
    problems: Callable[[T], Iterable[tuple[str, str]]] = _nothing
    """Gives keys and what is wrong with them, where one key alone cannot say it, or only this machine can."""

    @property
    def word(self) -> str:
        """The word that operators write."""
        return str(get_args(self.table.model_fields["type"].annotation)[0])

    def all_places(self, table: T) -> list[Place]:
        """Give what no other sink may write to, its dead letters included."""
        letters = [] if table.dead_letter is None else [Place(table.dead_letter, "dead_letter")]
        return [*self.places(table), *letters]

    @property
    def form(self) -> str:
        """Show how ``--sink`` is written."""
        return f"{self.word}:{(self.address or '').upper()}"


@cache
def sink_types() -> Kinds[SinkType[Any]]:
    """Give all kinds of sinks; found once, since what is installed does not change while a process lives."""
    return find_kinds(__name__.rpartition(".")[0], GROUP, _check)


def _check(kind: object) -> SinkType[Any]:
    if not isinstance(kind, SinkType):
        raise TypeError(f"{type(kind).__name__} is no SinkType")
    table: object = kind.table
    if not (isinstance(table, type) and issubclass(table, SinkTable)):
        raise TypeError("its table is no subclass of SinkTable")
    check_keys(table, "type", kind.address)
    return kind
