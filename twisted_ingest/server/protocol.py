"""
One connection: a `LineReceiver` whose chunks go through a framer into a lane, many lines at a time.

Thin: what a record is, the framer decides; when to pause, the lane; who may connect, the factory.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet import error
from twisted.internet.interfaces import IReactorTime
from twisted.protocols.basic import LineReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_ingest.batch import Batch, ConnectionInfo
from twisted_ingest.errors import CloseReason, DiscardReason
from twisted_ingest.flow.lane import Lane
from twisted_ingest.framing.base import Framer
from twisted_ingest.interfaces import IBatchProducer
from twisted_ingest.limits import CLOSE_TIMEOUT, DRAIN_QUIET, OVERSLEPT, ListenerLimits
from twisted_ingest.server.transports import IngestTransport

if TYPE_CHECKING:
    from twisted_ingest.server.factory import IngestFactory


@implementer(IBatchProducer)
class IngestProtocol(LineReceiver, TimeoutMixin):
    """
    Receives records and passes batches of them to its lane.

    The contract of `LineReceiver` holds with two differences: whole batches are delivered whether or not
    ``lineReceived`` is overridden (a subclass that does gets every line as well, after the batch), and there
    is no raw mode. ``lineLengthExceeded`` is told the beginning of a record longer than ``MAX_LENGTH``,
    which the policy of the listener has dealt with already.
    """

    transport: IngestTransport  # type: ignore[assignment]
    delimiter: bytes
    MAX_LENGTH: int

    def __init__(
        self,
        info: ConnectionInfo,
        factory: "IngestFactory",
        framer: Framer,
        lane: Lane,
    ) -> None:
        self.info = info
        self.delimiter = framer.delimiter
        self.MAX_LENGTH = factory.limits.max_record_bytes
        self.framer = framer
        self.lane = lane
        self.bytes_received = 0
        self.records = 0
        self._factory = factory
        self._ledger = factory.ledger
        self._clock: IReactorTime = factory.clock
        self._wall_time: Callable[[], float] = factory.wall_time
        self.opened_at = self._clock.seconds()
        self.frame_since: float | None = None
        """When the record being received was begun (reactor seconds), moved on by the time we were paused."""
        self._grace = False
        self._idle_by = 0.0
        """When the idle timer is due, while it runs."""
        self._paused_at: float | None = None
        self.paused_seconds = 0.0
        self.departed = False
        """Whether the peer has hung up while we did not read."""
        self.close_reason: CloseReason | None = None
        self._close_by: float | None = None
        self.quiet_since: float | None = None
        """While draining: when the last byte came."""
        self._lines_left: list[bytes] = []
        """Lines a subclass has yet to be given because it paused itself."""
        self._meters = factory.meters(info)
        self.takes_views = type(self).dataReceived is IngestProtocol.dataReceived
        """Whether ``dataReceived`` may be given a view."""
        self._wants_lines = type(self).lineReceived is not LineReceiver.lineReceived

    @property
    def limits(self) -> ListenerLimits:
        """The listener's limits as they are now."""
        return self._factory.limits

    # Twisted calls these.

    def connectionMade(self) -> None:
        """Start the idle timer and join the flow."""
        self._factory.connection_made(self)
        self.setTimeout(self.limits.idle_timeout_seconds)
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
            if self.timeOut is not None or self.quiet_since is not None:
                self._note_life(bool(batches))
            self._pass_on(batches)
            if self._meters:
                self._hold_to_rate(size, self.records - records)
        except Exception:  # noqa: BLE001 - whatever it is, it must end here
            self.fail("dataReceived")

    def connectionLost(self, reason: Failure = error.ConnectionDone) -> None:  # type: ignore[assignment]
        """End the stream: an unterminated record is delivered after an orderly end, counted after a reset."""
        self.setTimeout(None)
        # While we drain, a reset is the peer's unless it is the abort with which we end it at the deadline.
        lost = reason.check(error.ConnectionAborted, error.ConnectionLost) is error.ConnectionLost
        if self.close_reason is None or (lost and self.close_reason is CloseReason.DRAIN):
            # Ours to close is recorded when we decide it; otherwise only an embedding application calls loseConnection.
            local = bool(self.transport.disconnecting)
            done = reason.check(error.ConnectionDone) is not None
            self.close_reason = CloseReason.RESET if not done else CloseReason.LOCAL if local else CloseReason.EOF
        # The transport of an embedding application may not know.
        self._ledger.bytes_unread += getattr(self.transport, "unread_at_close", 0)
        partial = self._ledger.records_partial
        try:
            self._finish()
        except Exception:  # noqa: BLE001
            self.fail("connectionLost")
        if self.close_reason is CloseReason.DRAIN and reason.check(error.ConnectionAborted):
            self._ledger.records_cut += self._ledger.records_partial - partial
        self.lane.unregisterProducer()
        self._factory.connection_lost(self, self.close_reason)

    def pauseProducing(self) -> None:
        """Stop reading. Time spent so is neither the peer's idleness nor part of its frame's time."""
        if self.paused:
            return
        super().pauseProducing()
        self._paused_at = self._clock.seconds()
        self.setTimeout(None)

    def resumeProducing(self) -> None:
        """Go on reading, the timers where they stood (idleness begins anew); not while the lane keeps us paused."""
        if self.lane.is_paused:
            return  # called by an embedding application: the lane will do so when there is room
        if self._paused_at is not None:
            elapsed = self._clock.seconds() - self._paused_at
            self._paused_at = None
            self.paused_seconds += elapsed
            if self.frame_since is not None:
                self.frame_since += elapsed
        self.paused = False
        if self._lines_left:
            self._give_lines(self._lines_left)
            if self.paused:
                return
        if self.close_reason is None:
            self._restart_idle(self.records > 0)
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """End the connection: part of the producer contract, for those who embed the protocol."""
        self.close(CloseReason.LOCAL, reset=False)

    def timeoutConnection(self) -> None:
        """Reset a silent peer, unless bytes of it wait in the kernel or the timer is late: then it was we who slept."""
        if self.transport.unread_bytes() or self._clock.seconds() - self._idle_by > OVERSLEPT:
            self.setTimeout(self.limits.idle_timeout_seconds)
            return
        self._time_out(CloseReason.IDLE, self.limits.idle_timeout_seconds or 0.0)

    def setTimeout(self, period: float | None) -> None:
        """Let the idle timer end after ``period`` seconds, ``None`` for never."""
        if period is not None:
            self._idle_by = self._clock.seconds() + period
        super().setTimeout(period)

    def callLater(self, period: float, func: Callable[[], None]) -> object:
        """Take time from the injected clock, where `TimeoutMixin` would take the global reactor."""
        return self._clock.callLater(period, self._call, func)

    def setRawMode(self) -> None:
        """Refuse: bytes outside the framing could not be accounted for."""
        raise RuntimeError("IngestProtocol has no raw mode: every byte belongs to a record")

    def lineLengthExceeded(self, line: bytes) -> None:
        """Log a record longer than ``MAX_LENGTH``; ``line`` is its beginning. The policy was applied already."""
        self._factory.events.record_oversize(self.info, self.MAX_LENGTH, self.limits.oversize.value, line)

    # The lane and the factory call these.

    def evict_partial(self) -> None:
        """See `IBatchProducer`."""
        self._pass_on(self.framer.evict(self._wall_time()))

    def fail(self, where: str) -> None:
        """
        See `IBatchProducer`; the unfinished record is counted as lost to a bug.

        A chunk that the framer itself lost is in no bucket: it shows as a conservation error, as it should.
        """
        self._factory.events.internal_error(where, self.info)
        self.framer.discard(DiscardReason.INTERNAL_ERROR)
        self.close(CloseReason.INTERNAL_ERROR, reset=True)

    def end_badly(self) -> None:
        """Leave everything although ``connectionLost`` raised, which an embedding application's may."""
        self.fail("connectionLost")
        self.setTimeout(None)
        self.lane.unregisterProducer()
        self._factory.connection_lost(self, self.close_reason or CloseReason.INTERNAL_ERROR)

    def close(self, reason: CloseReason, *, reset: bool) -> None:
        """
        End the connection for ``reason``; the first reason given stands.

        With ``reset`` at once: a sender that writes to it learns so. Otherwise in good order, with a deadline.
        """
        if self.close_reason is None:
            self.close_reason = reason
        if reset:
            self.transport.abortConnection()
        else:
            self._close_by = self._clock.seconds() + CLOSE_TIMEOUT
            self.transport.loseConnection()

    def sweep(self, now: float) -> None:
        """Look at the deadlines, once a second; ``now`` in reactor seconds."""
        if self._close_by is not None:
            if now >= self._close_by:
                self.transport.abortConnection()
            return
        timeout = self.limits.frame_timeout_seconds
        if timeout is None or self.frame_since is None or self.paused or now - self.frame_since <= timeout:
            return
        if not self._grace and self.transport.unread_bytes():
            # After a stall of the reactor the end of the record may be waiting; a flood gets no second grace.
            self._grace = True
            return
        self._time_out(CloseReason.FRAME_DEADLINE, timeout)

    def hang_up(self) -> None:
        """Note that the peer is gone although we do not read; end here if it has left nothing unread."""
        if not self.departed:
            self.departed = True
            self._factory.connection_departed(self)
        if not self.transport.unread_bytes():
            self.transport.notice_end()

    def forgive(self, seconds: float) -> None:
        """Let time that the whole process slept count towards no deadline."""
        if self._close_by is not None:
            self._close_by += seconds
        if self.frame_since is not None and not self.paused:
            self.frame_since = min(self.frame_since + seconds, self._clock.seconds())

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

    def is_quiet(self, now: float, seconds: float) -> bool:
        """Whether a draining peer has sent nothing for ``seconds`` and nothing of it waits in the kernel."""
        if self.paused or self.quiet_since is None:
            return False
        return now - self.quiet_since >= seconds and not self.transport.unread_bytes()

    def paused_seconds_now(self) -> float:
        """Give the seconds we have not read from this peer, the pause that lasts included."""
        lasting = 0.0 if self._paused_at is None else self._clock.seconds() - self._paused_at
        return self.paused_seconds + lasting

    # What follows is ours.

    def _enter_drain(self) -> bool:
        """Let neither rates nor silence end or delay the reading; false for a connection that is being closed."""
        is_open = self.close_reason is None
        if is_open:
            self.close_reason = CloseReason.DRAIN
            self.setTimeout(None)
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
        if framer.partial or lane.held:
            lane.hold(framer.memory, self.frame_since or 0.0)
        if framer.oversized or framer.closed is not None:
            self._judge(framer)
        if self._wants_lines:
            self._give_lines([line for batch in batches for line in batch.records()])

    def _hold_to_rate(self, size: int, records: int) -> None:
        """Rest for as long as it takes until the peer's average is within its rates."""
        now = self._clock.seconds()
        seconds = max(meter.charge(size, records, now) for meter in self._meters)
        if seconds:
            self.lane.rest(seconds)

    def _time_frame(self, framer: Framer) -> None:
        """Note when the unfinished record began, or that there is none."""
        if not framer.in_record:
            self.frame_since = None
        elif framer.crossed or self.frame_since is None:
            self.frame_since = self._clock.seconds()
            self._grace = False

    def _note_life(self, has_records: bool) -> None:
        """Note that the peer is alive."""
        if self.quiet_since is not None:
            self.quiet_since = self._clock.seconds()
        elif self.timeOut is not None:
            self._restart_idle(has_records)

    def _restart_idle(self, has_records: bool) -> None:
        over = has_records and self.limits.idle_until_first_record
        self.setTimeout(None if over else self.limits.idle_timeout_seconds)

    def _judge(self, framer: Framer) -> None:
        """Report records found oversize, and end the connection where the framer has given up its stream."""
        found, framer.oversized = framer.oversized, []
        for start in found:
            self.lineLengthExceeded(start)
        if framer.closed is not None and self.close_reason is None:
            self._end_stream(framer)

    def _end_stream(self, framer: Framer) -> None:
        """End the connection whose stream the framer has given up."""
        if framer.closed is None:
            return
        events, reason = self._factory.events, CloseReason(framer.closed.value)
        if framer.wrong_protocol is not None:
            events.wrong_protocol(self._factory.ledger, self.info, framer.wrong_protocol)
        elif reason is CloseReason.FRAMING:
            events.bad_frame(self.info)
        self.close(reason, reset=True)

    def _give_lines(self, lines: list[bytes]) -> None:
        """Call ``lineReceived`` for each line until the subclass pauses; the rest waits for the resume."""
        for index, line in enumerate(lines):
            if self.paused:
                self._lines_left = lines[index:]
                return
            self.lineReceived(line)
        self._lines_left = []

    def _time_out(self, reason: CloseReason, seconds: float) -> None:
        """Deliver what there is of a record, then reset: after a FIN the sender's next write would vanish."""
        self._factory.events.timed_out(self.info, reason, seconds)
        self._deliver_partial()
        self.close(reason, reset=True)

    def _deliver_partial(self) -> None:
        self._pass_on(self.framer.finish(self._wall_time()))

    def _finish(self) -> None:
        if self.close_reason in (CloseReason.RESET, CloseReason.INTERNAL_ERROR):
            reset = self.close_reason is CloseReason.RESET
            self.framer.discard(DiscardReason.RESET if reset else DiscardReason.INTERNAL_ERROR)
        else:
            self._deliver_partial()
