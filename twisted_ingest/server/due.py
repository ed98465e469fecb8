"""
Answers that wait until what they answer for is safe. Pure.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from twisted_ingest.framing.session import Answer


class _Due(NamedTuple):
    """An answer that waits until ``after`` batches of the session are safe; ``since`` is in reactor seconds."""

    after: int
    answer: Answer
    since: float


class DueAnswers:
    """
    The answers of one session, in order, and how far its batches have got.

    ``records`` is how many records wait for their answer. ``note_answered`` is called for each answer that is taken and
    says that records are safe: with how many, and how many seconds after they came.
    """

    __slots__ = ("_due", "_note_answered", "_safe", "_written", "records")

    def __init__(self, note_answered: Callable[[int, float], None]) -> None:
        self._note_answered = note_answered
        self._due: deque[_Due] = deque()
        self._written = self._safe = 0
        """Batches given to the lane, and those that are safe."""
        self.records = 0

    def __bool__(self) -> bool:
        """Whether an answer waits."""
        return bool(self._due)

    def note_written(self, batches: int) -> None:
        """Note that batches are about to be given to the lane."""
        self._written += batches

    def note_safe(self, batches: int | None = None) -> None:
        """Note that so many more batches are safe; without a number, all."""
        self._safe = self._written if batches is None else self._safe + batches

    def add(self, answers: Iterable[Answer], now: float) -> None:
        """Let answers wait for all batches written so far."""
        for answer in answers:
            self._due.append(_Due(self._written, answer, now))
            self.records += answer.records

    @property
    def is_ready(self) -> bool:
        """Whether one may be given now."""
        return bool(self._due) and self._due[0].after <= self._safe

    def take(self, now: float) -> bytes:
        """Take all that may be given, as the wire wants them."""
        due, texts = self._due, []
        while due and due[0].after <= self._safe:
            _, answer, since = due.popleft()
            records = answer.records
            if records:
                self.records -= records
                self._note_answered(records, now - since)
            texts.append(answer.encode())
        return b"".join(texts)

    def clear(self) -> None:
        """Forget all of them: nobody is left to be answered."""
        self._due.clear()
        self.records = 0
