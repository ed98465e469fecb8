"""
A listener without sockets.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

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
from twisted_ingest.testing.transport import PumpTransport


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
