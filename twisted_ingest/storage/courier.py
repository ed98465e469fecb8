"""
A queue whose ordinary jobs are written in C (``_courier.c``), without the interpreter's lock; left out where not built.

Ordinary is a job whose buffers are there already and that asks for nothing but to be written, to a file with nothing
unusual about it. Everything else, and the first thing that goes otherwise than it should, is left to the writer.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_ingest.framing.scan import PURE
from twisted_ingest.storage import queue
from twisted_ingest.storage.commit import Commit, Job
from twisted_ingest.storage.queue import JobQueue
from twisted_ingest.storage.target import Spot

if TYPE_CHECKING:
    from twisted_ingest.storage import _courier

_NOWHERE = Spot(-1, b"", 0)


@implementer(IReadDescriptor)
class Bell:
    """What the reactor looks at to see whether there is something to report."""

    def __init__(self, descriptor: int, report: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._report = report

    def fileno(self) -> int:
        """See ``IFileDescriptor``."""
        return self._descriptor

    def doRead(self) -> None:
        """See ``IReadDescriptor``."""
        self._report()

    def connectionLost(self, reason: Failure) -> None:
        """See ``IFileDescriptor``: nobody is at the other end."""

    def logPrefix(self) -> str:
        """See ``ILoggingContext``."""
        return "-"


class CourierQueue(JobQueue):
    """
    A queue of one writer that writes ordinary jobs to the ``spot`` that `gather` is given while it waits for others.

    It does so while no other job waits; then all are taken by turns.
    """

    def __init__(self, courier: "_courier.Courier") -> None:
        super().__init__()
        self._courier = courier
        self._reactor: Any = None
        self._bell: Bell | None = None

    def attach(self, reactor: Any, report: Callable[[], None]) -> None:
        """See `JobQueue`."""
        with suppress(OSError):  # no descriptor is left for it: then nothing is written here
            self._bell = Bell(self._courier.open_bell(), report)
            self._reactor = reactor
            reactor.addReader(self._bell)

    def detach(self) -> None:
        """See `JobQueue`."""
        if self._bell is not None:
            self._reactor.removeReader(self._bell)
            self._bell = None

    def end(self) -> None:
        """See `JobQueue`."""
        self.detach()
        self._courier.close_bell()

    def reap(self) -> list[int]:
        """See `JobQueue`."""
        return [cast(Job, job).number for job in self._courier.reap()]

    def under_way(self) -> float:
        """See `JobQueue`."""
        return self._courier.under_way()

    def put(self, job: Job) -> None:
        """See `JobQueue`."""
        self._courier.put(job, None if job.wants_sync else job.ready)

    def wake(self) -> None:
        """See `JobQueue`."""
        self._courier.wake()

    def abandon(self) -> None:
        """See `JobQueue`: lets go of the jobs that wait."""
        self._is_closed = True
        self._courier.abandon()

    def _is_inbox_empty(self) -> bool:
        return self._courier.is_empty()

    def _wait(self, patience: float | None, spot: Spot | None) -> Commit | None:
        is_waited_for = not (self._asking or self._others or self._is_over)
        if not is_waited_for:
            patience = 0.0
        into = spot if spot is not None and is_waited_for else _NOWHERE
        begun, taken, others, written, least = self._courier.run(
            into.descriptor, into.path, queue.COMMIT_BYTES, into.least, -1.0 if patience is None else patience
        )
        if into is not _NOWHERE:
            into.written += written
            into.least = least
        for job in others:
            self._sort(cast(Job, job))
        return self._resumed(cast(list[Job], begun), taken) if begun else None

    def _resumed(self, jobs: list[Job], taken: int) -> Commit:
        """Give what was begun without the writer, for it to go on with."""
        for job in jobs:
            job.make()
        commit = Commit(jobs, is_last=self._is_over)
        commit.progress.advance(taken)
        return commit


def _chosen() -> "Callable[[], _courier.Courier] | None":
    if os.environ.get(PURE):
        return None
    try:
        from twisted_ingest.storage import _courier  # noqa: PLC0415 - it may not be there
    except ImportError:
        return None
    return getattr(_courier, "Courier", None)  # left out where the system has not what it needs


make_courier = _chosen()


def make_queue(reactor: Any) -> JobQueue:
    """Make one that writes what is ordinary itself, where that was built and a reactor can hear of it."""
    if make_courier is None or not IReactorFDSet.providedBy(reactor):
        return JobQueue()
    return CourierQueue(make_courier())
