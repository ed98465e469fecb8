"""
What an appender writes to: a file of ours, or a stream we were given.
"""

import contextlib
import errno
import os
import select
import stat
from collections.abc import Callable, Sequence
from typing import Protocol

IOV_MAX = 1024
"""Buffers of one ``writev``: the kernel's own limit (``UIO_MAXIOV``)."""

POLL_MILLISECONDS = 100
"""How long a full stream is waited for at a time, so that the appender can look whether it was told to stop."""


class Target(Protocol):
    """
    The file behind an appender, called from its thread only (but for ``open`` at the start).

    ``open``, ``write``, ``sync`` and ``retire`` may raise ``OSError``. A failed ``sync`` is final for the file;
    the others are tried again, except after an error that is in ``final_errors``.
    """

    final_errors: frozenset[int]

    def open(self) -> None:
        """Open, or open anew; what was open before is closed."""

    def write(self, buffers: Sequence[bytes | memoryview]) -> int:
        """Write some of the buffers, at most `IOV_MAX` of them; gives the number of bytes taken, maybe none."""

    def sync(self) -> None:
        """Return once the device has what was written."""

    def retire(self) -> None:
        """Put aside the file whose sync failed, so that ``open`` makes a new one."""

    def close(self) -> None:
        """Close; never raises."""


class FileTarget:
    """
    A regular file (or a FIFO, or a device), appended to.

    The file is never truncated. One that ends in half a line gets its LF when it is opened: ``repaired`` counts.
    ``can_sync`` says whether what was opened last can be synced; where not, ``sync`` does nothing.
    """

    # Waiting may mend each of them: space freed, a remount, a restored directory.
    final_errors: frozenset[int] = frozenset()

    def __init__(self, path: str, mode: int = 0o640) -> None:
        self.path = path
        self._mode = mode
        self._descriptor = -1
        self._is_named = False
        self.can_sync = False
        self.repaired = 0
        self.on_repair: Callable[[], None] = lambda: None

    def open(self) -> None:
        """See `Target`."""
        self.close()
        os.makedirs(os.path.dirname(os.path.abspath(self.path)), mode=0o750, exist_ok=True)
        # Read access is for the look at the last byte; O_RDWR also keeps a FIFO from blocking here.
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, self._mode)
        self._is_named = False
        status = os.fstat(self._descriptor)
        self.can_sync = stat.S_ISREG(status.st_mode)
        if self.can_sync and status.st_size:
            self._end_last_line(status.st_size)

    def _end_last_line(self, size: int) -> None:
        if os.pread(self._descriptor, 1, size - 1) != b"\n":
            os.write(self._descriptor, b"\n")
            self.repaired += 1
            self.on_repair()

    def write(self, buffers: Sequence[bytes | memoryview]) -> int:
        """See `Target`."""
        return os.writev(self._descriptor, buffers)

    def sync(self) -> None:
        """See `Target`."""
        if self.can_sync:
            os.fdatasync(self._descriptor)
            self._sync_name()

    def _sync_name(self) -> None:
        """Once per file, make its entry in the directory as durable as its bytes."""
        if self._is_named:
            return
        # Some file systems cannot sync a directory, and one that we may not read cannot be opened for it.
        with contextlib.suppress(OSError):
            directory = os.open(os.path.dirname(os.path.abspath(self.path)), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        self._is_named = True

    def retire(self) -> None:
        """See `Target`: the file becomes ``PATH.failed-N`` with the first N that is free."""
        if self._is_at_path():
            number = 1
            while os.path.lexists(f"{self.path}.failed-{number}"):
                number += 1
            os.rename(self.path, f"{self.path}.failed-{number}")
        self.close()

    def _is_at_path(self) -> bool:
        """Whether ``path`` still names the open file: once rotated away it is aside, and another may have its name."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """See `Target`."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):  # the descriptor is gone either way (close(2))
                os.close(descriptor)


class StreamTarget:
    """A stream we did not open and do not close, such as standard output."""

    # Its reader is gone for good.
    final_errors = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EBADF})

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def open(self) -> None:
        """See `Target`: it is open already."""

    def write(self, buffers: Sequence[bytes | memoryview]) -> int:
        """See `Target`: takes nothing where a stream that was left non-blocking stays full."""
        try:
            return os.writev(self._descriptor, buffers)
        except BlockingIOError:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll(POLL_MILLISECONDS)
            return 0

    def sync(self) -> None:
        """See `Target`: a stream cannot be synced."""

    def retire(self) -> None:
        """See `Target`."""

    def close(self) -> None:
        """See `Target`: it is not ours to close."""
