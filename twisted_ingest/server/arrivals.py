"""
What arrives on a socket: brought to the connection as it comes, and of what is dear to frame a little at a time.

What was received and is yet to be brought waits here. It counts as unread, as if it were in the kernel still: nothing
newer is received before it is brought, and no end is noticed.
"""

import socket as sockets
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

from twisted.internet import error, main

from twisted_ingest.flow.slabs import Lease
from twisted_ingest.framing.scan import Chunk
from twisted_ingest.server.kernel import unread_bytes
from twisted_ingest.server.pace import FIRST_READ, TIMED_SIZE
from twisted_ingest.server.reading import PortReading
from twisted_ingest.server.whole import LONGEST_PARTIAL, ordinary

SETTLING = 8
"""Each small read lets an eighth be expected of what was: five in a row after a large one, and it is forgotten."""

_NOTHING = memoryview(b"")


class Arrivals:
    """
    Reading with what the connections of a port share, mixed into Twisted's transports.

    Twisted's own ``Connection.doRead`` has Python allocate the whole of a read in advance and give most of it back: for
    a line of 200 bytes that costs more than the line. What was read is copied out before the next read.
    """

    # Of the Twisted transport:
    protocol: Any
    socket: sockets.socket

    _reading: PortReading

    read_size = FIRST_READ
    """Bytes that are framed in Python next, and read where nothing is looked through; set by the `Pace` of the port."""

    cheap_reads = 0
    is_dear = False
    """Whether framing what comes is dear; set by it too."""

    last_read = 0
    """Bytes that the next read is expected to bring, of a connection that sends much; zero where one read is enough."""

    _backlog = _NOTHING
    """What is received and yet to be brought."""
    _let_go: Callable[[], None] | None = None
    """Whom to tell that it is here no more."""

    def unread_bytes(self) -> int:
        """Count the bytes that wait for us, in the kernel or here."""
        return unread_bytes(self.socket) + len(self._backlog)

    # Called by the port's `Readiness`, or by the reactor where there is none.

    def doRead(self) -> error.ConnectionDone | error.ConnectionLost | None:
        """Bring a piece of what was received; where nothing is left of it, read once, and hand that on."""
        if self._backlog:
            self._bring_piece()
            return None
        reading = self._reading
        view = reading.buffer
        try:
            size = self.socket.recv_into(view, self.read_size)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not size:
            return main.CONNECTION_DONE
        protocol = self.protocol
        if size == self.read_size:
            self.last_read = size  # there is more
        data = view[:size] if protocol.takes_views else bytes(view[:size])
        if self._is_small(size):
            protocol.dataReceived(data)
        else:
            self._bring_timed(data, size)
        return None

    def request(self, most: int) -> tuple[int, bytes | bytearray, int, int, int] | None:
        """
        Say what may be received for us, ``most`` bytes at most, and how it may be looked through.

        With ``most`` zero there is no room for more than we bring at once. ``None`` where we read for ourselves: a line
        now and then is read for less so. See ``_receive.c`` for the order.
        """
        protocol = self.protocol
        if not self.last_read or self._backlog or not getattr(protocol, "takes_records", False):
            return None
        framer = protocol.framer
        look, partial = framer.look, framer.partial
        if not look or len(partial) > LONGEST_PARTIAL:
            return None
        room = min(most, protocol.lane.read_size) if most and not self.is_dear else self.read_size
        return self.socket.fileno(), partial, room, framer.limit, look

    def bring(self, got: int, found: tuple[Chunk, int, int], rest: bytes, lease: Lease | None) -> None:
        """
        Bring what was received, ``got`` bytes: the ordinary records that were found, and the ``rest`` behind them.

        They are bytes, how many, and how many bytes of the stream they were; see
        `twisted_ingest.framing.base.Framer.take`.
        """
        self.expect(got)
        if got >= TIMED_SIZE:
            self._reading.note_bulk()
        if self._is_small(len(rest)):
            self.protocol.records_received(got, found, rest, lease)
            return
        if found[1]:
            begun = perf_counter()
            self.protocol.records_received(got - len(rest), found, b"", lease)
            if self.is_dear:
                self._reading.pace.adjust(self, got - len(rest), perf_counter() - begun)
        if rest:
            self.hold_back(rest, self.protocol)
            if self._reading.watches(self):
                self._bring_piece()

    def expect(self, got: int) -> None:
        """Take it from a read of ``got`` bytes what the next will bring: little only once several were little."""
        self.last_read = got if got >= min(TIMED_SIZE, self.read_size) else self.last_read // SETTLING

    def hold_back(self, data: bytes, protocol: Any) -> None:
        """Keep what was received for a protocol until it can be brought; it is counted where we are lost meanwhile."""
        if not hasattr(self, "socket"):
            protocol.leave_unread(len(data))
            return
        self._reading.hold_back(len(data))
        self.put_back(data, partial(self._reading.hold_back, -len(data)))
        self._reading.recall(self)

    def put_back(self, data: bytes, let_go: Callable[[], None]) -> None:
        """See `twisted_ingest.server.transports.IngestTransport`."""
        self._backlog = memoryview(data)
        self._let_go = let_go

    # What follows is ours.

    def _is_small(self, size: int) -> bool:
        """Whether so little cannot hold up a turn, of a connection that is not known to."""
        return size < TIMED_SIZE and size < self.read_size and not self.is_dear

    def _bring_piece(self) -> None:
        """Bring of what was received all that is ordinary, and as much behind it as may be framed at a time."""
        backlog, protocol = self._backlog, self.protocol
        easy = 0
        if getattr(protocol, "takes_records", False):
            framer = protocol.framer
            easy = ordinary(framer.partial, backlog, framer.limit, framer.look)
        # The reactor calls once only, for what the kernel does not show.
        end = easy + self.read_size if self._reading.readiness is not None else len(backlog)
        self._backlog = backlog[end:]
        if not self._backlog:
            self._forget_backlog()
        piece = backlog[:end]
        self._bring_timed(
            piece if protocol.takes_views else bytes(piece), min(self.read_size, len(backlog) - easy) or easy
        )
        if self._backlog:
            self._reading.recall(self)

    def _bring_timed(self, data: Chunk, size: int) -> None:
        """Bring a chunk, and set the pace by what it has cost: its ``size`` bytes that are not ordinary, if any."""
        reading = self._reading
        reading.note_bulk()
        begun = perf_counter()
        self.protocol.dataReceived(data)
        reading.pace.adjust(self, size, perf_counter() - begun)

    def _forget_backlog(self) -> None:
        self._backlog = _NOTHING
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()
