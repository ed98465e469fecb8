"""
What is owed for a group while sinks have it: to its lanes an answer, to the budget its bytes, to lenders theirs.
"""

from collections.abc import Callable, Iterable

from twisted.python.failure import Failure

from twisted_ingest.batch import Batch, count_records
from twisted_ingest.flow.lane import Lane
from twisted_ingest.limits import BATCH_OVERHEAD, GROUP_OVERHEAD


class Claims:
    """
    The way back of one group: its ``batches``, and beside each, in ``lanes``, the lane it came from.

    ``charge`` is what they cost the budget; ``holders`` counts the sinks whose accounts have the group still,
    ``required`` those among them that settlement waits for. ``readers`` counts the sinks that have not answered: one
    that is given up loses the group from its accounts, and may read the bytes until it answers. ``is_refused`` marks a
    group that a required sink will never take. ``records`` are its records by listener, of its first ``counted``
    batches: counted once, so that whoever asks what is in flight need not look at every batch, unless one has been lost
    since.
    """

    __slots__ = ("batches", "charge", "counted", "holders", "is_refused", "lanes", "readers", "records", "required")

    def __init__(self, batches: list[Batch], lanes: list[Lane], size: int) -> None:
        self.batches = batches
        self.lanes = lanes
        self.charge = size + len(batches) * BATCH_OVERHEAD + GROUP_OVERHEAD
        self.holders = 0
        self.readers = 0
        self.required = 0
        self.is_refused = False
        self.counted = len(batches)
        self.records = count_records(batches)

    def settle(self) -> None:
        """Tell the lanes that the required sinks have answered."""
        taken = not self.is_refused
        for lane, batch in zip(self.lanes, self.batches, strict=True):
            lane.settle(batch, taken=taken)

    def let_go(self, on_bug: Callable[[str, Failure], None]) -> None:
        """Give the bytes that were lent back; what a lease raises is told, and costs the others nothing."""
        for batch in self.batches:
            if batch.lease is not None or type(batch.wire) is not bytes:
                try:
                    batch.let_go()
                except Exception:  # noqa: BLE001 - see above
                    on_bug("letting go of a batch", Failure())

    def count(self) -> dict[str, int]:
        """Give the records by listener."""
        return self.records if len(self.batches) == self.counted else count_records(self.batches)


def add_records(counts: dict[str, int], more: Iterable[dict[str, int]]) -> None:
    """Add counts by listener to others."""
    for each in more:
        for listener, number in each.items():
            counts[listener] = counts.get(listener, 0) + number
