"""
Single lines of a mixed stream, and records that NUL ends, each weighed against the frames that seem to begin in it.

Every rule is defined byte by byte; see `twisted_ingest.framing.doubt`.
"""

import re

from twisted_ingest.batch import LF, NUL
from twisted_ingest.errors import DiscardReason, Resync
from twisted_ingest.framing.beginnings import (
    COUNTED,
    LINE_END,
    MOST_CLAIMS,
    NUL_END,
    NUL_ENDED,
    OPEN,
    PADDED,
    PADDING,
    UNDECIDED_BYTES,
    Claim,
    Link,
    chain_at,
    claims,
    first_link,
)
from twisted_ingest.framing.mixed import ENDS, WAIT, MixedFramer
from twisted_ingest.framing.octets import TRAILER

TRUST = 16
"""Frames (or records ended by NUL) in a row after which LF in one of them is content, and nothing to wait for. A few
stray bytes cannot make that many: 64 hold ten of the shortest."""

SLACK = 256
"""Bytes that may be at hand beyond the longest record while frames are looked for: stray bytes before it, its count,
and the one behind it."""

NEVER = re.compile(rb"(?!)")
_NUL_ENDS = {b"<": re.compile(rb"\0|\n<[0-9]{1,3}>"), b"{": re.compile(rb"\0|\n\{")}
_LINE_ENDS = re.compile(rb"\n|\0<[0-9]{1,3}>|\0\{")


class PlainFramer(MixedFramer):
    """
    Reads one record at a time that is no counted frame; see `twisted_ingest.framing.doubt.DoubtingFramer`.
    """

    __slots__ = ()

    _slack = SLACK
    _trust = TRUST

    @property
    def _is_trusted(self) -> bool:
        return self._run >= self._trust

    def _plain(self, data: bytes, position: int, *, is_wary: bool = False) -> int:
        """Read a line, or a record that NUL ends."""
        kind = self._kind(data, position)
        is_wary = is_wary or self._wary > 0
        size, last = len(data), position + self.limit
        room = self._room(data, position)
        stop = min(size, room)
        end = self._end(data, position, stop, kind)
        reach = min(size, last + self._slack)
        inside = self._claims(data, position, end if end >= 0 else min(size, last + 1), reach) if is_wary else []
        if inside:
            room = last + self._slack
            stop = min(size, room)
            end = self._end(data, position, stop, kind) if end < 0 else end
            after = self._weigh_line(data, position, end, stop, inside)
            if after is not None and (after != WAIT or stop < room):
                return after
        if end >= 0:
            return self._give_plain(data, position, end, kind)
        if stop == room:
            return self._overflow(data, position, room, kind)
        return self._hold_plain(
            data, position, room, kind, self._claims(data, position, stop, stop) if is_wary else None
        )

    def _claims(self, data: bytes, position: int, stop: int, weighed_to: int) -> list[Claim]:
        """Give what the headers claim that stand behind ``position`` and before ``stop``, to be weighed so far."""
        return claims(data, position + 1, stop, self.limit + TRAILER, weighed_to)

    @staticmethod
    def _first_of(data: bytes, seen: list[Claim], stop: int, line_at: int, *others: int) -> tuple[Link | None, int]:
        """
        Give the link that is confirmed first, and how many bytes it takes to see the first of all that decides.

        One is that there are more claims than are weighed, where there is a line to give: so many headers are no
        record's content, and to weigh them anew for each line would be too dear.
        """
        link = first_link(data, seen, stop)
        crowded_at = max(seen[MOST_CLAIMS].known_at, line_at) if line_at and len(seen) > MOST_CLAIMS else 0
        return link, min(filter(None, (link and link.known_at, crowded_at, *others)), default=0)

    def _kind(self, data: bytes, position: int) -> bytes:
        """Give how a record begins that NUL may end, or nothing; behind another one, NUL is expected to end it."""
        if NUL_ENDED.match(data, position) is None:
            return b""
        self._speaks_nul = self._speaks_nul or self._after_nul
        return data[position : position + 1]

    def _room(self, data: bytes, position: int) -> int:
        """Give the place by which a record's end must have come, unless it holds a header."""
        last = position + self.limit
        # What stands behind the longest record may be half of its end.
        return last + (UNDECIDED_BYTES if data[last : last + 1] in (b"\r", NUL) else 1)

    def _end(self, data: bytes, position: int, stop: int, kind: bytes) -> int:
        """Find what ends the record at hand, or -1."""
        if kind and self._speaks_nul:
            nul = data.find(NUL, position, stop)
            line = LINE_END[kind].search(data, position, nul if nul >= 0 else stop)
            return line.start() if line is not None else nul
        lf = data.find(LF, position, stop)
        within = lf if lf >= 0 else stop
        if kind:
            nul = data.find(NUL, position, within)
            return nul if nul >= 0 else lf
        found = NUL_END.search(data, position, within)
        return found.start() if found is not None else lf

    def _weigh_line(self, data: bytes, position: int, end: int, stop: int, inside: list[Claim]) -> int | None:
        """
        Weigh a line against the frames that seem to begin in it, and where it has ended also against those behind it.

        ``None``: it is what it seems.
        """
        if end < 0:
            link = first_link(data, self._claims(data, position, stop, stop), stop)
            return self._follow(data, position, link) if link is not None else None
        dead_at = all_dead_at(data, inside, stop, end + 1)
        # What is seen later than that decides nothing.
        seen = self._claims(data, position, min(stop, dead_at or stop), stop)
        link, first = self._first_of(data, seen, stop, end + 1, dead_at)
        if not first:
            self.in_doubt = True
            return self._wait_for(data, position, seen, NEVER, wake=self.limit + self._slack)
        if link is not None and link.known_at == first:
            return self._follow(data, position, link)
        return None if dead_at == first else position + self._read_lines(data[position:first])

    def _hold_plain(self, data: bytes, position: int, room: int, kind: bytes, seen: list[Claim] | None) -> int:
        """Wait for the end of a line, or of a record that NUL ends."""
        size = len(data)
        self.in_doubt = self._may_be_lines(data, position, kind)
        stirs = _NUL_ENDS[kind] if kind else _LINE_ENDS
        if kind and not (self._speaks_nul and (self.in_doubt or self._nul_run >= self._trust)):
            stirs = ENDS
        if seen is None:
            self._wait(self.limit + 1, stirs)
        else:
            self._wait_for(data, position, seen, stirs, wake=room - position)
            if self._framed and any(claim.end <= size and chain_at(data, claim, size) == OPEN for claim in seen):
                self.in_doubt = True
        self._doubts_nul = not kind and not self.in_doubt
        return WAIT

    def _may_be_lines(self, data: bytes, position: int, kind: bytes) -> bool:
        """Whether an unfinished record has ended if it is a line, or if its last NUL is what ends it."""
        if not kind:
            return data.endswith(NUL)
        return self._speaks_nul and self._nul_run < self._trust and data.find(LF, position) >= 0

    def _overflow(self, data: bytes, position: int, room: int, kind: bytes) -> int:
        """Deal with a record that is too long and has no end in as much as may be held."""
        if kind and self._may_be_lines(data[:room], position, kind):
            self._end_nul(data, position)
            return self._plain(data, position)
        self._give_loose()
        self._skip_until(NUL if kind and self._speaks_nul else LF + NUL, DiscardReason.OVERSIZE)
        self._cut(data[position:room], room - position, DiscardReason.OVERSIZE, self._now, self._out)
        self._note_line()
        return room

    # Without hypotheses.

    def _read_lines(self, data: bytes) -> int:
        """Read records without a look at counts, in one go; give where the first begins that has not ended."""
        if self._run and COUNTED.match(data) is not None:
            self._note_resync(Resync.COUNT, data, 0)
        if not self._speaks_nul and not self._after_nul and NUL not in data and not PADDED.search(data):
            return self._read_block(data)
        position = 0
        while position < len(data) and self.closed is None:
            after = self._read_line(data, position)
            if after == WAIT:
                break
            position = after
        return position

    def _read_block(self, data: bytes) -> int:
        end = data.rfind(LF) + 1
        if end:
            self._give_loose()
            self._note_line()
            self.crossed = True
            self._frame_lines(data[:end], self._now, self._out)
        return end

    def _read_line(self, data: bytes, position: int) -> int:
        padding = PADDING.match(data, position)
        if padding is not None:
            self._loose_size += padding.end() - position
            return padding.end()
        kind = self._kind(data, position)
        end = self._end(data, position, len(data), kind)
        if end < 0 and kind and self._may_be_lines(data, position, kind):
            self._end_nul(data, position)
            end = self._end(data, position, len(data), kind)
        return self._give_plain(data, position, end, kind) if end >= 0 else WAIT


def all_dead_at(data: bytes, seen: list[Claim], stop: int, at: int) -> int:
    """Give how many bytes, and ``at`` at least, it takes to see that no claim known by then holds; 0 while one may."""
    for claim in seen:
        if claim.known_at > at:
            break
        dead_at = chain_at(data, claim, stop).dead_at
        if not dead_at:
            return 0
        at = max(at, dead_at)
    return at
