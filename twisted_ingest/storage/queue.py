"""
What waits to be written, and what of it is written next.
"""

from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from twisted_ingest.storage.commit import Commit, Job
from twisted_ingest.storage.target import Spot

COMMIT_BYTES = 4 * 1024 * 1024
"""Bytes written before the groups they belong to are reported: bounds how late the first of a long queue is, and how
late those of the other kind are."""


class JobQueue:
    """
    Jobs that wait for one thread, which takes them in commits: each of one kind, of which it takes the oldest.

    Those that ask for a sync are one kind, those that do not are the other. Where both wait the kinds take turns, so
    that neither keeps the other waiting for longer than a commit.
    """

    def __init__(self) -> None:
        self._inbox: SimpleQueue[Job | None] = SimpleQueue()
        """What was handed over and not looked at; ``None`` only wakes."""
        self._asking: deque[Job] = deque()
        self._others: deque[Job] = deque()
        self._has_asked = False
        """Whether the last commit was of those that ask."""
        self._is_closed = False

    # Called in the reactor's thread, about what is written without being taken: nothing, here.

    def attach(self, reactor: Any, report: Callable[[], None]) -> None:
        """Have the reactor make a call whenever there is something to `reap`."""

    def detach(self) -> None:
        """Have it make no more of them."""

    def end(self) -> None:
        """Let go of whatever that took: the thread that takes is over."""

    def reap(self) -> list[int]:
        """Give the numbers of the jobs that were written, in order, and let go of them."""
        return []

    # Called in any thread.

    def under_way(self) -> float:
        """Give the seconds for which something is being written; 0 where nothing is."""
        return 0.0

    def put(self, job: Job) -> None:
        """Have a job wait, behind all others of its kind."""
        self._inbox.put(job)

    def wake(self) -> None:
        """Have the thread look at what else there is to do."""
        self._inbox.put(None)

    def close(self) -> None:
        """Say that no job will come any more."""
        self._is_closed = True
        self.wake()

    def abandon(self) -> None:
        """Say that no job will come any more, and that those that wait need not be taken."""
        self.close()

    # Called in the thread that takes.

    def gather(self, patience: float | None, spot: Spot | None = None) -> Commit:
        """
        Take what is written next, up to `COMMIT_BYTES`: jobs of one kind, in the order they were put in.

        Where there is none, waits for ``patience`` seconds (``None``: for ever) or until woken; gives a commit of
        nothing then. A job whose buffers cannot be made is passed over, and ends the commit, which names it. What needs
        no more than that may be written to ``spot`` instead: whoever `attach` was told of reports it then.
        """
        begun = self._wait(patience, spot)
        if begun is not None:
            return begun
        waiting = self._choose()
        jobs: list[Job] = []
        unmade: tuple[int, Exception] | None = None
        size = 0
        while waiting and size < COMMIT_BYTES and unmade is None:
            job = waiting.popleft()
            try:
                size += job.make()
            except Exception as failure:  # noqa: BLE001 - what cannot be written must not keep the rest from it
                unmade = job.number, failure
            else:
                jobs.append(job)
        return Commit(jobs, unmade, is_last=self._is_over)

    @property
    def _is_over(self) -> bool:
        return self._is_closed and not (self._asking or self._others) and self._is_inbox_empty()

    def _is_inbox_empty(self) -> bool:
        return self._inbox.empty()

    def _wait(self, patience: float | None, _spot: Spot | None) -> Commit | None:
        """Look through what was handed over; wait for it where nothing else waits. Gives a commit that was begun."""
        if not (self._asking or self._others or self._is_over):
            try:
                self._sort(self._inbox.get(timeout=patience))
            except Empty:
                return None
        for _ in range(self._inbox.qsize()):
            self._sort(self._inbox.get_nowait())
        return None

    def _sort(self, job: Job | None) -> None:
        if job is not None:
            (self._asking if job.wants_sync else self._others).append(job)

    def _choose(self) -> deque[Job]:
        """Give the kind that is written next: those that ask, unless it is the turn of the others."""
        is_turn_of_others = self._has_asked and self._others
        self._has_asked = bool(self._asking and not is_turn_of_others)
        return self._asking if self._has_asked else self._others
