"""
A point in the life of something, for as many as wait for it.
"""

from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

T = TypeVar("T")


class Milestone(Generic[T]):
    """Is reached once, with a result or a failure; whoever asks gets a Deferred of their own."""

    def __init__(self) -> None:
        self._outcome: T | Failure | None = None
        self._waiters: list[Deferred[T]] = []
        self.is_reached = False

    def wait(self) -> "Deferred[T]":
        """Give a Deferred that fires, or fails, as the milestone was or will be reached."""
        if self.is_reached:
            return fail(self._outcome) if isinstance(self._outcome, Failure) else succeed(self._outcome)  # type: ignore[arg-type]
        waiter: Deferred[T] = Deferred(self._forget)
        self._waiters.append(waiter)
        return waiter

    def reach(self, outcome: T | Failure) -> None:
        """Tell everybody; a second time does nothing."""
        if self.is_reached:
            return
        self.is_reached, self._outcome = True, outcome
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(outcome)  # of a failure: as `errback`

    def _forget(self, waiter: "Deferred[T]") -> None:
        """Let one that was cancelled wait no more."""
        self._waiters.remove(waiter)
