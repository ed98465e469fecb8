"""
A listener: the source whose records come over connections that others make.
"""

from collections.abc import Callable, Mapping
from typing import Any

from zope.interface import implementer

from twisted_ingest.errors import CloseReason, ConfigurationError, Durability, Problem
from twisted_ingest.flow.route import Route
from twisted_ingest.interfaces import IListener
from twisted_ingest.ledger import ListenerLedger, SourceBalance
from twisted_ingest.limits import OVERSLEPT
from twisted_ingest.server.admission import Admission
from twisted_ingest.server.binding import Binding
from twisted_ingest.server.certificates import CertificateError
from twisted_ingest.server.connection import Connection
from twisted_ingest.server.factory import ConnectionFactory
from twisted_ingest.server.tls import TLS
from twisted_ingest.server.tls_renewal import Renewal, in_thread
from twisted_ingest.sources.registry import ListenerTable, SourceContext
from twisted_ingest.sources.tls import TLSTable

LOOPBACK = frozenset({"127.0.0.1", "::1"})

_PROMISES = {
    Durability.MEMORY: "a record is in memory",
    Durability.WRITTEN: "a record is written",
    Durability.FSYNC: "a record is on disk",
    Durability.DELIVERED: "the next hop has taken a record",
}


@implementer(IListener)
class Listener(Binding):
    """
    One place where records come in: an endpoint, its port, and the factory behind it.

    Made by the service, which also stops it.
    """

    factory: ConnectionFactory

    def __init__(self, endpoint: str, factory: ConnectionFactory, reactor: Any, admission: Admission) -> None:
        super().__init__(endpoint, factory, reactor, admission)
        self.tls: TLS | None = None
        """Of a listener that speaks it."""

    # What it is.

    @property
    def protocol(self) -> str:
        """What is spoken, in one word of the configuration."""
        return self.factory.limits.protocol

    @property
    def answers(self) -> bool:
        """Whether peers are told what is safe."""
        return self.factory.answers

    @property
    def durability(self) -> Durability:
        """What must be true of a record once it counts as taken."""
        return self.factory.limits.durability

    @property
    def route(self) -> Route:
        """The way of its records to their sinks."""
        return self.factory.route

    @property
    def ledger(self) -> ListenerLedger:
        """The counts."""
        return self.factory.ledger

    @property
    def is_up(self) -> bool:
        """Whether the port is open."""
        return self.port is not None

    def describe(self) -> str:
        """See `ISource`."""
        limits, about = self.factory.limits, []
        if self.answers:
            about += [self.protocol.upper(), f"answers once {_PROMISES[limits.durability]}"]
        if self.tls is not None:
            about.append(f"TLS, {self._who_may_send(self.tls)}")
        return f"listening {self.address} ({self.name}{': ' if about else ''}{', '.join(about)})"

    def _who_may_send(self, tls: TLS) -> str:
        if tls.peers is not None:
            return f"for {tls.peers}"
        return "for whom the client CA vouches" if tls.renewal.asks else "for everybody"

    def hints(self) -> list[tuple[str, str]]:
        """See `ISource`: give a command that sends a line, and who else could send one; none for a UNIX socket."""
        address = self.port.getHost() if self.port is not None else None
        if address is None or not hasattr(address, "port"):
            return []
        host, port = address.host, address.port
        near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return [("try", self._example(near, port)), ("network", self._exposure(host, port))]

    def _example(self, host: str, port: int) -> str:
        is_proxied = self.factory.limits.proxies is not None
        header = "PROXY UNKNOWN\\r\\n" if is_proxied and self.tls is None else ""
        client = f"nc -w1 {host} {port}"
        if self.tls is not None:
            shown = " -cert FILE -key FILE" if self.tls.renewal.asks else ""
            # No client sends a header before its handshake: that is for a proxy.
            place = "PROXY:PORT" if is_proxied else f"{host}:{port}"
            client = f"openssl s_client -quiet -no_ign_eof -connect {place}{shown}"
        if not self.answers:
            return f"printf '{header}hello\\n' | {client}"
        offers = "relp_version=0\\ncommands=syslog"
        return f"printf '{header}1 open 30 {offers}\\n2 syslog 5 hello\\n3 close 0\\n' | {client}"

    def _exposure(self, host: str, port: int) -> str:
        """Say who can send, and how to change that."""
        proxies = self.factory.limits.proxies
        if proxies is not None:
            return f"only proxies can connect, from {proxies}: each connection begins with a PROXY header"
        if self.tls is not None and self.tls.renewal.asks:
            return f"who reaches this address and has a certificate can send: {self._who_may_send(self.tls)}"
        if host in LOOPBACK:
            flag = f"{'--relp' if self.answers else '--listen'}{'' if self.tls is None else '-tls'}"
            opening = f"{flag} tcp:{port} --allow 192.0.2.0/24 opens it to a network"
            return f"only this machine can connect; {opening}"
        if self.factory.limits.allow:
            return "the networks of --allow can send: nobody is authenticated"
        return f"whoever can reach this address can send (--allow NETWORK narrows that{self._also_narrows()})"

    def _also_narrows(self) -> str:
        return "" if self.tls is None else ", --tls-client-ca FILE asks for certificates"

    def set_protocol(self, protocol: type[Any]) -> None:
        """See `IListener`."""
        self.factory.protocol = protocol

    # What it does. It accepts from the moment it is bound.

    def start(self) -> None:
        """Do nothing: the reactor accepts once it runs."""

    def connections(self) -> Mapping[int, Connection]:
        """See `ISource`."""
        return self.factory.connections

    def sweep(self, now: float, overslept: float) -> None:
        """See `ISource`."""
        if overslept >= OVERSLEPT:
            self.factory.forgive(overslept)
        if self.tls is not None:
            self.tls.renewal.sweep(now)
        self.factory.sweep(now)

    def renew(self) -> None:
        """See `IListener`."""
        if self.tls is not None:
            self.tls.renewal.renew()

    # At a stop.

    @property
    def is_drained(self) -> bool:
        """Whether no connection is left."""
        return not self.factory.connections

    def begin_drain(self) -> None:
        """Have peers notice, and read on; nobody else comes in."""
        self.factory.doorways.clear()
        self._each(lambda connection: connection.begin_drain())

    def drain(self, now: float) -> None:
        """End the connections that are done."""
        self._each(lambda connection: connection.drain(now))

    def end_drain(self) -> None:
        """Reset the connections that are left."""
        self._each(lambda connection: connection.close(CloseReason.DRAIN, reset=True))

    def _each(self, act: Callable[[Connection], None]) -> None:
        for connection in list(self.factory.connections.values()):
            try:
                act(connection)
            except Exception:  # noqa: BLE001 - the others have lines to be read
                connection.fail("a stop")

    # What it has to say.

    def balance(self) -> SourceBalance:
        """See `ISource`."""
        factory, tls = self.factory, self.tls
        balance = SourceBalance(factory.buffered(), *factory.unanswered(), len(factory.doorways))
        if tls is None:
            return balance
        return balance._replace(handshakes=tls.active, certificate=tls.renewal.state())

    def status(self) -> dict[str, Any]:
        """See `ISource`."""
        limits = self.factory.limits
        return {
            "name": self.name,
            "endpoint": self.endpoint,
            "address": self.address,
            "trouble": self.trouble,
            "protocol": self.protocol,
            "durability": limits.durability.value,
            "sinks": [outlet.sink.name for outlet in self.route.outlets],
            "framing": limits.framing and limits.framing.value,
            "max_length": limits.max_record_bytes,
            "oversize": limits.oversize.value,
            "idle_timeout_seconds": limits.idle_timeout_seconds,
            "idle_until_first_record": limits.idle_until_first_record,
            "frame_timeout_seconds": limits.frame_timeout_seconds,
            "allow": None if limits.allow is None else str(limits.allow),
            "proxy_protocol_from": None if limits.proxies is None else str(limits.proxies),
            "rate": None if limits.rate is None else str(limits.rate),
            "rate_per_peer": None if limits.rate_per_peer is None else str(limits.rate_per_peer),
            "tls": None if self.tls is None else self.tls.status(),
        }


def make_listener(factory: type[ConnectionFactory]) -> Callable[[str, ListenerTable, SourceContext], Listener]:
    """Give what makes a listener from its table, whose connections a factory of this class builds."""

    def make(name: str, table: ListenerTable, context: SourceContext) -> Listener:
        made = factory(
            name,
            context.limits,
            intake=context.intake,
            admission=context.admission,
            events=context.events,
            clock=context.reactor,
            wall_time=context.wall_time,
            ids=context.ids,
            sinks=table.sinks,
        )
        listener = Listener(table.endpoint, made, context.reactor, context.admission)
        if table.tls is not None:
            _speak_tls(listener, table.tls, context)
        return listener

    return make


def _speak_tls(listener: Listener, table: TLSTable, context: SourceContext) -> None:
    """Put TLS before the connections of a listener. Raises `ConfigurationError`: its files may have changed since."""
    events, run = context.events, in_thread(context.reactor)
    try:
        renewal = Renewal(listener.name, table.files, events=events, wall_time=context.wall_time, run=run)
    except CertificateError as error:
        raise ConfigurationError([Problem(f"listener {listener.name!r}", str(error))]) from error
    tls = TLS(renewal, table.peers, events=events, intake=context.intake, clock=context.reactor)
    listener.tls, listener.ledger.tls = tls, tls.ledger
    listener.factory.stages = (*listener.factory.stages, tls)
