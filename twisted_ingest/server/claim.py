"""
UNIX sockets whose file is ours alone, for as long as we live and not longer.

Twisted's lock names a process by its number, which in a container is the same after every start: whoever was killed
there could never start again. Whether somebody listens, the kernel knows: it is asked by connecting.
"""

import contextlib
import errno
import fcntl
import os
import socket as sockets
import stat
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure

LOCK_TRIES = 10
"""Times that a lock is taken whose file its last owner removed meanwhile. Above what two processes could make of it."""

_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})


class Claim:
    """
    The file of a UNIX socket, kept from other processes.

    With ``lock`` a second file, named for the first, is locked for as long as the claim lasts, so that of two
    processes which start at once one is refused; the kernel takes the lock from a killed process. `take` raises
    ``CannotListenError`` that names the file.
    """

    def __init__(self, path: bytes, *, lock: bool) -> None:
        self._path = path
        self._lock_path = path + b".lock" if lock else None
        self._lock = -1
        self._made: tuple[int, int] | None = None

    def take(self) -> None:
        """Take the path for us, and remove a socket that nobody listens on any more."""
        try:
            if self._lock_path is not None:
                self._take_lock(self._lock_path)
            self._clear()
        except OSError as failure:
            self.release()
            raise self._refusal(failure.strerror or str(failure)) from failure
        except BaseException:
            self.release()
            raise

    def note_made(self) -> None:
        """Note that the socket is there: this one is ours to remove."""
        status = os.lstat(self._path)
        self._made = (status.st_dev, status.st_ino)

    def release(self) -> None:
        """Remove what is ours, and let others have the path."""
        if self._made is not None:
            with contextlib.suppress(OSError):
                status = os.lstat(self._path)
                if (status.st_dev, status.st_ino) == self._made:
                    os.unlink(self._path)
            self._made = None
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self._lock_path or b"")
            os.close(self._lock)
            self._lock = -1

    def _take_lock(self, path: bytes) -> None:
        for _ in range(LOCK_TRIES):
            self._lock = self._open_lock(path)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._close_lock()
                raise self._refusal(f"another process has it (and its lock, {os.fsdecode(path)})") from None
            except OSError as failure:
                if failure.errno not in _NO_LOCKS:
                    raise
            if self._is_there(path):
                return
            self._close_lock()
        raise self._refusal(f"its lock {os.fsdecode(path)} is taken and removed all the time")

    def _open_lock(self, path: bytes) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(path, flags, 0o600)
        except OSError as failure:
            if failure.errno != errno.ELOOP:
                raise
        # A link, as Twisted's own locks are, to the number of a process. If that lives, connecting will show it.
        os.unlink(path)
        return os.open(path, flags, 0o600)

    def _is_there(self, path: bytes) -> bool:
        """Whether the locked file is still the one that others would lock."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._lock), os.stat(path))
        return False

    def _close_lock(self) -> None:
        os.close(self._lock)
        self._lock = -1

    def _clear(self) -> None:
        """Remove a socket that nobody listens on."""
        try:
            status = os.lstat(self._path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(status.st_mode):
            raise self._refusal("it is there and is no socket: remove it, or choose another path")
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
            probe.setblocking(False)
            answer = probe.connect_ex(self._path)
        if answer == errno.ECONNREFUSED:
            os.unlink(self._path)
        elif answer in (0, errno.EAGAIN, errno.EPROTOTYPE):
            raise self._refusal("another process listens on it")
        elif answer != errno.ENOENT:
            raise self._refusal(f"whether a process listens on it cannot be told ({os.strerror(answer)}): remove it")

    def _refusal(self, reason: str) -> CannotListenError:
        return CannotListenError(None, self._path, f"{os.fsdecode(self._path)}: {reason}")


class ClaimedPort(unix.Port):
    """
    A listening UNIX socket with a `Claim` on its file, in place of what Twisted does.

    One that was given to us, listening, is left as it is: its mode, its file and its other owners are not ours.
    """

    factory: Any
    _claim: Claim | None = None

    def startListening(self) -> None:
        """Begin to listen. Raises ``CannotListenError``, which names the file."""
        given, self._preexistingSocket = self._preexistingSocket, None
        if given is not None:
            # Shut down it would accept for nobody any more.
            self._shouldShutdown = False
        listening = given or self._bind()
        self.factory.doStart()
        self.connected = True
        self.socket = listening
        self.fileno = listening.fileno  # type: ignore[method-assign]
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        """Remove the file, where it is ours, and close."""
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()
        tcp.Port.connectionLost(self, reason)

    def _bind(self) -> sockets.socket:
        path: bytes = self._bindPath
        has_file = not path.startswith(b"\0")
        claim = Claim(path, lock=has_file and bool(self.wantPID))
        if has_file:
            claim.take()
        listening: Any = self.createInternetSocket()
        try:
            listening.bind(path)
            if has_file:
                claim.note_made()
                # Before anybody can connect.
                os.chmod(path, self.mode)
            listening.listen(self.backlog)
        except OSError as failure:
            listening.close()
            claim.release()
            name = os.fsdecode(path).replace("\0", "@")
            raise CannotListenError(None, path, f"{name}: {failure.strerror or failure}") from failure
        self._claim = claim
        return listening  # type: ignore[no-any-return]
