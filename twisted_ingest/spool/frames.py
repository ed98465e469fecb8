"""
The frames of one segment, whatever has happened to it: those that are whole, and the regions between them that are not.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from twisted_ingest.batch import Batch
from twisted_ingest.limits import MIB
from twisted_ingest.spool.body import DamagedError, decode_body
from twisted_ingest.spool.codec import HEAD_SIZE, MARKER_SIZE, Head, decode_head, is_whole
from twisted_ingest.spool.disk import Disk

BLOCK_BYTES = MIB
"""Bytes read at once."""


@dataclass(slots=True)
class Whole:
    """A whole frame, from one offset to another. Its batch is made when it is asked for: a start only counts."""

    head: Head
    body: bytes
    start: int
    end: int

    @property
    def sequence(self) -> int:
        """The frame's number."""
        return self.head.sequence

    def batch(self) -> Batch:
        """Read the batch; raises `DamagedError` for one that we could not have written."""
        return decode_body(self.body, self.head.format)


@dataclass(frozen=True, slots=True)
class Damage:
    """
    A region that holds no whole frame.

    ``is_torn`` says that it is no more than the beginning of a frame, cut off where the file ends: what is left of a
    write that never ended.
    """

    start: int
    end: int
    is_torn: bool


class FrameReader:
    """Reads the frames of one open segment, from an offset on. The descriptor stays the caller's."""

    def __init__(self, disk: Disk, descriptor: int, marker: bytes, offset: int) -> None:
        self._disk = disk
        self._descriptor = descriptor
        self._marker = marker
        self._block = b""
        self._block_at = 0
        self.offset = offset

    def read(self, end: int) -> Whole | Damage | None:
        """Give what comes next before the offset ``end``; ``None`` at it. Raises ``OSError``."""
        if self.offset >= end:
            return None
        found = self._frame(self.offset, end) or self._damage(end)
        self.offset = found.end
        return found

    def read_all(self, end: int) -> Iterator[Whole | Damage]:
        """Give everything before the offset ``end``."""
        while (item := self.read(end)) is not None:
            yield item

    def _frame(self, offset: int, end: int) -> Whole | None:
        try:
            head = decode_head(self._bytes(offset, HEAD_SIZE), self._marker)
        except DamagedError:
            return None
        after = offset + HEAD_SIZE + head.length
        if after > end:
            return None
        body = self._bytes(offset + HEAD_SIZE, head.length)
        return Whole(head, body, offset, after) if is_whole(head, body) else None

    def _damage(self, end: int) -> Damage:
        if self._is_torn(self.offset, end):
            return Damage(self.offset, end, is_torn=True)
        return Damage(self.offset, self._next_frame(self.offset + 1, end), is_torn=False)

    def _is_torn(self, offset: int, end: int) -> bool:
        """Whether a frame begins here that the end of the file cuts off."""
        start = self._bytes(offset, min(HEAD_SIZE, end - offset))
        if len(start) < HEAD_SIZE:
            return start[:MARKER_SIZE] == self._marker[: len(start)]
        try:
            head: Head = decode_head(start, self._marker)
        except DamagedError:
            return False
        return offset + HEAD_SIZE + head.length > end

    def _next_frame(self, offset: int, end: int) -> int:
        """Find the next offset where a whole frame begins, or the end."""
        while offset < end:
            self._bytes(offset, min(MARKER_SIZE, end - offset))
            at = self._block.find(self._marker, offset - self._block_at)
            if at >= 0:
                offset = self._block_at + at
                if self._frame(offset, end) is not None:
                    return offset
                offset += 1
            else:
                # A marker may lie across the edge of what was read.
                offset = max(self._block_at + len(self._block) - MARKER_SIZE, offset) + 1
        return end

    def _bytes(self, offset: int, size: int) -> bytes:
        """Give so many bytes, or fewer where the file ends."""
        start = offset - self._block_at
        if start < 0 or start + size > len(self._block):
            self._fill(offset, max(size, BLOCK_BYTES))
            start = 0
        return self._block[start : start + size]

    def _fill(self, offset: int, size: int) -> None:
        pieces = []
        at = offset
        while size > 0 and (piece := self._disk.read(self._descriptor, size, at)):
            pieces.append(piece)
            at += len(piece)
            size -= len(piece)
        self._block, self._block_at = b"".join(pieces), offset
