"""
Where a running spool is read next: through all segments, in order, what is durable, each frame that counts once.

What a cursor has read is not delivered yet: how far that has come is the checkpoint's business.
"""

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from twisted_ingest.batch import Batch
from twisted_ingest.spool.body import DamagedError
from twisted_ingest.spool.codec import SEGMENT_SIZE
from twisted_ingest.spool.disk import Disk
from twisted_ingest.spool.frames import Damage, FrameReader, Whole
from twisted_ingest.spool.quarantine import quarantine
from twisted_ingest.spool.segments import LOCK, Segment, Shelf


@dataclass(slots=True)
class Window:
    """Batches in order, to be delivered together; ``last`` is the number that is done once they are."""

    batches: list[Batch] = field(default_factory=list)
    records: int = 0
    size: int = 0
    last: int = 0

    def add(self, batch: Batch) -> None:
        """Put a batch at the end."""
        self.batches.append(batch)
        self.records += batch.count
        self.size += batch.size


class Cursor:
    """
    Reads a shelf's segments, from one thread.

    ``missing`` counts sequence numbers that no frame was found for, ``quarantined_regions`` and
    ``quarantined_bytes`` what turned out damaged after the start. They only grow. ``on_gone`` is called with the
    path of a segment that somebody has taken away.
    """

    def __init__(self, disk: Disk, shelf: Shelf) -> None:
        self._disk = disk
        self._shelf = shelf
        self._segment: Segment | None = None
        self._descriptor = -1
        self._reader: FrameReader | None = None
        self._next = 1
        self.missing = 0
        self.quarantined_regions = 0
        self.quarantined_bytes = 0
        self.on_gone: Callable[[str], None] = lambda _: None

    def start(self, position: int) -> None:
        """Begin with the frame of this number."""
        self._next = position

    def read(self, limit: int) -> Window | None:
        """
        Give what comes next: batches of at least ``limit`` bytes, or all that is durable where that is less.

        ``None``: nothing new. A window without batches has to be confirmed too: something was missing there.
        Raises ``OSError``, and can be called again.
        """
        window = Window()
        start = self._next
        while window.size < limit and (batch := self._read_batch()) is not None:
            window.add(batch)
        window.last = self._next - 1
        return window if self._next > start else None

    @property
    def has_more(self) -> bool:
        """Whether something durable has not been read."""
        return self._shelf.durable >= self._next

    def _read_batch(self, until: Segment | None = None) -> Batch | None:
        """Give the next batch, in whatever segment it is before the one given."""
        while True:
            segment, end, following, durable = self._current()
            item = self._read_item(segment, end)
            if isinstance(item, Whole):
                if item.sequence >= self._next and (batch := self._decode(segment, item)) is not None:
                    self._skip_to(item.sequence)
                    self._next = item.sequence + 1
                    return batch
            elif item is not None:
                self._quarantine(segment, item)
            elif segment is None or following is None:
                self._skip_to(durable + 1)
                return None
            else:
                self._skip_to(self._shelf.first_after(segment))
                self._leave()
                self._segment = following
                if following is until:
                    return None

    def _current(self) -> tuple[Segment | None, int, Segment | None, int]:
        """
        Give the segment to read, how far it may be read, and the one to go on with once it is read.

        Where there is none to go on with, everything durable is before that end: the last number given.
        """
        shelf = self._shelf
        with shelf.changed:
            if self._segment not in shelf.segments:
                # Not begun, or gone because nothing in it became durable: what was read before is passed over.
                self._leave()
                self._segment = shelf.segments[0] if shelf.segments else None
            segment = self._segment
            if segment is None:
                return None, 0, None, shelf.durable
            index = shelf.segments.index(segment)
            has_next = segment.is_sealed and index + 1 < len(shelf.segments)
            return segment, segment.end, shelf.segments[index + 1] if has_next else None, shelf.durable

    def _read_item(self, segment: Segment | None, end: int) -> Whole | Damage | None:
        if self._reader is None:
            if segment is None or end <= SEGMENT_SIZE:
                return None
            try:
                self._descriptor = self._disk.open(segment.path)
            except FileNotFoundError:
                self._note_gone(segment)
                return None
            self._reader = FrameReader(self._disk, self._descriptor, segment.marker, SEGMENT_SIZE)
        return self._reader.read(end)

    def _note_gone(self, segment: Segment) -> None:
        """Note that a segment was taken away, to be passed over. Raises ``OSError`` if the whole directory was."""
        names = self._disk.list(self._shelf.directory)
        if LOCK not in names or segment.name in names:
            raise FileNotFoundError(errno.ENOENT, "another directory is in its place", self._shelf.directory)
        if not segment.must_keep:
            # Should it come back, it must not be removed: nobody has had what is in it.
            segment.must_keep = True
            self.on_gone(segment.path)

    def _decode(self, segment: Segment | None, item: Whole) -> Batch | None:
        try:
            return item.batch()
        except DamagedError:
            self._quarantine(segment, Damage(item.start, item.end, is_torn=False))
            return None

    def _skip_to(self, sequence: int) -> None:
        """Go on to a number; what is skipped is missing."""
        if sequence > self._next:
            self.missing += sequence - self._next
            self._next = sequence

    def _quarantine(self, segment: Segment | None, damage: Damage) -> None:
        if segment is not None and quarantine(self._disk, self._shelf.directory, self._descriptor, segment, damage):
            self.quarantined_regions += 1
            self.quarantined_bytes += damage.end - damage.start

    def _leave(self) -> None:
        self._segment = self._reader = None
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            self._disk.close(descriptor)

    def close(self) -> None:
        """Let go of the segment that is being read."""
        self._leave()

    def leave(self, segment: Segment) -> None:
        """Let go of a segment that is being removed, should it be the one that is being read."""
        if self._segment is segment:
            self._leave()

    def read_rest(self, oldest: Segment) -> Iterator[Batch]:
        """Give what was not read yet of the oldest segment, which is not the last one. Raises ``OSError``."""
        with self._shelf.changed:
            following = self._shelf.segments[1]
        while self._segment in (oldest, None) and (batch := self._read_batch(following)) is not None:
            yield batch

    def rewind(self) -> None:
        """Go back to the first frame that is not confirmed."""
        self._leave()
        self._next = self._shelf.confirmed + 1
