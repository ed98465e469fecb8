"""
One sink as the intake sees it: what it says of itself, whatever it makes of being asked, and the accounts of it.
"""

from collections.abc import Mapping
from typing import Protocol

from twisted.python.failure import Failure

from twisted_ingest.batch import Batch
from twisted_ingest.errors import DropReason
from twisted_ingest.flow.claims import Claims
from twisted_ingest.flow.delivery import OnBug
from twisted_ingest.interfaces import ISink
from twisted_ingest.ledger import Tally

# What a sink says of itself. A page, a probe or a stop that asks must not fall with one sink.


def trouble_of(sink: ISink, on_bug: OnBug) -> str | None:
    """Ask a sink why it takes nothing; one that cannot be asked is in trouble."""
    try:
        trouble = sink.trouble
    except Exception as error:  # noqa: BLE001 - see above
        on_bug(f"trouble of sink {sink.name}", Failure())
        return f"it cannot say how it is ({type(error).__name__}: {error})"
    return None if trouble is None else str(trouble)


def description_of(sink: ISink, on_bug: OnBug) -> str:
    """Ask a sink where records go."""
    try:
        return str(sink.describe())
    except Exception:  # noqa: BLE001 - see above
        on_bug(f"describe of sink {sink.name}", Failure())
        return f"sink {sink.name} (it cannot say where to)"


def details_of(sink: ISink, on_bug: OnBug) -> Mapping[str, float]:
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
