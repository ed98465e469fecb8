"""
What the batches of a group become in a file: made by the thread that writes, when their turn has come.
"""

from collections.abc import Callable, Iterator, Sequence

from twisted.python.failure import Failure

from twisted_ingest.batch import Batch
from twisted_ingest.observe.events import Events
from twisted_ingest.rejected import Refusal, Rejected


class Buffers:
    """
    A buffer for each batch, made while they are iterated over, so that what is larger than its batch never waits.

    A batch of which none can be made is passed over, and costs nobody else anything. Want of memory is no fault of
    a batch: it is raised.
    """

    __slots__ = ("_batches", "_make", "_unmade")

    def __init__(self, make: Callable[[Batch], bytes | memoryview], batches: Sequence[Batch]) -> None:
        self._make = make
        self._batches = batches
        self._unmade: list[tuple[Batch, Exception]] = []

    def __iter__(self) -> Iterator[bytes | memoryview]:
        make = self._make
        for batch in self._batches:
            try:
                yield make(batch)
            except MemoryError:
                raise
            except Exception as failure:  # noqa: BLE001 - a bug of ours, which must cost this batch alone
                self._unmade.append((batch, failure))

    def rejected(self, sink: str, events: Events) -> Rejected | None:
        """Tell of the batches that were passed over, and give the answer for the group: they are rejected."""
        for _batch, failure in self._unmade:
            events.internal_error(f"what sink {sink} makes of records", failure=Failure(failure))
        if not self._unmade:
            return None
        reason = "they cannot be written: {}: {}"
        return Rejected(Refusal(b, None, reason.format(type(error).__name__, error)) for b, error in self._unmade)
