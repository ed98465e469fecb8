"""
Every observable fact has one function: it tells those who want to hear it, the log first, and counts what only it can.
"""

from collections.abc import Callable

from twisted.logger import LogLevel

from twisted_ingest.escaping import escape
from twisted_ingest.observe.folding import FoldingLog
from twisted_ingest.observe.peer_events import PeerEvents
from twisted_ingest.observe.sink_events import SinkEvents
from twisted_ingest.observe.tls_events import TLSEvents
from twisted_ingest.units import format_size


class Events(PeerEvents, SinkEvents, TLSEvents):
    """
    The facts of one process. ``seconds`` is the reactor's clock.

    Here are those that are of no one peer and no one sink.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        super().__init__(FoldingLog(seconds))

    # Ports.

    def accepting_paused(self, reason: str) -> None:
        """Note that no more connections are accepted until one closes, and why."""
        self._limited("accepting_paused", LogLevel.warn, "{reason}: new ones wait until one closes", reason=reason)

    def admin_full(self, limit: int) -> None:
        """Note that the admin endpoint has no place for a newcomer but another's."""
        self._limited(
            "admin_full",
            LogLevel.warn,
            "admin: {limit} connections are open, the most there may be: who is idle or slow the longest makes room",
            limit=limit,
        )

    def admin_misdirected(self) -> None:
        """Note a request by a name that is none of the admin endpoint's. The name is a stranger's text: not quoted."""
        self._limited(
            "admin_misdirected",
            LogLevel.warn,
            "admin: refused a request by a host name that is not known here (421): where it is yours, give it with "
            "--admin-host NAME or [admin] hosts",
        )

    def accept_failed(self, listener: str, error: OSError, seconds: float) -> None:
        """Note that the kernel could not give us a connection; the ledger has counted it by its reason."""
        self._limited(
            "accept_failed",
            LogLevel.error,
            "{listener}: cannot accept: {error}; trying again in {seconds} s",
            listener=listener,
            error=str(error),
            seconds=seconds,
        )

    def listener_lost(self, listener: str, reason: str, seconds: float) -> None:
        """Note that a listener's port is closed although nobody asked for it, or could not be bound again."""
        self._limited(
            f"listener_lost:{listener}",
            LogLevel.critical,
            "{listener}: not listening: {reason}; binding again in {seconds} s",
            listener=listener,
            reason=reason,
            seconds=seconds,
        )

    def listener_bound_again(self, listener: str, address: str) -> None:
        """Note that a listener whose port was lost listens again."""
        self._limited(
            f"listener_bound_again:{listener}",
            LogLevel.warn,
            "{listener}: listening again on {address}",
            listener=listener,
            address=address,
        )

    # Polls.

    def poll_failed(self, source: str, url: str, detail: str, seconds: float) -> None:
        """Note that a poll did not go well; ``url`` is without secrets, and ``detail`` may be a server's words."""
        self._limited(
            f"poll_failed:{source}",
            LogLevel.warn,
            "{source}: polling {url}: {detail}; again in {seconds} s",
            source=source,
            url=url,
            detail=escape(detail),
            seconds=round(seconds, 1),
        )

    def poll_recovered(self, source: str, url: str) -> None:
        """Note that a poll went well after others that did not."""
        self._limited(
            f"poll_recovered:{source}",
            LogLevel.info,
            "{source}: polling {url}: well again",
            source=source,
            url=url,
        )

    # Flow.

    def intake_high(self, used: int, limit: int) -> None:
        """Note that the budget is used up and reading has stopped."""
        self._limited(
            "intake_high",
            LogLevel.warn,
            "{used} of {limit} are waiting for the sinks: reading has stopped until they catch up (--memory)",
            used=format_size(used),
            limit=format_size(limit),
        )

    def intake_low(self, used: int) -> None:
        """Note that reading goes on."""
        self._limited("intake_low", LogLevel.info, "reading goes on, {used} waiting", used=format_size(used))

    def reopening(self, why: str) -> None:
        """Note that we were told to open files anew, by which signal."""
        self._limited("reopening", LogLevel.info, "{why}: opening files anew that were rotated away", why=why)

    def log_not_reopened(self, path: str, error: OSError) -> None:
        """Note that our own log could not be opened anew: it goes on in the file that was rotated away."""
        self._limited(
            "log_not_reopened",
            LogLevel.error,
            "cannot open the log {path} anew: {error}; going on in the old file",
            path=path,
            error=error.strerror,
        )

    # Ourselves.

    def clock_stepped(self, seconds: float) -> None:
        """Note that the wall clock was set, by so many seconds forward or, below zero, backward."""
        self._limited(
            "clock_stepped",
            LogLevel.warn,
            "the wall clock was set {direction} by {seconds} s{slept}: time stamps follow it, deadlines do not",
            direction="forward" if seconds > 0 else "backward",
            seconds=round(abs(seconds), 3),
            slept=" (or this machine slept)" if seconds > 0 else "",
        )

    def start_failed(self, error: str) -> None:
        """Note why the process cannot start."""
        self._always("start_failed", LogLevel.critical, "{error}", error=error)

    def stopping(self, why: str) -> None:
        """Note that the process stops although nobody asked for it."""
        self._always("stopping", LogLevel.critical, "{why}: stopping", why=why)

    def note(self, text: str, *, kind: str = "note", level: LogLevel = LogLevel.info, **fields: object) -> None:
        """Tell a fact of the process's own life; ``text`` is a constant format."""
        self._always(kind, level, text, **fields)
