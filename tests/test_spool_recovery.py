"""Recovery: whatever has become of a directory, what is whole is found, and what is not is kept aside."""

import errno
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from functools import partial
from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.disk import Crash, SimDisk, keep_nothing
from tests.spooling import DIRECTORY, Spool, make_batch, same, segment_paths
from twisted_ingest.spool.body import FORMAT, ForeignError, decode_body
from twisted_ingest.spool.codec import (
    HEAD_SIZE,
    MAX_NUMBER,
    SEGMENT_SIZE,
    Header,
    decode_head,
    decode_header,
    encode_frame,
    encode_header,
)
from twisted_ingest.spool.disk import RealDisk
from twisted_ingest.spool.position import Position, read_position, write_position
from twisted_ingest.spool.quarantine import set_aside
from twisted_ingest.spool.recovery import Recovered, recover
from twisted_ingest.spool.segments import POSITION, number_of, segment_name
from twisted_ingest.storage import trouble

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
        assert same(batch, make_batch(int(bytes(batch.wire).partition(b".")[0]), 300))
    disk.kill()
    return [int(bytes(batch.wire).partition(b".")[0]) for batch in found]


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

    def test_segments_taken_away_while_running(self) -> None:
        """A segment that is gone is told of and passed, what was in it missing; one that comes back is not removed."""
        for gone in ([0], [1], [1, 2], [0, 1, 2]):
            spool = Spool(segment_bytes=700)
            for number in range(1, 8):
                spool.append(make_batch(number, 300))
            disk = spool.disk
            assert isinstance(disk, SimDisk)
            told: list[str] = []
            spool.cursor.on_gone = told.append
            kept = {path: disk.content(path) for index, path in enumerate(segment_paths(disk)) if index in gone}
            for path in kept:
                disk.remove(path)
            windows = spool.read()
            self.assertEqual(len(windows), 7 - 2 * len(gone))
            self.assertEqual((told, spool.cursor.missing), (list(kept), 2 * len(gone)))
            self.assertEqual(spool.read(), [])
            for path, content in kept.items():
                disk.put(path, content)
            spool.checkpoint.confirm(7)
            spool.checkpoint.commit()
            self.assertEqual(quarantined(disk), [f"{os.path.basename(path)}.quarantine" for path in kept])

    def test_a_directory_that_is_away(self) -> None:
        """With the whole directory gone, as when its disk is not mounted, nothing is passed over: it is waited for."""
        spool = Spool(segment_bytes=700)
        for number in range(1, 8):
            spool.append(make_batch(number, 300))
        disk = spool.disk
        assert isinstance(disk, SimDisk)
        names, disk._names = disk._names, {}
        for _ in range(3):
            self.assertRaises(FileNotFoundError, spool.read)
        disk._names = names
        self.assertEqual((len(spool.read()), spool.cursor.missing), (7, 0))

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
        end = spool.shelf.segments[0].end
        disk.plan[disk.operations + 2] = errno.EIO
        spool.append(make_batch(2, 300), make_batch(3, 300))
        self.assertEqual((len(spool.acked), spool.writer.counts.sync_failures), (3, 1))
        disk.kill()
        recovered = recover(disk, DIRECTORY)
        report = recovered.report
        self.assertEqual((report.records, report.duplicates, report.missing), (3, 2, 0))
        self.assertEqual([recovered.segments[0].end == end, len(recovered.segments)], [True, 2])
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
        spool.checkpoint.confirm(window.last)
        spool.checkpoint.commit()
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
        header[8:10] = (FORMAT + 1).to_bytes(2, "big")
        path = f"{DIRECTORY}/{segment_name(1, b'12345678')}"
        content = bytes(header) + crc32(header).to_bytes(4, "big")
        disk.put(path, content)
        with self.assertRaisesRegex(ForeignError, "has format 3, and this version reads formats 1 to 2"):
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


def _short_of_descriptors(open: Callable[..., int], last: str, path: str) -> int:  # noqa: A002
    if path.endswith(last):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)
    return open(RealDisk(), path)


def filled_and_damaged() -> SimDisk:
    """Give a disk with damage in the first three segments."""
    disk = filled()
    for path in segment_paths(disk)[:3]:
        disk.damage(path, SEGMENT_SIZE + 40, 1)
    return disk


def frames(disk: SimDisk) -> list[tuple[int, bytes]]:
    """Give number and wire of every frame in a segment's place, read by nothing but the codec."""
    found = []
    for path in segment_paths(disk):
        content, offset = disk.content(path), SEGMENT_SIZE
        marker = decode_header(content).marker
        while offset < len(content):
            head = decode_head(content[offset : offset + HEAD_SIZE], marker)
            offset += HEAD_SIZE + head.length
            found.append((head.sequence, bytes(decode_body(content[offset - head.length : offset], head.format).wire)))
    return found


def tamper(disk: SimDisk, steps: list[tuple[str, int, int]]) -> None:
    """Remove, rename, swap and copy segments."""
    for kind, which, number in steps:
        paths = segment_paths(disk)
        if not paths:
            return
        path, other = paths[which % len(paths)], paths[number % len(paths)]
        renamed = f"{DIRECTORY}/{segment_name(number, os.path.basename(path).encode()[-24:-16])}"
        content = disk.content(path)
        if kind in ("remove", "rename"):
            disk.remove(path)
        if kind in ("rename", "copy"):
            disk.put(renamed, content)
        if kind == "swap":
            disk.put(path, disk.content(other))
            disk.put(other, content)


WHOLE = 14
"""Batches in the directories that are tampered with."""

NUMBERS = st.one_of(st.integers(0, 2 * WHOLE), st.sampled_from([10**10, 10**11, 2**32, 2**63]))
POSITIONS = st.one_of(
    st.none(),
    st.tuples(
        st.one_of(st.integers(0, WHOLE + 3), st.sampled_from([2**32, 2**62, 2**63, 2**64 - 1])),
        st.one_of(st.integers(0, WHOLE), st.sampled_from([10**10 - 1, 10**10, 10**17, 2**64 - 1])),
    ),
)
STEPS = st.lists(
    st.tuples(st.sampled_from(["remove", "rename", "swap", "copy"]), st.integers(0, WHOLE), NUMBERS), max_size=5
)


class AnyDirectoryTests(SynchronousTestCase):
    """What nobody would do to a directory, done to it."""

    def disk(self, position: tuple[int, int] | None) -> SimDisk:
        """Give a disk with the spool of two runs, nothing of it delivered, and a position of any kind."""
        disk = filled()
        spool = Spool(disk, segment_bytes=700)
        for number in range(10, WHOLE + 1):
            spool.append(make_batch(number, 300))
        disk.kill()
        if position is not None:
            write_position(disk, DIRECTORY, Position(*position))
        return disk

    @settings(max_examples=300, deadline=None)
    @given(POSITIONS, STEPS, st.booleans(), st.booleans())
    def test_every_frame_comes_to_something(
        self, position: tuple[int, int] | None, steps: list[tuple[str, int, int]], is_killed: bool, has_news: bool
    ) -> None:
        """
        Each frame on the disk is delivered, or counted, whatever the position says and is done to the segments.

        Nothing is passed over for a position beyond all there is, no number is given twice, what is written afterwards
        is delivered, and a second start finds nothing left.
        """
        disk = self.disk(position)
        tamper(disk, steps)
        before, names = frames(disk), set(disk.list(DIRECTORY))
        spool = Spool(disk, segment_bytes=700)
        report, first = spool.recovered.report, spool.recovered.sequence
        self.assertEqual(report.batches + report.duplicates + report.passed, len(before))
        if position is not None and before and position[0] > max(sequence for sequence, _ in before) + 1:
            self.assertEqual(report.passed, 0)
            self.assertTrue(report.lost_position)
        news = [make_batch(1000 + number, 300) for number in range(3)] if has_news else []
        for batch in news:
            spool.append(batch)
        self.assertGreater(first, max([sequence for sequence, _ in before], default=0))
        fresh = [segment for segment in spool.shelf.segments if os.path.basename(segment.path) not in names]
        self.assertEqual(bool(fresh), has_news)
        taken = [number for number in map(number_of, names) if number <= MAX_NUMBER]
        self.assertTrue(all(segment.number > max(taken, default=0) for segment in fresh))
        if is_killed:
            disk.kill()
            spool = Spool(disk, segment_bytes=700)
        delivered = [bytes(batch.wire) for batch in spool.deliver()]
        self.assertEqual(len(delivered), report.batches + len(news))
        self.assertEqual(delivered[report.batches :], [batch.wire for batch in news])
        self.assertLessEqual(set(delivered[: report.batches]), {wire for _, wire in before})
        self.assertEqual((len(set(delivered)), spool.checkpoint.lags), (len(delivered), False))
        disk.kill()
        self.assertEqual(Spool(disk).recovered.report.records, 0)

    def test_beyond_all(self) -> None:
        """A position beyond what is there, of any size, is named and kept aside; everything comes out, and goes on."""
        for beyond in (11, 12, 1000, 2**62, 2**63, 2**64 - 1):
            disk = filled()
            write_position(disk, DIRECTORY, Position(beyond, 3))
            spool = Spool(disk, segment_bytes=700)
            self.assertRegex(spool.recovered.report.lost_position or "", r"is now position\.unreadable$")
            self.assertFalse(spool.recovered.report.is_clean)
            self.assertIn("position.unreadable", disk.list(DIRECTORY))
            spool.append(make_batch(10, 300))
            # Killed before a position was kept: the one that was wrong must not come true by what is written meanwhile.
            disk.crash(keep_nothing)
            self.assertEqual(numbers(disk), list(range(1, 11)))
            self.assertEqual(len(Spool(disk, segment_bytes=700).deliver()), 10)

    def test_beyond_all_with_a_header_lost(self) -> None:
        """A segment of which nothing is left vouches for no position: what would have followed in it is not known."""
        for gone in range(len(segment_paths(filled()))):
            disk = filled()
            path = segment_paths(disk)[gone]
            disk.put(path, disk.content(path)[: SEGMENT_SIZE - 1])
            write_position(disk, DIRECTORY, Position(11, 3))
            spool = Spool(disk, segment_bytes=700)
            self.assertTrue(spool.recovered.report.lost_position)
            self.assertEqual(len(spool.deliver()), 8 if gone == len(segment_paths(filled())) - 1 else 7)

    def test_where_all_is_delivered(self) -> None:
        """A position right behind what is there, or on an empty directory, is believed, and numbers go on from it."""
        disk = filled()
        write_position(disk, DIRECTORY, Position(10, 3))
        report = recover(disk, DIRECTORY).report
        self.assertEqual((report.records, report.passed, report.lost_position, report.is_clean), (0, 9, None, True))
        for path in segment_paths(disk):
            disk.remove(path)
        found = recover(disk, DIRECTORY)
        self.assertEqual((found.position, found.sequence, found.report.lost_position), (10, 10, None))

    def test_numbers_that_none_was_given(self) -> None:
        """A segment, a frame or a name with a number beyond all that are given is set aside, and does not count."""
        disk = filled()
        path = f"{DIRECTORY}/{segment_name(6, b'12345678')}"
        frame = encode_frame(b"12345678", 2**64 - 1, make_batch(1))
        disk.put(path, encode_header(Header(6, 2**64 - 1, b"12345678")) + frame)
        huge = f"{DIRECTORY}/{segment_name(10**19, b'12345678')}"
        disk.put(huge, b"no header")
        found = recover(disk, DIRECTORY)
        self.assertEqual((found.sequence, found.number, found.report.records), (10, 7, 9))
        self.assertEqual((found.report.quarantined_regions, len(found.report.unreadable)), (2, 1))
        self.assertEqual(disk.content(f"{huge}.unreadable"), b"no header")
        self.assertEqual(numbers(disk), list(range(1, 10)))

    def test_set_aside_again(self) -> None:
        """What is set aside takes no other's place, and its number is not given again."""
        disk = filled()
        name = segment_name(7, b"12345678")
        for content in (b"one", b"two"):
            disk.put(f"{DIRECTORY}/{name}", content)
            set_aside(disk, DIRECTORY, name, ".unreadable")
        self.assertEqual(disk.content(f"{DIRECTORY}/{name}.unreadable"), b"one")
        self.assertEqual(disk.content(f"{DIRECTORY}/{name}.unreadable-2"), b"two")
        self.assertEqual(recover(disk, DIRECTORY).number, 8)


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

    def test_a_directory_in_the_place_of_the_position(self) -> None:
        """What is no file where the position should be is set aside, so that one can be kept; all comes out again."""
        spool = self.spool()
        spool.append(make_batch(1))
        spool.disk.close(spool.lock)
        for name in ("position", "position.new"):
            os.makedirs(os.path.join(self.path, name, "below"))
        again = self.spool()
        self.assertEqual(
            again.recovered.report.lost_position, "the position cannot be read, and is now position.unreadable"
        )
        self.assertEqual(len(again.deliver()), 1)
        self.assertTrue(os.path.isfile(os.path.join(self.path, "position")))
        for name in ("position.unreadable", "position.new.unreadable"):
            self.assertTrue(os.path.isdir(os.path.join(self.path, name, "below")))

    def test_no_descriptors(self) -> None:
        """A start that has no descriptors left is refused: nothing is set aside for what is not its fault."""
        spool = self.spool()
        spool.append(make_batch(1))
        spool.deliver()
        spool.disk.close(spool.lock)
        before = sorted(os.listdir(self.path))
        for last in ("position", ".segment"):
            self.patch(RealDisk, "open", partial(_short_of_descriptors, RealDisk.open, last))
            with self.assertRaisesRegex(OSError, "Too many open files"):
                recover(RealDisk(), self.path)
        self.assertEqual(sorted(os.listdir(self.path)), before)

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
