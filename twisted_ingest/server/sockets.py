"""
Sockets as we want them: options on the listening socket, accepting with a gate, counting what is unread.

Accepted sockets inherit the options of the listening one (Linux; checked by a test on a real pair).
"""

import errno
import fcntl
import select
import socket as sockets
import struct
import termios
from collections.abc import Sequence
from time import perf_counter
from typing import Any, Protocol

from twisted.internet import error, main, tcp, unix
from twisted.internet.interfaces import IAddress, IReactorFDSet
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure

from twisted_ingest.limits import (
    ACCEPTS_PER_TURN,
    BACKLOG,
    KEEPALIVE_COUNT,
    KEEPALIVE_IDLE,
    KEEPALIVE_INTERVAL,
    READ_SIZE,
    USER_TIMEOUT_MS,
)
from twisted_ingest.observe.events import Events
from twisted_ingest.server.admission import Admission
from twisted_ingest.server.pace import JUDGED_SIZE, Pace
from twisted_ingest.server.readiness import HAS_EPOLL, Readiness

ACCEPT_BACKOFF_SECONDS = (0.1, 5.0)
"""First and longest wait after the kernel could not give us a connection; doubled each time."""

_RESET = struct.pack("ii", 1, 0)
"""``SO_LINGER`` on, zero seconds: closing sends RST."""

# Out of descriptors or kernel memory: the socket stays readable, so without a wait the reactor would spin.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# Of the one connection only: the peer is gone already, or a packet filter said no.
_NEXT = frozenset({errno.ECONNABORTED, errno.EPERM, errno.EINTR, errno.EPROTO})


class IngestTransport(Protocol):
    """What the protocol needs of a transport: a TCP or UNIX one, or `twisted_ingest.testing.PumpTransport`."""

    disconnecting: Any

    def unread_bytes(self) -> int:
        """Count the bytes that wait in the kernel for us to read."""

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
    Reading through a buffer that the connections of a port share, mixed into Twisted's transports.

    Twisted's own `Connection.doRead` has Python allocate the whole of a read in advance and give most of it back: for
    a line of 200 bytes that costs more than the line. Nobody sees the buffer: what was read is copied out at once.
    """

    # Of the Twisted transport:
    protocol: Any
    server: "_GatedPort"
    socket: sockets.socket

    read_size = READ_SIZE
    """Bytes of the next read; set by the `Pace` of the port."""

    def doRead(self) -> error.ConnectionDone | error.ConnectionLost | None:
        """Read once, and hand it on."""
        view = self.server.read_buffer
        is_dear = self.read_size != READ_SIZE
        if is_dear:
            view = view[: self.read_size]
        try:
            size = self.socket.recv_into(view)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not size:
            return main.CONNECTION_DONE
        if size < JUDGED_SIZE and not is_dear:
            self.protocol.dataReceived(bytes(view[:size]))
            return None
        begun = perf_counter()
        self.protocol.dataReceived(bytes(view[:size]))
        self.server.pace.judge(self, size, perf_counter() - begun)
        return None

    def startReading(self) -> None:
        """Have the port's `Readiness` watch us, where there is one."""
        if self.server.readiness is not None:
            self.server.readiness.add(self)
        else:
            super().startReading()  # type: ignore[misc]

    def stopReading(self) -> None:
        """Be watched no longer."""
        if self.server.readiness is not None:
            self.server.readiness.remove(self)
        else:
            super().stopReading()  # type: ignore[misc]

    def connectionLost(self, reason: Failure) -> None:
        """Leave the pace, then as Twisted does."""
        self.server.pace.forget(self)
        protocol = self.protocol
        try:
            super().connectionLost(reason)  # type: ignore[misc]
        except Exception:  # noqa: BLE001 - nobody else would take the connection out of the registry
            protocol.end_badly()

    def unread_bytes(self) -> int:
        """See `IngestTransport`."""
        return unread_bytes(self.socket)

    def notice_end(self) -> None:
        """See `IngestTransport`; what the reactor would do, did it watch this socket."""
        reason = self.doRead()
        if reason is not None:
            self.connectionLost(Failure(reason))


class TCPTransport(_Reading, tcp.Server):  # type: ignore[misc]
    """An accepted TCP connection."""


class UNIXTransport(_Reading, unix.Server):  # type: ignore[misc]
    """An accepted UNIX connection."""


def set_options(listening: sockets.socket, receive_buffer: int | None) -> None:
    """Set on a listening TCP socket what every accepted one shall have."""
    options = [
        (sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1),
        (sockets.IPPROTO_TCP, sockets.TCP_KEEPIDLE, KEEPALIVE_IDLE),
        (sockets.IPPROTO_TCP, sockets.TCP_KEEPINTVL, KEEPALIVE_INTERVAL),
        (sockets.IPPROTO_TCP, sockets.TCP_KEEPCNT, KEEPALIVE_COUNT),
        (sockets.IPPROTO_TCP, sockets.TCP_USER_TIMEOUT, USER_TIMEOUT_MS),
        (sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1),
    ]
    if receive_buffer is not None:
        # Before listen(): the window scale is fixed in the handshake.
        options.append((sockets.SOL_SOCKET, sockets.SO_RCVBUF, receive_buffer))
    for level, option, value in options:
        listening.setsockopt(level, option, value)


class _GatedPort:
    """
    Accepting that stops at the cap and backs off, mixed into Twisted's ports.

    Twisted's own `Port.doRead` accepts past any cap, resets clients at ``EMFILE`` and spins at ``ENFILE``.
    """

    admission: Admission
    events: Events
    receive_buffer: int | None
    read_buffer: memoryview
    """What the connections read into, one after the other."""
    pace: Pace
    readiness: Readiness | None
    """Who reads from the connections; ``None`` where that is the reactor itself."""
    # Of the Twisted port:
    factory: ServerFactory
    reactor: Any
    socket: sockets.socket
    transport: Any
    sessionno: int

    _backoff = 0.0
    _backoff_call: Any = None

    def doRead(self) -> None:
        """Accept what waits, as far as there is room, a bounded number per turn."""
        self.accept_some(ACCEPTS_PER_TURN)

    def accept_some(self, most: int) -> bool:
        """Accept at most ``most`` connections; true when the accept queue is empty."""
        for _ in range(most):
            if not self.admission.room:
                self.stopReading()  # type: ignore[attr-defined]
                self.events.accepting_paused(self.admission.limit)
                return False
            try:
                accepted, address = self.socket.accept()
            except BlockingIOError:
                return True
            except OSError as failure:
                if failure.errno in _NEXT:
                    continue
                self._back_off(failure)
                return False
            self._backoff = 0.0
            self._welcome(accepted, address)
        return False

    def open_gate(self) -> None:
        """Accept again: a connection has closed, or the back-off is over."""
        if self.connected and not self.disconnecting and self._backoff_call is None:  # type: ignore[attr-defined]
            self.startReading()  # type: ignore[attr-defined]

    def close_gate(self) -> None:
        """Accept no more; nothing is scheduled afterwards."""
        if self._backoff_call is not None:
            self._backoff_call.cancel()
            self._backoff_call = None
        self.stopReading()  # type: ignore[attr-defined]

    def _welcome(self, accepted: sockets.socket, address: Any) -> None:
        protocol = self.factory.buildProtocol(self._buildAddr(address))  # type: ignore[attr-defined]
        if protocol is None:
            # A reset, so that a sender that writes without reading learns it was turned away.
            accepted.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, _RESET)
            accepted.close()
            return
        number = self.sessionno
        self.sessionno = number + 1
        transport = self.transport(accepted, protocol, address, self, number, self.reactor)
        try:
            protocol.makeConnection(transport)
        except Exception:  # noqa: BLE001 - one connection's bug must not stop accepting
            self.events.internal_error("makeConnection")
            transport.abortConnection()

    def _back_off(self, failure: OSError) -> None:
        first, longest = ACCEPT_BACKOFF_SECONDS
        self._backoff = min(self._backoff * 2 or first, longest)
        name = getattr(self.factory, "name", "?")
        self.events.accept_failed(name, failure, self._backoff)
        self.stopReading()  # type: ignore[attr-defined]
        self._backoff_call = self.reactor.callLater(self._backoff, self._retry)

    def _retry(self) -> None:
        self._backoff_call = None
        self.open_gate()


class TCPPort(_GatedPort, tcp.Port):  # type: ignore[misc]
    """A listening TCP socket, IPv4 or IPv6."""

    transport = TCPTransport

    def createInternetSocket(self) -> sockets.socket:
        """Make the socket with our options on it."""
        created: sockets.socket = super().createInternetSocket()
        set_options(created, self.receive_buffer)
        return created


class UNIXPort(_GatedPort, unix.Port):  # type: ignore[misc]
    """A listening UNIX socket."""

    transport = UNIXTransport


class ListeningReactor:
    """
    What an endpoint calls to listen, giving our ports instead of Twisted's.

    Endpoint strings are parsed by Twisted (`serverFromString`); only these three methods are ever called.
    """

    def __init__(
        self, reactor: IReactorFDSet, admission: Admission, events: Events, receive_buffer: int | None
    ) -> None:
        self._reactor = reactor
        self._admission = admission
        self._events = events
        self._receive_buffer = receive_buffer

    def listenTCP(self, port: int, factory: ServerFactory, backlog: int = 50, interface: str = "") -> TCPPort:
        """Listen on TCP; Twisted's default backlog of 50 becomes ours."""
        listening = TCPPort(port, factory, max(backlog, BACKLOG), interface, self._reactor)
        self._start(listening)
        return listening

    def listenUNIX(
        self, address: bytes, factory: ServerFactory, backlog: int = 50, mode: int = 0o666, wantPID: int = 0
    ) -> UNIXPort:
        """Listen on a UNIX socket."""
        listening = UNIXPort(address, factory, max(backlog, BACKLOG), mode, self._reactor, wantPID)
        self._start(listening)
        return listening

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: ServerFactory) -> TCPPort | UNIXPort:
        """Take over a socket that the service manager listens on already."""
        adopted: Any
        if addressFamily == sockets.AF_UNIX:
            adopted = UNIXPort._fromListeningDescriptor(self._reactor, fileDescriptor, factory)  # noqa: SLF001
        else:
            adopted = TCPPort._fromListeningDescriptor(self._reactor, fileDescriptor, addressFamily, factory)  # noqa: SLF001
            set_options(adopted._preexistingSocket, self._receive_buffer)  # noqa: SLF001
        self._start(adopted)
        return adopted  # type: ignore[no-any-return]

    def _start(self, port: Any) -> None:
        port.admission = self._admission
        port.events = self._events
        port.receive_buffer = self._receive_buffer
        port.read_buffer = memoryview(bytearray(READ_SIZE))
        port.pace = Pace()
        port.readiness = Readiness(self._reactor) if HAS_EPOLL else None
        port.startListening()


def address_text(address: IAddress) -> tuple[str, str | None]:
    """Write a peer's address, and the host that per-peer limits count by (``None`` for UNIX sockets)."""
    host = getattr(address, "host", None)
    if host is None:
        name = getattr(address, "name", None)
        return f"unix:{name.decode('utf-8', 'replace') if name else 'anonymous'}", None
    port: int = address.port  # type: ignore[attr-defined]
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), str(host)
