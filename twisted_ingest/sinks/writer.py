"""
The thread behind an appender: group commit, retry, files changed and files put aside.

No error of the disk loses a record: a write that fails is tried again from the byte where it stopped.
"""

import threading
import time
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from twisted_ingest.errors import Fsync
from twisted_ingest.sinks.progress import Progress
from twisted_ingest.sinks.targets import Target

COMMIT_BYTES = 4 * 1024 * 1024
"""Bytes written before the groups they belong to are reported; bounds how late the first of a long queue is."""

RETRY_SECONDS = (0.1, 5.0)
"""First and longest wait after an error; doubled each time until everything at hand is written."""

SYNC_SECONDS = 1.0
"""Interval of ``Fsync.SECOND``."""


class WriterOwner(Protocol):
    """Who hears of a writer's doings, in the reactor's thread."""

    def on_written(self, number: int) -> None:
        """Note that the oldest so many jobs count as delivered."""

    def on_stalled(self, trouble: str) -> None:
        """Note that nothing is being written until something is mended."""

    def on_recovered(self) -> None:
        """Note that it is mended."""

    def on_failed(self, reason: str) -> None:
        """Note that nothing will be written any more."""

    def on_ended(self) -> None:
        """Note that the thread is over; the last call."""


class _Order:
    """A message to the thread that is not a job."""


_WAKE = _Order()
_STOP = _Order()


class _AbandonedError(Exception):
    """The thread was told to stop trying."""


class _SyncFailedError(Exception):
    """What was written since the last sync may be lost: it must be written again, elsewhere."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(reason)
        self.reason = reason


class Writer:
    """
    Writes jobs (buffers that end in LF each) to one target, in order.

    ``trouble`` says why nothing is being written at the moment, or is ``None``. ``retries``, ``sync_failures``,
    ``rewritten_bytes`` (written a second time after a failed sync: possible duplicates) and ``torn_records``
    (begun in a file and written whole to the next) only grow. All may be read from any thread.
    """

    def __init__(self, target: Target, fsync: Fsync, reactor: Any, owner: WriterOwner) -> None:
        self._target = target
        self._fsync = fsync
        self._reactor = reactor
        self._owner = owner
        self._queue: SimpleQueue[Iterable[bytes] | _Order] = SimpleQueue()
        self._abandoned = threading.Event()
        self._reopen_wanted = False
        self._unsynced_since: float | None = None
        self._delay = 0.0
        self.trouble: str | None = None
        self.retries = 0
        self.sync_failures = 0
        self.rewritten_bytes = 0
        self.torn_records = 0

    # Called in any thread.

    def start(self, name: str) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, buffers: Iterable[bytes]) -> None:
        """Queue a job."""
        self._queue.put(buffers)

    def reopen(self) -> None:
        """Open the target anew before the next record that is written."""
        self._reopen_wanted = True
        self._queue.put(_WAKE)

    def stop(self) -> None:
        """End once everything queued is written; nothing may be queued after this."""
        self._queue.put(_STOP)

    def abandon(self) -> None:
        """End at the next opportunity, whatever is queued."""
        self._abandoned.set()
        self._queue.put(_STOP)

    # Called in the thread.

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        """Have the reactor call something of the owner's; lost when the reactor has ended, as it should be."""
        self._reactor.callFromThread(function, *arguments)

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except _AbandonedError:
            pass
        except Exception as failure:  # noqa: BLE001 - a dead writer must be visible, whatever killed it
            self.trouble = _reason(failure) if isinstance(failure, OSError) else f"{type(failure).__name__}: {failure}"
            self._tell(self._owner.on_failed, self.trouble)
        finally:
            self._target.close()
            self._tell(self._owner.on_ended)

    def _step(self) -> bool:
        """Take what waits, write it, report it. False at the end."""
        jobs, go_on = self._gather()
        progress = Progress([buffer for job in jobs for buffer in job])
        while True:
            try:
                self._write(progress)
                if self._fsync is Fsync.ALWAYS or not go_on or self._is_sync_due():
                    self._sync()
            except _SyncFailedError as failure:
                self._begin_again(progress, failure.reason)
            else:
                break
        self._recovered()
        if jobs:
            self._tell(self._owner.on_written, len(jobs))
        return go_on

    def _gather(self) -> tuple[list[list[bytes]], bool]:
        """Wait for a job, then take all that wait behind it, up to `COMMIT_BYTES`; false when none can follow."""
        jobs: list[list[bytes]] = []
        size = 0
        try:
            item = self._queue.get(timeout=self._patience())
            while item is not _STOP:
                if not isinstance(item, _Order):
                    buffers = list(item)
                    jobs.append(buffers)
                    size += sum(map(len, buffers))
                if size >= COMMIT_BYTES:
                    return jobs, True
                item = self._queue.get_nowait()
        except Empty:
            return jobs, True
        return jobs, False

    def _patience(self) -> float | None:
        """How long nothing may come before something else must be done."""
        if self._unsynced_since is None:
            return None
        return max(0.0, self._unsynced_since + SYNC_SECONDS - time.monotonic())

    def _write(self, progress: Progress) -> None:
        """Write all that is left, however often it takes, and change files when that is wanted."""
        while self._reopen_wanted or not progress.is_done:
            if self._reopen_wanted:
                self._change_files(progress)
            elif self._fsync is Fsync.SECOND and self._is_sync_due():
                self._sync()
            else:
                self._write_some(progress)

    def _write_some(self, progress: Progress) -> None:
        if self._abandoned.is_set():
            raise _AbandonedError
        try:
            progress.advance(self._target.write(progress.window()))
        except OSError as failure:
            self._back_off("cannot write", failure)
        else:
            if self._fsync is not Fsync.NEVER and self._unsynced_since is None:
                self._unsynced_since = time.monotonic()

    def _change_files(self, progress: Progress) -> None:
        """Go on in another file; a record begun in the old one is written whole to the new one."""
        self.torn_records += progress.step_back()
        # No later sync, of the new file, can speak for the old one.
        self._sync()
        self._open()

    def _open(self) -> None:
        # Cleared first: who wants another change while we open gets one.
        self._reopen_wanted = False
        self._insist("cannot open", self._target.open)

    def _is_sync_due(self) -> bool:
        return self._unsynced_since is not None and time.monotonic() - self._unsynced_since >= SYNC_SECONDS

    def _sync(self) -> None:
        """
        Sync what was written, if anything was.

        A sync that failed is never tried again on that file: the kernel may have dropped the pages and
        would report success.
        """
        if self._unsynced_since is None:
            return
        self._unsynced_since = None
        try:
            self._target.sync()
        except OSError as failure:
            raise _SyncFailedError(failure) from failure

    def _begin_again(self, progress: Progress, failure: OSError) -> None:
        """
        Put aside the file whose sync failed, and have everything that is not reported yet written again to a new one.

        Waits before it does: a device whose every sync fails would otherwise be filled with files put aside.
        """
        self.sync_failures += 1
        self.torn_records += progress.step_back()
        self.rewritten_bytes += progress.written
        progress.restart()
        self._back_off("cannot sync", failure)
        self._insist("cannot put aside the file whose sync failed", self._target.retire)
        self._open()

    def _insist(self, what: str, call: Callable[[], None]) -> None:
        """Call something of the target's until it works."""
        while True:
            try:
                return call()
            except OSError as failure:
                self._back_off(what, failure)

    def _back_off(self, what: str, failure: OSError) -> None:
        """Wait before another try, longer each time. Raises when there is none."""
        if failure.errno in self._target.final_errors:
            raise failure
        self.retries += 1
        self._report(f"{what}: {_reason(failure)}; trying again, senders are held back meanwhile")
        first, longest = RETRY_SECONDS
        self._delay = min(self._delay * 2 or first, longest)
        if self._abandoned.wait(self._delay):
            raise _AbandonedError

    def _report(self, trouble: str) -> None:
        if self.trouble != trouble:
            self.trouble = trouble
            self._tell(self._owner.on_stalled, trouble)

    def _recovered(self) -> None:
        if self.trouble is not None:
            self._delay = 0.0
            self.trouble = None
            self._tell(self._owner.on_recovered)


def _reason(failure: OSError) -> str:
    return failure.strerror or str(failure)
