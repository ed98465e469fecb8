"""
What listeners count (`ListenerLedger`, `RelpLedger`, `PollLedger`), as metrics: one row for each that shows.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from twisted_ingest.errors import (
    AcceptError,
    CloseReason,
    DiscardReason,
    HandshakeResult,
    PollResult,
    RefuseReason,
    RelpCommand,
    RelpError,
    Resync,
)


class Count(NamedTuple):
    """A counter: ``key`` is the ledger's word for it, and ``members`` what it is counted by, under ``label``."""

    key: str
    name: str
    text: str
    label: str = ""
    members: Iterable[StrEnum] = ()


TOTALS = (
    Count("connections_opened", "ingest_connections_opened", "Connections admitted."),
    Count("connections_closed", "ingest_connections_closed", "Connections ended.", "reason", CloseReason),
    Count("connections_refused", "ingest_connections_refused", "Connections not admitted.", "reason", RefuseReason),
    Count("bytes_received", "ingest_received_bytes", "Bytes read from sockets."),
    Count("bytes_accepted", "ingest_accepted_bytes", "Bytes of records, delimiters excluded."),
    Count("bytes_framing", "ingest_framing_bytes", "Bytes of delimiters and of empty records."),
    Count("bytes_discarded", "ingest_discarded_bytes", "Bytes that never became a record.", "reason", DiscardReason),
    Count("records_framed", "ingest_records", "Records told apart on the wire."),
    Count("records_empty", "ingest_empty_records", "Empty records (keep-alives), which are not delivered."),
    Count("records_truncated", "ingest_truncated_records", "Records cut to --max-length."),
    Count("records_partial", "ingest_partial_records", "Records delivered although their end never came."),
)
"""Of all listeners together."""

BY_LISTENER = (
    Count("bytes_received", "ingest_listener_received_bytes", "Bytes read, by listener."),
    Count("records_framed", "ingest_listener_records", "Records framed, by listener."),
    Count("connections_opened", "ingest_listener_connections_opened", "Connections admitted, by listener."),
    Count(
        "bytes_unread",
        "ingest_unread_at_close_bytes",
        "Bytes that waited in the kernel when their connection was closed, whoever closed it; never received.",
    ),
    Count("accept_errors", "ingest_accept_errors", "Connections that could not be accepted.", "reason", AcceptError),
    Count(
        "framing_resyncs",
        "ingest_framing_resyncs",
        "Readings of auto framing that what followed refuted.",
        "cause",
        Resync,
    ),
    Count(
        "tls_handshakes",
        "ingest_tls_handshakes",
        "TLS handshakes that have ended, by what became of them.",
        "result",
        HandshakeResult,
    ),
    Count("tls_truncated", "ingest_tls_truncated", "TLS connections that ended without the goodbye of TLS."),
    Count("relp_acks", "ingest_relp_acks", "Records answered with 200."),
    Count("relp_unanswered", "ingest_relp_unanswered_records", "Records whose session ended before its answer."),
    Count("relp_frames", "ingest_relp_frames", "Frames by command.", "command", RelpCommand),
    Count("relp_errors", "ingest_relp_errors", "Sessions ended for a broken rule.", "reason", RelpError),
    Count("polls", "ingest_polls", "Polls that have ended, by what became of them.", "result", PollResult),
)
"""Of each listener whose ledger counts it; a metric that none has is not there."""
