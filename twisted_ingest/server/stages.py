"""
What a newcomer goes through before it is admitted: a stage learns one thing of it (a PROXY header, TLS).
"""

from typing import Protocol

from twisted.internet.interfaces import IProtocol

from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import RefuseReason
from twisted_ingest.limits import DOORWAY_TIMEOUT
from twisted_ingest.server.transports import IngestTransport


class TurnedAwayError(Exception):
    """
    A newcomer is not to be admitted, for ``reason``.

    ``why`` is for the log, in place of what that reason says for everybody. With a ``farewell`` that is sent first and
    the connection closed in good order, by a deadline; without one it is reset.
    """

    def __init__(self, reason: RefuseReason, why: str | None = None, *, farewell: bytes = b"") -> None:
        super().__init__(reason.value, why)
        self.reason = reason
        self.why = why
        self.farewell = farewell


class IStage(Protocol):
    """
    One thing to be learnt of a newcomer before it is admitted; made when its turn comes, for one newcomer.

    What it keeps of the bytes it bounds itself. Any method may raise `TurnedAwayError`.
    """

    timeout: float = DOORWAY_TIMEOUT
    """Seconds it may take from its beginning."""
    cost: int = 0
    """Bytes of memory that it takes besides what has come."""

    def begin(self, info: ConnectionInfo, transport: IngestTransport) -> None:
        """
        Begin: the stages before are through.

        ``info`` is what is known so far, and is the stage's to correct (``peer``, ``host``, ``local``, ``proxy``,
        ``identity``); it may write to ``transport``, now or later.
        """

    def feed(self, data: bytes) -> bytes | None:
        """
        Take what has come. ``None``: it wants more; else it is through, and this is what stands behind it.

        Called once as soon as it has begun, with what the stage before has left, and be that nothing.
        """

    def wrap(self, protocol: IProtocol) -> IProtocol:
        """
        Give what the transport shall have in place of ``protocol``: a layer that stays (TLS), or ``protocol``.

        What stood behind the stage is brought to it, as all that follows.
        """
        return protocol

    def overdue(self) -> TurnedAwayError:
        """Say for what one is turned away that was not through in time."""
        return TurnedAwayError(RefuseReason.DOORWAY_TIMEOUT)

    def close(self, reason: RefuseReason) -> None:
        """Let go of what it holds: its newcomer has left, or was turned away, for ``reason``."""
