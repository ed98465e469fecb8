"""
How far the sink behind has taken what is in the spool: one small file, replaced as a whole.

It may lag, which costs duplicates. It must never lead, which would cost records: it is written after the sink has
answered, and no segment is removed before the position beyond it is durable.
"""

import contextlib
import errno
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

from twisted_ingest.spool.codec import MAX_NUMBER, MAX_SEQUENCE
from twisted_ingest.spool.disk import Disk
from twisted_ingest.spool.segments import NEW, POSITION

_MAGIC = b"INGPOSIT"
_FORMAT = struct.Struct(">8sQQ")
_CHECK = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Position:
    """
    ``next`` is the sequence number of the first frame that is still to be delivered.

    ``segment`` is the highest number given to a segment so far, which a spool that is empty would not tell otherwise.
    """

    next: int
    segment: int


def read_position(disk: Disk, directory: str) -> Position | None:
    """Read the position; ``None`` where there is none that is whole. Raises ``OSError`` for want of resources only."""
    try:
        descriptor = disk.open(f"{directory}/{POSITION}")
    except OSError as failure:
        raise_shortage(failure)
        return None
    try:
        data = disk.read(descriptor, _FORMAT.size + _CHECK.size, 0)
    except OSError as failure:
        raise_shortage(failure)
        return None
    finally:
        disk.close(descriptor)
    if len(data) != _FORMAT.size + _CHECK.size or crc32(data[: _FORMAT.size]) != _CHECK.unpack_from(data, 24)[0]:
        return None
    magic, following, segment = _FORMAT.unpack_from(data)
    is_ours = magic == _MAGIC and following <= MAX_SEQUENCE and segment <= MAX_NUMBER
    return Position(max(following, 1), segment) if is_ours else None


def raise_shortage(failure: OSError) -> None:
    """Raise an error again that says nothing of a file, only that the process or the machine is short of something."""
    if failure.errno in _SHORTAGES:
        raise failure


_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def write_position(disk: Disk, directory: str, position: Position) -> None:
    """Replace the position; when this returns it is durable. Raises ``OSError``, and then either may be found."""
    data = _FORMAT.pack(_MAGIC, position.next, position.segment)
    replace_file(disk, directory, POSITION, [data + _CHECK.pack(crc32(data))])


def replace_file(disk: Disk, directory: str, name: str, pieces: Iterable[bytes]) -> None:
    """
    Put a file of these bytes in place of what had its name, durably and at once.

    A file of another attempt is removed first: one whose sync failed is never synced again.
    """
    temporary = f"{directory}/{name}{NEW}"
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(temporary)
    descriptor = disk.create(temporary)
    try:
        for piece in pieces:
            left = memoryview(piece)
            while left:
                left = left[disk.write(descriptor, [left]) :]
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)
    disk.rename(temporary, f"{directory}/{name}")
    disk.sync_directory(directory)
