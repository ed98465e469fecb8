"""
The sink that puts a durable queue in front of another one.

It has taken a group once the group is durable on the disk. What the sink behind does with it, and when, is the
replay's business.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_ingest.batch import Group
from twisted_ingest.errors import Durability, Fsync, SinkError
from twisted_ingest.flow.delivery import OnRejected
from twisted_ingest.interfaces import ISink
from twisted_ingest.limits import MIB
from twisted_ingest.observe.events import Events
from twisted_ingest.rejected import Rejected
from twisted_ingest.spool.behind import Behind
from twisted_ingest.spool.body import ForeignError
from twisted_ingest.spool.checkpoint import Checkpoint
from twisted_ingest.spool.cursor import Cursor, Window
from twisted_ingest.spool.disk import Disk, RealDisk
from twisted_ingest.spool.recovery import Recovered, look, recover
from twisted_ingest.spool.replay import Replay
from twisted_ingest.spool.scan import Report
from twisted_ingest.spool.segments import LOCK, Shelf
from twisted_ingest.spool.target import SegmentTarget
from twisted_ingest.storage.appender import Appender

SEGMENT_BYTES = 16 * MIB
"""Bytes after which a new segment is begun: what is removed at once, and what a start reads at once."""

SEGMENT_SHARE = 4
"""Segments that fit in a spool at least: a small one has smaller segments, so that room comes in steps."""

CLOSE_SECONDS = 1.0
"""Seconds that a healthy sink has at a stop to catch up. What is left then waits for the next start."""


@implementer(ISink)
class SpoolSink:
    """
    A spool, and the sink behind it, under one name.

    ``directory`` is its own: no other spool may use it. ``max_bytes`` bounds the segments, ``free_space_floor`` is what
    is left free on the file system. Full, it holds the senders back; with ``drops_oldest`` it gives up its oldest
    segment instead. ``on_rejected`` hears of what the sink behind will never take; by default the log does.
    """

    durability = Durability.FSYNC
    wants_groups = True

    def __init__(
        self,
        inner: ISink,
        directory: str,
        *,
        reactor: Any,
        events: Events,
        wall_time: Callable[[], float],
        max_bytes: int,
        free_space_floor: int = 0,
        drops_oldest: bool = False,
        disk: Disk | None = None,
        on_rejected: OnRejected | None = None,
    ) -> None:
        self.name = inner.name
        self.inner = inner
        self._behind = Behind(inner, reactor, events, self._bring_held, on_rejected or events.sink_rejected)
        self._reactor = reactor
        self._events = events
        self._wall_time = wall_time
        self._disk = disk or RealDisk()
        self._shelf = Shelf(directory, max_bytes, free_space_floor, drops_oldest)
        self._target = SegmentTarget(self._disk, self._shelf, min(SEGMENT_BYTES, max_bytes // SEGMENT_SHARE))
        self._target.on_trouble = lambda trouble: reactor.callFromThread(self.hear, self.on_replay_trouble, trouble)
        self._appender = Appender(f"{self.name} (spool)", self._target, reactor, events, Fsync.ALWAYS)
        self._cursor = Cursor(self._disk, self._shelf)
        self._cursor.on_gone = lambda path: reactor.callFromThread(
            self.hear, events.spool_segment_gone, self.name, path
        )
        self._checkpoint = Checkpoint(self._disk, self._shelf, self._cursor)
        self._replay = Replay(self._shelf, self._cursor, self._checkpoint, reactor, self)
        self._replay_ended: Deferred[None] = Deferred()
        self._held: Window | None = None
        """What the replay has handed over while the sink behind was not started."""
        self._lock = -1
        self._is_started = False
        self._found = Report()

    @property
    def trouble(self) -> str | None:
        """See `ISink`: why the spool takes nothing, or keeps what it has for good."""
        return self._target.trouble or self._appender.writer.trouble or self._replay.trouble

    def describe(self) -> str:
        """See `ISink`."""
        trouble = self._behind.trouble
        kept = f", which keeps what comes ({trouble})" if trouble is not None else ""
        return f"{self._behind.describe()}, through the spool {self._shelf.directory}{kept}"

    # Start.

    def start(self) -> None:
        """
        See `ISink`: locks the directory and looks through it: a second a gigabyte, and four a million batches.

        A sink behind that cannot start yet is started later; only one that is misconfigured ends the start.
        """
        try:
            self._disk.make_directory(self._shelf.directory)
            if LOCK not in self._disk.list(self._shelf.directory):
                # Should it be refused, not even a lock is left in it.
                look(self._disk, self._shelf.directory)
            self._lock = self._disk.lock(self._shelf.path(LOCK))
            began = time.perf_counter()
            recovered = recover(self._disk, self._shelf.directory)
        except BlockingIOError as error:
            where = f"the spool {self._shelf.directory} is in use by another process"
            raise SinkError(f"sink {self.name}: {where}: each needs a directory of its own") from error
        except (ForeignError, OSError) as error:
            self._unlock()
            reason = error.strerror if isinstance(error, OSError) else error
            raise SinkError(f"sink {self.name}: cannot use the spool {self._shelf.directory}: {reason}") from error
        try:
            self._resume(recovered, time.perf_counter() - began)
        except BaseException:
            self._unlock()
            raise

    def _resume(self, recovered: Recovered, seconds: float) -> None:
        self._found = recovered.report
        self._shelf.segments.clear()
        self._shelf.segments.extend(recovered.segments)
        self._shelf.durable = recovered.sequence - 1
        self._shelf.confirmed = recovered.position - 1
        self._target.resume(recovered.sequence, recovered.number)
        self._cursor.start(recovered.position)
        self._checkpoint.start(recovered.position)
        self._behind.start()
        self._events.spool_recovered(
            self.name, self._found.describe(self._shelf.directory, seconds), is_clean=self._found.is_clean
        )
        try:
            self._appender.start(is_open=True)
            self._replay.start(f"ingest-replay-{self.name}")
        except (SinkError, RuntimeError) as failure:
            self.abandon()
            raise SinkError(f"sink {self.name}: no threads for its spool can be started ({failure})") from failure
        self._is_started = True

    def _unlock(self) -> None:
        if self._lock >= 0:
            lock, self._lock = self._lock, -1
            self._disk.close(lock)

    # Taking.

    def deliver(self, group: Group) -> "Deferred[Rejected | None]":
        """See `ISink`: fires once the group is durable in the spool, but for batches that no frame can hold."""
        frames = self._target.frames(group.batches)
        return self._appender.submit(frames).addCallback(lambda _: frames.rejected(self.name, self._events))

    def reopen(self) -> None:
        """See `ISink`: the spool's files are its own; only the sink behind has any that are rotated."""
        self._behind.reopen()

    # Called by the replay, in the reactor's thread.

    def hear(self, call: Callable[..., None], *arguments: object) -> None:
        """See `ReplayOwner`."""
        self._events.guard(f"spool of sink {self.name}", call, *arguments)

    def _bring_held(self) -> None:
        if self._held is not None:
            window, self._held = self._held, None
            self.on_window(window)

    def on_window(self, window: Window) -> None:
        """See `ReplayOwner`."""
        if not self._behind.is_started:
            self._held = window
            return
        # The device must have them before the position passes them and the only other copy is removed.
        group = Group(window.batches, window.size, needs_sync=True)
        _ = self._behind.deliver(group).addCallback(self._note_answer).addErrback(self._note_failure)

    def _note_answer(self, rejected: Rejected | None) -> None:
        self._replay.answer(None, rejected)

    def _note_failure(self, failure: Failure) -> None:
        if not failure.check(SinkError):
            self._events.bug(f"sink {self.name}", failure)
        self._replay.answer(failure.value, is_final=failure.check(SinkError) is not None)

    def on_replay_trouble(self, trouble: str | None) -> None:
        """See `ReplayOwner`."""
        if trouble is None:
            self._events.sink_recovered(f"{self.name} (spool)", self._target.name)
        else:
            self._events.sink_stalled(f"{self.name} (spool)", trouble)

    def on_replay_ended(self) -> None:
        """See `ReplayOwner`."""
        self._replay_ended.callback(None)

    # Stop.

    def close(self) -> "Deferred[None]":
        """See `ISink`: what was delivered is durable then. What the sink behind has not taken yet stays."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._is_started:
            await self._appender.close()
            await self._catch_up()
        await self._behind.close()
        self._unlock()

    async def _catch_up(self) -> None:
        """Have the sink behind take what it can while there is time, and wait for the end of the replay."""
        self._replay.finish()
        if self._behind.trouble is not None:
            # It could take for ever, and everything is in the spool.
            self._behind.abandon()
            self._replay.abandon()
        last_call = self._reactor.callLater(CLOSE_SECONDS, self._replay.stop)
        await self._replay_ended
        if last_call.active():
            last_call.cancel()

    def abandon(self) -> None:
        """See `ISink`."""
        self._appender.abandon()
        self._replay.abandon()
        self._behind.abandon()

    # Accounts.

    def details(self) -> Mapping[str, float]:
        """See `ISink`: what is in the spool, where it came from and where it went, and the counters of both sinks."""
        found, writer, replay, cursor = self._found, self._appender.writer, self._replay, self._cursor
        taken = self._target.records
        gone = replay.records + self._checkpoint.dropped + replay.rejected
        return {
            **self._behind.details(),
            "spooled_records": taken,
            "spooled_bytes": self._target.bytes,
            "spool_recovered_records": found.records,
            "replayed_records": replay.records,
            "replayed_bytes": replay.bytes,
            "replay_retries": replay.retries,
            "spool_waiting_records": max(0, found.records + taken - gone),
            "spool_waiting_batches": self._shelf.durable - self._shelf.confirmed,
            "spool_oldest_seconds": self._oldest_seconds(),
            "spool_disk_bytes": self._shelf.used,
            "spool_segments": len(self._shelf.segments),
            "spool_replaying": int(self._behind.trouble is None and replay.trouble is None),
            "spool_dropped_records": self._checkpoint.dropped,
            "spool_rejected_records": replay.rejected,
            "spool_missing_batches": cursor.missing,
            "spool_duplicate_batches": found.duplicates,
            "spool_passed_batches": found.passed,
            "spool_lost_positions": int(found.lost_position is not None),
            "spool_torn_bytes": found.torn_bytes,
            "spool_quarantined_regions": found.quarantined_regions + cursor.quarantined_regions,
            "spool_quarantined_bytes": found.quarantined_bytes + cursor.quarantined_bytes,
            "spool_unreadable_segments": len(found.unreadable),
            "spool_retries": writer.retries,
            "spool_syncs": writer.counts.syncs,
            "spool_sync_seconds": writer.counts.sync_seconds,
            "spool_sync_failures": writer.counts.sync_failures,
            "spool_rewritten_bytes": writer.counts.rewritten_bytes,
            "spool_position_failures": self._checkpoint.failures,
        }

    def _oldest_seconds(self) -> int:
        oldest = self._replay.oldest
        return 0 if oldest is None else max(0, int(self._wall_time() - oldest))
