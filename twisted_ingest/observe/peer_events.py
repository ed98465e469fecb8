"""
What peers do: one function for each fact, which tells it, and counts what only it can count.

Each carries a bounded, escaped preview of the peer's bytes at most.
"""

from twisted.logger import LogLevel

from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import CloseReason, RefuseReason, RelpError, Resync
from twisted_ingest.escaping import escape, preview
from twisted_ingest.framing.detect import is_run_together
from twisted_ingest.framing.signatures import Signature
from twisted_ingest.ledger import ListenerLedger
from twisted_ingest.limits import DOORWAY_BYTES, DOORWAY_TIMEOUT
from twisted_ingest.observe.facts import Facts, who_of
from twisted_ingest.units import format_size

_ENDS_NOTHING = "this sender ends no records: set eol / newLine / %n at it"

_REFUSALS = {
    RefuseReason.PER_PEER: "it has as many connections as one address may (--max-connections-per-peer)",
    RefuseReason.CONNECTION_RATE: "it connects more often than one address may (--connection-rate-per-peer)",
    RefuseReason.NOT_ALLOWED: "its address is in no network of those that may connect (--allow)",
    RefuseReason.DRAINING: "the server is stopping (--drain-timeout)",
    RefuseReason.INTERNAL_ERROR: "a bug",
    RefuseReason.FULL: "the last place was taken while it was coming in (--max-connections)",
    RefuseReason.DOORWAY_TIMEOUT: f"it has not said who it is within {DOORWAY_TIMEOUT:g} s",
    RefuseReason.DOORWAY_FULL: "it has taken the longest of all who have yet to say who they are, and makes room",
    RefuseReason.DOORWAY_BYTES: f"it has sent {format_size(DOORWAY_BYTES)} and not said who it is",
    RefuseReason.TLS_PEER: "TLS could not be agreed upon with it, or its certificate lets nobody in",
    RefuseReason.DOORWAY_LEFT: "it has hung up before it was admitted",
    RefuseReason.PROXY_UNTRUSTED: "only proxies may connect here, and it is none of those (--proxy-protocol-from): if "
    "it is one, name its network there; if not, give it a listener of its own",
    RefuseReason.PROXY_BAD: "its PROXY header cannot be believed (--proxy-protocol-from): mend the proxy",
    RefuseReason.PROXY_MISSING: "it has sent no PROXY header, which has to come first here (--proxy-protocol-from): "
    "let the proxy send one (HAProxy: send-proxy-v2; nginx: proxy_protocol on; a load balancer's target group: "
    "proxy_protocol_v2.enabled=true)",
}
"""Why newcomers are turned away, and what changes that. Who is turned away for what it sent is told the fix."""

_RESYNCED = {
    Resync.COUNT: "{listener}: {peer} sent a counted frame that does not end where another begins ({start}): read as "
    "lines, up to the next frames; if its count is wrong (characters instead of bytes?) mend the sender",
    Resync.JUNK: "{listener}: {peer} sent bytes between counted frames that belong to none ({start}): delivered as "
    "lines; the count before them may be too small (characters instead of bytes?)",
    Resync.NUL: "{listener}: {peer} sent NUL as if it ended records, and then lines ({start}): these are lines again",
}


class PeerEvents(Facts):
    """Facts of connections, and of what comes on them."""

    def _peer(self, kind: str, level: LogLevel, text: str, info: ConnectionInfo, **fields: object) -> None:
        self._limited(kind, level, text, **who_of(info), **fields)

    # Coming and going.

    def connection_opened(self, ledger: ListenerLedger, info: ConnectionInfo) -> None:
        """Note that a peer was admitted."""
        ledger.connections_opened += 1
        identity = "" if info.identity is None else f" as {escape(info.identity)}"
        text = "{listener}: {peer} connected{identity} (#{conn})"
        self._peer("connection_opened", LogLevel.info, text, info, identity=identity)

    def connection_heard(self, info: ConnectionInfo) -> None:
        """Note that a proxy, which was admitted for itself and not told of, has sent something."""
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

    def connection_refused(
        self, ledger: ListenerLedger, listener: str, peer: str, reason: RefuseReason, why: str | None = None
    ) -> None:
        """Note that a peer was turned away; ``why``, where that is more than the reason says."""
        ledger.connections_refused[reason] += 1
        self._limited(
            f"connection_refused_{reason.value}",
            LogLevel.warn,
            "{listener}: refused {peer}: {reason}, {what}",
            listener=listener,
            peer=escape(peer),
            reason=reason.value,
            what=_REFUSALS[reason] if why is None else escape(why),
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

    # What it sends.

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

    def bad_frame(self, info: ConnectionInfo, size: int, found: bytes) -> None:
        """Note that no count stands where a counted frame must begin, and how long the record before it is."""
        where = f"behind a record of {size} B" if size else "before any record"
        self._peer(
            "bad_frame",
            LogLevel.warn,
            "{listener}: {peer} sent what is no count {where} ({start}): the connection ends; if the count is wrong "
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
