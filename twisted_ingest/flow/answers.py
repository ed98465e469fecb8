"""
The way back: a lane whose producer hears which of its batches are safe, so that it can answer for them.
"""

from collections import deque
from typing import Protocol

from zope.interface import implementer

from twisted_ingest.batch import Batch
from twisted_ingest.errors import PauseReason
from twisted_ingest.flow.lane import Lane, LaneOwner, LaneRoute
from twisted_ingest.interfaces import IAnsweringProducer, IBatchConsumer


class AnsweringRoute(LaneRoute, Protocol):
    """Where batches go whose sender waits for an answer."""

    def tell_later(self, lane: "AnsweringLane") -> None:
        """Call `AnsweringLane.tell` once the group at hand is settled."""


@implementer(IBatchConsumer)
class AnsweringLane(Lane):
    """
    A lane that tells its producer, an `IAnsweringProducer`, what became of its batches.

    It is told in the order in which it wrote them, whatever order the sinks answered in; and once one was refused,
    of none behind it. What is settled at once is told at once.
    """

    __slots__ = ("_fate", "_is_telling", "_untold", "_withheld")

    is_answered = True
    producer: IAnsweringProducer | None

    _route: AnsweringRoute

    def __init__(self, owner: LaneOwner, route: AnsweringRoute, limit: int) -> None:
        super().__init__(owner, route, limit)
        self._untold: deque[Batch] = deque()
        """Batches the producer has not heard of, in order."""
        self._fate: dict[Batch, bool] = {}
        """Which of them were taken, and which refused; the others nobody has answered for yet."""
        self._is_telling = False
        self._withheld = False

    def write(self, batch: Batch) -> None:
        """See ``IBatchConsumer``."""
        # Before anything else: a sink may take the batch before this returns.
        self._untold.append(batch)
        super().write(batch)

    def settle(self, batch: Batch, *, taken: bool) -> None:
        """See `Lane`; the producer hears of it with the rest of the group."""
        super().settle(batch, taken=taken)
        self._fate[batch] = taken
        if not self._is_telling:
            self._is_telling = True
            self._route.tell_later(self)

    def tell(self) -> None:
        """Tell the producer of the batches at the front whose fate is known."""
        self._is_telling = False
        untold, fate, taken = self._untold, self._fate, 0
        while untold and fate.get(untold[0]):
            del fate[untold.popleft()]
            taken += 1
        if self.producer is not None:
            # A refused batch stays at the front for ever, so that nothing behind it is told.
            _report(self.producer, taken, is_refused=bool(untold) and untold[0] in fate)

    def withhold(self, is_withheld: bool) -> None:
        """Keep the producer paused on its own account, or no longer."""
        if is_withheld is not self._withheld:
            self._withheld = is_withheld
            self.update()

    def _reason(self) -> PauseReason | None:
        return super()._reason() or (PauseReason.ANSWERS if self._withheld else None)


def _report(producer: IAnsweringProducer, taken: int, *, is_refused: bool) -> None:
    try:
        if taken:
            producer.settled(taken)
        if is_refused:
            producer.refused()
    except Exception:  # noqa: BLE001 - the rest of the group must be settled all the same
        producer.fail("an answer")
