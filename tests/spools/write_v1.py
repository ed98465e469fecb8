"""
Writes `v1/` and `v1.json`: what a version whose spools have format 1 left on the disk, and what it had been given.

    git worktree add /tmp/format-1 3603548
    PYTHONPATH=/tmp/format-1 python tests/spools/write_v1.py

It runs the code of that commit, the last one that writes format 1, up to the moment at which the process is killed:
batches of every kind in several segments, a sync that failed, so that a later segment has the same frames again, a
position in the middle of a segment, and a write that never ended. Run once; what it wrote is kept, and read by
`tests/test_spool_formats.py`.
"""

import errno
import json
import os
import shutil

from tests.spooling import Spool
from twisted_ingest.batch import Batch, ConnectionInfo
from twisted_ingest.spool.codec import VERSION, encode_frame
from twisted_ingest.spool.disk import RealDisk

HERE = os.path.dirname(os.path.abspath(__file__))
DIRECTORY = os.path.join(HERE, "v1")
DELIVERED = 5
"""Batches that the sink behind has taken before the end."""

TCP = ConnectionInfo(7, "tcp-1514", "192.0.2.1:40000", "192.0.2.1")
IPV6 = ConnectionInfo(2**64 - 1, "tcp-1514", "[2001:db8::1]:514", "2001:db8::1")
UNIX = ConnectionInfo(8, "unix", "unix:/run/ingest.sock", None)
NAMELESS = ConnectionInfo(9, "caf\u00e9 \udcff \ud800", "", "")
"""Names with surrogates that stand alone, as the operating system gives for bytes that are no text."""


def lines(number: int, records: int, size: int, info: ConnectionInfo = TCP) -> Batch:
    """Make a batch of records that LF ends."""
    wire = b"".join(b"%d.%d:%b\n" % (number, record, b"x" * size) for record in range(records))
    return Batch(wire, records, info, 1_800_000_000.25 + number)


BATCHES = [
    lines(1, 1, 700),
    lines(2, 3, 300),
    lines(3, 1, 100, IPV6),
    lines(4, 1, 0, UNIX),
    lines(5, 2, 10, NAMELESS),
    # From here on nothing is delivered.
    lines(6, 1, 900, UNIX),
    Batch(b"two\nlines\0and one\0", 2, TCP, 1_800_000_007.0, b"\0"),
    Batch(b"LF\nand NUL\0in one\0", 1, IPV6, 0.0, b"\0"),
    Batch(b"<13>never ended\n", 1, TCP, 1_800_000_009.5, partial=True),
    Batch(b"t" * 500 + b"\n", 1, IPV6, 1_800_000_010.125, truncated=True),
    Batch(b"both\n", 1, NAMELESS, 4_000_000_000.75, partial=True, truncated=True),
    lines(12, 2000, 0),
    Batch(bytes(range(1, 10)) + bytes(range(11, 256)) + b"\n", 1, UNIX, 1_800_000_012.0),
    lines(14, 1, 1000),
    lines(15, 1, 20, NAMELESS),
]


class Disk(RealDisk):
    """A disk whose sync fails where it is told to."""

    fails = False

    def sync(self, descriptor: int) -> None:
        """See `Disk`."""
        if self.fails:
            self.fails = False
            raise OSError(errno.EIO, "Input/output error")
        super().sync(descriptor)


def write() -> None:
    """Run the spool."""
    disk = Disk()
    spool = Spool(disk, segment_bytes=1000, directory=DIRECTORY)
    for number, batch in enumerate(BATCHES, 1):
        disk.fails = number == 9  # It is written again, to the next segment.
        spool.append(batch)
    assert len(spool.acked) == len(BATCHES)
    read: list[Batch] = []
    while len(read) < DELIVERED:
        window = spool.window(1)
        assert window is not None
        read += window.batches
        spool.cursor.confirm(window.last)
    spool.cursor.commit()
    last = spool.shelf.segments[-1]
    with open(last.path, "ab") as stream:
        stream.write(encode_frame(last.marker, spool.target.sequence, lines(16, 1, 50))[:-7])


def described(batch: Batch) -> dict[str, object]:
    """Give a batch as plain values."""
    info = batch.info
    return {
        "wire": batch.wire.decode("latin-1"),
        "count": batch.count,
        "received_at": batch.received_at,
        "delimiter": batch.delimiter.decode(),
        "partial": batch.partial,
        "truncated": batch.truncated,
        "info": {"id": info.id, "listener": info.listener, "peer": info.peer, "host": info.host},
    }


def main() -> None:
    """Write both anew."""
    assert VERSION == 1, "not the version that writes format 1"
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    write()
    with open(f"{DIRECTORY}.json", "w", encoding="ascii") as stream:
        json.dump({"delivered": DELIVERED, "batches": list(map(described, BATCHES))}, stream, indent=1)
        stream.write("\n")


if __name__ == "__main__":
    main()
