"""
What a sink will never take of a group: a sink's answer, and the records that it names.

Pure values.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Self

from twisted_ingest.batch import Batch, ConnectionInfo, Group

REASONS_SHOWN = 3
"""Reasons of one group's refusals that a text names: the commonest. A store may give one for each record."""

REASON_LENGTH = 120
"""Characters of a reason that a text shows: it may quote the whole record."""


class Refusal(NamedTuple):
    """
    Records of one batch that a sink will never take, whoever brings them again.

    ``records`` are indexes into ``batch.records()``; ``None`` is all of it. ``reason`` may quote a stranger.
    """

    batch: Batch
    records: Sequence[int] | None
    reason: str


class RejectedRecord(NamedTuple):
    """One record that a sink will never take: its bytes, who sent it, when it came (Unix seconds), and why."""

    record: bytes
    info: ConnectionInfo
    received_at: float
    reason: str


class Rejected:
    """
    A sink's answer for a group of which it will never take some records: it has taken all others.

    Several refusals may concern one batch; a record that two of them name is rejected once, for the first reason.
    """

    __slots__ = ("refusals",)

    def __init__(self, refusals: Iterable[Refusal]) -> None:
        self.refusals = tuple(refusals)

    @classmethod
    def whole(cls, group: Group, reason: str) -> Self:
        """Reject a group as it is."""
        return cls(Refusal(batch, None, reason) for batch in group.batches)

    def lost(self, batches: Iterable[Batch]) -> list[tuple[Batch, int, int]]:
        """
        Give the batches that lose something with how many records, and how many bytes of ``wire``.

        Raises ``ValueError`` for a batch that is none of ``batches``, and ``IndexError`` for a record that its batch
        does not have: such an answer tells nothing of what was taken.
        """
        known = set(batches)
        for refusal in self.refusals:
            if refusal.batch not in known:
                raise ValueError(f"{refusal.batch!r} was rejected, and is not of the group")
        return [(batch, len(found), _size(batch, found)) for batch, found in self._reasons().items() if found]

    @property
    def count(self) -> int:
        """How many records are rejected."""
        return sum(map(len, self._reasons().values()))

    def records(self) -> Iterator[RejectedRecord]:
        """Give what is rejected, batch by batch; the bytes may be kept. Only while the group is not settled."""
        for batch, reasons in self._reasons().items():
            records = batch.records()
            for index in sorted(reasons):
                yield RejectedRecord(records[index], batch.info, batch.received_at, reasons[index])

    def _reasons(self) -> dict[Batch, dict[int, str]]:
        """Give the reason for each record, by its batch and its index there."""
        found: dict[Batch, dict[int, str]] = {}
        for batch, records, reason in self.refusals:
            reasons = found.setdefault(batch, {})
            for index in range(batch.count) if records is None else records:
                reasons.setdefault(index, reason)
        return found

    def __str__(self) -> str:
        reasons = Counter(refusal.reason[:REASON_LENGTH] for refusal in self.refusals).most_common(REASONS_SHOWN + 1)
        shown = "; ".join(reason for reason, _ in reasons[:REASONS_SHOWN])
        return f"{shown}; and other reasons" if len(reasons) > REASONS_SHOWN else shown


def _size(batch: Batch, indexes: Iterable[int]) -> int:
    """Give the bytes that some records of a batch take, a delimiter each included."""
    found = sorted(indexes)
    if found[0] < 0 or found[-1] >= batch.count:
        raise IndexError(f"records {found[:4]} of {batch!r} were rejected, which has no such")
    if len(found) == batch.count:
        return batch.size
    records = batch.records()
    return sum(len(records[index]) + 1 for index in found)
