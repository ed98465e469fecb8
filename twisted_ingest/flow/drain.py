"""
The end of the flow: sources are read to their end, then the sinks are waited for, each by a deadline.

Deadlines are in reactor seconds. Whatever is stuck or fails, both come to an end, and what is left is counted.
"""

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from twisted_ingest.flow.intake import Intake
from twisted_ingest.interfaces import ISink, ISource

DRAIN_TICK = 0.05
"""Seconds between two looks at draining sources."""


async def drain_sources(
    reactor: Any, sources: Sequence[ISource], deadline: float, on_bug: Callable[[str, Failure], None]
) -> None:
    """
    Let sources finish what is under way, and at the deadline cut off the rest.

    ``on_bug`` is told of each that raised; the others are drained all the same.
    """

    def each(act: Callable[[ISource], None]) -> None:
        for source in sources:
            try:
                act(source)
            except Exception:  # noqa: BLE001 - the others have records to be read
                on_bug(f"draining {source.name}", Failure())

    each(lambda source: source.begin_drain())
    while not all(source.is_drained for source in sources) and reactor.seconds() < deadline:
        now = reactor.seconds()
        each(lambda source, now=now: source.drain(now))  # type: ignore[misc]
        await deferLater(reactor, DRAIN_TICK)
    each(lambda source: source.end_drain())
    # `abortConnection` ends a connection in the next turn.
    await deferLater(reactor, 0)


async def flush_sinks(reactor: Any, intake: Intake, deadline: float) -> None:
    """Wait for the sinks as long as there is time, then count what is left as dropped."""
    try:
        await _by(reactor, deadline, intake.when_idle())
        intake.abandon()
    except Exception:  # noqa: BLE001 - the sinks have files to be closed
        intake.on_bug("flushing", Failure())
    # Even with the time used up each sink gets the moment that closing a healthy file takes.
    deadline = max(deadline, reactor.seconds() + DRAIN_TICK * 4)
    await close_sinks(reactor, [outlet.sink for outlet in intake.outlets], deadline, intake.on_bug)


async def close_sinks(
    reactor: Any, sinks: list[ISink], deadline: float, on_bug: Callable[[str, Failure], None]
) -> None:
    """
    Close sinks, all at once, and abandon those that have not closed by the deadline or have failed to.

    ``on_bug`` is told of each that raised or failed; the others are closed all the same.
    """
    closing = [(sink, maybeDeferred(sink.close)) for sink in sinks]
    for sink, closed in closing:
        if not await _by(reactor, deadline, closed.addErrback(_failed, sink, on_bug)):
            _abandon(sink, on_bug)


def _failed(failure: Failure, sink: ISink, on_bug: Callable[[str, Failure], None]) -> None:
    on_bug(f"close of sink {sink.name}", failure)
    _abandon(sink, on_bug)


def _abandon(sink: ISink, on_bug: Callable[[str, Failure], None]) -> None:
    try:
        sink.abandon()
    except Exception:  # noqa: BLE001 - as above
        on_bug(f"abandon of sink {sink.name}", Failure())


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
