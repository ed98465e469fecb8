"""
How late the reactor is: the delay that every peer and every timer suffers.
"""

import operator
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from twisted_ingest.observe.adding import COUNT, COUNTS, Adds, Rule, adds

BEAT_SECONDS = 0.1
"""Seconds between two measurements: ten wake-ups a second cost a thousandth of a core."""

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the histogram in seconds, each inclusive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LagView(Adds):
    """The histogram as Prometheus has it: bounds as text, counts that include the lower buckets."""

    buckets: Mapping[str, int] = adds(COUNTS)
    sum: float = adds(COUNT)


LAG = Rule(LagView, operator.add, keep=LagView.counted, read=LagView.from_plain)
"""How two of them add."""


class LoopLag:
    """Counts delays. ``last`` is the latest one, in seconds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0
        self.last = 0.0

    def observe(self, seconds: float) -> None:
        """Count one delay."""
        self.last = max(0.0, seconds)
        self._counts[bisect_left(BOUNDS, self.last)] += 1
        self._sum += self.last

    def view(self) -> LagView:
        """Give what was counted so far."""
        bounds = (*map(str, BOUNDS), "+Inf")
        return LagView(buckets=dict(zip(bounds, accumulate(self._counts), strict=True)), sum=self._sum)
