"""
What is damaged or cannot be read, kept for an operator: regions are copied aside, files renamed. Nothing is removed.
"""

from collections.abc import Iterator

from twisted_ingest.spool.disk import Disk
from twisted_ingest.spool.frames import BLOCK_BYTES, Damage
from twisted_ingest.spool.position import replace_file
from twisted_ingest.spool.segments import QUARANTINE, Segment


def quarantine(disk: Disk, directory: str, descriptor: int, segment: Segment, damage: Damage) -> bool:
    """
    Copy a damaged region to a file beside the segment; gives whether it was new (and not found by an earlier look).

    Where it cannot be copied, as on a full disk, the segment is marked to be kept as a whole.
    """
    if segment.must_keep:
        return False
    name = f"{segment.name}-{damage.start}{QUARANTINE}"
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


def set_aside(disk: Disk, directory: str, name: str, suffix: str) -> str:
    """Give a file another name that nothing has, of its own and a suffix; gives that name. Raises ``OSError``."""
    names = set(disk.list(directory))
    number, target = 1, name + suffix
    while target in names:
        number += 1
        target = f"{name}{suffix}-{number}"
    disk.rename(f"{directory}/{name}", f"{directory}/{target}")
    return target
