"""
Connections as we want them: watched together, counted when they are lost, ended as their peers need it.
"""

import contextlib
import socket as sockets
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure

from twisted_ingest.server.arrivals import Arrivals
from twisted_ingest.server.reading import PortReading


class IngestTransport(Protocol):
    """What the protocol needs of a transport: a TCP or UNIX one, or `twisted_ingest.testing.PumpTransport`."""

    protocol: Any
    """Whom it brings bytes to; a doorway hands it on."""
    connected: Any
    disconnecting: Any
    unread_at_close: int
    """Bytes that waited for us when the connection was lost."""
    endings: int
    """How often it was told to end, in good order or not."""

    def getHost(self) -> Any:
        """Give the address that was connected to."""

    def unread_bytes(self) -> int:
        """Count the bytes that wait for us: in the kernel, or received (or put back) and yet to be brought."""

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


class _Reading(Arrivals):
    """
    What we do otherwise than Twisted's transports, mixed into them.

    ``peer`` is its address as the socket gives it. No listening port is needed: a descriptor that was handed over will
    do.
    """

    # Of the Twisted transport:
    reactor: Any
    connected: Any
    dataBuffer: bytes
    _tempDataBuffer: list[bytes]
    _writeDisconnected: bool

    unread_at_close = 0

    endings = 0

    _bringing: Any = None
    """The call that will bring what was put back, where the reactor itself watches us."""

    def __init__(self, accepted: sockets.socket, protocol: Any, peer: Any, reading: PortReading, reactor: Any) -> None:
        self._reading = reading
        super().__init__(accepted, protocol, peer, None, 0, reactor)  # type: ignore[call-arg]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.protocol!r}>"

    def startReading(self) -> None:
        """Have the port's `Readiness` watch us, where there is one."""
        if self._reading.readiness is not None:
            self._reading.readiness.add(self)
            if self._backlog:
                self._reading.recall(self)
        else:
            super().startReading()  # type: ignore[misc]
            if self._backlog:
                self._bringing = self.reactor.callLater(0, self._bring_returned)

    def _bring_returned(self) -> None:
        self._bringing = None
        if self._backlog:
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
        self._forget_backlog()
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
