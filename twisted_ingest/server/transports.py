"""
Connections as we want them: reading through a shared buffer, counting what is unread, noticing who has hung up.
"""

import contextlib
import fcntl
import select
import socket as sockets
import struct
import termios
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Protocol

from twisted.internet import error, main, tcp, unix
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure

from twisted_ingest.server.pace import FIRST_READ, TIMED_SIZE
from twisted_ingest.server.reading import PortReading


class IngestTransport(Protocol):
    """What the protocol needs of a transport: a TCP or UNIX one, or `twisted_ingest.testing.PumpTransport`."""

    protocol: Any
    """Whom it brings bytes to; a doorway hands it on."""
    connected: Any
    disconnecting: Any
    unread_at_close: int
    """Bytes that waited in the kernel when the connection was lost."""
    endings: int
    """How often it was told to end, in good order or not."""

    def getHost(self) -> Any:
        """Give the address that was connected to."""

    def unread_bytes(self) -> int:
        """Count the bytes that wait for us to read: in the kernel, and those that were put back."""

    def put_back(self, data: bytes, let_go: Callable[[], None]) -> None:
        """
        Have bytes brought once more, before anything newer and before an end, once reading goes on: it is paused now.

        ``let_go`` is called once, when they are brought or the connection is lost.
        """

    def notice_end(self) -> None:
        """Lose the connection whose peer has hung up, of which nothing is left to read."""

    def write(self, data: bytes) -> None:
        """Send, after everything written before; never blocks."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause this producer while more is written than is being sent."""

    def unregisterProducer(self) -> None:
        """Pause nobody any more. Harmless where nobody is registered."""

    def pauseProducing(self) -> None:
        """Stop reading."""

    def resumeProducing(self) -> None:
        """Go on reading."""

    def loseConnection(self) -> None:
        """Close in good order."""

    def loseWriteConnection(self) -> None:
        """Send FIN and go on reading."""

    def abortConnection(self) -> None:
        """Reset."""


_HUNG_UP = select.POLLRDHUP | select.POLLHUP | select.POLLERR


def hung_up(transports: Sequence[Any]) -> frozenset[Any]:
    """Ask the kernel, in one call for all, which of our sockets have lost their peer (FIN or RST), read or not."""
    poll, by_number = select.poll(), {}
    for transport in transports:
        number = transport.fileno()
        if number >= 0:
            by_number[number] = transport
            poll.register(number, select.POLLRDHUP)
    return frozenset(by_number[number] for number, events in poll.poll(0) if events & _HUNG_UP)


def unread_bytes(handle: sockets.socket) -> int:
    """Ask the kernel (``SIOCINQ``) how many bytes of a socket we have not read; 0 when it is closed."""
    try:
        answer = fcntl.ioctl(handle.fileno(), termios.FIONREAD, b"\0\0\0\0")
    except (OSError, ValueError):
        return 0
    count: int = struct.unpack("i", answer)[0]
    return count


class _Reading:
    """
    Reading with what the connections of a port share, mixed into Twisted's transports.

    Twisted's own `Connection.doRead` has Python allocate the whole of a read in advance and give most of it back: for
    a line of 200 bytes that costs more than the line. What was read is copied out before the next read. ``peer`` is
    its address as the socket gives it. No listening port is needed: a descriptor that was handed over will do.
    """

    # Of the Twisted transport:
    protocol: Any
    socket: sockets.socket
    reactor: Any
    connected: Any
    dataBuffer: bytes
    _tempDataBuffer: list[bytes]
    _writeDisconnected: bool

    read_size = FIRST_READ
    """Bytes of the next read; set by the `Pace` of the port."""

    cheap_reads = 0
    is_dear = False
    """Whether framing what comes is dear; set by it too."""
    unread_at_close = 0

    endings = 0

    _returned: tuple[bytes, Callable[[], None]] | None = None
    """What was put back, and whom to tell that it is here no more."""
    _bringing: Any = None
    """The call that will bring it, where the reactor itself watches us."""

    def __init__(self, accepted: sockets.socket, protocol: Any, peer: Any, reading: PortReading, reactor: Any) -> None:
        self._reading = reading
        super().__init__(accepted, protocol, peer, None, 0, reactor)  # type: ignore[call-arg]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.protocol!r}>"

    def put_back(self, data: bytes, let_go: Callable[[], None]) -> None:
        """See `IngestTransport`."""
        self._returned = data, let_go

    def _take_returned(self) -> bytes:
        """Give what was put back, which is then ours no more."""
        if self._returned is None:
            return b""
        (data, let_go), self._returned = self._returned, None
        let_go()
        return data

    def doRead(self) -> error.ConnectionDone | error.ConnectionLost | None:
        """Read once, and hand it on."""
        if self._returned is not None:
            self.protocol.dataReceived(self._take_returned())
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
        data = view[:size] if protocol.takes_views else bytes(view[:size])
        if size < TIMED_SIZE and size < self.read_size and not self.is_dear:
            protocol.dataReceived(data)
            return None
        if reading.readiness is not None:
            reading.readiness.is_bulk = True
        begun = perf_counter()
        protocol.dataReceived(data)
        reading.pace.adjust(self, size, perf_counter() - begun)
        return None

    def startReading(self) -> None:
        """Have the port's `Readiness` watch us, where there is one."""
        readiness = self._reading.readiness
        if readiness is not None:
            readiness.add(self)
            if self._returned is not None:
                readiness.recall(self)
        else:
            super().startReading()  # type: ignore[misc]
            if self._returned is not None:
                self._bringing = self.reactor.callLater(0, self._bring_returned)

    def _bring_returned(self) -> None:
        self._bringing = None
        if self._returned is not None:
            self.doRead()

    def stopReading(self) -> None:
        """Be watched no longer."""
        if self._reading.readiness is not None:
            self._reading.readiness.remove(self)
        else:
            super().stopReading()  # type: ignore[misc]
            if self._bringing is not None:
                self._bringing.cancel()
                self._bringing = None

    def connectionLost(self, reason: Failure) -> None:
        """Leave the pace and who watches us; else as Twisted does. Whatever raises, the socket is closed, once."""
        if not hasattr(self, "socket"):
            return
        protocol, socket = self.protocol, self.socket
        self._reading.pace.forget(self)
        self.unread_at_close = self.unread_bytes()
        self._take_returned()
        try:
            super().connectionLost(reason)  # type: ignore[misc]
        except Exception:  # noqa: BLE001 - nobody else would take the connection out of the registry
            protocol.end_badly()
        finally:
            socket.close()
            if self._reading.readiness is not None:
                self._reading.readiness.leave(self)

    def write(self, data: bytes) -> None:
        """
        See `IngestTransport`: at once what the kernel takes, where nothing waits to be sent.

        Twisted has the reactor watch the socket first, which costs a turn of it and three system calls an answer.
        """
        if data and self.connected and not (self.dataBuffer or self._tempDataBuffer or self._writeDisconnected):
            # It may be full; or broken, which the reactor will find when it tries, and see to.
            with contextlib.suppress(OSError):
                data = data[self.socket.send(data) :]
        if data:
            super().write(data)  # type: ignore[misc]

    def loseWriteConnection(self) -> None:
        """
        Send FIN: at once where nothing waits to be written.

        Twisted has the reactor watch the socket first, which closes one whose peer has reset it, its bytes unread.
        """
        if self.dataBuffer or self._tempDataBuffer:
            super().loseWriteConnection()  # type: ignore[misc]
            return
        with contextlib.suppress(OSError):  # the peer has reset it: what came before can be read all the same
            self.socket.shutdown(sockets.SHUT_WR)

    def loseConnection(self) -> None:
        """See `IngestTransport`."""
        self.endings += 1
        super().loseConnection()  # type: ignore[misc]

    def abortConnection(self) -> None:
        """See `IngestTransport`."""
        self.endings += 1
        super().abortConnection()  # type: ignore[misc]

    def unread_bytes(self) -> int:
        """See `IngestTransport`."""
        return unread_bytes(self.socket) + (0 if self._returned is None else len(self._returned[0]))

    def notice_end(self) -> None:
        """See `IngestTransport`; what the reactor would do, did it watch this socket."""
        reason = self.doRead()
        if reason is not None:
            self.connectionLost(Failure(reason))


class TCPTransport(_Reading, tcp.Server):  # type: ignore[misc]
    """An accepted TCP connection."""


class UNIXTransport(_Reading, unix.Server):  # type: ignore[misc]
    """An accepted UNIX connection."""


def address_text(address: IAddress) -> tuple[str, str | None]:
    """Write a peer's address, and the host that per-peer limits count by (``None`` for UNIX sockets)."""
    host = getattr(address, "host", None)
    if host is None:
        name = getattr(address, "name", None)
        return f"unix:{name.decode('utf-8', 'replace') if name else 'anonymous'}", None
    port: int = address.port  # type: ignore[attr-defined]
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), str(host)
