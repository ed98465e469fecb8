"""
What framed bytes become: batches, and entries in the accounts.

Pure. Called with whole blocks, never per record but where a record is odd.
"""

import re
from itertools import groupby, starmap

from twisted_ingest.batch import LF, NUL, Batch, ConnectionInfo
from twisted_ingest.errors import DiscardReason
from twisted_ingest.ledger import ListenerLedger

# Finds two delimiters in a row. `\n[\n]` runs as a memchr in CPython's `re`; `b"\n\n" in block` takes
# almost three times as long on blocks of ordinary lines.
_EMPTY = {delimiter: re.compile(delimiter + b"[" + delimiter + b"]") for delimiter in (LF, NUL)}


FEW_BATCHES = 4
"""Batches of one chunk that are passed on as they are. Where framings alternate there may be thousands, each dearer
than its bytes."""


def merged(batches: list[Batch]) -> list[Batch]:
    """Join neighbouring batches of one chunk that have the same delimiter and can hold more than one record."""
    joined: list[Batch] = []
    for (delimiter, is_single), run in groupby(batches, lambda batch: (batch.delimiter, _must_stay_alone(batch))):
        alike = list(run)
        if is_single or len(alike) == 1:
            joined += alike
        else:
            wire = b"".join([batch.wire for batch in alike])
            first = alike[0]
            joined.append(Batch(wire, sum(batch.count for batch in alike), first.info, first.received_at, delimiter))
    return joined


def _must_stay_alone(batch: Batch) -> bool:
    """Whether a batch is marked, or is one record that holds its own delimiter."""
    return batch.partial or batch.truncated or (batch.count == 1 and batch.delimiter in bytes(batch.wire[:-1]))


class Batching:
    """Makes batches of one connection, and accounts for every byte of them in its listener's ledger."""

    __slots__ = ("_info", "_ledger")

    def __init__(self, info: ConnectionInfo, ledger: ListenerLedger) -> None:
        self._info = info
        self._ledger = ledger

    def _emit(
        self,
        block: bytes,
        consumed: int,
        delimiter: bytes,
        now: float,
        batches: list[Batch],
        *,
        has_no_empty: bool = False,
    ) -> None:
        """
        Make one batch of a block of records none of which is too long.

        ``consumed`` is how many bytes of the stream they were, which is the block's length but for counted frames.
        """
        if delimiter == LF and b"\r" in block:
            block = block.replace(b"\r\n", LF)
            has_no_empty = False  # a CR alone was a line too
        if block[:1] == delimiter or (not has_no_empty and _EMPTY[delimiter].search(block) is not None):
            block = self._without_empty(block, delimiter)
            if not block:
                self._ledger.bytes_framing += consumed
                return
        # Deleting a byte and comparing lengths counts it four times as fast as `bytes.count`.
        count = len(block) - len(block.replace(delimiter, b""))
        self._give(Batch(block, count, self._info, now, delimiter), consumed, batches)

    def _give(self, batch: Batch, consumed: int, batches: list[Batch]) -> None:
        """Account for a batch that was ``consumed`` bytes of the stream."""
        ledger, content = self._ledger, batch.size - batch.count
        ledger.bytes_framing += consumed - content
        ledger.bytes_accepted += content
        ledger.records_framed += batch.count
        batches.append(batch)

    def _without_empty(self, block: bytes, delimiter: bytes) -> bytes:
        """Take out the empty records (keep-alives) and count them."""
        before = len(block)
        # Each round halves a run of delimiters: linear in all, whatever the runs.
        while _EMPTY[delimiter].search(block) is not None:
            block = block.replace(delimiter * 2, delimiter)
        if block[:1] == delimiter:
            block = block[1:]
        self._ledger.records_empty += before - len(block)
        return block

    def _emit_records(self, records: list[bytes], consumed: int, now: float, batches: list[Batch]) -> None:
        """Make batches of single records, of any content, that were ``consumed`` bytes of the stream."""
        whole = [record for record in records if record]
        self._ledger.records_empty += len(records) - len(whole)
        content = sum(map(len, whole))
        self._ledger.bytes_framing += consumed - content
        self._ledger.bytes_accepted += content
        self._ledger.records_framed += len(whole)
        # One batch, with a delimiter that none of them holds; where all hold both, a batch each.
        joined = b"".join(whole)
        groups = [whole] if whole else []
        delimiter = LF if LF not in joined else NUL
        if delimiter == NUL and NUL in joined:
            groups = [[record] for record in whole]
        batches.extend(starmap(self._batch, ((group, delimiter, now) for group in groups)))

    def _batch(self, records: list[bytes], delimiter: bytes, now: float) -> Batch:
        return Batch(delimiter.join((*records, b"")), len(records), self._info, now, delimiter)

    def _single(self, record: bytes, now: float, *, partial: bool = False, truncated: bool = False) -> Batch:
        """Make a batch of one record, whose end is not among the bytes received."""
        self._ledger.records_framed += 1
        self._ledger.bytes_accepted += len(record)
        delimiter = LF if LF not in record else NUL
        return Batch(record + delimiter, 1, self._info, now, delimiter, partial=partial, truncated=truncated)

    def _discard(self, reason: DiscardReason, size: int) -> None:
        self._ledger.bytes_discarded[reason] += size
