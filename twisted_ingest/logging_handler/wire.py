"""
What travels: lines, which nobody answers, or RELP, which answers each record. Bytes in, bytes and counts out.

A wire lives as long as its handler; `begin` forgets the connection before. All its methods are called by one thread.
"""

import re
from collections import deque
from collections.abc import Sequence
from typing import Protocol

RELP_WINDOW = 1024
"""Records of one session sent ahead of their answers. Eight times librelp's, so that a server that flushes to disk
before it answers is kept busy; at most that many arrive twice after a broken connection."""

RELP_LAST_NUMBER = 900_000_000
"""Frames after which a session is begun anew: numbers have nine digits at most."""

RELP_MAX_ANSWER = 64 * 1024
"""Bytes of the data of one answer. Real ones take about 100; bounds what is held of a peer that is no RELP server."""

_ENDS = str.maketrans({"\n": "\\n", "\r": "\\r", "\0": "\\0"})
_FRAME = re.compile(rb"([0-9]{1,9}) ([a-zA-Z]{1,32}) ([0-9]{1,9})(?: |(?=\n))")
_LONGEST_HEADER = 9 + 1 + 32 + 1 + 9 + 1
_OFFERS = b"relp_version=0\nrelp_software=twisted-ingest,1,logging_handler\ncommands=syslog"


class WireError(Exception):
    """The peer does not speak our protocol, or ends the session: connect again."""


class Wire(Protocol):
    """What a connection speaks."""

    def encode(self, text: str) -> bytes:
        """Make a record of a text. The one method that any thread may call."""

    def begin(self) -> bytes:
        """Start on a new connection: gives what is sent first."""

    @property
    def ahead(self) -> int:
        """How many records are with the peer, or on their way, and not settled."""

    @property
    def room(self) -> int:
        """How many records more may be sent now."""

    @property
    def is_owed(self) -> bool:
        """Whether the peer owes an answer."""

    def frame(self, records: Sequence[bytes]) -> bytes:
        """Give the bytes of records that follow those that are ahead."""

    def sent(self, size: int) -> int:
        """Note that the kernel took ``size`` bytes; gives how many records are settled by that."""

    def received(self, data: bytes) -> int:
        """Take what the peer sent; gives how many records are settled by that. Raises `WireError`."""

    def end(self) -> bytes:
        """Give what ends a connection in good order."""


class Lines:
    """A record is a line, settled when the kernel has taken it: nothing tells what became of it."""

    room = 1_000_000
    is_owed = False

    def __init__(self) -> None:
        self._ends: deque[int] = deque()
        """How many bytes are left to send of each record, beyond the one before it."""

    def encode(self, text: str) -> bytes:
        """See `Wire`: LF is two characters, as the server's files have it; so are CR and NUL, which may end lines."""
        return text.translate(_ENDS).encode("utf-8", "backslashreplace")

    def begin(self) -> bytes:
        """See `Wire`: a record of which a part was sent is sent again, whole."""
        self._ends.clear()
        return b""

    @property
    def ahead(self) -> int:
        """See `Wire`."""
        return len(self._ends)

    def frame(self, records: Sequence[bytes]) -> bytes:
        """See `Wire`."""
        self._ends.extend(len(record) + 1 for record in records)
        return b"".join([record + b"\n" for record in records])

    def sent(self, size: int) -> int:
        """See `Wire`."""
        settled = 0
        while self._ends and self._ends[0] <= size:
            size -= self._ends.popleft()
            settled += 1
        if size:
            self._ends[0] -= size
        return settled

    def received(self, data: bytes) -> int:
        """See `Wire`: a receiver of lines has nothing to say."""
        return 0

    def end(self) -> bytes:
        """See `Wire`."""
        return b""


class Relp:
    """
    A record is a frame, settled when its answer has come: in the order of the records, whatever that of the answers.

    ``refused`` counts the records that the peer answered with anything but 200; they are not sent again, since
    they would be refused for ever.
    """

    def __init__(self) -> None:
        self.refused = 0
        self.begin()

    def encode(self, text: str) -> bytes:
        """See `Wire`: a counted record may hold anything."""
        return text.encode("utf-8", "backslashreplace")

    def begin(self) -> bytes:
        """See `Wire`: all that is unanswered is sent again."""
        self._held = b""
        self._is_open = False
        self._next = 2
        self._oldest = 2
        self._early: set[int] = set()
        return b"1 open %d %b\n" % (len(_OFFERS), _OFFERS)

    @property
    def ahead(self) -> int:
        """See `Wire`."""
        return self._next - self._oldest

    @property
    def room(self) -> int:
        """See `Wire`."""
        if self._next > RELP_LAST_NUMBER and not self.ahead:
            raise WireError("a session's numbers are used up")
        return RELP_WINDOW - self.ahead if self._is_open and self._next <= RELP_LAST_NUMBER else 0

    @property
    def is_owed(self) -> bool:
        """See `Wire`."""
        return not self._is_open or self.ahead > 0

    def frame(self, records: Sequence[bytes]) -> bytes:
        """See `Wire`."""
        first, self._next = self._next, self._next + len(records)
        return b"".join([self._frame(number, record) for number, record in enumerate(records, first)])

    def _frame(self, number: int, record: bytes) -> bytes:
        # Where there is no data there is no blank before it.
        return b"%d syslog %d %b\n" % (number, len(record), record) if record else b"%d syslog 0\n" % number

    def sent(self, size: int) -> int:
        """See `Wire`."""
        return 0

    def received(self, data: bytes) -> int:
        """See `Wire`."""
        self._held += data
        settled = 0
        while (frame := self._whole()) is not None:
            settled += self._take(*frame)
        return settled

    def _whole(self) -> tuple[int, bytes, bytes] | None:
        """Cut off the first frame, if it is there."""
        found = _FRAME.match(self._held)
        if found is None:
            if b"\n" in self._held or len(self._held) > _LONGEST_HEADER:
                raise WireError(f"this is no RELP: {self._held[:64]!r}")
            return None
        length = int(found[3])
        if length > RELP_MAX_ANSWER:
            raise WireError(f"an answer of {length} bytes")
        start = found.end()
        if len(self._held) <= start + length:
            return None
        text, self._held = self._held[start : start + length], self._held[start + length + 1 :]
        return int(found[1]), found[2], text

    def _take(self, number: int, command: bytes, text: bytes) -> int:
        if command == b"serverclose":
            raise WireError("the server ends the session")
        if command != b"rsp":
            raise WireError(f"the server sent {command!r}")
        if number == 1 and not self._is_open:
            if not text.startswith(b"200"):
                raise WireError(f"the server refuses the session: {text[:64]!r}")
            self._is_open = True
        elif self._oldest <= number < self._next:
            self.refused += not text.startswith(b"200")
            self._early.add(number)
        return self._settle()

    def _settle(self) -> int:
        before = self._oldest
        while self._oldest in self._early:
            self._early.remove(self._oldest)
            self._oldest += 1
        return self._oldest - before

    def end(self) -> bytes:
        """See `Wire`."""
        return b"%d close 0\n" % self._next
