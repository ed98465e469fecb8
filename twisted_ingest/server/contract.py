"""
What `LineReceiver` promises those who subclass it, kept by a protocol that frames many lines at a time.

What can be kept is kept; what cannot raises, and says what to do instead.
"""

from collections import deque
from collections.abc import Callable
from inspect import getattr_static, iscoroutine
from typing import Any, NoReturn

from twisted.protocols.basic import LineReceiver

from twisted_ingest.batch import LF, NUL, Batch, ConnectionInfo
from twisted_ingest.flow.lane import Lane
from twisted_ingest.framing.base import Framer
from twisted_ingest.server.connection import Connection, ConnectionOwner

CRLF = b"\r\n"


def _check_delimiter(owner: type, value: object) -> None:
    if value in (LF, NUL):
        return
    place = f"{owner.__name__}.delimiter"
    if value == CRLF:
        raise ValueError(
            f"{place} is {CRLF!r}, which would leave a lone LF inside a line: set {LF!r}, which ends lines at LF and "
            f"at CRLF, and to answer with CRLF write it yourself (self.transport.write(line + {CRLF!r}))"
        )
    raise ValueError(
        f"{place} is {value!r}: lines end with {LF!r} (a CR before it is not theirs) or {NUL!r}; "
        "leave it out to have the framing that the listener is set to"
    )


def _check_max_length(owner: type, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{owner.__name__}.MAX_LENGTH is {value!r}: it must be a number of bytes, 1 or more")


class _Declared:
    """
    What a class may declare, and each of its connections set until its first byte.

    Read from a class it is what that class declares: ``None`` where it leaves it to the listener.
    """

    def __init__(self, name: str, check: Callable[[type, object], None], value: Any = None) -> None:
        self.name = name
        self.check = check
        self.value = value

    def __get__(self, connection: "LineContract | None", owner: type) -> Any:
        return self.value if connection is None else connection.framed_by(self.name)

    def __set__(self, connection: "LineContract", value: Any) -> None:
        owner = type(connection)
        self.check(owner, value)
        if not hasattr(connection, "framer"):
            raise RuntimeError(f"{owner.__name__}.{self.name} was set too early: call super().__init__ first")
        if value == connection.framed_by(self.name):
            return
        if connection.bytes_received:
            raise RuntimeError(
                f"{owner.__name__}.{self.name} was set after the first bytes had come, which are framed already: "
                "set it in the class, or in connectionMade"
            )
        connection.frame_by(self.name, value)


class _OwedLines:
    """The lines of batches, one by one; their bytes stay as they came until each is taken."""

    __slots__ = ("_blocks", "_position", "count")

    def __init__(self) -> None:
        self.count = 0
        self._blocks: deque[tuple[bytes, bytes | None]] = deque()
        """The bytes of each batch and what ends its lines; ``None`` for a single one, which may hold its delimiter."""
        self._position = 0
        """Where in the first block the next line begins."""

    def add(self, batch: Batch) -> None:
        """Owe the lines of one more batch."""
        self._blocks.append((bytes(batch.wire), None if batch.count == 1 else batch.delimiter))
        self.count += batch.count

    def take(self) -> bytes:
        """Give the next line; there must be one."""
        (block, delimiter), begin = self._blocks[0], self._position
        end = len(block) - 1 if delimiter is None else block.index(delimiter, begin)
        self.count -= 1
        self._position = end + 1
        if self._position == len(block):
            self._blocks.popleft()
            self._position = 0
        return block[begin:end]

    def clear(self) -> None:
        """Owe nothing."""
        self._blocks.clear()
        self.count = self._position = 0


class LineContract(Connection, LineReceiver):
    """
    The part of a connection that its subclasses see as a `LineReceiver`.

    A subclass that overrides ``lineReceived`` is given each line once and in order, after the batch it came in was
    written to the lane: none while the protocol is paused, by itself or by the lane, none from inside another call, and
    none once it has ended the connection. What it has not been given when the connection is lost for any other reason
    it is given then, paused or not. Lines are records: they hold no delimiter, no CR before an LF, and are never empty.
    """

    _owed: _OwedLines = _OwedLines()
    """Lines that a subclass has yet to be given; where it wants none, nobody adds to what all share."""

    delimiter: bytes = _Declared("delimiter", _check_delimiter)  # type: ignore[assignment]
    MAX_LENGTH: int = _Declared("MAX_LENGTH", _check_max_length)  # type: ignore[assignment]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.declare()

    @classmethod
    def declare(cls) -> None:
        """Take what the class sets as ``delimiter`` and ``MAX_LENGTH``; raises ``ValueError`` for what cannot hold."""
        for name in ("delimiter", "MAX_LENGTH"):
            value = getattr_static(cls, name)
            if not isinstance(value, _Declared):
                ours: _Declared = vars(LineContract)[name]
                ours.check(cls, value)
                setattr(cls, name, _Declared(name, ours.check, value))

    def __init__(self, info: ConnectionInfo, owner: ConnectionOwner, framer: Framer, lane: Lane) -> None:
        super().__init__(info, owner, framer, lane)
        self._is_giving = False
        self._is_followed = type(self).lineReceived is not LineReceiver.lineReceived
        if self._is_followed:
            self._owed = _OwedLines()

    def framed_by(self, name: str) -> Any:
        """Give the ``delimiter`` or ``MAX_LENGTH`` that holds for this connection."""
        raise NotImplementedError

    def frame_by(self, name: str, value: Any) -> None:
        """Let another ``delimiter`` or ``MAX_LENGTH`` hold; called before the first byte."""
        raise NotImplementedError

    # What cannot be kept.

    def setRawMode(self) -> NoReturn:
        """Refuse: bytes outside the framing could not be accounted for."""
        _refuse("setRawMode")

    def setLineMode(self, extra: bytes = b"") -> NoReturn:
        """Refuse: there is no raw mode to come back from."""
        _refuse("setLineMode")

    def rawDataReceived(self, data: bytes) -> NoReturn:
        """Refuse: see ``setRawMode``."""
        _refuse("rawDataReceived")

    def clearLineBuffer(self) -> NoReturn:
        """Refuse: what was read is accounted for, and on its way to the sinks."""
        raise NotImplementedError(
            "IngestProtocol.clearLineBuffer: what was read is accounted for and on its way to the sinks; "
            "to be given no further line end the connection, or return early from lineReceived"
        )

    # What is.

    def _owe(self, batches: list[Batch]) -> None:
        for batch in batches:
            self._owed.add(batch)

    def _give(self, *, is_last: bool = False) -> None:
        """Call ``lineReceived`` for what is owed, as long as it may be; with ``is_last`` in spite of a pause."""
        if self._is_giving:
            return
        self._is_giving = True
        owed = self._owed
        try:
            while owed.count and (is_last or not self.paused) and not self.has_left:
                outcome = self.lineReceived(owed.take())
                if outcome is not None:
                    _refuse_outcome(outcome)
        finally:
            self._is_giving = False

    def _forget_owed(self) -> None:
        self._owed.clear()

    def _keeps_its_end(self) -> bool:
        # Twisted leaves a connection that pauses itself deaf: its end comes after the lines it has yet to be given.
        return self._is_followed and self._holds_itself and bool(self._owed.count or self.framer.partial)


def _refuse(name: str) -> NoReturn:
    raise NotImplementedError(
        f"IngestProtocol.{name}: there is no raw mode, every byte belongs to a record; for records of any content set "
        "the listener's framing to octet-counted or nul"
    )


def _refuse_outcome(outcome: object) -> NoReturn:
    """Say that what ``lineReceived`` returned would be lost; a coroutine would never run."""
    if iscoroutine(outcome):
        outcome.close()
        raise TypeError("lineReceived is a coroutine: make it a plain method that calls Deferred.fromCoroutine")
    raise TypeError(
        f"lineReceived returned {outcome!r}: return nothing (to end the connection: self.transport.loseConnection(); "
        "to have no further line until a Deferred fires: self.pauseProducing(), and self.resumeProducing() then)"
    )
