"""
One connection, from the first call to the last: how it begins, and by whose doing and how it ends.

What comes of the peer meanwhile: `twisted_ingest.server.inflow`. Who may connect, the connection's owner decides.
"""

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import error
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import CloseReason, DiscardReason
from twisted_ingest.escaping import escape
from twisted_ingest.flow.lane import Lane
from twisted_ingest.flow.rate import Meter
from twisted_ingest.framing.base import Framer
from twisted_ingest.interfaces import IBatchProducer, ILiveConnection
from twisted_ingest.ledger import ListenerLedger
from twisted_ingest.limits import CLOSE_TIMEOUT, DRAIN_QUIET, ListenerLimits
from twisted_ingest.server.findings import Told
from twisted_ingest.server.inflow import Inflow
from twisted_ingest.server.transports import IngestTransport


class ConnectionOwner(Told, Protocol):
    """What a connection needs of whoever admitted it, and keeps it in a registry from its first call to its last."""

    @property
    def ledger(self) -> ListenerLedger:
        """Where its bytes and records are counted."""

    @property
    def clock(self) -> IReactorTime:
        """What drives its timers."""

    @property
    def wall_time(self) -> Callable[[], float]:
        """What stamps its batches: Unix seconds."""

    def meters(self, info: ConnectionInfo) -> tuple[Meter, ...]:
        """Make what holds it to its rates; none for most."""

    def make_framer(self, info: ConnectionInfo, delimiter: bytes | None, max_length: int | None) -> Framer:
        """Make its framer; ``None`` is as the listener is set. Raises ``ValueError`` for what it cannot have."""

    def connection_made(self, connection: "Connection") -> None:
        """Enter it in the registry."""

    def connection_departed(self, connection: "Connection") -> None:
        """Note that its peer is gone, and that its last bytes are yet to be read."""

    def connection_lost(self, connection: "Connection", reason: CloseReason) -> None:
        """Strike it from the registry. Safe to call for one that was never entered."""


@implementer(IBatchProducer, ILiveConnection)
class Connection(Inflow, TwistedProtocol):
    """
    Receives records and passes batches of them to its lane.

    Whole batches are delivered, whatever a subclass then does with what it is given of them.
    """

    transport: IngestTransport  # type: ignore[assignment]
    _owner: ConnectionOwner

    # Here and in the parts: of the class until they are something else, which is seldom. Instances of up to thirty
    # attributes share one table of names, and one more would cost each connection a kilobyte.
    _was_stopped: bool = False
    """Whether ``stopProducing`` was called."""

    def __init__(
        self,
        info: ConnectionInfo,
        owner: ConnectionOwner,
        framer: Framer,
        lane: Lane,
    ) -> None:
        self.info = info
        self.framer = framer
        self.lane = lane
        self.bytes_received = 0
        self.records = 0
        self._owner = owner
        self._ledger = owner.ledger
        self._clock: IReactorTime = owner.clock
        self._wall_time = owner.wall_time
        self.opened_at = self._clock.seconds()
        self.frame_since = None
        self._grace = False
        self._paused_at = None
        self.paused_seconds = 0.0
        self.close_reason: CloseReason | None = None
        self._is_held_back = False
        self._own_endings = 0
        """How often it was we who told the transport to end."""
        self._meters = owner.meters(info)
        if self._meters:
            self.takes_records = False

    @property
    def limits(self) -> ListenerLimits:
        """The listener's limits as they are now."""
        return self._owner.limits

    @property
    def has_left(self) -> bool:
        """Whether a subclass has ended the connection: ``loseConnection``, ``abortConnection``, ``stopProducing``."""
        return self._was_stopped or self.transport.endings > self._own_endings

    # Twisted calls these.

    def connectionMade(self) -> None:
        """Start the idle timer and join the flow."""
        self._owner.connection_made(self)
        self._set_listener_timeout(self.limits.idle_timeout_seconds)
        self.lane.registerProducer(self, True)

    def connectionLost(self, reason: Failure = error.ConnectionDone) -> None:  # type: ignore[assignment]
        """End the stream: an unterminated record is delivered after an orderly end, counted after a reset."""
        self._end_timeout()
        self._end_doubt()
        # While we drain, a reset is the peer's unless it is the abort with which we end it at the deadline.
        lost = reason.check(error.ConnectionAborted, error.ConnectionLost) is error.ConnectionLost
        if self.close_reason is None or (lost and self.close_reason is CloseReason.DRAIN):
            # Ours to close is recorded when we decide it; otherwise only a subclass ends the connection.
            local = self.has_left and not lost
            done = reason.check(error.ConnectionDone) is not None
            self.close_reason = CloseReason.LOCAL if local else CloseReason.EOF if done else CloseReason.RESET
        self._is_lost = True
        # The transport of an embedding application may not know.
        self._ledger.bytes_unread += getattr(self.transport, "unread_at_close", 0)
        partial = self._ledger.records_partial
        try:
            self._finish()
        except Exception:  # noqa: BLE001
            self.fail("connectionLost")
        if self.close_reason is CloseReason.DRAIN and reason.check(error.ConnectionAborted):
            self._ledger.records_cut += self._ledger.records_partial - partial
        self._forget_owed()
        self.lane.unregisterProducer()
        self._owner.connection_lost(self, self.close_reason)

    def stopProducing(self) -> None:
        """End the connection: part of the producer contract, for those who embed the protocol."""
        if self.transport.connected:  # else it is the transport that says so, to whoever it has as its producer
            self._was_stopped = True
            self.close(CloseReason.LOCAL, reset=False)

    def timeoutConnection(self) -> None:
        """Reset a silent peer; a subclass may do otherwise."""
        self._time_out(CloseReason.IDLE, self.timeout_period or 0.0)

    # The lane, the owner and its listener call these.

    def fail(self, where: str) -> None:
        """
        See `IBatchProducer`; the unfinished record is counted as lost to a bug.

        A chunk that the framer itself lost is in no bucket: it shows as a conservation error, as it should.
        """
        self._owner.events.internal_error(where, self.info)
        self._forget_owed()
        try:
            self.framer.discard(DiscardReason.INTERNAL_ERROR)
            self.close(CloseReason.INTERNAL_ERROR, reset=True)
        except Exception:  # noqa: BLE001 - its callers have others to see to
            self._owner.events.internal_error("ending a connection after a bug", self.info)
            self.transport.abortConnection()

    def end_badly(self) -> None:
        """Leave everything although ``connectionLost`` raised, which an embedding application's may."""
        self.fail("connectionLost")
        self._is_lost = True
        try:
            self._end_timeout()
            self._end_doubt()
            self.lane.unregisterProducer()
        finally:
            self._owner.connection_lost(self, self.close_reason or CloseReason.INTERNAL_ERROR)

    def close(self, reason: CloseReason, *, reset: bool) -> None:
        """
        End the connection for ``reason``; the first reason given stands.

        With ``reset`` at once: a sender that writes to it learns so. Otherwise in good order, with a deadline.
        """
        if self.close_reason is None:
            self.close_reason = reason
        if not reset:
            self._close_by = self._clock.seconds() + CLOSE_TIMEOUT
        self._end_transport(reset=reset)

    def hang_up(self) -> None:
        """Note that the peer is gone although we do not read; end here if it has left nothing unread."""
        if not self.departed:
            self.departed = True
            self._owner.connection_departed(self)
            # It can send no more: waiting would hold back nobody, and keep its descriptor.
            self.lane.end_rest()
        if not self._keeps_its_end() and not self.transport.unread_bytes():
            self.transport.notice_end()

    def begin_drain(self) -> None:
        """Half-close, so that the peer notices and connects elsewhere; go on reading, whatever its rate."""
        if self._enter_drain():
            self.transport.loseWriteConnection()

    def drain(self, now: float) -> None:
        """
        Do what a stop asks for next; called until the connection is closed.

        A peer that is quiet is reset: one that looks for our FIN has gone by then, and of one that does not the next
        write fails, where after a mere FIN it would succeed and vanish.
        """
        if self.is_quiet(now, DRAIN_QUIET):
            self.close(CloseReason.DRAIN, reset=True)

    def status(self, now: float) -> dict[str, Any]:
        """See `ILiveConnection`."""
        return {
            "id": self.info.id,
            "listener": self.info.listener,
            "peer": escape(self.info.peer),
            "proxy": self.info.proxy and escape(self.info.proxy),
            "local": self.info.local and escape(self.info.local),
            **_certified(self.info),
            "age_seconds": round(now - self.opened_at, 3),
            "bytes_received": self.bytes_received,
            "records": self.records,
            "buffered_bytes": self.framer.buffered,
            "in_flight_bytes": self.lane.in_flight,
            "paused": self.lane.pause_reason,
            "paused_seconds": round(self.paused_seconds_now(), 3),
        }

    # A subclass that is given what comes overrides this.

    def _keeps_its_end(self) -> bool:
        """Whether the end of a peer that is gone has to wait, because something is owed that cannot be given yet."""
        return False

    # What follows is ours.

    def _end_transport(self, *, reset: bool) -> None:
        """End the connection for a reason of ours: what a subclass has not been given yet is still its own."""
        self._own_endings += 1
        if reset:
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()

    def _enter_drain(self) -> bool:
        """Let neither rates nor silence end or delay the reading; false for a connection that is being closed."""
        is_open = self.close_reason is None
        if is_open:
            self.close_reason = CloseReason.DRAIN
            self._end_timeout()
            self.quiet_since = self._clock.seconds()
        self._meters = ()
        self.lane.end_rest()
        return is_open

    def _call(self, func: Callable[[], None]) -> None:
        """Run a timer."""
        try:
            func()
        except Exception:  # noqa: BLE001 - the reactor would log it without a limit and keep the connection
            self.fail("a timer")

    def _time_out(self, reason: CloseReason, seconds: float) -> None:
        """Deliver what there is of a record, then reset: after a FIN the sender's next write would vanish."""
        self._owner.events.timed_out(self.info, reason, seconds)
        self._deliver_partial()
        self.close(reason, reset=True)


def _certified(info: ConnectionInfo) -> dict[str, str | None]:
    """Say whom a certificate names, where one was shown."""
    if info.certificate is None:
        return {}
    return {
        "identity": None if info.identity is None else escape(info.identity),
        "fingerprint": info.certificate.fingerprint,
        "subject": escape(info.certificate.subject),
    }
