"""The appender against a target that fails in every way: order kept, nothing lost, doubled or torn, acks honest."""

import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from twisted_ingest.errors import Fsync, SinkError
from twisted_ingest.observe.events import Events
from twisted_ingest.storage import output, queue, syncs, trouble
from twisted_ingest.storage.appender import Appender
from twisted_ingest.storage.fifo import Fifo
from twisted_ingest.storage.progress import Progress
from twisted_ingest.storage.target import IOV_MAX, Place, Spot

PATIENCE = 10.0
"""Seconds after which a thread that should have done something counts as hung."""


Plan = Callable[[], int | None]
"""What one call of a target does: gives the most bytes to take (``None``: all), or raises."""


def fail(number: int) -> Plan:
    """Make a call fail."""

    def plan() -> int | None:
        raise OSError(number, errno.errorcode[number])

    return plan


def take(number: int) -> Plan:
    """Make a write take at most so many bytes."""
    return lambda: number


class Hold:
    """Makes a call take until it is released, and then do another plan."""

    def __init__(self, then: Plan = lambda: None) -> None:
        self.entered = threading.Event()
        self._released = threading.Event()
        self._then = then

    def __call__(self) -> int | None:
        self.entered.set()
        self.wait(self._released)
        return self._then()

    def release(self) -> None:
        """Let the call go on."""
        self._released.set()

    @staticmethod
    def wait(event: threading.Event) -> None:
        """Wait, but not for ever."""
        if not event.wait(PATIENCE):
            raise AssertionError("nothing happened")


class Medium:
    """
    A target in memory.

    ``open`` begins a new file, as after a rotation; ``sync`` makes the current file durable up to its end, and one
    that fails loses for good whatever was not durable. ``plans`` says what the next calls do; one without a plan works.
    ``move`` is what somebody else does to the current file; a removed one takes what it holds with it.
    """

    final_errors = frozenset({errno.EPIPE})
    fifo: Fifo | None = None
    name = "a file in memory"
    sight: Place | None = None
    spot: Spot | None = None
    looks = False
    """Whether a write looks where the file is then."""

    def __init__(self) -> None:
        self.files = [bytearray()]
        self.durable = [0]
        self.calls: list[str] = []
        self.put_aside = 0
        self.plans: dict[str, deque[Plan]] = {name: deque() for name in ("open", "write", "sync", "retire", "place")}
        self.is_closed = threading.Event()
        self._place = Place.HERE

    def move(self, place: Place = Place.ELSEWHERE) -> None:
        """Rename the current file, or remove it."""
        self._place = place

    def place(self) -> Place:
        """Say where it is."""
        if self.plans["place"]:
            self.plans["place"].popleft()()
        return self._place

    def plan(self, name: str, *plans: Plan) -> None:
        """Say what the next calls of one kind do."""
        self.plans[name].extend(plans)

    def _call(self, name: str) -> int | None:
        self.calls.append(name)
        plans = self.plans[name]
        return plans.popleft()() if plans else None

    def open(self) -> None:
        """Begin a file."""
        left, self._place = self._place, Place.HERE
        try:
            self._call("open")
        except OSError:
            self._place = left
            raise
        if left is Place.NOWHERE:
            self.files[-1].clear()
        self.files.append(bytearray())
        self.durable.append(0)

    def write(self, buffers: Sequence[bytes | memoryview]) -> int:
        """Take bytes."""
        if len(buffers) > IOV_MAX:
            raise AssertionError("the kernel refuses so many buffers")
        self.sight = None
        limit = self._call("write")
        data = b"".join(buffers)
        self.files[-1] += data[:limit]
        if self.looks and len(data[:limit]) == len(data):
            self.sight = self._place
        return len(data[:limit])

    def sync(self) -> None:
        """Make durable, or lose."""
        end = len(self.files[-1])
        try:
            self._call("sync")
        except OSError:
            del self.files[-1][self.durable[-1] :]
            raise
        self.durable[-1] = end

    def retire(self, *, worthless: bool) -> None:
        """Put aside, or remove."""
        self._call("retire")
        self.put_aside += not worthless
        self._place = Place.NOWHERE if worthless else Place.ELSEWHERE

    def close(self) -> None:
        """Close."""
        self.is_closed.set()

    def read(self) -> bytes:
        """Give all files, in order."""
        return b"".join(self.files)

    def lines(self) -> list[bytes]:
        """Give the whole lines of all files, in order."""
        return [line for file in self.files for line in bytes(file).split(b"\n")[:-1]]

    def torn(self) -> int:
        """Count the files that end in half a line."""
        return sum(not file.endswith(b"\n") for file in self.files if file)

    def readable_bytes(self) -> bytes:
        """Give what can be read now: what a removed file holds cannot."""
        files = self.files[:-1] if self._place is Place.NOWHERE else self.files
        return b"".join(file[: file.rfind(b"\n") + 1] for file in files)

    def durable_bytes(self) -> bytes:
        """Give the whole lines that survive a crash of the machine now."""
        kept = [bytes(file[:end]) for file, end in zip(self.files, self.durable, strict=True)]
        return b"".join(part[: part.rfind(b"\n") + 1] for part in kept)


class HandReactor(Clock):
    """
    Keeps what a thread asks for until the test lets it happen; ``snapshot`` is taken when it asks.

    Its time goes on by itself, and by what the test adds to it.
    """

    def __init__(self, snapshot: Callable[[], bytes]) -> None:
        super().__init__()
        self._snapshot = snapshot
        self._calls: SimpleQueue[tuple[bytes, Callable[..., object], tuple[object, ...]]] = SimpleQueue()
        self.seen = b""

    def seconds(self) -> float:
        """Give the time."""
        return float(super().seconds()) + time.monotonic()

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        """Keep a call."""
        self._calls.put((self._snapshot(), function, arguments))

    def run_until(self, condition: Callable[[], object]) -> None:
        """Make the calls asked for, in order, until something holds."""
        while not condition():
            self.seen, function, arguments = self._calls.get(timeout=PATIENCE)
            function(*arguments)

    def is_idle(self) -> bool:
        """Whether nothing was asked for."""
        return self._calls.empty()


class Outcome:
    """How a Deferred fired, and how often."""

    def __init__(self, deferred: "Deferred[None]", note: Callable[[], object] = lambda: None) -> None:
        self.times = 0
        self.error: BaseException | None = None
        self._note = note
        _ = deferred.addCallbacks(self._fired, self._failed)

    def _fired(self, result: None) -> None:
        self.times += 1
        self._note()

    def _failed(self, failure: Any) -> None:
        self.times += 1
        self.error = failure.value


class Bench:
    """An appender, its target and its reactor."""

    def __init__(self, fsync: Fsync, snapshot: Callable[[Medium], bytes]) -> None:
        self.medium = Medium()
        self.reactor = HandReactor(lambda: snapshot(self.medium))
        self.log: list[str] = []
        self.events = events = Events(self.reactor.seconds)
        events.subscribe(lambda fact: self.log.append(fact.message))
        self.appender = Appender("test", self.medium, self.reactor, events, fsync)

    def start(self, *, is_open: bool = True) -> None:
        """Start the thread."""
        if not is_open:
            self.medium.move(Place.NOWHERE)
        self.appender.start(is_open=is_open)

    def rotate(self) -> None:
        """Rename the current file, and say so."""
        self.medium.move()
        self.appender.reopen()

    def submit(self, *buffers: bytes, note: Callable[[], object] = lambda: None, sync: bool = False) -> Outcome:
        """Submit one job."""
        return Outcome(self.appender.submit(list(buffers), sync=sync), note)

    def submit_made(self, buffers: Iterable[bytes]) -> Outcome:
        """Submit one job that is made when its turn has come."""
        return Outcome(self.appender.submit(buffers))

    def hear(self, *outcomes: Outcome) -> None:
        """Run until jobs are answered."""
        self.reactor.run_until(lambda: all(outcome.times for outcome in outcomes))

    def close(self) -> Outcome:
        """Close, and run until that is done."""
        outcome = Outcome(self.appender.close())
        self.hear(outcome)
        return outcome


SLOW_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ERRORS = [errno.ENOSPC, errno.EIO, errno.EINTR, errno.EAGAIN]
MOVES = {"rename": Place.ELSEWHERE, "remove": Place.NOWHERE}
WRITES = st.lists(st.one_of(st.integers(0, 12), st.sampled_from(ERRORS).map(fail), st.just("reopen")), max_size=30)
FAILURES = st.lists(st.one_of(st.none(), st.sampled_from(ERRORS).map(fail)), max_size=4)
MOVING_WRITES = st.lists(
    st.one_of(st.integers(0, 12), st.sampled_from(ERRORS).map(fail), st.sampled_from(["reopen", *MOVES])), max_size=30
)
SHAPES = st.lists(st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=3), min_size=1, max_size=5)


def make_jobs(shapes: list[list[list[int]]]) -> list[list[bytes]]:
    """Make jobs of buffers of lines, no two lines the same, from the lines' lengths."""
    number = 0
    jobs: list[list[bytes]] = []
    for shape in shapes:
        jobs.append([])
        for lengths in shape:
            jobs[-1].append(b"".join(b"%d:%b\n" % (number + i, b"x" * size) for i, size in enumerate(lengths)))
            number += len(lengths)
    return jobs


def lines_of(jobs: list[list[bytes]]) -> list[bytes]:
    """Give the lines of jobs, in order."""
    return b"".join(buffer for job in jobs for buffer in job).split(b"\n")[:-1]


class AppenderCase(TestCase):
    def setUp(self) -> None:
        self.patch(trouble, "RETRY_SECONDS", (0.0001, 0.0002))

    def bench(self, fsync: Fsync = Fsync.NEVER, snapshot: Callable[[Medium], bytes] = Medium.durable_bytes) -> Bench:
        """Make an appender that ends with the test; ``snapshot`` is taken at each answer."""
        bench = Bench(fsync, snapshot)
        self.addCleanup(bench.appender.abandon)
        return bench


class ProgressTests(TestCase):
    @SLOW_MACHINE
    @given(SHAPES, st.lists(st.integers(0, 12), max_size=30))
    def test_any_sizes_of_writes(self, shapes: list[list[list[int]]], sizes: list[int]) -> None:
        """Whatever sizes the writes have, their bytes are the buffers' bytes, once and in order."""
        buffers = [buffer for job in make_jobs(shapes) for buffer in job]
        progress = Progress(buffers)
        taken = b""
        while not progress.is_done:
            window = b"".join(progress.window())
            number = min(sizes.pop(), len(window)) if sizes else len(window)
            taken += window[:number]
            progress.advance(number)
        self.assertEqual(taken, b"".join(buffers))
        self.assertEqual(progress.written, len(taken))

    @SLOW_MACHINE
    @given(SHAPES, st.floats(0, 1))
    def test_step_back_to_the_line(self, shapes: list[list[list[int]]], share: float) -> None:
        """Stepping back goes to the beginning of the line that is written in part, and nowhere from a boundary."""
        buffers = [buffer for job in make_jobs(shapes) for buffer in job]
        whole = b"".join(buffers)
        progress = Progress(buffers)
        number = int(len(whole) * share)
        progress.advance(number)
        boundary = whole.rfind(b"\n", 0, number) + 1
        self.assertEqual(progress.step_back(), boundary != number)
        self.assertEqual(b"".join(progress.window()), whole[boundary:])
        self.assertFalse(progress.step_back())

    @SLOW_MACHINE
    @given(SHAPES, st.tuples(st.floats(0, 1), st.floats(0, 1)), st.integers(0, 60))
    def test_step_back_to_what_was_read(
        self, shapes: list[list[list[int]]], shares: tuple[float, float], unread: int
    ) -> None:
        """Going back over bytes ends at the beginning of the line that the last one read stands in, or at the mark."""
        buffers = [buffer for job in make_jobs(shapes) for buffer in job]
        whole = b"".join(buffers)
        mark, number = sorted(int(len(whole) * share) for share in shares)
        progress = Progress(buffers)
        progress.advance(mark)
        progress.step_back()
        progress.mark()
        mark = whole.rfind(b"\n", 0, mark) + 1
        progress.advance(number - mark)
        read = max(mark, number - unread)
        boundary = whole.rfind(b"\n", 0, read) + 1
        self.assertEqual(progress.step_back(unread), boundary != read)
        self.assertEqual(b"".join(progress.window()), whole[boundary:])

    def test_window_is_bounded(self) -> None:
        """No more buffers than one system call takes are offered at once."""
        progress = Progress([b"x\n"] * (IOV_MAX + 1))
        self.assertEqual(len(progress.window()), IOV_MAX)


class ScheduleTests(AppenderCase):
    def run_schedule(
        self, bench: Bench, jobs: list[list[bytes]], writes: list[Any], *, sync: Callable[[int], bool] = lambda _: False
    ) -> list[bytes]:
        """Submit the jobs to a target that does as the schedule says, and close; gives what was durable per answer."""

        def reopen() -> int | None:
            bench.rotate()
            return 2

        def move(place: Place) -> Plan:
            return lambda: bench.medium.move(place)

        named = {"reopen": reopen} | {name: move(place) for name, place in MOVES.items()}
        for step in writes:
            bench.medium.plan("write", take(step) if isinstance(step, int) else named.get(step, step))
        seen: dict[int, bytes] = {}
        bench.start()

        def note(number: int) -> Callable[[], object]:
            return lambda: seen.setdefault(number, bench.reactor.seen)

        outcomes = [bench.submit(*job, note=note(number), sync=sync(number)) for number, job in enumerate(jobs)]
        self.assertIsNone(bench.close().error)
        self.assertEqual([outcome.times for outcome in outcomes], [1] * len(jobs))
        self.assertEqual([outcome.error for outcome in outcomes], [None] * len(jobs))
        self.assertIsNone(bench.appender.writer.trouble)
        return [seen[number] for number in range(len(jobs))]

    @SLOW_MACHINE
    @given(SHAPES, WRITES, FAILURES)
    def test_any_schedule(self, shapes: list[list[list[int]]], writes: list[Any], opens: list[Plan | None]) -> None:
        """Any short writes, errors and reopenings leave every line once, whole and in order, torn halves counted."""
        jobs = make_jobs(shapes)
        bench = self.bench()
        bench.medium.plan("open", *(plan or (lambda: None) for plan in opens))
        self.run_schedule(bench, jobs, writes)
        self.assertEqual(bench.medium.lines(), lines_of(jobs))
        self.assertEqual(bench.medium.torn(), bench.appender.writer.counts.torn_records)
        self.assertEqual(bench.appender.writer.counts.rewritten_bytes, 0)

    @SLOW_MACHINE
    @given(SHAPES, MOVING_WRITES, FAILURES)
    def test_any_schedule_with_moves(
        self, shapes: list[list[list[int]]], writes: list[Any], opens: list[Plan | None]
    ) -> None:
        """With files renamed and removed in between each answered line can be read when it is answered, and once."""
        self.patch(output, "MOVE_SECONDS", 0.0)
        jobs = make_jobs(shapes)
        bench = self.bench(snapshot=Medium.readable_bytes)
        bench.medium.plan("open", *(plan or (lambda: None) for plan in opens))
        for job, seen in zip(jobs, self.run_schedule(bench, jobs, writes), strict=True):
            self.assertEqual(set(lines_of([job])) - set(seen.split(b"\n")), set())
        lines = bench.medium.lines()
        self.assertEqual(len(lines), len(set(lines)))

    @SLOW_MACHINE
    @given(SHAPES, WRITES, FAILURES, FAILURES)
    def test_any_schedule_with_failing_syncs(
        self, shapes: list[list[list[int]]], writes: list[Any], syncs: list[Plan | None], retires: list[Plan | None]
    ) -> None:
        """With failed syncs in between each answer is true on the disk, and no copy but those counted is doubled."""
        jobs = make_jobs(shapes)
        bench = self.bench(Fsync.ALWAYS)
        bench.medium.plan("sync", *(plan or (lambda: None) for plan in syncs))
        bench.medium.plan("retire", *(plan or (lambda: None) for plan in retires))
        for job, seen in zip(jobs, self.run_schedule(bench, jobs, writes), strict=True):
            self.assertEqual(set(lines_of([job])) - set(seen.split(b"\n")), set())
        expected = lines_of(jobs)
        lines = bench.medium.lines()
        last = {line: position for position, line in enumerate(lines)}
        self.assertEqual(sorted(last, key=last.__getitem__), expected)
        doubled = sum(len(line) + 1 for line in lines) - sum(len(line) + 1 for line in expected)
        self.assertLessEqual(doubled, bench.appender.writer.counts.rewritten_bytes)

    @SLOW_MACHINE
    @given(SHAPES, WRITES, FAILURES, st.integers(0))
    def test_any_schedule_of_jobs_that_ask(
        self, shapes: list[list[list[int]]], writes: list[Any], syncs: list[Plan | None], which: int
    ) -> None:
        """Under fsync never, what asked for a sync is on the disk when it is answered, whatever is mixed with it."""
        jobs = make_jobs(shapes)
        bench = self.bench()
        bench.medium.plan("sync", *(plan or (lambda: None) for plan in syncs))
        seen = self.run_schedule(bench, jobs, writes, sync=lambda number: bool(which >> number & 1))
        for number, (job, durable) in enumerate(zip(jobs, seen, strict=True)):
            if which >> number & 1:
                self.assertEqual(set(lines_of([job])) - set(durable.split(b"\n")), set())
        self.assertEqual(set(lines_of(jobs)) - set(bench.medium.lines()), set())


class SyncTests(AppenderCase):
    def test_a_job_that_asks(self) -> None:
        """Under fsync never a job that asks is synced, one that does not is not."""
        bench = self.bench()
        bench.start()
        bench.hear(bench.submit(b"a\n"))
        bench.hear(bench.submit(b"b\n", sync=True))
        bench.hear(bench.submit(b"c\n"))
        self.assertEqual(bench.medium.calls, ["write", "write", "sync", "write"])

    def test_one_sync_for_all_that_ask(self) -> None:
        """Jobs that ask share one write and one sync, whatever waits between them; that shares another write."""
        bench = self.bench()
        asking = [False, True, True, False]
        jobs = [bench.submit(b"%d\n" % number, sync=asks) for number, asks in enumerate(asking)]
        bench.start()
        bench.hear(*jobs)
        self.assertEqual(bench.medium.calls, ["write", "sync", "write"])
        self.assertEqual(bench.medium.lines(), [b"1", b"2", b"0", b"3"])

    def test_nothing_else_in_a_commit_that_is_synced(self) -> None:
        """Those that ask are answered before anything is written that does not, which is not synced then."""
        bench = self.bench()
        hold = Hold()
        bench.medium.plan("write", lambda: None, hold)
        asking = [False, True, False, True]
        jobs = [bench.submit(b"%d\n" % number, sync=asks) for number, asks in enumerate(asking)]
        bench.start()
        hold.wait(hold.entered)
        bench.hear(jobs[1], jobs[3])
        self.assertEqual(bench.reactor.seen, b"1\n3\n")
        self.assertEqual([job.times for job in jobs], [0, 1, 0, 1])
        hold.release()
        bench.hear(*jobs)
        self.assertEqual(bench.reactor.seen, b"1\n3\n")
        self.assertEqual(bench.medium.calls, ["write", "sync", "write"])

    def test_taking_turns(self) -> None:
        """While both wait, however much of either, each is written every second time."""
        self.patch(queue, "COMMIT_BYTES", 1)
        bench = self.bench()
        jobs = [bench.submit(b"a%d\n" % number, sync=True) for number in range(4)]
        jobs += [bench.submit(b"b%d\n" % number) for number in range(4)]
        bench.start()
        bench.hear(*jobs)
        self.assertEqual(bench.medium.lines(), [b"a0", b"b0", b"a1", b"b1", b"a2", b"b2", b"a3", b"b3"])

    def test_close_with_both_waiting(self) -> None:
        """A close writes and answers what waits of both kinds, and under fsync 1s syncs what is written last."""
        bench = self.bench(Fsync.SECOND)
        hold = Hold()
        bench.medium.plan("write", hold)
        bench.start()
        jobs = [bench.submit(b"a\n")]
        hold.wait(hold.entered)
        jobs += [bench.submit(b"b\n"), bench.submit(b"c\n", sync=True)]
        closed = Outcome(bench.appender.close())
        hold.release()
        bench.hear(closed)
        self.assertEqual([(job.times, job.error) for job in jobs], [(1, None)] * 3)
        self.assertEqual(bench.medium.calls, ["write", "write", "sync", "write", "sync"])
        self.assertEqual(bench.medium.read(), b"a\nc\nb\n")

    def test_what_was_answered_before_a_failed_sync(self) -> None:
        """What was answered without the sync that then failed is kept in the file put aside, the rest written again."""
        bench = self.bench()
        bench.medium.plan("sync", fail(errno.EIO))
        bench.start()
        bench.hear(bench.submit(b"a\n"))
        bench.hear(bench.submit(b"b\n", sync=True))
        self.assertEqual(bench.medium.put_aside, 1)
        self.assertEqual(bench.reactor.seen, b"b\n")
        self.assertEqual(bench.appender.writer.counts.rewritten_bytes, 2)

    def test_others_behind_a_failed_sync(self) -> None:
        """When the sync of those that ask fails, the others that wait are written to the next file, and only there."""
        bench = self.bench()
        bench.medium.plan("sync", fail(errno.EIO), fail(errno.EIO))
        jobs = [bench.submit(b"a\n"), bench.submit(b"b\n", sync=True)]
        bench.start()
        bench.hear(*jobs)
        self.assertEqual(bench.medium.files[-1], b"b\na\n")
        self.assertEqual(bench.appender.writer.counts.rewritten_bytes, 4)

    def test_no_second_sync_after_a_failed_one(self) -> None:
        """A file whose sync failed under a job that asked is put aside; the job is answered from the new one."""
        bench = self.bench()
        bench.medium.plan("sync", fail(errno.EIO))
        bench.start()
        bench.hear(bench.submit(b"a\n", sync=True))
        self.assertEqual(bench.medium.calls, ["write", "sync", "retire", "open", "write", "sync"])
        self.assertEqual(bench.reactor.seen, b"a\n")

    def test_file_left_behind_is_synced_for_who_asked(self) -> None:
        """A job that asked, half of it in the file rotated away, is answered when both files are synced."""
        bench = self.bench()

        def reopen() -> int | None:
            bench.rotate()
            return 2

        bench.medium.plan("write", reopen)
        bench.start()
        bench.hear(bench.submit(b"a\n", b"b\n", sync=True))
        self.assertEqual(bench.medium.calls, ["write", "sync", "open", "write", "sync"])

    def test_answer_waits_for_the_sync(self) -> None:
        """Under fsync always a job is answered by a sync that began after its write, not before."""
        bench = self.bench(Fsync.ALWAYS)
        hold = Hold()
        bench.medium.plan("sync", hold)
        bench.start()
        job = bench.submit(b"a\n")
        hold.wait(hold.entered)
        self.assertEqual(bench.medium.calls, ["write", "sync"])
        self.assertTrue(bench.reactor.is_idle())
        hold.release()
        bench.hear(job)
        self.assertEqual(bench.reactor.seen, b"a\n")

    def test_sync_under_way_does_not_count(self) -> None:
        """A job that comes while a sync is under way is answered by the next one."""
        bench = self.bench(Fsync.ALWAYS)
        hold = Hold()
        bench.medium.plan("sync", hold)
        bench.start()
        first = bench.submit(b"a\n")
        hold.wait(hold.entered)
        second = bench.submit(b"b\n")
        hold.release()
        bench.hear(first)
        self.assertEqual(second.times, 0)
        bench.hear(second)
        self.assertEqual(bench.medium.calls, ["write", "sync", "write", "sync"])

    def test_group_commit(self) -> None:
        """Jobs that queue while one write is slow share one write and one sync."""
        bench = self.bench(Fsync.ALWAYS)
        hold = Hold()
        bench.medium.plan("write", hold)
        bench.start()
        first = bench.submit(b"0\n")
        hold.wait(hold.entered)
        others = [bench.submit(b"%d\n" % number) for number in range(1, 500)]
        hold.release()
        bench.hear(first, *others)
        self.assertEqual(bench.medium.calls, ["write", "sync", "write", "sync"])
        self.assertEqual(bench.medium.lines(), [b"%d" % number for number in range(500)])

    def test_commit_is_bounded(self) -> None:
        """The first of a long queue is answered after a bounded number of bytes, before the rest is written."""
        self.patch(queue, "COMMIT_BYTES", 10)
        bench = self.bench(Fsync.ALWAYS)
        jobs = [bench.submit(b"%04d\n" % number) for number in range(6)]
        bench.start()
        bench.hear(*jobs)
        self.assertEqual(bench.medium.calls, ["write", "sync"] * 3)

    def test_failed_sync_is_not_tried_again(self) -> None:
        """After a failed sync the file is put aside and the unanswered written again to a new one, then answered."""
        bench = self.bench(Fsync.ALWAYS)
        bench.medium.plan("sync", lambda: None, fail(errno.EIO))
        hold = Hold()
        bench.medium.plan("retire", hold)
        bench.start()
        bench.hear(bench.submit(b"a\n"))
        job = bench.submit(b"b\n", b"c\n")
        hold.wait(hold.entered)
        self.assertEqual(job.times, 0)
        self.assertIn("cannot sync: EIO", bench.appender.writer.trouble or "")
        hold.release()
        bench.hear(job)
        self.assertEqual(bench.medium.calls, ["write", "sync", "write", "sync", "retire", "open", "write", "sync"])
        self.assertEqual(bench.medium.files, [b"a\n", b"b\nc\n"])
        self.assertEqual(bench.appender.writer.counts.sync_failures, 1)
        self.assertEqual(bench.appender.writer.counts.rewritten_bytes, 4)
        self.assertIsNone(bench.appender.writer.trouble)

    def test_failing_syncs_back_off(self) -> None:
        """A device whose every sync fails is given time: no file is put aside before a wait, which a stop can end."""
        self.patch(trouble, "RETRY_SECONDS", (600.0, 600.0))
        bench = self.bench(Fsync.ALWAYS)
        bench.medium.plan("sync", fail(errno.EIO))
        bench.start()
        job = bench.submit(b"a\n")
        bench.reactor.run_until(lambda: bench.appender.writer.trouble)
        self.assertEqual(bench.medium.calls, ["write", "sync"])
        bench.appender.abandon()
        self.assertIsInstance(job.error, SinkError)
        Hold.wait(bench.medium.is_closed)
        self.assertEqual(bench.medium.calls, ["write", "sync"])

    def test_sync_that_fails_in_silence(self) -> None:
        """A new file that has nothing yet proves nothing: the wait after the next failure is longer all the same."""
        self.patch(syncs, "SYNC_SECONDS", 600.0)
        bench = self.bench(Fsync.SECOND)
        bench.medium.plan("sync", fail(errno.EIO), fail(errno.EIO))
        bench.start()
        bench.hear(bench.submit(b"a\n"))
        bench.reactor.advance(600)
        bench.appender.reopen()  # wakes the thread
        bench.reactor.run_until(lambda: bench.log and not bench.appender.writer.trouble)
        self.assertEqual(bench.appender.writer._trouble._backoff.last, trouble.RETRY_SECONDS[0])
        bench.hear(bench.submit(b"b\n"))
        bench.close()
        self.assertEqual(bench.medium.put_aside, 1)
        self.assertEqual(bench.medium.files[-1], b"b\n")

    def test_device_whose_every_sync_fails(self) -> None:
        """A device whose every sync fails costs one file put aside, not one a try: the others hold nothing reported."""
        for fsync in (Fsync.ALWAYS, Fsync.SECOND):
            bench = self.bench(fsync)
            bench.start()
            self.patch(syncs, "SYNC_SECONDS", 600.0)
            bench.hear(bench.submit(b"a\n"))
            self.patch(syncs, "SYNC_SECONDS", 0.0)
            bench.medium.plan("sync", *[fail(errno.EIO)] * 20)
            bench.hear(bench.submit(b"b\n"))
            bench.close()
            self.assertEqual(bench.medium.put_aside, 1)
            self.assertEqual(bench.medium.files[-1], b"b\n")
            self.assertEqual([bytes(file) for file in bench.medium.files[1:-1] if file], [])
            self.assertEqual(bench.appender.writer.counts.sync_failures, 20)

    def test_on_trial_after_a_failed_sync(self) -> None:
        """Under fsync 1s too a job after a failed sync is answered when a sync has worked, and then as usual."""
        self.patch(syncs, "SYNC_SECONDS", 600.0)
        bench = self.bench(Fsync.SECOND)
        bench.medium.plan("sync", fail(errno.EIO))
        bench.start()
        bench.hear(bench.submit(b"a\n"))
        bench.reactor.advance(600)
        bench.appender.reopen()  # wakes the thread
        bench.reactor.run_until(lambda: bench.log and not bench.appender.writer.trouble)
        bench.medium.calls.clear()
        bench.hear(bench.submit(b"b\n"))
        self.assertEqual(bench.medium.calls, ["write", "sync"])
        bench.hear(bench.submit(b"c\n"))
        self.assertEqual(bench.medium.calls, ["write", "sync", "write"])

    def test_putting_aside_is_tried_again(self) -> None:
        """A file whose sync failed is not written to again, however long it takes to put it aside."""
        bench = self.bench(Fsync.ALWAYS)
        bench.medium.plan("sync", fail(errno.EIO))
        bench.medium.plan("retire", fail(errno.EROFS), fail(errno.EROFS))
        bench.start()
        bench.hear(bench.submit(b"a\n"))
        self.assertEqual(bench.medium.calls, ["write", "sync", *["retire"] * 3, "open", "write", "sync"])

    def test_file_left_behind_is_synced(self) -> None:
        """A job whose first half is in the file rotated away is answered only when that file is synced too."""
        bench = self.bench(Fsync.ALWAYS)

        def reopen() -> int | None:
            bench.rotate()
            return 2

        bench.medium.plan("write", reopen)
        bench.start()
        bench.hear(bench.submit(b"a\n", b"b\n"))
        self.assertEqual(bench.medium.calls, ["write", "sync", "open", "write", "sync"])
        self.assertEqual(bench.reactor.seen, b"a\nb\n")

    def test_failed_sync_of_the_file_left_behind(self) -> None:
        """When the file rotated away cannot be synced, what it holds of the job is written again, to the new one."""
        for fsync in (Fsync.ALWAYS, Fsync.SECOND):
            bench = self.bench(fsync)

            def reopen(bench: Bench = bench) -> int | None:
                bench.rotate()
                return 3

            bench.medium.plan("write", reopen)
            bench.medium.plan("sync", fail(errno.EIO))
            bench.start()
            bench.hear(bench.submit(b"a\n", b"bc\n"))
            self.assertEqual(bench.medium.files[1:], [b"a\nbc\n"])
            self.assertEqual(bench.appender.writer.counts.rewritten_bytes, 3)
            self.assertEqual(bench.appender.writer.counts.torn_records, 1)

    def test_never_means_never(self) -> None:
        """Under fsync never nothing is synced, not even at the end or between two files."""
        bench = self.bench()
        bench.start()
        bench.hear(bench.submit(b"a\n"))
        bench.rotate()
        bench.hear(bench.submit(b"b\n"))
        bench.close()
        self.assertNotIn("sync", bench.medium.calls)


class SecondTests(AppenderCase):
    def test_silence_is_synced(self) -> None:
        """Under fsync 1s what was written is synced though nothing follows it."""
        self.patch(syncs, "SYNC_SECONDS", 0.01)
        bench = self.bench(Fsync.SECOND)
        hold = Hold()
        bench.medium.plan("sync", hold)
        bench.start()
        bench.hear(bench.submit(b"a\n"))
        hold.wait(hold.entered)
        hold.release()

    def test_answer_does_not_wait(self) -> None:
        """Under fsync 1s a job is answered before it is synced, and the end syncs it."""
        bench = self.bench(Fsync.SECOND)
        bench.start()
        bench.hear(bench.submit(b"a\n"))
        self.assertEqual(bench.medium.calls, ["write"])
        bench.close()
        self.assertEqual(bench.medium.calls, ["write", "sync"])

    def test_full_disk_does_not_put_off_the_sync(self) -> None:
        """What was written is synced within the second though writing on fails meanwhile."""
        self.patch(syncs, "SYNC_SECONDS", 0.001)
        bench = self.bench(Fsync.SECOND)
        synced = threading.Event()

        def full_until_synced() -> int | None:
            if not synced.is_set():
                bench.medium.plans["write"].append(full_until_synced)
                raise OSError(errno.ENOSPC, "ENOSPC")
            return None

        def sync() -> int | None:
            synced.set()
            return None

        bench.medium.plan("sync", sync)
        bench.medium.plan("write", take(3), full_until_synced)
        bench.start()
        bench.hear(bench.submit(b"a\nb\n"))
        self.assertEqual(bench.medium.read(), b"a\nb\n")

    def test_failed_sync_within_a_record(self) -> None:
        """A sync that fails in the middle of a record leaves a torn half in the file put aside, and counts it."""
        self.patch(syncs, "SYNC_SECONDS", 0.0)
        bench = self.bench(Fsync.SECOND)
        bench.medium.plan("write", take(3))
        bench.medium.plan("sync", fail(errno.EIO))
        bench.start()
        bench.hear(bench.submit(b"a\nbc\n"))
        self.assertEqual(bench.medium.lines(), [b"a", b"bc"])
        self.assertEqual(bench.medium.calls[:5], ["write", "sync", "retire", "open", "write"])
        self.assertEqual(bench.appender.writer.counts.torn_records, 1)
        self.assertEqual(bench.appender.writer.counts.rewritten_bytes, 3)

    def test_failed_sync_goes_on_in_a_new_file(self) -> None:
        """A sync that fails in silence puts the file aside, and what follows goes to a new one."""
        self.patch(syncs, "SYNC_SECONDS", 0.0)
        bench = self.bench(Fsync.SECOND)
        bench.medium.plan("sync", fail(errno.EIO))
        bench.start()
        bench.hear(bench.submit(b"a\n"))
        bench.hear(bench.submit(b"b\n"))
        bench.close()
        self.assertEqual(bench.medium.lines()[-1], b"b")
        self.assertEqual(bench.appender.writer.counts.sync_failures, 1)


class ReopenTests(AppenderCase):
    def test_idle(self) -> None:
        """A reopen is done without waiting for a record, and the next record is in the new file."""
        bench = self.bench()
        hold = Hold()
        bench.medium.plan("open", hold)
        bench.start()
        bench.hear(bench.submit(b"a\n"))
        bench.rotate()
        hold.wait(hold.entered)
        hold.release()
        bench.hear(bench.submit(b"b\n"))
        self.assertEqual(bench.medium.files, [b"a\n", b"b\n"])

    def test_within_a_record(self) -> None:
        """A record begun in the old file is written whole to the new one, and counted as torn."""
        bench = self.bench()
        hold = Hold(take(5))
        bench.medium.plan("write", hold)
        bench.start()
        job = bench.submit(b"one\ntwo\n")
        hold.wait(hold.entered)
        bench.rotate()
        hold.release()
        bench.hear(job)
        self.assertEqual(bench.medium.files, [b"one\nt", b"two\n"])
        self.assertEqual(bench.appender.writer.counts.torn_records, 1)

    def test_what_is_in_the_file_before_stays_there(self) -> None:
        """When the file after a rotation is removed, only what was in that one is written again."""
        bench = self.bench()

        def rotate() -> int | None:
            bench.rotate()
            return 2

        bench.medium.plan("write", rotate, lambda: bench.medium.move(Place.NOWHERE))
        bench.start()
        bench.hear(bench.submit(b"a\n", b"b\n", b"c\n"))
        self.assertEqual(bench.medium.files, [b"a\n", b"", b"b\nc\n"])
        self.assertEqual(bench.appender.writer.counts.rescued_bytes, 4)

    def test_between_records(self) -> None:
        """A reopen at the end of a record tears nothing, be it inside a buffer or between two."""
        for buffers in ([b"one\ntwo\n"], [b"one\n", b"two\n"]):
            bench = self.bench()
            hold = Hold(take(4))
            bench.medium.plan("write", hold)
            bench.start()
            job = bench.submit(*buffers)
            hold.wait(hold.entered)
            bench.rotate()
            hold.release()
            bench.hear(job)
            self.assertEqual(bench.medium.files, [b"one\n", b"two\n"])
            self.assertEqual(bench.appender.writer.counts.torn_records, 0)

    def test_ends_a_full_disk(self) -> None:
        """A reopen is obeyed while writes to the old file fail."""
        bench = self.bench()

        def full() -> int | None:
            if len(bench.medium.files) == 1:
                bench.medium.plans["write"].append(full)
                raise OSError(errno.ENOSPC, "ENOSPC")
            return None

        bench.medium.plan("write", full)
        bench.start()
        job = bench.submit(b"a\n")
        bench.reactor.run_until(lambda: bench.appender.writer.trouble)
        bench.rotate()
        bench.hear(job)
        self.assertEqual(bench.medium.files, [b"", b"a\n"])

    def test_put_back_in_time(self) -> None:
        """A file that was seen to be renamed right behind a write is looked for anew before it is given up."""
        self.patch(output, "MOVE_SECONDS", 600.0)
        bench = self.bench()
        bench.medium.looks = True
        bench.medium.plan("write", bench.medium.move)
        bench.start()
        bench.hear(bench.submit(b"a\n"))
        bench.medium.move(Place.HERE)
        self.patch(output, "MOVE_SECONDS", 0.0)
        bench.hear(bench.submit())
        self.assertEqual((bench.medium.calls, bench.appender.writer.counts.moved_files), (["write"], 0))

    def test_asked_for_while_opening(self) -> None:
        """A reopen asked for while the file is being opened is not forgotten."""
        bench = self.bench()
        hold = Hold()
        bench.medium.plan("open", hold)
        bench.start(is_open=False)
        hold.wait(hold.entered)
        bench.rotate()
        hold.release()
        bench.hear(bench.submit(b"a\n"))
        self.assertEqual(bench.medium.calls, ["open", "open", "write"])

    def test_failing_open_at_start(self) -> None:
        """A target that cannot be opened at first is opened once it can, and takes what waited."""
        bench = self.bench()
        bench.medium.plan("open", fail(errno.ENOSPC), fail(errno.EIO), fail(errno.EAGAIN))
        bench.start(is_open=False)
        bench.hear(bench.submit(b"a\n"))
        self.assertEqual(bench.medium.calls, ["open"] * 4 + ["write"])
        self.assertIsNone(bench.appender.writer.trouble)


class EndTests(AppenderCase):
    def test_close_writes_first(self) -> None:
        """Closing writes and answers everything that was submitted, and then ends the thread."""
        bench = self.bench()
        order: list[str] = []
        bench.medium.plan("write", take(1), fail(errno.EIO))
        bench.start()
        for number in range(20):
            bench.submit(b"%d\n" % number, note=lambda: order.append("answered"))
        _ = bench.appender.close().addCallback(lambda _: order.append("closed"))
        bench.reactor.run_until(lambda: "closed" in order)
        self.assertEqual(order, ["answered"] * 20 + ["closed"])
        self.assertTrue(bench.medium.is_closed.is_set())
        self.assertEqual(len(bench.medium.lines()), 20)

    def test_a_job_that_cannot_be_made(self) -> None:
        """A job whose buffers raise as they are made fails alone: nothing of it is written, all others are."""
        bench = self.bench()

        def broken() -> Iterator[bytes]:
            yield b"half of it\n"
            raise KeyError("no such thing")

        jobs = [bench.submit(b"a\n"), bench.submit_made(broken()), bench.submit(b"b\n"), bench.submit_made(broken())]
        jobs += [bench.submit_made(broken()), bench.submit(b"c\n")]
        bench.start()
        bench.hear(*jobs)
        self.assertEqual(bench.medium.read(), b"a\nb\nc\n")
        kinds = [type(job.error) for job in jobs]
        none = type(None)
        self.assertEqual(kinds, [none, KeyError, none, KeyError, KeyError, none])
        self.assertIsNone(bench.appender.writer.trouble)
        bench.close()

    def test_submit_after_close(self) -> None:
        """What is submitted after closing began fails, and is not written."""
        bench = self.bench()
        bench.start()
        closed = Outcome(bench.appender.close())
        self.assertIsInstance(bench.submit(b"a\n").error, SinkError)
        bench.hear(closed)
        self.assertIsInstance(bench.submit(b"a\n").error, SinkError)
        self.assertEqual(bench.medium.calls, [])

    def test_close_twice(self) -> None:
        """Closing again gives the same answer once."""
        bench = self.bench()
        bench.start()
        self.assertIs(bench.appender.close(), bench.appender.close())
        bench.close()

    def test_close_before_start(self) -> None:
        """An appender that was never started fails what it holds instead of keeping it for ever."""
        bench = self.bench()
        job = bench.submit(b"a\n")
        self.assertEqual(bench.close().times, 1)
        self.assertIsInstance(job.error, SinkError)

    def test_abandon_in_a_retry_wait(self) -> None:
        """Abandoning fails what is outstanding at once, lets a waiting close go, and ends the thread's wait."""
        self.patch(trouble, "RETRY_SECONDS", (600.0, 600.0))
        bench = self.bench()
        bench.medium.plan("write", take(1), fail(errno.ENOSPC))
        bench.start()
        jobs = [bench.submit(b"a\n"), bench.submit(b"b\n")]
        bench.reactor.run_until(lambda: bench.appender.writer.trouble)
        closed = Outcome(bench.appender.close())
        bench.appender.abandon()
        self.assertEqual([type(job.error) for job in jobs], [SinkError] * 2)
        self.assertEqual(closed.times, 1)
        Hold.wait(bench.medium.is_closed)
        self.assertEqual([job.times for job in jobs], [1, 1])

    def test_abandon_in_a_retry_of_open(self) -> None:
        """Abandoning ends the wait for a file that cannot be opened."""
        self.patch(trouble, "RETRY_SECONDS", (600.0, 600.0))
        bench = self.bench()
        bench.medium.plan("open", fail(errno.EMFILE))
        bench.start(is_open=False)
        bench.reactor.run_until(lambda: bench.appender.writer.trouble)
        bench.appender.abandon()
        Hold.wait(bench.medium.is_closed)

    def test_close_with_nothing_to_write(self) -> None:
        """With nothing outstanding a close does not wait for a file that cannot be opened."""
        self.patch(trouble, "RETRY_SECONDS", (600.0, 600.0))
        bench = self.bench()
        bench.medium.plan("open", fail(errno.EMFILE))
        bench.start(is_open=False)
        bench.reactor.run_until(lambda: bench.appender.writer.trouble)
        bench.close()
        self.assertTrue(bench.medium.is_closed.is_set())

    def test_close_behind_a_reopen(self) -> None:
        """A close right behind a reopen still syncs the file that is left, under fsync 1s."""
        bench = self.bench(Fsync.SECOND)
        bench.start()
        bench.hear(bench.submit(b"a\n"))
        bench.rotate()
        bench.close()
        self.assertEqual(bench.medium.calls, ["write", "sync", "open"])

    def test_abandon_when_idle(self) -> None:
        """Abandoning ends a thread that has nothing to do, and lets go of the target."""
        bench = self.bench()
        bench.start()
        bench.hear(bench.submit(b"a\n"))
        bench.appender.abandon()
        Hold.wait(bench.medium.is_closed)
        self.assertEqual(bench.close().times, 1)

    def test_abandon_during_a_slow_write(self) -> None:
        """What was failed by abandoning is not written on once a slow write returns."""
        bench = self.bench()
        hold = Hold(take(2))
        bench.medium.plan("write", hold)
        bench.start()
        jobs = [bench.submit(b"a\nb\n")]
        hold.wait(hold.entered)
        jobs.append(bench.submit(b"c\n"))
        bench.appender.abandon()
        self.assertEqual([type(job.error) for job in jobs], [SinkError] * 2)
        hold.release()
        Hold.wait(bench.medium.is_closed)
        self.assertEqual(bench.medium.read(), b"a\n")

    def test_abandon_from_an_answer(self) -> None:
        """Whoever hears of one job may abandon the rest: each is answered once."""
        bench = self.bench()
        jobs = [bench.submit(b"a\n", note=bench.appender.abandon), bench.submit(b"b\n"), bench.submit(b"c\n")]
        bench.start()
        bench.hear(*jobs)
        Hold.wait(bench.medium.is_closed)
        self.assertEqual([job.times for job in jobs], [1, 1, 1])
        self.assertEqual([type(job.error) for job in jobs], [type(None), SinkError, SinkError])

    def test_submit_from_an_answer(self) -> None:
        """A job submitted while another is being answered is written after all that came before it."""
        bench = self.bench()
        later: list[Outcome] = []
        jobs = [bench.submit(b"a\n", note=lambda: later.append(bench.submit(b"c\n"))), bench.submit(b"b\n")]
        bench.start()
        bench.hear(*jobs)
        bench.hear(*later)
        self.assertEqual(bench.medium.read(), b"a\nb\nc\n")


class StallTests(AppenderCase):
    def hang(self, call: str) -> tuple[Bench, Hold]:
        """Let a call of the target hang."""
        bench = self.bench(Fsync.ALWAYS)
        hold = Hold()
        self.addCleanup(hold.release)
        bench.medium.plan(call, hold)
        return bench, hold

    def check(self, bench: Bench, hold: Hold, job: Outcome, what: str) -> None:
        """See that a hanging call is trouble after a while, is told once, and is no more when it returns."""
        hold.wait(hold.entered)
        self.assertIsNone(bench.appender.writer.trouble)
        bench.reactor.advance(trouble.STALL_SECONDS + 1)
        self.assertRegex(bench.appender.writer.trouble or "", f"{what} for 3 s")
        bench.reactor.pump([trouble.STALL_SECONDS] * 3)
        self.assertEqual([line for line in bench.log if what in line], bench.log)
        self.assertEqual(len(bench.log), 1)
        hold.release()
        bench.hear(job)
        self.assertIsNone(bench.appender.writer.trouble)
        bench.reactor.advance(trouble.STALL_SECONDS)
        self.assertEqual(bench.log[1:], ["sink test: a file in memory: writing again"])
        self.assertEqual(bench.reactor.getDelayedCalls(), [])

    def test_hanging_write(self) -> None:
        """A write that does not return is trouble, though no error tells of it."""
        bench, hold = self.hang("write")
        bench.start()
        self.check(bench, hold, bench.submit(b"a\n"), "a write has taken nothing")

    def test_hanging_sync(self) -> None:
        """A sync that does not return is trouble, and its time is counted."""
        bench, hold = self.hang("sync")
        bench.start()
        self.check(bench, hold, bench.submit(b"a\n"), "a sync has not returned")
        self.assertEqual(bench.appender.writer.counts.syncs, 1)
        self.assertGreater(bench.appender.writer.counts.sync_seconds, trouble.STALL_SECONDS)

    def test_hanging_open(self) -> None:
        """So is an open that does not return."""
        bench, hold = self.hang("open")
        bench.start(is_open=False)
        self.check(bench, hold, bench.submit(b"a\n"), "an attempt to open has not returned")

    def test_hanging_look(self) -> None:
        """So is a look at the file's name, as on a network file system whose server is gone."""
        bench, hold = self.hang("place")
        bench.start()
        self.check(bench, hold, bench.submit(b"a\n"), "a look at where the file is has not returned")

    def test_stream_that_takes_nothing(self) -> None:
        """A stream that says at once, again and again, that it is full stalls no less."""
        bench = self.bench()
        holds = [Hold(take(0)), Hold(take(0))]
        troubles: list[str | None] = []
        bench.medium.plan("write", take(1), *holds)
        bench.start()
        job = bench.submit(b"abc\n")
        for hold in holds:
            self.addCleanup(hold.release)
            hold.wait(hold.entered)
            bench.reactor.advance(trouble.STALL_SECONDS * 0.75)
            troubles.append(bench.appender.writer.trouble)
            hold.release()
        self.assertIsNone(troubles[0])
        self.assertIn("a write has taken nothing for 3 s", troubles[1] or "")
        bench.hear(job)
        self.assertEqual(bench.medium.read(), b"abc\n")

    def test_slow_is_not_stalled(self) -> None:
        """A target that takes a little now and then is no trouble."""
        bench = self.bench()
        holds = [Hold(take(1)) for _ in range(4)]
        bench.medium.plan("write", *holds)
        bench.start()
        job = bench.submit(b"abc\n")
        for hold in holds:
            hold.wait(hold.entered)
            bench.reactor.advance(trouble.STALL_SECONDS - 1)
            self.assertIsNone(bench.appender.writer.trouble)
            hold.release()
        bench.hear(job)
        self.assertEqual(bench.log, [])

    def test_abandon_while_it_hangs(self) -> None:
        """Abandoning a thread that hangs ends the looking after it."""
        bench, hold = self.hang("write")
        bench.start()
        job = bench.submit(b"a\n")
        hold.wait(hold.entered)
        bench.reactor.advance(trouble.STALL_SECONDS + 1)
        bench.appender.abandon()
        self.assertIsInstance(job.error, SinkError)
        self.assertEqual(bench.reactor.getDelayedCalls(), [])


class ErrorTests(AppenderCase):
    def test_trouble_is_told_and_taken_back(self) -> None:
        """While an error is waited out ``trouble`` names it, and when writing works again it is gone."""
        bench = self.bench()
        hold = Hold()
        bench.medium.plan("write", take(1), fail(errno.ENOSPC), hold)
        bench.start()
        job = bench.submit(b"abc\n")
        hold.wait(hold.entered)
        self.assertIn("cannot write: ENOSPC", bench.appender.writer.trouble or "")
        hold.release()
        bench.hear(job)
        self.assertIsNone(bench.appender.writer.trouble)
        self.assertEqual(bench.appender.writer.retries, 1)
        self.assertEqual(bench.medium.read(), b"abc\n")

    def test_waits_grow_and_begin_anew(self) -> None:
        """Each wait is twice the one before up to a limit, and the first after a recovery is short again."""
        self.patch(trouble, "RETRY_SECONDS", (0.0001, 600.0))
        bench = self.bench()
        bench.start()
        for _ in range(30):
            bench.medium.plan("write", fail(errno.EIO), fail(errno.EIO))
            bench.hear(bench.submit(b"a\n"))
        self.assertEqual(bench.appender.writer.retries, 60)

    def test_final_error(self) -> None:
        """A final error fails everything outstanding and everything after it, and stays visible."""
        bench = self.bench()
        bench.medium.plan("write", take(2), fail(errno.EPIPE))
        bench.start()
        jobs = [bench.submit(b"abc\n"), bench.submit(b"d\n")]
        bench.hear(*jobs)
        self.assertEqual([type(job.error) for job in jobs], [SinkError] * 2)
        self.assertIn("EPIPE", str(jobs[0].error))
        self.assertIsInstance(bench.submit(b"e\n").error, SinkError)
        self.assertEqual(bench.appender.writer.trouble, "a file in memory: EPIPE")
        self.assertEqual(bench.close().times, 1)
        Hold.wait(bench.medium.is_closed)
        self.assertEqual(bench.medium.read(), b"ab")

    def test_final_error_while_closing(self) -> None:
        """A final error ends a close that is under way."""
        bench = self.bench()
        bench.medium.plan("write", fail(errno.EPIPE))
        job = bench.submit(b"a\n")
        bench.start()
        self.assertEqual(bench.close().times, 1)
        self.assertIsInstance(job.error, SinkError)

    def test_any_other_exception(self) -> None:
        """A bug in a target fails everything visibly instead of leaving a dead thread behind."""
        bench = self.bench()

        def bug() -> int | None:
            raise ValueError("planted")

        bench.medium.plan("write", bug)
        bench.start()
        job = bench.submit(b"a\n")
        bench.hear(job)
        self.assertIn("planted", str(job.error))
        self.assertEqual(bench.appender.writer.trouble, "a file in memory: ValueError: planted")

    def test_empty_jobs(self) -> None:
        """A job without bytes is answered in its turn."""
        bench = self.bench(Fsync.ALWAYS)
        bench.start()
        jobs = [bench.submit(), bench.submit(b""), bench.submit(b"", b"a\n", b"")]
        bench.hear(*jobs)
        self.assertEqual([job.error for job in jobs], [None] * 3)
        self.assertEqual(bench.medium.read(), b"a\n")

    def test_cancelled_by_the_caller(self) -> None:
        """A caller that cancels its Deferred does not disturb the others."""
        bench = self.bench()
        cancelled = bench.appender.submit([b"a\n"])
        first = Outcome(cancelled)
        second = bench.submit(b"b\n")
        cancelled.cancel()
        bench.start()
        bench.hear(second)
        self.assertEqual([first.times, second.times], [1, 1])
        self.assertEqual(bench.medium.read(), b"a\nb\n")
