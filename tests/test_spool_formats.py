"""Spools that other versions have written: those of older formats are read, those of newer ones left untouched."""

import json
import os
import shutil
import tempfile
from zlib import crc32

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.spooling import Spool, make_batch, put_fields, same
from twisted_ingest.batch import Batch, ConnectionInfo
from twisted_ingest.errors import SinkError
from twisted_ingest.observe.events import Events
from twisted_ingest.spool.body import FORMAT, REQUIRED
from twisted_ingest.spool.codec import SEGMENT_SIZE
from twisted_ingest.spool.disk import RealDisk
from twisted_ingest.spool.leftovers import find_leftovers
from twisted_ingest.spool.sink import SpoolSink
from twisted_ingest.testing import MemorySink

SPOOLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "spools")
"""What other versions left on the disk, and how it was made."""


def expected(name: str) -> list[Batch]:
    """Give the batches that a kept spool was given and has not delivered."""
    with open(os.path.join(SPOOLS, f"{name}.json"), encoding="ascii") as stream:
        kept = json.load(stream)
    return [
        Batch(
            entry["wire"].encode("latin-1"),
            entry["count"],
            ConnectionInfo(**entry["info"]),
            entry["received_at"],
            entry["delimiter"].encode(),
            partial=entry["partial"],
            truncated=entry["truncated"],
        )
        for entry in kept["batches"][kept["delivered"] :]
    ]


class FormatCase(TestCase):
    def setUp(self) -> None:
        root = tempfile.mkdtemp(prefix="ingest-spool-")
        self.addCleanup(shutil.rmtree, root)
        self.directory = os.path.join(root, "spool")

    def start(self) -> Spool:
        """Start a spool on the directory; another one must have ended."""
        spool = Spool(RealDisk(), segment_bytes=1000, directory=self.directory)
        self.addCleanup(self.kill, spool)
        return spool

    def kill(self, spool: Spool) -> None:
        """Let go of all that a spool has open."""
        for close in (spool.target.close, spool.cursor.close):
            close()
        spool.disk.close(spool.lock)
        spool.lock = -1


class OlderTests(FormatCase):
    def setUp(self) -> None:
        super().setUp()
        shutil.copytree(os.path.join(SPOOLS, "v1"), self.directory)

    def test_format_1(self) -> None:
        """A spool of format 1 is delivered from its position on: every batch, in order, the same to the last byte."""
        spool = self.start()
        report = spool.recovered.report
        found = spool.read()
        wanted = expected("v1")
        self.assertEqual(len(found), len(wanted))
        for one, other in zip(found, wanted, strict=True):
            self.assertTrue(same(one, other), one)
            self.assertEqual(one.records(), other.records())
        self.assertEqual((report.batches, report.passed, report.missing), (len(wanted), 3, 0))
        # What a failed sync and a killed write have left is there, and told from the rest.
        self.assertEqual((report.duplicates, report.quarantined_regions), (1, 0))
        self.assertGreater(report.torn_bytes, 0)
        self.assertTrue(report.is_clean)

    def test_mixed(self) -> None:
        """What comes after goes to segments of its own, in this version's format; those of format 1 stay."""
        before = contents(self.directory)
        spool = self.start()
        batches = [make_batch(number, 300) for number in range(100, 106)]
        for batch in batches:
            spool.append(batch)
        self.assertEqual({name: contents(self.directory)[name] for name in before}, before)
        added = sorted(set(contents(self.directory)) - set(before))
        self.assertGreater(len(added), 1)
        self.assertEqual({contents(self.directory)[name][8:10] for name in added}, {FORMAT.to_bytes(2, "big")})
        self.kill(spool)
        found = self.start().deliver()
        self.assertEqual([batch.wire for batch in found], [batch.wire for batch in [*expected("v1"), *batches]])
        self.assertTrue(all(same(one, other) for one, other in zip(found, [*expected("v1"), *batches], strict=True)))
        self.assertEqual(sorted(contents(self.directory)), sorted([added[-1], "lock", "position"]))


def contents(directory: str) -> dict[str, bytes]:
    """Give what is in each file of a directory."""
    found = {}
    for name in os.listdir(directory):
        with open(os.path.join(directory, name), "rb") as stream:
            found[name] = stream.read()
    return found


def rewritten(path: str, format: int) -> None:  # noqa: A002
    """Have a segment say in its header that it has another format."""
    with open(path, "r+b") as stream:
        header = bytearray(stream.read(SEGMENT_SIZE)[:-4])
        header[8:10] = format.to_bytes(2, "big")
        stream.seek(0)
        stream.write(header + crc32(header).to_bytes(4, "big"))


class NewerTests(FormatCase):
    """A directory that a later version has written to, with all that a start would set aside otherwise."""

    def setUp(self) -> None:
        super().setUp()
        shutil.copytree(os.path.join(SPOOLS, "v1"), self.directory)
        spool = self.start()
        for number in range(100, 106):
            spool.append(make_batch(number, 300))
        self.segments = [segment.path for segment in spool.shelf.segments]
        self.kill(spool)
        # A position that is not believed, a region that is damaged, a segment and a position that are no files.
        with open(os.path.join(self.directory, "position"), "r+b") as stream:
            stream.write(b"?")
        with open(self.segments[0], "r+b") as stream:
            stream.seek(SEGMENT_SIZE + 40)
            stream.write(b"?")
        self.odd = [f"{1:010d}-{'00' * 8}.segment", "position.new"]
        for name in self.odd:
            os.mkdir(os.path.join(self.directory, name))

    def state(self) -> dict[str, tuple[bytes, int, int]]:
        """Give everything that there is in the directory, with what is in it and when it was last written to."""
        found = {}
        for name in [*os.listdir(self.directory), "."]:
            path = os.path.join(self.directory, name)
            status = os.stat(path)
            data = b""
            if os.path.isfile(path):
                with open(path, "rb") as stream:
                    data = stream.read()
            found[name] = (data, status.st_mtime_ns, status.st_ino)
        return found

    def assert_refused(self, words: str) -> None:
        """Fail unless a start is refused in these words, with a lock there and without, and changes nothing."""
        lock = os.path.join(self.directory, "lock")
        for has_lock in (True, False):
            with open(lock, "wb"):
                pass
            if not has_lock:
                os.unlink(lock)
            before = self.state()
            inner = MemorySink("behind")
            inner.start = self.fail  # type: ignore[method-assign]
            clock = Clock()
            sink = SpoolSink(
                inner,
                self.directory,
                reactor=clock,
                events=Events(clock.seconds),
                wall_time=clock.seconds,
                max_bytes=1 << 20,
            )
            with self.assertRaisesRegex(SinkError, words):
                sink.start()
            self.assertEqual(self.state(), before)
            os.rename(self.directory, f"{os.path.dirname(self.directory)}/sink-other")
            (line,) = find_leftovers(os.path.dirname(self.directory), [])
            os.rename(f"{os.path.dirname(self.directory)}/sink-other", self.directory)
            self.assertRegex(line, f"cannot be looked through: {words}")
            self.assertEqual({**self.state(), ".": 0}, {**before, ".": 0})

    def test_a_newer_segment(self) -> None:
        """A segment of a later format ends the start, which names it and both formats, and touches nothing at all."""
        for path in (self.segments[-1], self.segments[2]):
            rewritten(path, FORMAT + 1)
            self.assert_refused(
                rf"{os.path.basename(path)} has format {FORMAT + 1}, and this version reads formats 1 to {FORMAT}: "
                "start the version that wrote it, and let that one deliver what waits"
            )
            rewritten(path, FORMAT)

    def test_a_field_that_must_be_known(self) -> None:
        """So does a frame with a field that must not be passed by, in a segment whose header is ours, or damaged."""
        path = self.segments[-1]
        with open(path, "rb") as stream:
            content = stream.read()
        frame = put_fields(content[SEGMENT_SIZE:], [(REQUIRED | 77, b"zip")])
        with open(path, "wb") as stream:
            stream.write(content[:SEGMENT_SIZE] + frame)
        self.assert_refused(rf"{os.path.basename(path)} has a field 0x804d that must not be passed by")
        with open(path, "r+b") as stream:
            stream.write(b"?")
        self.assert_refused(rf"{os.path.basename(path)} has a field 0x804d that must not be passed by")

    def test_afterwards(self) -> None:
        """Without what is newer the same directory is recovered, and all that is odd in it set aside."""
        spool = self.start()
        self.assertEqual(len(spool.deliver()), len(expected("v1")) + 6 + 3 - 1)
        self.assertEqual(len(spool.recovered.report.unreadable), 1)
