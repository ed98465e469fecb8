"""
Records that end in one delimiter byte: LF (a CR before it is stripped) or NUL.

Cost follows chunks: a chunk is searched from its end once, and looked at record by record only where a record
could be too long.
"""

from twisted_ingest.batch import LF, NUL, Batch
from twisted_ingest.framing.base import Framer
from twisted_ingest.framing.scan import Chunk, Look


class LineFramer(Framer):
    """Frames lines; see `Framer`."""

    __slots__ = ()

    @property
    def look(self) -> Look:
        """See `Framer`."""
        is_odd = self._sniffing or self._skipping is not None or self.delimiter != LF
        return Look.NOTHING if is_odd else Look.LINES

    def _feed(self, chunk: Chunk, now: float, batches: list[Batch]) -> None:
        begin = self._ordinary(chunk, 0, now, batches, evidence=False) if self.delimiter == LF else 0
        chunk = bytes(chunk[begin:])
        end = chunk.rfind(self.delimiter) + 1
        if not end:
            self._extend(chunk)
            self._check_partial(now, batches)
            return
        self.crossed = True
        block = self._take_partial(memoryview(chunk)[:end]) if self.partial else chunk[:end]
        self._frame_lines(block, now, batches)
        if self.closed:
            self._discard(self.closed, len(chunk) - end)
            return
        self.partial = chunk[end:]
        self._check_partial(now, batches)

    def _stripped(self, partial: bytes) -> bytes:
        # Half a CRLF; whether the LF would have come no longer matters.
        return partial[:-1] if self.delimiter == LF and partial.endswith(b"\r") else partial


class NulFramer(LineFramer):
    """Frames records that end in NUL, whatever else they hold."""

    __slots__ = ()

    delimiter = NUL
