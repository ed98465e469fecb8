"""
What a writer writes to: the seam behind it.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from twisted_ingest.storage.fifo import Fifo

IOV_MAX = 1024
"""Buffers of one ``writev``: the kernel's own limit (``UIO_MAXIOV``)."""


class Place(Enum):
    """Where the open file is, seen from the path it was opened by."""

    HERE = "here"
    """The path names it."""
    ELSEWHERE = "elsewhere"
    """It has another name: what was written to it can be read there."""
    NOWHERE = "nowhere"
    """It has no name: nobody will ever read what was written to it."""


class SyncFailedError(Exception):
    """What was written since the last sync may be lost: it must be written again, elsewhere."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(reason)
        self.reason = reason


class Spot:
    """
    An open file that may be appended to besides its target, by whoever sees then where it is.

    ``written`` is the bytes that were written to it since it was opened, ``least`` those it must have unless somebody
    has truncated it.
    """

    __slots__ = ("descriptor", "least", "path", "written")

    def __init__(self, descriptor: int, path: bytes, least: int) -> None:
        self.descriptor = descriptor
        self.path = path
        self.least = least
        self.written = 0


class Target(Protocol):
    """
    The file behind an appender, called from its thread only (but for ``open`` at the start).

    ``open``, ``write``, ``sync`` and ``retire`` may raise ``OSError``. A failed ``sync`` is final for the file;
    the others are tried again, except after an error that is in ``final_errors``. A ``write`` that has to sync first
    and cannot raises `SyncFailedError`; one whose reader has left raises `ReaderGoneError`.
    """

    final_errors: frozenset[int]
    name: str
    """What it is called in messages: a path, where it has one."""
    fifo: Fifo | None
    """What is open, where somebody must read it for anything to be delivered."""
    sight: Place | None
    """Where the file was seen right behind the last ``write``: after one that has looked, and took all it was given."""
    spot: Spot | None
    """What is open, where it may be appended to besides; until the next call of ``open`` or ``close``."""

    def open(self) -> None:
        """Open, or open anew; what was open before is closed."""

    def write(self, buffers: Sequence[bytes | memoryview]) -> int:
        """Write some of the buffers, at most `IOV_MAX` of them; gives the number of bytes taken, maybe none."""

    def sync(self) -> None:
        """Return once the device has what was written."""

    def place(self) -> Place:
        """Say where the open file is now. Never raises."""

    def retire(self, *, worthless: bool) -> None:
        """
        Put aside the file whose sync failed, so that ``open`` makes a new one.

        With ``worthless`` all that was written to it since it was opened will be written again: where there is
        nothing else in it, it may go.
        """

    def close(self) -> None:
        """Close; never raises."""
