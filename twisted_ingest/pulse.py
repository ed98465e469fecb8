"""
What is done by the clock while the service runs: a look at all deadlines, and at how late the reactor is.
"""

from collections.abc import Sequence
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from twisted_ingest.admin.survey import Survey
from twisted_ingest.interfaces import ISource
from twisted_ingest.limits import SWEEP_SECONDS
from twisted_ingest.observe.events import Events
from twisted_ingest.observe.lag import BEAT_SECONDS


class Pulse:
    """Sweeps the sources each second from `start` on, and measures the reactor from `begin` on, until `stop`."""

    def __init__(self, sources: Sequence[ISource], survey: Survey, events: Events, reactor: Any) -> None:
        self._sources = sources
        self._survey = survey
        self._events = events
        self._reactor = reactor
        self._beating: Any = None
        """The call of the next beat."""
        self._sweeper = LoopingCall.withCount(self._sweep)
        self._sweeper.clock = reactor

    def start(self) -> None:
        """Sweep from now on."""
        # A failing sweep is a bug; it is logged and the process goes on without deadlines, visibly.
        _ = self._sweeper.start(SWEEP_SECONDS, now=False).addErrback(self._sweep_failed)

    def begin(self) -> None:
        """Measure from now on: the reactor runs."""
        self._beat(self._reactor.seconds())

    def stop(self) -> None:
        """Do neither any more; safe to call at any time."""
        if self._sweeper.running:
            self._sweeper.stop()
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None

    def _sweep(self, turns: int) -> None:
        """Look at deadlines; ``turns`` counts the sweeps that were due, more than one where we slept."""
        step = self._survey.clock_steps.look()
        if step:
            self._events.clock_stepped(step)
        now, overslept = self._reactor.seconds(), (turns - 1) * SWEEP_SECONDS
        for source in self._sources:
            try:
                source.sweep(now, overslept)
            except Exception:  # noqa: BLE001 - the next sweep, and those of the other sources, are needed all the same
                self._events.internal_error(f"the sweep of listener {source.name}")

    def _sweep_failed(self, failure: Failure) -> None:
        self._events.bug("the sweep of deadlines, which has ended", failure)
        self._survey.state = "broken: the sweep of deadlines has ended"

    def _beat(self, due: float) -> None:
        """Measure how late the reactor is, until the stop is over."""
        now = self._reactor.seconds()
        # First: a bug in the measuring must not end the beats.
        self._beating = self._reactor.callLater(BEAT_SECONDS, self._beat, now + BEAT_SECONDS)
        self._survey.loop_lag.observe(now - due)
