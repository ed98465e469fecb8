"""
Counted frames (RFC 6587 section 3.4.1): a decimal length, a blank, that many bytes.

One LF, CRLF or NUL at the end of a frame, inside the count, is stripped: rsyslog, syslog-ng and Docker send one.
Nothing is ever allocated from a declared length.
"""

import re
from typing import Any

from twisted_ingest.batch import LF, NUL, Batch
from twisted_ingest.errors import DiscardReason
from twisted_ingest.framing.base import Astray, Framer
from twisted_ingest.framing.beginnings import ANY_COUNTED, BOM, COUNTED, counted_is_undecided
from twisted_ingest.framing.scan import Chunk, FramesIn, Look, frames_in
from twisted_ingest.limits import PREVIEW

TRAILER = 2
"""Bytes that may stand at the end of a frame and do not count towards the limit: CRLF."""

_LF = LF[0]

_MOSTLY_WITHIN = 512
"""Bytes from a block's end in which its last record mostly begins."""


class CountedFramer(Framer):
    """
    What framers of counted frames share; ``_header`` finds where one begins.
    """

    __slots__ = ()

    _header: re.Pattern[bytes]
    _frames_in: FramesIn = staticmethod(frames_in)

    def _frames(self, data: bytes, position: int, now: float, batches: list[Batch]) -> int:
        """Frame whole frames from ``position`` on, up to what is none or is too long; give where that begins."""
        position = self._ordinary_frames(data, position, now, batches)
        records: list[bytes] = []
        ends: list[int] = []
        match, limit, size, begin = self._header.match, self.limit, len(data), position
        while True:
            found = match(data, position)
            if found is None:
                break
            start = found.end()
            end = start + int(found[1])
            if end > size or end - start > limit:
                break
            records.append(data[start:end])
            ends.append(end)
            position = end
        sure = self._sure_frames(records)
        if not sure:
            return begin
        self.crossed = True
        self._note_frames(sure)
        self._emit_frames(records[:sure], ends[sure - 1] - begin, now, batches)
        return ends[sure - 1]

    def _sure_frames(self, records: list[bytes]) -> int:
        """Count the frames at the front that are what their counts say, whatever follows."""
        return len(records)

    def _note_frames(self, count: int) -> None:
        """Note that frames came."""

    def _ordinary_frames(self, data: bytes, position: int, now: float, batches: list[Batch]) -> int:
        """Make a batch of all frames up to the first odd one; give where that begins."""
        wire, count, end = self._frames_in(data, position, self.limit, self._header is COUNTED)
        if count:
            self.crossed = True
            self._note_frames(count)
            self._give(Batch(wire, count, self._info, now), end - position, batches)
        return end

    def _emit_frames(self, records: list[bytes], consumed: int, now: float, batches: list[Batch]) -> None:
        """Make batches of the contents of frames none of which is too long."""
        block = b"".join(records)
        ends = len(block) - len(block.replace(LF, b""))
        if BOM[:1] not in block:
            if ends == len(records) and not [1 for record in records if record[-1] != _LF]:
                # Each ends in its only LF: already lines.
                self._emit(block, consumed, LF, now, batches)
                return
            if not ends and b"\r" not in block and NUL not in block:
                self._emit(LF.join((*records, b"")), consumed, LF, now, batches)
                return
        self._emit_records(list(map(payload, records)), consumed, now, batches)


def payload(frame: bytes) -> bytes:
    """Take the trailer off a counted frame (one LF, CRLF or NUL), and a BOM before its priority."""
    if frame.endswith(LF):
        frame = frame[:-2] if frame.endswith(b"\r\n") else frame[:-1]
    elif frame.endswith(NUL):
        frame = frame[:-1]
    return frame[len(BOM) :] if frame.startswith(BOM + b"<") else frame


class OctetFramer(CountedFramer):
    """
    Frames a stream of counted frames, and nothing else.

    Where a frame does not begin with a count (one LF before it is tolerated) there is no safe place to go on: the
    framer closes, reason ``framing``, and ``astray`` says what is there and which record is before it. A count is 1 to
    9,999,999, without leading zero. The unfinished frame is held with its count.
    """

    __slots__ = ("_last_size", "_wake")

    _header = ANY_COUNTED

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._last_size = 0
        """How long the last record is."""
        self._wake = 0
        """From how many bytes on the unfinished frame is looked at again."""

    @property
    def look(self) -> Look:
        """See `Framer`."""
        return Look.NOTHING if self._sniffing or self._skipping is not None else Look.FRAMES

    def _feed(self, chunk: Chunk, now: float, batches: list[Batch]) -> None:
        if self.partial and len(self.partial) + len(chunk) < self._wake:
            self._extend(bytes(chunk))
            return
        data, position = self._take_partial(chunk), 0
        while position < len(data) and self.closed is None:
            before = len(batches)
            position = self._frames(data, position, now, batches)
            if len(batches) > before:
                self._last_size = _last_length(batches[-1])
            found = self._header.match(data, position)
            if found is not None:
                position = self._one(data, found, now, batches)
                continue
            self.partial, self._wake = data[position:], 0
            if not counted_is_undecided(self.partial):
                self.astray = Astray(self._last_size, data[position : position + PREVIEW])
                self.discard(DiscardReason.FRAMING)
            return
        if self.closed is not None:
            self._discard(self.closed, len(data) - position)

    def _note_taken(self, batch: Batch, size: int) -> None:
        self._last_size = _last_length(batch)

    def _one(self, data: bytes, found: re.Match[bytes], now: float, batches: list[Batch]) -> int:
        """Take a frame that has not come whole, or may be too long; give where the data goes on behind it."""
        begin, (start, count) = found.start(), (found.end(), int(found[1]))
        longest = self.limit + TRAILER
        # Of one that is too long no more is kept than a record may have.
        needed = start + (count if count <= longest else self.limit)
        if len(data) < needed:
            self.partial, self._wake = data[begin:], needed - begin
            return len(data)
        frame = data[start : start + count]
        self._ledger.bytes_framing += start - begin
        if len(frame) < count:
            self._skip_counted(count - len(frame), DiscardReason.OVERSIZE)
        else:
            self.crossed = True
        record = payload(frame)
        if count > longest or len(record) > self.limit:
            self._cut(frame, len(frame), DiscardReason.OVERSIZE, now, batches)
            self._last_size = count
        else:
            self._emit_records([record], count, now, batches)
            self._last_size = len(record) or self._last_size
        return start + len(frame)

    def _give_up(self, reason: DiscardReason, now: float, batches: list[Batch]) -> None:
        raw = self._take_partial(b"")
        found = self._header.match(raw)
        if found is None:
            self._skip_until(self.delimiter, reason)
        else:
            # What is left of a counted frame is skipped by count, whatever it holds.
            self._ledger.bytes_framing += found.end()
            raw = raw[found.end() :]
            self._skip_counted(int(found[1]) - len(raw), reason)
        self._cut(raw, len(raw), reason, now, batches)

    def _stripped(self, partial: bytes) -> bytes:
        # Digits of a count are no record.
        found = self._header.match(partial)
        return partial[found.end() :] if found is not None else b""


def _last_length(batch: Batch) -> int:
    """Give the length of the last record of a batch."""
    if batch.count == 1:
        return batch.size - 1
    size = _MOSTLY_WITHIN
    while True:
        tail = bytes(batch.wire[-1 - size : -1])
        end = tail.rfind(batch.delimiter)
        if end >= 0:
            return len(tail) - end - 1
        size *= 8
