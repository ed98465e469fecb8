"""
The segments of one spool: their names, and the list that the writing and the reading side share.
"""

import os
import re
import threading
from collections import deque
from dataclasses import dataclass, field
from itertools import islice

from twisted_ingest.spool.codec import SEGMENT_SIZE

_NAME = re.compile(r"([0-9]{10,20})-([0-9a-f]{16})\.segment")

LOCK = "lock"
POSITION = "position"
NEW = ".new"
"""Behind the name of a file that is written to take another's place."""
POSITION_NEW = POSITION + NEW
QUARANTINE = ".quarantine"
UNREADABLE = ".unreadable"


@dataclass(slots=True, eq=False)
class Segment:
    """
    One segment file.

    ``end`` is how far it may be read: what is beyond is not durable yet, or never became so. ``size`` is what it takes
    on the disk. Once ``is_sealed``, neither grows. ``must_keep`` says that something in it could be copied nowhere.
    """

    number: int
    marker: bytes
    first: int
    path: str
    end: int = SEGMENT_SIZE
    size: int = 0
    is_sealed: bool = False
    must_keep: bool = False

    @property
    def name(self) -> str:
        """The file's name in its directory."""
        return os.path.basename(self.path)


def segment_name(number: int, marker: bytes) -> str:
    """Name a segment; number and marker are in it, so that it can be read with its header damaged."""
    return f"{number:010d}-{marker.hex()}.segment"


def parse_name(name: str) -> tuple[int, bytes] | None:
    """Give number and marker of a segment's name, or ``None`` for a file that is none."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), bytes.fromhex(match[2])) if match else None


def number_of(name: str) -> int:
    """Give the number in the name of a segment, or of what is left of one; 0 for any other file."""
    match = _NAME.match(name)
    return int(match[1]) if match else 0


@dataclass(slots=True)
class Shelf:
    """
    What the two sides share: the segments, oldest first, under one lock.

    ``changed`` is notified whenever something became durable, or room, or is asked for. ``durable`` is the
    highest sequence number that is durable; ``confirmed`` the highest that the sink behind has taken, or that was
    given up.
    """

    directory: str
    max_bytes: int
    free_space_floor: int
    drops_oldest: bool
    segments: deque[Segment] = field(default_factory=deque)
    changed: threading.Condition = field(default_factory=threading.Condition)
    durable: int = 0
    confirmed: int = 0
    room_wanted: bool = False
    """The writing side waits for room: under ``drops_oldest`` the reading side drops a segment for it."""

    @property
    def used(self) -> int:
        """Bytes of all segments on the disk."""
        with self.changed:
            return sum(segment.size for segment in self.segments)

    def first_after(self, segment: Segment) -> int:
        """
        Give the number with which what counts in the segments after this one begins.

        Not always the next one's first: that one may hold nothing but the later part of what a failed sync lost.
        """
        with self.changed:
            return min(later.first for later in islice(self.segments, self.segments.index(segment) + 1, None))

    def path(self, name: str) -> str:
        """Give the path of a file in the spool's directory."""
        return os.path.join(self.directory, name)
