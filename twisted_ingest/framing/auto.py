"""
What real clients send, mixed on one connection: lines, counted frames, records ended by NUL.

Decided per frame, with evidence (`twisted_ingest.framing.detect`). Ordinary lines still go through as one block: it is
looked at frame by frame only from where a search has found one that is no ordinary line.
"""

import re
from typing import Any

from twisted_ingest.batch import LF, NUL, Batch
from twisted_ingest.errors import DiscardReason
from twisted_ingest.framing.detect import COUNTED, NUL_ENDED, PADDING, UNDECIDED_BYTES, is_undecided
from twisted_ingest.framing.octets import CountedFramer
from twisted_ingest.scan import Chunk

# Line beginnings that may be more than that; the first search is the cheap one.
_SUSPECT = re.compile(rb"\n[\n \xef1-9]")
_ODD = re.compile(rb"\n(?: {1,8}<|\xef\xbb\xbf<|[1-9][0-9]{0,6} (?:\xef\xbb\xbf)?<[0-9]{1,3}>)")

_PLAIN = frozenset(range(0x100)) - frozenset(b"\n\0 \xef123456789")
"""First bytes that make a line an ordinary one."""


class AutoFramer(CountedFramer):
    """
    Tells lines, counted frames and NUL-ended records apart, each by its beginning.

    NUL ends a record that began with a priority or ``{`` as LF does. Once it has, on this connection LF no longer does:
    then such a record may hold newlines (tracebacks of Python's `SysLogHandler`). The first one may be split.
    """

    __slots__ = ("_is_nul_ended", "_speaks_nul")

    _header = COUNTED

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._is_nul_ended = False
        """Whether the unfinished record is one that NUL may end."""
        self._speaks_nul = False

    def _feed(self, chunk: Chunk, now: float, batches: list[Batch]) -> None:
        end = 0
        if self._need is None and not self._speaks_nul:
            end = self._ordinary(chunk, 0, now, batches, evidence=True)
            if end == len(chunk):
                return
        rest = bytes(chunk[end:])
        if end:
            if not self._holds_line(rest, 0):
                self._feed_any(rest, now, batches)
        elif self._is_one_line(rest):
            self.crossed = True
            self._give(Batch(rest, 1, self._info, now), len(rest), batches)
        else:
            self._feed_any(rest, now, batches)

    def _is_one_line(self, chunk: bytes) -> bool:
        """Whether a chunk is one ordinary line, and nothing was begun: what most clients send at a time."""
        return (
            chunk.find(LF) == len(chunk) - 1 <= self._limit
            and not self.partial
            and self._need is None
            and not self._speaks_nul
            and chunk[0] in _PLAIN
            and b"\r" not in chunk
            and NUL not in chunk
        )

    def _feed_any(self, chunk: bytes, now: float, batches: list[Batch]) -> None:
        if self._need is not None:
            chunk = self._continue(chunk, self._need, now, batches)
            if self._need is not None:
                return
        elif self.partial and not is_undecided(self.partial) and self._ending(chunk, 0) < 0:
            self._extend(chunk)
            self._check_partial(now, batches)
            return
        data = self._take_partial(chunk)
        position = 0
        while position < len(data) and self.closed is None:
            position = self._lines(data, position, now, batches)
            if position < len(data) and self.closed is None:
                if self._holds_line(data, position):
                    return
                position = self._frame(data, position, now, batches)
        if self.closed is not None:
            self._discard(self.closed, len(data) - position)

    def _lines(self, data: bytes, position: int, now: float, batches: list[Batch]) -> int:
        """Frame ordinary lines from ``position`` on as one block; give where something else begins."""
        if self._speaks_nul or PADDING.match(data, position) or COUNTED.match(data, position):
            return position
        position, begin = self._ordinary(data, position, now, batches, evidence=True), position
        if position > begin:
            return position
        end = data.rfind(LF, position) + 1
        nul = data.find(NUL, position, end)
        if nul >= 0:
            end = data.rfind(LF, position, nul) + 1
        if end <= position:
            return position
        suspect = _SUSPECT.search(data, position, end)
        if suspect is not None:
            odd = _ODD.search(data, suspect.start(), end)
            end = odd.start() + 1 if odd is not None else end
        self.crossed = True
        self._frame_lines(data[position:end], now, batches, has_no_empty=suspect is None)
        return end

    def _holds_line(self, data: bytes, position: int) -> bool:
        """Hold what is left of a chunk where it is the beginning of an ordinary line: as most chunks end."""
        if (
            not UNDECIDED_BYTES <= len(data) - position <= self._limit
            or data[position] not in _PLAIN
            or self._speaks_nul
            or data.find(LF, position) >= 0
            or data.find(NUL, position) >= 0
        ):
            return False
        self._is_nul_ended = NUL_ENDED.match(data, position) is not None
        self.partial = data[position:]
        return True

    def _frame(self, data: bytes, position: int, now: float, batches: list[Batch]) -> int:
        """Frame what is no block of ordinary lines, as far as it goes; give where the data goes on behind it."""
        found = COUNTED.match(data, position)
        if found is None:
            return self._records(data, position, now, batches)
        after = self._frames(data, position, now, batches)
        return after if after > position else self._begin(data, found, now, batches)

    def _records(self, data: bytes, position: int, now: float, batches: list[Batch]) -> int:
        """
        Frame single records from ``position`` on, until a counted frame or one that has not come whole.

        Padding between them is passed over here, so that a flood of it makes one batch and not one a record.
        """
        records: list[bytes] = []
        begin = position
        while position < len(data) and not COUNTED.match(data, position):
            padding = PADDING.match(data, position)
            if padding is not None:
                position = padding.end()
                continue
            end = -1 if is_undecided(data[position : position + 16]) else self._decide(data, position)
            if end < 0 or end - position > self._limit:
                break
            record = data[position:end]
            records.append(record[:-1] if data[end] == LF[0] and record.endswith(b"\r") else record)
            position = end + 1
        if position > begin:
            self.crossed = self.crossed or bool(records)
            self._emit_records(records, position - begin, now, batches)
            return position
        return self._last(data, position, now, batches)

    def _decide(self, data: bytes, position: int) -> int:
        """Find the end of the record that begins at ``position``, or -1; notes whether NUL may end it."""
        self._is_nul_ended = NUL_ENDED.match(data, position) is not None
        end = self._ending(data, position)
        if end >= 0 and self._is_nul_ended and data[end] == 0:
            self._speaks_nul = True
        return end

    def _ending(self, data: bytes, position: int) -> int:
        """Find what ends the record at hand, or -1."""
        if not self._is_nul_ended:
            return data.find(LF, position)
        if self._speaks_nul:
            return data.find(NUL, position)
        end = data.find(LF, position)
        nul = data.find(NUL, position, end) if end >= 0 else data.find(NUL, position)
        return nul if nul >= 0 else end

    def _last(self, data: bytes, position: int, now: float, batches: list[Batch]) -> int:
        """Deal with a record that is too long, or has not come whole."""
        if is_undecided(data[position:]):
            self.partial = data[position:]
            return len(data)
        end = self._decide(data, position)
        if end < 0:
            self.partial = data[position:]
            self._check_partial(now, batches)
            return len(data)
        record, self.crossed = data[position:end], True
        whole = record[:-1] if data[end] == LF[0] and record.endswith(b"\r") else record
        if len(whole) <= self._limit:
            self._emit_records([whole], end + 1 - position, now, batches)
            return end + 1
        self._cut(record[: self._limit], len(record) - self._limit, DiscardReason.OVERSIZE, now, batches)
        if self.closed is not None:
            return end
        self._ledger.bytes_framing += 1
        return end + 1

    def _end_of_skipped(self, chunk: bytes) -> int:
        end = self._ending(chunk, 0)
        if end >= 0 and self._is_nul_ended and chunk[end] == 0:
            self._speaks_nul = True
        return end

    def _stripped(self, partial: bytes) -> bytes:
        if self._need is None and partial.endswith(b"\r") and not (self._is_nul_ended and self._speaks_nul):
            return partial[:-1]
        return partial
