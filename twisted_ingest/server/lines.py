"""
Lines: a `LineReceiver` on top of `Connection`, and the factory whose listener speaks them.
"""

from typing import Any

from twisted_ingest.batch import NUL, ConnectionInfo
from twisted_ingest.errors import Framing
from twisted_ingest.flow.lane import Lane
from twisted_ingest.framing.auto import AutoFramer
from twisted_ingest.framing.base import Framer
from twisted_ingest.framing.lines import LineFramer, NulFramer
from twisted_ingest.framing.octets import OctetFramer
from twisted_ingest.limits import READ_SIZE
from twisted_ingest.server.connection import ConnectionOwner
from twisted_ingest.server.contract import LineContract
from twisted_ingest.server.factory import ConnectionFactory

FRAMERS: dict[Framing, type[Framer]] = {
    Framing.AUTO: AutoFramer,
    Framing.NEWLINE: LineFramer,
    Framing.NUL: NulFramer,
    Framing.OCTET_COUNTED: OctetFramer,
}


class IngestProtocol(LineContract):
    """
    Receives lines and passes batches of them to its lane.

    Whole batches are delivered whether or not ``lineReceived`` is overridden, and whatever a subclass then does: lines
    that it is not given because it ended the connection have gone to the sinks. What it may count on as a
    `LineReceiver` and a `TimeoutMixin`, see `LineContract` and `twisted_ingest.server.idleness.Idleness`.
    ``lineLengthExceeded`` is told the beginning of a record longer than ``MAX_LENGTH``, after the lines of its chunk;
    the policy of the listener has dealt with it.
    """

    def __init__(self, info: ConnectionInfo, owner: ConnectionOwner, framer: Framer, lane: Lane) -> None:
        super().__init__(info, owner, framer, lane)
        self._delimiter: bytes | None = type(self).delimiter
        """As a subclass wants it; ``None``: as the listener is set."""
        self._max_length: int = type(self).MAX_LENGTH or owner.limits.max_record_bytes

    def lineLengthExceeded(self, line: bytes) -> None:
        """Log a record longer than ``MAX_LENGTH``; ``line`` is its beginning. The policy was applied already."""
        self._tell_oversize(line, self.MAX_LENGTH)

    def framed_by(self, name: str) -> Any:
        """See `LineContract`."""
        if name == "delimiter":
            return self.framer.delimiter
        return self._max_length

    def frame_by(self, name: str, value: Any) -> None:
        """See `LineContract`; raises ``ValueError`` where the listener cannot have it."""
        delimiter, max_length = self._delimiter, self._max_length
        if name == "delimiter":
            delimiter = value
        else:
            max_length = value
        self.framer = self._owner.make_framer(self.info, delimiter, max_length)
        self._delimiter, self._max_length = delimiter, max_length

    def _note_oversize(self, start: bytes) -> None:
        self.lineLengthExceeded(start)


class IngestFactory(ConnectionFactory):
    """Builds `IngestProtocol` instances; see `ConnectionFactory`."""

    base: type[IngestProtocol] = IngestProtocol
    _protocol: type[IngestProtocol]

    def check_protocol(self, protocol: type[IngestProtocol]) -> None:
        """See `ConnectionFactory`; a class may declare ``delimiter`` and ``MAX_LENGTH``."""
        protocol.declare()
        self.make_framer(ConnectionInfo(0, self.name, "", None), protocol.delimiter, protocol.MAX_LENGTH)

    def make_connection(self, info: ConnectionInfo) -> IngestProtocol:
        """See `ConnectionFactory`."""
        protocol = self._protocol
        framer = self.make_framer(info, protocol.delimiter, protocol.MAX_LENGTH)
        return protocol(info, self, framer, self.open_lane())

    def make_framer(self, info: ConnectionInfo, delimiter: bytes | None, max_length: int | None) -> Framer:
        """
        Make the framer of a connection; ``None`` is as the listener is set.

        Raises ``ValueError`` for a ``delimiter`` other than that of a framing that was chosen for the listener, and for
        a ``max_length`` that does not fit in what one connection may hold.
        """
        limits = self.limits
        self._check_length(max_length)
        framing = self._framing(delimiter)
        return FRAMERS[framing](info, self.ledger, max_length or limits.max_record_bytes, limits.oversize)

    def _framing(self, delimiter: bytes | None) -> Framing:
        listed = self.limits.framing or Framing.AUTO
        wanted = listed if delimiter is None else Framing.NUL if delimiter == NUL else Framing.NEWLINE
        if listed not in (Framing.AUTO, wanted):
            raise ValueError(
                f"listener {self.name!r} has framing {listed.value}, and its protocol the delimiter {delimiter!r}: "
                f"set its framing to {wanted.value} or auto, or leave the delimiter out"
            )
        return wanted

    def _check_length(self, max_length: int | None) -> None:
        """Refuse records that would keep a connection paused for ever, or over its share."""
        most = max(self._intake.connection_limit - READ_SIZE, self.limits.max_record_bytes)
        if max_length is not None and max_length > most:
            raise ValueError(
                f"MAX_LENGTH {max_length} and one read of {READ_SIZE} B do not fit in the connection_memory of "
                f"{self._intake.connection_limit} B: raise connection_memory or set MAX_LENGTH to {most} at most"
            )
