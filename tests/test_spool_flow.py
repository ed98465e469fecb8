"""A spool between its two sides: bounded on the disk, positions before removals, and what replays, waits and ends."""

import errno
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.disk import SimDisk
from tests.spooling import DIRECTORY, Spool, make_batch, same, segment_paths
from twisted_ingest.batch import Batch, Group
from twisted_ingest.errors import MisconfiguredError, SinkError
from twisted_ingest.interfaces import ISink
from twisted_ingest.limits import SPARE_INODES
from twisted_ingest.observe.events import Events
from twisted_ingest.rejected import Refusal, Rejected
from twisted_ingest.spool import checkpoint, replay, target
from twisted_ingest.spool import sink as spool_sink
from twisted_ingest.spool.codec import MAX_BODY, encode_frame
from twisted_ingest.spool.cursor import Cursor
from twisted_ingest.spool.disk import Disk, RealDisk
from twisted_ingest.spool.position import Position, read_position
from twisted_ingest.spool.sink import SpoolSink
from twisted_ingest.storage import trouble
from twisted_ingest.testing import MemorySink, StalledSink

PATIENCE = 10.0


class RoomTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(target, "ROOM_SECONDS", 0.0)

    def fill(self, spool: Spool) -> list[bytes | memoryview]:
        """Write frames until there is no room; gives those that are left over."""
        number = 0
        while True:
            number += 1
            frames = list(spool.target.frames([make_batch(number, 300)]))
            if not spool.target.write(frames):
                return frames
            spool.target.sync()

    def test_full_is_full(self) -> None:
        """Past ``max_bytes`` nothing is taken, whatever is tried, until the sink behind has taken something."""
        spool = Spool(segment_bytes=1000, max_bytes=4000)
        frames = self.fill(spool)
        self.assertLessEqual(spool.shelf.used, 4000)
        self.assertEqual(spool.target.write(frames), 0)
        self.assertIn("the spool is full", spool.target.trouble or "")
        taken = spool.deliver()
        self.assertEqual(spool.target.write(frames), len(frames[0]))
        self.assertIsNone(spool.target.trouble)
        self.assertEqual([b.wire for b in taken], [make_batch(n + 1, 300).wire for n in range(len(taken))])

    def test_free_space_floor(self) -> None:
        """What must stay free on the disk is left free."""
        spool = Spool(segment_bytes=1000, floor=500)
        assert isinstance(spool.disk, SimDisk)
        spool.disk.space = 500 + len(next(iter(spool.target.frames([make_batch(1, 300)])))) - 1
        self.assertEqual(spool.target.write(list(spool.target.frames([make_batch(2, 300)]))), 0)
        spool.disk.space += 10
        self.assertGreater(spool.target.write(list(spool.target.frames([make_batch(3, 300)]))), 0)

    def test_inodes_for_the_position(self) -> None:
        """However few inodes there are, segments leave those that the position needs to make room again."""
        for inodes in range(SPARE_INODES + 2, SPARE_INODES + 8):
            spool = Spool(segment_bytes=1000)
            assert isinstance(spool.disk, SimDisk)
            spool.disk.inodes = inodes
            frames = self.fill(spool)
            self.assertIn("no inodes are left on the file system of /spool", spool.target.trouble or "")
            waiting = spool.shelf.durable
            self.assertEqual(len(spool.deliver()), waiting)
            self.assertEqual(len(segment_paths(spool.disk)), 1)
            # The one that is open, and full, may be all that the position has left room for.
            spool.disk.inodes = max(inodes, SPARE_INODES + 4)
            self.assertEqual(spool.target.write(frames), len(frames[0]))
            self.assertIsNone(spool.target.trouble)

    def test_larger_than_the_spool(self) -> None:
        """With nothing waiting a frame is taken however large it is: it could never go elsewhere."""
        spool = Spool(segment_bytes=1000, max_bytes=4000)
        spool.append(make_batch(1, 9000))
        self.assertEqual(spool.target.write(list(spool.target.frames([make_batch(2)]))), 0)
        self.assertEqual(len(spool.deliver()), 1)
        spool.append(make_batch(2))
        self.assertEqual(len(spool.deliver()), 1)
        self.assertLess(spool.shelf.used, 4000)

    def test_more_than_fits_in_one_step(self) -> None:
        """What is written is made durable before room is waited for: the reading side could make none otherwise."""
        spool = Spool(segment_bytes=1000, max_bytes=4000)
        frames = list(spool.target.frames([make_batch(n, 300) for n in range(1, 30)]))
        written = delivered = 0
        while frames:
            number = spool.target.write(frames)
            while number:
                written += 1
                number -= len(frames.pop(0))
            if frames:
                delivered += len(spool.deliver())
        spool.target.sync()
        self.assertEqual(delivered + len(spool.deliver()), 29)

    def test_drop_oldest(self) -> None:
        """Told to, it gives up what waits longest: what is left is in order, and each one lost is counted."""
        spool = Spool(segment_bytes=1000, max_bytes=4000, drops_oldest=True)
        self.fill(spool)
        first, sent = segment_paths(spool.disk)[0], spool.shelf.durable
        spool.checkpoint.drop_oldest()
        self.assertNotIn(first, segment_paths(spool.disk))
        dropped = spool.checkpoint.dropped
        self.assertGreater(dropped, 0)
        wires = [batch.wire for batch in spool.deliver()]
        self.assertEqual(wires, [make_batch(n + 1, 300).wire for n in range(dropped, sent)])
        self.assertEqual(spool.cursor.missing, 0)

    def test_drop_oldest_spares_what_is_out(self) -> None:
        """What the sink behind has in its hands is not counted as dropped, nor read again."""
        spool = Spool(segment_bytes=1000, max_bytes=4000, drops_oldest=True)
        self.fill(spool)
        out, sent = spool.window(1), spool.shelf.durable
        assert out is not None
        spool.checkpoint.drop_oldest()
        spool.checkpoint.confirm(out.last)
        left = spool.deliver()
        self.assertEqual(len(out.batches) + spool.checkpoint.dropped + len(left), sent)
        numbers = [*range(1, len(out.batches) + 1), *range(sent - len(left) + 1, sent + 1)]
        self.assertEqual([b.wire for b in out.batches + left], [make_batch(n, 300).wire for n in numbers])

    def test_the_one_being_written_is_not_dropped(self) -> None:
        """The only segment is never given up."""
        spool = Spool(segment_bytes=1000)
        spool.append(make_batch(1))
        spool.checkpoint.drop_oldest()
        self.assertEqual((spool.checkpoint.dropped, len(spool.deliver())), (0, 1))

    def test_room_is_made_though_the_position_fails(self) -> None:
        """A position that cannot be kept while room is made is counted, and due again; what is dropped counts once."""
        spool = Spool(segment_bytes=1000, max_bytes=4000, drops_oldest=True)
        self.fill(spool)
        assert isinstance(spool.disk, SimDisk)
        first, sent = segment_paths(spool.disk)[0], spool.shelf.durable
        spool.disk.plan[spool.disk.operations + 1] = errno.EIO
        spool.checkpoint.drop_oldest()
        self.assertIn(first, segment_paths(spool.disk))
        self.assertIn("cannot keep the position", spool.checkpoint.trouble or "")
        self.assertIsNotNone(spool.checkpoint.due)
        spool.checkpoint.keep()
        self.assertNotIn(first, segment_paths(spool.disk))
        self.assertEqual((spool.checkpoint.trouble, spool.checkpoint.due, spool.checkpoint.failures), (None, None, 1))
        self.assertEqual(spool.checkpoint.dropped + len(spool.deliver()), sent)


class PositionTests(SynchronousTestCase):
    def spool(self) -> Spool:
        """Give one with three segments, of which two are passed."""
        spool = Spool(segment_bytes=700)
        for number in range(1, 6):
            spool.append(make_batch(number, 300))
        window = spool.window(4 * 300)
        assert window is not None
        spool.checkpoint.confirm(window.last)
        return spool

    def test_durable_before_anything_is_removed(self) -> None:
        """The position is on the device, name and all, before the first segment that it passes is removed."""
        spool = self.spool()
        disk = spool.disk
        assert isinstance(disk, SimDisk)
        before = len(disk.log)
        spool.checkpoint.commit()
        log = disk.log[before:]
        self.assertEqual(log[:5], ["create", "write", "sync", "rename", "sync_directory"])
        self.assertEqual(set(log[5:]), {"unlink"})

    def test_not_removed_when_it_cannot_be_kept(self) -> None:
        """Whatever fails in keeping the position, no segment is removed."""
        for offset in range(1, 6):
            spool = self.spool()
            disk = spool.disk
            assert isinstance(disk, SimDisk)
            disk.plan[disk.operations + offset] = errno.EIO
            before = segment_paths(disk)
            with self.assertRaises(OSError):
                spool.checkpoint.commit()
            self.assertEqual(segment_paths(disk), before)
            self.assertTrue(spool.checkpoint.lags)
            spool.checkpoint.commit()
            self.assertLess(len(segment_paths(disk)), len(before))

    def test_no_further_than_confirmed(self) -> None:
        """What is read and not confirmed is not passed."""
        spool = self.spool()
        window = spool.window(1 << 20)
        assert window is not None
        spool.checkpoint.commit()
        self.assertEqual(read_position(spool.disk, DIRECTORY), Position(5, 3))
        spool.checkpoint.confirm(window.last)
        spool.checkpoint.commit()
        self.assertEqual(read_position(spool.disk, DIRECTORY), Position(6, 3))

    def test_no_segment_is_left_at_the_end(self) -> None:
        """Once all is confirmed and nothing written any more no segment is left, and numbers go on; not before that."""
        spool = Spool(segment_bytes=700)
        for number in range(1, 6):
            spool.append(make_batch(number, 300))
        disk = spool.disk
        assert isinstance(disk, SimDisk)
        window = spool.window(4 * 300)
        assert window is not None
        spool.checkpoint.confirm(window.last)
        spool.checkpoint.remove_rest()
        self.assertEqual(len(segment_paths(disk)), 3)
        spool.target.close()
        spool.checkpoint.remove_rest()
        self.assertEqual(len(segment_paths(disk)), 3)
        spool.deliver()
        self.assertEqual(len(segment_paths(disk)), 1)
        last = spool.shelf.segments[-1].number
        for failing in range(1, 7):
            # Whatever fails on the way: the position is kept first, with the highest number of all.
            disk.plan[disk.operations + failing] = errno.EIO
            spool.checkpoint.remove_rest()
            if spool.shelf.segments:
                self.assertEqual((len(segment_paths(disk)), spool.checkpoint.trouble is None), (1, False))
        disk.plan.clear()
        spool.checkpoint.remove_rest()
        self.assertEqual((segment_paths(disk), spool.checkpoint.trouble), ([], None))
        disk.kill()
        again = Spool(disk, segment_bytes=700)
        self.assertEqual((again.recovered.sequence, again.recovered.number), (6, last + 1))
        self.assertTrue(again.recovered.report.is_clean)

    def test_markers_are_nobodys_guess(self) -> None:
        """Each run marks its frames with random bytes of its own."""
        markers = set()
        for _ in range(20):
            spool = Spool()
            spool.append(make_batch(1))
            markers.add(spool.shelf.segments[0].marker)
        self.assertEqual(len(markers), 20)


class Threads(Clock):
    """A clock that runs what threads ask for when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: SimpleQueue[tuple[Callable[..., object], tuple[object, ...]]] = SimpleQueue()

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        """Keep a call."""
        self._calls.put((function, arguments))

    def run_until(self, condition: Callable[[], object]) -> None:
        """Make the calls asked for, in order, until something holds."""
        while not condition():
            function, arguments = self._calls.get(timeout=PATIENCE)
            function(*arguments)


class SpoolCase(TestCase):
    """A spool in a directory of its own, with a reactor that the test turns."""

    def setUp(self) -> None:
        self.patch(trouble, "RETRY_SECONDS", (0.0001, 0.0002))
        self.patch(replay, "RETRY_SECONDS", (0.0001, 0.0002))
        self.directory = tempfile.mkdtemp(prefix="ingest-spool-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.reactor = Threads()

    def make(
        self, inner: ISink, *, max_bytes: int = 1 << 20, drops_oldest: bool = False, disk: Disk | None = None
    ) -> SpoolSink:
        """Start a spool in front of a sink."""
        sink = SpoolSink(
            inner,
            os.path.join(self.directory, "spool"),
            reactor=self.reactor,
            events=Events(self.reactor.seconds),
            wall_time=lambda: 1_800_000_100.0,
            max_bytes=max_bytes,
            drops_oldest=drops_oldest,
            disk=disk,
        )
        sink.start()
        self.addCleanup(self.end, sink)
        return sink

    def end(self, sink: SpoolSink) -> None:
        """Stop, whatever state it is in; all threads end."""
        sink.abandon()
        self.close(sink)

    def close(self, sink: SpoolSink) -> None:
        """Close, and wait until that is done."""
        done: list[object] = []
        _ = sink.close().addBoth(done.append)
        self.reactor.run_until(lambda: done)
        self.assertEqual(done, [None])

    def take(self, sink: SpoolSink, *batches: Batch) -> None:
        """Deliver a group, and wait until the spool has taken it."""
        done: list[object] = []
        _ = sink.deliver(Group(list(batches), sum(batch.size for batch in batches))).addBoth(done.append)
        self.reactor.run_until(lambda: done)
        self.assertEqual(done, [None])


class SinkTests(SpoolCase):
    def test_all_the_way(self) -> None:
        """What is delivered comes out behind, the same and in order, and the counts agree."""
        inner = MemorySink("behind")
        sink = self.make(inner)
        sent = [make_batch(number, 50, records=3) for number in range(1, 30)]
        for batch in sent:
            self.take(sink, batch)
        self.reactor.run_until(lambda: len(inner.batches) == len(sent))
        self.close(sink)
        self.assertTrue(all(same(one, other) for one, other in zip(inner.batches, sent, strict=True)))
        details = sink.details()
        self.assertEqual((details["spooled_records"], details["replayed_records"]), (87, 87))
        # Nothing is left that a version with another format could not read.
        self.assertEqual(sorted(os.listdir(os.path.join(self.directory, "spool"))), ["lock", "position"])
        self.assertEqual((details["spool_waiting_records"], details["spool_waiting_batches"]), (0, 0))
        self.assertEqual(sink.name, "behind")
        self.assertIsNone(sink.trouble)

    def test_a_stalled_sink_holds_nobody_up(self) -> None:
        """With the sink behind stalled everything is taken, and shown as waiting; what is left survives a stop."""
        inner = StalledSink()
        sink = self.make(inner)
        for number in range(1, 6):
            self.take(sink, make_batch(number))
        self.reactor.run_until(lambda: inner.waiting)
        # Only once the device has it behind may the spool's copy go.
        self.assertTrue(inner.waiting[0][0].needs_sync)
        details = sink.details()
        self.assertEqual((details["spool_waiting_records"], details["spool_oldest_seconds"]), (5, 98))
        self.end(sink)
        after = MemorySink()
        again = self.make(after)
        self.reactor.run_until(lambda: len(after.batches) == 5)
        self.assertEqual(again.details()["spool_recovered_records"], 5)

    def test_a_window_at_a_time(self) -> None:
        """However much waits, two windows are in memory: one with the sink behind, one read ahead."""
        self.patch(replay, "WINDOW_BYTES", 100)
        inner = StalledSink()
        sink = self.make(inner)
        for number in range(1, 9):
            self.take(sink, make_batch(number, 100))
        self.reactor.run_until(lambda: inner.waiting)
        self.assertEqual(len(inner.waiting), 1)
        self.assertEqual(len(inner.waiting[0][0].batches), 1)
        while len(inner.batches) < 8:
            self.reactor.run_until(lambda: inner.waiting)
            inner.release(1)

    def test_an_error_that_passes(self) -> None:
        """A sink behind that raises something else than `SinkError` gets the window again, and nothing is lost."""
        inner = _Raising(3)
        sink = self.make(inner)
        self.take(sink, make_batch(1), make_batch(2))
        self.reactor.run_until(lambda: len(inner.batches) == 2)
        self.close(sink)
        self.assertEqual(sink.details()["replay_retries"], 3)
        self.assertIsNone(sink.trouble)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 3)

    def test_records_that_are_rejected(self) -> None:
        """What is rejected of a window is given up, counted and named, and the window is not brought again."""
        for rejected in ({2}, {1, 4}, {1, 2, 3, 4}, {4}):
            inner = _Rejecting(rejected)
            sink = self.make(inner)
            lines: list[tuple[str, int, str]] = []
            sink._behind.on_rejected = partial(_keep, lines)
            self.take(sink, *(make_batch(number, records=3) for number in (1, 2, 3, 4)))
            self.take(sink, make_batch(5))
            self.reactor.run_until(partial(_has_taken, inner, 5))
            self.close(sink)
            self.assertEqual(inner.taken(), [number for number in (1, 2, 3, 4, 5) if number not in rejected])
            self.assertEqual(sum(line[1] for line in lines), 3 * len(rejected))
            self.assertEqual({(line[0], line[2]) for line in lines}, {("memory", "bad")})
            details = sink.details()
            self.assertEqual(details["spool_rejected_records"], 3 * len(rejected))
            self.assertEqual(details["replayed_records"], 13 - 3 * len(rejected))
            self.assertEqual((details["spool_waiting_records"], details["spool_waiting_batches"]), (0, 0))
            shutil.rmtree(os.path.join(self.directory, "spool"))

    def test_no_answer_is_no_answer(self) -> None:
        """A sink behind that gives no Deferred has not taken a window: it is counted, and brought again."""
        inner = _Forgetful()
        sink = self.make(inner)
        self.take(sink, make_batch(1))
        self.reactor.run_until(lambda: sink.trouble)
        self.assertIn("returned NoneType: let it return a Deferred", sink.trouble or "")
        inner.remembers = True
        self.reactor.run_until(lambda: sink.trouble is None)
        self.assertEqual(sink.details()["replayed_records"], 1)
        self.assertTrue(self.flushLoggedErrors(TypeError))

    def test_a_batch_that_cannot_be_framed(self) -> None:
        """A batch that the codec cannot write is rejected alone: its neighbours are taken, and no number is skipped."""
        inner = MemorySink()
        sink = self.make(inner)
        bad, huge = make_batch(2), make_batch(4)
        bad.received_at = "now"  # type: ignore[assignment]
        huge.size = MAX_BODY
        done: list[Any] = []
        _ = sink.deliver(Group([make_batch(1), bad, make_batch(3), huge], 40)).addBoth(done.append)
        self.reactor.run_until(lambda: done)
        self.assertEqual([(each.batch, each.records) for each in done[0].refusals], [(bad, None), (huge, None)])
        self.assertIn("they cannot be written: OverflowError: a batch of", done[0].refusals[1].reason)
        self.take(sink, make_batch(5))
        self.reactor.run_until(lambda: len(inner.batches) == 3)
        self.close(sink)
        self.assertEqual(inner.records, [b"1.0:", b"3.0:", b"5.0:"])
        details = sink.details()
        self.assertEqual((details["spool_missing_batches"], details["spool_waiting_batches"]), (0, 0))
        self.assertEqual((details["spooled_records"], details["spool_waiting_records"]), (3, 0))
        self.assertEqual([len(self.flushLoggedErrors(each)) for each in (struct.error, OverflowError)], [1, 1])

    def test_no_memory_for_a_frame(self) -> None:
        """Want of memory is no fault of a batch: the group fails, and no number is skipped."""
        self.patch(target, "encode_frame", partial(_out_of_memory, encode_frame))
        inner = MemorySink()
        sink = self.make(inner)
        self.take(sink, make_batch(1))
        done: list[Any] = []
        _ = sink.deliver(Group([make_batch(2), make_batch(3)], 20)).addBoth(done.append)
        self.reactor.run_until(lambda: done)
        self.assertTrue(done[0].check(MemoryError))
        self.take(sink, make_batch(4))
        self.reactor.run_until(lambda: len(inner.batches) == 2)
        self.close(sink)
        self.assertEqual((inner.records, sink.details()["spool_missing_batches"]), ([b"1.0:", b"4.0:"], 0))

    def test_a_sink_that_fails_for_good(self) -> None:
        """After a `SinkError` nothing is replayed, everything is kept, and ``trouble`` says so; more is taken still."""
        inner = StalledSink()
        sink = self.make(inner)
        self.take(sink, make_batch(1))
        self.reactor.run_until(lambda: inner.waiting)
        inner.fail()
        self.reactor.run_until(lambda: sink.trouble)
        self.assertIn("failed for good", sink.trouble or "")
        self.take(sink, make_batch(2))
        self.assertEqual(sink.details()["spool_replaying"], 0)
        self.close(sink)
        after = MemorySink()
        self.make(after)
        self.reactor.run_until(lambda: len(after.batches) == 2)

    def test_dropping_while_stalled(self) -> None:
        """With ``drop-oldest`` a stalled sink never holds the senders up; what is lost is counted exactly."""
        self.patch(replay, "WINDOW_BYTES", 100)
        self.patch(target, "ROOM_SECONDS", 0.01)
        inner = StalledSink()
        sink = self.make(inner, max_bytes=4000, drops_oldest=True)
        for number in range(1, 31):
            self.take(sink, make_batch(number, 300))
        dropped = sink.details()["spool_dropped_records"]
        self.assertGreater(dropped, 0)
        while len(inner.batches) < 30 - dropped:
            self.reactor.run_until(lambda: inner.waiting)
            inner.release(1)
        self.close(sink)
        self.assertEqual(sink.details()["spool_waiting_records"], 0)
        numbers = [int(record.partition(b".")[0]) for record in inner.records]
        self.assertEqual(numbers, sorted(numbers))

    def test_full_while_stalled(self) -> None:
        """With ``block`` a full spool takes nothing and says why; once the sink behind goes on, so does it."""
        self.patch(target, "ROOM_SECONDS", 0.01)
        inner = StalledSink()
        sink = self.make(inner, max_bytes=4000)
        answers = [0]
        for number in range(1, 31):
            done = sink.deliver(Group([make_batch(number, 300)], 300))
            _ = done.addCallback(lambda _: answers.append(1))
        self.reactor.run_until(lambda: "the spool is full" in (sink.trouble or ""))
        self.assertLess(sum(answers), 30)
        while len(inner.batches) < 30:
            self.reactor.run_until(lambda: inner.waiting)
            inner.release()
        self.reactor.run_until(lambda: sum(answers) == 30)
        self.assertIsNone(sink.trouble)
        self.assertEqual(sink.details()["spool_dropped_records"], 0)

    def test_a_disk_that_cannot_be_read(self) -> None:
        """Reading is tried again and said to be in trouble; nothing is passed over meanwhile."""
        disk = _Failing("read", 3)
        inner = MemorySink()
        sink = self.make(inner, disk=disk)
        self.take(sink, make_batch(1))
        self.reactor.run_until(lambda: len(inner.batches) == 1)
        self.close(sink)
        self.assertEqual((sink.details()["replay_retries"], sink.details()["spool_missing_batches"]), (3, 0))

    def test_a_position_that_cannot_be_kept(self) -> None:
        """A position that cannot be written is tried again and counted, and said to be in trouble until it is."""
        self.patch(checkpoint, "COMMIT_SECONDS", 0.01)
        disk = _Failing("rename", 2)
        inner = MemorySink()
        sink = self.make(inner, disk=disk)
        self.take(sink, make_batch(1))
        self.reactor.run_until(lambda: "cannot keep the position" in (sink.trouble or ""))
        self.reactor.run_until(lambda: sink.trouble is None)
        self.assertEqual(sink.details()["spool_position_failures"], 2)
        self.close(sink)
        after = MemorySink()
        again = self.make(after)
        self.take(again, make_batch(2))
        self.reactor.run_until(lambda: after.batches)
        self.assertEqual(after.records, [b"2.0:"])

    def test_a_bug_in_the_reader(self) -> None:
        """Should the reading thread die, the spool says so, and takes what comes still."""
        self.patch(Cursor, "read", lambda self, limit: 1 // 0)
        sink = self.make(MemorySink())
        self.reactor.run_until(lambda: sink.trouble)
        self.assertIn("spool has ended, ZeroDivisionError", sink.trouble or "")
        self.take(sink, make_batch(1))

    def test_stopped_while_the_sink_behind_is_slow(self) -> None:
        """At a stop a sink that answers has a moment; what it has not taken by then waits for the next start."""
        self.patch(spool_sink, "CLOSE_SECONDS", 0.125)
        self.patch(replay, "WINDOW_BYTES", 1)
        inner = StalledSink()
        sink = self.make(inner)
        for number in (1, 2, 3):
            self.take(sink, make_batch(number))
        self.reactor.run_until(lambda: inner.waiting)
        done: list[object] = []
        _ = sink.close().addBoth(done.append)
        self.reactor.run_until(lambda: 0.125 in [call.getTime() for call in self.reactor.getDelayedCalls()])
        self.reactor.advance(0.125)
        inner.release(1)
        self.reactor.run_until(lambda: done)
        after = MemorySink()
        self.make(after)
        self.reactor.run_until(lambda: len(after.batches) == 2)
        self.assertEqual(after.records, [b"2.0:", b"3.0:"])

    def test_a_directory_in_use(self) -> None:
        """A second spool on the same directory is refused with what to do; the sink behind is not started."""
        self.make(MemorySink())
        with self.assertRaisesRegex(SinkError, "in use by another process: each needs a directory of its own"):
            self.make(MemorySink())

    def test_a_directory_that_cannot_be(self) -> None:
        """A path that is no directory is refused."""
        with open(os.path.join(self.directory, "spool"), "wb"):
            pass
        with self.assertRaisesRegex(SinkError, "cannot use the spool"):
            self.make(MemorySink())

    def test_a_sink_that_cannot_start(self) -> None:
        """Where the sink behind is misconfigured the start is refused, and the directory is free again."""
        with self.assertRaises(MisconfiguredError):
            self.make(_Refused())
        self.make(MemorySink())

    def test_what_a_start_found(self) -> None:
        """The start says in one line what waits and how long looking took."""
        inner = StalledSink()
        sink = self.make(inner)
        self.take(sink, make_batch(1, records=2))
        self.end(sink)
        lines: list[str] = []
        self.patch(Events, "spool_recovered", lambda _, sink, found, is_clean: lines.append(found))
        self.make(MemorySink())
        self.assertRegex(lines[0], r"2 records \(\d+B\) wait in 1 segments; looked through in \d\.\d{3} s")


def _has_taken(sink: "_Rejecting", number: int) -> bool:
    return number in sink.taken()


def _out_of_memory(encode: Callable[..., bytes], marker: bytes, sequence: int, batch: Batch) -> bytes:
    """Make a frame of any batch but number 3."""
    if bytes(batch.wire).startswith(b"3."):
        raise MemoryError
    return encode(marker, sequence, batch)


def _keep(lines: list[tuple[str, int, str]], sink: str, rejected: Rejected) -> None:
    """Note what an event is told."""
    lines.append((sink, rejected.count, str(rejected)))


class _Raising(MemorySink):
    """Raises so many times, then takes."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._times = times

    def deliver(self, group: Group) -> "Deferred[None]":
        if self._times:
            self._times -= 1
            raise RuntimeError("not now")
        return super().deliver(group)


class _Rejecting(MemorySink):
    """Rejects these batches of what it is handed."""

    def __init__(self, rejected: set[int]) -> None:
        super().__init__()
        self._rejected = rejected

    def deliver(self, group: Group) -> "Deferred[Rejected]":
        bad = [batch for batch in group.batches if int(bytes(batch.wire).partition(b".")[0]) in self._rejected]
        self.batches += [batch for batch in group.batches if batch not in bad]
        return succeed(Rejected([Refusal(batch, None, "bad") for batch in bad]))

    def taken(self) -> list[int]:
        return [int(bytes(batch.wire).partition(b".")[0]) for batch in self.batches]


class _Forgetful(MemorySink):
    """Forgets to return what it has, until it remembers."""

    remembers = False

    def deliver(self, group: Group) -> "Deferred[None]":
        return super().deliver(group) if self.remembers else None  # type: ignore[return-value]


class _Refused(MemorySink):
    """Cannot start."""

    def start(self) -> None:
        raise MisconfiguredError("no")


class _Failing(RealDisk):
    """A disk on which one kind of call fails so many times, once something has been synced."""

    def __init__(self, name: str, times: int) -> None:
        self._name = name
        self._times = times
        self._has_synced = False

    def _fail(self, name: str) -> None:
        if name == self._name and self._times and self._has_synced:
            self._times -= 1
            raise OSError(errno.EIO, "Input/output error")

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self._has_synced = True

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        self._fail("read")
        return super().read(descriptor, size, offset)

    def rename(self, source: str, target: str) -> None:
        self._fail("rename")
        super().rename(source, target)


class RealDiskTests(TestCase):
    def test_a_directory_that_cannot_be_synced(self) -> None:
        """On a file system that syncs no directories a spool works as well as it can; on one that fails it does not."""
        root = tempfile.mkdtemp(prefix="ingest-spool-")
        self.addCleanup(shutil.rmtree, root)

        def fsync(descriptor: int) -> None:
            raise OSError(error, os.strerror(error))

        self.patch(os, "fsync", fsync)
        error = errno.EINVAL
        RealDisk().make_directory(os.path.join(root, "a"))
        error = errno.EIO
        with self.assertRaises(OSError):
            RealDisk().make_directory(os.path.join(root, "b"))

    def test_directories_are_made_durably(self) -> None:
        """Each directory that is made has its name synced in the one around it."""
        synced: list[str] = []

        class Disk(RealDisk):
            def sync_directory(self, path: str) -> None:
                synced.append(path)
                super().sync_directory(path)

        root = tempfile.mkdtemp(prefix="ingest-spool-")
        self.addCleanup(shutil.rmtree, root)
        Disk().make_directory(os.path.join(root, "a", "b"))
        self.assertEqual(synced[-2:], [root, os.path.join(root, "a")])
