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
from twisted_ingest.framing.scan import Chunk, FramesIn, frames_in
from twisted_ingest.limits import PREVIEW

TRAILER = 2
"""Bytes that may stand at the end of a frame and do not count towards the limit: CRLF."""

_LF = LF[0]


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
        match, limit, size, begin = self._header.match, self._limit, len(data), position
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
        wire, count, end = self._frames_in(data, position, self._limit, self._header is COUNTED)
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
    framer closes, reason ``framing``, and ``astray`` says what is there and which count led to it. A count is 1 to
    9,999,999, without leading zero.
    """

    __slots__ = ("_last_count",)

    _header = ANY_COUNTED

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._last_count = 0
        """Of the last frame that had not come whole."""

    def _feed(self, chunk: Chunk, now: float, batches: list[Batch]) -> None:
        chunk = bytes(chunk)
        if self._need is not None:
            chunk = self._continue(chunk, self._need, now, batches)
        data = self._take_partial(chunk) if self._need is None else b""
        position = 0
        while position < len(data) and self.closed is None:
            position = self._frames(data, position, now, batches)
            found = self._header.match(data, position)
            if found is not None:
                position = self._begin(data, found, now, batches)
                continue
            self.partial = data[position:]
            if not counted_is_undecided(self.partial):
                self.astray = Astray(self._count_before(data, position), data[position : position + PREVIEW])
                self.discard(DiscardReason.FRAMING)
            return
        if self.closed is not None:
            self._discard(self.closed, len(data) - position)

    def _count_before(self, data: bytes, position: int) -> int:
        """Give the count of the frame that ended at ``position``, where it is known."""
        at, count = 0, self._last_count
        while at < position and (found := self._header.match(data, at)) is not None:
            count = int(found[1])
            at = found.end() + count
        return count

    def _begin(self, data: bytes, found: re.Match[bytes], now: float, batches: list[Batch]) -> int:
        """Begin a frame that has not come whole, or may be too long; give where the data goes on behind it."""
        start = found.end()
        self._need = self._last_count = int(found[1])
        self._ledger.bytes_framing += start - found.start()
        self.partial = data[start : start + self._need]
        end = start + len(self.partial)
        self._check_frame(now, batches)
        return end

    def _continue(self, chunk: bytes, need: int, now: float, batches: list[Batch]) -> bytes:
        """Add to the frame that was begun; give what follows it."""
        missing = need - len(self.partial)
        self._extend(chunk[:missing])
        self._check_frame(now, batches)
        return chunk[missing:]

    def _check_frame(self, now: float, batches: list[Batch]) -> None:
        """Deal with the frame in ``partial`` if it is whole, or too long already."""
        need, have, limit = self._need or 0, len(self.partial), self._limit
        if have == need:
            frame = self._take_partial(b"")
            self._need = None
            self.crossed = True
            record = payload(frame)
            if need > limit + TRAILER or len(record) > limit:
                self._cut(frame, need, DiscardReason.OVERSIZE, now, batches)
            else:
                self._emit_records([record], need, now, batches)
        elif need > limit + TRAILER and have >= limit:
            self._give_up(DiscardReason.OVERSIZE, now, batches)

    def finish(self, now: float) -> list[Batch]:
        """See `Framer`."""
        batches = super().finish(now)
        self._need = None
        return batches

    def discard(self, reason: DiscardReason) -> None:
        """See `Framer`."""
        super().discard(reason)
        self._need = None

    def _give_up(self, reason: DiscardReason, now: float, batches: list[Batch]) -> None:
        raw, need = self._take_partial(b""), self._need
        self._need = None
        if need is None:
            self._skip_until(self.delimiter, reason)
        else:
            # What is left of a counted frame is skipped by count, whatever it holds.
            self._skip_counted(need - len(raw), reason)
        self._cut(raw, len(raw), reason, now, batches)

    def _stripped(self, partial: bytes) -> bytes:
        # Digits of a count are no record.
        return partial if self._need is not None else b""
