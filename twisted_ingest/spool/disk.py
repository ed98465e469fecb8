"""
The seam to the disk: every system call of the spool goes through one object.

So that a test can put a disk there that forgets what was not synced, tears what it keeps, and fails on demand.
"""

import contextlib
import fcntl
import os
import stat
from collections.abc import Sequence
from typing import Protocol

from twisted_ingest.storage.directories import free_inodes, naming_inodes, sync_directory


class Disk(Protocol):
    """
    What the spool asks of an operating system.

    Every method may raise ``OSError``. Descriptors are the disk's own numbers; whoever opens one closes it.
    """

    def make_directory(self, path: str) -> None:
        """Make a directory and those around it, for the owner alone, durably; one that exists will do."""

    def list(self, path: str) -> list[str]:
        """Give the names in a directory."""

    def create(self, path: str) -> int:
        """Make a file that must not exist, and open it to write at its end."""

    def open(self, path: str) -> int:
        """Open a regular file to be read."""

    def lock(self, path: str) -> int:
        """Open a file and lock it until it is closed; raises ``BlockingIOError`` where another process has it."""

    def write(self, descriptor: int, buffers: Sequence[bytes | memoryview]) -> int:
        """Write some of the buffers at the end; gives the number of bytes taken."""

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        """Read at most so many bytes; empty at the end."""

    def size(self, descriptor: int) -> int:
        """Give the length of an open file."""

    def sync(self, descriptor: int) -> None:
        """Return once the device has what was written to a file."""

    def sync_directory(self, path: str) -> None:
        """Return once the device has the names in a directory as they are now."""

    def rename(self, source: str, target: str) -> None:
        """Give a file another name; a file that had it before is gone."""

    def unlink(self, path: str) -> None:
        """Remove a name."""

    def free(self, path: str) -> int:
        """Give the bytes that we may still write on the file system of a path."""

    def free_inodes(self, path: str) -> int:
        """Give the number of files that may still be made on the file system of a path."""

    def close(self, descriptor: int) -> None:
        """Close; never raises."""


_PRIVATE_FILE = 0o600
_PRIVATE_DIRECTORY = 0o700


class RealDisk:
    """The operating system's. A symbolic link where a file of ours should be is refused."""

    def make_directory(self, path: str) -> None:
        """See `Disk`."""
        parent = os.path.dirname(path)
        if not os.path.isdir(path):
            self.make_directory(parent)
            with naming_inodes():
                os.mkdir(path, _PRIVATE_DIRECTORY)
        # One that was there may have been made by a process that was killed before its sync.
        self.sync_directory(parent)

    def list(self, path: str) -> list[str]:
        """See `Disk`."""
        return os.listdir(path)

    def create(self, path: str) -> int:
        """See `Disk`."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with naming_inodes():
            return os.open(path, flags, _PRIVATE_FILE)

    def open(self, path: str) -> int:
        """See `Disk`."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(f"{path} is no regular file")
        return descriptor

    def lock(self, path: str) -> int:
        """See `Disk`."""
        with naming_inodes():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def write(self, descriptor: int, buffers: Sequence[bytes | memoryview]) -> int:
        """See `Disk`."""
        return os.writev(descriptor, buffers)

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        """See `Disk`."""
        return os.pread(descriptor, size, offset)

    def size(self, descriptor: int) -> int:
        """See `Disk`."""
        return os.fstat(descriptor).st_size

    def sync(self, descriptor: int) -> None:
        """See `Disk`."""
        os.fdatasync(descriptor)

    def sync_directory(self, path: str) -> None:
        """See `Disk`."""
        sync_directory(path)

    def rename(self, source: str, target: str) -> None:
        """See `Disk`."""
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        """See `Disk`."""
        os.unlink(path)

    def free(self, path: str) -> int:
        """See `Disk`."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize

    def free_inodes(self, path: str) -> int:
        """See `Disk`."""
        return free_inodes(path)

    def close(self, descriptor: int) -> None:
        """See `Disk`."""
        with contextlib.suppress(OSError):  # the descriptor is gone either way (close(2))
            os.close(descriptor)
