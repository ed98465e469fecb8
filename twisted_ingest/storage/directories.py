"""
Directories and what is left around them: names made durable, inodes counted, what is missing on the way to a path.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator


def missing_directories(directory: str) -> list[str]:
    """Give this directory and those above it, as far as they are missing; the deepest first."""
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    return missing


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
