"""
What a directory holds, whatever has happened to it.

A function of the directory alone, and idempotent: it copies damaged regions aside and sets aside what it cannot read
or believe, but removes nothing. Every whole frame is counted: it waits, or a later segment has its number, or the
position has passed it. Run twice, or killed half-way and run again, it comes to the same answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from twisted_ingest.spool.codec import MAX_NUMBER, SEGMENT_SIZE, DamagedError, Head, Header, decode_header
from twisted_ingest.spool.disk import Disk
from twisted_ingest.spool.position import Position, raise_shortage, read_position, replace_file
from twisted_ingest.spool.reading import BLOCK_BYTES, Damage, Found, FrameReader
from twisted_ingest.spool.segments import (
    POSITION,
    POSITION_NEW,
    QUARANTINE,
    UNREADABLE,
    Segment,
    number_of,
    parse_name,
    set_aside,
)


@dataclass(slots=True)
class Report:
    """
    What was found.

    ``records``, ``batches`` and ``size`` (bytes of frames) wait to be delivered. ``duplicates`` counts frames whose
    number another segment has, whose frame counts; ``passed`` those before the position, delivered already if that is
    true; ``missing`` the sequence numbers that nothing was found for. ``lost_position`` says in words why nothing tells
    how much was delivered, where that is so.
    """

    segments: int = 0
    records: int = 0
    batches: int = 0
    size: int = 0
    torn_bytes: int = 0
    quarantined_regions: int = 0
    quarantined_bytes: int = 0
    duplicates: int = 0
    passed: int = 0
    missing: int = 0
    unreadable: list[str] = field(default_factory=list)
    lost_position: str | None = None

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found but what belongs there."""
        return not (self.quarantined_regions or self.missing or self.unreadable or self.lost_position)


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
    unreadable: list[str] = []
    segments = _segments(disk, directory, unreadable)
    position, lost = _position(disk, directory)
    firsts = [segment.first for segment in segments]
    first = min(filter(None, firsts), default=1)
    scan = _Scan(disk, directory, first if position is None else position.next)
    scan.run(segments)
    if position is not None and scan.is_short(firsts):
        # It would pass over everything, and have it removed. Gone before anything is written: that might reach it.
        lost = f"the position, {position.next}, is beyond all there is, and is now {_lose_position(disk, directory)}"
        position, scan = None, _Scan(disk, directory, first)
        for segment, known in zip(segments, firsts, strict=True):
            segment.first = known
        scan.run(segments)
    if position is None and first > 1:
        lost = lost or "no position was found"
    report = scan.report
    report.segments, report.unreadable, report.lost_position = len(segments), unreadable, lost
    sequence = max([scan.last + 1, scan.start, *(segment.first for segment in segments)])
    # What was set aside may be put back.
    numbers = [segment.number for segment in segments] + [number_of(name) for name in disk.list(directory)]
    highest = max([number for number in numbers if number <= MAX_NUMBER], default=0)
    number = max(highest, 0 if position is None else position.segment) + 1
    return Recovered(segments, scan.start, sequence, number, report)


def _position(disk: Disk, directory: str) -> tuple[Position | None, str | None]:
    """Read the position. One that cannot be believed is set aside, and told of in words."""
    position = read_position(disk, directory)
    names = disk.list(directory)
    if POSITION_NEW in names and not _is_file(disk, f"{directory}/{POSITION_NEW}"):
        set_aside(disk, directory, POSITION_NEW, UNREADABLE)
    if position is not None or POSITION not in names:
        return position, None
    return None, f"the position cannot be read, and is now {_lose_position(disk, directory)}"


def _lose_position(disk: Disk, directory: str) -> str:
    name = set_aside(disk, directory, POSITION, UNREADABLE)
    disk.sync_directory(directory)
    return name


def _is_file(disk: Disk, path: str) -> bool:
    try:
        disk.close(disk.open(path))
    except OSError as failure:
        raise_shortage(failure)
        return False
    return True


def _segments(disk: Disk, directory: str, unreadable: list[str]) -> list[Segment]:
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
            raise_shortage(error)
            set_aside(disk, directory, name, UNREADABLE)
            unreadable.append(f"{name} ({error.strerror or error})")
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
    if header.number > MAX_NUMBER:
        raise OSError("its header is damaged, and its name has a number that none was given")
    return Segment(header.number, header.marker, header.first, path, size=size, is_sealed=True)


def _guess(disk: Disk, descriptor: int, named: Header, size: int) -> Header:
    """Make up for a header that is damaged: the name has most of it, the first whole frame the rest."""
    for item in FrameReader(disk, descriptor, named.marker, SEGMENT_SIZE).read_all(size):
        if not isinstance(item, Damage):
            return Header(named.number, item.sequence, named.marker)
    return named


class _Scan:
    """
    One look at all frames, in order, of which those from ``start`` on wait.

    ``last`` is the newest sequence number that counts.
    """

    def __init__(self, disk: Disk, directory: str, start: int) -> None:
        self._disk = disk
        self._directory = directory
        self._highest = 0
        """The highest number of any frame."""
        self.start = start
        self.last = start - 1
        self.report = Report()

    def run(self, segments: list[Segment]) -> None:
        """Find the readable end of each segment and, where its header is lost, its first number, and count."""
        for segment, limit in zip(segments, _limits(segments), strict=True):
            self._scan(segment, limit)
            segment.first = segment.first or self.last + 1

    def is_short(self, firsts: list[int]) -> bool:
        """Whether there are frames, and all of them, and the one that was to follow, are before the start."""
        return bool(self._highest) and max([self._highest + 1, *firsts]) < self.start

    def _scan(self, segment: Segment, limit: int | None) -> None:
        descriptor = self._disk.open(segment.path)
        try:
            for item in _items(self._disk, descriptor, segment):
                if isinstance(item, Damage):
                    self._damage(descriptor, segment, item, limit)
                else:
                    self._found(segment, item, limit)
        finally:
            self._disk.close(descriptor)

    def _found(self, segment: Segment, found: Found, limit: int | None) -> None:
        sequence = found.sequence
        self._highest = max(self._highest, sequence)
        if sequence < self.start:
            self.report.passed += 1
        elif sequence <= self.last or (limit is not None and sequence >= limit):
            self.report.duplicates += 1
        else:
            self._count(found.head)
            segment.end = found.end

    def _count(self, head: Head) -> None:
        self.report.missing += head.sequence - self.last - 1
        self.report.records += head.count
        self.report.size += head.length
        self.report.batches += 1
        self.last = head.sequence

    def _damage(self, descriptor: int, segment: Segment, damage: Damage, limit: int | None) -> None:
        # The next segment begins with what comes after the last frame: nothing is missing that was ever durable.
        nothing_missing = damage.end == segment.size and limit is not None and limit <= self.last + 1
        if damage.is_torn or nothing_missing:
            self.report.torn_bytes += damage.end - damage.start
            return
        self.report.quarantined_regions += 1
        self.report.quarantined_bytes += damage.end - damage.start
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
