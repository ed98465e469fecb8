"""
Who lends batches their bytes, as reading in bulk does, so that it shows when a sink keeps them for too long.
"""

from twisted.internet.interfaces import IReactorTime

from twisted_ingest.batch import LF, Batch, ConnectionInfo, Group
from twisted_ingest.flow.answers import AnsweringLane
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.intake import Intake
from twisted_ingest.flow.lane import Lane
from twisted_ingest.flow.route import Route

FILLING = b"#"
"""What bytes are overwritten with that were given back."""


class _Loan:
    """The buffer of one batch; see `Lease`."""

    __slots__ = ("_buffer", "_lender")

    def __init__(self, buffer: bytearray, lender: "Lender") -> None:
        self._buffer = buffer
        self._lender = lender

    def let_go(self) -> None:
        """Overwrite the bytes, and see whether somebody looks at them still."""
        buffer = self._buffer
        buffer[:] = FILLING * len(buffer)
        self._lender.returned += 1
        try:
            buffer.append(0)
        except BufferError:
            self._lender.kept += 1


class Lender:
    """
    Lends bytes to batches: each becomes a view of a buffer that is overwritten once it was given back.

    Whoever uses such a batch then meets ``ValueError``. Whoever kept a view that he made of it reads `FILLING`, and
    ``kept`` counts it. ``lent`` and ``returned`` count buffers: they are equal once every group is settled.
    """

    def __init__(self) -> None:
        self.lent = 0
        self.returned = 0
        self.kept = 0

    def lend(self, batch: Batch) -> Batch:
        """Let a batch have lent bytes, the same ones, in place of its own; gives the batch."""
        if isinstance(batch.wire, bytes) and batch.lease is None:
            buffer = bytearray(batch.wire)
            batch.wire, batch.lease = memoryview(buffer), _Loan(buffer, self)
            self.lent += 1
        return batch

    def group(self, *blocks: bytes, info: ConnectionInfo | None = None, needs_sync: bool = False) -> Group:
        """Make a group for a sink that is tested by itself: of each block of lines, which ends in LF, a batch."""
        info = info or ConnectionInfo(1, "test", "192.0.2.1:40000", "192.0.2.1")
        batches = [self.lend(Batch(block, block.count(LF), info, 0.0)) for block in blocks]
        return Group(batches, sum(map(len, blocks)), needs_sync=needs_sync)

    def settle(self, group: Group) -> None:
        """Take the bytes of a group back, as a route does once the Deferred of `ISink.deliver` has fired."""
        for batch in group.batches:
            batch.let_go()


class _LendingLane(Lane):
    __slots__ = ("lender",)

    lender: Lender

    def write(self, batch: Batch) -> None:
        """See ``IBatchConsumer``."""
        super().write(self.lender.lend(batch))


class _LendingAnsweringLane(AnsweringLane):
    __slots__ = ("lender",)

    lender: Lender

    def write(self, batch: Batch) -> None:
        """See ``IBatchConsumer``."""
        super().write(self.lender.lend(batch))


class LendingIntake(Intake):
    """An intake where a lender, if there is one, lends every batch its bytes that is written to a lane."""

    def __init__(self, clock: IReactorTime, budget: Budget, connection_limit: int, lender: Lender | None) -> None:
        super().__init__(clock, budget, connection_limit)
        self._lender = lender

    def open_lane(self, route: Route) -> Lane:
        """See `Intake`."""
        if self._lender is None:
            return super().open_lane(route)
        lane = _LendingLane(self, route, self.connection_limit)
        lane.lender = self._lender
        return lane

    def open_answering_lane(self, route: Route) -> AnsweringLane:
        """See `Intake`."""
        if self._lender is None:
            return super().open_answering_lane(route)
        lane = _LendingAnsweringLane(self, route, self.connection_limit)
        lane.lender = self._lender
        return lane
