"""
What a directory holds, whatever has happened to it.

A function of the directory alone, and idempotent: it copies damaged regions aside and sets aside what it cannot read,
but removes nothing. Run twice, or killed half-way and run again, it comes to the same answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from twisted_ingest.spool.codec import SEGMENT_SIZE, DamagedError, Head, Header, decode_header
from twisted_ingest.spool.disk import Disk
from twisted_ingest.spool.position import Position, read_position, replace_file
from twisted_ingest.spool.reading import BLOCK_BYTES, Damage, Found, FrameReader
from twisted_ingest.spool.segments import QUARANTINE, Segment, parse_name

UNREADABLE = ".unreadable"


@dataclass(slots=True)
class Report:
    """
    What was found.

    ``records``, ``batches`` and ``size`` (bytes of frames) wait to be delivered. ``duplicates`` counts frames whose
    copy in a later segment is the one that counts, ``missing`` the sequence numbers that nothing was found for.
    ``is_position_lost``: something was delivered once, and nothing says how much.
    """

    segments: int = 0
    records: int = 0
    batches: int = 0
    size: int = 0
    torn_bytes: int = 0
    quarantined_regions: int = 0
    quarantined_bytes: int = 0
    duplicates: int = 0
    missing: int = 0
    unreadable: list[str] = field(default_factory=list)
    is_position_lost: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found but what belongs there."""
        return not (self.quarantined_regions or self.missing or self.unreadable)


@dataclass(slots=True)
class Recovered:
    """
    Where to go on.

    ``segments`` are all that are left, sealed, oldest first. ``position`` is the sequence number of the next frame to
    deliver, ``sequence`` that of the next one to write, ``number`` that of the next segment.
    """

    segments: list[Segment]
    position: int
    sequence: int
    number: int
    report: Report


def recover(disk: Disk, directory: str) -> Recovered:
    """Look through a spool's directory. Raises `ForeignError` for another version's, ``OSError`` for no directory."""
    position = read_position(disk, directory)
    report = Report()
    segments = _segments(disk, directory, report)
    report.segments = len(segments)
    start = position.next if position is not None else min((s.first for s in segments if s.first), default=1)
    report.is_position_lost = position is None and start > 1
    last = _Scan(disk, directory, report, start).run(segments)
    sequence = max([last + 1, start, *(segment.first for segment in segments)])
    highest = max([segment.number for segment in segments], default=0)
    return Recovered(segments, start, sequence, max(highest, _highest(position)) + 1, report)


def _highest(position: Position | None) -> int:
    return position.segment if position is not None else 0


def _segments(disk: Disk, directory: str, report: Report) -> list[Segment]:
    """Find the segments, in order; those that cannot be read are renamed, so that nothing passes them by for good."""
    found = []
    for name in sorted(disk.list(directory)):
        named = parse_name(name)
        if named is None:
            continue
        path = f"{directory}/{name}"
        try:
            found.append(_segment(disk, path, *named))
        except OSError as error:
            disk.rename(path, path + UNREADABLE)
            report.unreadable.append(f"{name} ({error.strerror or error})")
    return sorted(found, key=lambda segment: segment.number)


def _segment(disk: Disk, path: str, number: int, marker: bytes) -> Segment:
    descriptor = disk.open(path)
    try:
        size = disk.size(descriptor)
        try:
            header = decode_header(disk.read(descriptor, SEGMENT_SIZE, 0))
        except DamagedError:
            header = _guess(disk, descriptor, Header(number, 0, marker), size)
    finally:
        disk.close(descriptor)
    return Segment(header.number, header.marker, header.first, path, size=size, is_sealed=True)


def _guess(disk: Disk, descriptor: int, named: Header, size: int) -> Header:
    """Make up for a header that is damaged: the name has most of it, the first whole frame the rest."""
    for item in FrameReader(disk, descriptor, named.marker, SEGMENT_SIZE).read_all(size):
        if not isinstance(item, Damage):
            return Header(named.number, item.sequence, named.marker)
    return named


class _Scan:
    """One look at all frames from ``start`` on, in order."""

    def __init__(self, disk: Disk, directory: str, report: Report, start: int) -> None:
        self._disk = disk
        self._directory = directory
        self._report = report
        self._start = start
        self._last = start - 1

    def run(self, segments: list[Segment]) -> int:
        """Find the readable end of each segment, and count; gives the newest sequence number that counts."""
        for segment, limit in zip(segments, _limits(segments), strict=True):
            # What the position has passed is not looked at again.
            if limit is None or limit > self._start:
                self._scan(segment, limit)
            segment.first = segment.first or self._last + 1
        return self._last

    def _scan(self, segment: Segment, limit: int | None) -> None:
        descriptor = self._disk.open(segment.path)
        try:
            for item in _items(self._disk, descriptor, segment):
                if isinstance(item, Damage):
                    self._damage(descriptor, segment, item, limit)
                elif limit is not None and item.sequence >= limit:
                    self._report.duplicates += 1
                elif item.sequence > self._last:
                    self._count(item.head)
                    segment.end = item.end
        finally:
            self._disk.close(descriptor)

    def _count(self, head: Head) -> None:
        self._report.missing += head.sequence - self._last - 1
        self._report.records += head.count
        self._report.size += head.length
        self._report.batches += 1
        self._last = head.sequence

    def _damage(self, descriptor: int, segment: Segment, damage: Damage, limit: int | None) -> None:
        # The next segment begins with what comes after the last frame: nothing is missing that was ever durable.
        nothing_missing = damage.end == segment.size and limit is not None and limit <= self._last + 1
        if damage.is_torn or nothing_missing:
            self._report.torn_bytes += damage.end - damage.start
            return
        self._report.quarantined_regions += 1
        self._report.quarantined_bytes += damage.end - damage.start
        quarantine(self._disk, self._directory, descriptor, segment, damage)


def _limits(segments: list[Segment]) -> list[int | None]:
    """Give, for each segment, the lowest first number of those after it: what it has from there on are copies."""
    limits: list[int | None] = []
    lowest: int | None = None
    for segment in reversed(segments):
        limits.append(lowest)
        if segment.first:
            lowest = segment.first if lowest is None else min(lowest, segment.first)
    return limits[::-1]


def _items(disk: Disk, descriptor: int, segment: Segment) -> Iterator[Found | Damage]:
    """Give all that a segment holds; from where the device cannot read on, the rest counts as damaged."""
    reader = FrameReader(disk, descriptor, segment.marker, SEGMENT_SIZE)
    try:
        try:
            decode_header(disk.read(descriptor, SEGMENT_SIZE, 0))
        except DamagedError:
            yield Damage(0, min(SEGMENT_SIZE, segment.size), is_torn=segment.size < SEGMENT_SIZE)
        yield from reader.read_all(segment.size)
    except OSError:
        segment.must_keep = True
        yield Damage(reader.offset, segment.size, is_torn=False)


def quarantine(disk: Disk, directory: str, descriptor: int, segment: Segment, damage: Damage) -> bool:
    """
    Copy a damaged region to a file beside the segment; gives whether it was new (and not found by an earlier look).

    Where it cannot be copied, as on a full disk, the segment is marked to be kept as a whole.
    """
    if segment.must_keep:
        return False
    name = f"{segment.path.rpartition('/')[2]}-{damage.start}{QUARANTINE}"
    try:
        if name in disk.list(directory):
            return False
        replace_file(disk, directory, name, _region(disk, descriptor, damage))
    except OSError:
        segment.must_keep = True
    return True


def _region(disk: Disk, descriptor: int, damage: Damage) -> Iterator[bytes]:
    for offset in range(damage.start, damage.end, BLOCK_BYTES):
        yield disk.read(descriptor, min(BLOCK_BYTES, damage.end - offset), offset)
