"""
What a start makes of a directory, whatever has happened to it.

A function of the directory alone, and idempotent: `look` reads and changes nothing, `recover` looks, then copies
damaged regions aside and sets aside what it cannot read or believe, but removes nothing. Run twice, or killed half-way
and run again, it comes to the same answer. A directory that a later version has written to is refused by the look.
"""

from dataclasses import dataclass

from twisted_ingest.spool.body import DamagedError, ForeignError
from twisted_ingest.spool.codec import MAX_NUMBER, SEGMENT_SIZE, Header, decode_header
from twisted_ingest.spool.disk import Disk
from twisted_ingest.spool.frames import Damage, FrameReader
from twisted_ingest.spool.position import Position, raise_shortage, read_position
from twisted_ingest.spool.quarantine import quarantine, set_aside
from twisted_ingest.spool.scan import Report, Scan
from twisted_ingest.spool.segments import (
    POSITION,
    POSITION_NEW,
    UNREADABLE,
    Segment,
    number_of,
    parse_name,
)


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


@dataclass(slots=True)
class Look:
    """
    What a look has found, and what has to be set aside before anything is written.

    ``unreadable`` are the names in a segment's place that cannot be read, ``damages`` the regions to copy aside,
    ``doubt`` says why the position is not believed, where it is not. ``is_blocked`` says that something which is no
    file stands where the next position will be written.
    """

    recovered: Recovered
    unreadable: list[str]
    damages: list[tuple[Segment, Damage]]
    doubt: str | None
    is_blocked: bool


def look(disk: Disk, directory: str) -> Look:
    """
    Look through a spool's directory, and change nothing.

    Raises `ForeignError`, which names the segment, for what a later version has written; ``OSError`` for no directory,
    or for want of resources.
    """
    segments, unreadable = _find_segments(disk, directory)
    names = disk.list(directory)
    position = read_position(disk, directory)
    doubt = "the position cannot be read" if position is None and POSITION in names else None
    firsts = [segment.first for segment in segments]
    first = min(filter(None, firsts), default=1)
    scan = Scan(disk, first if position is None else position.next)
    scan.run(segments)
    if position is not None and scan.is_short(firsts):
        # It would pass over everything, and have it removed.
        doubt = f"the position, {position.next}, is beyond all there is"
        position, scan = None, Scan(disk, first)
        for segment, known in zip(segments, firsts, strict=True):
            segment.first = known
        scan.run(segments)
    scan.report.lost_position = doubt or ("no position was found" if position is None and first > 1 else None)
    scan.report.segments = len(segments)
    scan.report.unreadable = list(unreadable.values())
    is_blocked = POSITION_NEW in names and not _is_file(disk, f"{directory}/{POSITION_NEW}")
    recovered = _recovered(segments, scan, position, names)
    return Look(recovered, list(unreadable), scan.damages, doubt, is_blocked)


def _recovered(segments: list[Segment], scan: Scan, position: Position | None, names: list[str]) -> Recovered:
    sequence = max([scan.last + 1, scan.start, *(segment.first for segment in segments)])
    # Those of names too: what was set aside may be put back.
    numbers = [segment.number for segment in segments] + [number_of(name) for name in names]
    highest = max([number for number in numbers if number <= MAX_NUMBER], default=0)
    number = max(highest, 0 if position is None else position.segment) + 1
    return Recovered(segments, scan.start, sequence, number, scan.report)


def recover(disk: Disk, directory: str) -> Recovered:
    """Look through a spool's directory, and set aside what is in the way. Raises what `look` does."""
    found = look(disk, directory)
    for name in found.unreadable:
        set_aside(disk, directory, name, UNREADABLE)
    if found.is_blocked:
        set_aside(disk, directory, POSITION_NEW, UNREADABLE)
    if found.doubt is not None:
        name = set_aside(disk, directory, POSITION, UNREADABLE)
        # Gone before anything is written: that might reach it, and make it true.
        disk.sync_directory(directory)
        found.recovered.report.lost_position = f"{found.doubt}, and is now {name}"
    for segment, damage in found.damages:
        _copy_aside(disk, directory, segment, damage)
    return found.recovered


def _copy_aside(disk: Disk, directory: str, segment: Segment, damage: Damage) -> None:
    try:
        descriptor = disk.open(segment.path)
    except OSError:
        segment.must_keep = True
        return
    try:
        quarantine(disk, directory, descriptor, segment, damage)
    finally:
        disk.close(descriptor)


def _is_file(disk: Disk, path: str) -> bool:
    try:
        disk.close(disk.open(path))
    except OSError as failure:
        raise_shortage(failure)
        return False
    return True


def _find_segments(disk: Disk, directory: str) -> tuple[list[Segment], dict[str, str]]:
    """Find the segments, in order, and the names in a segment's place that cannot be read, each with the reason."""
    found, unreadable = [], {}
    for name in sorted(disk.list(directory)):
        named = parse_name(name)
        if named is None:
            continue
        try:
            found.append(_segment(disk, f"{directory}/{name}", *named))
        except ForeignError as error:
            raise ForeignError.of(name, error) from error
        except OSError as error:
            raise_shortage(error)
            unreadable[name] = f"{name} ({error.strerror or error})"
    return sorted(found, key=lambda segment: segment.number), unreadable


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
