"""
The writing side: an appender's target that goes from segment to segment.

Each buffer it is given is one frame, made by `SegmentTarget.frames`. Nothing counts as durable before a sync that began
after it was written, of the file and of its name. A segment is never written to again once its sync has failed.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from twisted_ingest.batch import Batch
from twisted_ingest.limits import SPARE_INODES
from twisted_ingest.spool.codec import (
    MARKER_SIZE,
    SEGMENT_SIZE,
    Header,
    count_of,
    encode_frame,
    encode_header,
    sequence_of,
)
from twisted_ingest.spool.disk import Disk
from twisted_ingest.spool.segments import Segment, Shelf, segment_name
from twisted_ingest.storage.buffers import Buffers
from twisted_ingest.storage.fifo import Fifo
from twisted_ingest.storage.target import Place, Spot, SyncFailedError
from twisted_ingest.units import format_size

ROOM_SECONDS = 0.1
"""How long room is waited for at a time, so that the appender can look whether it was told to stop."""


@dataclass(slots=True)
class _Open:
    """A segment that is written to, or was since the last sync; ``is_named`` once its name is durable."""

    segment: Segment
    descriptor: int
    is_named: bool = False


class _Frames(Buffers):
    """The frames of batches. Where making one raises, those before it were thrown away, and numbers have no gaps."""

    __slots__ = ("_target",)

    def __init__(self, target: "SegmentTarget", batches: Sequence[Batch]) -> None:
        super().__init__(target.frame, batches)
        self._target = target

    def __iter__(self) -> Iterator[bytes | memoryview]:
        first = self._target.sequence
        try:
            yield from super().__iter__()
        except Exception:
            self._target.sequence = first
            raise


class SegmentTarget:
    """
    See `twisted_ingest.storage.target.Target`.

    ``sequence`` is the number of the next frame, ``number`` that of the next segment. ``trouble`` says why there is no
    room, or is ``None``; ``on_trouble`` is called in the thread when it changes. ``records`` and ``bytes`` count what
    became durable (records' bytes, frames' overhead included), and only grow.
    """

    # Waiting may mend each of them.
    final_errors: frozenset[int] = frozenset()
    fifo: Fifo | None = None
    sight: Place | None = None
    spot: Spot | None = None

    def __init__(self, disk: Disk, shelf: Shelf, segment_bytes: int) -> None:
        self._disk = disk
        self._shelf = shelf
        self.name = shelf.directory
        self._segment_bytes = segment_bytes
        self._marker = os.urandom(MARKER_SIZE)
        self._open: list[_Open] = []
        """Oldest first; the last one is written to."""
        self._begun = 0
        """Records of the frame that the last write ended inside of; ``_is_inside`` says whether it did."""
        self._is_inside = False
        self._written_last = 0
        self._written_records = 0
        self._written_bytes = 0
        self.sequence = 1
        self.number = 1
        self.records = 0
        self.bytes = 0
        self.trouble: str | None = None
        self.on_trouble: Callable[[str | None], None] = lambda _: None

    def resume(self, sequence: int, number: int) -> None:
        """Go on with these numbers for the next frame and the next segment; before anything is written."""
        self.sequence, self.number = sequence, number
        self._written_last = sequence - 1

    def frame(self, batch: Batch) -> bytes:
        """Make the frame of a batch, with the next number."""
        frame = encode_frame(self._marker, self.sequence, batch)
        self.sequence += 1
        return frame

    def frames(self, batches: Sequence[Batch]) -> Buffers:
        """Give what makes the frames of batches, numbered in the order in which they are asked for."""
        return _Frames(self, batches)

    def open(self) -> None:
        """See `Target`: a segment is made once there is a frame for it."""

    def write(self, buffers: Sequence[bytes | memoryview]) -> int:
        """See `Target`: takes nothing where there is no room, after having waited a moment for it."""
        if self._is_inside:
            buffers = buffers[:1]
        else:
            buffers = self._fitting(buffers)
            is_new = not self._open or self._is_full(self._open[-1].segment)
            if not buffers or (is_new and self._lacks_inodes()):
                self._wait_for_room()
                return 0
            self._set_trouble(None)
            if is_new:
                self._begin_segment(sequence_of(buffers[0]))
        return self._append(buffers)

    def _append(self, buffers: Sequence[bytes | memoryview]) -> int:
        current = self._open[-1]
        number = self._disk.write(current.descriptor, buffers)
        current.segment.size += number
        self._written_bytes += number
        self._note(buffers, number)
        return number

    def _note(self, buffers: Sequence[bytes | memoryview], left: int) -> None:
        """Tell which frames a write has ended."""
        for buffer in buffers:
            if not left:
                return
            if not self._is_inside:
                self._begun = count_of(buffer)
            self._is_inside = left < len(buffer)
            if self._is_inside:
                return
            left -= len(buffer)
            self._written_records += self._begun
            self._written_last += 1

    # Room.

    def _fitting(self, buffers: Sequence[bytes | memoryview]) -> Sequence[bytes | memoryview]:
        """Give as many frames as there is room for, and no more than one past the end of the segment."""
        room, segment_room = self._room(len(buffers[0])), self._segment_room()
        size = 0
        for number, buffer in enumerate(buffers):
            if size + len(buffer) > room or (number and size >= segment_room):
                return buffers[:number]
            size += len(buffer)
        return buffers

    def _room(self, needed: int) -> int:
        """Bytes that may be written now; with nothing waiting, any one frame may, however small the spool is."""
        with self._shelf.changed:
            is_empty = self._shelf.confirmed == self._shelf.durable == self._written_last
        allowed = self._shelf.max_bytes - self._shelf.used
        free = self._disk.free(self._shelf.directory) - self._shelf.free_space_floor
        return min(max(allowed, needed if is_empty else 0), free)

    def _segment_room(self) -> int:
        current = self._open[-1].segment if self._open else None
        return self._segment_bytes - (current.size if current and not self._is_full(current) else 0)

    def _is_full(self, segment: Segment) -> bool:
        return segment.size >= self._segment_bytes

    def _lacks_inodes(self) -> bool:
        return self._disk.free_inodes(self._shelf.directory) <= SPARE_INODES

    def _wait_for_room(self) -> None:
        """Wait a moment, but first let the reading side have what is written: nothing else may be left to make room."""
        if self._written_bytes:
            try:
                self.sync()
            except OSError as failure:
                raise SyncFailedError(failure) from failure
            return
        shelf = self._shelf
        self._set_trouble(f"{self._shortage()}: senders are held back")
        with shelf.changed:
            shelf.room_wanted = True
            shelf.changed.notify_all()
            shelf.changed.wait(ROOM_SECONDS)

    def _shortage(self) -> str:
        shelf = self._shelf
        if self._lacks_inodes():
            return f"no inodes are left on the file system of {shelf.directory} but for positions (see df -i)"
        free = format_size(self._disk.free(shelf.directory))
        used, allowed = format_size(shelf.used), format_size(shelf.max_bytes)
        return f"the spool is full ({used}, max_bytes {allowed}, {free} free on the disk)"

    def _set_trouble(self, trouble: str | None) -> None:
        if (trouble is None) != (self.trouble is None):
            self.on_trouble(trouble)
        self.trouble = trouble

    # Segments.

    def _begin_segment(self, first: int) -> None:
        """Make the next segment; its name and bytes become durable with the next sync."""
        number, self.number = self.number, self.number + 1
        path = self._shelf.path(segment_name(number, self._marker))
        descriptor = self._disk.create(path)
        header = encode_header(Header(number, first, self._marker))
        try:
            left = memoryview(header)
            while left:
                left = left[self._disk.write(descriptor, [left]) :]
        except OSError:
            self._disk.close(descriptor)
            with contextlib.suppress(OSError):
                self._disk.unlink(path)
            raise
        segment = Segment(number, self._marker, first, path, size=SEGMENT_SIZE)
        self._open.append(_Open(segment, descriptor))
        self._written_last = first - 1
        with self._shelf.changed:
            self._shelf.segments.append(segment)

    def sync(self) -> None:
        """See `Target`: everything written before is durable, or none of it counts."""
        for opened in self._open:
            self._disk.sync(opened.descriptor)
        if not all(opened.is_named for opened in self._open):
            self._disk.sync_directory(self._shelf.directory)
        self._publish()

    def _publish(self) -> None:
        """Let the reading side have what is durable now."""
        self.records += self._written_records
        self.bytes += self._written_bytes
        with self._shelf.changed:
            for opened in self._open:
                opened.is_named = True
                opened.segment.end = opened.segment.size
            self._shelf.durable = self._written_last
            self._seal(self._open[:-1])
            self._shelf.changed.notify_all()
        self._open = self._open[-1:]
        self._written_records = self._written_bytes = 0

    def place(self) -> Place:
        """See `Target`: nobody is told of a segment's path, so nobody reads it by that."""
        return Place.HERE

    def retire(self, *, worthless: bool) -> None:
        """
        See `Target`: what was not durable yet will be written again, to a segment that begins with it.

        A segment that holds nothing else goes, whatever is worthless to others: a device whose every sync fails would
        be filled otherwise.
        """
        for opened in [opened for opened in self._open if opened.segment.end == SEGMENT_SIZE]:
            self._disk.unlink(opened.segment.path)
            self._disk.close(opened.descriptor)
            self._open.remove(opened)
            with self._shelf.changed:
                self._shelf.segments.remove(opened.segment)
        self.close()

    def close(self) -> None:
        """See `Target`: what is not durable does not count."""
        with self._shelf.changed:
            self._seal(self._open)
            self._shelf.changed.notify_all()
        self._open = []
        self._is_inside = False
        self._written_records = self._written_bytes = 0
        self._written_last = self._shelf.durable

    def _seal(self, segments: list[_Open]) -> None:
        for opened in segments:
            opened.segment.is_sealed = True
            self._disk.close(opened.descriptor)
