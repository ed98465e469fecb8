"""
What is on its way: one call of ``deliver``, its batches, and the order they go in.

Pure, but for the Deferred that tells the end.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from twisted_ingest.batch import Batch, Group
from twisted_ingest.errors import SinkError
from twisted_ingest.rejected import Refusal, Rejected


class Delivery:
    """
    One call of ``deliver``. ``done`` fires once every batch is settled: with `Rejected`, or with ``None``.

    It fires in the call that settles the last of them, and never twice.
    """

    __slots__ = ("_open", "_refusals", "done")

    def __init__(self, group: Group) -> None:
        self.done: Deferred[Any] = Deferred()
        self._open = len(group.batches)
        self._refusals: list[Refusal] = []

    def reject(self, batch: Batch, records: Sequence[int] | None, reason: str) -> None:
        """Note records of a batch that will never be taken; the batch has still to be settled."""
        self._refusals.append(Refusal(batch, records, reason))

    def settle(self) -> None:
        """Note that one of its batches is over."""
        self._open -= 1
        if not self._open and not self.done.called:
            self.done.callback(Rejected(self._refusals) if self._refusals else None)

    def fail(self, error: SinkError) -> None:
        """Give it up: what is not settled was not taken."""
        if not self.done.called:
            self.done.errback(error)


class Request:
    """
    One batch on its way, from the front.

    The first ``taken`` of its ``count`` records are answered for, the first ``sent`` have been sent on the connection
    there is. ``end`` is where its bytes end among those of the connection, ``since`` when it was first sent, in reactor
    seconds; ``None`` before that. ``has_refused`` marks one of which records were rejected.
    """

    __slots__ = ("batch", "count", "delivery", "end", "has_refused", "sent", "since", "taken")

    def __init__(self, delivery: Delivery, batch: Batch) -> None:
        self.delivery = delivery
        self.batch = batch
        self.count = batch.count
        self.sent = 0
        self.taken = 0
        self.end = 0
        self.since: float | None = None
        self.has_refused = False

    @property
    def unanswered(self) -> int:
        """Records sent and not answered for."""
        return self.sent - self.taken

    @property
    def is_gone(self) -> bool:
        """Whether its bytes were taken back, as at the end of a drain: it cannot be sent any more."""
        try:
            return len(self.batch.wire) != self.batch.size
        except ValueError:
            return True


class Queue:
    """
    Requests in order: those under way (of which all that may be sent was), then those that wait.

    The first that waits may have been sent in part. ``on_settled`` is called with each that is over.
    """

    def __init__(self, on_settled: Callable[[Request], None]) -> None:
        self._on_settled = on_settled
        self.under_way: deque[Request] = deque()
        self.waiting: deque[Request] = deque()
        self.unanswered = 0
        """Records sent and not answered for."""

    def __len__(self) -> int:
        return len(self.under_way) + len(self.waiting)

    def __iter__(self) -> Iterator[Request]:
        yield from self.under_way
        yield from self.waiting

    def put(self, delivery: Delivery, batch: Batch) -> None:
        """Add a batch at the end."""
        self.waiting.append(Request(delivery, batch))

    def send(self, request: Request, records: int, now: float) -> None:
        """Note that so many further records of the first request that waits are being sent."""
        request.sent += records
        self.unanswered += records
        if request.since is None:
            request.since = now
        if request.sent == request.count:
            self.waiting.popleft()
            self.under_way.append(request)

    @property
    def requests_sent(self) -> int:
        """How many requests are sent, in part or whole, and not answered for."""
        return len(self.under_way) + (bool(self.waiting) and self.waiting[0].unanswered > 0)

    @property
    def oldest(self) -> Request | None:
        """The request whose answer is due next; ``None`` where nothing is unanswered."""
        if self.under_way:
            return self.under_way[0]
        return self.waiting[0] if self.waiting and self.waiting[0].unanswered else None

    def answer(self, records: int) -> int:
        """Note that the oldest ``records`` unanswered ones were answered for; gives how many there were not."""
        while records and (request := self.oldest) is not None:
            answered = min(records, request.unanswered)
            records -= answered
            self.unanswered -= answered
            request.taken += answered
            if request.taken == request.count:
                self.under_way.popleft()
                self._settle(request)
            elif answered == 0:
                break
        return records

    def reject(self, reason: str) -> bool:
        """Note that the oldest unanswered record will never be taken; false where there is none."""
        request = self.oldest
        if request is None:
            return False
        request.delivery.reject(request.batch, [request.taken], reason)
        request.has_refused = True
        return self.answer(1) == 0

    def rewind(self) -> tuple[int, int]:
        """
        Have all that is unanswered sent again: the connection is lost.

        Gives how many requests and how many records were sent and not answered.
        """
        lost = [request for request in self if request.unanswered]
        records = self.unanswered
        for request in lost:
            request.sent = request.taken
        self.waiting.extendleft(reversed(self.under_way))
        self.under_way.clear()
        self.unanswered = 0
        return len(lost), records

    def fail(self, error: SinkError) -> None:
        """Give everything up."""
        given_up = list(self)
        self.under_way.clear()
        self.waiting.clear()
        self.unanswered = 0
        for request in given_up:
            request.delivery.fail(error)

    def _settle(self, request: Request) -> None:
        self._on_settled(request)
        request.delivery.settle()
