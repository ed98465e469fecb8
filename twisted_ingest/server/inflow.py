"""
What comes of a peer: its chunks go through a framer into a lane, many records at a time, as the lane allows.

Thin: what a record is, the framer decides; when to pause, the lane.
"""

from typing import Any

from twisted_ingest.batch import Batch
from twisted_ingest.errors import CloseReason, DiscardReason
from twisted_ingest.flow.lane import Lane
from twisted_ingest.flow.rate import Meter
from twisted_ingest.flow.slabs import Lease
from twisted_ingest.framing.scan import Chunk
from twisted_ingest.limits import PREVIEW
from twisted_ingest.server.findings import Findings


class Inflow(Findings):
    """What of a connection moves records; see `Connection`, whose part it is."""

    lane: Lane
    bytes_received: int
    takes_views: bool = True
    """Whether ``dataReceived`` may be given a view: where nobody overrides it."""
    takes_records: bool = True
    """
    Whether what comes may be looked through for records first, as the framer says, and brought so.

    Not where somebody overrides ``dataReceived``; nor where the peer has a rate, which small reads suit better.
    """
    departed: bool = False
    """Whether the peer has hung up while we did not read."""
    _meters: tuple[Meter, ...]
    """What holds the peer to its rates; none for most."""
    _is_held_back: bool
    """Whether the lane has us paused."""
    _holds_itself: bool = False
    """Whether a subclass has paused us."""
    _is_lost: bool = False
    _is_followed: bool = False
    """Whether a subclass is given what comes, after the lane: `_owe` and `_give` are called."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.takes_views = cls.takes_records = cls.dataReceived is Inflow.dataReceived

    def fail(self, where: str) -> None:
        """End the connection, because of a bug in what ``where`` names."""
        raise NotImplementedError

    # Twisted calls this.

    def dataReceived(self, data: bytes) -> None:
        """
        Frame a chunk. No exception leaves: a bug costs this connection only, and is counted.

        Our own transports give a view of a buffer that they use again, where nobody overrides this.
        """
        size = len(data)
        self._ledger.bytes_received += size
        self.bytes_received += size
        try:
            self._go_on(size, self.framer.feed(data, self._wall_time()))
        except Exception:  # noqa: BLE001 - whatever it is, it must end here
            self.fail("dataReceived")

    # Our own transports call this.

    def records_received(self, size: int, found: tuple[Chunk, int, int], rest: bytes, lease: Lease | None) -> None:
        """
        Do as ``dataReceived`` for a chunk of ``size`` bytes that was looked through.

        What was ``found``, and the ``rest``, see `twisted_ingest.framing.base.Framer.take`; ``lease`` is for its bytes.
        """
        self._ledger.bytes_received += size
        self.bytes_received += size
        try:
            try:
                batches = self.framer.take(*found, rest, self._wall_time())
            except Exception:
                if lease is not None:
                    lease.let_go()
                raise
            if lease is not None:
                batches[0].lease = lease
            self._go_on(size, batches)
        except Exception:  # noqa: BLE001 - as above
            self.fail("records_received")

    def leave_unread(self, size: int) -> None:
        """Count bytes that were received for us as we were lost."""
        self._ledger.bytes_unread += size

    # The lane calls these, and whoever has the connection as a producer.

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

    def evict_partial(self) -> None:
        """See `IBatchProducer`."""
        partial = self.framer.partial
        self._owner.events.record_evicted(self.info, len(partial), bytes(partial[:PREVIEW]))
        self._is_evicting = True
        try:
            self._pass_on(self.framer.evict(self._wall_time()))
        finally:
            self._is_evicting = False

    # A subclass that is given what comes overrides these.

    def _owe(self, batches: list[Batch]) -> None:
        """Note what the lane has been given, before anything else can happen: batches whose bytes may be kept."""

    def _give(self, *, is_last: bool = False) -> None:
        """Hand on what is owed, as far as that may be now; with ``is_last`` all of it."""

    def _forget_owed(self) -> None:
        """Hand on nothing any more."""

    # What follows is ours.

    def _go_on(self, size: int, batches: list[Batch]) -> None:
        """See to the timers and the rates after a chunk of ``size`` bytes, and pass on what it completed."""
        framer, records = self.framer, self.records
        if self.frame_since is not None or framer.in_record:
            self._time_frame(framer)
        if framer.in_doubt or self._doubt is not None:
            self._time_doubt()
        if self.idle_period is not None or self.quiet_since is not None:
            self._note_life(bool(batches))
        self._pass_on(batches)
        if self._meters:
            self._hold_to_rate(size, self.records - records)

    def _pass_on(self, batches: list[Batch]) -> None:
        """Write batches to the lane, settle what the framer holds, and see to what it found."""
        framer, lane = self.framer, self.lane
        # The sinks may have taken a batch when `write` returns, and its bytes are theirs who lent them.
        owed = [batch.copy() for batch in batches] if self._is_followed else []
        for batch in batches:
            self.records += batch.count
            lane.write(batch)
        if owed:
            self._owe(owed)
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

    def _deliver_partial(self) -> None:
        if self.framer.is_run_together:
            self._owner.events.records_run_together(self.info, bytes(self.framer.partial))
        self._pass_on(self.framer.finish(self._wall_time()))

    def _finish(self) -> None:
        """End the stream for ``close_reason``: what is unfinished is delivered after an orderly end, else counted."""
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
