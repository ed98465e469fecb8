"""What is written next: jobs of two kinds that take turns, in order among their kind."""

import threading
from collections.abc import Iterable, Iterator

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from twisted_ingest.storage import queue
from twisted_ingest.storage.commit import Commit, Job
from twisted_ingest.storage.courier import make_courier, make_queue
from twisted_ingest.storage.queue import JobQueue

STEPS = st.lists(st.sampled_from(["ask", "other", "gather"]), max_size=60)

JOB_BYTES = 2
COMMIT_JOBS = 3


def put(jobs: JobQueue, number: int, *, asks: bool) -> None:
    """Have a job wait."""
    jobs.put(Job(number, [b"x\n"], wants_sync=asks))


class Broken(Iterable[bytes]):
    """Cannot be made."""

    def __iter__(self) -> Iterator[bytes]:
        """Fail half-way."""
        yield b"half of it\n"
        raise KeyError("no such thing")


class JobQueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(queue, "COMMIT_BYTES", COMMIT_JOBS * JOB_BYTES)
        self.jobs = self.make()

    def make(self) -> JobQueue:
        """Make a queue."""
        return JobQueue()

    def gather_all(self) -> list[Commit]:
        """Close the queue, and take what waits to its end."""
        self.jobs.close()
        commits = [self.jobs.gather(None)]
        while not commits[-1].is_last:
            commits.append(self.jobs.gather(None))
        return commits

    @given(STEPS)
    def test_any_history(self, steps: list[str]) -> None:
        """Whatever comes when: each job is taken once, with its kind, in order, and never two commits late."""
        self.check_history(steps)

    def check_history(self, steps: list[str]) -> None:
        """Run one."""
        self.jobs = self.make()
        asks: list[bool] = []
        waiting: dict[bool, list[int]] = {True: [], False: []}
        left_out = {True: 0, False: 0}

        def check(commit: Commit) -> None:
            kind = commit.wants_sync
            self.assertEqual(commit.numbers, waiting[kind][: len(commit.numbers)])
            self.assertLessEqual(len(commit.numbers), COMMIT_JOBS)
            del waiting[kind][: len(commit.numbers)]
            left_out[kind] = 0
            left_out[not kind] += bool(waiting[not kind])
            self.assertLessEqual(left_out[not kind], 1)

        for step in steps:
            if step == "gather":
                check(self.jobs.gather(0))
            else:
                asks.append(step == "ask")
                waiting[asks[-1]].append(len(asks) - 1)
                put(self.jobs, len(asks) - 1, asks=asks[-1])
        for commit in self.gather_all():
            check(commit)
        self.assertEqual(waiting, {True: [], False: []})

    def test_neither_starves(self) -> None:
        """Beside a flood of the other kind, that never ends, a job of either waits for one commit at most."""
        for asks in (True, False):
            self.jobs = self.make()
            number = 0
            for turn in range(20):
                for _ in range(10):
                    put(self.jobs, number := number + 1, asks=not asks)
                put(self.jobs, -turn, asks=asks)
                kinds = [self.jobs.gather(None).wants_sync for _ in range(2)]
                self.assertEqual(sorted(kinds), [False, True])

    def test_those_that_ask_first(self) -> None:
        """Who waits for a sync is not kept waiting by a queue of those that do not."""
        for number in range(10):
            put(self.jobs, number, asks=False)
        put(self.jobs, 10, asks=True)
        numbers = [commit.numbers for commit in self.gather_all()]
        self.assertEqual(numbers, [[10], [0, 1, 2], [3, 4, 5], [6, 7, 8], [9]])

    def test_closed_with_both_waiting(self) -> None:
        """What waits when it is closed is taken to the end, and only the last commit says that it is."""
        for number in range(4):
            put(self.jobs, number, asks=number < 2)
        commits = self.gather_all()
        self.assertEqual([commit.numbers for commit in commits], [[0, 1], [2, 3]])
        self.assertEqual([commit.is_last for commit in commits], [False, True])

    def test_closed_with_nothing(self) -> None:
        """Closed with nothing waiting, it gives one commit of nothing, and does so again."""
        for _ in range(2):
            commits = self.gather_all()
            self.assertEqual([commit.numbers for commit in commits if commit.is_last], [[]])

    def test_what_cannot_be_made(self) -> None:
        """A job that cannot be made ends the commit of its kind, is named by it, and keeps nobody from being taken."""
        put(self.jobs, 0, asks=True)
        self.jobs.put(Job(1, Broken(), wants_sync=True))
        put(self.jobs, 2, asks=True)
        put(self.jobs, 3, asks=False)
        commits = self.gather_all()
        self.assertEqual([commit.numbers for commit in commits], [[0], [3], [2]])
        self.assertEqual([commit.unmade is not None for commit in commits], [True, False, False])
        number, failure = commits[0].unmade or (None, None)
        self.assertEqual(number, 1)
        self.assertIsInstance(failure, KeyError)

    def test_the_last_cannot_be_made(self) -> None:
        """The last of a closed queue too is named when it cannot be made."""
        self.jobs.put(Job(7, Broken(), wants_sync=False))
        (commit,) = self.gather_all()
        self.assertEqual((commit.numbers, (commit.unmade or (0,))[0]), ([], 7))

    def test_waits_until_woken(self) -> None:
        """With nothing to take it waits: for a job, for being woken, or as long as it was told."""
        self.assertEqual(self.jobs.gather(0).numbers, [])
        taken: list[Commit] = []
        for hand_over in (lambda: put(self.jobs, 1, asks=False), self.jobs.wake, self.jobs.close):
            thread = threading.Thread(target=lambda: taken.append(self.jobs.gather(None)))
            thread.start()
            hand_over()
            thread.join(10)
            self.assertFalse(thread.is_alive())
        self.assertEqual([commit.numbers for commit in taken], [[1], [], []])
        self.assertEqual([commit.is_last for commit in taken], [False, False, True])


class CourierQueueTests(JobQueueTests):
    """One that could write what is ordinary itself, while it is told of no file to write to."""

    def make(self) -> JobQueue:
        """See `JobQueueTests`."""
        if make_courier is None:
            raise SkipTest("it was not built")
        return make_queue(reactor)

    @given(STEPS)
    def test_any_history(self, steps: list[str]) -> None:
        """See `JobQueueTests`."""
        self.check_history(steps)
