"""
One look at every frame that a directory holds, as a start needs it: what waits, what is a copy, what is damaged.

It changes nothing on the disk. Every whole frame is counted: it waits, or a later segment has its number, or the
position has passed it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from twisted_ingest.spool.body import DamagedError, ForeignError, refuse_unknown
from twisted_ingest.spool.codec import SEGMENT_SIZE, Head, decode_header
from twisted_ingest.spool.disk import Disk
from twisted_ingest.spool.frames import Damage, FrameReader, Whole
from twisted_ingest.spool.segments import Segment
from twisted_ingest.units import format_size


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

    def describe(self, directory: str, seconds: float) -> str:
        """Say what a directory held, in one line, and how long the look took."""
        parts = [f"{directory}: {self.records} records ({format_size(self.size)}) wait in {self.segments} segments"]
        if self.lost_position is not None:
            parts.append(f"{self.lost_position}, so some may be delivered again")
        if self.passed:
            parts.append(f"{self.passed} batches before the position passed over as delivered")
        if self.torn_bytes:
            parts.append(f"{format_size(self.torn_bytes)} of unfinished writes ignored")
        if self.duplicates:
            parts.append(f"{self.duplicates} batches skipped whose numbers others have, as after a failed sync")
        if self.quarantined_regions:
            size = format_size(self.quarantined_bytes)
            parts.append(f"{self.quarantined_regions} damaged regions ({size}) copied to *.quarantine")
        if self.missing:
            parts.append(f"{self.missing} batches missing")
        if self.unreadable:
            parts.append(f"set aside as unreadable: {', '.join(self.unreadable)}")
        return "; ".join([*parts, f"looked through in {seconds:.3f} s"])


class Scan:
    """
    A look at all frames, in order, of which those from ``start`` on wait.

    ``last`` is the newest sequence number that counts, ``damages`` what is to be copied aside.
    """

    def __init__(self, disk: Disk, start: int) -> None:
        self._disk = disk
        self._highest = 0
        """The highest number of any frame."""
        self.start = start
        self.last = start - 1
        self.report = Report()
        self.damages: list[tuple[Segment, Damage]] = []

    def run(self, segments: list[Segment]) -> None:
        """
        Find the readable end of each segment and, where its header is lost, its first number, and count.

        Raises ``OSError`` for want of resources, and `ForeignError` for what a later version has written.
        """
        for segment, limit in zip(segments, _limits(segments), strict=True):
            try:
                self._scan(segment, limit)
            except ForeignError as error:
                raise ForeignError.of(segment.name, error) from error
            segment.first = segment.first or self.last + 1

    def is_short(self, firsts: list[int]) -> bool:
        """Whether there are frames, and all of them, and the one that was to follow, are before the start."""
        return bool(self._highest) and max([self._highest + 1, *firsts]) < self.start

    def _scan(self, segment: Segment, limit: int | None) -> None:
        descriptor = self._disk.open(segment.path)
        try:
            for item in _items(self._disk, descriptor, segment):
                if isinstance(item, Damage):
                    self._note_damage(segment, item, limit)
                else:
                    refuse_unknown(item.body, item.head.format)
                    self._note_frame(segment, item, limit)
        finally:
            self._disk.close(descriptor)

    def _note_frame(self, segment: Segment, frame: Whole, limit: int | None) -> None:
        sequence = frame.sequence
        self._highest = max(self._highest, sequence)
        if sequence < self.start:
            self.report.passed += 1
        elif sequence <= self.last or (limit is not None and sequence >= limit):
            self.report.duplicates += 1
        else:
            self._count(frame.head)
            segment.end = frame.end

    def _count(self, head: Head) -> None:
        self.report.missing += head.sequence - self.last - 1
        self.report.records += head.count
        self.report.size += head.length
        self.report.batches += 1
        self.last = head.sequence

    def _note_damage(self, segment: Segment, damage: Damage, limit: int | None) -> None:
        # The next segment begins with what comes after the last frame: nothing is missing that was ever durable.
        nothing_missing = damage.end == segment.size and limit is not None and limit <= self.last + 1
        if damage.is_torn or nothing_missing:
            self.report.torn_bytes += damage.end - damage.start
            return
        self.report.quarantined_regions += 1
        self.report.quarantined_bytes += damage.end - damage.start
        self.damages.append((segment, damage))


def _limits(segments: list[Segment]) -> list[int | None]:
    """Give, for each segment, the lowest first number of those after it: what it has from there on are copies."""
    limits: list[int | None] = []
    lowest: int | None = None
    for segment in reversed(segments):
        limits.append(lowest)
        if segment.first:
            lowest = segment.first if lowest is None else min(lowest, segment.first)
    return limits[::-1]


def _items(disk: Disk, descriptor: int, segment: Segment) -> Iterator[Whole | Damage]:
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
