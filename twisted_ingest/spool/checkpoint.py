"""
How far the sink behind has come: confirmed in memory, kept on the disk as the position, and then segments removed.

In that order and no other: the position lags behind what was confirmed, by a second at most, and no segment is removed
before the position beyond it is durable.
"""

import contextlib
import time
from collections.abc import Iterator

from twisted_ingest.spool.cursor import Cursor
from twisted_ingest.spool.disk import Disk
from twisted_ingest.spool.position import Position, write_position
from twisted_ingest.spool.quarantine import set_aside
from twisted_ingest.spool.segments import QUARANTINE, Segment, Shelf

COMMIT_SECONDS = 1.0
"""How long the position on the disk may lag: what a killed process delivers twice."""


class Checkpoint:
    """
    The position of one spool, and the end of its segments; used by the thread that has the cursor.

    ``due`` is when the position is to be kept, by the monotonic clock, ``None`` where nothing was confirmed since.
    ``failures`` counts the times that it could not be, ``dropped`` the records that were given up to make room; they
    only grow. ``trouble`` says why it is not kept, or is ``None``.
    """

    def __init__(self, disk: Disk, shelf: Shelf, cursor: Cursor) -> None:
        self._disk = disk
        self._shelf = shelf
        self._cursor = cursor
        self._committed = 0
        self.due: float | None = None
        self.failures = 0
        self.dropped = 0
        self.trouble: str | None = None

    def start(self, position: int) -> None:
        """Begin with a position as the disk has it: the number of the next frame to deliver."""
        self._committed = position - 1

    def confirm(self, sequence: int) -> None:
        """Note that everything up to and including a number is done: the sink has taken it, or it is given up."""
        with self._shelf.changed:
            self._shelf.confirmed = max(self._shelf.confirmed, sequence)
            self._shelf.changed.notify_all()
        if self.due is None:
            self.due = time.monotonic() + COMMIT_SECONDS

    @property
    def lags(self) -> bool:
        """Whether more is confirmed than the position on the disk says."""
        return self._shelf.confirmed > self._committed

    # Keeping it.

    def keep(self) -> None:
        """Keep the position where it lags; where that does not work it is counted, and due again."""
        self.due = None
        if self.lags:
            with self._trying():
                self.commit()

    @contextlib.contextmanager
    def _trying(self) -> Iterator[None]:
        try:
            yield
        except OSError as failure:
            self.failures += 1
            self.due = time.monotonic() + COMMIT_SECONDS
            where = f"cannot keep the position in {self._shelf.directory}"
            self.trouble = f"{where}: {failure.strerror or failure}; no segment is removed until that works"
        else:
            self.trouble = None

    def commit(self) -> None:
        """
        Make the position durable, and only then remove the segments it has passed.

        Raises ``OSError``; then nothing is removed, and it can be called again.
        """
        with self._shelf.changed:
            confirmed = self._shelf.confirmed
            newest = self._shelf.segments[-1].number if self._shelf.segments else 0
        write_position(self._disk, self._shelf.directory, Position(confirmed + 1, newest))
        self._committed = confirmed
        self._remove_passed(confirmed)

    # Removing segments.

    def _remove_passed(self, confirmed: int) -> None:
        while True:
            with self._shelf.changed:
                segments = self._shelf.segments
                if len(segments) < 2 or segments[1].first > confirmed + 1 or not segments[0].is_sealed:  # noqa: PLR2004
                    return
            self._remove_first()

    def _remove_first(self) -> None:
        segment = self._shelf.segments[0]
        with contextlib.suppress(FileNotFoundError):
            if segment.must_keep:
                set_aside(self._disk, self._shelf.directory, segment.name, QUARANTINE)
            else:
                self._disk.unlink(segment.path)
        self._cursor.leave(segment)
        with self._shelf.changed:
            self._shelf.segments.popleft()
            self._shelf.changed.notify_all()

    def remove_rest(self) -> None:
        """
        Leave no segment where all that is in them is confirmed; once nothing is written any more.

        So that a version that does not read our format can start, should there be a way back to it.
        """
        with self._shelf.changed:
            segments = self._shelf.segments
            is_done = self._shelf.confirmed >= self._shelf.durable and all(segment.is_sealed for segment in segments)
        if not segments or not is_done:
            return
        with self._trying():
            # Kept anew: the highest number of a segment must be in it, and the last one may not be.
            self.commit()
            while segments:
                self._remove_first()

    def drop_oldest(self) -> None:
        """Give up what is left of the oldest segment, to make room, and count it; an error is treated as in `keep`."""
        oldest = self._oldest()
        if oldest is not None:
            with self._trying():
                for batch in self._cursor.read_rest(oldest):
                    self.dropped += batch.count
                self.confirm(self._shelf.first_after(oldest) - 1)
                self.commit()

    def _oldest(self) -> Segment | None:
        """Give the oldest segment; ``None`` where there is only the one that is being written."""
        with self._shelf.changed:
            segments = self._shelf.segments
            return segments[0] if len(segments) > 1 and segments[0].is_sealed else None
