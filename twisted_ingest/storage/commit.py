"""
The jobs that are written together, and how far.
"""

from collections.abc import Sequence
from typing import NamedTuple

from twisted_ingest.storage.progress import Progress


class Job(NamedTuple):
    """
    What is written as one: buffers that end in LF each.

    ``number`` names it to whoever gave it. With ``wants_sync`` it is not reported before a sync.
    """

    number: int
    buffers: Sequence[bytes]
    wants_sync: bool


class Commit:
    """
    Jobs in order, how far their bytes are written, and which of them are reported.

    The bytes of all are kept until all are reported: what a sync fails to keep is written again, be it reported or not.
    """

    __slots__ = ("_waiting", "progress", "wants_sync")

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._waiting = jobs
        """Not reported yet."""
        self.progress = Progress([buffer for job in jobs for buffer in job.buffers])
        self.wants_sync = any(job.wants_sync for job in jobs)
        """Whether one of them asks for a sync."""

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
