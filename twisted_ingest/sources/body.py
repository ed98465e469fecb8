"""
The body of a polled answer: it goes as lines into a lane, read by read, up to its bounds.
"""

from collections.abc import Callable
from typing import Protocol

from twisted_ingest.batch import Batch
from twisted_ingest.errors import DiscardReason, PollResult
from twisted_ingest.flow.lane import Lane
from twisted_ingest.framing.base import Framer
from twisted_ingest.ledger import PollLedger
from twisted_ingest.sources.plan import PollPlan


class BodyOwner(Protocol):
    """What a body needs of whoever has asked for it."""

    plan: PollPlan
    ledger: PollLedger
    lane: Lane

    def make_framer(self) -> Framer:
        """Make the framer of a body."""

    def now(self) -> float:
        """Give the time in reactor seconds."""

    def wall_time(self) -> float:
        """Give Unix time."""

    def heard(self, framer: Framer) -> None:
        """Report what the framer found odd."""

    def fail(self, where: str) -> None:
        """End the poll on account of a bug; called inside the ``except`` block."""


class Body:
    """
    Frames what it is fed, until it is finished or given up.

    ``end`` is called with why it must be, at once where it passes its bounds.
    """

    def __init__(self, owner: BodyOwner, end: Callable[[PollResult, str], None]) -> None:
        self.framer = owner.make_framer()
        self._owner = owner
        self._end = end
        self._size = 0
        self._line_since = 0.0
        self._is_over = False

    def feed(self, data: bytes) -> None:
        """Frame what one read has brought. No exception leaves: a bug costs this poll only, and is counted."""
        framer, owner = self.framer, self._owner
        if self._is_over:
            return
        try:
            owner.ledger.bytes_received += len(data)
            self._size += len(data)
            excess = max(0, self._size - owner.plan.max_body_bytes)
            owner.ledger.bytes_discarded[DiscardReason.UNFINISHED] += excess
            self._pass_on(framer.feed(data[: len(data) - excess], owner.wall_time()))
            if excess:
                self._end(PollResult.TOO_LONG, f"its body is longer than {owner.plan.max_body_bytes} bytes (max_bytes)")
            elif framer.closed is not None:
                self._end(PollResult.OVERSIZE, "a line is too long (max_length, oversize = 'close')")
        except Exception:  # noqa: BLE001 - whatever it is, it must end here
            owner.fail("a poll")

    def finish(self, *, is_certain: bool) -> None:
        """Deliver a last line that no LF ends: where the body's own end ``is_certain``, so is the line's."""
        last = self.framer.finish(self._owner.wall_time())
        if is_certain:
            for batch in last:
                batch.partial = False
                self._owner.ledger.records_partial -= batch.count
        self._pass_on(last)
        self._is_over = True

    def give_up(self) -> None:
        """Count the line that is unfinished: the body has no end, and is asked for again."""
        self._is_over = True
        if self.framer.closed is None:
            self.framer.discard(DiscardReason.UNFINISHED)

    def evict(self) -> bytes:
        """Give up the unfinished line for want of memory; gives what there was of it."""
        framer = self.framer
        if self._is_over:
            return b""
        start = bytes(framer.partial)
        batches = framer.evict(self._owner.wall_time())
        framer.oversized.clear()  # it is told of under its own cause
        self._pass_on(batches)
        if framer.closed is not None:
            self._end(PollResult.OVERSIZE, "unfinished lines take too much memory (oversize = 'close')")
        return start

    def _pass_on(self, batches: list[Batch]) -> None:
        lane = self._owner.lane
        for batch in batches:
            lane.write(batch)
        if batches or not self._line_since:
            self._line_since = self._owner.now()
        lane.hold(self.framer.memory, self._line_since)
        self._owner.heard(self.framer)
