"""Recovery: whatever has become of a directory, what is whole is found, and what is not is kept aside."""

import errno
import os
import shutil
import struct
import tempfile
from zlib import crc32

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.disk import Crash, SimDisk, keep_nothing
from tests.spooling import DIRECTORY, Spool, make_batch, same, segment_paths
from twisted_ingest.sinks import trouble
from twisted_ingest.spool.codec import SEGMENT_SIZE, VERSION, ForeignError, Header, encode_header
from twisted_ingest.spool.disk import RealDisk
from twisted_ingest.spool.position import read_position
from twisted_ingest.spool.recovery import Recovered, recover
from twisted_ingest.spool.segments import POSITION, segment_name

POSITION_PATH = f"{DIRECTORY}/{POSITION}"


def filled(batches: int = 9, size: int = 300) -> SimDisk:
    """Give a disk with a spool of a few segments that nothing was read from."""
    spool = Spool(segment_bytes=700)
    for number in range(1, batches + 1):
        spool.append(make_batch(number, size))
    disk = spool.disk
    assert isinstance(disk, SimDisk)
    disk.kill()
    return disk


def numbers(disk: SimDisk) -> list[int]:
    """Give what a start would deliver."""
    spool = Spool(disk, segment_bytes=700)
    found = spool.read()
    for batch in found:
        assert same(batch, make_batch(int(batch.wire.partition(b".")[0]), 300))
    disk.kill()
    return [int(batch.wire.partition(b".")[0]) for batch in found]


def quarantined(disk: SimDisk) -> list[str]:
    """Give the names of what was copied aside."""
    return sorted(name for name in disk.list(DIRECTORY) if name.endswith(".quarantine"))


class DamageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(trouble, "RETRY_SECONDS", (0.0, 0.0))

    def test_every_changed_byte(self) -> None:
        """A byte changed anywhere costs the frame it is in, or nothing; it is counted, and its region kept aside."""
        whole = filled()
        for segment, name in enumerate(segment_paths(whole)):
            for offset in range(0, len(whole.content(name)), 7):
                disk = filled()
                path = segment_paths(disk)[segment]
                disk.damage(path, offset, 0x20)
                found = numbers(disk)
                lost = 0 if offset < SEGMENT_SIZE else 1
                self.assertEqual(len(found), 9 - lost)
                self.assertEqual(found, sorted(found))
                report = recover(disk, DIRECTORY).report
                self.assertEqual((report.quarantined_regions, report.records), (1, 9 - lost))
                (copy,) = quarantined(disk)
                start = int(copy.split("-")[2].partition(".")[0])
                region = disk.content(path)[start : start + report.quarantined_bytes]
                self.assertEqual(disk.content(f"{DIRECTORY}/{copy}"), region)

    def test_every_cut(self) -> None:
        """A last segment cut anywhere keeps every frame before the cut; the rest counts as torn, not as damaged."""
        whole = filled()
        for cut in range(len(whole.content(segment_paths(whole)[-1]))):
            disk = filled()
            path = segment_paths(disk)[-1]
            disk.put(path, disk.content(path)[:cut])
            report = recover(disk, DIRECTORY).report
            self.assertEqual((report.records, report.quarantined_regions), (8, 0))
            self.assertEqual(report.torn_bytes, cut if cut < SEGMENT_SIZE else cut - SEGMENT_SIZE)

    def test_no_room_to_keep_it_aside(self) -> None:
        """A damaged segment that cannot be copied, as on a full disk, is kept as a whole once it is passed."""
        disk = filled()
        path = segment_paths(disk)[0]
        disk.damage(path, SEGMENT_SIZE + 40, 1)
        disk.plan[disk.operations + 1] = errno.ENOSPC
        spool = Spool(disk, segment_bytes=700)
        self.assertEqual(len(spool.deliver()), 8)
        self.assertEqual(quarantined(disk), [f"{path}.quarantine".rpartition("/")[2]])
        self.assertEqual(spool.cursor.missing, 1)

    def test_damage_while_running(self) -> None:
        """What turns bad after it was written is noticed when it is read: counted, kept aside, and passed."""
        spool = Spool(segment_bytes=700)
        for number in range(1, 6):
            spool.append(make_batch(number, 300))
        disk = spool.disk
        assert isinstance(disk, SimDisk)
        disk.damage(segment_paths(disk)[0], SEGMENT_SIZE + 40, 1)
        self.assertEqual(len(spool.deliver()), 4)
        self.assertEqual((spool.cursor.missing, spool.cursor.quarantined_regions), (1, 1))
        self.assertEqual(spool.shelf.confirmed, spool.shelf.durable)
        self.assertEqual(len(quarantined(disk)), 1)

    def test_whole_but_no_batch(self) -> None:
        """A frame that is whole and holds no batch, which we would not write, is kept aside and passed."""
        spool = Spool()
        disk = spool.disk
        assert isinstance(disk, SimDisk)
        spool.append(make_batch(1, 300))
        path = spool.shelf.segments[0].path
        disk.kill()
        content = disk.content(path)
        head = content[SEGMENT_SIZE : SEGMENT_SIZE + 8] + struct.pack(">IQII", 3, 2, 1, crc32(b"???"))
        disk.put(path, content + head + struct.pack(">I", crc32(head)) + b"???")
        self.assertEqual(numbers(disk), [1])
        self.assertEqual(len(quarantined(disk)), 1)

    def test_copies_of_a_failed_sync(self) -> None:
        """What a failed sync left on the disk is read once, from where it was written again, and counted."""
        spool = Spool()
        disk = spool.disk
        assert isinstance(disk, SimDisk)
        spool.append(make_batch(1, 300))
        disk.plan[disk.operations + 2] = errno.EIO
        spool.append(make_batch(2, 300), make_batch(3, 300))
        self.assertEqual((len(spool.acked), spool.writer.sync_failures), (3, 1))
        disk.kill()
        report = recover(disk, DIRECTORY).report
        self.assertEqual((report.records, report.duplicates, report.missing), (3, 2, 0))
        self.assertEqual(numbers(disk), [1, 2, 3])

    def test_a_failed_sync_across_segments(self) -> None:
        """A failed sync of what lay across a segment's end costs nothing: not when it is read, nor after a restart."""
        for is_killed in (False, True):
            spool = Spool(segment_bytes=700)
            disk = spool.disk
            assert isinstance(disk, SimDisk)
            spool.append(make_batch(1, 300))
            # Written to the first segment and to a second one; the sync of the first one fails.
            disk.plan[disk.operations + 5] = errno.EIO
            spool.append(make_batch(2, 300), make_batch(3, 300))
            self.assertEqual((len(spool.acked), disk.failed), (3, ["sync"]))
            if is_killed:
                disk.kill()
                self.assertEqual(numbers(disk), [1, 2, 3])
            else:
                self.assertEqual(len(spool.deliver()), 3)
                self.assertEqual(spool.cursor.missing, 0)


class DirectoryTests(SynchronousTestCase):
    def test_empty(self) -> None:
        """An empty directory is a spool with nothing in it."""
        found = recover(SimDisk(), DIRECTORY)
        self.assertEqual((found.segments, found.position, found.sequence, found.number), ([], 1, 1, 1))

    def test_missing_segment(self) -> None:
        """With any one segment gone the others are read, and what is missing is counted."""
        for gone in range(len(segment_paths(filled()))):
            disk = filled()
            disk.remove(segment_paths(disk)[gone])
            found = numbers(disk)
            self.assertEqual(found, sorted(found))
            self.assertIn(len(found), (7, 8))
            # The first ones might have been delivered, and the last ones never written: nothing tells.
            inner = 0 < gone < len(segment_paths(filled())) - 1
            self.assertEqual(recover(disk, DIRECTORY).report.missing, 9 - len(found) if inner else 0)

    def test_position_lost_or_damaged(self) -> None:
        """Without its position everything that is still there is delivered again; a damaged one is no position."""
        disk = filled()
        spool = Spool(disk, segment_bytes=700)
        window = spool.window(1)
        assert window is not None
        spool.cursor.confirm(window.last)
        spool.cursor.commit()
        disk.kill()
        self.assertEqual(numbers(disk), [2, 3, 4, 5, 6, 7, 8, 9])
        content = disk.content(POSITION_PATH)
        for offset in range(len(content)):
            disk.damage(POSITION_PATH, offset, 1)
            self.assertIsNone(read_position(disk, DIRECTORY))
            self.assertEqual(numbers(disk), [1, 2, 3, 4, 5, 6, 7, 8, 9])
            disk.put(POSITION_PATH, content[:offset])
            self.assertIsNone(read_position(disk, DIRECTORY))
            disk.put(POSITION_PATH, content)

    def test_numbers_go_on(self) -> None:
        """No number is given twice, of a frame or of a segment, however much is delivered and removed."""
        disk = filled()
        seen: set[int] = set()
        for number in range(10, 40):
            spool = Spool(disk, segment_bytes=700)
            spool.append(make_batch(number, 300))
            self.assertNotIn(spool.shelf.segments[-1].number, seen)
            seen.add(spool.shelf.segments[-1].number)
            spool.deliver()
            self.assertEqual(spool.shelf.durable, number)
            disk.kill()
        self.assertEqual(len(segment_paths(disk)), 1)

    def test_other_files(self) -> None:
        """Files that are not ours are left alone."""
        disk = filled()
        disk.put(f"{DIRECTORY}/notes.txt", b"mine")
        self.assertEqual(len(numbers(disk)), 9)
        self.assertEqual(disk.content(f"{DIRECTORY}/notes.txt"), b"mine")

    def test_other_version(self) -> None:
        """A segment of another version ends the start, and is left as it is."""
        disk = SimDisk()
        header = bytearray(encode_header(Header(1, 1, b"12345678"))[:-4])
        header[8:10] = (VERSION + 1).to_bytes(2, "big")
        path = f"{DIRECTORY}/{segment_name(1, b'12345678')}"
        content = bytes(header) + crc32(header).to_bytes(4, "big")
        disk.put(path, content)
        with self.assertRaisesRegex(ForeignError, "format 2"):
            recover(disk, DIRECTORY)
        self.assertEqual(disk.content(path), content)

    def test_dying_again_and_again(self) -> None:
        """A recovery that is killed at each of its operations in turn comes to the same answer in the end."""
        disk = filled()
        for path in segment_paths(disk)[:3]:
            disk.damage(path, SEGMENT_SIZE + 40, 1)
        expected = numbers(filled_and_damaged())
        for _ in range(40):
            disk.plan[disk.operations + 1] = None
            try:
                Spool(disk)
            except Crash:
                disk.crash(keep_nothing)
            else:
                break
        disk.kill()
        self.assertEqual(numbers(disk), expected)
        self.assertEqual(len(quarantined(disk)), 3)


def filled_and_damaged() -> SimDisk:
    """Give a disk with damage in the first three segments."""
    disk = filled()
    for path in segment_paths(disk)[:3]:
        disk.damage(path, SEGMENT_SIZE + 40, 1)
    return disk


class RealDirectoryTests(TestCase):
    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="ingest-spool-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = os.path.join(self.directory, "below", "spool")

    def spool(self) -> Spool:
        """Start a spool on the real disk."""
        spool = Spool(RealDisk(), segment_bytes=700, directory=self.path)
        self.addCleanup(spool.disk.close, spool.lock)
        self.addCleanup(spool.target.close)
        self.addCleanup(spool.cursor.close)
        return spool

    def test_round_trip(self) -> None:
        """On a real file system too: what was written is there for the next start, in a directory of the owner's."""
        spool = self.spool()
        for number in range(1, 10):
            spool.append(make_batch(number, 300))
        self.assertEqual(len(spool.acked), 9)
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o700)
        self.assertEqual({os.stat(s.path).st_mode & 0o777 for s in spool.shelf.segments}, {0o600})
        spool.disk.close(spool.lock)
        again = self.spool()
        found = again.deliver()
        self.assertTrue(all(same(batch, make_batch(n, 300)) for n, batch in enumerate(found, 1)))
        self.assertEqual(len(found), 9)
        self.assertEqual(len([name for name in os.listdir(self.path) if name.endswith(".segment")]), 1)

    def test_one_process_at_a_time(self) -> None:
        """A directory that is in use is refused."""
        self.spool()
        with self.assertRaises(BlockingIOError):
            RealDisk().lock(os.path.join(self.path, "lock"))

    def test_symbolic_link(self) -> None:
        """A symbolic link in a segment's place is not followed: it is set aside, and what is behind it untouched."""
        spool = self.spool()
        spool.append(make_batch(1))
        spool.disk.close(spool.lock)
        outside = os.path.join(self.directory, "outside")
        with open(outside, "wb") as stream:
            stream.write(b"not ours")
        name = segment_name(9, b"12345678")
        os.symlink(outside, os.path.join(self.path, name))
        found: Recovered = self.spool().recovered
        self.assertEqual((found.report.records, len(found.report.unreadable)), (1, 1))
        self.assertTrue(os.path.islink(os.path.join(self.path, f"{name}.unreadable")))
        with open(outside, "rb") as stream:
            self.assertEqual(stream.read(), b"not ours")
