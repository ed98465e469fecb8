"""
What real clients send, mixed on one connection: lines, counted frames, records ended by NUL.

What is ordinary goes through in blocks; only from where something is not are records looked at one by one
(`twisted_ingest.framing.doubt`).
"""

import re

from twisted_ingest.batch import LF, NUL, Batch
from twisted_ingest.framing.beginnings import (
    BOM,
    COUNTED,
    NUL_ENDED,
    PADDING,
    UNDECIDED_BYTES,
    breaks_at,
    headers,
)
from twisted_ingest.framing.mixed import ENDS, NOTHING, WAIT
from twisted_ingest.framing.scan import Chunk, Look
from twisted_ingest.framing.settling import SettlingFramer

# Line beginnings that may be more than that; the first search is the cheap one.
_SUSPECT = re.compile(rb"\n[\n \xef1-9]")
_ODD = re.compile(rb"\n(?: {1,8}<|\xef\xbb\xbf<|[1-9][0-9]{0,6} (?:\xef\xbb\xbf)?<[0-9]{1,3}>)")
_LFS = re.compile(rb"\n+")
# Within records that NUL ends: one that is another's line, and one with LF before its NUL.
_NUL_ODD = re.compile(rb"\n(?:<[0-9]{1,3}>|\{|\0)")

_COUNTS = frozenset(b"123456789")
"""First bytes of a count."""

_PLAIN = frozenset(range(0x100)) - frozenset(b"\n\0 \xef123456789")
"""First bytes that make a line an ordinary one."""


class AutoFramer(SettlingFramer):
    """
    Tells lines, counted frames and records ended by NUL apart; see `Framer` for what all framers promise.

    A counted frame without LF, NUL and headers in it is given once it is whole. One with LF or NUL in it needs another
    header right behind it, unless `TRUST` frames have come in a row; where two linked headers are seen inside it, they
    are believed and not its count. What lies between frames is passed over in the same way, up to two linked headers.
    NUL ends a record that began with a priority or ``{``, and any record behind whose NUL another one begins so; then
    such records may hold LF, until an LF is followed by another beginning of the record's own kind.
    """

    __slots__ = ()

    @property
    def look(self) -> Look:
        """See `Framer`: where frames may be among lines, and where NUL may end records, we see to it ourselves."""
        if self._sniffing or self._skipping is not None or self._speaks_nul or self._after_nul:
            return Look.NOTHING
        if self._wary <= 0:
            return Look.LINES_OF_MIXED
        is_framed = self._run and (not self.partial or self.partial[0] in _COUNTS)
        return Look.FRAMES_OF_MIXED if is_framed else Look.NOTHING

    def _note_taken(self, batch: Batch, size: int) -> None:
        if self._wary <= 0:
            if self._run or self._framed or self._nul_run or self._is_first:
                self._note_line()
        else:
            self._note_frames(batch.count)
            self._wary = max(self._wary - size, self._wary_bytes)

    def _feed(self, chunk: Chunk, now: float, batches: list[Batch]) -> None:
        if self.partial and not self._is_stirred(chunk):
            self._extend(bytes(chunk))
            if self._doubts_nul:
                self.in_doubt = self.partial[-1] == 0
            return
        begin = 0
        if self._wary <= 0 and not self._speaks_nul and not self._after_nul:
            begin = self._ordinary(chunk, 0, now, batches, evidence=True)
            if begin and (self._run or self._framed or self._nul_run or self._is_first):
                self._note_line()
            if begin == len(chunk):
                return
        rest = bytes(chunk[begin:])
        if not begin and self._is_one_line(rest):
            self._wary -= len(rest)
            self._note_line()
            self.crossed = True
            self._give(Batch(rest, 1, self._info, now), len(rest), batches)
        elif self.partial or not self._holds_line(rest, 0):
            self._now, self._out = now, batches
            self._read(self._take_partial(rest))
            self._out = NOTHING

    def _is_stirred(self, chunk: Chunk) -> bool:
        """Whether a chunk may change more about the unfinished record than its length."""
        if self._stirs is None or len(self.partial) + len(chunk) >= self._wake or self._stirs.search(chunk):
            return True
        seen = bytes(self.partial[-UNDECIDED_BYTES:])
        seam = seen + chunk[:UNDECIDED_BYTES]
        if any(found.end() > len(seen) for found in self._stirs.finditer(seam)):
            return True
        return self._minds_headers and (_holds_header(bytes(chunk), 0) or _holds_header(seam, len(seen)))

    def _is_one_line(self, chunk: bytes) -> bool:
        """Whether a chunk is one ordinary line, and nothing was begun: what most clients send at a time."""
        return (
            chunk.find(LF) == len(chunk) - 1 <= self.limit
            and not self.partial
            and not self._speaks_nul
            and not self._after_nul
            and chunk[0] in _PLAIN
            and b"\r" not in chunk
            and NUL not in chunk
            and (self._wary <= 0 or chunk.find(b"<", 1) < 0)
        )

    def _holds_line(self, data: bytes, position: int) -> bool:
        """Hold what is left of a chunk where it is the beginning of an ordinary line: as most chunks end."""
        if (
            not UNDECIDED_BYTES <= len(data) - position <= self.limit
            or self._wary > 0
            or self._speaks_nul
            or self._after_nul
            or data[position] not in _PLAIN
            or ENDS.search(data, position) is not None
        ):
            return False
        self.partial = data[position:]
        self._wait(self.limit, ENDS)
        return True

    def _read(self, data: bytes) -> None:
        """Read all there is, and hold what is not whole."""
        self.in_doubt = False
        position, size = 0, len(data)
        while position < size and self.closed is None:
            after = self._block(data, position)
            if after == position:
                if self._holds_line(data, position):
                    break
                after = self._one(data, position)
                if after == WAIT:
                    self.partial = data[position:]
                    break
            self._wary -= after - position
            position = after
            if self._skipping is not None and self.closed is None:
                position = size - len(self._skip(data[position:], self._skipping))
        self._give_loose()
        if self.closed is not None:
            self._discard(self.closed, size - position)

    # Blocks.

    def _block(self, data: bytes, position: int) -> int:
        """Read what is ordinary, many records at a time; give where that ends."""
        if COUNTED.match(data, position) is not None:
            self._give_loose()
            after = self._frames(data, position, self._now, self._out)
            if after > position:
                self._wary = max(self._wary, after - position + self._wary_bytes)
            return after
        if self._run and data[position] == LF[0]:
            return self._between_frames(data, position)
        if self._speaks_nul:
            return self._nul_records(data, position)
        return self._lines(data, position)

    def _between_frames(self, data: bytes, position: int) -> int:
        """Pass over LF outside the counts: no line, the frames are in a row all the same."""
        found = _LFS.match(data, position)
        count = found.end() - position if found is not None else 0
        self._loose += [b""] * count
        self._loose_size += count
        return position + count

    def _nul_records(self, data: bytes, position: int) -> int:
        """Read ordinary records that NUL ends as one block; give where something else begins."""
        end = data.rfind(NUL) + 1
        odd = _NUL_ODD.search(data, position, end)
        if odd is not None:
            end = data.rfind(NUL, position, odd.start()) + 1
        records = data[position:end].split(NUL)[:-1]
        begins = list(map(NUL_ENDED.match, records))
        count = begins.index(None) if None in begins else len(records)
        block = NUL.join((*records[:count], b""))
        is_doubtful = self._wary > 0 and next(headers(block, 0, len(block)), None) is not None
        if not count or is_doubtful or max(map(len, records)) > self.limit:
            return position
        self._give_loose()
        nul_run = self._nul_run + count
        self._note_line()
        self._nul_run, self._after_nul = nul_run, True
        self.crossed = True
        self._give(Batch(block, count, self._info, self._now, NUL), len(block), self._out)
        return position + len(block)

    def _lines(self, data: bytes, position: int) -> int:
        """Frame ordinary lines from ``position`` on as one block; give where something else begins."""
        if self._speaks_nul or self._after_nul or PADDING.match(data, position):
            return position
        if self._wary <= 0:
            self._give_loose()
            end = self._ordinary(data, position, self._now, self._out, evidence=True)
            if end > position:
                self._note_line()
                return end
        end = self._end_of_lines(data, position)
        suspect = _SUSPECT.search(data, position, end)
        if suspect is not None:
            odd = _ODD.search(data, suspect.start(), end)
            end = odd.start() + 1 if odd is not None else end
        if end <= position or (self._wary > 0 and self._has_oversize(data[position:end])):
            return position
        self._give_loose()
        self._note_line()
        self.crossed = True
        self._frame_lines(data[position:end], self._now, self._out, has_no_empty=suspect is None)
        return end

    def _end_of_lines(self, data: bytes, position: int) -> int:
        """Give where the lines end that hold neither NUL nor, where we are wary, a header."""
        end = data.rfind(LF, position) + 1
        nul = data.find(NUL, position, end)
        if nul >= 0:
            end = data.rfind(LF, position, nul) + 1
        if self._wary > 0:
            first, _, _ = next(headers(data, position, end), (-1, 0, 0))
            if first >= 0:
                end = data.rfind(LF, position, first) + 1
        return end

    def _has_oversize(self, block: bytes) -> bool:
        return len(block) > self.limit + 1 and self._next_oversize(block, 0) >= 0

    def _sure_frames(self, records: list[bytes]) -> int:
        """See `CountedFramer`: those that hold neither headers nor, before there is trust, LF and NUL."""
        block = b"".join(records)
        if self._is_trusted and b" <" not in block and BOM not in block:
            return len(records)
        for index, record in enumerate(records):
            if next(headers(record, 0, len(record)), None) is not None:
                return index
            if self._run + index < self._trust and breaks_at(record, 0, len(record), len(record)) >= 0:
                return index
        return len(records)


def _holds_header(data: bytes, seen: int) -> bool:
    """Whether a header ends in the data behind the first ``seen`` bytes."""
    return any(end > seen for _, _, end in headers(data, 0, len(data)))
