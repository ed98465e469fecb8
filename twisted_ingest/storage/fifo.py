"""
The writing end of a FIFO: what its reader has taken, and whether there is one.

Opened for writing alone. Opened for both, as a file is, the kernel would take us for a reader of our own, and keep
what nobody reads.
"""

import array
import errno
import fcntl
import os
import select
import stat
import termios
from collections.abc import Sequence

from twisted_ingest.backoff import Backoff

ROOM_MILLISECONDS = 100
"""How long room in a full pipe is waited for at a time, so that the appender can look whether it was told to stop."""

LOOK_MILLISECONDS = (1, 100)
"""First and longest wait for a reader to take what is in the pipe; doubled each time. No event tells of that."""


class ReaderGoneError(Exception):
    """Nobody reads any more, and the last ``unread`` bytes of those written were not taken."""

    def __init__(self, unread: int) -> None:
        super().__init__(unread)
        self.unread = unread


def is_fifo(path: str) -> bool:
    """Whether a FIFO is there now."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


def open_fifo(path: str) -> int:
    """Open for writing. Raises ``OSError`` (ENXIO, in the operator's words) while nobody reads."""
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as failure:
        if failure.errno != errno.ENXIO:
            raise
        raise OSError(errno.ENXIO, "nobody has this FIFO open to read", path) from failure


class Fifo:
    """
    An open writing end, which the owner of the descriptor closes.

    Several readers, or other writers, cannot be told apart: what one reader takes counts as taken.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._wait = Backoff(*LOOK_MILLISECONDS)
        self._errors = select.poll()
        self._errors.register(descriptor, 0)

    def write(self, buffers: Sequence[bytes | memoryview]) -> int:
        """Write some of the buffers, maybe nothing. Raises `ReaderGoneError`."""
        self._wait.reset()
        try:
            return os.writev(self._descriptor, buffers)
        except BlockingIOError:
            room = select.poll()
            room.register(self._descriptor, select.POLLOUT)
            room.poll(ROOM_MILLISECONDS)
            return 0
        except BrokenPipeError:
            raise ReaderGoneError(self._unread()) from None

    def is_taken(self) -> bool:
        """Whether all that was written has been read; waits a moment for it. Raises `ReaderGoneError`."""
        if not self._unread():
            return True
        has_left = self._has_left(self._wait.lengthen())
        unread = self._unread()
        if unread and has_left:
            raise ReaderGoneError(unread)
        return not unread

    def has_reader(self) -> bool:
        """Whether somebody has it open to read."""
        return not self._has_left(0)

    def _has_left(self, milliseconds: float) -> bool:
        # Without readers the writing end has an error (pipe(7)), which `poll` always tells.
        return bool(self._errors.poll(milliseconds))

    def _unread(self) -> int:
        number = array.array("i", [0])
        fcntl.ioctl(self._descriptor, termios.FIONREAD, number)
        return number[0]
