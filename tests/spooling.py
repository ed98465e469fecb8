"""A spool without threads, for tests that choose every step: the real parts, on a disk of the test's."""

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from zlib import crc32

from tests.disk import SimDisk
from twisted_ingest.batch import Batch, ConnectionInfo
from twisted_ingest.errors import Fsync
from twisted_ingest.spool.checkpoint import Checkpoint
from twisted_ingest.spool.cursor import Cursor, Window
from twisted_ingest.spool.disk import Disk
from twisted_ingest.spool.recovery import Recovered, recover
from twisted_ingest.spool.segments import LOCK, Shelf
from twisted_ingest.spool.target import SegmentTarget
from twisted_ingest.storage.writer import Writer

DIRECTORY = "/spool"

INFO = ConnectionInfo(7, "tcp-1514", "192.0.2.1:40000", "192.0.2.1")


CONNECTION = ("id", "listener", "peer", "host", "local", "proxy", "identity")
"""What a batch says of the connection that it came by."""


def make_batch(number: int, size: int = 0, records: int = 1) -> Batch:
    """Make a batch that no other one is equal to."""
    wire = b"".join(b"%d.%d:%b\n" % (number, record, b"x" * size) for record in range(records))
    return Batch(wire, records, INFO, 1_800_000_000.25 + number)


def same(one: Batch, other: Batch) -> bool:
    """Tell whether two batches are the same in everything that a sink can see."""
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("wire", "count", "size", "received_at", "delimiter", "partial", "truncated")
    ) and all(getattr(one.info, name) == getattr(other.info, name) for name in CONNECTION)


class _Now:
    """A reactor whose turn is always now, and whose clock stands still."""

    def seconds(self) -> float:
        return 0.0

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        function(*arguments)


class Spool:
    """
    One run of a spool, from its start on; what ends it is the caller's business.

    ``acked`` gets the batches whose delivery was reported, ``delivered`` what was read, in order.
    """

    def __init__(
        self,
        disk: Disk | None = None,
        *,
        segment_bytes: int = 4096,
        max_bytes: int = 1 << 40,
        floor: int = 0,
        drops_oldest: bool = False,
        directory: str = DIRECTORY,
    ) -> None:
        self.disk = disk if disk is not None else SimDisk()
        self.acked: list[Batch] = []
        self.unmade: list[list[Batch]] = []
        self._jobs: dict[int, list[Batch]] = {}
        self.shelf = Shelf(directory, max_bytes, floor, drops_oldest)
        self.target = SegmentTarget(self.disk, self.shelf, segment_bytes)
        self.writer = Writer(self.target, Fsync.ALWAYS, _Now(), self)
        self.cursor = Cursor(self.disk, self.shelf)
        self.checkpoint = Checkpoint(self.disk, self.shelf, self.cursor)
        self.disk.make_directory(directory)
        self.lock = self.disk.lock(self.shelf.path(LOCK))
        self.recovered: Recovered = recover(self.disk, directory)
        self.shelf.segments.extend(self.recovered.segments)
        self.shelf.durable = self.recovered.sequence - 1
        self.shelf.confirmed = self.recovered.position - 1
        self.target.resume(self.recovered.sequence, self.recovered.number)
        self.cursor.start(self.recovered.position)
        self.checkpoint.start(self.recovered.position)

    def append(self, *batches: Batch) -> None:
        """Submit one group and have the writer's thread take it, as far as it comes."""
        self.submit(*batches)
        self.writer._step()

    def submit(self, *batches: Batch) -> None:
        """Queue one group."""
        self._jobs[self.writer.put(self.target.frames(batches))] = list(batches)

    def read(self, limit: int = 1 << 30) -> list[Batch]:
        """Read what is durable; it counts as out until `confirm`."""
        window = self.window(limit)
        return window.batches if window is not None else []

    def window(self, limit: int = 1 << 30) -> Window | None:
        """Read as the replay does."""
        return self.cursor.read(limit)

    def deliver(self) -> list[Batch]:
        """Read all that is durable, and have it confirmed and the position kept."""
        batches: list[Batch] = []
        while (window := self.window()) is not None:
            batches += window.batches
            self.checkpoint.confirm(window.last)
            self.checkpoint.commit()
        return batches

    # What the writer says.

    def hear(self, call: Callable[..., None], *arguments: object) -> None:
        """See `WriterOwner`."""
        call(*arguments)

    def on_written(self, numbers: Sequence[int]) -> None:
        """See `WriterOwner`."""
        for number in numbers:
            self.acked += self._jobs.pop(number)

    def on_unmade(self, number: int, failure: Exception) -> None:
        """See `WriterOwner`."""
        self.unmade.append(self._jobs.pop(number))

    def on_stalled(self, trouble: str) -> None:
        """See `WriterOwner`."""

    def on_recovered(self) -> None:
        """See `WriterOwner`."""

    def on_moved(self, rewritten: int | None) -> None:
        """See `WriterOwner`."""
        raise AssertionError("segments do not move")

    def on_failed(self, reason: str) -> None:
        """See `WriterOwner`."""
        raise AssertionError(reason)

    def on_ended(self) -> None:
        """See `WriterOwner`."""


def put_fields(frame: bytes, fields: Iterable[tuple[int, bytes]]) -> bytes:
    """
    Give a frame of `encode_frame` with more fields in its body, as a later version would write it.

    By docs/spool-format.md alone, and not by the codec.
    """
    head, body = frame[:32], frame[32:]
    listener, peer, host, size = struct.unpack_from(">HHHI", body, 22)
    end = 32 + listener + peer + (0 if host == 0xFFFF else host) + size
    more = b"".join(struct.pack(">HI", tag, len(data)) + data for tag, data in fields)
    body = body[:28] + struct.pack(">I", size + len(more)) + body[32:end] + more + body[end:]
    head = head[:8] + struct.pack(">I", 2 << 28 | len(body)) + head[12:24] + struct.pack(">I", crc32(body))
    return head + struct.pack(">I", crc32(head)) + body


def segment_paths(disk: Any) -> list[str]:
    """Give the paths of all segments of a simulated disk, oldest first."""
    return sorted(f"{DIRECTORY}/{name}" for name in disk.list(DIRECTORY) if name.endswith(".segment"))
