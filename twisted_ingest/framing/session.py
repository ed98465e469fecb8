"""
The framer of a sender that is answered: what is to be said to it, and how its session ends.

Pure, as all framers. A protocol that answers is a subclass of `Session`, and a few lines in ``server``.
"""

from typing import Any, Generic, Protocol, TypeVar

from twisted_ingest.errors import CloseReason
from twisted_ingest.framing.base import Framer


class Answer(Protocol):
    """One thing to be said to the sender."""

    @property
    def records(self) -> int:
        """How many records it says are safe; 0 where it says something else."""

    def encode(self) -> bytes:
        """Write it as the wire wants it."""


AnswerT = TypeVar("AnswerT", bound=Answer)


class Session(Framer, Generic[AnswerT]):
    """
    Frames one session, and says what is to be answered.

    ``replies`` grows by that, in order: each is to be given once all batches are safe that were given up to then. The
    caller empties it. ``goodbye`` is what is said last. Once ``closed``, nothing more is answered than ``replies``
    holds.
    """

    __slots__ = ("replies",)

    goodbye = b""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.replies: list[AnswerT] = []

    @property
    def ending(self) -> CloseReason | None:
        """Why the session is over, where it is to be answered to its end; ``None`` where it is not, or not over."""
        raise NotImplementedError
