"""
One connection: its chunks go through a framer into a lane, many records at a time.

Thin: what a record is, the framer decides; when to pause, the lane; who may connect, the connection's owner.
"""

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import error
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_ingest.batch import Batch, ConnectionInfo
from twisted_ingest.errors import CloseReason, DiscardReason
from twisted_ingest.escaping import escape
from twisted_ingest.flow.lane import Lane
from twisted_ingest.flow.rate import Meter
from twisted_ingest.framing.base import Framer
from twisted_ingest.interfaces import IBatchProducer, ILiveConnection
from twisted_ingest.ledger import ListenerLedger
from twisted_ingest.limits import CLOSE_TIMEOUT, DRAIN_QUIET, PREVIEW, ListenerLimits
from twisted_ingest.observe.events import Events
from twisted_ingest.server.deadlines import Deadlines
from twisted_ingest.server.transports import IngestTransport


class ConnectionOwner(Protocol):
    """What a connection needs of whoever admitted it, and keeps it in a registry from its first call to its last."""

    @property
    def ledger(self) -> ListenerLedger:
        """Where its bytes and records are counted."""

    @property
    def limits(self) -> ListenerLimits:
        """The bounds that hold now."""

    @property
    def events(self) -> Events:
        """Who is told of what happens."""

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
class Connection(Deadlines, TwistedProtocol):
    """
    Receives records and passes batches of them to its lane.

    Whole batches are delivered, whatever a subclass then does with what it is given of them.
    """

    transport: IngestTransport  # type: ignore[assignment]

    # Of the class until they are something else, which is seldom: instances of up to thirty attributes share one table
    # of names, and one more would cost each connection a kilobyte.
    takes_views: bool = True
    """Whether ``dataReceived`` may be given a view: where nobody overrides it."""
    departed: bool = False
    """Whether the peer has hung up while we did not read."""
    _holds_itself: bool = False
    """Whether a subclass has paused us."""
    _is_lost: bool = False
    _is_evicting: bool = False
    _was_stopped: bool = False
    _is_followed: bool = False
    """Whether a subclass is given what comes, after the lane: `_owe` and `_give` are called."""

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
        """Whether the lane has us paused."""
        self._own_endings = 0
        """How often it was we who told the transport to end."""
        self._meters = owner.meters(info)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.takes_views = cls.dataReceived is Connection.dataReceived

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

    def dataReceived(self, data: bytes) -> None:
        """
        Frame a chunk. No exception leaves: a bug costs this connection only, and is counted.

        Our own transports give a view of a buffer that they use again, where nobody overrides this.
        """
        size = len(data)
        self._ledger.bytes_received += size
        self.bytes_received += size
        records = self.records
        try:
            framer = self.framer
            batches = framer.feed(data, self._wall_time())
            if self.frame_since is not None or framer.in_record:
                self._time_frame(framer)
            if framer.in_doubt or self._doubt is not None:
                self._time_doubt()
            if self.idle_period is not None or self.quiet_since is not None:
                self._note_life(bool(batches))
            self._pass_on(batches)
            if self._meters:
                self._hold_to_rate(size, self.records - records)
        except Exception:  # noqa: BLE001 - whatever it is, it must end here
            self.fail("dataReceived")

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

    def pauseProducing(self) -> None:
        """Stop reading. Time spent so is neither the peer's idleness nor part of its frame's time."""
        if self.lane.is_paused and not self._is_held_back:
            self._is_held_back = True  # the lane calls once, as it comes to be paused
        else:
            self._holds_itself = True
        if self.paused:
            return
        self.paused = True
        if not self._is_lost:
            self.transport.pauseProducing()
            self._paused_at = self._clock.seconds()
            self._hold_timeout()

    def resumeProducing(self) -> None:
        """Go on reading, the timers where they stood (idleness begins anew); not while the lane keeps us paused."""
        if self._is_held_back and not self.lane.is_paused:
            self._is_held_back = False  # the lane calls once, as it comes to be so no longer
        else:
            self._holds_itself = False
        if self._is_held_back or self._holds_itself or self._is_lost:
            return
        self._note_pause()
        self.paused = False
        if self._is_followed:
            self._give()
        # What is given may have paused us, and have resumed as well.
        if not self.paused:
            self._restart_timers()
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """End the connection: part of the producer contract, for those who embed the protocol."""
        if self.transport.connected:  # else it is the transport that says so, to whoever it has as its producer
            self._was_stopped = True
            self.close(CloseReason.LOCAL, reset=False)

    def timeoutConnection(self) -> None:
        """Reset a silent peer; a subclass may do otherwise."""
        self._time_out(CloseReason.IDLE, self.timeout_period or 0.0)

    # The lane and the owner call these.

    def evict_partial(self) -> None:
        """See `IBatchProducer`."""
        partial = self.framer.partial
        self._owner.events.record_evicted(self.info, len(partial), bytes(partial[:PREVIEW]))
        self._is_evicting = True
        try:
            self._pass_on(self.framer.evict(self._wall_time()))
        finally:
            self._is_evicting = False

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
            "age_seconds": round(now - self.opened_at, 3),
            "bytes_received": self.bytes_received,
            "records": self.records,
            "buffered_bytes": self.framer.buffered,
            "in_flight_bytes": self.lane.in_flight,
            "paused": self.lane.pause_reason,
            "paused_seconds": round(self.paused_seconds_now(), 3),
        }

    # A subclass that is given what comes overrides these.

    def _owe(self, batches: list[Batch]) -> None:
        """Note what the lane has been given, before anything else can happen."""

    def _give(self, *, is_last: bool = False) -> None:
        """Hand on what is owed, as far as that may be now; with ``is_last`` all of it."""

    def _forget_owed(self) -> None:
        """Hand on nothing any more."""

    def _keeps_its_end(self) -> bool:
        """Whether the end of a peer that is gone has to wait, because something is owed that cannot be given yet."""
        return False

    def _note_oversize(self, start: bytes) -> None:
        """Note a record that was too long, by its beginning; the policy of the listener has dealt with it."""
        self._tell_oversize(start, self.limits.max_record_bytes)

    def _tell_oversize(self, start: bytes, limit: int) -> None:
        if not self._is_evicting:  # that was told under its own cause
            self._owner.events.record_oversize(self.info, limit, self.limits.oversize.value, start)

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

    def _pass_on(self, batches: list[Batch]) -> None:
        """Write batches to the lane, settle what the framer holds, and see to what it found."""
        framer, lane = self.framer, self.lane
        for batch in batches:
            self.records += batch.count
            lane.write(batch)
        if self._is_followed:
            self._owe(batches)
        if framer.partial or lane.held:
            lane.hold(framer.memory, self.frame_since or 0.0)
        if self._is_followed:
            self._give()
        if framer.oversized or framer.unnamed or framer.resyncs or framer.closed is not None:
            self._report(framer)

    def _hold_to_rate(self, size: int, records: int) -> None:
        """Rest for as long as it takes until the peer's average is within its rates; of one that is gone no more."""
        now = self._clock.seconds()
        # Charged in any case: to a bucket that its other connections share, too.
        seconds = max(meter.charge(size, records, now) for meter in self._meters)
        if seconds and not self.departed:
            self.lane.rest(seconds)

    def _report(self, framer: Framer) -> None:
        """Report what the framer found odd, and end the connection where it has given up its stream."""
        if framer.unnamed:
            self._owner.events.unknown_protocol(self.info, framer.unnamed)
            framer.unnamed = b""
        resyncs, framer.resyncs = framer.resyncs, []
        for cause, start in resyncs:
            self._owner.events.framing_resynced(self.info, cause, start)
        found, framer.oversized = framer.oversized, []
        for start in found:
            if not self.has_left:
                self._note_oversize(start)
        if framer.closed is not None and self.close_reason is None:
            self._end_stream(framer)

    def _end_stream(self, framer: Framer) -> None:
        """End the connection whose stream the framer has given up."""
        if framer.closed is None:
            return
        events, reason = self._owner.events, CloseReason(framer.closed.value)
        if framer.wrong_protocol is not None:
            events.wrong_protocol(self._ledger, self.info, framer.wrong_protocol)
        elif reason is CloseReason.FRAMING:
            count, start = framer.astray or (0, b"")
            events.bad_frame(self.info, count, start)
        self.close(reason, reset=True)

    def _time_out(self, reason: CloseReason, seconds: float) -> None:
        """Deliver what there is of a record, then reset: after a FIN the sender's next write would vanish."""
        self._owner.events.timed_out(self.info, reason, seconds)
        self._deliver_partial()
        self.close(reason, reset=True)

    def _deliver_partial(self) -> None:
        if self.framer.is_run_together:
            self._owner.events.records_run_together(self.info, bytes(self.framer.partial))
        self._pass_on(self.framer.finish(self._wall_time()))

    def _finish(self) -> None:
        if self.framer.in_doubt and self.close_reason is CloseReason.RESET:
            # A whole record is held: a reset takes what is unfinished only.
            self._pass_on(self.framer.settle(self._wall_time()))
        if self.close_reason in (CloseReason.RESET, CloseReason.INTERNAL_ERROR):
            reset = self.close_reason is CloseReason.RESET
            self.framer.discard(DiscardReason.RESET if reset else DiscardReason.INTERNAL_ERROR)
        else:
            self._deliver_partial()
        if self._is_followed:
            self._give(is_last=True)
