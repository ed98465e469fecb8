"""
What a protocol says on one ordered connection: the seam between the engine and each of them.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from twisted_ingest.batch import Batch


class SessionError(Exception):
    """The peer does not speak the protocol, or does not want this session: connect again, later."""


class Answer(NamedTuple):
    """What a peer has said of the oldest records that are unanswered."""

    taken: int
    """So many were taken."""
    refused: str | None = None
    """Why the one after those will never be; ``None``: nothing was said of it."""


class Session(Protocol):
    """
    One connection's talk. Bytes in, bytes and answers out: it knows no transport and no time.

    ``is_answered`` says whether the peer answers records; else the acknowledgement of its kernel counts as one.
    """

    @property
    def is_answered(self) -> bool:
        """Whether the peer answers; else see above."""

    @property
    def is_open(self) -> bool:
        """Whether records may be sent, as soon as there is room."""

    @property
    def is_over(self) -> bool:
        """Whether the peer has said that this session ends: nothing more is to be sent on it."""

    @property
    def is_spent(self) -> bool:
        """Whether it should end in good order, and another begin."""

    def begin(self) -> bytes:
        """Give what is sent first."""

    @property
    def room(self) -> int:
        """How many records may be sent now."""

    def frame(self, batch: Batch, first: int, count: int) -> "bytes | memoryview":
        """Give the bytes of ``count`` records of a batch, from ``first`` on."""

    def whole(self, batch: Batch, first: int, size: int) -> int:
        """Say how many records, from ``first`` on, the first ``size`` bytes of `frame` hold whole."""

    def received(self, data: bytes) -> Sequence[Answer]:
        """Take what the peer sent. Raises `SessionError`."""

    def end(self) -> bytes:
        """
        Give what ends the session in good order, once nothing is unanswered.

        Where there is something, the peer ends the connection when it has read it; else we do.
        """
