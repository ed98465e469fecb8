"""
What stands between a TCP transport and its connection for as long as both speak TLS.

To the transport it is the protocol, to the connection the transport. What the connection may rely on of any transport
holds: a pause lets nothing through, what is inside counts as unread, an end is told after all that came before it.
"""

import ssl
from typing import Any, Protocol

from twisted.internet import error
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_ingest.errors import CloseReason
from twisted_ingest.flow.intake import Intake
from twisted_ingest.ledger import TLSLedger
from twisted_ingest.observe.events import Events
from twisted_ingest.server.tls_errors import what_broke
from twisted_ingest.server.tls_session import Next, Session


class LayerOwner(Protocol):
    """What a layer needs of the TLS of its listener."""

    @property
    def clock(self) -> IReactorTime:
        """What brings what is held when reading goes on."""

    @property
    def events(self) -> Events:
        """Who is told of what happens."""

    @property
    def intake(self) -> Intake:
        """Whose budget what is held is charged to."""

    @property
    def ledger(self) -> TLSLedger:
        """Where truncations are counted."""

    @property
    def plain(self) -> memoryview:
        """Where to decrypt to."""

    def vacate(self) -> None:
        """Give back what was kept free for the connection."""


@implementer(IPushProducer)
class _WriteFlow:
    """What the transport pauses when the peer does not read what we send."""

    __slots__ = ("_layer",)

    def __init__(self, layer: "TLSLayer") -> None:
        self._layer = layer

    def pauseProducing(self) -> None:
        """Note that it piles up."""
        self._layer.writes_stalled()

    def resumeProducing(self) -> None:
        """Note that it flows again."""
        self._layer.writes_flow()

    def stopProducing(self) -> None:
        """Do nothing: ``connectionLost`` says the same."""


class TLSLayer:
    """
    The layer of a connection that ends with its peer's goodbye; see `HalfCloseableTLSLayer` for the others.

    Of one read all is decrypted before the framer is called, in pieces of `TLS.plain`, as long as the connection is not
    paused; what is then left waits as it came, is charged, and is brought before anything else is read.
    """

    takes_views = True
    """Whether ``dataReceived`` may be given a view: what comes is copied into the session."""

    # Of the class until they are something else, as in `Connection`.
    disconnecting = False
    endings = 0
    _is_paused = False
    """Whether the connection wants nothing."""
    _is_stalled = False
    """Whether what we have sent is not read."""
    _is_bringing = False
    _next = Next.NOTHING
    _rest = b""
    """What has come and is not in the session yet."""
    _charged = 0
    """Bytes held that are charged."""
    _call: Any = None
    """Brings what is held once reading goes on."""
    _producer: Any = None
    _is_silent = False
    """Whether we have said goodbye, or can say nothing any more."""
    _is_cut = False
    """Whether a FIN has come without a goodbye, as far as was read."""
    _is_ended = False
    """Whether the connection has been told that its peer sends no more."""
    _is_lost = False

    def __init__(self, connection: Any, session: Session, owner: LayerOwner) -> None:
        self._connection = connection
        self._session = session
        self._owner = owner
        self.carrier: Any
        """The transport that carries it."""

    # As the protocol of the TCP transport.

    def makeConnection(self, transport: Any) -> None:
        """Be the connection's transport from now on."""
        self.carrier = transport
        transport.registerProducer(_WriteFlow(self), True)
        self._connection.makeConnection(self)

    def dataReceived(self, data: bytes) -> None:
        """Decrypt what has come, and bring it; of a paused connection it is held."""
        if self._is_ended or self._is_lost:
            return  # behind a goodbye there is nothing
        self._next = Next.MORE
        if self._rest:
            self._rest += data
            self._bring(self._rest)
        else:
            self._bring(data)

    def connectionLost(self, reason: Failure) -> None:
        """Tell the connection that it is over."""
        if reason.check(error.ConnectionDone) and not self._is_ended and not self.endings:
            self._owner.ledger.truncated += 1
        self._let_go()
        self._connection.connectionLost(reason)

    def end_badly(self) -> None:
        """Have the connection leave everything although its ``connectionLost`` raised."""
        self._connection.end_badly()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._connection!r}>"

    # As the transport of the connection; see `IngestTransport`.

    @property
    def connected(self) -> Any:
        """Whether the TCP connection is."""
        return self.carrier.connected

    @property
    def unread_at_close(self) -> int:
        """Bytes, encrypted as they came, that were not brought."""
        return int(self.carrier.unread_at_close) + self._charged

    def fileno(self) -> int:
        """Give the socket's descriptor."""
        return int(self.carrier.fileno())

    def getPeer(self) -> Any:
        """Give the address that has connected."""
        return self.carrier.getPeer()

    def getHost(self) -> Any:
        """Give the address that was connected to."""
        return self.carrier.getHost()

    def unread_bytes(self) -> int:
        """Count what waits in the kernel and here."""
        return int(self.carrier.unread_bytes()) + self._held()

    def notice_end(self) -> None:
        """Lose the connection whose peer has hung up."""
        self.carrier.notice_end()

    def write(self, data: bytes) -> None:
        """Encrypt and send; after our goodbye nothing is."""
        if not self._is_silent and not self._is_lost:
            self._session.encrypt(data)
            self._session.flush(self.carrier)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause this producer too while what is sent piles up."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Pause it no more."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Stop reading, and bring nothing of what is here."""
        self._is_paused = True
        self.carrier.pauseProducing()

    def resumeProducing(self) -> None:
        """Bring what is here, then read."""
        self._is_paused = False
        if self._next is Next.NOTHING or self._is_bringing:
            self._read_on()
        elif self._call is None and not self._is_lost:
            # Never from inside the call of another connection: what is decrypted lies where that one's bytes lie.
            self._call = self._owner.clock.callLater(0, self._go_on)

    def loseConnection(self) -> None:
        """Say goodbye and close; the peer's own is not waited for."""
        self.endings += 1
        self.disconnecting = True
        self._say_goodbye()
        self.carrier.loseConnection()

    def loseWriteConnection(self) -> None:
        """Say goodbye, send FIN, and go on reading."""
        self._say_goodbye()
        self.carrier.loseWriteConnection()

    def abortConnection(self) -> None:
        """Reset."""
        self.endings += 1
        self._is_silent = True
        self.carrier.abortConnection()

    # The transport's news of what we send.

    def writes_stalled(self) -> None:
        """Read nothing until the peer reads: each of its records might have us send another."""
        self._is_stalled = True
        self.carrier.pauseProducing()
        if self._producer is not None:
            self._producer.pauseProducing()

    def writes_flow(self) -> None:
        """Go on."""
        self._is_stalled = False
        self._read_on()
        if self._producer is not None:
            self._producer.resumeProducing()

    # What follows is ours.

    def _read_on(self) -> None:
        if not self._is_paused and not self._is_stalled and not self._is_lost:
            self.carrier.resumeProducing()

    def _held(self) -> int:
        """Count the bytes that have come and are not brought; of an unfinished record none: nobody could bring it."""
        return 0 if self._next is Next.NOTHING else self._session.incoming.pending + len(self._rest)

    def _go_on(self) -> None:
        """Bring what was held while paused."""
        self._call = None
        try:
            self._bring(self._rest)
            if self._next is Next.NOTHING:
                self._read_on()
        except Exception:  # noqa: BLE001 - the reactor would log it without a limit and keep the connection
            self._connection.fail("going on with TLS")

    def _bring(self, data: bytes) -> None:
        """Decrypt what has come and hand it on, until more is wanted or the connection is paused; keep the rest."""
        if self._is_bringing:
            return  # the loop outside goes on
        self._is_bringing = True
        wire, at = memoryview(data), 0
        try:
            while self._next is Next.MORE and not self._is_paused and not self._is_over:
                at = self._bring_some(wire, at)
            self._rest = bytes(wire[at:])
            self._session.flush(self.carrier)
            self._recharge()
        finally:
            self._is_bringing = False
        if self._is_cut and self._next is Next.NOTHING:
            self._next = Next.CUT
        if self._next in (Next.GOODBYE, Next.CUT) and not self._is_paused:
            self._tell_end()

    @property
    def _is_over(self) -> bool:
        return self._is_lost or self._is_ended or self.endings > 0

    def _bring_some(self, wire: memoryview, at: int) -> int:
        """Hand on as much as there is room for in `TLS.plain`; gives up to where it was taken."""
        plain, connection = self._owner.plain, self._connection
        try:
            size, at, self._next = self._session.decrypt(wire, at, plain)
        except ssl.SSLError as problem:
            self._break(problem)
            return len(wire)
        if size:
            data = plain[:size]
            connection.dataReceived(data if connection.takes_views else bytes(data))
        return at

    def _break(self, problem: ssl.SSLError) -> None:
        """End a connection on which TLS has failed; OpenSSL's alert goes out before that."""
        self._next, self._is_ended, self._rest = Next.NOTHING, True, b""
        self._session.flush(self.carrier)
        self._is_silent = True
        self._owner.events.tls_broken(self._connection.info, what_broke(problem))
        self._connection.close(CloseReason.TLS, reset=False)

    def _tell_end(self) -> None:
        """Tell the connection that its peer sends no more."""
        if self._is_over:
            return
        self._is_ended = True
        if self._next is Next.CUT:
            self._owner.ledger.truncated += 1
        self._next = Next.NOTHING
        self._end_peer_side()

    def _end_peer_side(self) -> None:
        self._connection.close(CloseReason.EOF, reset=False)

    def _say_goodbye(self) -> None:
        # A producer that is paused would keep Twisted from closing (twisted #6461).
        self.carrier.unregisterProducer()
        if not self._is_silent and not self._is_lost:
            self._is_silent = True
            self._session.say_goodbye()
            self._session.flush(self.carrier)

    def _recharge(self) -> None:
        """Have the budget know what is held."""
        held = self._held()
        if held != self._charged:
            self._owner.intake.charge(held - self._charged)
            self._charged = held

    def _let_go(self) -> None:
        """Give back what is charged, and forget the session: connection and layer know each other."""
        self._is_lost = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._producer = None
        self._owner.intake.charge(-self._charged)
        self._owner.vacate()


@implementer(IHalfCloseableProtocol)
class HalfCloseableTLSLayer(TLSLayer):
    """The layer of a connection that may answer when its peer has ended its side."""

    def writeConnectionLost(self) -> None:
        """Tell that our side has ended."""
        self._connection.writeConnectionLost()

    def readConnectionLost(self) -> None:
        """Tell the end of the peer's side, once: a goodbye may have come before the FIN."""
        if not self._is_ended:
            self._is_cut = True
            self._bring(self._rest)

    def _end_peer_side(self) -> None:
        self._connection.readConnectionLost()


def make_layer(connection: Any, session: Session, owner: LayerOwner) -> Any:
    """Make the layer that fits a connection."""
    can_half_close = IHalfCloseableProtocol.providedBy(connection)
    return (HalfCloseableTLSLayer if can_half_close else TLSLayer)(connection, session, owner)
