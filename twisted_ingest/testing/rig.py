"""
A peer without a kernel, and a listener without sockets.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_ingest.admin.survey import Survey
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.drain import drain_sources, flush_sinks
from twisted_ingest.flow.intake import Intake
from twisted_ingest.flow.rate import PeerBuckets
from twisted_ingest.limits import CONNECTION_MEMORY, DRAIN_TIMEOUT, FLUSH_GRACE, MEMORY, READ_SIZE, ListenerLimits
from twisted_ingest.observe.events import Events
from twisted_ingest.observe.log import LogWriter
from twisted_ingest.server.admission import Admission
from twisted_ingest.server.connection import Connection
from twisted_ingest.server.factory import ConnectionFactory
from twisted_ingest.sources.listener import Listener
from twisted_ingest.sources.registry import LINES, SourceContext, source_types
from twisted_ingest.testing.lending import Lender, LendingIntake
from twisted_ingest.testing.sinks import MemorySink


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


def _hung_up(transports: Sequence[Any]) -> list[Any]:
    # A layer (TLS) stands before the transport that carries it.
    return [transport for transport in transports if getattr(transport, "carrier", transport).has_hung_up()]


class Rig:
    """
    A listener without sockets: factory, intake and sinks on a `Clock`.

    ``wall_time`` is the clock too, so that stamps are reproducible. Batches are lent their bytes
    by ``lender``, as they are where much is read: a sink that uses one after its group was settled meets
    ``ValueError``. With ``lends`` false their bytes are their own.
    """

    def __init__(
        self,
        *sinks: Any,
        memory: int = MEMORY,
        connection_memory: int = CONNECTION_MEMORY,
        max_connections: int = 1000,
        per_peer: int | None = None,
        descriptors: int | None = None,
        protocol: type[Connection] | None = None,
        wire: str = LINES,
        arrivals: PeerBuckets | None = None,
        required: bool = True,
        lends: bool = True,
        **limits: Any,
    ) -> None:
        self.clock = Clock()
        self.events = Events(self.clock.seconds)
        self.admission = Admission(max_connections, per_peer, descriptors=descriptors, arrivals=arrivals)
        self.lender = Lender()
        lender = self.lender if lends else None
        self.intake: Intake = LendingIntake(self.clock, Budget(memory), connection_memory, lender)
        self.intake.on_rejected = self.events.sink_rejected
        self.intake.on_bug = self.events.bug
        self.sinks = sinks or (MemorySink(),)
        for sink in self.sinks:
            self.intake.add_sink(sink, required=required)
        kind = source_types()[wire]
        context = SourceContext(
            self.clock,
            self.events,
            self.clock.seconds,
            count(1),
            ListenerLimits(protocol=kind.word, **limits),
            self.intake,
            self.admission,
        )
        table = kind.table(endpoint="none", protocol=kind.word)
        made: Any = kind.make("test", table, context)
        self.listener: Listener = made
        self.factory: ConnectionFactory = self.listener.factory
        if protocol is not None:
            self.factory.protocol = protocol
        self.factory.find_hung_up = _hung_up
        self.survey = Survey(
            sources=[self.listener],
            intake=self.intake,
            admission=self.admission,
            events=self.events,
            log=LogWriter(),
            seconds=self.clock.seconds,
            wall_time=self.clock.seconds,
            limits={},
        )

    @property
    def sink(self) -> Any:
        """The first sink."""
        return self.sinks[0]

    def connect(self, host: str = "192.0.2.1", port: int = 40000) -> PumpTransport:
        """Connect a peer; raises ``ConnectionRefusedError`` when it is not admitted."""
        peer = IPv4Address("TCP", host, port)
        protocol = self.factory.buildProtocol(peer)
        if protocol is None:
            raise ConnectionRefusedError(host)
        transport = PumpTransport(self.clock, peer)
        try:
            transport.connect(protocol)
        except Exception:  # noqa: BLE001 - as our ports do
            self.events.internal_error("makeConnection")
            transport.abortConnection()
        return transport

    def turn(self, seconds: float = 0.0) -> None:
        """Let the reactor turn, or time pass in steps of a second with the sweep in each."""
        while seconds >= 1:
            self.clock.advance(1)
            self.factory.sweep(self.clock.seconds())
            seconds -= 1
        self.clock.advance(seconds)

    def drain(self, seconds: float = DRAIN_TIMEOUT) -> "Deferred[None]":
        """
        Stop as the service does; the clock has to go on meanwhile.

        The Deferred fires with ``None`` within ``seconds`` and the grace of the sinks, whatever they do.
        """
        return Deferred.fromCoroutine(self._drain(self.clock.seconds() + seconds))

    async def _drain(self, deadline: float) -> None:
        self.admission.draining = True
        await drain_sources(self.clock, [self.listener], deadline, self.events.bug)
        await flush_sinks(self.clock, self.intake, deadline + FLUSH_GRACE)

    def send(self, data: bytes, chunk_size: int = READ_SIZE) -> PumpTransport:
        """Connect, send, read, and let one turn pass."""
        transport = self.connect()
        transport.peer_sends(data)
        transport.pump(chunk_size)
        self.turn()
        return transport
