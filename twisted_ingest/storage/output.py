"""
The open file of a writer: what is written to it, synced, and seen to have a name, and the files that take its place.

No error of the disk loses a record: a write that fails is tried again from the byte where it stopped. No record is
reported as written before the file that has it was seen to have a name still.
"""

from collections.abc import Callable
from typing import Protocol

from twisted_ingest.errors import Fsync
from twisted_ingest.storage.commit import Commit
from twisted_ingest.storage.fifo import ReaderGoneError
from twisted_ingest.storage.progress import Progress
from twisted_ingest.storage.syncs import Counts, Syncs
from twisted_ingest.storage.target import Place, Spot, SyncFailedError, Target
from twisted_ingest.storage.trouble import Trouble

MOVE_SECONDS = 1.0
"""How long a file that was renamed is written on to unless we are told to reopen: who renames it may be about to make
the next one, as logrotate does, and must not find that we were faster."""

READER_SECONDS = 1.0
"""How often a FIFO with nothing to write to it is looked at: how late the loss of its reader is noticed then."""


class OutputOwner(Protocol):
    """Who hears of an output's doings, in its thread."""

    def on_done(self, numbers: list[int]) -> None:
        """Note that for these jobs all is done that they ask for."""

    def on_moved(self, rewritten: int | None) -> None:
        """Note a file found renamed (``None``), or removed with so many bytes that are written again."""

    def on_recovered(self) -> None:
        """Note that a trouble that was told of is over."""


class Output:
    """
    Puts commits into a target, whatever files that takes. All in one thread, but for ``reopen_wanted`` and ``counts``.

    ``fsync`` is what every job gets; those of a commit may ask to be synced besides. They are reported once that was
    done and the file that has them was seen to have a name. Every wait is that of ``trouble``, and ends where that is
    told to.
    """

    def __init__(
        self,
        target: Target,
        fsync: Fsync,
        trouble: Trouble,
        seconds: Callable[[], float],
        owner: OutputOwner,
    ) -> None:
        self._target = target
        self._trouble = trouble
        self._seconds = seconds
        self._owner = owner
        self.counts = Counts()
        self._syncs = Syncs(target, fsync, trouble, seconds, self.counts)
        self._has_reported = False
        """Whether the open file may hold a record that was reported as written."""
        self._moved_since: float | None = None
        self._sight: Place | None = None
        """Where the file was right behind the last write, where nothing was done since that a look must come after."""
        self.reopen_wanted = False
        """Set by whoever wants the target opened anew before the next record that is written."""

    def bring(self, commit: Commit) -> None:
        """Do for the jobs what they ask for, and report them. Raises `AbandonedError` and the target's final errors."""
        while not self._settle(commit):
            pass
        if self._trouble.clear(shorten=not self._syncs.is_on_trial):
            self._owner.on_recovered()
        if commit.numbers:
            self._has_reported = True
            self._owner.on_done(commit.numbers)

    def look_for_reader(self) -> None:
        """Where nobody reads the FIFO any more, wait for the next reader before there is something to write."""
        if self._target.fifo is not None and not self._target.fifo.has_reader():
            self._open()

    def _settle(self, commit: Commit) -> bool:
        """Do for the jobs at hand what they ask for; false when some of it must be done again, in another file."""
        try:
            self._write(commit)
            self._await_reader()
            if self._syncs.is_due(commit):
                self._sync()
        except SyncFailedError as failure:
            self._begin_again(commit.progress, failure.reason)
            return False
        except ReaderGoneError as failure:
            self._trouble.end()
            self.counts.torn_records += commit.progress.step_back(failure.unread)
            self._open()
            return False
        return self._see_file(commit.progress)

    def spot(self) -> Spot | None:
        """Give the open file where commits that ask for nothing may be written to it without us."""
        is_ordinary = self._syncs.is_idle and self._moved_since is None and not self.reopen_wanted
        return self._target.spot if is_ordinary else None

    def note_outside(self) -> None:
        """Note that something was written without us, and reported."""
        self._has_reported = True
        self._syncs.note_write()

    def patience(self) -> float | None:
        """How long nothing may come before something else must be done."""
        due = []
        if self._syncs.due_at is not None:
            due.append(self._syncs.due_at)
        if self._moved_since is not None:
            due.append(self._moved_since + MOVE_SECONDS)
        if self._target.fifo is not None:
            due.append(self._seconds() + READER_SECONDS)
        return max(0.0, min(due) - self._seconds()) if due else None

    def _write(self, commit: Commit) -> None:
        """Write all that is left, however often it takes, and change files when that is wanted."""
        progress = commit.progress
        while self.reopen_wanted or not progress.is_done:
            if self.reopen_wanted:
                self._change_files(commit)
            elif self._syncs.is_second_over:
                self._sync()
            else:
                self._write_some(progress)

    def _write_some(self, progress: Progress) -> None:
        self._trouble.end_if_abandoned()
        self._trouble.begin("a write has taken nothing")
        self._sight = None
        try:
            taken = self._target.write(progress.window())
        except OSError as failure:
            self._trouble.back_off("cannot write", failure)
            # To make room an operator removes or renames the file, or mounts another disk over it.
            self._keep_to_path(progress)
            return
        progress.advance(taken)
        self._sight = self._target.sight
        if taken:
            # A stream that is full takes nothing and says so at once: that goes on being the same stall.
            self._trouble.end()
        self._syncs.note_write()

    def _sync(self) -> None:
        self._sight = None
        self._syncs.sync()

    def _await_reader(self) -> None:
        """Wait until a FIFO was read: what is in it is nobody's yet."""
        fifo = self._target.fifo
        while fifo is not None and not fifo.is_taken():
            self._trouble.end_if_abandoned()
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
        place, self._sight = self._sight or self._find_file(), None
        if place is Place.HERE:
            self._moved_since = None
            return True
        if place is Place.ELSEWHERE and self._note_move() < MOVE_SECONDS:
            return True
        self.counts.moved_files += 1
        if place is Place.ELSEWHERE:
            self.reopen_wanted = True
            self._owner.on_moved(None)
        else:
            self._owner.on_moved(progress.written)
            self._rescue(progress)
        return False

    def _find_file(self) -> Place:
        self._trouble.begin("a look at where the file is has not returned")
        place = self._target.place()
        self._trouble.end()
        return place

    def _note_move(self) -> float:
        """Note that the file is elsewhere; give for how many seconds that has been seen."""
        now = self._seconds()
        if self._moved_since is None:
            self._moved_since = now
        return now - self._moved_since

    def _rescue(self, progress: Progress) -> None:
        """Have everything in a removed file that is still at hand written again to a new one."""
        self.counts.rescued_bytes += progress.written
        progress.restart()
        self._syncs.forget()
        self._open()

    def _change_files(self, commit: Commit) -> None:
        """Go on in another file; a record begun in the old one is written whole to the new one."""
        progress = commit.progress
        place = self._find_file()
        if place is Place.HERE:
            # Nothing was rotated: opening anew would only tear a record that is written in part.
            self.reopen_wanted = False
            self._moved_since = None
        elif place is Place.NOWHERE:
            self._rescue(progress)
        else:
            self._leave(commit)

    def _leave(self, commit: Commit) -> None:
        """Be done with a file that has another name now, and open the next."""
        self._await_reader()
        if self._syncs.is_owed(commit):
            # No later sync, of the new file, can speak for the old one.
            self._sync()
            if self._find_file() is Place.NOWHERE:
                self._rescue(commit.progress)
                return
        self.counts.torn_records += commit.progress.step_back()
        commit.progress.mark()
        self._open()

    def _open(self) -> None:
        # Cleared first: who wants another change while we open gets one.
        self.reopen_wanted = False
        self._has_reported = False
        self._moved_since = None
        self._sight = None
        self._trouble.insist("open", self._target.open)

    def _begin_again(self, progress: Progress, failure: OSError) -> None:
        """
        Put aside the file whose sync failed, and have everything that is still at hand written again to a new one.

        Nothing is reported from a new file until a sync of it has worked. So a device whose every sync fails leaves
        one file put aside, whatever the number of tries: the others hold nothing but what is written again.
        """
        self.counts.sync_failures += 1
        self._syncs.is_on_trial = True
        self.counts.torn_records += progress.step_back()
        self.counts.rewritten_bytes += progress.written
        progress.restart()
        self._trouble.back_off("cannot sync", failure)
        worthless = not self._has_reported
        self._trouble.insist("put aside the file whose sync failed", lambda: self._target.retire(worthless=worthless))
        self._open()
