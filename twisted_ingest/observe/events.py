"""
Every observable fact has one function here: it logs, and it counts what only it can count.

Peer-caused events are rate-limited per kind, and carry a bounded, escaped preview of the peer's bytes only.
"""

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import CloseReason, RefuseReason, RelpError, Resync
from twisted_ingest.escaping import escape, preview
from twisted_ingest.framing.detect import is_run_together
from twisted_ingest.framing.signatures import Signature
from twisted_ingest.ledger import ListenerLedger
from twisted_ingest.units import format_size

BURST = 10
"""Events of one kind logged per interval before they are folded into a count."""

INTERVAL_SECONDS = 10.0
"""After this long a kind may log again, beginning with how many were folded."""

_ENDS_NOTHING = "this sender ends no records: set eol / newLine / %n at it"

_MORE = ("", " ({folded} more like it before)")


_REFUSALS = {
    RefuseReason.PER_PEER: "it has as many connections as one address may (--max-connections-per-peer)",
    RefuseReason.CONNECTION_RATE: "it connects more often than one address may (--connection-rate-per-peer)",
    RefuseReason.NOT_ALLOWED: "its address is in no network of those that may connect (--allow)",
    RefuseReason.DRAINING: "the server is stopping (--drain-timeout)",
    RefuseReason.INTERNAL_ERROR: "a bug",
}
"""Why newcomers are turned away, and what changes that. Who is turned away for what it sent is told the fix."""

_RESYNCED = {
    Resync.COUNT: "{listener}: {peer} sent a counted frame that does not end where another begins ({start}): read as "
    "lines, up to the next frames; if its count is wrong (characters instead of bytes?) mend the sender",
    Resync.JUNK: "{listener}: {peer} sent bytes between counted frames that belong to none ({start}): delivered as "
    "lines; the count before them may be too small (characters instead of bytes?)",
    Resync.NUL: "{listener}: {peer} sent NUL as if it ended records, and then lines ({start}): these are lines again",
}


def _who(info: ConnectionInfo) -> dict[str, Any]:
    """Give the fields that tell a connection."""
    return {"listener": info.listener, "peer": escape(info.peer), "conn": info.id}


class Events:
    """
    The facts of one process.

    ``seconds`` is the reactor's clock. ``suppressed`` counts log lines that the rate limit folded.
    """

    log = Logger(namespace="twisted_ingest")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._windows: dict[str, tuple[float, int]] = {}
        self.suppressed = 0
        self.internal_errors = 0

    def _folded(self, kind: str) -> int | None:
        """Count an event; give how many of its kind were folded before it, or ``None`` when it is folded too."""
        now = self._seconds()
        since, count = self._windows.get(kind, (now, 0))
        folded = 0
        if now - since >= INTERVAL_SECONDS:
            folded, since, count = max(0, count - BURST), now, 0
        self._windows[kind] = (since, count + 1)
        if count >= BURST:
            self.suppressed += 1
            return None
        return folded

    def _limited(self, kind: str, level: LogLevel, text: str, **fields: object) -> None:
        """Log an event unless its kind has had its share; ``text`` is a constant format."""
        folded = self._folded(kind)
        if folded is not None:
            self.log.emit(level, text + _MORE[bool(folded)], event=kind, folded=folded, **fields)

    def _peer(self, kind: str, level: LogLevel, text: str, info: ConnectionInfo, **fields: object) -> None:
        self._limited(kind, level, text, **_who(info), **fields)

    # Connections.

    def connection_opened(self, ledger: ListenerLedger, info: ConnectionInfo) -> None:
        """Note that a peer was admitted."""
        ledger.connections_opened += 1
        self._peer("connection_opened", LogLevel.info, "{listener}: {peer} connected (#{conn})", info)

    def connection_closed(
        self, ledger: ListenerLedger, info: ConnectionInfo, reason: CloseReason, records: int, size: int
    ) -> None:
        """Note that a connection is gone, and why."""
        ledger.connections_closed[reason] += 1
        self._peer(
            "connection_closed",
            LogLevel.info,
            "{listener}: {peer} closed (#{conn}): {reason}, {records} records, {size}",
            info,
            reason=reason.value,
            records=records,
            size=format_size(size),
        )

    def connection_refused(self, ledger: ListenerLedger, listener: str, peer: str, reason: RefuseReason) -> None:
        """Note that a peer was turned away."""
        ledger.connections_refused[reason] += 1
        self._limited(
            "connection_refused",
            LogLevel.warn,
            "{listener}: refused {peer}: {reason}, {what}",
            listener=listener,
            peer=escape(peer),
            reason=reason.value,
            what=_REFUSALS[reason],
        )

    def peer_departed(self, info: ConnectionInfo, unread: int) -> None:
        """Note that a peer is gone while we do not read from it; its bytes are read when we do."""
        self._peer(
            "peer_departed",
            LogLevel.info,
            "{listener}: {peer} (#{conn}) has hung up while we hold back; {unread} of it are yet to be read",
            info,
            unread=format_size(unread),
        )

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

    # Records.

    def record_oversize(self, info: ConnectionInfo, limit: int, action: str, start: bytes) -> None:
        """Note that a record passed ``MAX_LENGTH``, and what was done with it."""
        self._peer(
            "record_oversize",
            LogLevel.warn,
            "{listener}: {peer} sent a record longer than {limit} (--max-length): {action}; it begins {start}{hint}",
            info,
            hint=f"; it looks like several: {_ENDS_NOTHING}" if is_run_together(start) else "",
            limit=format_size(limit),
            action=action,
            start=preview(start),
        )

    def record_evicted(self, info: ConnectionInfo, size: int, start: bytes) -> None:
        """Note that an unfinished record was given up because all of them take too much memory."""
        self._peer(
            "record_evicted",
            LogLevel.warn,
            "{listener}: {peer} holds {size} of a record that it does not end, and unfinished records take a quarter "
            "of the memory (--memory, --frame-timeout): the oldest are treated as too long; it begins {start}",
            info,
            size=format_size(size),
            start=preview(start),
        )

    def wrong_protocol(self, ledger: ListenerLedger, info: ConnectionInfo, found: Signature) -> None:
        """Note that a peer speaks another protocol, and what to do about it."""
        ledger.connections_refused[found.reason] += 1
        self._peer(
            f"wrong_protocol_{found.reason.value}",
            LogLevel.warn,
            "{listener}: {peer} sent {what}, which is not for this port: {fix}",
            info,
            what=found.what,
            fix=found.fix,
        )

    def unknown_protocol(self, info: ConnectionInfo, start: bytes) -> None:
        """Note that a peer's first bytes are no text and no protocol we know; they are framed all the same."""
        self._peer(
            "unknown_protocol",
            LogLevel.warn,
            "{listener}: {peer} sent what does not begin like text and is no protocol known here: it is taken as "
            "records all the same; let the client send text, or keep it from this port (--allow); it begins {start}",
            info,
            start=preview(start),
        )

    def records_run_together(self, info: ConnectionInfo, start: bytes) -> None:
        """Note that what a peer sent without an end looks like several records."""
        self._peer(
            "records_run_together",
            LogLevel.warn,
            "{listener}: {peer} sent what looks like several records with nothing between them: " + _ENDS_NOTHING + "; "
            "they are delivered as one, when it closes or a record is not ended in time (--frame-timeout); it begins "
            "{start}",
            info,
            start=preview(start),
        )

    def bad_frame(self, info: ConnectionInfo, count: int, found: bytes) -> None:
        """Note that no count stands where a counted frame must begin, and which count led there."""
        where = f"behind a frame whose count is {count}" if count else "where its first frame must begin"
        self._peer(
            "bad_frame",
            LogLevel.warn,
            "{listener}: {peer} sent what is no count {where} ({start}): the connection ends; if that count is wrong "
            "(characters instead of bytes?) mend the sender, if it sends lines too use --framing auto",
            info,
            where=where,
            start=preview(found),
        )

    def framing_resynced(self, info: ConnectionInfo, cause: Resync, start: bytes) -> None:
        """Note that a reading was given up; it was counted where it was found."""
        self._peer(f"framing_resynced_{cause}", LogLevel.warn, _RESYNCED[cause], info, start=preview(start))

    def relp_error(self, info: ConnectionInfo, error: RelpError) -> None:
        """Note that a peer has broken a rule of RELP, which ends its session; it was counted where it was found."""
        self._peer(
            "relp_error",
            LogLevel.warn,
            "{listener}: {peer} has broken a rule of RELP ({error}): its session ends; what is not answered it will "
            "send again",
            info,
            error=error.value,
        )

    def timed_out(self, info: ConnectionInfo, reason: CloseReason, seconds: float) -> None:
        """Note that a deadline of the connection has passed and it is being reset."""
        what = {
            CloseReason.IDLE: "sent nothing for {seconds} s (--idle-timeout)",
            CloseReason.FRAME_DEADLINE: "did not end a record within {seconds} s (--frame-timeout)",
            CloseReason.ACKS_UNREAD: "has not read our answers for {seconds} s",
        }[reason]
        self._peer(reason.value, LogLevel.warn, "{listener}: {peer} " + what, info, seconds=seconds)

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

    def sink_stalled(self, sink: str, trouble: str) -> None:
        """Note that a sink cannot take records at the moment; it goes on trying."""
        self._limited(f"sink_stalled:{sink}", LogLevel.error, "sink {sink}: {trouble}", sink=sink, trouble=trouble)

    def sink_recovered(self, sink: str, path: str) -> None:
        """Note that a sink takes records again."""
        text = "sink {sink}: {path}: writing again"
        self._limited(f"sink_recovered:{sink}", LogLevel.info, text, sink=sink, path=path)

    def sink_failed(self, sink: str, error: str) -> None:
        """Note that a sink has given up for good."""
        self.log.critical("sink {sink} has failed for good: {error}", sink=sink, error=error, event="sink_failed")

    def sink_rejected(self, sink: str, records: int, reason: str) -> None:
        """Note that a sink will never take some records; it goes on with others."""
        self._limited(
            f"sink_rejected:{sink}",
            LogLevel.error,
            "sink {sink}: {records} records dropped, which it will never take: {reason}",
            sink=sink,
            records=records,
            reason=reason,
        )

    def sink_repaired(self, sink: str, path: str) -> None:
        """Note that a file ended in half a line, left by a killed process, which now has its LF."""
        self.log.emit(
            LogLevel.warn,
            "sink {sink}: {path} ended in half a line (a killed process); it was ended with LF",
            sink=sink,
            path=path,
            event="sink_repaired",
        )

    def sink_file_moved(self, sink: str, path: str, rewritten: int | None) -> None:
        """Note that a file was renamed (``None``), or removed and so many bytes in it are being written again."""
        text = "sink {sink}: {path} was renamed: going on in a new one"
        if rewritten is not None:
            text = (
                "sink {sink}: {path} was removed: {size} of it, not yet counted as delivered, "
                "are written again to a new one"
            )
        self._limited("sink_file_moved", LogLevel.warn, text, sink=sink, path=path, size=format_size(rewritten or 0))

    def sink_truncated(self, sink: str, path: str) -> None:
        """Note that somebody has truncated a file that we append to."""
        self._limited(
            "sink_truncated",
            LogLevel.warn,
            "sink {sink}: {path} was truncated by another program; what came between a copy of it and that is lost: "
            "let logrotate rename (create), not copytruncate",
            sink=sink,
            path=path,
        )

    def spool_recovered(self, sink: str, found: str, *, is_clean: bool) -> None:
        """Note what a spool held at start; a warning where not all of it was whole."""
        level = LogLevel.info if is_clean else LogLevel.warn
        self.log.emit(level, "sink {sink}: spool {found}", sink=sink, found=found, event="spool_recovered")

    def spool_segment_gone(self, sink: str, path: str) -> None:
        """Note that somebody has taken a segment away whose records were not delivered yet."""
        self._limited(
            f"spool_segment_gone:{sink}",
            LogLevel.error,
            "sink {sink}: {path} is gone, and what was in it with it (spool_missing_batches): "
            "nobody but the spool may remove its files",
            sink=sink,
            path=path,
        )

    def spool_left_over(self, found: str) -> None:
        """Note records on the disk that no sink will read."""
        self.log.emit(LogLevel.warn, "spool {found}", found=found, event="spool_left_over")

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

    def bug(self, where: str, failure: Failure) -> None:
        """Note a bug of ours that has been caught already."""
        self.internal_error(where, failure=failure)

    def guard(self, where: str, call: Callable[..., None], *arguments: object) -> None:
        """Make a call that nobody else looks after, as one from another thread; what it raises is noted as a bug."""
        try:
            call(*arguments)
        except Exception:  # noqa: BLE001 - the reactor would log it, and nobody would count it
            self.internal_error(where)

    def internal_error(self, where: str, info: ConnectionInfo | None = None, failure: Failure | None = None) -> None:
        """Note a bug of ours, with its traceback; without ``failure`` called from inside an ``except`` block."""
        self.internal_errors += 1
        kind = "internal_error"
        folded = self._folded(kind)
        if folded is None:
            return
        who = {} if info is None else _who(info)
        text = (
            "internal error in {where}" if info is None else "{listener}: {peer} (#{conn}): internal error in {where}"
        )
        self.log.failure(text + _MORE[bool(folded)], failure, where=where, event=kind, folded=folded, **who)

    def note(self, text: str, *, level: LogLevel = LogLevel.info, **fields: object) -> None:
        """Log a fact of the process's own life; ``text`` is a constant format."""
        self.log.emit(level, text, **fields)
