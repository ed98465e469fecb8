"""
Listening as we want it: options on the listening socket, accepting with a gate and a back-off.

Accepted sockets inherit the options of the listening one (Linux; checked by a test on a real pair).
"""

import errno
import socket as sockets
import struct
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IReactorFDSet
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
from twisted_ingest.server.pace import Pace
from twisted_ingest.server.readiness import HAS_EPOLL, Readiness
from twisted_ingest.server.transports import TCPTransport, UNIXTransport

ACCEPT_BACKOFF_SECONDS = (0.1, 5.0)
"""First and longest wait after the kernel could not give us a connection; doubled each time."""

_RESET = struct.pack("ii", 1, 0)
"""``SO_LINGER`` on, zero seconds: closing sends RST."""

# Of the one connection only: the peer is gone already, or a packet filter said no.
_NEXT = frozenset({errno.ECONNABORTED, errno.EPERM, errno.EINTR, errno.EPROTO})


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


class GatedPort:
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
    readiness: Readiness | None = None
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
                # Out of descriptors or kernel memory the socket stays readable: without a wait the reactor would spin.
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

    def connectionLost(self, reason: Failure) -> None:
        """Close, as Twisted does; the connections go on until they end."""
        super().connectionLost(reason)  # type: ignore[misc]
        if self.readiness is not None:
            self.readiness.retire()

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


class TCPPort(GatedPort, tcp.Port):  # type: ignore[misc]
    """A listening TCP socket, IPv4 or IPv6."""

    transport = TCPTransport

    def createInternetSocket(self) -> sockets.socket:
        """Make the socket with our options on it."""
        created: sockets.socket = super().createInternetSocket()
        set_options(created, self.receive_buffer)
        return created


class UNIXPort(GatedPort, unix.Port):  # type: ignore[misc]
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
        port.startListening()
        answers = getattr(port.factory, "answers", False)
        port.readiness = Readiness(self._reactor, rests=not answers) if HAS_EPOLL else None
