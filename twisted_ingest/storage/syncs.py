"""
The syncs of a target: when one is due, and what is believed after one that failed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from twisted_ingest.errors import Fsync
from twisted_ingest.storage.commit import Commit
from twisted_ingest.storage.target import SyncFailedError, Target
from twisted_ingest.storage.trouble import Trouble

SYNC_SECONDS = 1.0
"""Interval of ``Fsync.SECOND``."""


@dataclass
class Counts:
    """What has happened to a target's files; each only grows, and may be read from any thread."""

    syncs: int = 0
    sync_seconds: float = 0.0
    """Spent in them."""
    sync_failures: int = 0
    rewritten_bytes: int = 0
    """Written a second time after a failed sync: possible duplicates."""
    torn_records: int = 0
    """Begun in a file and written whole to the next."""
    moved_files: int = 0
    """Found renamed or removed."""
    rescued_bytes: int = 0
    """Written to a file that was found removed, and again to the next."""


class Syncs:
    """
    Syncs one target for jobs that ask, and as ``fsync`` says besides. All in the writer's thread.

    While it ``is_on_trial``, because the last sync failed and none has worked since, every job waits for its own.
    """

    def __init__(
        self, target: Target, fsync: Fsync, trouble: Trouble, seconds: Callable[[], float], counts: Counts
    ) -> None:
        self._target = target
        self._fsync = fsync
        self._trouble = trouble
        self._seconds = seconds
        self._counts = counts
        self._unsynced_since: float | None = None
        """When the oldest byte was written that was not synced since."""
        self.is_on_trial = False

    def note_write(self) -> None:
        """Note that something was written."""
        if self._unsynced_since is None:
            self._unsynced_since = self._seconds()

    def forget(self) -> None:
        """Note that what was written is gone, with its file."""
        self._unsynced_since = None

    def is_due(self, commit: Commit) -> bool:
        """Whether a sync is due once all of a commit is written."""
        if commit.wants_sync or self.is_on_trial:
            return True
        return (commit.is_last and self._fsync is Fsync.SECOND) or self.is_second_over

    def is_owed(self, commit: Commit) -> bool:
        """Whether what was written of a commit must be synced before its file is closed."""
        return self._fsync is not Fsync.NEVER or commit.wants_sync or self.is_on_trial

    @property
    def is_idle(self) -> bool:
        """Whether no sync is due but for those who ask."""
        return self._fsync is Fsync.NEVER and not self.is_on_trial

    @property
    def due_at(self) -> float | None:
        """When `Fsync.SECOND` asks for the next sync; ``None``: it does not."""
        if self._fsync is not Fsync.SECOND or self._unsynced_since is None:
            return None
        return self._unsynced_since + SYNC_SECONDS

    @property
    def is_second_over(self) -> bool:
        """Whether `Fsync.SECOND` asks for a sync now."""
        if self._fsync is not Fsync.SECOND or self._unsynced_since is None:
            return False
        return self._seconds() >= self._unsynced_since + SYNC_SECONDS

    def sync(self) -> None:
        """
        Sync what was written, if anything was. Raises `SyncFailedError`.

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
            self._counts.syncs += 1
            self._counts.sync_seconds += self._seconds() - began
        self.is_on_trial = False
