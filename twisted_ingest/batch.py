"""
The words everybody shares: a connection's identity, the batch of records, the group of batches.

Pure values. A batch is what one chunk completed: many records, one object.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple, Protocol

LF = b"\n"
NUL = b"\0"
ESCAPED_LF = b"\\n"


class PeerCertificate(NamedTuple):
    """What is kept of a certificate that a peer has shown. ``fingerprint`` is ``SHA256:`` and that of its DER."""

    fingerprint: str
    subject: str


class ConnectionInfo:
    """
    Who sent it: final once the connection is admitted.

    ``id`` is unique within the process, ``peer`` is the remote address as text,
    ``host`` the part of it that per-peer limits count by (``None`` for a UNIX socket). ``local`` is the address that
    was connected to, ``proxy`` that of the proxy in between, ``identity`` whom its ``certificate`` names: ``None``
    where nobody has said.
    """

    __slots__ = ("certificate", "host", "id", "identity", "listener", "local", "peer", "proxy")

    def __init__(
        self,
        id: int,  # noqa: A002
        listener: str,
        peer: str,
        host: str | None,
        *,
        local: str | None = None,
        proxy: str | None = None,
        identity: str | None = None,
    ) -> None:
        self.id = id
        self.listener = listener
        self.peer = peer
        self.host = host
        self.local = local
        self.proxy = proxy
        self.identity = identity
        self.certificate: PeerCertificate | None = None

    def __repr__(self) -> str:
        return f"<connection {self.id} from {self.peer} on {self.listener}>"


class Lease(Protocol):
    """What stands behind the bytes of a batch that are lent: a buffer that its owner wants to use again."""

    def let_go(self) -> None:
        """
        Hear that nobody is left who was handed the batch; called once.

        Whoever took a view of that view, and kept it, reads the buffer still: its owner has to see whether anybody
        does (a ``bytearray`` that is looked at refuses to change its size), and must leave it alone then.
        """


_GONE = memoryview(b"")
_GONE.release()


class Batch:
    """
    The records that one chunk completed, in order.

    ``wire`` is their bytes, each record followed by ``delimiter`` and none empty; nobody changes it. The delimiter is
    LF or NUL, whichever no record holds; a single record that holds both is followed by NUL. ``count`` is their
    number, ``size`` the length of ``wire``, ``received_at`` Unix seconds. ``partial`` marks a single record whose end
    never came, ``truncated`` a single one whose end was cut off.

    ``wire`` may be a view (of single bytes, contiguous) of a buffer that is used again once the batch is let go of;
    ``lease`` is told of that. What is kept for longer is a `copy`: any use of a view that was let go of raises
    ``ValueError``.
    """

    __slots__ = ("count", "delimiter", "info", "lease", "partial", "received_at", "size", "truncated", "wire")

    def __init__(
        self,
        wire: bytes | memoryview,
        count: int,
        info: ConnectionInfo,
        received_at: float,
        delimiter: bytes = LF,
        *,
        partial: bool = False,
        truncated: bool = False,
        lease: Lease | None = None,
    ) -> None:
        self.wire = wire
        self.count = count
        self.size = len(wire)
        self.info = info
        self.received_at = received_at
        self.delimiter = delimiter
        self.partial = partial
        self.truncated = truncated
        self.lease = lease

    def block(self) -> bytes | memoryview:
        r"""
        Give the records as lines, each ended by LF: ``wire`` itself where it is that already, and valid as long.

        An LF inside a record (of a counted or NUL-ended one) becomes the two characters
        ``\n``, so that one record stays one line.
        """
        if self.delimiter == LF:
            return self.wire
        if self.count == 1:
            return bytes(self.wire[:-1]).replace(LF, ESCAPED_LF) + LF
        return bytes(self.wire).replace(LF, ESCAPED_LF).replace(self.delimiter, LF)

    def records(self) -> list[bytes]:
        """Give the records one by one, without delimiters and with their bytes unchanged; they may be kept."""
        if self.count == 1:
            return [bytes(self.wire[:-1])]
        records = bytes(self.wire).split(self.delimiter)
        records.pop()  # what stands behind the last delimiter: nothing
        return records

    def copy(self) -> "Batch":
        """Give a batch whose bytes may be kept: this one where they are its own, or one with a copy of them."""
        if self.lease is None and isinstance(self.wire, bytes):
            return self
        return Batch(
            bytes(self.wire),
            self.count,
            self.info,
            self.received_at,
            self.delimiter,
            partial=self.partial,
            truncated=self.truncated,
        )

    def let_go(self) -> None:
        """
        Give lent bytes back: whoever handed the batch out says so, once nobody has it any more.

        A batch that has its own bytes keeps them. Raises what the lease does.
        """
        wire, lease = self.wire, self.lease
        if isinstance(wire, memoryview):
            self.wire = _GONE
            with suppress(BufferError):  # somebody looks at it still, which the lease has to find out by itself
                wire.release()
        if lease is not None:
            self.lease = None
            lease.let_go()

    def __repr__(self) -> str:
        return f"<batch of {self.count} records, {self.size} B, {self.info!r}>"


class Group:
    """
    Batches of many connections, in order, as a sink sees them.

    ``size`` is what their ``wire`` takes in bytes, ``records`` are their records by listener. ``needs_sync`` asks the
    sink to answer only once the device has them. All sinks of a route are given the same one: none can change it.
    """

    __slots__ = ("batches", "needs_sync", "records", "size")

    def __init__(
        self, batches: Sequence[Batch], size: int, records: dict[str, int] | None = None, *, needs_sync: bool = False
    ) -> None:
        self.batches = tuple(batches)
        self.size = size
        self.records: Mapping[str, int] = MappingProxyType(count_records(batches) if records is None else records)
        self.needs_sync = needs_sync


def count_records(batches: Sequence[Batch]) -> dict[str, int]:
    """Count records by listener."""
    counts: dict[str, int] = {}
    name, number = "", 0
    for batch in batches:
        # Added up as long as the listener stays the same, as it mostly does: this is asked for each group.
        listener = batch.info.listener
        if listener is not name:
            if number:
                counts[name] = counts.get(name, 0) + number
            name, number = listener, 0
        number += batch.count
    if number:
        counts[name] = counts.get(name, 0) + number
    return counts
