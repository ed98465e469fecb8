"""
The end of the flow: connections are read to their end, then the sinks are waited for, each by a deadline.

Deadlines are in reactor seconds. Whatever is stuck, both come to an end, and what is left is counted.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater

from twisted_ingest.errors import CloseReason
from twisted_ingest.flow.intake import Intake
from twisted_ingest.limits import DRAIN_QUIET
from twisted_ingest.server.protocol import IngestProtocol

DRAIN_TICK = 0.05
"""Seconds between two looks at draining connections."""


async def drain_connections(reactor: Any, live: Callable[[], list[IngestProtocol]], deadline: float) -> int:
    """Half-close, read on, close who is done; gives the bytes left unread at the deadline."""
    for connection in live():
        connection.begin_drain()
    while live() and reactor.seconds() < deadline:
        now = reactor.seconds()
        for connection in live():
            connection.drain(now)
            if connection.is_quiet(now, DRAIN_QUIET):
                connection.close(CloseReason.DRAIN, reset=False)
        await deferLater(reactor, DRAIN_TICK)
    unread = 0
    for connection in live():
        unread += connection.transport.unread_bytes()
        connection.close(CloseReason.DRAIN, reset=True)
    # `abortConnection` ends a connection in the next turn.
    await deferLater(reactor, 0)
    return unread


async def flush_sinks(reactor: Any, intake: Intake, deadline: float) -> None:
    """Wait for the sinks as long as there is time, then count what is left as dropped."""
    await _by(reactor, deadline, intake.when_idle())
    intake.abandon()
    # Even with the time used up each sink gets the moment that closing a healthy file takes.
    deadline = max(deadline, reactor.seconds() + DRAIN_TICK * 4)
    for sink, closed in [(outlet.sink, maybeDeferred(outlet.sink.close)) for outlet in intake.outlets]:
        if not await _by(reactor, deadline, closed):
            sink.abandon()


async def _by(reactor: Any, deadline: float, done: "Deferred[None]") -> bool:
    """Wait for a Deferred, but not past the deadline; true when it fired in time."""
    timer: Deferred[bool] = Deferred()
    call = reactor.callLater(max(0.0, deadline - reactor.seconds()), timer.callback, False)

    def fired(_: object) -> None:
        if call.active():
            call.cancel()
            timer.callback(True)

    _ = done.addBoth(fired)
    return await timer
