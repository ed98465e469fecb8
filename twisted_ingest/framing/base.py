"""
What all framers share: the contract, the first bytes, the unfinished record, blocks of records.

Pure: bytes and a time in, batches out; no Twisted, no clock, no log.
"""

from typing import NamedTuple

from twisted_ingest.batch import LF, Batch, ConnectionInfo
from twisted_ingest.errors import DiscardReason, Oversize, Resync
from twisted_ingest.framing.batching import FEW_BATCHES, merged
from twisted_ingest.framing.blocks import Blocks
from twisted_ingest.framing.detect import diagnose, is_run_together, may_hold_record, no_text_begins
from twisted_ingest.framing.scan import Chunk, Look
from twisted_ingest.framing.signatures import HEAD_BYTES, Signature
from twisted_ingest.ledger import ListenerLedger


class Astray(NamedTuple):
    """Where a stream of counted frames lost its way: ``found`` is behind a record of ``size`` bytes, or none (0)."""

    size: int
    found: bytes


class Framer(Blocks):
    """
    Frames one connection's stream; subclasses say what ends a record in ``_feed``.

    Any cut of the same bytes into chunks gives the same records, drops and accounting. ``max_length`` is inclusive
    and leaves delimiters out. An oversize record is dealt with as soon as it is too long, whether or not its end has
    come; what follows it survives. Once ``closed``, whatever else is fed is discarded. With ``sniff`` the first bytes
    are held until they show whether the stream is of another protocol, which closes it.
    """

    __slots__ = (
        "_sniffing",
        "astray",
        "in_doubt",
        "resyncs",
        "unnamed",
        "wrong_protocol",
    )

    _diagnose = staticmethod(diagnose)
    """What judges the first bytes."""

    def __init__(
        self,
        info: ConnectionInfo,
        ledger: ListenerLedger,
        max_length: int,
        oversize: Oversize = Oversize.TRUNCATE,
        *,
        sniff: bool = True,
    ) -> None:
        super().__init__(info, ledger, max_length, oversize)
        self._sniffing = sniff
        self.wrong_protocol: Signature | None = None
        """What the stream turned out to be, where it was given up for that."""
        self.in_doubt = False
        """Whether a record is held that is whole, or is not, by what follows it: `settle` gives it as it is."""
        self.astray: Astray | None = None
        """Where the stream was given up for its framing."""
        self.unnamed = b""
        """The first bytes, where they belong to no text and to no protocol known; until the caller empties it."""
        self.resyncs: list[tuple[Resync, bytes]] = []
        """Where a reading was given up since the caller last emptied this list: why, and what begins there."""

    @property
    def in_record(self) -> bool:
        """Whether a record was begun and its end has not come, be it held or being skipped."""
        if self.partial:
            # While sniffing, empty records may be held, because other protocols begin so.
            return not self._sniffing or bool(self.partial.strip(b"\r\n\0"))
        return self._skipping is not None

    @property
    def is_run_together(self) -> bool:
        """Whether the unfinished record looks like several, whose sender ends them with nothing."""
        return is_run_together(self.partial)

    @property
    def look(self) -> Look:
        """How ``partial`` and what comes next may be looked through before we see them. Asked for each read."""
        return Look.NOTHING

    def feed(self, chunk: Chunk, now: float) -> list[Batch]:
        """
        Take a chunk received at ``now`` (Unix seconds) and give the batches it completed.

        A chunk may be a view of a buffer, of which nothing is kept. Of one that completes records the framer keeps a
        copy of the unfinished end only, so that a few bytes never pin a whole read.
        """
        self.crossed = False
        batches: list[Batch] = []
        if self._sniffing:
            chunk = self._sniff(bytes(chunk))
        if self._skipping is not None:
            chunk = self._skip(bytes(chunk), self._skipping)
        if chunk:
            self._feed(chunk, now, batches)
            if len(batches) > FEW_BATCHES:
                return merged(batches)
        return batches

    def take(self, wire: Chunk, count: int, size: int, rest: Chunk, now: float) -> list[Batch]:
        """
        Take a chunk that was looked through as ``look`` said: gives what `feed` would give for it.

        ``wire`` are the ``count`` ordinary records at the front of ``partial`` and the chunk, LF behind each; they were
        ``size`` bytes of both. It becomes the wire of the first batch as it is. ``rest`` is what follows them; with no
        record found it is the chunk, without ``partial``. Nothing else may be asked of us between look and take.
        """
        if not count:
            return self.feed(rest, now)
        self.crossed = True
        self.partial = b""
        batch = Batch(wire, count, self._info, now)
        batches = [batch]
        # As `_give` does, without a call.
        ledger, content = self._ledger, batch.size - count
        ledger.bytes_framing += size - content
        ledger.bytes_accepted += content
        ledger.records_framed += count
        self._note_taken(batch, size)
        if not rest:
            return batches
        more: list[Batch] = []
        self._feed(rest, now, more)
        return batches + (merged(more) if len(more) > FEW_BATCHES else more)

    def finish(self, now: float) -> list[Batch]:
        """Take the end of the stream: an unfinished record is delivered, marked partial."""
        batches = self._end_sniffing(now)
        record = self._stripped(bytes(self.partial))
        self._ledger.bytes_framing += len(self.partial) - len(record)
        self.partial = b""
        self._skipping = None
        if record:
            self._ledger.records_partial += 1
            batches.append(self._single(record, now, partial=True))
        return batches

    def settle(self, now: float) -> list[Batch]:
        """Take it that nothing more will come soon: give what is ``in_doubt`` by what is at hand."""
        return self._end_sniffing(now)

    def discard(self, reason: DiscardReason) -> None:
        """Give up the unfinished record and everything after it."""
        self.in_doubt = False
        self._discard(reason, len(self.partial))
        self.partial = b""
        self._sniffing = False
        self._skip_count = None
        self.closed = self._skipping = reason

    def evict(self, now: float) -> list[Batch]:
        """Treat the unfinished record as oversize, reason ``memory``."""
        batches = self._end_sniffing(now)
        if self.partial:
            self._give_up(DiscardReason.MEMORY, now, batches)
        return batches

    def _feed(self, chunk: Chunk, now: float, batches: list[Batch]) -> None:
        """Frame what follows the unfinished record; called with one byte at least, never while skipping."""
        raise NotImplementedError

    def _note_taken(self, batch: Batch, size: int) -> None:
        """Note records that were found elsewhere, as ``look`` said; they were ``size`` bytes of the stream."""

    def _stripped(self, partial: bytes) -> bytes:
        """Give an unfinished record at the end of the stream without what belongs to its delimiter."""
        return partial

    # The first bytes.

    def _sniff(self, chunk: bytes) -> bytes:
        """Hold the first bytes until they show whether this is a protocol of ours; give what may be framed."""
        head = self._take_partial(chunk)
        found, is_certain = self._diagnose(head)
        is_strange = no_text_begins(head) if found is None else False
        if not is_certain or is_strange is None:
            self.partial = head
            self.in_doubt = may_hold_record(head)
            return b""
        self._sniffing = self.in_doubt = False
        if found is None:
            self.unnamed = head[:HEAD_BYTES] if is_strange else b""
            return head
        self.wrong_protocol = found
        self.partial = head
        self.discard(DiscardReason.WRONG_PROTOCOL)
        return b""

    def _end_sniffing(self, now: float) -> list[Batch]:
        """Frame what was held for sniffing: no more will come in time."""
        batches: list[Batch] = []
        if self._sniffing:
            self._sniffing = self.in_doubt = False
            held = self._take_partial(b"")
            if held:
                self._feed(held, now, batches)
        return batches

    def _check_partial(self, now: float, batches: list[Batch]) -> None:
        """Deal with an unfinished line that is too long already."""
        if len(self.partial) == self.limit + 1 and self.delimiter == LF and self.partial.endswith(b"\r"):
            return  # it may still turn out to be a record of exactly the limit, ended by CRLF
        if len(self.partial) > self.limit:
            self._give_up(DiscardReason.OVERSIZE, now, batches)

    def _give_up(self, reason: DiscardReason, now: float, batches: list[Batch]) -> None:
        """Apply the oversize policy to the record in ``partial``, whose end is yet to come."""
        self._skip_until(self.delimiter, reason)
        raw = self._take_partial(b"")
        self._cut(raw, len(raw), reason, now, batches)
