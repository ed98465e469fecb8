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

    def __init__(self, number: int, source: Iterable[bytes | memoryview], *, wants_sync: bool) -> None:
        self.number = number
        self._source = source
        self.wants_sync = wants_sync
        self.buffers: list[bytes | memoryview] = []

    @property
    def ready(self) -> list[bytes | memoryview] | None:
        """The buffers, where they need not be made: they were given as a list."""
        return self._source if isinstance(self._source, list) else None

    def make(self) -> int:
        """Make the buffers; gives the number of their bytes. Raises whatever making them does."""
        buffers = self.buffers = list(self._source)
        return sum(map(len, buffers))


class Commit:
    """
    Jobs in order that are written and reported together, maybe none, and how far their bytes are written.

    All of them ask for a sync, or none does. ``unmade`` names a job that would have followed, and what making its
    buffers has raised. With ``is_last`` nothing will be written after it.
    """

    __slots__ = ("is_last", "numbers", "progress", "unmade", "wants_sync")

    def __init__(self, jobs: Sequence[Job], unmade: tuple[int, Exception] | None = None, *, is_last: bool) -> None:
        self.numbers = [job.number for job in jobs]
        self.wants_sync = bool(jobs) and jobs[0].wants_sync
        self.progress = Progress([buffer for job in jobs for buffer in job.buffers])
        self.unmade = unmade
        self.is_last = is_last
