"""
One connection in use: what waits is sent on it, and what comes back answers what was sent.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from twisted.python.failure import Failure

from twisted_ingest.limits import CLOSE_TIMEOUT, SWEEP_SECONDS
from twisted_ingest.observe.events import Events
from twisted_ingest.sinks.delivery.account import Account
from twisted_ingest.sinks.delivery.link import reason_of
from twisted_ingest.sinks.delivery.outflow import Outflow
from twisted_ingest.sinks.delivery.patience import Patience
from twisted_ingest.sinks.delivery.requests import Queue
from twisted_ingest.sinks.delivery.session import Session, SessionError
from twisted_ingest.sinks.delivery.targets import EndpointMaker
from twisted_ingest.sinks.delivery.wire import Wire

FIN_SECONDS = 1.0
"""Seconds for the peer's kernel to acknowledge what was under way when the peer ended the connection."""


class StreamParts(NamedTuple):
    """What all streams of a sink share."""

    name: str
    """The sink's, for the log."""
    reactor: Any
    events: Events
    wall_time: Callable[[], float]
    charge: Callable[[int], None]
    account: Account
    endpoint: EndpointMaker
    make_session: Callable[[], Session]
    timeout: float
    """Seconds without progress, while something is unanswered, after which a connection is given up."""
    rebind: float | None
    """Seconds after which a connection is ended in good order and made anew; ``None``: never."""
    meanwhile: str
    """What becomes of records while they cannot be sent, in words."""


class ExchangeOwner(Protocol):
    """Whose queue is sent."""

    def begun(self, exchange: "Exchange") -> None:
        """Note a connection, on which nothing was sent yet; one that is not wanted is aborted here."""

    def got_on(self) -> None:
        """Note that records can be sent, or were answered."""

    def answered(self) -> None:
        """Note that records were answered."""

    def stalled(self, waits_for: str) -> None:
        """Note what has been waited for in vain so far."""

    def over(self, exchange: "Exchange", why: str, *, is_ours: bool) -> None:
        """Note the end; one that ``is_ours`` went well, and is no reason to wait before another connection."""


class Exchange:
    """Sends a queue's requests over a wire, as a session says, until one of them ends."""

    def __init__(self, queue: Queue, parts: StreamParts, owner: ExchangeOwner) -> None:
        self._queue = queue
        self._parts = parts
        self._clock = parts.reactor
        self._owner = owner
        self._session = parts.make_session()
        self.wire = Wire(self, parts.timeout)
        self._outflow = Outflow(
            queue,
            self._session,
            self.wire,
            parts.account,
            clock=parts.reactor,
            charge=parts.charge,
            on_answered=self._answered,
            ask_again=self._ask_again,
        )
        self._is_sending = False
        self._ending: str | None = None
        """Why it is being ended; nothing new is sent."""
        self._is_leaving = False
        """We have said goodbye."""
        self._is_renewal = False
        """It was ended because its time was over."""
        self._is_over = False
        self._moved = 0
        """Records answered for."""
        self._sweeping: Any = None
        self._fin_timer: Any = None
        self._made_at = self._clock.seconds()
        self._patience = Patience(self._made_at)

    @property
    def is_open(self) -> bool:
        """Whether records can be sent, now or once some were answered."""
        return self._session.is_open and self._ending is None

    # Sending.

    def send(self) -> None:
        """Send what may be sent now, and ask for what was answered."""
        if self._is_sending:
            return
        self._is_sending = True
        try:
            self._send_some()
            self._outflow.ask()
            # Whoever is answered may have brought more.
            while self._may_send:
                self._send_some()
                self._outflow.ask()
        finally:
            self._is_sending = False
        self._leave_if_done()

    @property
    def _may_send(self) -> bool:
        return self._ending is None and not self._is_over and self._outflow.has_room

    def _send_some(self) -> None:
        if self._may_send:
            if not self._queue.unanswered:
                self._patience.begin(self._clock.seconds())
            self._outflow.send_some()

    def _ask_again(self) -> None:
        self._parts.events.guard(f"sink {self._parts.name}", self.send)

    # What was answered.

    def _answered(self, records: int) -> None:
        if records:
            self._moved += records
            self._parts.account.last_success = self._parts.wall_time()
            self._owner.answered()
            if self._queue.answer(records):
                raise SessionError("it has answered more than it was sent")

    def _refused(self, reason: str) -> None:
        self._moved += 1
        if not self._queue.reject(reason):
            raise SessionError("it has refused what it was not sent")
        self._parts.account.rejected += 1

    # Called by the wire.

    def made(self, wire: Wire) -> None:
        """See `WireOwner`."""
        self._owner.begun(self)
        if self._ending is not None:
            return
        self._parts.account.connections += 1
        self._sweeping = self._clock.callLater(SWEEP_SECONDS, self._sweep)
        self._outflow.begin()
        self._get_on()
        self.send()

    def _get_on(self) -> None:
        if self.is_open:
            self._owner.got_on()

    def writable(self) -> None:
        """See `WireOwner`."""
        self._outflow.drained()
        self.send()

    def received(self, data: bytes) -> None:
        """See `WireOwner`."""
        if self._is_over:
            return
        try:
            for taken, refused in self._session.received(data):
                self._answered(taken)
                if refused is not None:
                    self._refused(refused)
        except SessionError as error:
            self.drop(str(error))
            return
        self._get_on()
        if self._session.is_over:
            self._ending = self._ending or "it ends the session"
            self._is_leaving = True
            self._finish()
        self.send()

    def ended(self) -> None:
        """See `WireOwner`: what was under way may be acknowledged still, and the answers were all read."""
        if self._session.is_answered or self._is_leaving:
            self._ending = self._ending or "it has closed the connection"
            self._finish()
        else:
            self._fin_timer = self._clock.callLater(FIN_SECONDS, self.drop, "it has closed the connection")
            self.leave("it has closed the connection")
            self._outflow.ask()

    def lost(self, reason: Failure) -> None:
        """See `WireOwner`."""
        if self._is_over:
            return
        self._outflow.ask_at_last()
        self._is_over = True
        self._outflow.end()
        for call in (self._sweeping, self._fin_timer):
            if call is not None and call.active():
                call.cancel()
        is_ours = self._is_renewal and self._is_leaving and not self._queue.unanswered
        self._owner.over(self, self._ending or reason_of(reason), is_ours=is_ours)

    def bug(self, where: str) -> None:
        """See `WireOwner`."""
        self._parts.events.internal_error(f"sink {self._parts.name}: {where}")
        self._ending = "internal error (see the log)"

    # Its end.

    def drop(self, why: str) -> None:
        """End it at once."""
        self._ending = self._ending or why
        self.wire.abort()

    def leave(self, why: str) -> None:
        """End it in good order once nothing is unanswered; nothing new is sent."""
        self._ending = self._ending or why
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        if self._ending is None or self._is_leaving or self._is_over:
            return
        if not self._queue.unanswered and not self.wire.pending:
            self._is_leaving = True
            self._patience.begin(self._clock.seconds())
            goodbye = self._session.end()
            if goodbye:
                self._outflow.give([goodbye])
            else:
                self._finish()

    def _finish(self) -> None:
        if self.wire.pending:
            self.wire.abort()
        else:
            self.wire.finish()

    # Looking after it.

    def _sweep(self) -> None:
        self._sweeping = self._clock.callLater(SWEEP_SECONDS, self._sweep)
        self._parts.events.guard(f"sink {self._parts.name}", self._look)

    def _look(self) -> None:
        now, session, rebind = self._clock.seconds(), self._session, self._parts.rebind
        is_idle = self.is_open and not self._queue.unanswered and not self.wire.pending
        self._patience.look(now, (self._moved, self.wire.acknowledged()), is_idle=is_idle)
        waits_for = "answers nothing" if session.is_answered else "takes nothing"
        timeout = CLOSE_TIMEOUT if self._is_leaving else self._parts.timeout
        if self._patience.suspect(timeout):
            self.drop(f"it {waits_for} for {timeout:g} s")
        elif self._patience.is_stalled:
            self._owner.stalled(waits_for)
        else:
            self._get_on()
            if session.is_spent or (rebind is not None and now - self._made_at >= rebind):
                self._is_renewal = True
                self.leave("its time is over")
