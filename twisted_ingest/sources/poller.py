"""
A poller: the source that asks an HTTP server, again and again, for a body of lines.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import Durability, PollResult, SourceError
from twisted_ingest.flow.intake import Intake
from twisted_ingest.flow.lane import Lane
from twisted_ingest.framing.base import Framer
from twisted_ingest.framing.lines import LineFramer
from twisted_ingest.interfaces import IBatchProducer, ILiveConnection, ISource
from twisted_ingest.ledger import PollLedger, SourceBalance
from twisted_ingest.limits import PREVIEW
from twisted_ingest.observe.events import Events
from twisted_ingest.resolving import let_stop_not_wait
from twisted_ingest.sources.outcome import PollError
from twisted_ingest.sources.plan import PollPlan, redacted
from twisted_ingest.sources.poll import Poll
from twisted_ingest.sources.timetable import Timetable
from twisted_ingest.sources.validator import Validator
from twisted_ingest.sources.wire import Exchange
from twisted_ingest.units import format_duration


@implementer(ISource, IBatchProducer)
class HttpPoller:
    """
    Polls one URL from `start` until `stop`.

    Its lane is its own for as long as it runs. While that is paused, because the sinks do not take what was read, a
    body is not read on, and a poll that is due waits. ``reactor`` connects, ``clock`` drives the timers, ``chance``
    gives numbers from 0 up to 1.
    """

    protocol = "http-poll"
    answers = False
    durability = Durability.WRITTEN
    trouble: str | None = None
    """Always ``None``: who cannot be asked is somebody else's trouble (docs/decisions/0021-pollers.md)."""

    def __init__(
        self,
        name: str,
        plan: PollPlan,
        *,
        intake: Intake,
        events: Events,
        clock: IReactorTime,
        reactor: Any,
        wall_time: Callable[[], float],
        ids: Iterator[int],
        sinks: Sequence[str] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.plan = plan
        self.ledger = PollLedger()
        self.route = intake.route(sinks)
        self.lane: Lane = intake.open_lane(self.route)
        self.validator = Validator()
        self.authorization: Mapping[bytes, bytes] = {}
        self._policy: Any = None
        self._events = events
        self._clock = clock
        self._reactor = reactor
        self._wall_time = wall_time
        url = plan.url
        self._info = ConnectionInfo(next(ids), name, f"{url.host}:{url.port}", None)
        self._timetable = Timetable(plan.interval_seconds, clock, chance, self._come_due)
        self._is_running = False
        self._is_due = False
        """Whether a poll waits for the lane."""
        self._poll: Poll | None = None
        self._last: tuple[PollResult, int | None] | None = None

    # What it is.

    @property
    def is_up(self) -> bool:
        """Whether the latest poll went well, or none has ended yet."""
        return self._is_running and (self._last is None or self._last[0].is_good)

    def describe(self) -> str:
        """See `ISource`."""
        return f"polling {self.plan.url.shown} ({self.name}, every {format_duration(self.plan.interval_seconds)})"

    def hints(self) -> list[tuple[str, str]]:
        """See `ISource`: nothing to be tried."""
        return []

    def connections(self) -> Mapping[int, ILiveConnection]:
        """See `ISource`: none that others have made."""
        return {}

    def balance(self) -> SourceBalance:
        """See `ISource`."""
        return SourceBalance(0 if self._poll is None else self._poll.buffered, 0, 0)

    def status(self) -> dict[str, Any]:
        """See `ISource`."""
        age, left = self._timetable.age, self._timetable.seconds_left
        result, code = self._last or (None, None)
        bad = sum(count for each, count in self.ledger.polls.items() if not each.is_good)
        return {
            "name": self.name,
            **redacted(self.plan),
            "sinks": [outlet.sink.name for outlet in self.route.outlets],
            "running": self._is_running,
            "polling": self._poll is not None,
            "paused": self.lane.pause_reason,
            "polls": self.ledger.polls_begun,
            "errors": bad,
            "last_result": result,
            "last_status": code,
            "last_age_seconds": None if age is None else round(age, 3),
            "next_seconds": None if left is None else round(left, 3),
            "records": self.ledger.records_framed,
        }

    # From start to stop.

    def bind(self) -> None:
        """Read what only root may be able to. Raises `SourceError`, which names the file."""
        try:
            self._policy = self.plan.policy()
            self.authorization = self.plan.authorization()
        except SourceError as error:
            raise SourceError(f"source {self.name}: {error}") from error

    def start(self) -> None:
        """Begin; the first poll comes within a second, and nobody waits for it."""
        let_stop_not_wait(self._reactor)
        self._is_running = True
        self.lane.registerProducer(self, True)
        self._timetable.set_first()

    async def stop(self) -> None:
        """Begin no more polls."""
        was_running, self._is_running, self._is_due = self._is_running, False, False
        self._timetable.clear()
        if was_running:
            self._leave()

    @property
    def is_drained(self) -> bool:
        """Whether no poll is under way."""
        return self._poll is None

    def begin_drain(self) -> None:
        """Give up a poll that has brought nothing yet; a body is read to its end."""
        if self._poll is not None and not self._poll.is_reading:
            self._poll.end(PollResult.STOPPED, "the server is stopping")

    def drain(self, now: float) -> None:
        """Wait: a body ends by itself, or at the deadline."""

    def end_drain(self) -> None:
        """Cut off a body that has not ended; it is asked for again after the next start."""
        if self._poll is not None:
            self._poll.end(PollResult.STOPPED, "the server is stopping")

    def _leave(self) -> None:
        """Leave the flow, once nothing is under way."""
        if self._poll is None and self.lane.producer is self:
            self.lane.unregisterProducer()

    def sweep(self, now: float, overslept: float) -> None:
        """Look at the time limit of the poll under way."""
        if self._poll is not None:
            self._poll.sweep(now, overslept)

    # One poll after the other.

    def _come_due(self) -> None:
        self._is_due = self.lane.is_paused
        if not self._is_due:
            self._begin()

    def _begin(self) -> None:
        self._timetable.note_begun()
        self.ledger.polls_begun += 1
        self._poll = poll = Poll(self)
        _ = poll.run().addBoth(self._ended, poll).addErrback(self._go_on)

    def _ended(self, outcome: PollResult | Failure, poll: Poll) -> None:
        """Note how a poll went, and when the next one comes."""
        self._poll = None
        error: PollError | None = None
        if isinstance(outcome, Failure):
            error = self._read_error(outcome)
            outcome = error.result
        result = outcome
        self.ledger.polls[result] += 1
        was_good = self._last is None or self._last[0].is_good
        self._last = (result, poll.status)
        if not self._is_running:
            self._leave()
            return
        self._renew_authorization(poll.status)
        wait = self._timetable.set_next(error)
        if error is not None:
            self._events.poll_failed(self.name, self.plan.url.shown, error.detail, wait)
        elif not was_good:
            self._events.poll_recovered(self.name, self.plan.url.shown)

    def _go_on(self, bug: Failure) -> None:
        """Poll on, whatever our own bug was."""
        self._events.bug(f"source {self.name}", bug)
        if self._is_running and not self._timetable.is_set:
            self._timetable.set()

    def _read_error(self, failure: Failure) -> PollError:
        if isinstance(failure.value, PollError):
            return failure.value
        self._events.bug(f"a poll of source {self.name}", failure)
        return PollError(PollResult.INTERNAL_ERROR, "internal error: see the log")

    def _renew_authorization(self, status: int | None) -> None:
        """Read the credentials again where they were refused: they may have been replaced."""
        if status in (401, 403):
            try:
                self.authorization = self.plan.authorization()
            except SourceError as error:
                self._events.poll_failed(self.name, self.plan.url.shown, str(error), 0.0)

    # The lane calls these.

    def pauseProducing(self) -> None:
        """Hold back: the sinks do not take what was read."""
        if self._poll is not None:
            self._poll.pause()

    def resumeProducing(self) -> None:
        """Go on."""
        if self._poll is not None:
            self._poll.resume()
        elif self._is_due:
            self._is_due = False
            # Not from inside the call that relieved the lane.
            self._timetable.set(0.0)

    def stopProducing(self) -> None:
        """See `IPushProducer`: nobody calls it."""
        self.end_drain()

    def evict_partial(self) -> None:
        """See `IBatchProducer`."""
        if self._poll is not None:
            start = self._poll.evict()
            self._events.record_evicted(self._info, len(start), start[:PREVIEW])

    def fail(self, where: str) -> None:
        """See `IBatchProducer`; the unfinished line is counted as lost to a bug."""
        self._events.internal_error(where, self._info)
        if self._poll is not None:
            self._poll.fail()

    # A poll calls these.

    def open(self) -> Exchange:
        """See `PollOwner`."""
        return Exchange(self._reactor, self._policy, self.plan.timeout_seconds)

    def make_framer(self) -> Framer:
        """See `PollOwner`: content is what it is, and no protocol of ours or another's."""
        return LineFramer(self._info, self.ledger, self.plan.max_record_bytes, self.plan.oversize, sniff=False)

    def now(self) -> float:
        """See `PollOwner`."""
        return self._clock.seconds()

    def wall_time(self) -> float:
        """See `PollOwner`."""
        return self._wall_time()

    def heard(self, framer: Framer) -> None:
        """See `PollOwner`."""
        found, framer.oversized = framer.oversized, []
        for start in found:
            self._events.record_oversize(self._info, self.plan.max_record_bytes, self.plan.oversize.value, start)
