"""
A peer without a kernel.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_ingest.limits import READ_SIZE


class PumpTransport:
    """
    One end of a TCP connection without a kernel.

    What the peer sends waits in ``unread`` until `pump` reads it, and `pump` does nothing while reading is paused,
    as epoll does. Like a real transport it calls ``connectionLost`` in a later turn of ``clock``, once.
    """

    def __init__(self, clock: Clock, peer: IPv4Address | None = None) -> None:
        self._clock = clock
        self._peer = peer or IPv4Address("TCP", "192.0.2.1", 40000)
        self._protocol: Any = None
        self._ending: str | None = None
        self.unread = bytearray()
        self.written = bytearray()
        self.reading = True
        self.disconnecting = False
        self.connected = True
        self.write_closed = False
        self.was_reset = False
        """Whether we ended it with a reset."""
        self.unread_at_close = 0
        self.endings = 0
        self._let_go: Callable[[], None] = lambda: None
        self.producer: Any = None
        """Whoever wants to be paused while the peer does not read."""

    @property
    def protocol(self) -> Any:
        """Whom it brings bytes to."""
        return self._protocol

    @protocol.setter
    def protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    # The peer's side.

    def connect(self, protocol: Any) -> None:
        """Make the connection."""
        self._protocol = protocol
        protocol.makeConnection(self)

    def peer_sends(self, data: bytes) -> None:
        """Put bytes in the kernel's receive queue."""
        self.unread += data

    def peer_closes(self) -> None:
        """Send FIN."""
        self._ending = "fin"

    def peer_resets(self) -> None:
        """Send RST; what arrived before it can still be read, as on Linux."""
        self._ending = "rst"

    def pump(self, chunk_size: int = READ_SIZE, reads: int | None = None) -> None:
        """Read while something waits and reading is not paused, at most ``reads`` times; then notice the end."""
        while self.connected and self.reading and self.unread and reads != 0:
            chunk = bytes(self.unread[:chunk_size])
            del self.unread[:chunk_size]
            self._end_return()
            reads = None if reads is None else reads - 1
            self._protocol.dataReceived(chunk)
        if self.connected and self.reading and not self.unread and self._ending is not None:
            self._notice(self._ending)

    def _end_return(self) -> None:
        let_go, self._let_go = self._let_go, lambda: None
        let_go()

    def _notice(self, ending: str) -> None:
        half_closeable = IHalfCloseableProtocol(self._protocol, None)
        if ending == "fin" and half_closeable is not None:
            self.reading = False
            half_closeable.readConnectionLost()
        else:
            self._lose(error.ConnectionDone() if ending == "fin" else error.ConnectionLost())

    # Our side: what the protocol calls.

    def unread_bytes(self) -> int:
        """See `IngestTransport`."""
        return len(self.unread)

    def put_back(self, data: bytes, let_go: Callable[[], None]) -> None:
        """See `IngestTransport`; the next `pump` brings it."""
        self.unread[:0] = data
        self._let_go = let_go

    def notice_end(self) -> None:
        """See `IngestTransport`."""
        self.reading = True
        self.pump()

    def has_hung_up(self) -> bool:
        """Whether the peer has closed or reset, whatever we have read."""
        return self._ending is not None

    def getPeer(self) -> IPv4Address:
        """Give the peer's address."""
        return self._peer

    def getHost(self) -> IPv4Address:
        """Give the address that was connected to."""
        return IPv4Address("TCP", "192.0.2.254", 1514)

    def write(self, data: bytes) -> None:
        """Take bytes for the peer."""
        if not self.write_closed:
            self.written += data

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Keep it for the test to pause and resume."""
        self.producer = producer

    def unregisterProducer(self) -> None:
        """Forget it."""
        self.producer = None

    def pauseProducing(self) -> None:
        """Stop reading."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Go on reading."""
        if self.connected and not self.disconnecting:
            self.reading = True

    def loseWriteConnection(self) -> None:
        """Half-close."""
        self.write_closed = True

    def loseConnection(self) -> None:
        """Close in the next turn."""
        self.endings += 1
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self.reading = False
            self._clock.callLater(0, self._lose, error.ConnectionDone())

    def abortConnection(self) -> None:
        """Reset in the next turn."""
        self.endings += 1
        if self.connected and not self.was_reset:
            self.was_reset = True
            self.reading = False
            self._clock.callLater(0, self._lose, error.ConnectionAborted())

    def _lose(self, reason: Exception) -> None:
        if self.connected:
            self.connected = self.reading = False
            self.unread_at_close = len(self.unread)
            self._end_return()
            if self.producer is not None:
                self.producer.stopProducing()  # as Twisted does
            try:
                self._protocol.connectionLost(Failure(reason))
            except Exception:  # noqa: BLE001 - as our transports do
                self._protocol.end_badly()
