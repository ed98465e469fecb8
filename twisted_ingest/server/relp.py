"""
RELP on top of `AnsweringConnection`: what bounds a session, what is counted of it, and what it is made of.
"""

from typing import Any

from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.framing.base import Framer
from twisted_ingest.framing.relp import RelpFramer
from twisted_ingest.ledger import RelpLedger
from twisted_ingest.limits import RELP_ACKS_UNREAD_TIMEOUT, RELP_DRAIN_QUIET, RELP_EOF_TIMEOUT, RELP_UNACKED_FRAMES
from twisted_ingest.server.answering import AnsweringConnection
from twisted_ingest.server.answering_factory import AnsweringFactory


class RelpProtocol(AnsweringConnection):
    """Receives frames and answers each once its record is safe; see `AnsweringConnection`."""

    framer: RelpFramer
    _ledger: RelpLedger

    most_unanswered = RELP_UNACKED_FRAMES
    unread_timeout = RELP_ACKS_UNREAD_TIMEOUT
    ended_timeout = RELP_EOF_TIMEOUT
    drain_quiet = RELP_DRAIN_QUIET

    def note_answered(self, records: int, seconds: float) -> None:
        """See `AnsweringConnection`."""
        self._ledger.acked(records, seconds)

    def note_unanswered(self, records: int) -> None:
        """See `AnsweringConnection`."""
        self._ledger.relp_unanswered += records

    def _end_stream(self, framer: Framer) -> None:
        if self.framer.error is not None:
            self._owner.events.relp_error(self.info, self.framer.error)
        super()._end_stream(framer)


_OF_LINES = ("lineReceived", "delimiter", "MAX_LENGTH")


class RelpFactory(AnsweringFactory):
    """Builds `RelpProtocol` instances; see `AnsweringFactory`."""

    base = RelpProtocol
    ledger: RelpLedger

    def make_ledger(self) -> RelpLedger:
        """Make the listener's counts."""
        return RelpLedger()

    def check_protocol(self, protocol: type[Any]) -> None:
        """See `ConnectionFactory`; a session is no `LineReceiver`, and what is declared as for one would be in vain."""
        for name in _OF_LINES:
            if hasattr(protocol, name):
                raise TypeError(
                    f"{protocol.__name__}.{name}: a session of RELP is no LineReceiver: set max_length in the "
                    "listener, and to be given each record add a sink of your own (IngestService.add_sink)"
                )

    def make_framer(self, info: ConnectionInfo, delimiter: bytes | None, max_length: int | None) -> RelpFramer:
        """Make the framer of a session, whose frames have a length and no delimiter."""
        limits = self.limits
        return RelpFramer(info, self.ledger, max_length or limits.max_record_bytes, limits.oversize)
