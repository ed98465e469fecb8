"""
RELP: numbered frames, and the rules of a session. ``NUMBER COMMAND LENGTH [DATA]`` and LF; each frame is answered.

Pure: bytes in, batches and replies out. Where librelp, which rsyslog speaks, differs from the written protocol, this
follows librelp as far as no record can be lost by it. Nothing is ever allocated from a declared length.
"""

import re
from typing import Any

from twisted_ingest.batch import LF, Batch, ConnectionInfo
from twisted_ingest.errors import CloseReason, DiscardReason, RelpCommand, RelpError
from twisted_ingest.framing.detect import RELP_HEADER, diagnose_relp, relp_is_undecided
from twisted_ingest.framing.octets import TRAILER, payload
from twisted_ingest.framing.relp_replies import OK, REFUSALS, SERVERCLOSE, Reply, accept, next_number
from twisted_ingest.framing.scan import Chunk, RecordsIn, records_in
from twisted_ingest.framing.session import Session
from twisted_ingest.ledger import RelpLedger
from twisted_ingest.limits import RELP_LAST_NUMBER, RELP_OFFERS

_RECORD = re.compile(rb"([0-9]{1,9}) syslog ([0-9]{1,9}) ")
_COMMANDS = {command.value.encode(): command for command in RelpCommand if command is not RelpCommand.OTHER}
_LF = LF[0]

_BROKEN_FRAME = frozenset({RelpError.HEADER, RelpError.LENGTH, RelpError.TRAILER})
"""Mistakes after which nobody knows where the next frame begins."""


class RelpFramer(Session[Reply]):
    """
    Frames one session; see `Session` and `Framer` for what all promise.

    A record whose frame has not ended is never delivered: its sender has no answer, and sends it again. For the same
    reason one that would take too much memory is not cut but ends the session. ``ended_well`` tells whether it is the
    peer that has ended it, in good order. Once frame ``last_number`` is answered the session ends so.
    """

    __slots__ = (
        "_command",
        "_expected",
        "_have",
        "_is_open",
        "_last_number",
        "_need",
        "_number",
        "_relp",
        "_wake",
        "ended_well",
        "error",
    )

    goodbye = SERVERCLOSE

    _diagnose = staticmethod(diagnose_relp)
    _records_in: RecordsIn = staticmethod(records_in)

    def __init__(
        self,
        info: ConnectionInfo,
        ledger: RelpLedger,
        *arguments: Any,
        last_number: int = RELP_LAST_NUMBER,
        **options: Any,
    ) -> None:
        super().__init__(info, ledger, *arguments, **options)
        self._last_number = last_number
        self._relp = ledger
        self._is_open = False
        self._expected = 1
        self._wake = 0
        """From how many bytes on ``partial`` is looked at again, where it is an ordinary frame from its header on."""
        # Of a frame that is read piece by piece, being none of the ordinary ones:
        self._number = 0
        self._command = RelpCommand.OTHER
        self._need: int | None = None
        """The length of its data, of which ``partial`` is the beginning; ``None`` where there is no such frame."""
        self._have = 0
        """How many bytes of its data have come, skipped ones included."""
        self.ended_well = False
        self.error: RelpError | None = None
        """The rule that was broken, where that ended the session."""

    @property
    def ending(self) -> CloseReason | None:
        """See `Session`."""
        if self.ended_well:
            return CloseReason.EOF
        if self.error is not None:
            return CloseReason(self.closed or DiscardReason.PROTOCOL)
        return CloseReason.MEMORY if self.closed is DiscardReason.MEMORY else None

    @property
    def in_record(self) -> bool:
        """See `Framer`."""
        return super().in_record or self._need is not None

    @property
    def is_run_together(self) -> bool:
        """See `Framer`: a frame has a length."""
        return False

    def finish(self, now: float) -> list[Batch]:
        """Take the end of the stream: what is unfinished is not delivered, for it has no answer."""
        if self.closed is None:
            self.discard(DiscardReason.UNANSWERED)
        return []

    def evict(self, now: float) -> list[Batch]:
        """End the session, reason ``memory``: cutting the record would lose what the answer says is safe."""
        if self.closed is None:
            self.discard(DiscardReason.MEMORY)
        return []

    def settle(self, now: float) -> list[Batch]:
        """Wait on: what is no frame is named, however slowly it comes, and what is one is held for nothing."""
        return []

    def discard(self, reason: DiscardReason) -> None:
        """See `Framer`."""
        super().discard(reason)
        self._need = None

    def _feed(self, chunk: Chunk, now: float, batches: list[Batch]) -> None:
        position = 0
        if self._need is not None:
            data = bytes(chunk)
            position = self._take(data, 0, self._need, now, batches)
        elif len(self.partial) + len(chunk) < self._wake:
            self._extend(bytes(chunk))
            return
        else:
            self._wake = 0
            data = self._take_partial(chunk)
        while position < len(data) and self.closed is None:
            position = self._records(data, position, now, batches)
            if position < len(data):
                position = self._begin(data, position, now, batches)
        if self.closed is not None:
            self._discard(self.closed, len(data) - position)

    # Ordinary frames.

    def _records(self, data: bytes, position: int, now: float, batches: list[Batch]) -> int:
        """Take whole frames that hold a record each, up to anything else; give where that begins."""
        if not self._is_open:
            return position
        wire, count, end = self._records_in(data, position, self._expected, self._last_number, self.limit)
        if count:
            self._give(Batch(wire, count, self._info, now), end - position, batches)
            self._note_records(count)
        return self._odd_records(data, end, now, batches) if end < len(data) else end

    def _odd_records(self, data: bytes, position: int, now: float, batches: list[Batch]) -> int:
        """Do the same whatever the records hold."""
        match, limit, size, begin = _RECORD.match, self.limit, len(data), position
        expected = self._expected
        records: list[bytes] = []
        while expected < self._last_number:
            found = match(data, position)
            if found is None:
                break
            start, length = found.end(), int(found[2])
            end = start + length
            if end >= size or not 0 < length <= limit or data[end] != _LF or int(found[1]) != expected:
                break
            records.append(data[start:end])
            position = end + 1
            expected += 1
        if records:
            self._emit_records(list(map(payload, records)), position - begin, now, batches)
            self._note_records(len(records))
        return position

    def _note_records(self, count: int) -> None:
        self.crossed = True
        self._relp.relp_frames[RelpCommand.SYSLOG] += count
        self._reply(self._expected, count, OK)

    # Frames read piece by piece.

    def _begin(self, data: bytes, position: int, now: float, batches: list[Batch]) -> int:
        """Begin a frame; give where the data goes on behind what has come of it."""
        found = RELP_HEADER.match(data, position)
        if found is None:
            self.partial = data[position:]
            if not relp_is_undecided(self.partial):
                self._break(RelpError.HEADER)
            return len(data)
        length, end = int(found[3]), found.end()
        self._number, self._command = int(found[1]), _COMMANDS.get(found[2], RelpCommand.OTHER)
        error = self._judge(length, has_data=found[4] == b" ")
        if error is not None:
            self._relp.relp_frames[self._command] += 1
            self._discard(_reason(error), end - position)
            self._break(error)
            return end
        if self._command is RelpCommand.SYSLOG and 0 < length <= self.limit and len(data) <= end + length:
            # Looked at again once it is whole, with those that come with its end.
            self.partial, self._wake = data[position:], end + length + 1 - position
            return len(data)
        self._relp.relp_frames[self._command] += 1
        self._need, self._have = length, 0
        # Without data the LF behind the length is the frame's end already.
        self._ledger.bytes_framing += end - position - (not length)
        return self._take(data, end - (not length), length, now, batches)

    def _judge(self, length: int, *, has_data: bool) -> RelpError | None:
        """Say which rule a frame breaks by its header, if any."""
        if self._command is RelpCommand.OTHER:
            return RelpError.COMMAND
        if self._number != self._expected:
            return RelpError.NUMBER
        if not self._is_open and self._command is not RelpCommand.OPEN:
            return RelpError.NOT_OPEN
        if self._is_open and self._command is RelpCommand.OPEN:
            return RelpError.OPEN_TWICE
        if has_data != bool(length) or (length > RELP_OFFERS and self._command is not RelpCommand.SYSLOG):
            return RelpError.LENGTH
        return None

    def _take(self, data: bytes, position: int, need: int, now: float, batches: list[Batch]) -> int:
        """Take what has come of the frame in hand; give where the data goes on behind it."""
        end = min(len(data), position + need - self._have)
        most = self.limit + TRAILER if self._command is RelpCommand.SYSLOG else RELP_OFFERS
        kept = data[position : min(end, position + max(0, most - len(self.partial)))]
        if kept:
            self._extend(kept)
        # The rest of a record that is too long is skipped by count, whatever it holds.
        self._discard(DiscardReason.OVERSIZE, end - position - len(kept))
        self._have += end - position
        if end == len(data):
            return end  # its LF at least is missing
        if data[end] != _LF:
            self._break(RelpError.TRAILER)
            return end
        self._ledger.bytes_framing += 1
        self._end(self._take_partial(b""), need, now, batches)
        return end + 1

    def _end(self, held: bytes, need: int, now: float, batches: list[Batch]) -> None:
        """Do what a frame asks for that has come whole; ``held`` is what was kept of its ``need`` bytes of data."""
        self._need = None
        self.crossed = True
        if self._command is RelpCommand.SYSLOG:
            self._record(held, need, now, batches)
            return
        self._ledger.bytes_framing += len(held)
        if self._command is RelpCommand.OPEN:
            self._open(held)
        else:
            self._reply(self._number, 1, b"")
            self._end_well()

    def _record(self, held: bytes, need: int, now: float, batches: list[Batch]) -> None:
        record, limit = payload(held), self.limit
        if need > limit + TRAILER or len(record) > limit:
            self._cut(held, len(held), DiscardReason.OVERSIZE, now, batches)
        else:
            self._emit_records([record], need, now, batches)
        if self.closed is None:
            self._reply(self._number, 1, OK)
            if self._number == self._last_number:
                self._end_well()

    def _open(self, offers: bytes) -> None:
        """Answer the client's offers with ours."""
        found = accept(offers)
        if isinstance(found, RelpError):
            self._break(found)
        else:
            self._is_open = True
            self._reply(self._number, 1, found)

    # Answers, and the end.

    def _reply(self, number: int, frames: int, text: bytes) -> None:
        """Answer the next ``frames`` frames; joined with the reply before where that says the same."""
        self._expected = next_number(self._expected, frames)
        last = self.replies[-1] if self.replies else None
        if last is not None and last.text == text and last.number + last.frames == number:
            self.replies[-1] = last._replace(frames=last.frames + frames)
        else:
            self.replies.append(Reply(number, frames, text))

    def _break(self, error: RelpError) -> None:
        """End the session for a rule that was broken; some mistakes are answered first."""
        self._relp.relp_errors[error] += 1
        self.error = error
        if error in REFUSALS:
            self._reply(self._number, 1, REFUSALS[error])
        self.discard(_reason(error))

    def _end_well(self) -> None:
        self.ended_well = True
        self.discard(DiscardReason.UNANSWERED)


def _reason(error: RelpError) -> DiscardReason:
    return DiscardReason.FRAMING if error in _BROKEN_FRAME else DiscardReason.PROTOCOL
