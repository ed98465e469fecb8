"""
Listening as we want it: options on the listening socket, our ports instead of Twisted's.

Accepted sockets inherit the options of the listening one (Linux; checked by a test on a real pair).
"""

import socket as sockets
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure

from twisted_ingest.backoff import Backoff
from twisted_ingest.limits import (
    BACKLOG,
    KEEPALIVE_COUNT,
    KEEPALIVE_IDLE,
    KEEPALIVE_INTERVAL,
    USER_TIMEOUT_MS,
)
from twisted_ingest.observe.events import Events
from twisted_ingest.server.admission import Admission
from twisted_ingest.server.claim import ClaimedPort
from twisted_ingest.server.gate import ACCEPT_BACKOFF_SECONDS, GatedPort
from twisted_ingest.server.reading import PortReading
from twisted_ingest.server.transports import TCPTransport, UNIXTransport


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


class TCPPort(GatedPort, tcp.Port):  # type: ignore[misc]
    """A listening TCP socket, IPv4 or IPv6."""

    transport: Any = TCPTransport

    def createInternetSocket(self) -> sockets.socket:
        """Make the socket with our options on it."""
        created: sockets.socket = super().createInternetSocket()
        set_options(created, self.receive_buffer)
        return created


class UNIXPort(GatedPort, ClaimedPort):  # type: ignore[misc]
    """A listening UNIX socket."""

    transport: Any = UNIXTransport


def _ignore(_: Failure) -> None:
    """Do nothing: the default of the hook."""


class ListeningReactor:
    """
    What an endpoint calls to listen, giving our ports instead of Twisted's; the port it gave last it can give again.

    Of a reactor, what `twisted_ingest.server.endpoints.server_endpoint` gives calls only these three methods.
    ``on_lost`` is called with the reason when a port has ended although nobody asked for it.
    """

    tcp_port: type[TCPPort] = TCPPort
    unix_port: type[UNIXPort] = UNIXPort

    def __init__(
        self,
        reactor: IReactorFDSet,
        admission: Admission,
        events: Events,
        receive_buffer: int | None,
        on_lost: Callable[[Failure], None] = _ignore,
    ) -> None:
        self._reactor = reactor
        self._admission = admission
        self._events = events
        self._receive_buffer = receive_buffer
        self._on_lost = on_lost
        self._again: Callable[[], TCPPort | UNIXPort] | None = None
        self._kept: sockets.socket | None = None
        """A socket that was given to us, kept because nobody would give it to us again."""

    def listenTCP(self, port: int, factory: ServerFactory, backlog: int = 50, interface: str = "") -> TCPPort:
        """Listen on TCP; Twisted's default backlog of 50 becomes ours."""
        listening = self.tcp_port(port, factory, max(backlog, BACKLOG), interface, self._reactor)
        self._start(listening)
        # The same number, where any would have done: peers know that one.
        number = listening.getHost().port
        self._again = lambda: self.listenTCP(number, factory, backlog, interface)
        return listening

    def listenUNIX(
        self, address: bytes, factory: ServerFactory, backlog: int = 50, mode: int = 0o666, wantPID: int = 0
    ) -> UNIXPort:
        """Listen on a UNIX socket."""
        listening = self.unix_port(address, factory, max(backlog, BACKLOG), mode, self._reactor, wantPID)
        self._start(listening)
        self._again = lambda: self.listenUNIX(address, factory, backlog, mode, wantPID)
        return listening

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: ServerFactory) -> TCPPort | UNIXPort:
        """Take over a socket that the service manager listens on already."""
        adopted: Any
        if addressFamily == sockets.AF_UNIX:
            adopted = self.unix_port._fromListeningDescriptor(self._reactor, fileDescriptor, factory)  # noqa: SLF001
        else:
            adopted = self.tcp_port._fromListeningDescriptor(self._reactor, fileDescriptor, addressFamily, factory)  # noqa: SLF001
            set_options(adopted._preexistingSocket, self._receive_buffer)  # noqa: SLF001
        # As whoever made it may have left it: accepting must never wait.
        adopted._preexistingSocket.setblocking(False)  # noqa: SLF001
        self._start(adopted)
        if self._kept is None:
            kept = self._kept = sockets.fromfd(fileDescriptor, addressFamily, sockets.SOCK_STREAM)
            self._again = lambda: self._adopt_again(kept, factory)
        return adopted  # type: ignore[no-any-return]

    def listen_again(self) -> TCPPort | UNIXPort:
        """Listen as before, after the port was lost. Raises as listening does: ``OSError`` or ``CannotListenError``."""
        if self._again is None:
            raise RuntimeError("it has not listened yet")
        return self._again()

    def let_go(self) -> None:
        """Keep nothing for another time."""
        self._again = None
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _adopt_again(self, kept: sockets.socket, factory: ServerFactory) -> TCPPort | UNIXPort:
        if not kept.getsockopt(sockets.SOL_SOCKET, sockets.SO_ACCEPTCONN):
            kept.listen(BACKLOG)
        return self.adoptStreamPort(kept.fileno(), kept.family, factory)

    def _start(self, port: Any) -> None:
        port.admission = self._admission
        port.events = self._events
        port.receive_buffer = self._receive_buffer
        port.on_lost = self._on_lost
        port.backoff = Backoff(*ACCEPT_BACKOFF_SECONDS)
        try:
            port.startListening()
            self._equip(port)
        except BaseException:
            if port.connected:
                port.disconnecting = True
                port.connectionLost(Failure())
            raise

    def _equip(self, port: Any) -> None:
        """Give a port what its connections are read with."""
        answers = getattr(port.factory, "answers", False)
        # A session's bytes are all its framer's to see.
        slabs = None if answers else getattr(port.factory, "slabs", None)
        port.reading = PortReading(self._reactor, self._events.internal_error, answers=answers, slabs=slabs)
