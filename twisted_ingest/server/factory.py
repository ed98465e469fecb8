"""
One listener's connections: admits them, builds their protocols, and keeps the registry of those alive.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from itertools import count
from typing import Any

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory

from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import CloseReason, Durability, RefuseReason
from twisted_ingest.flow.intake import Intake
from twisted_ingest.flow.rate import Meter, PeerBuckets, TokenBucket
from twisted_ingest.flow.route import Route
from twisted_ingest.flow.slabs import Slabs
from twisted_ingest.framing.base import Framer
from twisted_ingest.ledger import ListenerLedger
from twisted_ingest.limits import ListenerLimits
from twisted_ingest.networks import AllowList
from twisted_ingest.observe.events import Events
from twisted_ingest.server.admission import Admission
from twisted_ingest.server.connection import Connection
from twisted_ingest.server.doorway import Doorway
from twisted_ingest.server.doorways import Doorways
from twisted_ingest.server.kernel import hung_up
from twisted_ingest.server.proxy import ProxyStage
from twisted_ingest.server.stages import IStage, TurnedAwayError
from twisted_ingest.server.transports import IngestTransport, address_text


class ConnectionFactory(ServerFactory):
    """
    Builds connections, of a kind that subclasses name, and tracks each from ``connectionMade`` to ``connectionLost``.

    ``limits`` may be replaced at any time; timeouts of live connections follow, framing does not.
    ``ids`` is shared by the listeners of a process. ``wall_time`` stamps batches, ``clock`` drives timers.
    """

    noisy = False
    answers = False
    """Whether peers are told what is safe."""
    base: type[Connection] = Connection
    """What its connections are, or subclasses of."""

    def __init__(
        self,
        name: str,
        limits: ListenerLimits,
        *,
        intake: Intake,
        admission: Admission,
        events: Events,
        clock: IReactorTime,
        wall_time: Callable[[], float],
        ids: "Iterator[int] | None" = None,
        sinks: Sequence[str] | None = None,
    ) -> None:
        self.name = name
        self.sinks = sinks
        """Where its records go, by name; ``None``: to every sink."""
        self.limits = limits
        self.ledger = self.make_ledger()
        self.connections: dict[int, Connection] = {}
        self.stages: Sequence[Callable[[], IStage]] = ()
        """
        What makes the stages that newcomers go through before they are admitted, behind that of the PROXY header where
        the limits name proxies; mostly none.
        """
        self.clock = clock
        self.wall_time = wall_time
        self.events = events
        self._intake = intake
        self._admission = admission
        self.doorways = Doorways(self, admission, intake)
        self._unheard: dict[int, Connection] = {}
        """Proxies that speak for themselves, and have sent nothing: of them the log says nothing."""
        self._ids = count(1) if ids is None else ids
        self._peers: PeerBuckets | None = None
        self._protocol = self.base
        self.find_hung_up: Callable[[Sequence[IngestTransport]], Container[IngestTransport]] = hung_up

    def make_ledger(self) -> ListenerLedger:
        """Make the listener's counts."""
        return ListenerLedger()

    def buildProtocol(self, addr: IAddress | None) -> Connection | Doorway | None:
        """
        Admit a peer, or return ``None``; with ``stages``, make a doorway for it.

        Never raises: an exception here would leave the socket open.
        """
        try:
            peer, host = address_text(addr) if addr is not None else ("unknown", None)
            proxies = self.limits.proxies
            if self.stages or proxies is not None:
                return self._make_doorway(peer, host, proxies)
            refused = self._refusal(host)
            if refused is not None:
                self.events.connection_refused(self.ledger, self.name, peer, refused)
                return None
            return self.make_connection(ConnectionInfo(next(self._ids), self.name, peer, host))
        except Exception:  # noqa: BLE001
            self.ledger.connections_refused[RefuseReason.INTERNAL_ERROR] += 1
            self.events.internal_error("buildProtocol")
            return None

    def _refusal(self, host: str | None) -> RefuseReason | None:
        allow = self.limits.allow
        if allow is not None and not allow.admits(host):
            return RefuseReason.NOT_ALLOWED
        return self._admission.refusal(host, self.clock.seconds())

    # Those who stand in the doorway are judged as soon as it is known whose address counts, and again at its end.

    def _make_doorway(self, peer: str, host: str | None, proxies: AllowList | None) -> Doorway | None:
        makers, refused = self.stages, None
        if proxies is None:
            refused = self._refusal(host)
        else:
            makers = (lambda: ProxyStage(self), *makers)
            if self._admission.draining:
                refused = RefuseReason.DRAINING
            elif not proxies.admits(host):
                refused = RefuseReason.PROXY_UNTRUSTED
        if refused is not None:
            self.events.connection_refused(self.ledger, self.name, peer, refused)
            return None
        return self.doorways.make(ConnectionInfo(next(self._ids), self.name, peer, host), makers)

    def judge(self, info: ConnectionInfo) -> None:
        """See `ProxyOwner`."""
        refused = self._refusal(info.host)
        if refused is not None:
            raise TurnedAwayError(refused)

    def admit(self, info: ConnectionInfo) -> Connection:
        """See `DoorwaysOwner`."""
        refused = self._admission.last_refusal(info.host, info.proxy)
        if refused is not None:
            raise TurnedAwayError(refused)
        return self.make_connection(info)

    @property
    def protocol(self) -> type[Connection]:
        """The class of the connections to come: ``base``, or a subclass. Set to another it raises ``TypeError``."""
        return self._protocol

    @protocol.setter
    def protocol(self, protocol: type[Connection]) -> None:
        if not issubclass(protocol, self.base):
            raise TypeError(f"listener {self.name!r} needs a subclass of {self.base.__name__}, not {protocol!r}")
        self.check_protocol(protocol)
        self._protocol = protocol

    def check_protocol(self, protocol: type[Any]) -> None:
        """Raise ``TypeError`` or ``ValueError`` where this listener cannot have what the class declares."""

    def make_connection(self, info: ConnectionInfo) -> Connection:
        """Make the connection of a peer that is admitted."""
        return self._protocol(info, self, self.make_framer(info, None, None), self.open_lane())

    def make_framer(self, info: ConnectionInfo, delimiter: bytes | None, max_length: int | None) -> Framer:
        """Make the framer of a connection; see `ConnectionOwner`."""
        raise NotImplementedError

    @property
    def slabs(self) -> Slabs:
        """What its connections' reads are received into."""
        return self._intake.slabs

    @property
    def route(self) -> Route:
        """The way of the records of connections to come."""
        return self._intake.route(self.sinks, needs_sync=self.limits.durability.covers(Durability.FSYNC))

    def open_lane(self) -> Any:
        """Open the lane of a connection."""
        return self._intake.open_lane(self.route)

    def meters(self, info: ConnectionInfo) -> tuple[Meter, ...]:
        """Make what holds a connection to its rates; none for most."""
        limits, now = self.limits, self.clock.seconds()
        found = []
        if limits.rate is not None:
            found.append(Meter(TokenBucket(limits.rate.per_second, now), limits.rate))
        if limits.rate_per_peer is not None and info.host is not None:
            if self._peers is None or self._peers.rate != limits.rate_per_peer.per_second:
                self._peers = PeerBuckets(limits.rate_per_peer.per_second)
            found.append(Meter(self._peers.of(self._admission.peer(info.host), now), limits.rate_per_peer))
        return tuple(found)

    def connection_made(self, connection: Connection) -> None:
        """Enter a connection in the registry."""
        info = connection.info
        self.connections[info.id] = connection
        self._admission.enter(info.host, info.proxy)
        if info.proxy is not None and info.proxy == info.peer:
            self._unheard[info.id] = connection
            self.ledger.connections_opened += 1
        else:
            self.events.connection_opened(self.ledger, info)

    def connection_lost(self, connection: Connection, reason: CloseReason) -> None:
        """Strike a connection from the registry. Safe to call for one that was never entered."""
        info = connection.info
        if self.connections.pop(info.id, None) is None:
            return
        (self._admission.bury if connection.departed else self._admission.leave)(info.host, info.proxy)
        if info.id in self._unheard:
            self._hear()
            if self._unheard.pop(info.id, None) is not None:
                self.ledger.connections_closed[reason] += 1
                return
        self.events.connection_closed(self.ledger, info, reason, connection.records, connection.bytes_received)

    def _hear(self) -> None:
        """Tell of the proxies that have sent something after all."""
        for number, connection in list(self._unheard.items()):
            if connection.bytes_received:
                del self._unheard[number]
                self.events.connection_heard(connection.info)

    def connection_departed(self, connection: Connection) -> None:
        """Take a connection whose peer is gone out of the cap; it stays in the registry until its bytes are read."""
        self._admission.depart()
        self.events.peer_departed(connection.info, connection.transport.unread_bytes())

    def sweep(self, now: float) -> None:
        """Let every connection look at its deadlines, and see which of the paused ones have lost their peer."""
        self.doorways.sweep(now)
        self._hear()
        for connection in list(self.connections.values()):
            try:
                connection.sweep(now)
            except Exception:  # noqa: BLE001 - the deadlines of the others hold all the same
                connection.fail("sweep")
        self._find_departed()

    def _find_departed(self) -> None:
        """See which of those not read from have lost their peer: nobody else would (twisted #11168)."""
        paused = [connection for connection in self.connections.values() if connection.paused]
        gone = self.find_hung_up([connection.transport for connection in paused])
        for connection in paused:
            if connection.transport in gone:
                try:
                    connection.hang_up()
                except Exception:  # noqa: BLE001 - as above
                    connection.fail("hang_up")

    def forgive(self, seconds: float) -> None:
        """Let time that the process slept count towards no connection's deadlines."""
        self.doorways.forgive(seconds)
        for connection in list(self.connections.values()):
            try:
                connection.forgive(seconds)
            except Exception:  # noqa: BLE001 - as in the sweep
                connection.fail("forgive")

    def buffered(self) -> int:
        """Recount, from the live framers, the bytes of unfinished records, and those of whoever has yet to come in."""
        return sum(connection.framer.buffered for connection in self.connections.values()) + self.doorways.buffered()

    def unanswered(self) -> tuple[int, int]:
        """Give the frames that wait for an answer, and the bytes of their records: none where nothing is answered."""
        return 0, 0
