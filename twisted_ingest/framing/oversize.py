"""
What becomes of a record that is too long, or whose memory is needed: decided, skipped and accounted here alone.

A framer says which record it is and what ends it; nothing else. Pure.
"""

from twisted_ingest.batch import Batch, ConnectionInfo
from twisted_ingest.errors import DiscardReason, DropReason, Oversize
from twisted_ingest.framing.batching import Batching
from twisted_ingest.ledger import ListenerLedger


class Cutting(Batching):
    """
    Applies the oversize policy, and skips what is left of a record that was given up.
    """

    __slots__ = ("_oversize", "_skip_count", "_skip_stops", "_skipping", "closed", "crossed", "limit", "oversized")

    def __init__(self, info: ConnectionInfo, ledger: ListenerLedger, max_length: int, oversize: Oversize) -> None:
        super().__init__(info, ledger)
        self.limit = max_length
        """How many bytes a record may have."""
        self._oversize = oversize
        self._skipping: DiscardReason | None = None
        """Why what comes is discarded; ``None`` where it is not."""
        self._skip_count: int | None = None
        """How many bytes of the record given up are yet to come; ``None`` where only a delimiter ends it."""
        self._skip_stops = b""
        """Which bytes end it, each alone."""
        self.crossed = False
        """Whether a record ended in the last chunk: the record unfinished now was begun in it."""
        self.closed: DiscardReason | None = None
        """Set when the stream has been given up; why."""
        self.oversized: list[bytes] = []
        """The beginnings of records found oversize since the caller last emptied this list."""

    def _cut(self, raw: bytes, size: int, reason: DiscardReason, now: float, batches: list[Batch]) -> None:
        """Apply the policy to a record of which ``size`` bytes have come; ``raw`` is its beginning, or all of them."""
        kept, ledger = raw[: self.limit], self._ledger
        self.oversized.append(kept)
        if self._oversize is Oversize.TRUNCATE and kept:
            ledger.records_truncated += 1
            self._discard(reason, size - len(kept))
            batches.append(self._single(kept, now, truncated=True))
            return
        ledger.records_framed += 1
        ledger.records_dropped[DropReason(reason.value)] += 1
        self._discard(reason, size)
        if self._oversize is Oversize.CLOSE:
            self.closed = self._skipping = reason

    def _skip_until(self, stops: bytes, reason: DiscardReason) -> None:
        """Skip up to the first of these bytes."""
        self._skipping, self._skip_count, self._skip_stops = reason, None, stops

    def _skip_counted(self, count: int, reason: DiscardReason, stops: bytes = b"") -> None:
        """Skip so many bytes, but not past the first of ``stops``."""
        self._skipping, self._skip_count, self._skip_stops = reason, count, stops

    def _skip(self, chunk: bytes, reason: DiscardReason) -> bytes:
        """Discard up to the end of the record given up; give what follows it."""
        if self.closed:
            self._discard(reason, len(chunk))
            return b""
        count = self._skip_count
        end = len(chunk) if count is None else min(len(chunk), count)
        delimiter = self._end_of_skipped(chunk, end)
        if delimiter >= 0:
            self._discard(reason, delimiter)
            self._ledger.bytes_framing += 1
            end = delimiter + 1
        else:
            self._discard(reason, end)
            if count is None or end < count:
                self._skip_count = None if count is None else count - end
                return b""
        self._skipping = self._skip_count = None
        self.crossed = True
        return chunk[end:]

    def _end_of_skipped(self, chunk: bytes, stop: int) -> int:
        """Find the delimiter before ``stop`` that ends the record given up, or -1."""
        ends = [end for end in (chunk.find(byte, 0, stop) for byte in self._skip_stops) if end >= 0]
        return min(ends, default=-1)
