"""
One connection's place in the flow: it takes batches, and pauses its producer.

A lane outlives its connection until its batches are settled. It knows its owner and its route, not sockets.
"""

from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from twisted_ingest.batch import Batch
from twisted_ingest.errors import PauseReason
from twisted_ingest.flow.pauses import Pauses
from twisted_ingest.flow.watermark import Watermark
from twisted_ingest.interfaces import IBatchConsumer, IBatchProducer
from twisted_ingest.limits import BATCH_OVERHEAD, CROWDED_MEMORY, READ_SIZE, WHOLE_READ


class LaneOwner(Protocol):
    """What a lane needs of the intake, which all lanes belong to."""

    clock: IReactorTime
    pauses: Pauses
    """Told of each change."""

    @property
    def is_crowded(self) -> bool:
        """Whether so much is held by all that each may hold less."""

    def join(self, lane: "Lane") -> None:
        """Count a lane in; it may be paused before this returns."""

    def leave(self, lane: "Lane") -> None:
        """Count a lane out: its connection is gone. Its batches stay until they are settled."""

    def hold(self, delta: int) -> None:
        """Charge a change in what unfinished records take."""


class LaneRoute(Protocol):
    """Where a lane's batches go, for life."""

    def take(self, lane: "Lane", batch: Batch, charge: int) -> None:
        """Take a batch that was charged with so many bytes; later `Lane.settle` is called with it, once."""


@implementer(IBatchConsumer)
class Lane:
    """
    The consumer that one connection registers itself with.

    ``limit`` is what the connection may hold in bytes, partial record included. The producer is
    paused while one more read (of ``read_size`` bytes at most) could pass it, or while the intake's budget is above its
    mark; it may hold less while connections crowd.
    A partial record alone never pauses: only sinks could relieve it, and they do not have it yet.
    """

    is_answered = False
    """Whether somebody waits for what becomes of its batches."""

    __slots__ = (
        "_mark",
        "_owner",
        "_resting",
        "_route",
        "_share",
        "held",
        "held_since",
        "in_flight",
        "is_paused",
        "pause_reason",
        "producer",
        "read_size",
        "waiting",
    )

    def __init__(self, owner: LaneOwner, route: LaneRoute, limit: int) -> None:
        self._owner = owner
        self._route = route
        self.read_size = min(WHOLE_READ, max(READ_SIZE, limit // 4))
        high = max(limit - self.read_size, 0)
        share = min(CROWDED_MEMORY, high)
        self._mark = Watermark(high, high // 2)
        self._share = Watermark(share, share // 2)
        """What holds while connections crowd."""
        self.producer: IBatchProducer | None = None
        self.in_flight = 0
        """Bytes charged for batches that are not settled."""
        self.held = 0
        """Bytes charged for the unfinished record."""
        self.held_since = 0.0
        self.is_paused = False
        self.pause_reason: PauseReason | None = None
        self._resting: IDelayedCall | None = None
        self.waiting = False
        """Kept paused by the intake, on account of the budget."""

    def registerProducer(self, producer: IBatchProducer, streaming: bool) -> None:
        """See ``IBatchConsumer``; raises ``RuntimeError`` for a second producer or a pull producer."""
        if self.producer is not None or not streaming:
            raise RuntimeError(f"a lane takes one push producer; it has {self.producer!r}")
        self.producer = producer
        self._owner.join(self)

    def unregisterProducer(self) -> None:
        """See ``IBatchConsumer``."""
        self.hold(0, 0.0)
        self.producer = None
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        self._owner.leave(self)

    def write(self, batch: Batch) -> None:
        """See ``IBatchConsumer``."""
        charge = batch.size + BATCH_OVERHEAD
        self.in_flight += charge
        # Asked first what almost always settles it: this runs once per read, whatever its size.
        level = self.in_flight + self.held
        if level > self._share.high and self._weigh(level):
            self.update()
        self._route.take(self, batch, charge)

    def hold(self, size: int, since: float) -> None:
        """See ``IBatchConsumer``."""
        delta = size - self.held
        self.held = size
        self.held_since = since
        if not delta:
            return
        if self.in_flight and self._weigh(self.in_flight + size):
            self.update()
        self._owner.hold(delta)

    def settle(self, batch: Batch, *, taken: bool) -> None:
        """Take back the charge of a batch that the required sinks have ``taken`` (or lost, which is counted)."""
        self.in_flight -= batch.size + BATCH_OVERHEAD
        # With nothing in flight nobody else could bring the level down.
        is_high = self._mark.is_high or self._share.is_high
        if is_high and self._weigh(self.in_flight + self.held if self.in_flight else 0):
            self.update()

    def _weigh(self, level: int) -> bool:
        """Hold a level against the marks; true where that changed one."""
        changed = self._mark.update(level)
        if self._share.is_high or self._owner.is_crowded:
            changed = self._share.update(level) or changed
        return changed

    def rest(self, seconds: float) -> None:
        """Keep the producer paused for ``seconds``: it has sent faster than it may."""
        if self._resting is None:
            self._resting = self._owner.clock.callLater(seconds, self._rested)
            self.update()

    def end_rest(self) -> None:
        """Let the producer go on, whatever it has sent."""
        if self._resting is not None:
            self._resting.cancel()
            self._rested()

    def _rested(self) -> None:
        self._resting = None
        self.update()

    def update(self) -> None:
        """Pause or resume the producer, as the reasons to be paused now stand."""
        before, after = self.pause_reason, self._reason()
        if after is before or self.producer is None:
            return
        self.pause_reason = after
        self.is_paused = after is not None
        self._owner.pauses.change(before, after)
        try:
            if before is None:
                self.producer.pauseProducing()
            elif after is None:
                self.producer.resumeProducing()
        except Exception:  # noqa: BLE001 - it would leave the other lanes of a group unsettled
            self.producer.fail("pausing or resuming")

    def _reason(self) -> PauseReason | None:
        """Name the reason to be paused that is the hardest to mend."""
        if self.waiting:
            return PauseReason.BUDGET
        if self._mark.is_high or self._share.is_high:
            return PauseReason.CONNECTION
        return PauseReason.RATE if self._resting is not None else None
