"""
What an appender writes to: a file of ours, or a stream we were given.
"""

import contextlib
import errno
import os
import select
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Protocol

from twisted_ingest.storage.access import OURS, FileAccess, missing_directories
from twisted_ingest.storage.fifo import Fifo, is_fifo, open_fifo

IOV_MAX = 1024
"""Buffers of one ``writev``: the kernel's own limit (``UIO_MAXIOV``)."""

POLL_MILLISECONDS = 100
"""How long a full stream is waited for at a time, so that the appender can look whether it was told to stop."""


class Place(Enum):
    """Where the open file is, seen from the path it was opened by."""

    HERE = "here"
    """The path names it."""
    ELSEWHERE = "elsewhere"
    """It has another name: what was written to it can be read there."""
    NOWHERE = "nowhere"
    """It has no name: nobody will ever read what was written to it."""


class IrregularError(OSError):
    """What was opened cannot be synced, and somebody relies on that."""


class SyncFailedError(Exception):
    """What was written since the last sync may be lost: it must be written again, elsewhere."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(reason)
        self.reason = reason


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


def sync_directory(path: str) -> None:
    """
    Make the names in a directory durable, where that can be done at all.

    Some file systems cannot, and one that we may not read cannot be opened for it: the operator's choice. Any other
    error is raised: the device could not.
    """
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(directory)
    except OSError as failure:
        if failure.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(directory)


_CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EROFS})
"""What ``fsync`` says of something that it does not work on (fsync(2))."""


@contextlib.contextmanager
def naming_inodes() -> Iterator[None]:
    """Where a file cannot be made for want of inodes, say so: the kernel says "no space", of which there is plenty."""
    try:
        yield
    except OSError as failure:
        directory = os.path.dirname(failure.filename)
        if failure.errno == errno.ENOSPC and not free_inodes(directory):
            reason = f"no inodes are left on the file system of {directory} (see df -i)"
            raise OSError(errno.ENOSPC, reason) from failure
        raise


def free_inodes(path: str) -> int:
    """Give the number of files that we may still make on the file system of a path."""
    status = os.statvfs(path)
    # Some make inodes as they are wanted (btrfs), and say that they have 0 of 0.
    return status.f_favail if status.f_files else sys.maxsize


class FileTarget:
    """
    A regular file (or a FIFO, or a device), appended to. A FIFO cannot be opened while nobody reads it.

    The file is never truncated. One that ends in half a line gets its LF when it is opened: ``repaired`` counts.
    ``truncations`` counts how often somebody else was seen to have shortened it. ``can_sync`` says whether what was
    opened last can be synced; where not, ``sync`` does nothing. With ``sync_for`` (who relies on syncs, in words)
    only a regular file is opened: anything else raises `IrregularError`, and another try may find that mended.
    """

    # Waiting may mend each of them: space freed, a remount, a restored directory.
    final_errors: frozenset[int] = frozenset()

    def __init__(self, path: str, access: FileAccess = OURS, sync_for: str | None = None) -> None:
        self.path = self.name = path
        self._access = access
        self._sync_for = sync_for
        self._descriptor = -1
        self._is_named = False
        self._written = 0
        """Bytes written since the file was opened."""
        self._least = 0
        """Bytes it must have unless somebody has truncated it."""
        self._unnamed: set[str] = set()
        """Directories whose entries the next sync makes durable."""
        self.can_sync = False
        self.fifo: Fifo | None = None
        self.repaired = 0
        self.truncations = 0
        self.on_repair: Callable[[], None] = lambda: None
        self.on_truncation: Callable[[], None] = lambda: None

    def open(self) -> None:
        """See `Target`."""
        self.close()
        if is_fifo(self.path):
            self._refuse_irregular(is_regular=False)
            self._descriptor = open_fifo(self.path)
        else:
            self._descriptor = self._open_file()
        self._is_named = False
        try:
            self._take_stock()
        except OSError:
            # Half opened is not open: `place` must not find it.
            self.close()
            raise

    def _open_file(self) -> int:
        directory = os.path.dirname(os.path.abspath(self.path))
        self._unnamed.update((directory, *map(os.path.dirname, missing_directories(directory))))
        with naming_inodes():
            self._access.make_directories(directory)
            return self._access.open(self.path)

    def _refuse_irregular(self, *, is_regular: bool) -> None:
        if self._sync_for is not None and not is_regular:
            raise IrregularError(
                errno.EINVAL,
                f"{self.path} is no regular file and cannot be synced, which {self._sync_for} asks for: "
                "put a regular file there, or take away what is there now",
            )

    def _take_stock(self) -> None:
        status = os.fstat(self._descriptor)
        self.can_sync = stat.S_ISREG(status.st_mode)
        self._refuse_irregular(is_regular=self.can_sync)
        if stat.S_ISFIFO(status.st_mode):
            if os.get_blocking(self._descriptor):
                raise OSError(errno.EAGAIN, "a FIFO took its place while it was being opened")
            self.fifo = Fifo(self._descriptor)
        self._written = 0
        self._least = status.st_size
        if self.can_sync and status.st_size:
            self._end_last_line(status.st_size)

    def _end_last_line(self, size: int) -> None:
        if os.pread(self._descriptor, 1, size - 1) != b"\n":
            os.write(self._descriptor, b"\n")
            self.repaired += 1
            self.on_repair()

    def write(self, buffers: Sequence[bytes | memoryview]) -> int:
        """See `Target`."""
        if self.fifo is not None:
            return self.fifo.write(buffers)
        taken = os.writev(self._descriptor, buffers)
        self._written += taken
        self._least += taken
        return taken

    def sync(self) -> None:
        """See `Target`."""
        if self.can_sync:
            os.fdatasync(self._descriptor)
            self._sync_name()

    def _sync_name(self) -> None:
        """Once per file, make its entry in the directory as durable as its bytes, and those of directories we made."""
        if self._is_named:
            return
        for directory in self._unnamed:
            sync_directory(directory)
        self._unnamed.clear()
        self._is_named = True

    def place(self) -> Place:
        """See `Target`."""
        try:
            status = os.fstat(self._descriptor)
        except OSError:
            # A stale handle of a network file system, whose server has removed the file; or none is open.
            return Place.NOWHERE
        self._note_size(status.st_size)
        try:
            is_here = os.path.samestat(status, os.stat(self.path))
        except (FileNotFoundError, NotADirectoryError):
            is_here = False
        except OSError:
            # The path cannot be looked at for the moment; nor could it be opened.
            is_here = True
        if is_here:
            return Place.HERE
        # What went into a FIFO has been read by whoever had it open.
        return Place.ELSEWHERE if status.st_nlink or not self.can_sync else Place.NOWHERE

    def _note_size(self, size: int) -> None:
        """Notice a truncation by somebody else; we append, so no hole comes of it."""
        if self.can_sync and size < self._least:
            self.truncations += 1
            self.on_truncation()
        self._least = size

    def retire(self, *, worthless: bool) -> None:
        """See `Target`: the file becomes ``PATH.failed-N`` with the first N that is free."""
        if self.place() is Place.HERE:
            if worthless and os.fstat(self._descriptor).st_size <= self._written:
                os.unlink(self.path)
            else:
                self._put_aside()
        self.close()

    def _put_aside(self) -> None:
        number = 1
        while os.path.lexists(f"{self.path}.failed-{number}"):
            number += 1
        os.rename(self.path, f"{self.path}.failed-{number}")

    def close(self) -> None:
        """See `Target`."""
        self.fifo = None
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):  # the descriptor is gone either way (close(2))
                os.close(descriptor)


class StreamTarget:
    """A stream we did not open and do not close, such as standard output."""

    # Its reader is gone for good.
    final_errors = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EBADF})
    fifo: Fifo | None = None

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self.name = name

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

    def place(self) -> Place:
        """See `Target`: it has no path it could be missing from."""
        return Place.HERE

    def retire(self, *, worthless: bool) -> None:
        """See `Target`."""

    def close(self) -> None:
        """See `Target`: it is not ours to close."""
