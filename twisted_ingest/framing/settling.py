"""
How a mixed stream comes to an end, or a wait in it: what is at hand is given by what is known of it.
"""

from twisted_ingest.batch import LF, NUL, Batch
from twisted_ingest.errors import DiscardReason
from twisted_ingest.framing.beginnings import OPEN, Link, breaks_at, claims, link_at
from twisted_ingest.framing.doubt import DoubtingFramer, claim_at
from twisted_ingest.framing.mixed import NOTHING
from twisted_ingest.framing.octets import TRAILER


class SettlingFramer(DoubtingFramer):
    """
    Gives what is held where no more will come, or not in time.
    """

    __slots__ = ()

    def _read(self, data: bytes) -> None:
        """Read all there is, and hold what is not whole."""
        raise NotImplementedError

    def settle(self, now: float) -> list[Batch]:
        """See `Framer`: a frame that ends where the data does is believed; else what is at hand are lines."""
        if not self.in_doubt:
            return []
        batches = self._end_sniffing(now)
        self._now, self._out = now, batches
        while self.in_doubt:
            self._settle_once(self._take_partial(b""))
        self._out = NOTHING
        return batches

    def _settle_once(self, data: bytes) -> None:
        position = self._settle_frame(data)
        self._wary -= position
        if position:
            self._read(data[position:])
            return
        position = self._read_lines(data)
        if position < len(data) and data.endswith(NUL) and self.closed is None:
            # Nothing will follow that could tell what this NUL means.
            position = self._give_plain(data, position, len(data) - 1, b"")
        self._wary -= position
        self._give_loose()
        self.in_doubt = False
        self.partial = data[position:]
        self._wait(0, None)
        if self.closed is not None:
            self.discard(self.closed)

    def _settle_frame(self, data: bytes) -> int:
        """Give the frame that ends where the data does, and what is before it; 0 where there is none to believe."""
        size, longest = len(data), self.limit + TRAILER
        own = claim_at(data, 0)
        if own is not None and own.end <= size and own.end - own.start <= longest:
            is_whole = self._is_trusted or breaks_at(data, own.start, own.end, size) < 0
            is_expected = self._framed or self._is_first
            if is_whole or (is_expected and _is_at_end(data, own.end)):
                return self._give_frame(data, own)
        for claim in claims(data, 1, size, longest) if self._framed else ():
            vouched = self._framed >= self._trust or breaks_at(data, claim.start, claim.end, size) < 0
            if vouched and _leads_to_end(data, claim.end):
                return self._follow(data, 0, Link(size, claim.begin, claim.start, claim.end))
        return 0

    def finish(self, now: float) -> list[Batch]:
        """See `Framer`: a counted frame cut off by the end is delivered as far as it came."""
        batches = self._end_sniffing(now)
        batches += self.settle(now)
        record = self._stripped(bytes(self.partial))
        if len(record) > self.limit and self.closed is None:
            self._ledger.bytes_framing += len(self.partial) - len(record)
            self.partial = b""
            self._cut(record, len(record), DiscardReason.OVERSIZE, now, batches)
        return batches + super().finish(now)

    def evict(self, now: float) -> list[Batch]:
        """See `Framer`."""
        batches = self._end_sniffing(now)
        batches += self.settle(now)
        if not self.partial:
            return batches
        data = self._take_partial(b"")
        claim = claim_at(data, 0)
        start = claim.start if claim is not None else 0
        self._ledger.bytes_framing += start
        if claim is not None and claim.end > len(data):
            self._skip_frame(claim.end - len(data), DiscardReason.MEMORY)
        elif not self._framed:
            self._skip_until(LF + NUL, DiscardReason.MEMORY)
        self._note_line()
        self._cut(data[start:], len(data) - start, DiscardReason.MEMORY, now, batches)
        return batches

    def _stripped(self, partial: bytes) -> bytes:
        claim = claim_at(partial, 0)
        if claim is not None:
            return partial[claim.start :]
        return partial.removesuffix(b"\r") if not self._speaks_nul else partial


def _is_at_end(data: bytes, end: int) -> bool:
    """Whether a frame ends where the data does, or so that the rest may be the beginning of a header."""
    return end <= len(data) and link_at(data, end, len(data)) == OPEN


def _leads_to_end(data: bytes, end: int) -> bool:
    """Whether that is so of a frame that was not expected, or of the one it leads to."""
    following = claim_at(data, end) if end < len(data) else None
    return _is_at_end(data, end) or (following is not None and _is_at_end(data, following.end))
