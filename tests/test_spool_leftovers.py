"""Spools of sinks that are not there any more: a start says so and leaves them as they are."""

import os
import sys
from zlib import crc32

from twisted.trial.unittest import SynchronousTestCase

from tests.server import Server, wait_until
from tests.spooling import Spool, make_batch
from twisted_ingest.spool.body import FORMAT
from twisted_ingest.spool.codec import Header, encode_header
from twisted_ingest.spool.disk import RealDisk
from twisted_ingest.spool.leftovers import find_leftovers, spool_directory
from twisted_ingest.spool.segments import LOCK, segment_name


def tree(base: str) -> dict[str, bytes]:
    """Give every file below a directory with what it holds."""
    found = {}
    for directory, _, names in os.walk(base):
        for name in names:
            with open(os.path.join(directory, name), "rb") as stream:
                found[os.path.join(directory, name)] = stream.read()
    return found


class LeftoverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.base = os.path.abspath(self.mktemp())
        os.mkdir(self.base)

    def fill(self, sink: str, *, records: int = 3, is_delivered: bool = False) -> str:
        """Have a sink's spool take some records, and end."""
        directory = spool_directory(self.base, sink)
        spool = Spool(RealDisk(), directory=directory)
        spool.append(*(make_batch(number) for number in range(records)))
        if is_delivered:
            spool.deliver()
        spool.target.close()
        spool.disk.close(spool.lock)
        return directory

    def test_a_renamed_sink(self) -> None:
        """What waits for a sink that is not there is told with directory, amount and fix, and nothing is changed."""
        directory = self.fill("old")
        self.fill("new")
        before = tree(self.base)
        (found,) = find_leftovers(self.base, ["new"])
        for part in (f"{directory}: 3 records (", "a sink 'old'", "spool = true", "move the directory away"):
            self.assertIn(part, found)
        self.assertEqual(tree(self.base), before)

    def test_nothing_waits(self) -> None:
        """A spool whose records were all delivered is not worth a word, nor is anything that is no spool."""
        self.fill("old", is_delivered=True)
        os.mkdir(os.path.join(self.base, "sink-empty"))
        with open(os.path.join(self.base, "sink-file"), "w"):
            pass
        os.mkdir(os.path.join(self.base, "lost+found"))
        self.assertEqual(list(find_leftovers(self.base, [])), [])

    def test_in_use(self) -> None:
        """A spool that another process uses is that one's business."""
        directory = self.fill("other")
        disk = RealDisk()
        lock = disk.lock(os.path.join(directory, LOCK))
        self.assertEqual(list(find_leftovers(self.base, [])), [])
        disk.close(lock)
        self.assertEqual(len(list(find_leftovers(self.base, []))), 1)

    def test_damaged(self) -> None:
        """A damaged region counts, is not copied aside, and whole frames behind it are found."""
        directory = self.fill("old")
        (name,) = [name for name in os.listdir(directory) if name.endswith(".segment")]
        with open(os.path.join(directory, name), "r+b") as stream:
            stream.seek(60)
            stream.write(b"\0\0\0\0")
        before = tree(self.base)
        (found,) = find_leftovers(self.base, [])
        self.assertIn("2 records", found)
        self.assertIn("damaged", found)
        self.assertEqual(tree(self.base), before)

    def test_what_cannot_be_read(self) -> None:
        """A segment of another version, or one that is no file, is told and left alone."""
        for sink in ("foreign", "irregular"):
            os.mkdir(spool_directory(self.base, sink))
        path = os.path.join(spool_directory(self.base, "foreign"), segment_name(1, b"markmark"))
        header = bytearray(encode_header(Header(1, 1, b"markmark"))[:-4])
        header[8:10] = (FORMAT + 1).to_bytes(2, "big")
        with open(path, "wb") as stream:
            stream.write(header + crc32(header).to_bytes(4, "big"))
        os.mkdir(os.path.join(spool_directory(self.base, "irregular"), segment_name(1, b"markmark")))
        before = sorted(os.listdir(self.base))
        foreign, irregular = find_leftovers(self.base, [])
        self.assertIn(f"format {FORMAT + 1}", foreign)
        self.assertIn("cannot be looked through: a segment is unreadable", irregular)
        self.assertEqual(sorted(os.listdir(self.base)), before)

    def test_no_directory(self) -> None:
        """Where there is no directory there is an error for the caller, and a start without spools passes it over."""
        self.assertRaises(FileNotFoundError, list, find_leftovers(os.path.join(self.base, "none"), []))
        with Server("--sink=null:") as server:
            log = [line.replace(sys.executable, "") for line in server.log]
            self.assertFalse([line for line in log if "spool" in line], log)

    def test_a_real_start(self) -> None:
        """A server whose sink was renamed warns once, and delivers what waits when the name is back."""
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        self.base = os.path.join(folder, "ingest-data", "spool")
        directory = self.fill("file", records=5)
        with Server("--sink=null:?spool=true", folder=folder) as server:
            warnings = [line for line in server.log if directory in line and "5 records" in line]
            self.assertEqual(len(warnings), 1, server.log)
        with Server("--sink=file:out.log?spool=true", folder=folder) as server:
            self.assertFalse([line for line in server.log if "move the directory" in line], server.log)
            wait_until(lambda: server.metrics()["ingest_sink_spool_waiting_records[file]"] == 0, "replayed")
        with open(os.path.join(folder, "out.log"), "rb") as stream:
            self.assertEqual(stream.read(), b"".join(make_batch(number).wire for number in range(5)))
