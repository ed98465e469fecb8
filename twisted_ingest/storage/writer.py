"""
The thread behind an appender: group commit, retry, files changed and files put aside.

No error of the disk loses a record: a write that fails is tried again from the byte where it stopped. No record is
reported as written before the file that has it was seen to have a name still.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from twisted_ingest.errors import Fsync
from twisted_ingest.storage.commit import Commit, Job
from twisted_ingest.storage.fifo import ReaderGoneError
from twisted_ingest.storage.progress import Progress
from twisted_ingest.storage.target import Place, SyncFailedError, Target
from twisted_ingest.storage.trouble import AbandonedError, Trouble

COMMIT_BYTES = 4 * 1024 * 1024
"""Bytes written before the groups they belong to are reported; bounds how late the first of a long queue is, and what
is kept beyond the budget while others wait for a sync."""

SYNC_SECONDS = 1.0
"""Interval of ``Fsync.SECOND``."""

MOVE_SECONDS = 1.0
"""How long a file that was renamed is written on to unless we are told to reopen: who renames it may be about to make
the next one, as logrotate does, and must not find that we were faster."""

READER_SECONDS = 1.0
"""How often a FIFO with nothing to write to it is looked at: how late the loss of its reader is noticed then."""


HELD_BACK = "senders are held back meanwhile"
"""What comes of a trouble where nobody else keeps what comes."""


class WriterOwner(Protocol):
    """Who hears of a writer's doings, in the reactor's thread: each call is made through ``hear``."""

    def hear(self, call: Callable[..., None], *arguments: object) -> None:
        """Make one of the calls below; what it raises must not be raised into the reactor."""

    def on_written(self, numbers: Sequence[int]) -> None:
        """Note that these jobs count as delivered. Those that ask for the same come in the order they were given in."""

    def on_unmade(self, number: int, failure: Exception) -> None:
        """Note that the buffers of a job could not be made: it was passed over."""

    def on_stalled(self, trouble: str) -> None:
        """Note that nothing is being written until something is mended."""

    def on_recovered(self) -> None:
        """Note that it is mended."""

    def on_moved(self, rewritten: int | None) -> None:
        """Note a file found renamed (``None``), or removed with so many bytes that are written again."""

    def on_failed(self, reason: str) -> None:
        """Note that nothing will be written any more."""

    def on_ended(self) -> None:
        """Note that the thread is over; the last call."""


class _Order:
    """A message to the thread that is not a job."""


_WAKE = _Order()
_STOP = _Order()


class Writer:
    """
    Writes jobs (buffers that end in LF each) to one target, in order.

    ``fsync`` is what every job gets; a job may ask to be synced besides. It is reported once that was done, and those
    written with it that ask for nothing are reported before: as soon as the file that has them was seen to have a name.
    ``retries``, ``syncs``, ``sync_seconds`` (spent in them), ``sync_failures``, ``rewritten_bytes`` (written a second
    time after a failed sync: possible duplicates), ``torn_records`` (begun in a file and written whole to the next),
    ``moved_files`` (found renamed or removed) and ``rescued_bytes`` (written to a file that was found removed, and
    again to the next) only grow. All may be read from any thread. ``reactor`` gives the time too. ``meanwhile`` says,
    for messages, what becomes of records during a trouble.
    """

    def __init__(
        self, target: Target, fsync: Fsync, reactor: Any, owner: WriterOwner, meanwhile: str = HELD_BACK
    ) -> None:
        self._target = target
        self._fsync = fsync
        self._reactor = reactor
        self._seconds: Callable[[], float] = reactor.seconds
        self._owner = owner
        self._queue: SimpleQueue[tuple[int, Iterable[bytes], bool] | _Order] = SimpleQueue()
        self._last_number = 0
        self._abandoned = threading.Event()
        self._reopen_wanted = False
        self._unsynced_since: float | None = None
        """When the oldest byte was written that was not synced since."""
        self._is_on_trial = False
        """Whether the last sync failed: until one has worked, each job waits for its own."""
        self._has_reported = False
        """Whether the open file may hold a record that was reported as written."""
        self._moved_since: float | None = None
        self._unmade: tuple[int, Exception] | None = None
        """What making the buffers of the job behind those at hand has raised."""
        tell = partial(self._tell, owner.on_stalled)
        self._trouble = Trouble(target, reactor.seconds, self._abandoned, tell, meanwhile)
        self.syncs = 0
        self.sync_seconds = 0.0
        self.sync_failures = 0
        self.rewritten_bytes = 0
        self.torn_records = 0
        self.moved_files = 0
        self.rescued_bytes = 0

    # Called in any thread.

    def start(self, name: str) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, buffers: Iterable[bytes], *, sync: bool = False) -> int:
        """
        Queue a job, to be synced before it is reported where ``sync`` says so; gives its number.

        Called in one thread alone.
        """
        number = self._last_number = self._last_number + 1
        self._queue.put((number, buffers, sync))
        return number

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

    @property
    def trouble(self) -> str | None:
        """Why nothing is being written at the moment, or ``None``."""
        return self._trouble.now

    @property
    def stall(self) -> str | None:
        """What the target has not done for too long, or ``None``; see `Trouble.stall`."""
        return self._trouble.stall

    @property
    def retries(self) -> int:
        """How often something was tried again after an error."""
        return self._trouble.retries

    # Called in the thread.

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        """Have the reactor call something of the owner's; lost when the reactor has ended, as it should be."""
        self._reactor.callFromThread(self._owner.hear, function, *arguments)

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except AbandonedError:
            pass
        except Exception as failure:  # noqa: BLE001 - a dead writer must be visible, whatever killed it
            self._tell(self._owner.on_failed, self._trouble.end_for_good(failure))
        finally:
            self._trouble.end()
            self._target.close()
            self._tell(self._owner.on_ended)

    def _step(self) -> bool:
        """Take what waits, write it, report it. False at the end."""
        commit, go_on = self._gather()
        while not self._settle(commit, is_last=not go_on):
            pass
        if self._trouble.clear(shorten=not self._is_on_trial):
            self._tell(self._owner.on_recovered)
        self._report(commit.take_all())
        if self._unmade is not None:
            unmade, self._unmade = self._unmade, None
            self._tell(self._owner.on_unmade, *unmade)
        if go_on and self._target.fifo is not None and not self._target.fifo.has_reader():
            # Known before there is something to write.
            self._open()
        return go_on

    def _report(self, numbers: list[int]) -> None:
        if numbers:
            self._has_reported = True
            self._tell(self._owner.on_written, numbers)

    def _settle(self, commit: Commit, *, is_last: bool) -> bool:
        """
        Do for the jobs at hand what each asks for, and report those that need no sync where others do.

        False when some of it must be done again, in another file.
        """
        try:
            self._write(commit)
            self._await_reader()
            if self._is_sync_due(commit, is_last=is_last):
                if not self._settle_others(commit):
                    return False
                self._sync()
        except SyncFailedError as failure:
            self._begin_again(commit.progress, failure.reason)
            return False
        except ReaderGoneError as failure:
            self._trouble.end()
            self.torn_records += commit.progress.step_back(failure.unread)
            self._open()
            return False
        return self._see_file(commit.progress)

    def _settle_others(self, commit: Commit) -> bool:
        """
        Report the jobs that need not wait for a sync that others ask for.

        False when they must be written again, in another file.
        """
        if self._fsync is Fsync.ALWAYS or self._is_on_trial or not commit.is_mixed:
            return True
        if not self._see_file(commit.progress):
            return False
        self._report(commit.take_others())
        return True

    def _gather(self) -> tuple[Commit, bool]:
        """
        Wait for a job, then take all that wait behind it, up to `COMMIT_BYTES`; false when none can follow.

        One whose buffers cannot be made is passed over, and ends the gathering: those before it are reported first.
        """
        jobs: list[Job] = []
        size = 0
        try:
            item = self._queue.get(timeout=self._patience())
            while item is not _STOP:
                if not isinstance(item, _Order):
                    job = self._make(*item)
                    if job is None:
                        return Commit(jobs), True
                    jobs.append(job)
                    size += sum(map(len, job.buffers))
                if size >= COMMIT_BYTES:
                    return Commit(jobs), True
                item = self._queue.get_nowait()
        except Empty:
            return Commit(jobs), True
        return Commit(jobs), False

    def _make(self, number: int, buffers: Iterable[bytes], wants_sync: bool) -> Job | None:
        try:
            return Job(number, list(buffers), wants_sync)
        except Exception as failure:  # noqa: BLE001 - what cannot be written must not keep the rest from it
            self._unmade = number, failure
            return None

    def _patience(self) -> float | None:
        """How long nothing may come before something else must be done."""
        due = []
        if self._fsync is Fsync.SECOND and self._unsynced_since is not None:
            due.append(self._unsynced_since + SYNC_SECONDS)
        if self._moved_since is not None:
            due.append(self._moved_since + MOVE_SECONDS)
        if self._target.fifo is not None:
            due.append(self._seconds() + READER_SECONDS)
        return max(0.0, min(due) - self._seconds()) if due else None

    def _write(self, commit: Commit) -> None:
        """Write all that is left, however often it takes, and change files when that is wanted."""
        progress = commit.progress
        while self._reopen_wanted or not progress.is_done:
            if self._reopen_wanted:
                self._change_files(commit)
            elif self._is_second_over():
                self._sync()
            else:
                self._write_some(progress)

    def _write_some(self, progress: Progress) -> None:
        if self._abandoned.is_set():
            raise AbandonedError
        self._trouble.begin("a write has taken nothing")
        try:
            taken = self._target.write(progress.window())
        except OSError as failure:
            self._trouble.back_off("cannot write", failure)
            # To make room an operator removes or renames the file, or mounts another disk over it.
            self._keep_to_path(progress)
            return
        progress.advance(taken)
        if taken:
            # A stream that is full takes nothing and says so at once: that goes on being the same stall.
            self._trouble.end()
        if self._unsynced_since is None:
            self._unsynced_since = self._seconds()

    def _await_reader(self) -> None:
        """Wait until a FIFO was read: what is in it is nobody's yet."""
        fifo = self._target.fifo
        while fifo is not None and not fifo.is_taken():
            if self._abandoned.is_set():
                raise AbandonedError
            self._trouble.begin("what was written to the FIFO has not been read")
        self._trouble.end()

    def _see_file(self, progress: Progress) -> bool:
        """
        See that what was written is where readers find it, before that is reported; false as `_keep_to_path` says.

        Looked at after the write: a file that was removed before is noticed while what it held is still at hand.
        """
        has_news = progress.written or self._moved_since is not None
        return not has_news or self._keep_to_path(progress)

    def _keep_to_path(self, progress: Progress) -> bool:
        """Look whether readers find the file we write to; where not (false), have the next file take its place."""
        place = self._find_file()
        if place is Place.HERE:
            self._moved_since = None
            return True
        if place is Place.ELSEWHERE and self._is_move_fresh():
            return True
        self.moved_files += 1
        if place is Place.ELSEWHERE:
            self._reopen_wanted = True
            self._tell(self._owner.on_moved, None)
        else:
            self._tell(self._owner.on_moved, progress.written)
            self._rescue(progress)
        return False

    def _find_file(self) -> Place:
        self._trouble.begin("a look at where the file is has not returned")
        place = self._target.place()
        self._trouble.end()
        return place

    def _is_move_fresh(self) -> bool:
        now = self._seconds()
        if self._moved_since is None:
            self._moved_since = now
        return now - self._moved_since < MOVE_SECONDS

    def _rescue(self, progress: Progress) -> None:
        """Have everything in a removed file that is still at hand written again to a new one."""
        self.rescued_bytes += progress.written
        progress.restart()
        self._unsynced_since = None
        self._open()

    def _change_files(self, commit: Commit) -> None:
        """Go on in another file; a record begun in the old one is written whole to the new one."""
        progress = commit.progress
        place = self._find_file()
        if place is Place.HERE:
            # Nothing was rotated: opening anew would only tear a record that is written in part.
            self._reopen_wanted = False
            self._moved_since = None
        elif place is Place.NOWHERE:
            self._rescue(progress)
        else:
            self._leave(commit)

    def _leave(self, commit: Commit) -> None:
        """Be done with a file that has another name now, and open the next."""
        self._await_reader()
        if self._fsync is not Fsync.NEVER or commit.wants_sync or self._is_on_trial:
            # No later sync, of the new file, can speak for the old one.
            self._sync()
            if self._find_file() is Place.NOWHERE:
                self._rescue(commit.progress)
                return
        self.torn_records += commit.progress.step_back()
        commit.progress.mark()
        self._open()

    def _open(self) -> None:
        # Cleared first: who wants another change while we open gets one.
        self._reopen_wanted = False
        self._has_reported = False
        self._moved_since = None
        self._trouble.insist("open", self._target.open)

    def _is_sync_due(self, commit: Commit, *, is_last: bool) -> bool:
        """Whether a sync is due once all is written."""
        if self._fsync is Fsync.ALWAYS or self._is_on_trial or commit.wants_sync:
            return True
        return (is_last and self._fsync is Fsync.SECOND) or self._is_second_over()

    def _is_second_over(self) -> bool:
        """Whether `Fsync.SECOND` asks for a sync now."""
        if self._fsync is not Fsync.SECOND or self._unsynced_since is None:
            return False
        return self._seconds() - self._unsynced_since >= SYNC_SECONDS

    def _sync(self) -> None:
        """
        Sync what was written, if anything was.

        A sync that failed is never tried again on that file: the kernel may have dropped the pages and
        would report success.
        """
        if self._unsynced_since is None:
            return
        self._unsynced_since = None
        began = self._seconds()
        self._trouble.begin("a sync has not returned")
        try:
            self._target.sync()
        except OSError as failure:
            raise SyncFailedError(failure) from failure
        finally:
            self._trouble.end()
            self.syncs += 1
            self.sync_seconds += self._seconds() - began
        self._is_on_trial = False

    def _begin_again(self, progress: Progress, failure: OSError) -> None:
        """
        Put aside the file whose sync failed, and have everything that is still at hand written again to a new one.

        Nothing is reported from a new file until a sync of it has worked. So a device whose every sync fails leaves
        one file put aside, whatever the number of tries: the others hold nothing but what is written again.
        """
        self.sync_failures += 1
        self._is_on_trial = True
        self.torn_records += progress.step_back()
        self.rewritten_bytes += progress.written
        progress.restart()
        self._trouble.back_off("cannot sync", failure)
        worthless = not self._has_reported
        self._trouble.insist("put aside the file whose sync failed", lambda: self._target.retire(worthless=worthless))
        self._open()
