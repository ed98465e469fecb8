"""
What keeps a target from taking what it is given: errors, which are waited out, and calls that do not return.
"""

import threading
from collections.abc import Callable

from twisted_ingest.backoff import Backoff
from twisted_ingest.storage.target import Target

RETRY_SECONDS = (0.1, 5.0)
"""First and longest wait after an error; doubled each time until everything at hand is written."""

HELD_BACK = "senders are held back meanwhile"
"""What comes of a trouble where nobody else keeps what comes."""

STALL_SECONDS = 2.0
"""How long a call to the target may take before that counts as trouble: four megabytes to a disk that is alive, or to
a reader that reads, take a fraction of it."""


class AbandonedError(Exception):
    """The thread was told to stop trying."""


class Trouble:
    """
    The troubles of one writer with its target, kept by its thread.

    ``retries`` only grows. It, `now` and `stall` may be read from any thread. ``on_error`` is called with each new one;
    ``abandoned`` ends every wait. ``meanwhile`` says what becomes of records until then. ``outside`` gives the seconds
    for which something is written to the target that it was not asked for.
    """

    def __init__(
        self,
        target: Target,
        seconds: Callable[[], float],
        abandoned: threading.Event,
        on_error: Callable[[str], None],
        meanwhile: str,
        *,
        outside: Callable[[], float],
    ) -> None:
        self._target = target
        self._seconds = seconds
        self._abandoned = abandoned
        self._on_error = on_error
        self._meanwhile = meanwhile
        self._outside = outside
        self._backoff = Backoff(*RETRY_SECONDS)
        self._error: str | None = None
        self._under_way: tuple[str, float] | None = None
        """What the target has been asked for and not done yet, and since when."""
        self.retries = 0

    # Called in any thread.

    @property
    def now(self) -> str | None:
        """Why nothing is being written at the moment, or ``None``."""
        return self._error or self.stall

    @property
    def stall(self) -> str | None:
        """What the target has not done for longer than `STALL_SECONDS`, or ``None``: no error will tell of that."""
        under_way = self._under_way
        if under_way is None:
            what, lasting = "a write has not returned", self._outside()
        else:
            what, lasting = under_way[0], self._seconds() - under_way[1]
        if lasting <= STALL_SECONDS:
            return None
        return f"{self._target.name}: {what} for {lasting:.0f} s; {self._meanwhile}"

    # Called in the writer's thread.

    def end_if_abandoned(self) -> None:
        """Raise `AbandonedError` where the thread was told to stop trying."""
        if self._abandoned.is_set():
            raise AbandonedError

    def begin(self, what: str) -> None:
        """
        Note that the target has been asked for something, as in "a sync has not returned".

        Where it has not done what it was asked for before, that stall goes on.
        """
        if self._under_way is None:
            self._under_way = (what, self._seconds())

    def end(self) -> None:
        """Note that it has done something."""
        self._under_way = None

    def insist(self, what: str, call: Callable[[], None]) -> None:
        """Call something of the target's until it works; ``what`` is a verb."""
        while True:
            self.begin(f"an attempt to {what} has not returned")
            try:
                call()
            except OSError as failure:
                self.back_off(f"cannot {what}", failure)
            else:
                self.end()
                return

    def back_off(self, what: str, failure: OSError) -> None:
        """Wait before another try, longer each time. Raises ``failure`` when there is none, or `AbandonedError`."""
        self.end()
        if failure.errno in self._target.final_errors:
            raise failure
        self.retries += 1
        self._report(f"{what}: {_reason(failure)}; trying again, {self._meanwhile}")
        if self._abandoned.wait(self._backoff.lengthen()):
            raise AbandonedError

    def _report(self, error: str) -> None:
        error = f"{self._target.name}: {error}"
        if self._error != error:
            self._error = error
            self._on_error(error)

    def end_for_good(self, failure: Exception) -> str:
        """Note what has ended the thread, for good; gives it in words."""
        reason = _reason(failure) if isinstance(failure, OSError) else f"{type(failure).__name__}: {failure}"
        self._error = f"{self._target.name}: {reason}"
        return self._error

    def clear(self, *, shorten: bool) -> bool:
        """
        Note that all is written; gives whether an error had been told of.

        ``shorten`` begins with short waits again.
        """
        if shorten:
            self._backoff.reset()
        had_error, self._error = self._error is not None, None
        return had_error


def _reason(failure: OSError) -> str:
    return failure.strerror or str(failure)
