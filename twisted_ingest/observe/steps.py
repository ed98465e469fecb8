"""
Steps of the wall clock, which our time stamps follow and our timers do not.
"""

from collections.abc import Callable
from enum import StrEnum

STEP_SECONDS = 1.0
"""Seconds by which the wall clock must have left the steady one since the last look to have been set. Far above what
corrections in small doses make of a second (NTP: half a millisecond), and what comes between two readings."""


class StepDirection(StrEnum):
    """Where the wall clock was set to."""

    FORWARD = "forward"
    """Or the machine slept: the steady clock stands still meanwhile."""
    BACKWARD = "backward"


class ClockSteps:
    """
    Counts how often the wall clock was set, as far as looks now and then can tell.

    ``wall_time`` gives Unix time, ``steady`` any seconds that cannot jump. Where both are the same clock no step shows.
    """

    def __init__(self, wall_time: Callable[[], float], steady: Callable[[], float]) -> None:
        self._ahead = lambda: wall_time() - steady()
        self._was_ahead = self._ahead()
        self.counts = dict.fromkeys(StepDirection, 0)

    def look(self) -> float:
        """Give the seconds by which the clock was set since the last look: below zero backward, zero if it was not."""
        ahead = self._ahead()
        step, self._was_ahead = ahead - self._was_ahead, ahead
        if abs(step) < STEP_SECONDS:
            return 0.0
        self.counts[StepDirection.FORWARD if step > 0 else StepDirection.BACKWARD] += 1
        return step
