"""
Whose the files are that we make.
"""

import contextlib
import os
from dataclasses import dataclass

from twisted_ingest.limits import FILE_MODE
from twisted_ingest.storage.directories import missing_directories


@dataclass(frozen=True, slots=True)
class FileAccess:
    """
    Who owns the files and directories that we make, and who may read them, whatever the umask.

    What is there already keeps what it has.
    """

    mode: int = FILE_MODE
    owner: int | None = None
    """``None``: whoever we run as."""
    group: int | None = None

    def open(self, path: str) -> int:
        """Open a file to append to; make it where it is missing."""
        # Read access is for the look at the last byte.
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, flags)
        # A link that leads nowhere yet is followed, which O_EXCL does not.
        made = os.path.realpath(path)
        try:
            descriptor = os.open(made, flags | os.O_CREAT | os.O_EXCL, self.mode)
        except FileExistsError:
            return os.open(path, flags)  # somebody has made it in between
        try:
            self._give(made, descriptor, self.mode)
        except OSError:
            # Left there, it would be taken as it is at the next try.
            os.close(descriptor)
            os.unlink(made)
            raise
        return descriptor

    def make_directories(self, directory: str) -> None:
        """Make a directory, and those above it that are missing; who may read the file may pass through them."""
        reading = self.mode & 0o044
        mode = 0o700 | reading | reading >> 2
        for missing in reversed(missing_directories(directory)):
            try:
                os.mkdir(missing, mode)
            except FileExistsError:
                if not os.path.isdir(missing):
                    raise
                continue  # somebody has made it in between
            self._give(missing, missing, mode)

    def _give(self, path: str, made: int | str, mode: int) -> None:
        try:
            if self.owner is not None or self.group is not None:
                os.chown(made, -1 if self.owner is None else self.owner, -1 if self.group is None else self.group)
            # Not what `open` was told: that was less the umask.
            os.chmod(made, mode)
        except OSError as failure:
            reason = f"its owner, group or mode cannot be set: {failure.strerror}"
            raise OSError(failure.errno, reason, path) from failure


OURS = FileAccess()
"""Our own user's, readable by its group."""
