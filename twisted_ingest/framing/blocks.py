"""
Blocks of lines, and the unfinished record between them.

Pure. Called with whole blocks, never per record but where a record is odd.
"""

from typing import Any

from twisted_ingest.batch import LF, Batch
from twisted_ingest.errors import DiscardReason
from twisted_ingest.framing.oversize import Cutting
from twisted_ingest.framing.scan import Chunk, LinesIn, lines_in
from twisted_ingest.limits import PARTIAL_OVERHEAD


class Blocks(Cutting):
    """
    Turns blocks of lines into batches, and holds the record that is not whole.
    """

    __slots__ = ("partial",)

    delimiter = LF
    """What ends a line."""

    _lines_in: LinesIn = staticmethod(lines_in)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.partial: bytes | bytearray = b""
        """The unfinished record, as far as it is held. Read it only."""

    @property
    def buffered(self) -> int:
        """Bytes of an unfinished record that are held."""
        return len(self.partial)

    @property
    def memory(self) -> int:
        """Bytes of memory an unfinished record takes; zero when there is none."""
        partial = self.partial
        if not partial:
            return 0
        # A bytearray grows by an eighth in advance; charge what it really allocated.
        size = partial.__alloc__() if isinstance(partial, bytearray) else len(partial)
        return size + PARTIAL_OVERHEAD

    def _take_partial(self, chunk: bytes | memoryview) -> bytes:
        """Join the unfinished record with what follows it, and forget it."""
        joined = b"".join((self.partial, chunk)) if self.partial else bytes(chunk)
        self.partial = b""
        return joined

    def _extend(self, chunk: bytes) -> None:
        """Add to the unfinished record a chunk that does not end it."""
        if not self.partial:
            self.partial = chunk
            return
        if isinstance(self.partial, bytes):
            # A list of pieces would cost a header per piece: one byte at a time, forty times the bytes.
            self.partial = bytearray(self.partial)
        self.partial += chunk

    def _frame_lines(self, block: bytes, now: float, batches: list[Batch], *, has_no_empty: bool = False) -> None:
        """
        Turn a block that ends in a delimiter into batches, and look for records that are too long.

        ``has_no_empty`` is what the caller has seen for itself: no delimiter follows another. A record that closes the
        stream leaves the block accounted for all the same.
        """
        start, limit = 0, self.limit
        while len(block) - start > limit + 1:
            # Each jump passes over as many whole records as fit; only a record too long stops it.
            stop = self._next_oversize(block, start)
            if stop < 0:
                break
            if stop > start:
                self._emit(block[start:stop], stop - start, self.delimiter, now, batches)
            end = block.index(self.delimiter, stop)
            self._cut(block[stop : stop + limit], end - stop, DiscardReason.OVERSIZE, now, batches)
            if self.closed:
                self._discard(self.closed, len(block) - end)
                return
            self._ledger.bytes_framing += 1
            start = end + 1
        if start < len(block):
            rest = block[start:] if start else block
            self._emit(rest, len(rest), self.delimiter, now, batches, has_no_empty=has_no_empty)

    def _next_oversize(self, block: bytes, start: int) -> int:
        """Find where the first record longer than the limit begins, or -1."""
        delimiter, limit = self.delimiter, self.limit
        cr = delimiter == LF
        while len(block) - start > limit + 1:
            # The delimiter may stand at start + limit at the latest, one later behind a CR.
            last = block.rfind(delimiter, start, start + limit + 1)
            if last < 0:
                after = start + limit
                if cr and block[after : after + 2] == b"\r\n":
                    last = after + 1
                else:
                    return start
            start = last + 1
        return -1

    def _ordinary(self, data: Chunk, position: int, now: float, batches: list[Batch], *, evidence: bool) -> int:
        """Make a batch of the unfinished record and all lines behind it, up to the first odd one; give where it is."""
        wire, count, end = self._lines_in(self.partial, data, position, self.limit, evidence)
        if count:
            self.partial = b""
            self.crossed = True
            # As `_give` does, without a call: most chunks are nothing else, and many hold one line.
            ledger = self._ledger
            ledger.bytes_framing += count
            ledger.bytes_accepted += len(wire) - count
            ledger.records_framed += count
            batches.append(Batch(wire, count, self._info, now))
        return end
