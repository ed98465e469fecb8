"""Appending and looking, in C and in Python: the same bytes, the same sights, the same errors."""

import errno
import fcntl
import os
import shutil
import sysconfig
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from twisted_ingest.framing.scan import PURE
from twisted_ingest.storage import calls
from twisted_ingest.storage import file as calls_of_file
from twisted_ingest.storage.calls import Append, Buffers, Look
from twisted_ingest.storage.file import FileTarget
from twisted_ingest.storage.target import IOV_MAX, Place

KINDS: list[tuple[Append, Look]] = [(calls.append_in_python, calls.look_in_python)]
if calls.IS_COMPILED:
    KINDS.append((calls.append, calls.look))

BUFFERS = st.lists(st.binary(max_size=9).flatmap(lambda data: st.sampled_from([data, memoryview(b"<" + data)[1:]])))


class CallsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "f.log"
        self.descriptor = self.open()

    def open(self) -> int:
        """Open the file, until the end of the test."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.addCleanup(os.close, descriptor)
        return descriptor

    @property
    def name(self) -> bytes:
        """The path as it is handed over."""
        return os.fsencode(self.path)


class AppendTests(CallsCase):
    @settings(deadline=None)
    @given(BUFFERS)
    def test_any_buffers(self, buffers: Buffers) -> None:
        """Whatever the buffers are, bytes or views, they are written in order, and the look shows all of them."""
        for append, _ in KINDS:
            os.truncate(self.path, 0)
            size = sum(map(len, buffers))
            self.assertEqual(append(self.descriptor, buffers, self.name), (size, (size, 1, True)))
            self.assertEqual(self.path.read_bytes(), b"".join(buffers))

    def test_as_many_as_the_kernel_takes(self) -> None:
        """One call takes `IOV_MAX` buffers, and refuses more."""
        for append, _ in KINDS:
            os.truncate(self.path, 0)
            self.assertEqual(append(self.descriptor, [b"x\n"] * IOV_MAX, self.name)[0], 2 * IOV_MAX)
            self.assertRaises((OSError, ValueError), append, self.descriptor, [b"x\n"] * (IOV_MAX + 1), self.name)
            self.assertEqual(self.path.stat().st_size, 2 * IOV_MAX)

    def test_part_of_it(self) -> None:
        """Where only some is taken the number says so, and there is no look: there is more to do before that."""
        for append, _ in KINDS:
            reading, writing = os.pipe2(os.O_NONBLOCK)
            self.addCleanup(os.close, reading)
            self.addCleanup(os.close, writing)
            room = fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)
            taken, sight = append(writing, [b"x" * room, b"y"], self.name)
            self.assertEqual((taken, sight), (room, None))
            with self.assertRaises(BlockingIOError):
                append(writing, [b"y"], self.name)

    def test_errors(self) -> None:
        """What the kernel says is raised as the ``OSError`` that it is."""
        full = os.open("/dev/full", os.O_WRONLY)
        self.addCleanup(os.close, full)
        for append, _ in KINDS:
            for descriptor, number in ((full, errno.ENOSPC), (-1, errno.EBADF)):
                with self.assertRaises(OSError) as raised:
                    append(descriptor, [b"x\n"], self.name)
                self.assertEqual((raised.exception.errno, raised.exception.strerror), (number, os.strerror(number)))

    def test_mistakes_of_the_caller(self) -> None:
        """What is no buffer is refused, and nothing is written of those before it."""
        for append, _ in KINDS:
            self.assertRaises(TypeError, append, self.descriptor, [b"x\n", "y\n"], self.name)
            self.assertRaises(TypeError, append, self.descriptor, 7, self.name)
            self.assertEqual(self.path.read_bytes(), b"")

    def test_nothing_is_kept(self) -> None:
        """The memory behind a view is its owner's again when the call is over, however it ends."""
        for append, _ in KINDS:
            memory = bytearray(b"one\ntwo\n")
            views = [memoryview(memory)[:4], memoryview(memory)[4:]]
            append(self.descriptor, views, self.name)
            self.assertRaises(OSError, append, -1, views, self.name)
            self.assertRaises(TypeError, append, self.descriptor, [*views, None], self.name)
            self.assertRaises(BufferError, memory.clear)
            for view in views:
                view.release()
            memory.clear()


class LookTests(CallsCase):
    def test_moved_and_removed(self) -> None:
        """It sees whether the path names the open file, and how many names that has."""
        for append, look in KINDS:
            descriptor = self.open()
            append(descriptor, [b"x\n"], self.name)
            self.assertEqual(look(descriptor, self.name), (2, 1, True))
            moved = self.path.rename(self.folder / "f.log.1")
            self.assertEqual(look(descriptor, self.name), (2, 1, False))
            self.assertEqual(append(descriptor, [b"y\n"], self.name), (2, (4, 1, False)))
            self.path.write_bytes(b"somebody else's")
            self.assertEqual(look(descriptor, self.name), (4, 1, False))
            moved.unlink()
            self.assertEqual(append(descriptor, [b"z\n"], self.name), (2, (6, 0, False)))
            self.path.unlink()

    def test_where_nothing_can_be_seen(self) -> None:
        """A path that names nothing is another place; one that cannot be looked at is taken as it was."""
        loop = self.folder / "loop"
        loop.symlink_to("loop")
        for _, look in KINDS:
            for path, is_here in ((self.folder / "no" / "f", False), (self.path / "f", False), (loop, True)):
                self.assertEqual(look(self.descriptor, os.fsencode(path)), (0, 1, is_here))
            self.assertEqual(look(-1, self.name), (-1, 0, False))


class TargetTests(CallsCase):
    def test_seen_in_the_same_call(self) -> None:
        """A write that took all it was given tells where the file is, until the next call changes that."""
        for append, look in KINDS:
            self.patch(calls_of_file, "append", append)
            self.patch(calls_of_file, "look", look)
            target = FileTarget(str(self.path))
            target.open()
            self.addCleanup(target.close)
            self.assertIsNone(target.sight)
            target.write([b"x\n"])
            self.assertIs(target.sight, Place.HERE)
            moved = self.path.rename(self.folder / "f.log.1")
            target.write([b"y\n"])
            self.assertIs(target.sight, Place.ELSEWHERE)
            moved.unlink()
            target.write([b"z\n"])
            self.assertIs(target.sight, Place.NOWHERE)
            target.open()
            self.assertIsNone(target.sight)


class BuildTests(SynchronousTestCase):
    def test_built_where_it_can_be(self) -> None:
        """Where there are a compiler and Python's headers, the calls were built and are in use."""
        if not shutil.which("cc") or not Path(sysconfig.get_path("include"), "Python.h").exists():
            raise SkipTest("no C compiler, or no headers of Python")
        if os.environ.get(PURE):
            raise SkipTest(f"{PURE} is set")
        self.assertTrue(calls.IS_COMPILED)
