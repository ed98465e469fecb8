"""
Sinks that keep what they are given, wait, fail or reject, as a test says.
"""

from collections import deque
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from twisted_ingest.batch import Batch, Group
from twisted_ingest.errors import Durability, SinkError
from twisted_ingest.interfaces import ISink
from twisted_ingest.rejected import Rejected


@implementer(ISink)
class MemorySink:
    """Keeps a copy of every batch it was handed, and answers at once."""

    durability = Durability.MEMORY
    wants_groups = False

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self.trouble: str | None = None
        self.batches: list[Batch] = []
        self.groups = 0
        self.reopened = 0

    @property
    def records(self) -> list[bytes]:
        """All records, in order."""
        return [record for batch in self.batches for record in batch.records()]

    def describe(self) -> str:
        """See `ISink`."""
        return "memory"

    def start(self) -> None:
        """See `ISink`."""

    def deliver(self, group: Group) -> "Deferred[Any]":
        """See `ISink`."""
        self.keep(group)
        return succeed(None)

    def keep(self, group: Group) -> None:
        """Remember a group."""
        self.groups += 1
        self.batches += [batch.copy() for batch in group.batches]

    def reopen(self) -> None:
        """See `ISink`; counted."""
        self.reopened += 1

    def close(self) -> "Deferred[None]":
        """See `ISink`."""
        return succeed(None)

    def abandon(self) -> None:
        """See `ISink`."""

    def details(self) -> dict[str, int]:
        """See `ISink`."""
        return {}


class StalledSink(MemorySink):
    """Answers when told to: keeps a group only once it is released."""

    def __init__(self, name: str = "stalled") -> None:
        super().__init__(name)
        self.waiting: deque[tuple[Group, Deferred[Any]]] = deque()

    def deliver(self, group: Group) -> "Deferred[Any]":
        """See `ISink`: the Deferred waits for `release` or `fail`."""
        done: Deferred[None] = Deferred()
        self.waiting.append((group, done))
        return done

    def release(self, number: int | None = None) -> None:
        """Take the oldest groups, all by default, those included that come meanwhile."""
        while self.waiting and number != 0:
            group, done = self.waiting.popleft()
            self.keep(group)
            number = None if number is None else number - 1
            done.callback(None)

    def fail(self) -> None:
        """Refuse the oldest group for good."""
        _, done = self.waiting.popleft()
        done.errback(SinkError(f"sink {self.name} was told to fail"))

    def abandon(self) -> None:
        """See `ISink`."""
        while self.waiting:
            self.fail()


class FlakySink(MemorySink):
    """Rejects every ``period``-th group, and takes the others."""

    def __init__(self, period: int, name: str = "flaky") -> None:
        super().__init__(name)
        self._period = period
        self._calls = 0

    def deliver(self, group: Group) -> "Deferred[Any]":
        """See `ISink`."""
        self._calls += 1
        if self._calls % self._period:
            return super().deliver(group)
        return succeed(Rejected.whole(group, f"sink {self.name} rejects call {self._calls}"))


class Mode(Enum):
    """What a `ScriptedSink` does with a group."""

    TAKE = "take"
    REFUSE = "refuse"
    STALL = "stall"


class ScriptedSink(StalledSink):
    """
    Does with each group what ``mode`` says when it comes; behind one that waits, every later one waits too.

    ``offered`` and ``refused`` are batches, in order.
    """

    def __init__(self, name: str = "scripted") -> None:
        super().__init__(name)
        self.mode = Mode.TAKE
        self.offered: list[Batch] = []
        self.refused: list[Batch] = []

    def deliver(self, group: Group) -> "Deferred[Any]":
        """See `ISink`."""
        self.offered += [batch.copy() for batch in group.batches]
        done = super().deliver(group)
        if len(self.waiting) == 1 and self.mode is not Mode.STALL:
            if self.mode is Mode.TAKE:
                self.release(1)
            else:
                self.fail()
        return done

    def fail(self) -> None:
        """See `StalledSink`."""
        self.refused += [batch.copy() for batch in self.waiting[0][0].batches]
        super().fail()
