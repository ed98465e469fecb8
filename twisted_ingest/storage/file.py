"""
A file of ours, opened by its path and appended to.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence

from twisted_ingest.storage.access import OURS, FileAccess
from twisted_ingest.storage.calls import Sight, append, look
from twisted_ingest.storage.directories import missing_directories, naming_inodes, sync_directory
from twisted_ingest.storage.fifo import Fifo, is_fifo, open_fifo
from twisted_ingest.storage.target import Place, Spot


class IrregularError(OSError):
    """What was opened cannot be synced, and somebody relies on that."""


class FileTarget:
    """
    A regular file (or a FIFO, or a device), appended to. A FIFO cannot be opened while nobody reads it.

    The file is never truncated. One that ends in half a line gets its LF when it is opened: ``repaired`` counts.
    ``truncations`` counts how often somebody else was seen to have shortened it. ``can_sync`` says whether what was
    opened last can be synced; where not, ``sync`` does nothing. With ``sync_for`` (who relies on syncs, in words)
    only a regular file is opened: anything else raises `IrregularError`, and another try may find that mended.
    """

    # Waiting may mend each of them: space freed, a remount, a restored directory.
    final_errors: frozenset[int] = frozenset()

    def __init__(self, path: str, access: FileAccess = OURS, sync_for: str | None = None) -> None:
        self.path = self.name = path
        self._encoded_path = os.fsencode(path)
        self._access = access
        self._sync_for = sync_for
        self._descriptor = -1
        self._is_named = False
        self._spot = Spot(-1, self._encoded_path, 0)
        self._unnamed: set[str] = set()
        """Directories whose entries the next sync makes durable."""
        self.can_sync = False
        self.fifo: Fifo | None = None
        self.sight: Place | None = None
        self.spot: Spot | None = None
        self.repaired = 0
        self.truncations = 0
        self.on_repair: Callable[[], None] = lambda: None
        self.on_truncation: Callable[[], None] = lambda: None

    def open(self) -> None:
        """See `Target`."""
        self.close()
        if is_fifo(self.path):
            self._refuse_irregular(is_regular=False)
            self._descriptor = open_fifo(self.path)
        else:
            self._descriptor = self._open_file()
        self._is_named = False
        try:
            self._take_stock()
        except OSError:
            # Closed again, so that `place` does not take it for the open file.
            self.close()
            raise

    def _open_file(self) -> int:
        directory = os.path.dirname(os.path.abspath(self.path))
        self._unnamed.update((directory, *map(os.path.dirname, missing_directories(directory))))
        with naming_inodes():
            self._access.make_directories(directory)
            return self._access.open(self.path)

    def _refuse_irregular(self, *, is_regular: bool) -> None:
        if self._sync_for is not None and not is_regular:
            raise IrregularError(
                errno.EINVAL,
                f"{self.path} is no regular file and cannot be synced, which {self._sync_for} asks for: "
                "put a regular file there, or take away what is there now",
            )

    def _take_stock(self) -> None:
        status = os.fstat(self._descriptor)
        self.can_sync = stat.S_ISREG(status.st_mode)
        self._refuse_irregular(is_regular=self.can_sync)
        if stat.S_ISFIFO(status.st_mode):
            if os.get_blocking(self._descriptor):
                raise OSError(errno.EAGAIN, "a FIFO took its place while it was being opened")
            self.fifo = Fifo(self._descriptor)
        if self.can_sync and status.st_size:
            self._end_last_line(status.st_size)
        self._spot = Spot(self._descriptor, self._encoded_path, status.st_size)
        self.spot = self._spot if self.can_sync else None

    def _end_last_line(self, size: int) -> None:
        if os.pread(self._descriptor, 1, size - 1) != b"\n":
            os.write(self._descriptor, b"\n")
            self.repaired += 1
            self.on_repair()

    def write(self, buffers: Sequence[bytes | memoryview]) -> int:
        """See `Target`."""
        if self.fifo is not None:
            return self.fifo.write(buffers)
        self.sight = None
        taken, sight = append(self._descriptor, buffers, self._encoded_path)
        self._spot.written += taken
        self._spot.least += taken
        if sight is not None:
            self.sight = self._place_in(sight)
        return taken

    def sync(self) -> None:
        """See `Target`."""
        if self.can_sync:
            os.fdatasync(self._descriptor)
            self._sync_name()

    def _sync_name(self) -> None:
        """Once per file, make its entry in the directory as durable as its bytes, and those of directories we made."""
        if self._is_named:
            return
        for directory in self._unnamed:
            sync_directory(directory)
        self._unnamed.clear()
        self._is_named = True

    def place(self) -> Place:
        """See `Target`."""
        return self._place_in(look(self._descriptor, self._encoded_path))

    def _place_in(self, sight: Sight) -> Place:
        size, links, is_here = sight
        if size < 0:
            return Place.NOWHERE
        self._note_size(size)
        if is_here:
            return Place.HERE
        # What went into a FIFO has been read by whoever had it open.
        return Place.ELSEWHERE if links or not self.can_sync else Place.NOWHERE

    def _note_size(self, size: int) -> None:
        """Notice a truncation by somebody else; we append, so no hole comes of it."""
        if self.can_sync and size < self._spot.least:
            self.truncations += 1
            self.on_truncation()
        self._spot.least = size

    def retire(self, *, worthless: bool) -> None:
        """See `Target`: the file becomes ``PATH.failed-N`` with the first N that is free."""
        if self.place() is Place.HERE:
            if worthless and os.fstat(self._descriptor).st_size <= self._spot.written:
                os.unlink(self.path)
            else:
                self._put_aside()
        self.close()

    def _put_aside(self) -> None:
        number = 1
        while os.path.lexists(f"{self.path}.failed-{number}"):
            number += 1
        os.rename(self.path, f"{self.path}.failed-{number}")

    def close(self) -> None:
        """See `Target`."""
        self.fifo = None
        self.sight = None
        self.spot = None
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):  # the descriptor is gone either way (close(2))
                os.close(descriptor)
