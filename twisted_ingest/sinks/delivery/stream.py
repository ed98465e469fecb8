"""
One ordered way: whatever happens to its connections, each request is sent until it was answered for.
"""

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from twisted_ingest.batch import Batch
from twisted_ingest.errors import SinkError
from twisted_ingest.sinks.delivery.account import Outcome
from twisted_ingest.sinks.delivery.exchange import Exchange, StreamParts
from twisted_ingest.sinks.delivery.link import Link
from twisted_ingest.sinks.delivery.requests import Delivery, Queue, Request
from twisted_ingest.sinks.delivery.targets import Target
from twisted_ingest.sinks.delivery.wire import Wire


class Stream:
    """
    Sends what it is given in order, over one connection at a time, to the first of ``targets`` that takes it.

    ``trouble`` says why nothing is being taken at the moment; ``None``: all is well.
    """

    def __init__(self, targets: Sequence[Target], parts: StreamParts) -> None:
        self._parts = parts
        self._account = parts.account
        self.queue = Queue(self._settled)
        self._link = Link(targets, parts.endpoint, parts.reactor, self)
        self._exchange: Exchange | None = None
        self._closed: Deferred[None] | None = None
        self._has_told = False
        """Whether the trouble was told, so that its end has to be."""
        self.trouble: str | None = None

    @property
    def is_connected(self) -> bool:
        """Whether records can be sent."""
        return self._exchange is not None and self._exchange.is_open

    # From the sink.

    def start(self) -> None:
        """Connect."""
        self.trouble = f"connecting to {self._link.target.text}"
        self._link.connect()

    def put(self, delivery: Delivery, batch: Batch) -> None:
        """Add a batch; `send` follows."""
        self.queue.put(delivery, batch)

    def send(self) -> None:
        """Send what may be sent now."""
        if self._exchange is not None:
            self._exchange.send()

    def close(self) -> "Deferred[None]":
        """Finish what was put, then end the connection. The Deferred fires with ``None``."""
        if self._closed is None:
            self._closed = Deferred()
            self._end_if_done()
        return self._closed

    def abandon(self, error: SinkError) -> None:
        """Give up everything, and the connection."""
        self._closed = self._closed or Deferred()
        self._link.stop()
        self.queue.fail(error)
        if self._exchange is not None:
            self._exchange.drop("abandoned")
        self._end()

    def _end_if_done(self) -> None:
        if self._closed is None or len(self.queue):
            return
        if self._exchange is not None:
            self._exchange.leave("closing")
        else:
            self._link.stop()
            self._end()

    def _end(self) -> None:
        if self._closed is not None and not self._closed.called:
            self._closed.callback(None)

    def _settled(self, request: Request) -> None:
        outcome = Outcome.NEVER if request.has_refused else Outcome.TAKEN
        self._account.end(outcome, self._parts.reactor.seconds() - (request.since or 0.0))
        self._end_if_done()

    # Called by the link.

    def make_wire(self) -> Wire:
        """See `LinkOwner`."""
        return Exchange(self.queue, self._parts, self).wire

    def unconnected(self, trouble: str) -> None:
        """See `LinkOwner`."""
        self._account.retries += 1
        self._tell(trouble)

    # Called by the exchange.

    def begun(self, exchange: Exchange) -> None:
        """See `ExchangeOwner`."""
        if self._exchange is not None or (self._closed is not None and not len(self.queue)):
            exchange.drop("there is another")
        else:
            self._exchange = exchange

    def got_on(self) -> None:
        """See `ExchangeOwner`."""
        self.trouble = None
        if self._has_told:
            self._has_told = False
            self._parts.events.sink_recovered(self._parts.name, self._link.target.text)

    def answered(self) -> None:
        """See `ExchangeOwner`."""
        self._link.progressed()

    def stalled(self, waits_for: str) -> None:
        """See `ExchangeOwner`."""
        self._tell(f"{self._link.target.text} {waits_for}")

    def over(self, exchange: Exchange, why: str, *, is_ours: bool) -> None:
        """See `ExchangeOwner`: what is unanswered is sent again."""
        if exchange is not self._exchange:
            return
        self._exchange = None
        requests, records = self.queue.rewind()
        self._account.again(requests, records)
        self._account.retries += requests
        if self._closed is not None and not len(self.queue):
            self._end()
        elif is_ours:
            self.start()
        else:
            self._link.connect_later(f"{self._link.target.text}: {why}")

    def _tell(self, trouble: str) -> None:
        trouble = f"{trouble}; trying again, {self._parts.meanwhile}"
        if trouble != self.trouble:
            self.trouble = trouble
            self._has_told = True
            self._parts.events.sink_stalled(self._parts.name, trouble)
