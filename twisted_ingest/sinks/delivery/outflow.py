"""
What goes out on one connection: requests framed and handed to the wire, and how much of that the other side has.
"""

from collections.abc import Callable
from typing import Any

from twisted_ingest.limits import GATHER_BYTES
from twisted_ingest.sinks.delivery.account import Account
from twisted_ingest.sinks.delivery.requests import Queue
from twisted_ingest.sinks.delivery.session import Session
from twisted_ingest.sinks.delivery.wire import MOST_BUFFERS, Buffer, Wire

ASK_SECONDS = (0.001, 0.05)
"""First and longest wait before the kernel is asked again what the peer's has acknowledged; doubled each time. Nothing
tells of that; kernels put an acknowledgement off for up to 40 ms."""


class Outflow:
    """
    Frames the requests that wait as the session has room, and counts where each of them ends among all bytes sent.

    Where the session is not answered it asks the kernel, again and again while something is unacknowledged:
    ``on_answered`` is called with records that the peer's kernel has whole, ``ask_again`` by a timer.
    """

    def __init__(
        self,
        queue: Queue,
        session: Session,
        wire: Wire,
        account: Account,
        *,
        clock: Any,
        charge: Callable[[int], None],
        on_answered: Callable[[int], None],
        ask_again: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._session = session
        self._wire = wire
        self._account = account
        self._clock = clock
        self._charge = charge
        self._on_answered = on_answered
        self._ask_again = ask_again
        self._framed = 0
        """Bytes given to the wire so far."""
        self._settled_end = 0
        """Where, among them, the last request that was settled ends."""
        self._charged = 0
        self._asking: Any = None
        """The call that will ask the kernel again."""
        self._ask_seconds = ASK_SECONDS[0]

    @property
    def has_room(self) -> bool:
        """Whether something waits that may be sent now."""
        return bool(not self._wire.pending and self._queue.waiting and self._session.room > 0)

    def begin(self) -> None:
        """Send what a session begins with."""
        beginning = self._session.begin()
        self._framed = self._settled_end = len(beginning)
        if beginning:
            self.give([beginning])

    def send_some(self) -> None:
        """Send what may be sent, up to what one call takes."""
        session, queue, now = self._session, self._queue, self._clock.seconds()
        buffers: list[Buffer] = []
        most = self._framed + GATHER_BYTES
        while queue.waiting and self._framed < most and len(buffers) < MOST_BUFFERS and (room := session.room) > 0:
            request = queue.waiting[0]
            records = min(room, request.count - request.sent)
            data = session.frame(request.batch, request.sent, records)
            self._framed += len(data)
            request.end = self._framed
            queue.send(request, records, now)
            buffers.append(data)
        self.give(buffers)

    def give(self, buffers: list[Buffer]) -> None:
        """Give bytes to the wire, and charge what of them it has to keep."""
        before = self._wire.sent
        self._wire.send(buffers)
        self._account.sent += self._wire.sent - before
        self._charge_level(self._wire.pending)

    def drained(self) -> None:
        """Note that the kernel has taken all that was pending."""
        self._charge_level(0)

    def _charge_level(self, level: int) -> None:
        if level != self._charged:
            change, self._charged = level - self._charged, level
            self._charge(change)

    def ask(self) -> None:
        """Settle what the peer's kernel has acknowledged, where that is all the answer there is."""
        queue = self._queue
        if self._session.is_answered or not queue.unanswered:
            return
        acknowledged, before = self._wire.acknowledged(), queue.unanswered
        while queue.under_way and queue.under_way[0].end <= acknowledged:
            self._settled_end = queue.under_way[0].end
            self._on_answered(queue.under_way[0].unanswered)
        if queue.unanswered and self._asking is None:
            is_moving = queue.unanswered != before
            self._ask_seconds = ASK_SECONDS[0] if is_moving else min(self._ask_seconds * 2, ASK_SECONDS[1])
            self._asking = self._clock.callLater(self._ask_seconds, self._ask_now)

    def _ask_now(self) -> None:
        self._asking = None
        self._ask_again()

    def ask_at_last(self) -> None:
        """Settle every record of which the peer's kernel has all bytes, those of half a request included."""
        self.ask()
        request = self._queue.oldest
        if not self._session.is_answered and request is not None:
            size = self._wire.acknowledged() - self._settled_end
            if size > 0:
                self._on_answered(min(self._session.whole(request.batch, request.taken, size), request.unanswered))

    def end(self) -> None:
        """Keep nothing: the connection is gone."""
        self._charge_level(0)
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
