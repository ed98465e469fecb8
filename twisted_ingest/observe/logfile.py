"""
The file of our own log, where that goes to one.
"""

import os

_APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC


class LogFile:
    """
    A file that lines are appended to, and that is opened anew under the same descriptor when it was rotated.

    ``path`` is absolute. Raises ``OSError`` where the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.descriptor = self._open()

    def reopen(self) -> None:
        """Go on in the file that has the name now, made where there is none; where it cannot be opened, in the old."""
        fresh = self._open(os.fstat(self.descriptor).st_mode & 0o777)
        try:
            os.dup2(fresh, self.descriptor, inheritable=False)
        finally:
            os.close(fresh)

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)

    def _open(self, mode: int | None = None) -> int:
        """Open the file; one that has to be made gets ``mode``, or what the umask leaves, as with twistd's own."""
        try:
            return os.open(self.path, _APPENDING)
        except FileNotFoundError:
            descriptor = os.open(self.path, _APPENDING | os.O_CREAT, 0o666 if mode is None else mode)
        if mode is not None:
            os.fchmod(descriptor, mode)
        return descriptor
