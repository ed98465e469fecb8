"""
What the process says of itself: at the start where everything is and what to try, at the end what became of it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twisted.logger import LogLevel

from twisted_ingest import __version__
from twisted_ingest.errors import Caution, DropReason, Durability, WireProtocol
from twisted_ingest.ledger import ListenerLedger
from twisted_ingest.observe.events import Events
from twisted_ingest.observe.metrics import View
from twisted_ingest.server.listener import Listener

LOOPBACK = frozenset({"127.0.0.1", "::1"})

_PROMISES = {
    Durability.MEMORY: "a record is in memory",
    Durability.WRITTEN: "a record is written",
    Durability.FSYNC: "a record is on disk",
}


def banner(
    listeners: Sequence[Listener], sinks: Sequence[str], admin: str | None, cautions: Sequence[Caution] = ()
) -> list[str]:
    """
    Say where everything is, and what to try; ``sinks`` describe them, ``admin`` is the endpoint's address.

    ``cautions`` are what the configuration says that may not be meant.
    """
    lines = [f"twisted-ingest {__version__}"]
    lines += [f"  listening  {listener.address} ({_described(listener)})" for listener in listeners]
    lines += [f"  lines to   {sink}" for sink in sinks]
    lines += [f"  warning    {caution.where}: {caution.message}" for caution in cautions]
    if admin is not None:
        lines.append(f"  metrics    {admin}/metrics")
    host, port, is_relp = _first_tcp(listeners)
    if port:
        near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        lines.append(f"  try        {_example(near, port, is_relp=is_relp)}")
        lines.append(f"  network    {_exposure(listeners, host, port, is_relp=is_relp)}")
    return lines


def _exposure(listeners: Sequence[Listener], host: str, port: int, *, is_relp: bool) -> str:
    """Say who can send, and how to change that."""
    if host in LOOPBACK:
        opening = f"--{'relp' if is_relp else 'listen'} tcp:{port} --allow 192.0.2.0/24 opens it to a network"
        return f"only this machine can connect; {opening}"
    if all(listener.factory.limits.allow for listener in listeners):
        return "the networks of --allow can send: plain TCP has no authentication"
    return "whoever can reach this address can send (--allow NETWORK narrows that)"


def _described(listener: Listener) -> str:
    limits = listener.factory.limits
    if limits.protocol is WireProtocol.LINES:
        return listener.name
    return f"{listener.name}: {limits.protocol.value.upper()}, answers once {_PROMISES[limits.durability]}"


def _example(host: str, port: int, *, is_relp: bool) -> str:
    """Give a command that sends a line to try it with."""
    if not is_relp:
        return f"printf 'hello\\n' | nc -w1 {host} {port}"
    offers = "relp_version=0\\ncommands=syslog"
    return f"printf '1 open 30 {offers}\\n2 syslog 5 hello\\n3 close 0\\n' | nc -w1 {host} {port}"


def _first_tcp(listeners: Sequence[Listener]) -> tuple[str, int, bool]:
    """Find the first TCP address that is listened on, one for lines before one for RELP."""
    lines_first = sorted(listeners, key=lambda listener: listener.factory.answers)
    for listener in lines_first:
        host = listener.port.getHost() if listener.port is not None else None
        if host is not None and hasattr(host, "port"):
            return host.host, host.port, listener.factory.answers
    return "", 0, False


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What came in until a stop, and what became of it."""

    connections: int
    records: int
    delivered: Mapping[str, int]
    """Records by sink."""
    dropped: Mapping[str, int]
    """Records by reason, those with none left out."""
    cut: int
    """Records that the stop cut off; they were delivered as far as they had come."""
    unread: int
    """Bytes that the stop left in the kernel."""
    lost: int
    """Records that a required sink should have taken, had the stop not come before."""
    conservation_error: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing was lost or cut off."""
        return not (self.dropped or self.cut or self.unread or self.conservation_error)

    def tell(self, events: Events) -> None:
        """Log it in one line: a warning where it is not whole."""
        events.note(
            "stopped: {connections} connections, {records} records in, {delivered} delivered, dropped {dropped}, "
            "{cut} records cut off by the stop, {unread} bytes left unread in the kernel, "
            "conservation error {error}",
            level=LogLevel.info if self.is_whole else LogLevel.warn,
            connections=self.connections,
            records=self.records,
            delivered=", ".join(f"{count} by {sink}" for sink, count in self.delivered.items()),
            dropped=", ".join(f"{count} ({reason})" for reason, count in self.dropped.items()) or "0",
            cut=self.cut,
            unread=self.unread,
            error=self.conservation_error,
            event="stopped",
        )


def summarize(view: View, ledgers: Sequence[ListenerLedger], unread: int) -> Summary:
    """Sum up at the end of a stop that left ``unread`` bytes in the kernel."""
    dropped: Counter[str] = Counter()
    for losses in (*(sink.dropped_records for sink in view.sinks), *(ledger.records_dropped for ledger in ledgers)):
        dropped.update({reason.value: lost for reason, lost in losses.items()})
    return Summary(
        connections=sum(ledger.connections_opened for ledger in ledgers),
        records=sum(ledger.records_framed for ledger in ledgers),
        delivered={sink.name: sink.delivered_records for sink in view.sinks},
        dropped={reason: lost for reason, lost in dropped.items() if lost},
        cut=sum(ledger.records_cut for ledger in ledgers),
        unread=unread,
        lost=sum(sink.dropped_records[DropReason.SHUTDOWN] for sink in view.sinks if sink.required),
        conservation_error=view.conservation_error,
    )
