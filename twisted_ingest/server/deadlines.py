"""
The deadlines of a connection: of a record, of what is in doubt, of a close; and whether a draining peer is quiet.

Time in which we do not read counts towards none of them, and before one ends anything the kernel's queue is looked at.
"""

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall

from twisted_ingest.batch import Batch
from twisted_ingest.errors import CloseReason
from twisted_ingest.framing.base import Framer
from twisted_ingest.limits import CLOSE_TIMEOUT, DOUBT_SECONDS, ListenerLimits
from twisted_ingest.server.idleness import Idleness


class Deadlines(Idleness):
    """What of a connection knows the time; see `Connection`, whose part it is. Seconds are the reactor's."""

    framer: Framer
    records: int
    close_reason: CloseReason | None
    _wall_time: Callable[[], float]

    paused: bool = False
    """Whether nothing is read."""
    frame_since: float | None
    """When the record being received was begun, moved on by the time we were paused."""
    paused_seconds: float
    """Of the pauses that are over."""
    quiet_since: float | None = None
    """While draining: when the last byte came."""

    _grace: bool
    """Whether the end of the record may be waiting in the kernel."""
    _paused_at: float | None
    _close_by: float | None = None
    """When a close in good order must be over."""
    _doubt: IDelayedCall | None = None
    """Runs while the framer is in doubt; of the class, because most connections never are."""

    @property
    def limits(self) -> ListenerLimits:
        """The listener's limits as they are now."""
        raise NotImplementedError

    @property
    def has_left(self) -> bool:
        """Whether a subclass has ended the connection."""
        raise NotImplementedError

    def _pass_on(self, batches: list[Batch]) -> None:
        raise NotImplementedError

    def _end_transport(self, *, reset: bool) -> None:
        raise NotImplementedError

    def _time_out(self, reason: CloseReason, seconds: float) -> None:
        raise NotImplementedError

    def sweep(self, now: float) -> None:
        """Look at the deadlines, once a second; ``now`` in reactor seconds."""
        if self._close_by is None and self.has_left:
            self._close_by = now + CLOSE_TIMEOUT
        if self._close_by is not None:
            if now >= self._close_by:
                self._end_transport(reset=True)
            return
        timeout = self.limits.frame_timeout_seconds
        if timeout is None or self.frame_since is None or self.paused or now - self.frame_since <= timeout:
            return
        if not self._grace and self.transport.unread_bytes():
            # After a stall of the reactor the end of the record may be waiting; a flood gets no second grace.
            self._grace = True
            return
        self._time_out(CloseReason.FRAME_DEADLINE, timeout)

    def forgive(self, seconds: float) -> None:
        """Let time that the whole process slept count towards no deadline."""
        if self._close_by is not None:
            self._close_by += seconds
        if self.frame_since is not None and not self.paused:
            self.frame_since = min(self.frame_since + seconds, self._clock.seconds())

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

    def _time_frame(self, framer: Framer) -> None:
        """Note when the unfinished record began, or that there is none."""
        if not framer.in_record:
            self.frame_since = None
        elif framer.crossed or self.frame_since is None:
            self.frame_since = self._clock.seconds()
            self._grace = False

    def _time_doubt(self) -> None:
        """Start, or stop, waiting for what tells whether the record at hand is whole."""
        if not self.framer.in_doubt:
            self._end_doubt()
        elif self._doubt is None:
            self._doubt = self._clock.callLater(DOUBT_SECONDS, self._call, self._settle)

    def _end_doubt(self) -> None:
        doubt, self._doubt = self._doubt, None
        if doubt is not None and doubt.active():
            doubt.cancel()

    def _settle(self) -> None:
        """Deliver what is held for what might follow, which has not come in time."""
        self._doubt = None
        # What we have not read, or not yet, is no silence of the peer's.
        if not self.paused and not self.transport.unread_bytes():
            batches = self.framer.settle(self._wall_time())
            self._time_frame(self.framer)
            self._pass_on(batches)
        self._time_doubt()

    def _note_life(self, has_records: bool) -> None:
        """Note that the peer is alive."""
        if self.quiet_since is not None:
            self.quiet_since = self._clock.seconds()
        elif self.idle_period is not None:
            self._restart_idle(has_records)

    def _restart_idle(self, has_records: bool) -> None:
        over = has_records and self.limits.idle_until_first_record
        self._set_listener_timeout(None if over else self.limits.idle_timeout_seconds)

    def _note_pause(self) -> None:
        """Let the pause that ends count towards no deadline."""
        if self._paused_at is not None:
            elapsed = self._clock.seconds() - self._paused_at
            self._paused_at = None
            self.paused_seconds += elapsed
            if self.frame_since is not None:
                self.frame_since += elapsed

    def _restart_timers(self) -> None:
        self._continue_timeout()
        if self.close_reason is None:
            self._restart_idle(self.records > 0)
