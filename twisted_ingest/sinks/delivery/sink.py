"""
What sinks have in common that send on ordered connections, and the keys of their tables.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator
from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from zope.interface import implementer

from twisted_ingest.batch import Group
from twisted_ingest.config.fields import About, Duration, OptionalDuration
from twisted_ingest.errors import Durability, SinkError
from twisted_ingest.interfaces import ISink
from twisted_ingest.limits import USER_TIMEOUT_MS
from twisted_ingest.resolving import let_stop_not_wait
from twisted_ingest.sinks.delivery.account import Account
from twisted_ingest.sinks.delivery.exchange import StreamParts
from twisted_ingest.sinks.delivery.requests import Delivery
from twisted_ingest.sinks.delivery.session import Session
from twisted_ingest.sinks.delivery.stream import Stream
from twisted_ingest.sinks.delivery.targets import EndpointMaker, Target, parse_targets
from twisted_ingest.sinks.registry import SinkContext, SinkTable
from twisted_ingest.storage.trouble import HELD_BACK

KEPT = "its spool keeps records meanwhile"

Targets = Annotated[tuple[Target, ...], BeforeValidator(parse_targets)]


class StreamSettings(SinkTable):
    """``[sinks.NAME]`` of a kind that sends on ordered connections."""

    address: Annotated[
        Targets,
        About(
            "HOST:PORT",
            "of the receiver, or several with commas between (a list in TOML)",
            "``[IPV6]:PORT`` and client endpoints of Twisted's (``unix:/run/x``) will do as well",
        ),
    ]
    balance: Annotated[
        Literal["failover", "connection"],
        About(
            "failover|connection:",
            "several targets are for when one is down, or are each given some of the senders",
            "by the connection that a record came on; whose target is down go to the next one",
        ),
    ] = "failover"
    timeout: Annotated[
        Duration,
        About("DURATION", "without an answer, or any progress, after which a connection is given up for another"),
    ] = USER_TIMEOUT_MS / 1000 * 3 / 4
    rebind: Annotated[
        OptionalDuration,
        About("DURATION|off", "after which a connection is ended in good order and made anew, names looked up again"),
    ] = None


@implementer(ISink)
class StreamSink:
    """
    Sends to one target at a time, or to several, among which the senders' connections are shared out.

    Records of one sender's connection stay in order, but for those that are sent again.
    """

    wants_groups = False

    def __init__(
        self,
        name: str,
        table: StreamSettings,
        context: SinkContext,
        make_session: Callable[[], Session],
        *,
        durability: Durability,
        endpoint: EndpointMaker | None = None,
    ) -> None:
        self.name = name
        self.durability = durability
        self._kind = table.type
        self._targets = table.address
        self._reactor = context.reactor
        self._account = Account()
        parts = StreamParts(
            name=name,
            reactor=context.reactor,
            events=context.events,
            wall_time=context.wall_time,
            charge=context.charge,
            account=self._account,
            endpoint=endpoint or self._endpoint,
            make_session=make_session,
            timeout=table.timeout,
            rebind=table.rebind,
            meanwhile=KEPT if context.is_patient else HELD_BACK,
        )
        ways = len(table.address) if table.balance == "connection" else 1
        self._streams = [Stream(_turned(table.address, way), parts) for way in range(ways)]
        self._failure: SinkError | None = None

    def _endpoint(self, target: Target, timeout: float) -> Any:
        return target.endpoint(self._reactor, timeout)

    @property
    def trouble(self) -> str | None:
        """See `ISink`."""
        troubles = [stream.trouble for stream in self._streams if stream.trouble is not None]
        return "; ".join(dict.fromkeys(troubles)) or None

    def describe(self) -> str:
        """See `ISink`."""
        joint = " and " if len(self._streams) > 1 else ", else "
        return f"{self._kind} to {joint.join(target.text for target in self._targets)}"

    def start(self) -> None:
        """See `ISink`: a target that is down is waited for."""
        let_stop_not_wait(self._reactor)
        for stream in self._streams:
            stream.start()

    def deliver(self, group: Group) -> "Deferred[Any]":
        """See `ISink`."""
        if self._failure is not None:
            return fail(self._failure)
        if not group.batches:
            return succeed(None)
        delivery, streams = Delivery(group), self._streams
        for batch in group.batches:
            streams[batch.info.id % len(streams)].put(delivery, batch)
        for stream in streams:
            stream.send()
        return delivery.done

    def reopen(self) -> None:
        """See `ISink`: nothing was rotated."""

    def close(self) -> "Deferred[None]":
        """See `ISink`."""
        if any(request.is_gone for stream in self._streams for request in stream.queue):
            self.abandon()  # whoever handed them over has given them up, and taken back their bytes
        closed: Deferred[Any] = DeferredList([stream.close() for stream in self._streams])
        return closed.addCallback(lambda _: None)

    def abandon(self) -> None:
        """See `ISink`."""
        self._failure = SinkError(f"sink {self.name} was abandoned at shutdown")
        for stream in self._streams:
            stream.abandon(self._failure)

    def details(self) -> Mapping[str, float]:
        """See `ISink`."""
        queues = [stream.queue for stream in self._streams]
        return {
            **self._account.details(),
            "dead_letter_records": 0,
            "in_flight_requests": sum(queue.requests_sent for queue in queues),
            "connected": sum(stream.is_connected for stream in self._streams),
        }


def _turned(targets: Sequence[Target], number: int) -> Sequence[Target]:
    """Give the targets in the order in which one of several streams tries them."""
    return [*targets[number:], *targets[:number]]
