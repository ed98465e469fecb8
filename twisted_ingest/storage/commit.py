"""
The jobs that are written together, and how far.
"""

from collections.abc import Iterable, Sequence

from twisted_ingest.storage.progress import Progress


class Job:
    """
    What is written as one: buffers that end in LF each.

    ``number`` names it to whoever gave it. With ``wants_sync`` it is not reported before a sync.
    """

    __slots__ = ("_source", "buffers", "number", "wants_sync")

    def __init__(self, number: int, source: Iterable[bytes], *, wants_sync: bool) -> None:
        self.number = number
        self._source = source
        self.wants_sync = wants_sync
        self.buffers: list[bytes] = []

    def make(self) -> int:
        """Make the buffers; gives the number of their bytes. Raises whatever making them does."""
        buffers = self.buffers = list(self._source)
        return sum(map(len, buffers))


class Commit:
    """
    Jobs in order, how far their bytes are written, and which of them are reported.

    The bytes of all are kept until all are reported: what a sync fails to keep is written again, be it reported or not.
    """

    __slots__ = ("_waiting", "progress", "wants_sync")

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._waiting = jobs
        """Not reported yet."""
        self.wants_sync = False
        """Whether one of them asks for a sync."""
        buffers: list[bytes] = []
        for job in jobs:
            buffers += job.buffers
            self.wants_sync = self.wants_sync or job.wants_sync
        self.progress = Progress(buffers)

    def take_others(self) -> list[int]:
        """Give the numbers of the jobs that ask for no sync, as reported."""
        others = [job.number for job in self._waiting if not job.wants_sync]
        if others:
            self._waiting = [job for job in self._waiting if job.wants_sync]
        return others

    @property
    def is_mixed(self) -> bool:
        """Whether of those not reported yet some ask for a sync and some do not."""
        return self.wants_sync and not all(job.wants_sync for job in self._waiting)

    def take_all(self) -> list[int]:
        """Give the numbers of the jobs that are not reported yet, as reported."""
        numbers = [job.number for job in self._waiting]
        self._waiting = ()
        return numbers
