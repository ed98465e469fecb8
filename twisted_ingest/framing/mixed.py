"""
What a mixed stream has been so far, what is given of it, and what is waited for.
"""

import re
from collections.abc import Iterable
from typing import Any

from twisted_ingest.batch import LF, Batch
from twisted_ingest.errors import DiscardReason, Resync
from twisted_ingest.framing.beginnings import COUNTED, MOST_CLAIMS, Claim, Link, open_until
from twisted_ingest.framing.octets import CountedFramer, payload
from twisted_ingest.limits import PREVIEW

WARY_BYTES = 4096
"""Bytes from a connection's beginning, and from the end of any frame, within which lines are looked through for frames:
where a frame may begin that damage has moved. More than a damaged end (64 bytes) and all it makes look like one."""

WAIT = -1
"""Given instead of a place: there is nothing to read until more has come."""

NOTHING: list[Batch] = []
"""Stands where no call is under way. Nobody adds to it."""

ENDS = re.compile(rb"[\n\0]")


class MixedFramer(CountedFramer):
    """
    Gives the records that were read of a mixed stream; all that is known of the stream so far is here.

    Methods that give a record say where the data goes on behind it.
    """

    __slots__ = (
        "_after_nul",
        "_doubts_nul",
        "_framed",
        "_is_first",
        "_loose",
        "_loose_size",
        "_minds_headers",
        "_now",
        "_nul_run",
        "_out",
        "_run",
        "_speaks_nul",
        "_stirs",
        "_wake",
        "_wary",
    )

    _wary_bytes = WARY_BYTES

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._is_first = True
        """No record has come yet."""
        self._run = 0
        """Frames in a row."""
        self._framed = 0
        """The longest such row lately."""
        self._nul_run = 0
        """Records in a row that began with a priority or ``{`` and were ended by NUL."""
        self._after_nul = False
        """Whether the last record was ended by NUL."""
        self._speaks_nul = False
        """Whether records that begin so are expected to end in NUL."""
        self._wary = self._wary_bytes
        """Bytes ahead within which lines are looked through for frames."""
        # When to look at the unfinished record again: from so many bytes on, at these bytes, at a header.
        self._wake = 0
        self._stirs: re.Pattern[bytes] | None = None
        self._minds_headers = False
        self._doubts_nul = False
        """Whether the unfinished record is in doubt while NUL is its last byte."""
        self._loose: list[bytes] = []
        """Records found one by one, not yet made a batch of; ``_loose_size`` bytes of the stream were they."""
        self._loose_size = 0
        self._now = 0.0
        self._out = NOTHING
        """What the call that is under way gives, and when its bytes came; kept no longer than that."""

    # Giving records.

    def _follow(self, data: bytes, position: int, link: Link) -> int:
        """Give a frame that is confirmed, and before it, as lines, what lies before it."""
        if link.begin > position:
            self._note_resync(Resync.COUNT if COUNTED.match(data, position) else Resync.JUNK, data, position)
            self._run = 0
            while position < link.begin and self.closed is None:
                position = self._give_junk(data, position, link.begin)
            if self.closed is not None:
                return position
        return self._give_frame(data, Claim(link.begin, link.start, link.end, link.known_at))

    def _give_junk(self, data: bytes, position: int, stop: int) -> int:
        """Give one line of what lies before a frame that was found again."""
        found = ENDS.search(data, position, stop)
        end, after = (stop, stop) if found is None else found.span()
        raw = data[position:end]
        self._give_record(raw.removesuffix(b"\r"), raw, after - position)
        return after

    def _give_frame(self, data: bytes, claim: Claim) -> int:
        frame = data[claim.start : claim.end]
        self._loose_size += claim.start - claim.begin
        self._give_record(payload(frame), frame, len(frame))
        self._note_frames(1)
        return claim.end

    def _give_plain(self, data: bytes, position: int, end: int, kind: bytes) -> int:
        raw, is_nul = data[position:end], data[end] == 0
        if self._speaks_nul and kind and not is_nul:
            self._end_nul(data, position)
        if self._run and COUNTED.match(data, position) is not None:
            self._note_resync(Resync.COUNT, data, position)
        # Perl's Sys::Syslog ends a record with LF and NUL.
        before = b"\r" if not is_nul else LF if kind and self._speaks_nul else b""
        self._give_record(raw.removesuffix(before), raw, len(raw) + 1)
        nul_run = self._nul_run + 1 if is_nul and kind else 0
        self._note_line()
        self._nul_run, self._after_nul = nul_run, is_nul
        return end + 1

    def _give_record(self, record: bytes, raw: bytes, consumed: int) -> None:
        """Give one record, which was ``consumed`` bytes of the stream; ``raw`` is what it is cut from if too long."""
        self.crossed = True
        if len(record) <= self.limit:
            self._loose.append(record)
            self._loose_size += consumed
            return
        self._give_loose()
        self._cut(raw, len(raw), DiscardReason.OVERSIZE, self._now, self._out)
        if self.closed is None:
            self._ledger.bytes_framing += consumed - len(raw)
        else:
            self._discard(self.closed, consumed - len(raw))

    def _give_loose(self) -> None:
        """Make batches of the records found one by one."""
        if self._loose_size:
            records, consumed = self._loose, self._loose_size
            self._loose, self._loose_size = [], 0
            self._emit_records(records, consumed, self._now, self._out)

    # What has been seen.

    def _note_frames(self, count: int) -> None:
        self._run += count
        self._framed = max(self._framed, self._run)
        self._nul_run = 0
        self._is_first = self._after_nul = self._speaks_nul = False

    def _note_line(self) -> None:
        self._run = self._nul_run = 0
        self._framed = self._framed if self._wary > 0 else 0
        self._is_first = self._after_nul = False

    def _end_nul(self, data: bytes, position: int) -> None:
        """Give up that NUL ends records."""
        self._speaks_nul = self._after_nul = False
        self._note_resync(Resync.NUL, data, position)

    def _note_resync(self, cause: Resync, data: bytes, position: int) -> None:
        self._ledger.framing_resyncs[cause] += 1
        self.resyncs.append((cause, data[position : position + PREVIEW]))

    # Waiting.

    def _wait(self, wake: int, stirs: re.Pattern[bytes] | None, *, minds_headers: bool = False) -> int:
        """Note what may change the verdict on the record at hand."""
        self._wake, self._stirs, self._minds_headers, self._doubts_nul = wake, stirs, minds_headers, False
        return WAIT

    def _wait_for(
        self, data: bytes, position: int, of: Iterable[Claim], stirs: re.Pattern[bytes], *, wake: int = 1 << 62
    ) -> int:
        """Wait until a claim that is open can be told, or as many bytes are there; and for further claims."""
        size, number = len(data), 0
        for claim in of:
            number += 1
            more_at = open_until(data, claim, size)
            wake = min(wake, more_at - position if more_at else wake)
        return self._wait(wake, stirs, minds_headers=number <= MOST_CLAIMS)
