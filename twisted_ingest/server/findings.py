"""
What a framer finds odd in a stream: it is told, and ends the connection where the framer has given the stream up.
"""

from typing import Protocol

from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import CloseReason
from twisted_ingest.framing.base import Framer
from twisted_ingest.ledger import ListenerLedger
from twisted_ingest.limits import ListenerLimits
from twisted_ingest.observe.events import Events
from twisted_ingest.server.deadlines import Deadlines


class Told(Protocol):
    """What is needed of a connection's owner to tell what happens on it."""

    @property
    def limits(self) -> ListenerLimits:
        """The bounds that hold now."""

    @property
    def events(self) -> Events:
        """Who is told of what happens."""


class Findings(Deadlines):
    """What of a connection reports on its stream; see `Connection`, whose part it is."""

    info: ConnectionInfo
    _owner: Told
    _ledger: ListenerLedger
    _is_evicting: bool = False

    def close(self, reason: CloseReason, *, reset: bool) -> None:
        """End the connection for ``reason``."""
        raise NotImplementedError

    # What follows is ours.

    def _report(self, framer: Framer) -> None:
        """Report what the framer found odd, and end the connection where it has given up its stream."""
        if framer.unnamed:
            self._owner.events.unknown_protocol(self.info, framer.unnamed)
            framer.unnamed = b""
        resyncs, framer.resyncs = framer.resyncs, []
        for cause, start in resyncs:
            self._owner.events.framing_resynced(self.info, cause, start)
        found, framer.oversized = framer.oversized, []
        for start in found:
            if not self.has_left:
                self._note_oversize(start)
        if framer.closed is not None and self.close_reason is None:
            self._end_stream(framer)

    def _end_stream(self, framer: Framer) -> None:
        """End the connection whose stream the framer has given up."""
        if framer.closed is None:
            return
        events, reason = self._owner.events, CloseReason(framer.closed.value)
        if framer.wrong_protocol is not None:
            events.wrong_protocol(self._ledger, self.info, framer.wrong_protocol)
        elif reason is CloseReason.FRAMING:
            size, start = framer.astray or (0, b"")
            events.bad_frame(self.info, size, start)
        self.close(reason, reset=True)

    def _note_oversize(self, start: bytes) -> None:
        """Note a record that was too long, by its beginning; the policy of the listener has dealt with it."""
        self._tell_oversize(start, self.limits.max_record_bytes)

    def _tell_oversize(self, start: bytes, limit: int) -> None:
        if not self._is_evicting:  # that was told under its own cause
            self._owner.events.record_oversize(self.info, limit, self.limits.oversize.value, start)
