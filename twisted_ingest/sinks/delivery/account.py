"""
What is counted of every sink across a network, under the same names for all.
"""

from bisect import bisect_left
from collections.abc import Mapping
from enum import StrEnum


class Outcome(StrEnum):
    """What became of a request."""

    TAKEN = "taken"
    AGAIN = "again"
    """It was lost, or put off, and is sent again."""
    NEVER = "never"
    """Records of it were rejected; all others were taken."""


REQUEST_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)
"""Upper bounds, in seconds, of what requests took: from a hop on the same machine to one that waits for its disk."""


class Account:
    """Counters of one sink, which only grow but for ``last_success``."""

    __slots__ = (
        "_buckets",
        "connections",
        "last_success",
        "outcomes",
        "rejected",
        "resent",
        "retries",
        "seconds",
        "sent",
    )

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.retries = 0
        self.rejected = 0
        """Records."""
        self.resent = 0
        """Records."""
        self.sent = 0
        """Bytes."""
        self.connections = 0
        self.seconds = 0.0
        self._buckets = [0] * (len(REQUEST_SECONDS) + 1)
        self.last_success = 0.0
        """Unix time."""

    def end(self, outcome: Outcome, seconds: float) -> None:
        """Note what became of a request that has been answered."""
        self.outcomes[outcome] += 1
        self.seconds += seconds
        self._buckets[bisect_left(REQUEST_SECONDS, seconds)] += 1

    def again(self, requests: int, records: int) -> None:
        """Note that so many requests, and so many records of them, will be sent again."""
        self.outcomes[Outcome.AGAIN] += requests
        self.resent += records

    def details(self) -> Mapping[str, float]:
        """Give them by the ends of their metric names."""
        bounds = (*map(str, REQUEST_SECONDS), "+Inf")
        return {
            **{f"requests/{outcome}": number for outcome, number in self.outcomes.items()},
            **{f"request_seconds/{bound}": number for bound, number in zip(bounds, self._buckets, strict=True)},
            "request_seconds/sum": self.seconds,
            "retries": self.retries,
            "rejected_records": self.rejected,
            "resent_records": self.resent,
            "sent_bytes": self.sent,
            "connections": self.connections,
            "last_success_timestamp_seconds": self.last_success,
        }
