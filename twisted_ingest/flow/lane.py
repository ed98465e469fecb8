"""
One connection's place in the flow: it takes batches, and pauses its producer.

A lane outlives its connection until its batches are settled. It knows the intake, not sockets.
"""

from typing import TYPE_CHECKING

from zope.interface import implementer

from twisted_ingest.batch import Batch
from twisted_ingest.flow.watermark import Watermark
from twisted_ingest.interfaces import IBatchConsumer, IBatchProducer
from twisted_ingest.limits import BATCH_OVERHEAD, READ_SIZE

if TYPE_CHECKING:
    from twisted_ingest.flow.intake import Intake


@implementer(IBatchConsumer)
class Lane:
    """
    The consumer that one connection registers itself with.

    ``limit`` is what the connection may hold in bytes, partial record included. The producer is
    paused while one more read could pass it, or while the intake's budget is above its mark.
    A partial record alone never pauses: only sinks could relieve it, and they do not have it yet.
    """

    __slots__ = ("_intake", "_low", "_mark", "held", "held_since", "in_flight", "is_paused", "producer", "waiting")

    def __init__(self, intake: "Intake", limit: int) -> None:
        self._intake = intake
        high = max(limit - READ_SIZE, 0)
        self._mark = Watermark(high, high // 2)
        self.producer: IBatchProducer | None = None
        self.in_flight = 0
        """Bytes charged for batches that are not settled."""
        self.held = 0
        """Bytes charged for the unfinished record."""
        self.held_since = 0.0
        self.is_paused = False
        self.waiting = False
        """Kept paused by the intake, on account of the budget."""

    def registerProducer(self, producer: IBatchProducer, streaming: bool) -> None:
        """See ``IBatchConsumer``; raises ``RuntimeError`` for a second producer or a pull producer."""
        if self.producer is not None or not streaming:
            raise RuntimeError(f"a lane takes one push producer; it has {self.producer!r}")
        self.producer = producer
        self._intake.join(self)

    def unregisterProducer(self) -> None:
        """See ``IBatchConsumer``."""
        self.hold(0, 0.0)
        self.producer = None
        self._intake.leave(self)

    def write(self, batch: Batch) -> None:
        """See ``IBatchConsumer``."""
        batch.lane = self
        charge = batch.size + BATCH_OVERHEAD
        self.in_flight += charge
        # Asked first what almost always settles it: this runs once per read, whatever its size.
        level = self.in_flight + self.held
        if level > self._mark.high and self._mark.update(level):
            self.update()
        self._intake.take(batch, charge)

    def hold(self, size: int, since: float) -> None:
        """See ``IBatchConsumer``."""
        delta = size - self.held
        self.held = size
        self.held_since = since
        if not delta:
            return
        if self.in_flight and self._mark.update(self.in_flight + size):
            self.update()
        self._intake.hold(delta)

    def settle(self, charge: int) -> None:
        """Take back the charge of batches that the required sinks have taken (or lost, which is counted)."""
        self.in_flight -= charge
        # With nothing in flight nobody else could bring the level down.
        if self._mark.is_high and self._mark.update(self.in_flight + self.held if self.in_flight else 0):
            self.update()

    def update(self) -> None:
        """Pause or resume the producer, as the two reasons to be paused now stand."""
        paused = self.waiting or self._mark.is_high
        if paused == self.is_paused or self.producer is None:
            return
        self.is_paused = paused
        if paused:
            self._intake.paused_lanes += 1
            self.producer.pauseProducing()
        else:
            self._intake.paused_lanes -= 1
            self.producer.resumeProducing()

    @property
    def pause_reason(self) -> str | None:
        """``budget``, ``connection``, or ``None`` while reading."""
        if not self.is_paused:
            return None
        return "budget" if self.waiting else "connection"
