"""
The accounting identity: every byte in exactly one bucket, every record in exactly one outcome.

Plain integers, added to where the fact happens; no Twisted, no metrics library. No term
is derived from another: what is still buffered or in flight is recounted from live
objects by the caller of ``ByteBalance`` and ``RecordBalance``.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Self

from twisted_ingest.errors import CloseReason, DiscardReason, DropReason, RefuseReason


class ListenerLedger:
    """
    The counts of one listener, since start.

    ``bytes_received`` is counted where a chunk arrives, the other buckets where the framer
    decides; each reason is present from the start with 0.
    """

    __slots__ = (
        "bytes_accepted",
        "bytes_discarded",
        "bytes_framing",
        "bytes_received",
        "connections_closed",
        "connections_opened",
        "connections_refused",
        "records_dropped",
        "records_empty",
        "records_framed",
        "records_partial",
        "records_truncated",
    )

    def __init__(self) -> None:
        self.bytes_received = 0
        self.bytes_accepted = 0
        """Bytes of records, delimiters excluded."""
        self.bytes_framing = 0
        """Delimiters, a CR before LF, empty records."""
        self.bytes_discarded = dict.fromkeys(DiscardReason, 0)
        self.records_framed = 0
        """Records told apart on the wire, those dropped for their size included."""
        self.records_empty = 0
        self.records_truncated = 0
        self.records_partial = 0
        self.records_dropped = dict.fromkeys(DropReason, 0)
        """Records dropped before any sink saw them."""
        self.connections_opened = 0
        self.connections_closed = dict.fromkeys(CloseReason, 0)
        self.connections_refused = dict.fromkeys(RefuseReason, 0)

    def snapshot(self) -> Counter[str]:
        """Give all counts as one mapping; mappings of several listeners or processes can be added."""
        flat: Counter[str] = Counter()
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, dict):
                flat.update({f"{name}/{reason}": n for reason, n in value.items()})
            else:
                flat[name] = value
        return flat


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
        """Weigh a listener's records at one sink; ``in_flight`` is recounted from live batches."""
        dropped = sum(ledger.records_dropped.values()) + sum(tally.records_dropped.values())
        return cls(ledger.records_framed, tally.records_delivered + dropped + in_flight)
