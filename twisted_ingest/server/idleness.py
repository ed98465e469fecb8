"""
The timeout of a connection: the listener's, or a subclass's own.
"""

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.protocols.policies import TimeoutMixin

from twisted_ingest.limits import OVERSLEPT
from twisted_ingest.server.transports import IngestTransport

READ_GRACE = 0.1
"""Seconds for bytes that a subclass's timer finds waiting to be read: several turns of a busy reactor."""


class Idleness(TimeoutMixin):
    """
    A `TimeoutMixin` whose time stands still while the connection is not read from, and begins anew when it is.

    The listener's limit is begun anew by whatever comes. Once a subclass has called ``setTimeout`` only what it says
    holds, and only its ``resetTimeout`` begins it anew. ``timeoutConnection`` is not called while bytes of the peer
    wait in the kernel: a subclass's own timeout lets them be read, once; the listener's begins anew.
    """

    transport: IngestTransport
    timeOut: float | None = None  # type: ignore[assignment]
    """Seconds that a subclass has set."""
    idle_period: float | None = None
    """Seconds that the listener has, ``None`` for no limit, or none any more."""
    _clock: IReactorTime

    _timeout_call: IDelayedCall | None = None
    _timeout_due = 0.0
    """When the timer was to end (reactor seconds)."""
    _timeout_is_own = False
    """Whether a subclass has set the timeout."""
    _timeout_stands_still = False
    """Whether nothing is read."""
    _timeout_begins_later = False
    """Whether the timer runs once something is read again."""
    _timeout_has_waited = False
    """Whether a subclass's timer has let waiting bytes be read."""
    _timeout_is_over = False

    def setTimeout(self, period: float | None) -> float | None:
        """Let the timer end after ``period`` seconds, ``None`` for never, in the listener's place; gives the former."""
        former = self.timeOut
        self._timeout_is_own = True
        self.timeOut = period
        self._begin_timeout()
        return former

    def resetTimeout(self) -> None:
        """Begin the timer anew, where it runs."""
        if self._timeout_call is not None:
            self._begin_timeout()

    def callLater(self, period: float, func: Callable[[], None]) -> IDelayedCall:
        """Take time from the injected clock, where `TimeoutMixin` would take the global reactor."""
        return self._clock.callLater(period, self._call, func)

    # What follows is ours.

    @property
    def timeout_period(self) -> float | None:
        """The seconds that hold now: a subclass's own or the listener's; ``None`` for no limit."""
        return self.timeOut if self._timeout_is_own else self.idle_period

    def _set_listener_timeout(self, period: float | None) -> None:
        """Let the listener's limit end the connection after ``period`` seconds, unless a subclass has set its own."""
        self.idle_period = period
        if not self._timeout_is_own:
            self._begin_timeout()

    def _hold_timeout(self) -> None:
        """Stop the timer: nothing is read."""
        self._timeout_stands_still = True
        self._timeout_begins_later = self._timeout_call is not None
        self._cancel_timeout()

    def _continue_timeout(self) -> None:
        """Begin the timer anew where it ran: something is read again."""
        self._timeout_stands_still = False
        if self._timeout_begins_later:
            self._begin_timeout()

    def _end_timeout(self) -> None:
        """End the timer for good."""
        self._timeout_is_over = True
        self.timeOut = self.idle_period = None
        self._cancel_timeout()

    def _begin_timeout(self) -> None:
        period = None if self._timeout_is_over else self.timeout_period
        self._timeout_has_waited = False
        if self._timeout_stands_still:
            self._timeout_begins_later = period is not None
        elif period is None:
            self._cancel_timeout()
        else:
            self._timeout_due = self._clock.seconds() + period
            if self._timeout_call is not None and self._timeout_call.active():
                self._timeout_call.reset(period)
            else:
                self._timeout_call = self.callLater(period, self._run_out)

    def _cancel_timeout(self) -> None:
        if self._timeout_call is not None and self._timeout_call.active():
            self._timeout_call.cancel()
        self._timeout_call = None

    def _run_out(self) -> None:
        """Time out, unless bytes of the peer wait in the kernel or the timer is late: then it was we who slept."""
        self._timeout_call = None
        if self._timeout_is_own:
            if self.transport.unread_bytes() and not self._timeout_has_waited:
                self._timeout_has_waited = True
                self._timeout_call = self.callLater(READ_GRACE, self._run_out)
                return
        elif self.transport.unread_bytes() or self._clock.seconds() - self._timeout_due > OVERSLEPT:
            self._begin_timeout()
            return
        self.timeoutConnection()

    def _call(self, func: Callable[[], None]) -> None:
        """Run a timer."""
        raise NotImplementedError
