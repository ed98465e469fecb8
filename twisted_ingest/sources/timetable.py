"""
When the polls of one poller come: every interval, a little by chance, and later where they fail.
"""

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_ingest.backoff import Backoff
from twisted_ingest.sources.outcome import PollError

JITTER = 0.1
"""Share of the interval by which each poll comes earlier or later, by chance: a fleet that was started at one moment
does not ask at one moment for long."""

FIRST_SECONDS = 1.0
"""Seconds within which the first poll begins, by chance, or the share of the interval where that is less."""

LONGEST_BACKOFF = 600.0
"""Seconds between polls that fail, where the interval is no longer."""

LONGEST_RETRY_AFTER = 3600.0
"""Seconds that a server may have us wait (``Retry-After``): its clock or its word may be wrong for ever."""


class Timetable:
    """
    Calls ``come_due`` when a poll is due, once each time it is told to.

    ``interval`` is in seconds, ``clock`` drives the timer, ``chance`` gives numbers from 0 up to 1.
    """

    def __init__(
        self, interval: float, clock: IReactorTime, chance: Callable[[], float], come_due: Callable[[], None]
    ) -> None:
        self._interval = interval
        self._clock = clock
        self._chance = chance
        self._come_due = come_due
        self._backoff = Backoff(interval * 2, max(LONGEST_BACKOFF, interval), jitter=True)
        self._timer: IDelayedCall | None = None
        self._next_at = 0.0
        self._began_at: float | None = None

    @property
    def is_set(self) -> bool:
        """Whether a poll will come due."""
        return self._timer is not None

    @property
    def seconds_left(self) -> float | None:
        """The seconds until a poll comes due; ``None`` where none will."""
        return max(0.0, self._next_at - self._clock.seconds()) if self.is_set else None

    @property
    def age(self) -> float | None:
        """The seconds since the latest poll began; ``None`` before the first."""
        return None if self._began_at is None else self._clock.seconds() - self._began_at

    def set_first(self) -> None:
        """Let the first poll come within a second."""
        self.set(self._chance() * min(FIRST_SECONDS, self._interval))

    def set_next(self, error: PollError | None) -> float:
        """Let the poll come that follows one which has ended, with ``error`` or well; gives the seconds until then."""
        wait = self._wait(error)
        self.set(wait)
        return wait

    def set(self, seconds: float | None = None) -> None:
        """Let a poll come in ``seconds``, or in one interval."""
        seconds = self._interval if seconds is None else seconds
        self._next_at = self._clock.seconds() + seconds
        self._timer = self._clock.callLater(seconds, self._run_out)

    def note_begun(self) -> None:
        """Note that a poll begins."""
        self._began_at = self._clock.seconds()

    def clear(self) -> None:
        """Let none come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run_out(self) -> None:
        self._timer = None
        self._come_due()

    def _wait(self, error: PollError | None) -> float:
        """Give the seconds until the next poll."""
        usual = max(0.0, self._interval * (1 + JITTER * (2 * self._chance() - 1)) - (self.age or 0.0))
        if error is None:
            self._backoff.reset()
            return usual
        asked = min(error.retry_after or 0.0, LONGEST_RETRY_AFTER)
        return max(usual, self._backoff.lengthen(), asked)
