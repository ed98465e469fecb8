"""
The words everybody shares: a connection's identity, the batch of records, the group of batches.

Pure values. A batch is what one chunk completed: many records, one object.
"""

from typing import TYPE_CHECKING

from twisted_ingest.limits import BATCH_OVERHEAD, GROUP_OVERHEAD

if TYPE_CHECKING:
    from twisted_ingest.flow.lane import Lane

LF = b"\n"
NUL = b"\0"
ESCAPED_LF = b"\\n"


class ConnectionInfo:
    """
    Who sent it: final once the connection is admitted.

    ``id`` is unique within the process, ``peer`` is the remote address as text,
    ``host`` the part of it that per-peer limits count by (``None`` for a UNIX socket).
    """

    __slots__ = ("host", "id", "listener", "peer")

    def __init__(self, id: int, listener: str, peer: str, host: str | None) -> None:  # noqa: A002
        self.id = id
        self.listener = listener
        self.peer = peer
        self.host = host

    def __repr__(self) -> str:
        return f"<connection {self.id} from {self.peer} on {self.listener}>"


class Batch:
    """
    The records that one chunk completed, in order.

    ``wire`` is their bytes, each record followed by ``delimiter`` and none empty; nobody changes it. The delimiter is
    LF or NUL, whichever no record holds; a single record that holds both is followed by NUL. ``count`` is their
    number, ``size`` the length of ``wire``, ``received_at`` Unix seconds. ``partial`` marks a single record whose end
    never came, ``truncated`` a single one whose end was cut off.
    """

    __slots__ = ("count", "delimiter", "info", "lane", "partial", "received_at", "size", "truncated", "wire")

    lane: "Lane"
    """Set by the lane that took the batch, for the way back."""

    def __init__(
        self,
        wire: bytes,
        count: int,
        info: ConnectionInfo,
        received_at: float,
        delimiter: bytes = LF,
        *,
        partial: bool = False,
        truncated: bool = False,
    ) -> None:
        self.wire = wire
        self.count = count
        self.size = len(wire)
        self.info = info
        self.received_at = received_at
        self.delimiter = delimiter
        self.partial = partial
        self.truncated = truncated

    def block(self) -> bytes:
        r"""
        Give the records as lines, each ended by LF.

        An LF inside a record (of a counted or NUL-ended one) becomes the two characters
        ``\n``, so that one record stays one line.
        """
        if self.delimiter == LF:
            return self.wire
        if self.count == 1:
            return self.wire[:-1].replace(LF, ESCAPED_LF) + LF
        return self.wire.replace(LF, ESCAPED_LF).replace(self.delimiter, LF)

    def records(self) -> list[bytes]:
        """Give the records one by one, without delimiters and with their bytes unchanged."""
        return [self.wire[:-1]] if self.count == 1 else self.wire[:-1].split(self.delimiter)

    def __repr__(self) -> str:
        return f"<batch of {self.count} records, {self.size} B, {self.info!r}>"


class Group:
    """
    Batches of many connections, in order, on their way to every sink.

    ``charge`` is what they cost the budget; ``holders`` counts the sinks that have it still, ``required``
    those among them that settlement waits for. ``needs_sync`` asks sinks to answer only once the device has the
    records. ``is_refused`` marks a group that a required sink will never take. ``records`` are its
    records by listener, of its first ``counted`` batches: counted once, so that whoever asks what is in flight need not
    look at every batch, unless one has been lost since.
    """

    __slots__ = (
        "batches",
        "charge",
        "counted",
        "holders",
        "is_refused",
        "needs_sync",
        "records",
        "required",
        "size",
    )

    def __init__(self, batches: list[Batch], size: int, *, needs_sync: bool = False) -> None:
        self.batches = batches
        self.size = size
        self.needs_sync = needs_sync
        self.is_refused = False
        self.charge = size + len(batches) * BATCH_OVERHEAD + GROUP_OVERHEAD
        self.holders = 0
        self.required = 0
        self.counted = len(batches)
        self.records = count_records(batches)


def count_records(batches: list[Batch]) -> dict[str, int]:
    """Count records by listener."""
    counts: dict[str, int] = {}
    for batch in batches:
        name = batch.info.listener
        counts[name] = counts.get(name, 0) + batch.count
    return counts
