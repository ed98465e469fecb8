"""
One connection, as a stream uses it: whole buffers out with one call and no copy, and what the peer's kernel has.
"""

import array
import fcntl
import socket
import termios
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any
from typing import Protocol as Duck

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_ingest.limits import KEEPALIVE_COUNT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL

Buffer = bytes | memoryview

MOST_BUFFERS = 64
"""Buffers of one ``sendmsg``: enough for what one turn brings, and far below the kernel's 1024 (``IOV_MAX``)."""


class WireOwner(Duck):
    """Whose connection it is. Each call is guarded by the wire: what it raises ends the connection."""

    def made(self, wire: "Wire") -> None:
        """Begin: the connection is there."""

    def writable(self) -> None:
        """Send more: the kernel has taken what it had refused."""

    def received(self, data: bytes) -> None:
        """Take what the peer sent."""

    def ended(self) -> None:
        """Note that the peer sends nothing more; the connection is there still."""

    def lost(self, reason: Failure) -> None:
        """Note the end; the last call, and the only one after `Wire.abort`."""

    def bug(self, where: str) -> None:
        """Note what one of the calls above raised. Called inside the ``except`` block."""


@implementer(IPullProducer, IHalfCloseableProtocol)
class Wire(Protocol):
    """
    A connection over TCP, or a UNIX socket, that Twisted has made, and watches.

    It writes to the socket itself; the transport tells when the kernel takes more, as it asks a pull producer. ``sent``
    is how many bytes the kernel has taken, ``pending`` how many it has not yet. Buffers of these are kept as they are.
    """

    transport: Any

    def __init__(self, owner: WireOwner, user_timeout: float) -> None:
        self._owner = owner
        self._user_timeout = user_timeout
        self._socket: socket.socket | None = None
        """A descriptor of our own for the same connection: the transport's is closed before we hear of the end."""
        self._buffers: deque[Buffer] = deque()
        self._is_broken = False
        self._is_ending = False
        self.sent = 0
        self.pending = 0

    # Called by the transport.

    def connectionMade(self) -> None:
        """Set the socket up, and begin."""
        self._guard("connecting", self._set_up)

    def _set_up(self) -> None:
        self.transport.registerProducer(self, False)
        try:
            self._socket = self.transport.getHandle().dup()
        except OSError:
            # No descriptor is left for it: another try later may find one, as with any connection that fails.
            self._owner.made(self)
            self.abort()
            return
        self._socket.setblocking(False)
        with suppress(OSError, AttributeError):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
            for option, value in (
                (socket.TCP_KEEPIDLE, KEEPALIVE_IDLE),
                (socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL),
                (socket.TCP_KEEPCNT, KEEPALIVE_COUNT),
                (socket.TCP_USER_TIMEOUT, int(self._user_timeout * 1000)),
            ):
                self._socket.setsockopt(socket.IPPROTO_TCP, option, value)
        self._owner.made(self)

    def resumeProducing(self) -> None:
        """Send what is pending: the kernel takes more."""
        if self._buffers and not self._is_broken:
            self._guard("sending", self._resume)

    def _resume(self) -> None:
        self._send()
        if not self.pending:
            self._owner.writable()

    def stopProducing(self) -> None:
        """Do nothing: `connectionLost` follows."""

    def dataReceived(self, data: bytes) -> None:
        """Pass it on."""
        if not self._is_ending:
            self._guard("reading an answer", self._owner.received, data)

    def readConnectionLost(self) -> None:
        """Pass on that the peer has sent FIN."""
        self._guard("the end of what a peer sends", self._owner.ended)

    def writeConnectionLost(self) -> None:
        """Do nothing: we end both sides at once."""

    def connectionLost(self, reason: Failure = ConnectionDone) -> None:  # type: ignore[assignment]
        """Tell, while it can still be asked what the peer's kernel has."""
        self._is_broken = True
        try:
            self._guard("the end of a connection", self._owner.lost, reason)
        finally:
            self._buffers.clear()
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _guard(self, where: str, call: Callable[..., None], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception:  # noqa: BLE001 - a bug of ours costs this connection
            self._owner.bug(where)
            self.abort()

    # Called by the owner.

    def send(self, buffers: Sequence[Buffer]) -> None:
        """Send buffers, at most `MOST_BUFFERS`, behind what is pending; they belong to the wire until that is sent."""
        self._buffers.extend(buffers)
        self.pending += sum(map(len, buffers))
        if self.pending and not self._is_broken and len(self._buffers) == len(buffers):
            self._send()

    def _send(self) -> None:
        buffers = self._buffers
        while buffers and self._socket is not None:
            try:
                taken = self._socket.sendmsg(list(islice(buffers, MOST_BUFFERS)))
            except BlockingIOError:
                break
            except OSError:
                # Whoever reads hears of it, behind the answers that came before it.
                self._is_broken = True
                return
            self.sent += taken
            self.pending -= taken
            self._drop(taken)
        if buffers:
            self.transport.startWriting()

    def _drop(self, taken: int) -> None:
        """Forget what the kernel has taken."""
        buffers = self._buffers
        while taken:
            size = len(buffers[0])
            if size > taken:
                buffers[0] = memoryview(buffers[0])[taken:]
                return
            taken -= size
            buffers.popleft()

    def acknowledged(self) -> int:
        """Give how many of the bytes sent the peer's kernel has acknowledged (``SIOCOUTQ``, tcp(7))."""
        if self._socket is None:
            return 0
        unacknowledged = array.array("i", [0])
        fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, unacknowledged)
        # With our FIN under way there is one more in the queue than we have sent.
        return max(0, self.sent - unacknowledged[0])

    def finish(self) -> None:
        """End the connection in good order; nothing may be pending."""
        self._is_ending = True
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def abort(self) -> None:
        """End the connection at once, with a reset: what the kernel has not sent is not sent any more."""
        self._is_ending = self._is_broken = True
        if self.transport is not None:
            self.transport.abortConnection()
