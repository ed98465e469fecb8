"""
The way to one sink: handing over a group whatever the sink makes of that, and the accounts of what it has.
"""

from asyncio import isfuture
from collections.abc import Callable, Mapping
from inspect import iscoroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from twisted_ingest.batch import Batch, Group
from twisted_ingest.errors import DropReason
from twisted_ingest.flow.claims import Claims
from twisted_ingest.interfaces import ISink
from twisted_ingest.ledger import Tally

Bug = Callable[[str, Failure], None]
"""Hears of a bug that was caught: where it was met, and what was raised."""

_MARK = "ingest_answers_a_group"
"""The attribute of a Deferred that has been given for a group."""


def deliver(sink: ISink, group: Group) -> "Deferred[Any]":
    """
    Hand over a group; gives a Deferred of this group alone, whatever the sink makes of the call.

    It fires and fails as `ISink.deliver` says. What is raised becomes its failure, a coroutine is run, and an answer
    that could tell nothing of what becomes of the group is a `TypeError`.
    """
    try:
        return _answer(sink, sink.deliver(group))
    except Exception:  # noqa: BLE001 - the batches are those of innocent connections
        return fail()


def _answer(sink: ISink, answer: object) -> "Deferred[Any]":
    if iscoroutine(answer):
        return Deferred.fromCoroutine(answer)
    if isfuture(answer):
        return Deferred.fromFuture(answer)
    if not isinstance(answer, Deferred):
        # None may be a forgotten `return`, a generator code that never ran: neither says that anything was taken.
        raise TypeError(
            f"deliver of sink {sink.name} returned {type(answer).__name__}: let it return a Deferred "
            "(succeed(None) for a group that it has taken at once), or make it a coroutine"
        )
    if _MARK in vars(answer):
        # Its first group has had the answer already, and left none for this one.
        raise TypeError(f"deliver of sink {sink.name} returned a Deferred again: each group needs one of its own")
    vars(answer)[_MARK] = True
    return answer


# What a sink says of itself. A page, a probe or a stop that asks must not fall with one sink.


def trouble_of(sink: ISink, on_bug: Bug) -> str | None:
    """Ask a sink why it takes nothing; one that cannot be asked is in trouble."""
    try:
        trouble = sink.trouble
    except Exception as error:  # noqa: BLE001 - see above
        on_bug(f"trouble of sink {sink.name}", Failure())
        return f"it cannot say how it is ({type(error).__name__}: {error})"
    return None if trouble is None else str(trouble)


def description_of(sink: ISink, on_bug: Bug) -> str:
    """Ask a sink where records go."""
    try:
        return str(sink.describe())
    except Exception:  # noqa: BLE001 - see above
        on_bug(f"describe of sink {sink.name}", Failure())
        return f"sink {sink.name} (it cannot say where to)"


def details_of(sink: ISink, on_bug: Bug) -> Mapping[str, float]:
    """Ask a sink for its counters; none where any of them is no number, or its name could not be a metric's."""
    try:
        return _checked(dict(sink.details()))
    except Exception:  # noqa: BLE001 - see above
        on_bug(f"details of sink {sink.name}", Failure())
        return {}


def _checked(details: dict[str, float]) -> dict[str, float]:
    for name, value in details.items():
        if not isinstance(value, int | float):
            raise TypeError(f"{name} is {type(value).__name__}, and must be a number")
        if not (name.isascii() and name.partition("/")[0].isidentifier()):
            raise ValueError(f"{name!r} cannot be the end of a metric's name: letters, digits and _ can")
    return details


class GroupOwner(Protocol):
    """Who made a group, and can give it up on behalf of a sink: its route."""

    def lose(self, outlet: "Outlet", claims: Claims, reason: DropReason) -> None:
        """Count a group as lost to a sink, and let go of it."""


class Outlet:
    """
    The intake's side of one sink: what it was handed and has not taken yet, and its tallies.

    ``limit`` bounds the bytes outstanding at a sink that is not required; ``None`` where the budget does.
    """

    def __init__(self, sink: ISink, *, required: bool, limit: int | None) -> None:
        self.sink = sink
        self.required = required
        self.limit = limit
        self.outstanding: dict[Claims, GroupOwner] = {}
        """Groups it has not answered for, in order, and their routes."""
        self.charge = 0
        self.tallies: dict[str, Tally] = {}

    def tally(self, listener: str) -> Tally:
        """Give the counts of one listener at this sink, made on first use."""
        tally = self.tallies.get(listener)
        if tally is None:
            tally = self.tallies[listener] = Tally()
        return tally

    def take_or_drop(self, claims: Claims) -> bool:
        """See that there is room for a group; drop and count its records where there is none, and say no."""
        if self.limit is None or self.charge + claims.charge <= self.limit:
            return True
        self.count_dropped(claims, DropReason.OVERFLOW)
        return False

    def count_dropped(self, claims: Claims, reason: DropReason) -> None:
        """Count a group's records as lost to this sink."""
        for batch in claims.batches:
            self.tally(batch.info.listener).records_dropped[reason] += batch.count

    def count_delivered(self, claims: Claims) -> None:
        """Count a group as taken by this sink: batch by batch, so that one lost on the way is missed."""
        listener = claims.batches[0].info.listener
        tally = self.tally(listener)
        for batch in claims.batches:
            if batch.info.listener is not listener:
                listener = batch.info.listener
                tally = self.tally(listener)
            tally.records_delivered += batch.count
            tally.bytes_delivered += batch.size

    def count_rejected(self, lost: list[tuple[Batch, int, int]]) -> None:
        """Count what was rejected of a group that was counted as taken: batch, records and bytes of each."""
        for batch, records, size in lost:
            tally = self.tally(batch.info.listener)
            tally.records_delivered -= records
            tally.bytes_delivered -= size
            tally.records_dropped[DropReason.REJECTED] += records
