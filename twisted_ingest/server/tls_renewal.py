"""
Certificates that are renewed without a restart: their files are looked at in a thread, and swapped whole.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from twisted_ingest.errors import ReloadResult
from twisted_ingest.ledger import CertificateState
from twisted_ingest.observe.events import Events
from twisted_ingest.server.certificates import CertificateError, Credentials, Files, load_credentials

LOOK_SECONDS = 3.0
"""Seconds between two looks at the files. A change counts once two looks have seen the same: who replaces certificate
and key one after the other is given the time for it."""

RETRY_SECONDS = 60.0
"""Seconds until files that were no good are tried again, although they are the same: a certificate may have become
valid."""

WARNING_SECONDS = 14 * 86400.0
"""Seconds before its end from which a certificate is warned of: half of what is left when public authorities renew
those that live ninety days."""

WARN_AGAIN_SECONDS = 86400.0
"""Seconds between two such warnings."""

Run = Callable[[Callable[[], Any], Callable[[Any], None]], None]
"""Does work elsewhere, and calls back with what it gave."""


def in_thread(reactor: Any) -> Run:
    """
    Give what does work in a thread of its own, and calls back in the reactor's.

    No thread of the reactor's pool: one that waits for a file system would keep the process from ending.
    """

    def run(work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        def act() -> None:
            reactor.callFromThread(done, work())

        threading.Thread(target=act, name="certificates", daemon=True).start()

    return run


class Renewal:
    """
    The credentials of one listener: ``current`` are those for newcomers; connections keep what they came in with.

    New ones are taken over only once they are loaded and checked whole; until then, and where they are no good, the
    old ones stay. `sweep` is to be called now and then, `renew` on a signal.
    """

    def __init__(
        self, listener: str, files: Files, *, events: Events, wall_time: Callable[[], float], run: Run
    ) -> None:
        self._listener = listener
        self.files = files
        self._events = events
        self._wall_time = wall_time
        self._run = run
        self._seen = self._tried = _states(files)
        """What the files were at the last look, and when they were loaded last."""
        self.current: Credentials = load_credentials(files, wall_time())
        self.reloads = dict.fromkeys(ReloadResult, 0)
        self._is_looking = False
        self._is_wanted = False
        """Whether another look was asked for meanwhile."""
        self._look_at = 0.0
        self._retry_at = float("inf")
        self._warn_at = 0.0

    @property
    def asks(self) -> bool:
        """Whether peers are asked for a certificate."""
        return self.files.client_ca is not None

    def state(self) -> CertificateState:
        """Say how it is with the certificate that is shown."""
        trouble = None
        if self._wall_time() >= self.current.not_after:
            trouble = f"its certificate has expired: renew {self.files.certificate} (it is read anew by itself)"
        return CertificateState(self.current.not_after, trouble, dict(self.reloads))

    def sweep(self, now: float) -> None:
        """Look at the files where it is time, and warn of an end that is near; ``now`` in reactor seconds."""
        if now >= self._warn_at:
            self._warn(now)
        if now >= self._look_at and not self._is_looking:
            self._look_at = now + LOOK_SECONDS
            is_due = now >= self._retry_at
            self._retry_at = now + RETRY_SECONDS if is_due else self._retry_at
            self._begin(is_forced=is_due)

    def renew(self) -> None:
        """Read the files now, whether or not they have changed."""
        if self._is_looking:
            self._is_wanted = True
        else:
            self._begin(is_forced=True)

    def _begin(self, *, is_forced: bool) -> None:
        self._is_looking = True
        self._run(lambda: self._look(is_forced=is_forced), self._looked)

    def _look(self, *, is_forced: bool) -> Credentials | Exception | None:
        """Load where there is something new. In the thread: nothing else touches what it does meanwhile."""
        try:
            before, self._seen = self._seen, _states(self.files)
            if not is_forced and (self._seen == self._tried or self._seen != before):
                return None
            self._tried = self._seen
            return load_credentials(self.files, self._wall_time())
        except Exception as problem:  # noqa: BLE001 - told in the reactor
            return problem

    def _looked(self, found: Credentials | Exception | None) -> None:
        self._is_looking = False
        if isinstance(found, Credentials):
            self._take(found)
        elif found is not None:
            self._keep(found)
        if self._is_wanted:
            self._is_wanted = False
            self._begin(is_forced=True)

    def _take(self, found: Credentials) -> None:
        self.current = found
        self.reloads[ReloadResult.OK] += 1
        self._retry_at, self._warn_at = float("inf"), 0.0
        self._events.certificate_renewed(self._listener, found.not_after, found.fingerprint)

    def _keep(self, problem: Exception) -> None:
        self.reloads[ReloadResult.ERROR] += 1
        if self._retry_at == float("inf"):
            self._retry_at = self._look_at + RETRY_SECONDS
        if not isinstance(problem, CertificateError):
            self._events.bug("reading a certificate", Failure(problem))
        self._events.certificate_not_renewed(self._listener, str(problem))

    def _warn(self, now: float) -> None:
        left = self.current.not_after - self._wall_time()
        if left < WARNING_SECONDS:
            self._warn_at = now + WARN_AGAIN_SECONDS
            self._events.certificate_ends(self._listener, self.files.certificate, self.current.not_after, left)


def _states(files: Files) -> tuple[object, ...]:
    """Give what changes when a file is replaced or written to."""
    return tuple(_state(path) for path in files.paths)


def _state(path: str) -> object:
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
