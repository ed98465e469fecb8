"""
The sink behind a spool: it need not be there when the spool begins, and whatever it raises is its own affair.
"""

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from twisted_ingest.backoff import Backoff
from twisted_ingest.batch import Group
from twisted_ingest.errors import MisconfiguredError, SinkError
from twisted_ingest.flow.delivery import OnBug, OnRejected, deliver
from twisted_ingest.flow.outlet import description_of, details_of, trouble_of
from twisted_ingest.interfaces import ISink
from twisted_ingest.observe.events import Events
from twisted_ingest.rejected import Rejected

START_SECONDS = (1.0, 60.0)
"""First and longest wait before a sink that could not start is started again; doubled each time."""


class Behind:
    """
    A sink that is started now or later.

    ``on_started`` is called once it is, maybe from inside `start`. Until then nothing may be delivered.
    ``on_rejected`` hears of what it will never take.
    """

    def __init__(
        self,
        sink: ISink,
        reactor: Any,
        events: Events,
        on_started: Callable[[], None],
        on_rejected: OnRejected,
    ) -> None:
        self.sink = sink
        self._reactor = reactor
        self._events = events
        self._on_started = on_started
        self.on_rejected = on_rejected
        self.on_bug: OnBug = events.bug
        self._backoff = Backoff(*START_SECONDS)
        self._retry: Any = None
        """The call that will try again."""
        self._start_trouble: str | None = None
        self.is_started = False

    @property
    def trouble(self) -> str | None:
        """Why it takes nothing at the moment, or ``None``."""
        return self._start_trouble or trouble_of(self.sink, self._events.bug)

    def describe(self) -> str:
        """Say where records go."""
        return description_of(self.sink, self._events.bug)

    def details(self) -> Mapping[str, float]:
        """Give its own counters."""
        return details_of(self.sink, self._events.bug)

    # Start.

    def start(self) -> None:
        """Start it; what does not work now is tried again, later and later. Raises `MisconfiguredError`."""
        try:
            self.sink.start()
        except MisconfiguredError:
            raise
        except Exception as failure:  # noqa: BLE001 - the spool can take records without it
            self._put_off(failure)
        else:
            self._begin()

    def _begin(self) -> None:
        self.is_started = True
        if self._start_trouble is not None:
            self._start_trouble = None
            self._events.note("sink {sink}: started behind its spool", sink=self.sink.name, kind="sink_started")
        self._on_started()

    def _put_off(self, failure: Exception) -> None:
        """Say why it cannot start, and try again later. Called inside the ``except`` block."""
        name = self.sink.name
        if not isinstance(failure, SinkError):
            self._events.internal_error(f"start of sink {name}")
        reason = str(failure).removeprefix(f"sink {name}: ") or type(failure).__name__
        trouble = f"cannot start: {reason}; trying again, its spool takes records meanwhile"
        if trouble != self._start_trouble:
            self._start_trouble = trouble
            self._events.sink_stalled(name, trouble)
        self._retry = self._reactor.callLater(self._backoff.lengthen(), self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        try:
            self.start()
        except MisconfiguredError as failure:
            # At the start of the process it would have ended that. Now the spool holds records.
            self._put_off(failure)

    def reopen(self) -> None:
        """Let go of files that were rotated away; try at once to start what could not."""
        if self.is_started:
            self.sink.reopen()
        elif self._retry is not None:
            self._cancel()
            self._try_again()

    # Use and end.

    def deliver(self, group: Group) -> "Deferred[Rejected | None]":
        """Hand it a group; see `twisted_ingest.flow.delivery.deliver`."""
        return deliver(self.sink, group, self)

    async def close(self) -> None:
        """Finish, and let go of everything; a sink that fails at that is abandoned."""
        self._cancel()
        if not self.is_started:
            return
        try:
            await maybeDeferred(self.sink.close)
        except Exception:  # noqa: BLE001 - the spool has to be closed all the same
            self._events.internal_error(f"close of sink {self.sink.name}")
            self.abandon()

    def abandon(self) -> None:
        """Stop trying."""
        self._cancel()
        try:
            self.sink.abandon()
        except Exception:  # noqa: BLE001 - the spool has to be abandoned all the same
            self._events.internal_error(f"abandon of sink {self.sink.name}")

    def _cancel(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
