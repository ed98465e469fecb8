"""
One connection to the admin endpoint: one request at a time, with deadlines.

Twisted's own channel parses the next request as soon as the one before is *finished*, however much of the answers is
still unread: whoever sends requests and reads nothing makes it write answers into memory for as long as it likes.
"""

from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Any, Protocol

from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.server import Request
from zope.interface import implementer

from twisted_ingest.admin.clients import OTHER, Clients
from twisted_ingest.admin.request import AdminRequest
from twisted_ingest.admin.turns import Turns
from twisted_ingest.observe.events import Events

REQUEST_TIMEOUT_SECONDS = 15
"""How long a client may take from the first byte of a request to its last (or from connecting to its first), and how
long to take an answer, or a piece of one. Ten times what a busy machine's scraper takes."""

KEEP_ALIVE_SECONDS = 75
"""How long a connection may be idle between two requests: above Prometheus' scrape interval of a minute."""


class ChannelOwner(Protocol):
    """What a channel needs of the site it belongs to."""

    reactor: IReactorTime
    clients: Clients
    turns: Turns
    events: Events


class Phase(Enum):
    """Who is waited for."""

    ASKING = auto()
    """The client, for the rest of its request."""
    WAITING = auto()
    """Us."""
    READING = auto()
    """The client, to take what was written."""
    IDLE = auto()
    """Nobody."""


_PHASE_SECONDS = {
    Phase.ASKING: REQUEST_TIMEOUT_SECONDS,
    Phase.WAITING: None,
    Phase.READING: REQUEST_TIMEOUT_SECONDS,
    Phase.IDLE: KEEP_ALIVE_SECONDS,
}


@implementer(IHalfCloseableProtocol)
class AdminChannel(http.HTTPChannel):
    """
    One client: one request at a time, the next not looked at before the answer has left us, deadlines for both.

    What it may hold: a read or two of requests (64 KiB each) that nobody looks at yet, and one page or piece of one.
    """

    factory: ChannelOwner
    transport: Any
    _networkProducer: Any
    requestFactory = AdminRequest

    def __init__(self) -> None:
        super().__init__()
        self.phase = Phase.ASKING
        self.since = 0.0
        self.answers = 0
        self._asks_no_more = False
        """Whether the client has closed its side."""
        self._turn: Callable[[], None] | None = None

    @property
    def waits_for_us(self) -> bool:
        """See `Client`."""
        return self.phase is Phase.WAITING

    def evict(self) -> None:
        """See `Client`."""
        self.transport.abortConnection()

    def enter(self, phase: Phase) -> None:
        """Wait for somebody else from now on."""
        self.phase = phase
        self.since = self.factory.reactor.seconds()
        self.setTimeout(_PHASE_SECONDS[phase])

    def written(self) -> None:
        """See `RequestOwner`."""
        self.enter(Phase.READING)

    def wait_turn(self, act: Callable[[], None], *, is_probe: bool = False) -> None:
        """See `RequestOwner`: call when its turn has come, unless the client has gone by then."""
        self.enter(Phase.WAITING)
        self._turn = partial(self.guard, act)
        self.factory.turns.ask(self._turn, is_probe=is_probe)

    def guard(self, act: Callable[..., Any], *arguments: Any) -> None:
        """Call; whatever is raised costs this connection alone."""
        try:
            act(*arguments)
        except Exception:  # noqa: BLE001 - Twisted would log each, and scrapes come every few seconds
            self.factory.events.internal_error("an admin connection")
            self.transport.abortConnection()

    # What the transport calls.

    def connectionMade(self) -> None:
        """Begin."""
        self.factory.clients.enter(self)
        self.guard(self._begin)

    def _begin(self) -> None:
        super().connectionMade()
        # As a pull producer, which is told whenever all that was written has left us; another is told of 64 KiB only.
        self._networkProducer.unregisterProducer()
        self._networkProducer.registerProducer(self, False)
        self.enter(Phase.ASKING)

    def dataReceived(self, data: bytes) -> None:
        """Read on; a request's deadline is not put off by its every byte."""
        if self.transport.disconnecting:
            return
        if self.phase is Phase.IDLE:
            self.enter(Phase.ASKING)
        self.guard(LineReceiver.dataReceived, self, data)

    def resumeProducing(self) -> None:
        """Go on: everything written has left us."""
        if self.phase is not Phase.READING:
            return
        if self.requests:
            self.wait_turn(self.requests[0].write_piece)
        else:
            self.guard(self._go_on)

    def pauseProducing(self) -> None:
        """Do nothing: who is told when to write is never paused."""

    def readConnectionLost(self) -> None:
        """Answer a client that has closed its side, then close ours."""
        self._asks_no_more = True
        if self.phase in (Phase.ASKING, Phase.IDLE):
            self.loseConnection()

    def writeConnectionLost(self) -> None:
        """Do nothing: we close both sides at once."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let go of everything."""
        self.factory.clients.leave(self)
        if self._turn is not None:
            self.factory.turns.forget(self._turn)
            self._turn = None
        self.guard(super().connectionLost, reason)

    def timeoutConnection(self) -> None:
        """End a connection that has been waited for long enough."""
        if self.phase is Phase.READING:
            # A close in good order would wait for it to read.
            self.transport.abortConnection()
        else:
            self.loseConnection()

    # What Twisted's parser, and its requests, call.

    def lineReceived(self, line: bytes) -> None:
        """Take a line of a request's head; one that goes on with the header before it is refused (RFC 9112, 5.2)."""
        if line.startswith((b" ", b"\t")):
            # Twisted would copy the header for each: 16,000 lines of one blank cost 20 ms.
            self._respondToBadRequestAndDisconnect()
        else:
            super().lineReceived(line)

    def headerReceived(self, line: bytes) -> bool:
        """Take a header; a length of thousands of digits, which Python refuses to read, is a bad one."""
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            self._respondToBadRequestAndDisconnect()
            return False

    def allHeadersReceived(self) -> None:
        """Begin to skip the body; one in chunks is not looked at: the answer is the last of its connection."""
        super().allHeadersReceived()
        if self.length is None:
            # To find its end costs the reactor 25 ms for each 64 KiB of chunks of a byte.
            self.length = 0
            self.persistent = False
            self.requests[-1].setHeader("Connection", "close")

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse."""
        self._respondToBadRequestAndDisconnect()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.factory.clients.count(OTHER, http.BAD_REQUEST)
        self.enter(Phase.READING)
        super()._respondToBadRequestAndDisconnect()

    def requestDone(self, request: Request) -> None:
        """Wait until the answer has left us. Twisted would parse the next request now."""
        self.requests.remove(request)
        self.answers += 1
        self.enter(Phase.READING)
        if not self.persistent:
            self.loseConnection()

    def _go_on(self) -> None:
        """Read the next request, of which some may be here already."""
        self._handlingRequest = False
        self.enter(Phase.IDLE)
        data = b"".join(self._dataBuffer)
        self._dataBuffer.clear()
        if not self._asks_no_more:
            self._networkProducer.resumeProducing()
        self.setLineMode(data)
        if self._asks_no_more:
            self.readConnectionLost()
