"""
The accounting identity: every byte in exactly one bucket, every record in exactly one outcome.

Plain integers, added to where the fact happens; no Twisted, no metrics library. No term
is derived from another: what is still buffered or in flight is recounted from live
objects by the caller of ``ByteBalance`` and ``RecordBalance``.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

from twisted_ingest.errors import (
    AcceptError,
    CloseReason,
    DiscardReason,
    DropReason,
    HandshakeResult,
    PollResult,
    RefuseReason,
    ReloadResult,
    RelpCommand,
    RelpError,
    Resync,
)

ACK_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 90.0)
"""Upper bounds of the histogram of answers; librelp's clients give up after the last."""


class TLSLedger:
    """What a listener counts of TLS."""

    __slots__ = ("handshakes", "truncated")

    def __init__(self) -> None:
        self.handshakes = dict.fromkeys(HandshakeResult, 0)
        self.truncated = 0
        """Connections that ended by a FIN without the goodbye of TLS: anybody on the way could have sent it."""


class ListenerLedger:
    """
    The counts of one listener, since start.

    ``bytes_received`` is counted where a chunk arrives, the other buckets where the framer
    decides; each reason is present from the start with 0.
    """

    __slots__ = (
        "accept_errors",
        "bytes_accepted",
        "bytes_discarded",
        "bytes_framing",
        "bytes_received",
        "bytes_unread",
        "connections_closed",
        "connections_opened",
        "connections_refused",
        "framing_resyncs",
        "records_cut",
        "records_dropped",
        "records_empty",
        "records_framed",
        "records_partial",
        "records_truncated",
        "tls",
    )

    def __init__(self) -> None:
        self.bytes_received = 0
        self.bytes_accepted = 0
        """Bytes of records, delimiters excluded."""
        self.bytes_framing = 0
        """Delimiters, a CR before LF, empty records."""
        self.bytes_discarded = dict.fromkeys(DiscardReason, 0)
        self.bytes_unread = 0
        """Bytes that waited in the kernel when their connection was closed, whoever closed it: no part of the others,
        for they were never received."""
        self.framing_resyncs = dict.fromkeys(Resync, 0)
        self.records_framed = 0
        """Records told apart on the wire, those dropped for their size included."""
        self.records_empty = 0
        self.records_truncated = 0
        self.records_partial = 0
        self.records_cut = 0
        """Those of them that a stop of ours has cut off."""
        self.records_dropped = dict.fromkeys(DropReason, 0)
        """Records dropped before any sink saw them."""
        self.connections_opened = 0
        self.connections_closed = dict.fromkeys(CloseReason, 0)
        self.connections_refused = dict.fromkeys(RefuseReason, 0)
        self.accept_errors = dict.fromkeys(AcceptError, 0)
        self.tls: TLSLedger | None = None
        """Of a listener that speaks it."""

    def snapshot(self) -> Counter[str]:
        """Give all counts as one mapping; mappings of several listeners or processes can be added."""
        flat: Counter[str] = Counter()
        for name in self._names():
            value = getattr(self, name)
            if isinstance(value, TLSLedger):
                flat["tls_truncated"] = value.truncated
                name, value = "tls_handshakes", value.handshakes  # noqa: PLW2901
            if isinstance(value, dict):
                for reason, count in value.items():
                    flat[f"{name}/{reason}"] = count
            elif value is not None:
                flat[name] = value
        return flat

    @classmethod
    def _names(cls) -> list[str]:
        return [name for base in reversed(cls.__mro__) for name in getattr(base, "__slots__", ())]


class RelpLedger(ListenerLedger):
    """The counts of a RELP listener: those of every listener, and what its sessions asked for and were answered."""

    __slots__ = (
        "relp_ack_seconds",
        "relp_ack_seconds_sum",
        "relp_acks",
        "relp_errors",
        "relp_frames",
        "relp_unanswered",
    )

    def __init__(self) -> None:
        super().__init__()
        self.relp_frames = dict.fromkeys(RelpCommand, 0)
        self.relp_errors = dict.fromkeys(RelpError, 0)
        self.relp_acks = 0
        """Records answered with 200; whether the answer arrived, nobody knows."""
        self.relp_unanswered = 0
        """Records that sessions ended without answering: with the answers that were lost on the way they bound the
        duplicates, because their senders send them again."""
        self.relp_ack_seconds = dict.fromkeys((*ACK_SECONDS, math.inf), 0)
        """Records answered by how long it took from their last byte: not above each key, and above the one before."""

        self.relp_ack_seconds_sum = 0.0

    def acked(self, count: int, seconds: float) -> None:
        """Count records answered at once."""
        self.relp_acks += count
        self.relp_ack_seconds_sum += seconds * count
        self.relp_ack_seconds[next((bound for bound in ACK_SECONDS if seconds <= bound), math.inf)] += count


class PollLedger(ListenerLedger):
    """The counts of a poller. Its bytes are those of bodies."""

    __slots__ = ("polls", "polls_begun")

    def __init__(self) -> None:
        super().__init__()
        self.polls_begun = 0
        self.polls = dict.fromkeys(PollResult, 0)
        """Polls that have ended, by what became of them."""


class CertificateState(NamedTuple):
    """How it is with the certificate that a listener shows."""

    not_after: float
    """Unix seconds."""
    trouble: str | None
    """Why nobody will accept it; ``None``: all is well."""
    reloads: Mapping[ReloadResult, int]
    """How often it was read anew."""


class SourceBalance(NamedTuple):
    """What a source holds, recounted from its live objects."""

    buffered_bytes: int
    """Of records whose end has not come."""
    unanswered_frames: int
    """Records whose sender waits for an answer; none where nothing is answered."""
    unanswered_bytes: int
    doorways: int = 0
    """Newcomers that have yet to be admitted."""
    handshakes: int = 0
    """Those of them whose TLS handshake is under way."""
    certificate: CertificateState | None = None
    """Of a listener that speaks TLS."""


class Tally:
    """What one sink did with one listener's records."""

    __slots__ = ("bytes_delivered", "records_delivered", "records_dropped")

    def __init__(self) -> None:
        self.records_delivered = 0
        self.bytes_delivered = 0
        """Bytes as the wire gave them, one delimiter per record included."""
        self.records_dropped = dict.fromkeys(DropReason, 0)


@dataclass(frozen=True, slots=True)
class Balance:
    """Both sides of one identity. ``error`` is what cannot be accounted for, signed."""

    taken: int
    accounted: int

    @property
    def error(self) -> int:
        """Zero when everything is accounted for; positive when something disappeared."""
        return self.taken - self.accounted

    @classmethod
    def of_bytes(cls, ledger: ListenerLedger, buffered: int) -> Self:
        """Weigh the bytes of a listener; ``buffered`` is recounted from its live framers."""
        return cls(
            ledger.bytes_received,
            ledger.bytes_accepted + ledger.bytes_framing + sum(ledger.bytes_discarded.values()) + buffered,
        )

    @classmethod
    def of_records(cls, ledger: ListenerLedger, tally: Tally, in_flight: int) -> Self:
        """Weigh a listener's records at one sink; ``in_flight`` is recounted from live groups."""
        dropped = sum(ledger.records_dropped.values()) + sum(tally.records_dropped.values())
        return cls(ledger.records_framed, tally.records_delivered + dropped + in_flight)
