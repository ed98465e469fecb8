"""
The sink that sends records onward over RELP: the receiver answers each of them.

The protocol is librelp's; where its specification differs, that is what receivers do not speak.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from twisted_ingest import __version__
from twisted_ingest.batch import Batch
from twisted_ingest.config.fields import About, Count
from twisted_ingest.errors import Durability
from twisted_ingest.escaping import escape
from twisted_ingest.limits import KIB, PREVIEW, RELP_LAST_NUMBER
from twisted_ingest.rejected import REASON_LENGTH
from twisted_ingest.sinks.delivery.session import Answer, SessionError
from twisted_ingest.sinks.delivery.sink import StreamSettings, StreamSink
from twisted_ingest.sinks.registry import SinkContext, SinkType

WINDOW = 10_000
"""Records sent ahead of their answers. Some receivers put answers off for tens of milliseconds: with librelp's 128 that
would be three thousand records a second. As many may arrive twice after a lost connection."""

LONGEST_ANSWER = 64 * KIB
"""Bytes of the data of one answer. Real ones take about 100; bounds what is held of a peer that is no RELP server."""

OFFERS = b"relp_version=0\nrelp_software=twisted-ingest,%b,https://pypi.org/project/twisted-ingest\ncommands=syslog"

_OK = b" rsp 6 200 OK\n"
"""What an answer consists of, behind its number, nearly always."""

_HEADER = re.compile(rb"([0-9]{1,9}) ([a-zA-Z]{1,32}) ([0-9]{1,9})(?: |(?=\n))")
_LONGEST_HEADER = 9 + 1 + 32 + 1 + 9 + 1
_STATUS = re.compile(rb"[0-9]{3}(?![0-9])")
_VERSION = re.compile(rb"^relp_version=([0-9]{1,9})$", re.MULTILINE)
_COMMANDS = re.compile(rb"^commands=(.*)$", re.MULTILINE)


class RelpSession:
    """
    One session of a client; see `Session`.

    ``window`` is how many records may be unanswered. Once that many are, nothing is sent until half of them were
    answered: a few at a time would cost both sides a packet each.
    """

    is_answered = True

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self.is_open = False
        self.is_over = False
        self._next = 2
        """The number of the next frame."""
        self._oldest = 2
        """The number of the oldest record that is unanswered, or the next."""
        self._close: int | None = None
        """The number of our ``close``."""
        self._early: dict[int, str | None] = {}
        """Answers that came before those of older records, with why the record is refused, if it is."""
        self._held = b""
        self._is_full = False
        self._cut: tuple[Batch, list[bytes]] | None = None
        """A batch of which a part was sent, and its records."""

    # What is sent.

    def begin(self) -> bytes:
        """See `Session`."""
        offers = OFFERS % __version__.encode()
        return b"1 open %d %b\n" % (len(offers), offers)

    @property
    def is_spent(self) -> bool:
        """See `Session`: numbers have nine digits."""
        return self._next > RELP_LAST_NUMBER

    @property
    def room(self) -> int:
        """See `Session`."""
        ahead = self._next - self._oldest
        if not self.is_open or self.is_spent or (self._is_full and ahead > self._window // 2):
            return 0
        self._is_full = ahead >= self._window
        return max(0, self._window - ahead)

    def frame(self, batch: Batch, first: int, count: int) -> bytes:
        """See `Session`."""
        records = self._records(batch, first, count)
        parts: list[object] = [None] * (3 * count)
        parts[0::3] = range(self._next, self._next + count)
        parts[1::3] = map(len, records)
        parts[2::3] = records
        self._next += count
        return (b"%d syslog %d %b\n" * count) % tuple(parts)

    def _records(self, batch: Batch, first: int, count: int) -> Sequence[bytes]:
        if count == batch.count:
            return batch.records()
        cut, self._cut = self._cut, None
        records = cut[1] if cut is not None and cut[0] is batch else batch.records()
        if first + count < batch.count:
            self._cut = (batch, records)
        return records[first : first + count]

    def whole(self, batch: Batch, first: int, size: int) -> int:
        """See `Session`: a record is taken when that was answered, wherever its bytes are."""
        return 0

    def end(self) -> bytes:
        """See `Session`."""
        self._close = self._next
        self._next += 1
        return b"%d close 0\n" % self._close

    # What is answered.

    def received(self, data: bytes) -> Sequence[Answer]:
        """See `Session`."""
        if self._held:
            data, self._held = self._held + data, b""
        taken, end = self._take_ordinary(data)
        answers = [Answer(taken)] if taken else []
        if end < len(data):
            self._held = data[end:]
            answers += self._take_frames()
        return answers

    def _take_ordinary(self, data: bytes) -> tuple[int, int]:
        """Take what all ends in ``200 OK``, in order; gives how many records that answers, and where it ends."""
        end = data.rfind(b"\n") + 1
        number = data.count(_OK, 0, end)
        if not number or self._early or data.count(b"\n", 0, end) != number:
            return 0, 0
        first = data[: data.find(b" ")]
        last = data[data.rfind(b"\n", 0, end - 1) + 1 : end - len(_OK)]
        if first != b"%d" % self._oldest or last != b"%d" % (self._oldest + number - 1):
            return 0, 0
        if self._oldest + number > (self._close or self._next) or not self.is_open:
            return 0, 0
        self._oldest += number
        return number, end

    def _take_frames(self) -> list[Answer]:
        answers: list[Answer] = []
        while (frame := self._whole()) is not None:
            self._take(*frame)
        taken = 0
        while self._oldest in self._early:
            refused = self._early.pop(self._oldest)
            self._oldest += 1
            if refused is None:
                taken += 1
            else:
                answers.append(Answer(taken, refused))
                taken = 0
        return [*answers, Answer(taken)] if taken else answers

    def _whole(self) -> tuple[int, bytes, bytes] | None:
        """Cut off the first frame, if it is there."""
        held = self._held
        header = _HEADER.match(held)
        if header is None:
            if b"\n" in held or len(held) > _LONGEST_HEADER:
                raise SessionError(f"it speaks no RELP: {_shown(held)}")
            return None
        length = int(header[3])
        if length > LONGEST_ANSWER:
            raise SessionError(f"it sends an answer of {length} bytes")
        end = header.end() + length
        if len(held) <= end:
            return None
        if held[end : end + 1] != b"\n":
            raise SessionError(f"an answer of it is longer than it says: {_shown(held)}")
        self._held = held[end + 1 :]
        return int(header[1]), header[2], held[header.end() : end]

    def _take(self, number: int, command: bytes, text: bytes) -> None:
        if command == b"serverclose":
            self.is_over = True
        elif number == 0:
            return  # a hint we do not know
        elif command != b"rsp":
            raise SessionError(f"it sends {_shown(command)}, where only answers may come")
        elif number == 1 and not self.is_open:
            self._open(text)
        elif number == self._close:
            self.is_over = True
        elif not self._oldest <= number < self._next or number in self._early:
            raise SessionError(f"it answers number {number}, which was not asked")
        else:
            self._early[number] = _refusal(text)

    def _open(self, text: bytes) -> None:
        if not text.startswith(b"200"):
            raise SessionError(f"it refuses the session: {_shown(text)}")
        version, commands = _VERSION.search(text), _COMMANDS.search(text)
        if version is not None and int(version[1]) > 0:
            raise SessionError(f"it answers with version {int(version[1])} of RELP, where 0 was offered")
        if commands is not None and b"syslog" not in commands[1].strip().split(b","):
            raise SessionError(f"it takes no records: it offers {_shown(commands[1])}")
        self.is_open = True


def _refusal(text: bytes) -> str | None:
    """Say why a record is refused, or that it is not."""
    if not _STATUS.match(text):
        raise SessionError(f"it answers with no status: {_shown(text)}")
    return None if text.startswith(b"200") else _shown(text, REASON_LENGTH)


def _shown(text: bytes, most: int = PREVIEW) -> str:
    return escape(text[:most].decode("utf-8", "replace"))


class RelpSettings(StreamSettings):
    """``[sinks.NAME]`` with ``type = "relp"``."""

    type: Literal["relp"]
    window: Annotated[Count, About("N", "records sent ahead of their answers: as many may arrive twice")] = WINDOW


def make_relp(name: str, table: RelpSettings, context: SinkContext) -> StreamSink:
    """Make the sink."""
    return StreamSink(name, table, context, lambda: RelpSession(table.window), durability=Durability.DELIVERED)


KINDS = (
    SinkType(
        table=RelpSettings,
        make=make_relp,
        durability=Durability.DELIVERED,
        summary="sent onward over RELP, each record answered",
        page="docs/sinks.md",
        address="address",
    ),
)
