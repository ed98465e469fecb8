"""What is written without the interpreter's lock: in order, to a file that readers find, let go of when reported."""

import os
import random
import resource
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from zope.interface import implementer

from tests.test_sinks_appender import HandReactor, Outcome
from twisted_ingest.batch import LF, NUL, Batch, ConnectionInfo, Group
from twisted_ingest.errors import Fsync, SinkError
from twisted_ingest.observe.events import Events
from twisted_ingest.sinks import file as sinks_file
from twisted_ingest.sinks.file import FileSink
from twisted_ingest.storage import output, trouble
from twisted_ingest.storage.appender import Appender
from twisted_ingest.storage.commit import Commit, Job
from twisted_ingest.storage.courier import CourierQueue, make_queue
from twisted_ingest.storage.file import FileTarget
from twisted_ingest.storage.queue import JobQueue
from twisted_ingest.storage.target import IOV_MAX, Spot

INFO = ConnectionInfo(1, "test", "192.0.2.1:1", "192.0.2.1")
PATIENCE = 10.0


def make() -> CourierQueue:
    """Make a queue that writes itself."""
    queue = make_queue(reactor)
    if not isinstance(queue, CourierQueue):
        raise SkipTest("it was not built")
    return queue


class CourierCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.jobs = make()
        self.addCleanup(self.jobs.end)
        self.bell = self.jobs._courier.open_bell()
        self.path = Path(self.mktemp())
        self.spot = Spot(os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT), os.fsencode(self.path), 0)
        self.addCleanup(os.close, self.spot.descriptor)
        self.last = 0

    def put(self, *buffers: Any, asks: bool = False, is_made: bool = False) -> None:
        """Have a job wait."""
        self.last += 1
        self.jobs.put(Job(self.last, iter(buffers) if is_made else list(buffers), wants_sync=asks))

    def is_rung(self) -> bool:
        """Whether the reactor would see that there is something to report."""
        return bool(select.select([self.bell], [], [], 0)[0])

    def gather(self) -> Commit:
        """Take what is left to the writer, without waiting for more."""
        return self.jobs.gather(0, self.spot)


class OrdinaryTests(CourierCase):
    def test_written_and_reported(self) -> None:
        """What is ordinary is written in order, counted, rung for once, and reported in order."""
        self.put(b"a\n", memoryview(b"b\n"))
        self.put(b"c\n")
        self.assertEqual(self.gather().numbers, [])
        self.put()
        self.put(b"d\n")
        self.assertEqual(self.gather().numbers, [])
        self.assertEqual(self.path.read_bytes(), b"a\nb\nc\nd\n")
        self.assertEqual((self.spot.written, self.spot.least), (8, 8))
        self.assertTrue(self.is_rung())
        self.assertEqual(self.jobs.reap(), [1, 2, 3, 4])
        self.assertFalse(self.is_rung())
        self.assertEqual(self.jobs.reap(), [])
        self.put(b"e\n")
        self.gather()
        self.assertTrue(self.is_rung())

    def test_views_are_let_go_of(self) -> None:
        """The memory behind a job is its owner's again once it is reported, left to the writer, or given up."""
        for how in ("report", "leave", "abandon"):
            memory = bytearray(b"a\nb\n")
            with memoryview(memory) as whole:
                self.put(whole[:2], whole[2:])
                self.assertRaises(BufferError, memory.clear)
                if how == "report":
                    self.gather()
                    self.assertRaises(BufferError, memory.clear)
                    self.jobs.reap()
                elif how == "leave":
                    self.jobs.gather(0, None)
                else:
                    self.jobs.abandon()
            memory.clear()

    def test_as_many_as_the_kernel_takes(self) -> None:
        """Jobs of more buffers than one call takes are written by several; one of more is left to the writer."""
        for _ in range(3):
            self.put(*[b"x\n"] * (IOV_MAX // 2 + 1))
        self.gather()
        self.assertEqual(self.jobs.reap(), [1, 2, 3])
        self.assertEqual(self.spot.written, 3 * (IOV_MAX + 2))
        self.put(*[b"x\n"] * (IOV_MAX + 1))
        self.assertEqual(self.gather().numbers, [4])

    def test_waits(self) -> None:
        """It writes while it waits, for as long as it was told, or until somebody wants it back."""
        began = time.monotonic()
        self.assertEqual(self.jobs.gather(0.05, self.spot).numbers, [])
        self.assertGreaterEqual(time.monotonic() - began, 0.05)
        taken: list[Commit] = []
        for call_back in (self.jobs.wake, self.jobs.close):
            thread = threading.Thread(daemon=True, target=lambda: taken.append(self.jobs.gather(None, self.spot)))
            thread.start()
            self.put(b"x\n")
            self.assertTrue(select.select([self.bell], [], [], PATIENCE)[0])
            self.jobs.reap()
            call_back()
            thread.join(PATIENCE)
            self.assertFalse(thread.is_alive())
        self.assertEqual([(commit.numbers, commit.is_last) for commit in taken], [([], False), ([], True)])
        self.assertEqual(self.path.read_bytes(), b"x\nx\n")

    def test_under_way(self) -> None:
        """A write that does not return can be seen, and what it holds is let go of when it does."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, writing)
        self.spot.descriptor, descriptor = writing, self.spot.descriptor
        memory = bytearray(b"x" * (1 << 20))
        view = memoryview(memory)
        self.put(view)
        self.assertEqual(self.jobs.under_way(), 0)
        taken: list[Commit] = []
        thread = threading.Thread(daemon=True, target=lambda: taken.append(self.jobs.gather(None, self.spot)))
        thread.start()
        self.assertTrue(select.select([reading], [], [], PATIENCE)[0])
        self.assertGreater(self.jobs.under_way(), 0)
        self.jobs.abandon()
        self.assertRaises(BufferError, view.release)
        os.close(reading)
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive())
        view.release()
        memory.clear()
        self.assertEqual(self.jobs.under_way(), 0)
        self.spot.descriptor = descriptor


class OddTests(CourierCase):
    def test_jobs_that_ask_or_must_be_made(self) -> None:
        """What is not ordinary is left to the writer, and what comes behind it is not written before it is taken."""
        for odd in ({"asks": True}, {"is_made": True}):
            self.put(b"a\n")
            self.put(b"b\n", **odd)
            self.put(b"c\n")
            before = self.spot.written
            commits = [self.gather() for _ in range(3)]
            self.assertEqual(sorted(number for commit in commits for number in commit.numbers), [1, 2, 3])
            self.assertEqual(
                [commit.numbers for commit in commits if commit.wants_sync], [[2]] if "asks" in odd else []
            )
            self.assertEqual(self.spot.written, before)
            self.assertFalse(self.is_rung())
            self.last = 0

    def test_what_is_no_buffer(self) -> None:
        """A buffer that is none, or that nobody may look at any more, is the writer's to complain of."""
        gone = memoryview(b"gone\n")
        gone.release()
        self.put(b"a\n", "text")
        self.put(b"b\n", gone)
        commit = self.gather()
        self.assertEqual((commit.numbers, commit.progress.window()), ([1], [b"a\n", "text"]))
        self.assertEqual((commit.unmade or (0,))[0], 2)
        self.assertEqual(self.spot.written, 0)

    def check_begun(self, numbers: list[int], taken: int) -> Commit:
        """See that what could not be ended is given to the writer with what is written of it, and not reported."""
        commit = self.gather()
        self.assertEqual(commit.numbers, numbers)
        self.assertEqual(commit.progress.written, taken)
        self.assertEqual((self.jobs.reap(), self.is_rung()), ([], False))
        return commit

    def test_moved_or_removed(self) -> None:
        """What went to a file that readers do not find is not reported."""
        moved = self.path.rename(self.path.with_suffix(".1"))
        self.put(b"a\n")
        self.check_begun([1], 2)
        self.path.write_bytes(b"somebody else's")
        self.put(b"b\n")
        self.check_begun([2], 2)
        moved.unlink()
        self.put(b"c\n")
        self.put(b"d\n")
        self.assertTrue(self.check_begun([3, 4], 4).progress.is_done)

    def test_truncated(self) -> None:
        """A file that is shorter than it must be is looked at by the writer."""
        self.put(b"one\n")
        self.gather()
        self.assertEqual(self.jobs.reap(), [1])
        os.truncate(self.path, 0)
        self.put(b"two\n")
        self.check_begun([2], 4)
        self.assertEqual(self.spot.least, 8)

    def test_written_in_part(self) -> None:
        """What could be written of it, and from where to go on, is told."""
        room, size = 1 << 20, 1 << 21
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            self.put(b"x" * size)
            self.put(b"y\n")
            commit = self.check_begun([1, 2], room)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        self.assertEqual((self.spot.written, self.path.stat().st_size), (room, room))
        self.assertEqual(len(b"".join(commit.progress.window())), size + 2 - room)

    def test_error(self) -> None:
        """Where nothing can be written the writer tries again, and sees why."""
        self.spot.descriptor, descriptor = os.open(self.path, os.O_RDONLY), self.spot.descriptor
        self.addCleanup(os.close, self.spot.descriptor)
        self.put(b"x\n")
        self.check_begun([1], 0)
        self.spot.descriptor = descriptor
        self.addCleanup(setattr, self.spot, "descriptor", descriptor)

    def test_no_file(self) -> None:
        """Without a file nothing is written."""
        self.put(b"x\n")
        self.assertEqual(self.jobs.gather(0, None).numbers, [1])
        self.assertEqual(self.path.read_bytes(), b"")


@implementer(IReactorFDSet)
class LateReactor(HandReactor):
    """One that never gets to look at descriptors; it keeps them."""

    def __init__(self) -> None:
        super().__init__(lambda: b"")
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        """Keep one."""
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        """Keep it no more."""
        self.readers.remove(reader)

    def addWriter(self, writer: Any) -> None:
        """See ``IReactorFDSet``."""

    def removeWriter(self, writer: Any) -> None:
        """See ``IReactorFDSet``."""

    def removeAll(self) -> list[Any]:
        """See ``IReactorFDSet``."""
        return []

    def getReaders(self) -> list[Any]:
        """See ``IReactorFDSet``."""
        return self.readers

    def getWriters(self) -> list[Any]:
        """See ``IReactorFDSet``."""
        return []


class AppenderTests(SynchronousTestCase):
    def setUp(self) -> None:
        make()
        self.reactor = LateReactor()
        self.path = Path(self.mktemp())
        self.target = FileTarget(str(self.path))
        self.target.open()
        self.appender = Appender(
            "test", self.target, self.reactor, Events(self.reactor.seconds), queue=make_queue(self.reactor)
        )
        self.addCleanup(self.appender.abandon)

    def submit(self, data: bytes, *, sync: bool = False) -> Outcome:
        """Submit one job."""
        return Outcome(self.appender.submit([data], sync=sync))

    def test_told_of_in_order(self) -> None:
        """What was written is reported before anything that the writer says later, its end above all."""
        self.appender.start(is_open=True)
        (bell,) = self.reactor.readers
        jobs = [self.submit(b"a\n")]
        self.assertTrue(select.select([bell.fileno()], [], [], PATIENCE)[0])
        jobs.append(self.submit(b"b\n", sync=True))
        self.reactor.run_until(lambda: jobs[1].times)
        self.assertEqual([(job.times, job.error) for job in jobs], [(1, None)] * 2)
        jobs.append(self.submit(b"c\n"))
        self.assertTrue(select.select([bell.fileno()], [], [], PATIENCE)[0])
        closed = Outcome(self.appender.close())
        self.reactor.run_until(lambda: closed.times)
        self.assertEqual((jobs[2].times, jobs[2].error), (1, None))
        self.assertEqual(self.reactor.readers, [])
        self.assertEqual(self.path.read_bytes(), b"a\nb\nc\n")

    def test_abandoned(self) -> None:
        """Abandoning leaves nothing with the reactor, and what is outstanding fails."""
        self.appender.start(is_open=True)
        self.appender.abandon()
        self.assertEqual(self.reactor.readers, [])
        self.assertIsInstance(self.submit(b"a\n").error, SinkError)

    def test_without_a_descriptor_for_it(self) -> None:
        """Where the reactor can be told of nothing, for want of descriptors, the writer does it all."""

        def refuse() -> int:
            raise OSError("none left")

        queue: Any = self.appender.writer._queue

        class Refusing:
            open_bell = staticmethod(refuse)

            def __getattr__(self, name: str) -> Any:
                return getattr(courier, name)

        courier, queue._courier = queue._courier, Refusing()
        self.appender.start(is_open=True)
        job = self.submit(b"a\n")
        self.reactor.run_until(lambda: job.times)
        self.assertEqual((job.error, self.path.read_bytes()), (None, b"a\n"))

    def test_a_write_that_does_not_return(self) -> None:
        """A write outside the writer that hangs is trouble, as any other."""
        seconds = 0.0
        watched = trouble.Trouble(
            self.target, Clock().seconds, threading.Event(), lambda _: None, "", outside=lambda: seconds
        )
        self.assertIsNone(watched.now)
        seconds = trouble.STALL_SECONDS + 1
        self.assertRegex(watched.now or "", "a write has not returned for 3 s")


class ScheduleTests(TestCase):
    """Whatever is mixed, moved and removed in between: each line once, in order with its kind, none kept."""

    timeout = 60
    makers: ClassVar[list[Callable[[Any], JobQueue]]] = [make_queue, lambda _: JobQueue()]

    async def test_any_schedule(self) -> None:
        """The same schedules with the courier and without."""
        self.patch(trouble, "RETRY_SECONDS", (0.001, 0.002))
        self.patch(output, "MOVE_SECONDS", 0.0)
        for maker in self.makers:
            self.patch(sinks_file, "make_queue", maker)
            for seed in range(25):
                await self.run_schedule(random.Random(seed), Path(self.mktemp()))

    async def run_schedule(self, chance: random.Random, folder: Path) -> None:
        """Run one."""
        folder.mkdir()
        path = folder / "f"
        sink = FileSink("test", str(path), reactor=reactor, events=Events(reactor.seconds), fsync=Fsync.NEVER)
        sink.start()
        answers: list[Deferred[Any]] = []
        kinds: dict[bool, list[bytes]] = {True: [], False: []}
        readable: list[tuple[bytes, Deferred[Any]]] = []
        for number in range(chance.randrange(40)):
            delimiter = LF if chance.random() < 0.8 else NUL
            line = b"%d" % number
            memory = bytearray(line + delimiter)
            asks = chance.random() < 0.1
            kinds[asks].append(line)
            batch = Batch(memoryview(memory), 1, INFO, 0.0, delimiter)
            answer = sink.deliver(Group([batch], batch.size, needs_sync=asks))
            answers.append(answer.addCallback(self.check_let_go, batch, memory))
            readable.append((line, answer))
            step = chance.random()
            if step < 0.05 and path.exists():
                path.rename(folder / f"f.{number:02}")
                sink.reopen()
            elif step < 0.1 and path.exists():
                path.rename(folder / f"f.{number:02}")
            elif step < 0.3:
                await answer
        self.assertEqual(set(await gatherResults(answers)), {None} if answers else set())
        await sink.close()
        files = [*sorted(folder.glob("f.*")), path]
        lines = b"".join(file.read_bytes() for file in files if file.exists()).splitlines()
        self.assertEqual(sorted(lines), sorted(kinds[True] + kinds[False]))
        for kind in kinds.values():
            self.assertEqual([line for line in lines if line in kind], kind)

    def check_let_go(self, answer: object, batch: Batch, memory: bytearray) -> object:
        """See that nobody holds a batch that was answered."""
        batch.let_go()
        memory.clear()
        return answer
