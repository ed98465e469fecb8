"""
Single records of a mixed stream, each read as what it seems until its bytes, or what follows them, say otherwise.

Every rule is defined byte by byte: what decides is what can be seen first, however much more is at hand. So every
verdict here names how many bytes it takes, and the smallest number wins (`docs/decisions/0011-hypotheses.md`).
"""

from twisted_ingest.batch import LF, NUL
from twisted_ingest.errors import DiscardReason
from twisted_ingest.framing.beginnings import (
    COUNTED,
    PADDING,
    UNDECIDED_BYTES,
    Claim,
    breaks_at,
    first_link,
    headers,
    is_undecided,
    link_at,
)
from twisted_ingest.framing.mixed import ENDS
from twisted_ingest.framing.octets import TRAILER
from twisted_ingest.framing.plain import NEVER, PlainFramer, all_dead_at


class DoubtingFramer(PlainFramer):
    """
    Reads one record at a time.

    Methods that read give where the data goes on behind what they have read, or `WAIT`; then they have noted what would
    change their mind, for ``_is_stirred``.
    """

    __slots__ = ()

    _header = COUNTED

    def _one(self, data: bytes, position: int) -> int:
        """Read what stands at ``position``."""
        self.in_doubt = False
        padding = PADDING.match(data, position)
        if padding is not None:
            self._loose_size += padding.end() - position
            return padding.end()
        if is_undecided(data[position : position + UNDECIDED_BYTES]):
            return self._wait(0, None)
        claim = claim_at(data, position)
        if claim is None:
            return self._plain(data, position)
        if claim.end - claim.start > self.limit + TRAILER:
            return self._long_frame(data, claim)
        return self._frame(data, claim)

    # Counted frames.

    def _frame(self, data: bytes, claim: Claim) -> int:
        """Read a counted frame: at once where nothing in it speaks against its count."""
        position, start, end, _ = claim
        self._wary = max(self._wary, end - position + self._wary_bytes)
        seen = min(end, len(data))
        broken_at = -1 if self._is_trusted else breaks_at(data, start, end, seen)
        if broken_at >= 0 or next(headers(data, start, seen), None) is not None:
            return self._doubtful_frame(data, claim, broken_at)
        if seen == end:
            return self._give_frame(data, claim)
        return self._wait(end - position, NEVER if self._is_trusted else ENDS, minds_headers=True)

    def _doubtful_frame(self, data: bytes, claim: Claim, broken_at: int) -> int:
        """Weigh a frame against those that seem to be inside it: what is confirmed first is believed."""
        position, _, end, _ = claim
        room = position + self.limit + self._slack
        stop = min(len(data), room)
        linked_at, dead_at = link_at(data, end, stop)
        # What is seen later than what decides need not be looked at.
        seen = self._claims(data, position, linked_at or (dead_at if broken_at >= 0 else 0) or stop, stop)
        line_at = data.find(LF, position, stop) + 1 if broken_at >= 0 else 0
        if broken_at < 0 and dead_at:
            # It holds nothing but headers that nothing confirms; those may yet be confirmed.
            inside = [claim for claim in seen if claim.begin < end]
            dead_at = all_dead_at(data, inside, stop, dead_at) or (room if stop == room else 0)
        link, first = self._first_of(data, seen, stop, line_at, linked_at, dead_at)
        if not first:
            self.in_doubt = broken_at >= 0 or end <= stop
            stirs = ENDS if broken_at < 0 and not self._is_trusted else NEVER
            return self._wait_for(data, position, (claim, *seen), stirs, wake=room - position)
        is_linked = link is not None and link.known_at == first
        # Its end in the middle of a run of digits may be chance.
        if linked_at == first and not (is_linked and data[end - 1 : end].isdigit()):
            return self._give_frame(data, claim)
        if link is not None and is_linked:
            return self._follow(data, position, link)
        if dead_at == first and broken_at < 0:
            return self._give_frame(data, claim)
        if dead_at == first:
            return self._plain(data, position, is_wary=True)
        return position + self._read_lines(data[position:first])

    def _long_frame(self, data: bytes, claim: Claim) -> int:
        """Read a frame whose count is too long: as a line, unless nothing in as much as we hold refutes the count."""
        position, start, end, _ = claim
        self._wary = max(self._wary, self._wary_bytes)
        stop = min(end, position + self.limit + self._slack)
        seen = min(stop, len(data))
        if not self._is_trusted and breaks_at(data, start, end, seen) >= 0:
            return self._plain(data, position, is_wary=True)
        inside = self._claims(data, position, seen, seen)
        link = first_link(data, inside, seen)
        if link is not None:
            return self._follow(data, position, link)
        if seen < stop:
            stirs = NEVER if self._is_trusted else ENDS
            return self._wait_for(data, position, inside, stirs, wake=stop - position)
        return self._cut_frame(data, claim, stop)

    def _cut_frame(self, data: bytes, claim: Claim, stop: int) -> int:
        """Cut a frame that is too long, of which all up to ``stop`` is at hand."""
        self._give_loose()
        self._ledger.bytes_framing += claim.start - claim.begin
        self.crossed = self.crossed or stop == claim.end
        if stop < claim.end:
            self._skip_frame(claim.end - stop, DiscardReason.OVERSIZE)
        self._note_frames(1)
        self._cut(data[claim.start : stop], stop - claim.start, DiscardReason.OVERSIZE, self._now, self._out)
        return stop

    def _skip_frame(self, count: int, reason: DiscardReason) -> None:
        """Skip by count; but not past the end of a line where no frames before it vouch for the count."""
        self._skip_counted(count, reason, b"" if self._is_trusted else LF + NUL)


def claim_at(data: bytes, position: int) -> Claim | None:
    """Give what the header says that stands here, if one does."""
    found = COUNTED.match(data, position)
    if found is None:
        return None
    start = found.end()
    return Claim(position, start, start + int(found[1]), data.index(b">", start) + 1)
