"""
One request and its answer over a connection of their own, bounded in every direction.

The parsing is all `twisted.web.client.Agent`'s. What it lacks are bounds: of the headers, and of the work that the
smallest chunks make. Names are looked up in threads (see `resolving`).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from twisted_ingest.errors import PollResult
from twisted_ingest.limits import KIB
from twisted_ingest.sources.outcome import PollError
from twisted_ingest.sources.url import Url

HEADER_BYTES = 64 * KIB
"""Bytes of the headers of an answer, interim ones (1xx) included; one read more may be taken. Servers send a few
hundred, and refuse some 8 to 64 KiB of a client's themselves."""

MOST_INTERIM = 10
"""Interim answers (1xx) before an answer; servers give none or one to a GET."""

_BLANK_LINE = re.compile(rb"\n\r?\n")


class _Wire(ProtocolWrapper):
    """Stands between a connection and the parser of the answer."""

    def __init__(self, factory: Any, wrapped: Any) -> None:
        super().__init__(factory, wrapped)
        self._exchange: Exchange = factory.exchange
        self._tail = b""
        """The last bytes of the headers so far: a blank line may go on behind them."""

    def dataReceived(self, data: bytes) -> None:
        """Pass on what was read, unless the headers have no end."""
        exchange = self._exchange
        if not exchange.has_headers:
            exchange.heard += len(data)
            if exchange.heard - len(data) > HEADER_BYTES:
                exchange.has_too_long_headers = True
                exchange.drop()
                return
            self._pass_headers(data)
        else:
            super().dataReceived(data)
        exchange.read_is_over()

    def _pass_headers(self, data: bytes) -> None:
        """Pass on one block of headers at a time: the parser logs each interim one (1xx), so they have to be few."""
        exchange, passed = self._exchange, len(self._tail)
        joined = self._tail + data
        self._tail = joined[-2:]
        for blank in _BLANK_LINE.finditer(joined):
            if blank.end() > passed:
                super().dataReceived(joined[passed : blank.end()])
                passed = blank.end()
                if exchange.has_headers:
                    break
                exchange.interim += 1
                if exchange.interim > MOST_INTERIM:
                    exchange.has_too_long_headers = True
                    exchange.drop()
                    return
        super().dataReceived(joined[passed:])

    def connectionLost(self, reason: Failure = ConnectionDone) -> None:  # type: ignore[assignment]
        """Note how the connection ended: a body may end with it."""
        self._exchange.lost = reason
        super().connectionLost(reason)


class _Wires(WrappingFactory[_Wire]):
    """Makes the one wire of an exchange."""

    noisy = False

    def __init__(self, wrapped: Any, exchange: "Exchange") -> None:
        super().__init__(wrapped)
        self.exchange = exchange

    def buildProtocol(self, addr: Any) -> Any:
        """Make it."""
        self.exchange.wire = _Wire(self, self.wrappedFactory.buildProtocol(addr))
        return self.exchange.wire


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """Connects through a wire."""

    def __init__(self, endpoint: Any, exchange: "Exchange") -> None:
        self._endpoint = endpoint
        self._exchange = exchange

    def connect(self, protocol_factory: Any) -> "Deferred[Any]":
        """Connect; the Deferred fires with the protocol that was asked for."""
        # Twisted's own factory would log that it starts and stops, at each poll.
        protocol_factory.noisy = False
        connected: Deferred[Any] = self._endpoint.connect(_Wires(protocol_factory, self._exchange))
        return connected.addCallback(lambda wire: wire.wrappedProtocol)


class _Body(Protocol):
    """Takes a body, and gives it on once per read of the socket."""

    transport: Any

    def __init__(self, take: Callable[[bytes], None], ended: "Deferred[BaseException | None]") -> None:
        self._take = take
        self._ended = ended
        self._pieces: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        """Keep a piece: a read of one-byte chunks has thousands."""
        self._pieces.append(data)

    def give(self) -> None:
        """Give on what has come."""
        if self._pieces:
            data, self._pieces = b"".join(self._pieces), []
            self._take(data)

    def connectionLost(self, reason: Failure = ResponseDone) -> None:  # type: ignore[assignment]
        """Tell that no more will come."""
        self.give()
        self._ended.callback(reason.value)


@implementer(IAgentEndpointFactory)
class Exchange:
    """
    One GET. Whoever made it ends it with `drop`, however it went.

    ``policy`` says which certificates are trusted.
    """

    def __init__(self, reactor: Any, policy: IPolicyForHTTPS, timeout: float) -> None:
        self._reactor = reactor
        self._policy = policy
        self._timeout = timeout
        self._body: _Body | None = None
        self._response: Any = None
        self.wire: _Wire | None = None
        self.heard = 0
        """Bytes read before the headers were whole."""
        self.interim = 0
        """Blocks of headers before those of the answer."""
        self.has_too_long_headers = False
        self.lost: Failure | None = None
        """How the connection ended."""

    def endpointForURI(self, uri: Any) -> IStreamClientEndpoint:
        """Say how the server is connected to."""
        endpoint: Any = HostnameEndpoint(self._reactor, uri.host, uri.port, self._timeout)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return _Endpoint(endpoint, self)

    def get(self, url: Url, headers: Mapping[bytes, bytes]) -> "Deferred[None]":
        """Ask. The Deferred fires with ``None`` once the headers are here; cancelled, it ends the connection."""
        agent = Agent.usingEndpointFactory(self._reactor, self, HTTPConnectionPool(self._reactor, persistent=False))
        fields = Headers({name: [value] for name, value in headers.items()})
        asked: Deferred[Any] = agent.request(b"GET", url.text.encode(), fields)
        return asked.addCallbacks(self._answered, self._unanswered)

    def _answered(self, response: Any) -> None:
        self._response = response

    def _unanswered(self, failure: Failure) -> Failure:
        if self.has_too_long_headers:
            raise PollError(PollResult.PROTOCOL, f"its headers are longer than {HEADER_BYTES} bytes, or have no end")
        return failure

    @property
    def has_headers(self) -> bool:
        """Whether the headers are here."""
        return self._response is not None

    @property
    def status(self) -> int:
        """The status of the answer."""
        return int(self._response.code)

    @property
    def length(self) -> int | None:
        """How long the body says it is, in bytes."""
        length = self._response.length
        return length if isinstance(length, int) else None

    def first(self, name: bytes) -> bytes | None:
        """Give the first value of a header."""
        values: list[bytes] = self._response.headers.getRawHeaders(name, [])
        return values[0] if values else None

    async def read(self, take: Callable[[bytes], None], began: Callable[[], None]) -> bool:
        """
        Give the body on as it comes; ``began`` is called once it may be paused.

        Gives whether the body has said by itself where it ends, by a length or by chunks. Raises `PollError` where it
        did not come whole.
        """
        ended: Deferred[BaseException | None] = Deferred()
        self._body = body = _Body(take, ended)
        self._response.deliverBody(body)
        began()
        body.give()
        reason = await ended
        if isinstance(reason, ResponseDone):
            return True
        # Neither a length nor chunks: the body ends with the connection, if that ended in good order (RFC 9112, 8).
        if isinstance(reason, PotentialDataLoss) and self.lost is not None and self.lost.check(ConnectionDone):
            return False
        raise PollError(PollResult.UNFINISHED, "the connection ended before the body did")

    def read_is_over(self) -> None:
        """Give on what one read has brought of the body."""
        if self._body is not None:
            self._body.give()

    def pause(self) -> None:
        """Read no more of the body for now."""
        if self._body is not None:
            self._body.transport.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        if self._body is not None:
            self._body.transport.resumeProducing()

    def drop(self) -> None:
        """Let go of the connection at once: a goodbye of TLS would be waited for."""
        if self.wire is not None and self.lost is None:
            self.wire.abortConnection()
