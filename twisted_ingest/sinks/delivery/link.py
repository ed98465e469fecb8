"""
Keeping one connection up: to the first target that takes it, again and again.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import ConnectError, ConnectionAborted, ConnectionDone, DNSLookupError
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from twisted_ingest.backoff import Backoff
from twisted_ingest.sinks.delivery.targets import EndpointMaker, Target
from twisted_ingest.sinks.delivery.wire import Wire

CONNECT_SECONDS = 10.0
"""Seconds for a connection, the lookup of its name included: two packets lost (1 and 3 s), or a resolver's first
server silent (5 s), and it is there still."""

RECONNECT_SECONDS = (0.2, 30.0)
"""First and longest wait before the targets are tried again; doubled each time, cut by chance to between half and all
of it. A target that restarts is back in a second or two, one that flaps costs five connections a second."""


class LinkOwner(Protocol):
    """Who uses the connection."""

    def make_wire(self) -> Wire:
        """Make the protocol of a connection."""

    def unconnected(self, trouble: str) -> None:
        """Note why there is no connection at the moment; it is tried again."""


class _WireFactory(Factory):
    noisy = False

    def __init__(self, make: Callable[[], Wire]) -> None:
        self._make = make

    def buildProtocol(self, addr: Any) -> Wire:
        """Make it."""
        return self._make()


class Link:
    """
    Connects when it is told to, to the first of ``targets`` that can be reached.

    It begins with the first each time. ``target`` is the one connected to, or tried.
    """

    def __init__(self, targets: Sequence[Target], endpoint: EndpointMaker, reactor: Any, owner: LinkOwner) -> None:
        self._targets = targets
        self._endpoint = endpoint
        self._reactor = reactor
        self._owner = owner
        self._backoff = Backoff(*RECONNECT_SECONDS, jitter=True)
        self._next = 0
        self._attempt: Deferred[Any] | None = None
        self._retry: Any = None
        """The call that will connect."""
        self._is_stopped = False
        self.target = targets[0]

    def connect(self) -> None:
        """Connect, from the first target on."""
        self._next = 0
        self._try()

    def connect_later(self, trouble: str) -> None:
        """Connect in a while, longer each time until `progressed`: the last connection has not brought us on."""
        self._owner.unconnected(trouble)
        self._retry = self._reactor.callLater(self._backoff.lengthen(), self._again)

    def progressed(self) -> None:
        """Begin with short waits again: something was taken."""
        self._backoff.reset()

    def stop(self) -> None:
        """Connect no more."""
        self._is_stopped = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()

    def _again(self) -> None:
        self._retry = None
        self.connect()

    def _try(self) -> None:
        self.target = self._targets[self._next]
        try:
            endpoint = self._endpoint(self.target, CONNECT_SECONDS)
            attempt: Deferred[Any] = endpoint.connect(_WireFactory(self._owner.make_wire))
        except Exception:  # noqa: BLE001 - an endpoint may be anybody's
            self._failed(Failure())
            return
        self._attempt = attempt
        _ = attempt.addTimeout(CONNECT_SECONDS, self._reactor)
        _ = attempt.addCallbacks(self._connected, self._failed)

    def _connected(self, _: object) -> None:
        self._attempt = None

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        if self._is_stopped:
            return
        trouble = f"cannot connect to {self.target.text}: {reason_of(failure)}"
        self._next += 1
        if self._next < len(self._targets):
            self._owner.unconnected(trouble)
            self._try()
        else:
            self.connect_later(trouble)


def reason_of(failure: Failure) -> str:
    """Say in a few words why a connection could not be made, or has ended."""
    error = failure.value
    if isinstance(error, DNSLookupError):
        return "its name cannot be resolved"
    if isinstance(error, DeferredTimeoutError):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if isinstance(error, ConnectionAborted):
        return "the connection could not be used"
    if isinstance(error, ConnectionDone):
        return "it has closed the connection"
    number = getattr(error, "osError", None) if isinstance(error, ConnectError) else None
    text = str(number or error) or type(error).__name__
    return text.rstrip(".")
