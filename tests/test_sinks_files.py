"""The file sink on real files: appended to only, rotated without loss, patient with a full disk."""

import errno
import json
import os
import select
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from twisted_ingest.batch import NUL, Batch, ConnectionInfo, Group
from twisted_ingest.errors import Format, Fsync, MisconfiguredError, SinkError
from twisted_ingest.interfaces import ISink
from twisted_ingest.limits import KIB, MIB
from twisted_ingest.observe.events import Events
from twisted_ingest.observe.facts import Fact
from twisted_ingest.sinks import file as sinks_file
from twisted_ingest.sinks.file import FileSink
from twisted_ingest.storage import calls, output, syncs, trouble
from twisted_ingest.storage import file as storage_file
from twisted_ingest.storage.access import FileAccess
from twisted_ingest.storage.directories import naming_inodes
from twisted_ingest.storage.file import FileTarget
from twisted_ingest.storage.queue import JobQueue

INFO = ConnectionInfo(1, "test", "192.0.2.1:1", "192.0.2.1")


def group(*wires: bytes, delimiter: bytes = b"\n") -> Group:
    """Make a group of one batch per argument."""
    batches = [Batch(wire, wire.count(delimiter), INFO, 0.0, delimiter) for wire in wires]
    return Group(batches, sum(batch.size for batch in batches))


class InodeTests(SynchronousTestCase):
    def complaint(self, error: int, **status: int) -> str:
        """Give what a file that cannot be made is complained of, on a file system of this status."""
        self.patch(os, "statvfs", lambda path: SimpleNamespace(**status))
        with self.assertRaises(OSError) as raised, naming_inodes():
            raise OSError(error, os.strerror(error), "/var/log/lines.log")
        self.assertEqual(raised.exception.errno, error)
        return str(raised.exception.strerror)

    def test_named(self) -> None:
        """A lack of inodes is called by its name, and nothing else is: some file systems have no number of them."""
        named = "no inodes are left on the file system of /var/log (see df -i)"
        self.assertEqual(self.complaint(errno.ENOSPC, f_files=100, f_favail=0), named)
        for error, files, free in ((errno.ENOSPC, 100, 1), (errno.ENOSPC, 0, 0), (errno.EDQUOT, 100, 0)):
            self.assertEqual(self.complaint(error, f_files=files, f_favail=free), os.strerror(error))


def read(path: str) -> bytes:
    """Give the content of a file."""
    with open(path, "rb") as file:
        return file.read()


def write(path: str, data: bytes, mode: str = "wb") -> None:
    """Make a file, or append to it."""
    with open(path, mode) as file:
        file.write(data)


class FileCase(TestCase):
    timeout = 10

    def setUp(self) -> None:
        self.patch(trouble, "RETRY_SECONDS", (0.001, 0.002))
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.path = os.path.join(self.directory, "ingest.log")
        self._waiting: dict[str, Deferred[None]] = {}

    def use_python(self) -> None:
        """Use nothing that is compiled."""
        self.patch(storage_file, "append", calls.append_in_python)
        self.patch(storage_file, "look", calls.look_in_python)
        self.patch(sinks_file, "make_queue", lambda reactor: JobQueue())

    def _observe(self, fact: Fact) -> None:
        kind, _, _ = fact.kind.partition(":")
        if kind in self._waiting:
            self._waiting.pop(kind).callback(None)

    def event(self, kind: str) -> "Deferred[None]":
        """Give a Deferred that fires with the next event of a kind."""
        return self._waiting.setdefault(kind, Deferred())

    def make(self, path: str | None = None, fsync: Fsync = Fsync.NEVER, sync_for: str | None = None) -> FileSink:
        """Make a sink that ends with the test."""
        events = Events(reactor.seconds)
        events.subscribe(self._observe)
        sink = FileSink("file", path or self.path, reactor=reactor, events=events, fsync=fsync, sync_for=sync_for)
        self.addCleanup(sink.abandon)
        return sink

    def started(self, path: str | None = None, fsync: Fsync = Fsync.NEVER) -> FileSink:
        """Make a sink and start it."""
        sink = self.make(path, fsync)
        sink.start()
        return sink


class OpenTests(FileCase):
    def test_is_a_sink(self) -> None:
        """The sink keeps the contract of sinks."""
        self.assertTrue(verifyObject(ISink, self.make()))

    async def test_file_and_parents_are_made(self) -> None:
        """A missing file is made together with its directories, readable by the owner and the group alone."""
        before = os.umask(0o022)
        self.addCleanup(os.umask, before)
        path = os.path.join(self.directory, "a", "b", "ingest.log")
        sink = self.started(path)
        await sink.deliver(group(b"one\n", b"two\n"))
        await sink.close()
        self.assertEqual(read(path), b"one\ntwo\n")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o640)
        self.assertEqual(stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode), 0o750)

    async def test_existing_file_is_kept(self) -> None:
        """What a file holds stays, and its mode too."""
        write(self.path, b"old\n")
        os.chmod(self.path, 0o600)
        sink = self.started()
        await sink.deliver(group(b"new\n"))
        self.assertEqual(read(self.path), b"old\nnew\n")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual(sink.details()["repaired_lines"], 0)

    async def test_appends_behind_others(self) -> None:
        """A file that somebody else appends to, or truncates in place, is written to at its end of the moment."""
        sink = self.started()
        await sink.deliver(group(b"one\n"))
        write(self.path, b"foreign\n", "ab")
        await sink.deliver(group(b"two\n"))
        self.assertEqual(read(self.path), b"one\nforeign\ntwo\n")
        os.truncate(self.path, 0)
        await sink.deliver(group(b"three\n"))
        self.assertEqual(read(self.path), b"three\n")

    async def test_torn_tail(self) -> None:
        """A last line without LF gets it, once, is counted and told, and loses none of its bytes."""
        write(self.path, b"whole\nhal")
        repaired = self.event("sink_repaired")
        sink = self.started()
        await sink.deliver(group(b"next\n"))
        await repaired
        self.assertEqual(read(self.path), b"whole\nhal\nnext\n")
        self.assertEqual(sink.details()["repaired_lines"], 1)
        sink.reopen()
        await sink.deliver(group(b"last\n"))
        self.assertEqual(sink.details()["repaired_lines"], 1)

    def test_directory_is_refused(self) -> None:
        """A path that names a directory is the operator's mistake, told at the start."""
        sink = self.make(self.directory)
        failure = self.assertRaises(SinkError, sink.start)
        self.assertIn("Is a directory", str(failure))

    def test_parent_that_is_a_file_is_refused(self) -> None:
        """A path below a file is the operator's mistake, told at the start."""
        write(self.path, b"")
        for below in ("x", os.path.join("x", "y")):
            self.assertRaises(SinkError, self.make(os.path.join(self.path, below)).start)

    async def test_what_waiting_may_mend(self) -> None:
        """A path that we may not have ends the start; with a spool in front it is waited for, a mistake never is."""
        for error in (errno.EACCES, errno.EPERM):
            denied = PermissionError(error, os.strerror(error))
            with self.assertRaisesRegex(SinkError, f"cannot open .*/ingest.log: {os.strerror(error)}") as raised:
                self.refused(denied, 1, is_patient=False).start()
            self.assertNotIsInstance(raised.exception, MisconfiguredError)
            sink = self.refused(denied, 3, is_patient=True)
            sink.start()
            await sink.deliver(group(b"a\n"))
        self.assertEqual(read(self.path), b"a\na\n")
        for error in (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST):
            for is_patient in (False, True):
                wrong = OSError(error, os.strerror(error))
                self.assertRaises(MisconfiguredError, self.refused(wrong, 1, is_patient=is_patient).start)

    def refused(self, error: OSError, times: int, *, is_patient: bool) -> FileSink:
        """Make a sink whose file cannot be opened so many times."""
        left = [error] * times
        sink = FileSink("file", self.path, reactor=reactor, events=Events(reactor.seconds), is_patient=is_patient)
        self.addCleanup(sink.abandon)
        opens = sink._target.open

        def refuse() -> None:
            if left:
                raise left.pop()
            opens()

        self.patch(sink._target, "open", refuse)
        return sink

    def test_no_thread(self) -> "Deferred[Any]":
        """Where there can be no more threads the start says so, leaves no file open, and may be tried again."""

        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        sink = self.make()
        patched = self.patch(threading.Thread, "start", start)
        with self.assertRaisesRegex(SinkError, "no thread for it can be started"):
            sink.start()
        self.assertEqual(sink._target._descriptor, -1)
        patched.restore()
        sink.start()
        return sink.deliver(group(b"a\n"))

    async def test_never_started(self) -> None:
        """A sink whose start was refused can be closed, and holds on to nothing."""
        sink = self.make(self.directory)
        self.assertRaises(SinkError, sink.start)
        delivered = sink.deliver(group(b"a\n"))
        await sink.close()
        await self.assertFailure(delivered, SinkError)

    async def test_a_group_that_cannot_be_rendered(self) -> None:
        """A batch that has no form is rejected alone, counted, and leaves nothing; the others are written."""
        events = Events(reactor.seconds)
        sink = FileSink("file", self.path, reactor=reactor, events=events, format=Format.JSON)
        self.addCleanup(sink.abandon)
        sink.start()
        timeless = group(b"no time\n", b"with it\n")
        timeless.batches[0].received_at = 1e30
        answers = [sink.deliver(each) for each in (group(b"one\n"), timeless, group(b"two\n"))]
        self.assertEqual([await answers[0], await answers[2]], [None, None])
        rejected = await answers[1]
        assert rejected is not None
        self.assertEqual(rejected.lost(timeless.batches), [(timeless.batches[0], 1, len(b"no time\n"))])
        self.assertIn("they cannot be written: ", str(rejected))
        lines = [json.loads(line)["message"] for line in read(self.path).splitlines()]
        self.assertEqual(lines, ["one", "with it", "two"])
        self.assertIsNone(sink.trouble)
        self.assertEqual((len(self.flushLoggedErrors(ValueError, OverflowError)), events.internal_errors), (1, 1))

    async def test_nul_framing(self) -> None:
        """Records that were framed by NUL become one line each."""
        sink = self.started()
        await sink.deliver(group(b"a\nb\0c\0", delimiter=NUL))
        self.assertEqual(read(self.path), b"a\\nb\nc\n")


class AccessTests(FileCase):
    """Whose the files are that we make, and who may read them."""

    def state(self, path: str) -> tuple[int, int, int]:
        """Give mode, owner and group."""
        status = os.stat(path)
        return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid

    def opened(self, path: str, access: FileAccess) -> None:
        """Open a target, and close it."""
        target = FileTarget(path, access)
        target.open()
        target.close()

    def test_whatever_the_umask(self) -> None:
        """A file has the mode that was asked for under every umask, a daemon's too; its directories let it be read."""
        self.addCleanup(os.umask, os.umask(0))
        for umask in (0, 0o022, 0o077, 0o777):
            for mode, above in ((0o640, 0o750), (0o600, 0o700), (0o644, 0o755), (0o664, 0o755)):
                os.umask(umask)
                path = os.path.join(self.directory, f"{umask}", f"{mode}", "a", "x.log")
                self.opened(path, FileAccess(mode))
                os.umask(0)
                self.assertEqual(self.state(path)[0], mode)
                self.assertEqual(self.state(os.path.dirname(path))[0], above)

    def test_given_away(self) -> None:
        """As root, files and directories that are made are given to the owner and group that were asked for."""
        if os.geteuid():
            raise SkipTest("only root may give files away")
        path = os.path.join(self.directory, "a", "x.log")
        self.opened(path, FileAccess(0o640, 12345, 54321))
        self.assertEqual(self.state(path), (0o640, 12345, 54321))
        self.assertEqual(self.state(os.path.dirname(path)), (0o750, 12345, 54321))

    def test_what_is_there_is_left(self) -> None:
        """A file that exists keeps what it has: somebody has chosen that."""
        write(self.path, b"one\n")
        os.chmod(self.path, 0o604)
        before = self.state(self.path)
        self.opened(self.path, FileAccess(0o640, 12345, 54321))
        self.assertEqual(self.state(self.path), before)

    def test_through_a_link(self) -> None:
        """A link that leads nowhere yet is followed."""
        os.symlink("real.log", self.path)
        self.opened(self.path, FileAccess(0o644))
        self.assertEqual(self.state(os.path.join(self.directory, "real.log"))[0], 0o644)

    def test_may_not(self) -> None:
        """Where it cannot be given away it is not left behind as somebody else's, and the refusal says what failed."""

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        self.patch(os, "chown", refuse)
        sink = self.make()
        sink._target = FileTarget(self.path, FileAccess(0o640, 12345))
        failure = self.assertRaises(SinkError, sink.start)
        self.assertIn("its owner, group or mode cannot be set: Operation not permitted", str(failure))
        self.assertFalse(os.path.exists(self.path))


class RotationTests(FileCase):
    async def test_rename_and_reopen(self) -> None:
        """However often the file is rotated under load, every line is whole in one of the files, in order."""
        sink = self.started(fsync=Fsync.ALWAYS)
        lines = [b"%06d %b" % (number, b"x" * (number % 300)) for number in range(6000)]
        deliveries = []
        for turn in range(30):
            deliveries.append(sink.deliver(group(*(line + b"\n" for line in lines[turn * 200 : turn * 200 + 200]))))
            if turn % 3 == 2:
                os.rename(self.path, f"{self.path}.{turn:02}")
                sink.reopen()
                await deliveries[turn // 2]
                # The next rename needs a file to rename.
                while "ingest.log" not in os.listdir(self.directory):
                    await sink.deliver(group(b""))
        await gatherResults(deliveries)
        await sink.close()
        names = sorted(name for name in os.listdir(self.directory) if name != "ingest.log")
        self.assertEqual(len(names), 10)
        content = b"".join(read(os.path.join(self.directory, name)) for name in [*names, "ingest.log"])
        self.assertEqual([line for line in content.split(b"\n") if line], lines)
        self.assertEqual(sink.details()["torn_records"], 0)

    async def test_rename_alone(self) -> None:
        """Nobody told to reopen, the sink goes on in the renamed file for a moment, and then by itself in a new one."""
        moved = self.event("sink_file_moved")
        sink = self.started()
        os.rename(self.path, self.path + ".1")
        await sink.deliver(group(b"one\n"))
        self.assertEqual(os.listdir(self.directory), ["ingest.log.1"])
        self.patch(output, "MOVE_SECONDS", 0.0)
        await sink.deliver(group(b"two\n"))
        await moved
        await sink.deliver(group(b"three\n"))
        self.assertEqual(read(self.path + ".1"), b"one\ntwo\n")
        self.assertEqual(read(self.path), b"three\n")
        self.assertEqual((sink.details()["moved_files"], sink.details()["rescued_bytes"]), (1, 0))

    async def test_rename_with_nothing_more_to_write(self) -> None:
        """A renamed file is followed by a new one though no more records come."""
        self.patch(output, "MOVE_SECONDS", 0.01)
        moved = self.event("sink_file_moved")
        sink = self.started()
        os.rename(self.path, self.path + ".1")
        await sink.deliver(group(b"one\n"))
        await moved
        await sink.deliver(group())
        self.assertEqual((read(self.path + ".1"), read(self.path)), (b"one\n", b""))

    async def test_renamed_and_put_back(self) -> None:
        """A file that has its name again in time is written on to."""
        sink = self.started()
        os.rename(self.path, self.path + ".1")
        await sink.deliver(group(b"one\n"))
        os.rename(self.path + ".1", self.path)
        await sink.deliver(group(b"two\n"))
        self.assertEqual(read(self.path), b"one\ntwo\n")
        self.assertEqual(sink.details()["moved_files"], 0)

    async def test_removed(self) -> None:
        """What was written to a removed file is written again to a new one before it counts as delivered."""
        for replace in (False, True):
            moved = self.event("sink_file_moved")
            sink = self.started()
            await sink.deliver(group(b"before\n"))
            if replace:
                write(self.path + ".new", b"foreign\n")
                os.rename(self.path + ".new", self.path)
            else:
                os.remove(self.path)
            await sink.deliver(group(b"after\n"))
            await moved
            self.assertEqual(read(self.path), b"foreign\nafter\n" if replace else b"after\n")
            self.assertEqual((sink.details()["moved_files"], sink.details()["rescued_bytes"]), (1, 6))
            await sink.close()
            os.remove(self.path)

    async def test_removed_and_told_so(self) -> None:
        """A removal followed by SIGHUP is no other case."""
        sink = self.started()
        await sink.deliver(group(b"before\n"))
        os.remove(self.path)
        sink.reopen()
        await sink.deliver(group(b"after\n"))
        self.assertEqual(read(self.path), b"after\n")

    async def test_folder_removed(self) -> None:
        """A folder that is removed with all in it is made anew for the next record."""
        sink = self.started()
        await sink.deliver(group(b"before\n"))
        shutil.rmtree(self.directory)
        await sink.deliver(group(b"after\n"))
        self.assertEqual(read(self.path), b"after\n")

    async def test_stale_handle(self) -> None:
        """A file that its server has removed, as network file systems tell by ``ESTALE``, is followed by a new one."""
        self.use_python()
        sink = self.started()
        real = os.fstat

        def fstat(descriptor: int) -> os.stat_result:
            self.patch(os, "fstat", real)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

        self.patch(os, "fstat", fstat)
        await sink.deliver(group(b"one\n"))
        self.assertEqual(read(self.path), b"one\none\n")
        self.assertEqual(sink.details()["rescued_bytes"], 4)

    async def test_path_that_cannot_be_looked_at(self) -> None:
        """While the path cannot be looked at the open file is written on to: it could not be opened anew either."""
        self.use_python()
        sink = self.started()

        def refuse(path: str) -> os.stat_result:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

        undo = self.patch(os, "stat", refuse)
        await sink.deliver(group(b"one\n"))
        undo.restore()
        self.assertEqual(read(self.path), b"one\n")
        self.assertEqual(sink.details()["moved_files"], 0)

    async def test_reopen_without_a_rotation(self) -> None:
        """SIGHUP without a rotation opens nothing: the same descriptor goes on."""
        sink = self.started()
        opened: list[str] = []
        real = os.open

        def count(path: str, *rest: Any) -> int:
            opened.append(path)
            return real(path, *rest)

        self.patch(os, "open", count)
        for _ in range(100):
            sink.reopen()
            await sink.deliver(group(b"x\n"))
        self.assertEqual(opened, [])
        self.assertEqual(read(self.path), b"x\n" * 100)

    async def test_truncation_is_told(self) -> None:
        """Copytruncate leaves no hole behind and is counted: what came between copy and truncation nobody knows."""
        truncated = self.event("sink_truncated")
        sink = self.started()
        for number in range(3):
            await sink.deliver(group(b"a long line to be truncated\n"))
            os.truncate(self.path, 0)
            await sink.deliver(group(b"%d\n" % number))
            self.assertEqual(read(self.path), b"%d\n" % number)
        await truncated
        self.assertEqual(sink.details()["truncations"], 3)

    async def test_directory_removed(self) -> None:
        """A reopen makes the directory anew when it was removed."""
        sink = self.started()
        os.rename(self.directory, self.directory + ".gone")
        sink.reopen()
        await sink.deliver(group(b"one\n"))
        self.assertEqual(read(self.path), b"one\n")

    async def test_reopen_waits_for_the_path(self) -> None:
        """A path that cannot be opened for a while holds deliveries back, and they are written when it can."""
        sink = self.started()
        os.rename(self.path, self.path + ".1")
        os.mkdir(self.path)
        stalled = self.event("sink_stalled")
        sink.reopen()
        delivered = sink.deliver(group(b"one\n"))
        await stalled
        self.assertNoResult(delivered)
        self.assertIn("cannot open: Is a directory", sink.trouble or "")
        os.rmdir(self.path)
        await delivered
        self.assertIsNone(sink.trouble)
        self.assertEqual(read(self.path), b"one\n")


class PlainRotationTests(RotationTests):
    """The same without what is compiled."""

    def setUp(self) -> None:
        super().setUp()
        self.use_python()


class SyncTests(FileCase):
    def fail_syncs(self, *numbers: int) -> list[int]:
        """Make calls of ``fdatasync`` fail, by their number from one; gives the list of calls made."""
        calls: list[int] = []
        real = os.fdatasync

        def fdatasync(descriptor: int) -> None:
            calls.append(descriptor)
            if len(calls) in numbers:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(descriptor)

        self.patch(os, "fdatasync", fdatasync)
        return calls

    async def test_always(self) -> None:
        """Under fsync always each delivery on its own costs one sync, and the directory's entry is synced once."""
        calls = self.fail_syncs()
        directories: list[int] = []
        self.patch(os, "fsync", directories.append)
        sink = self.started(fsync=Fsync.ALWAYS)
        for _ in range(3):
            await sink.deliver(group(b"one\n"))
        self.assertEqual(len(calls), 3)
        self.assertEqual(len(directories), 1)

    async def test_failed_sync_puts_the_file_aside(self) -> None:
        """After a failed sync the file is found as PATH.failed-N, N the first that is free, and a new one has all."""
        write(self.path + ".failed-1", b"older\n")
        self.fail_syncs(2, 4)
        sink = self.started(fsync=Fsync.ALWAYS)
        await sink.deliver(group(b"one\n"))
        await sink.deliver(group(b"two\n"))
        await sink.deliver(group(b"three\n"))
        self.assertEqual(read(self.path + ".failed-1"), b"older\n")
        self.assertEqual(read(self.path + ".failed-2"), b"one\ntwo\n")
        self.assertEqual(read(self.path + ".failed-3"), b"two\nthree\n")
        self.assertEqual(read(self.path), b"three\n")
        self.assertEqual(sink.details()["sync_failures"], 2)
        self.assertEqual(sink.details()["rewritten_bytes"], len(b"two\nthree\n"))

    async def test_rotated_file_is_aside_already(self) -> None:
        """When the file whose sync failed was rotated away, whatever has its name now is left alone."""
        self.fail_syncs(2)
        sink = self.started(fsync=Fsync.ALWAYS)
        await sink.deliver(group(b"one\n"))
        os.rename(self.path, self.path + ".1")
        write(self.path, b"")
        await sink.deliver(group(b"two\n"))
        self.assertEqual(sorted(os.listdir(self.directory)), ["ingest.log", "ingest.log.1"])
        self.assertEqual(read(self.path + ".1"), b"one\ntwo\n")
        self.assertEqual(read(self.path), b"two\n")

    def test_retire_of_a_removed_file(self) -> None:
        """A file that was removed needs no putting aside."""
        target = FileTarget(self.path)
        target.open()
        os.remove(self.path)
        target.retire(worthless=False)
        self.assertEqual(os.listdir(self.directory), [])

    async def test_device_whose_every_sync_fails(self) -> None:
        """However often a sync fails in a row one file is put aside: what would be written again anyway is removed."""
        for fsync in (Fsync.ALWAYS, Fsync.SECOND):
            sink = self.started(fsync=fsync)
            await sink.deliver(group(b"before\n"))
            self.patch(syncs, "SYNC_SECONDS", 0.0)
            undo = self.fail_next_syncs(20)
            await sink.deliver(group(b"after\n"))
            undo()
            names = sorted(os.listdir(self.directory))
            self.assertEqual(names, ["ingest.log", "ingest.log.failed-1"])
            self.assertEqual(read(self.path), b"after\n")
            self.assertEqual(sink.details()["sync_failures"], 20)
            await sink.close()
            for name in names:
                os.remove(os.path.join(self.directory, name))

    def fail_next_syncs(self, number: int) -> Callable[[], None]:
        """Make so many syncs fail; gives what undoes that."""
        real, left = os.fdatasync, iter(range(number))

        def fdatasync(descriptor: int) -> None:
            if next(left, None) is not None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(descriptor)

        undo: Callable[[], None] = self.patch(os, "fdatasync", fdatasync).restore
        return undo

    async def test_foreign_lines_are_never_removed(self) -> None:
        """A file whose sync failed is put aside, whatever we wrote to it, where somebody else's lines are in it."""
        sink = self.started(fsync=Fsync.ALWAYS)
        write(self.path, b"foreign\n", "ab")
        self.fail_syncs(1)
        await sink.deliver(group(b"ours\n"))
        self.assertEqual(read(self.path + ".failed-1"), b"foreign\nours\n")
        self.assertEqual(read(self.path), b"ours\n")

    async def test_put_aside_in_a_folder_not_writable(self) -> None:
        """While the file cannot be renamed nothing is written to it, deliveries wait, and the reason is told."""
        real = os.rename
        stalled = self.event("sink_stalled")
        refused: list[str] = []

        def rename(old: str, new: str) -> None:
            refused.append(new)
            if len(refused) == 3:
                self.patch(os, "rename", real)
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

        sink = self.started(fsync=Fsync.ALWAYS)
        await sink.deliver(group(b"one\n"))
        self.fail_syncs(1)
        self.patch(os, "rename", rename)
        await sink.deliver(group(b"two\n"))
        await stalled
        self.assertEqual(read(self.path + ".failed-1"), b"one\ntwo\n")
        self.assertEqual(read(self.path), b"two\n")
        self.assertEqual(len(refused), 3)

    async def test_failed_sync_of_the_directory(self) -> None:
        """A directory whose sync fails with ``EIO`` counts as the file's: nothing is answered from it."""
        failures = [OSError(errno.EIO, os.strerror(errno.EIO)), OSError(errno.EINVAL, os.strerror(errno.EINVAL))]

        def fsync(descriptor: int) -> None:
            if failures:
                raise failures.pop(0)

        self.patch(os, "fsync", fsync)
        sink = self.started(fsync=Fsync.ALWAYS)
        await sink.deliver(group(b"one\n"))
        self.assertEqual(failures, [])
        self.assertEqual(sink.details()["sync_failures"], 1)
        self.assertEqual(read(self.path), b"one\n")

    def test_what_cannot_be_synced_is_refused(self) -> None:
        """A path that cannot keep the promise of fsync, a FIFO or a device, is refused where that is asked for."""
        os.mkfifo(self.path)
        for path in (self.path, os.devnull):
            for fsync in (Fsync.ALWAYS, Fsync.SECOND):
                failure = self.assertRaises(SinkError, self.make(path, fsync).start)
                self.assertIn("no regular file", str(failure))

    async def test_nothing_irregular_takes_its_place(self) -> None:
        """What must be synced is not written to a FIFO or a device put where the file was: it waits for a file."""
        makers: tuple[Callable[[str], None], ...] = (os.mkfifo, partial(os.symlink, os.devnull))
        for number, make in enumerate(makers):
            for fsync, sync_for in ((Fsync.ALWAYS, None), (Fsync.NEVER, "listener relp-0 (durability fsync)")):
                path = os.path.join(self.directory, f"{number}-{fsync.value}.log")
                await self.replace_and_mend(self.make(path, fsync, sync_for), make)

    async def replace_and_mend(self, sink: FileSink, make: Callable[[str], None]) -> None:
        """Put something else in place of the sink's file, tell it, then take that away."""
        sink.start()
        await sink.deliver(group(b"one\n"))
        os.rename(sink.path, f"{sink.path}.1")
        make(sink.path)
        stalled = self.event("sink_stalled")
        sink.reopen()
        delivered = sink.deliver(Group(group(b"two\n").batches, 4, needs_sync=True))
        await stalled
        self.assertNoResult(delivered)
        self.assertIn(f"{sink.path} is no regular file", str(sink.trouble))
        os.remove(sink.path)
        await delivered
        self.assertEqual((read(f"{sink.path}.1"), read(sink.path), sink.trouble), (b"one\n", b"two\n", None))

    async def test_without_a_signal(self) -> None:
        """A file that was removed and replaced by a FIFO is noticed before what was written counts, and waited out."""
        sink = self.make(sync_for="listener relp-0 (durability fsync)")
        sink.start()
        await sink.deliver(group(b"one\n"))
        os.remove(self.path)
        os.mkfifo(self.path)
        stalled = self.event("sink_stalled")
        delivered = sink.deliver(group(b"two\n"))
        await stalled
        self.assertNoResult(delivered)
        for part in (self.path, "listener relp-0 (durability fsync)", "put a regular file there"):
            self.assertIn(part, str(sink.trouble))
        os.remove(self.path)
        await delivered
        self.assertEqual(read(self.path), b"two\n")

    def test_who_relies_on_it_is_named(self) -> None:
        """At the start the refusal names the path, who needs the syncs, and what to do."""
        os.mkfifo(self.path)
        failure = self.assertRaises(SinkError, self.make(sync_for="listener relp-0 (durability fsync)").start)
        for part in (self.path, "listener relp-0 (durability fsync)", "put a regular file there"):
            self.assertIn(part, str(failure))

    def test_devices_are_never_renamed(self) -> None:
        """Syncing what cannot be synced does nothing."""
        target = FileTarget(os.devnull)
        target.open()
        self.addCleanup(target.close)
        self.assertFalse(target.can_sync)
        target.sync()


class FifoTests(FileCase):
    def setUp(self) -> None:
        super().setUp()
        os.mkfifo(self.path)

    def open_reader(self) -> int:
        """Open the reading end."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(descriptor, True)
        return descriptor

    def reader(self) -> int:
        """Open the reading end, until the end of the test."""
        descriptor = self.open_reader()
        self.addCleanup(os.close, descriptor)
        return descriptor

    async def test_reader_gets_the_lines(self) -> None:
        """Lines written to a FIFO reach its reader."""
        reader = self.reader()
        sink = self.started()
        delivered = sink.deliver(group(b"one\n", b"two\n"))
        self.assertEqual(await deferToThread(read_exactly, reader, 8), b"one\ntwo\n")
        await delivered

    async def test_stalled_reader(self) -> None:
        """A FIFO that nobody reads blocks neither the start nor the reactor: deliveries wait for the reader."""
        sink = self.started()
        reader = self.reader()
        data = b"0007\n" * (MIB // 5)
        delivered = sink.deliver(group(data))
        got = await deferToThread(read_exactly, reader, 1000)
        self.assertNoResult(delivered)
        got += await deferToThread(read_exactly, reader, len(data) - 1000)
        await delivered
        self.assertEqual(got, data)

    async def test_no_reader(self) -> None:
        """Without a reader the start succeeds, the sink says what it lacks, and nothing counts as delivered."""
        stalled = self.event("sink_stalled")
        sink = self.started()
        delivered = sink.deliver(group(b"one\n"))
        await stalled
        self.assertIn("nobody has this FIFO open to read", str(sink.trouble))
        self.assertIn(self.path, str(sink.trouble))
        self.assertNoResult(delivered)
        reader = self.reader()
        self.assertEqual(await deferToThread(read_exactly, reader, 4), b"one\n")
        await delivered
        self.assertIsNone(sink.trouble)

    async def test_open_but_not_read(self) -> None:
        """What lies in the pipe is not delivered: its reader may leave without it."""
        reader = self.reader()
        sink = self.started()
        delivered = sink.deliver(group(b"one\n"))
        await deferToThread(select.select, [reader], [], [])
        await deferLater(reactor, 0.01)
        self.assertNoResult(delivered)
        self.assertEqual(os.read(reader, KIB), b"one\n")
        await delivered

    async def test_reader_leaves(self) -> None:
        """Wherever a reader leaves, the next one begins with the record that was cut, and has all that follow."""
        lines = [b"%07d%b\n" % (number, b"." * (number % 90)) for number in range(6000)]
        data = b"".join(lines)
        for taken in (0, 1, 8, 100, 65_536, 70_001, len(data) - 1):
            reader, sink = self.open_reader(), self.started()
            delivered = sink.deliver(group(*lines[:9], b"".join(lines[9:])))
            first = await deferToThread(read_exactly, reader, taken) if taken else b""
            left = self.event("sink_stalled")
            os.close(reader)
            await left
            self.assertNoResult(delivered)
            reader = self.open_reader()
            boundary = first.rfind(b"\n") + 1
            rest = await deferToThread(read_exactly, reader, len(data) - boundary)
            await delivered
            self.assertEqual(first[:boundary] + rest, data)
            self.assertEqual(sink.details()["torn_records"], int(boundary != taken))
            os.close(reader)
            await sink.close()

    async def test_reader_leaves_in_silence(self) -> None:
        """A reader that leaves when there is nothing to write is missed before there is."""
        self.patch(output, "READER_SECONDS", 0.01)
        reader = self.open_reader()
        sink = self.started()
        delivered = sink.deliver(group(b"one\n"))
        self.assertEqual(await deferToThread(read_exactly, reader, 4), b"one\n")
        await delivered
        stalled, recovered = self.event("sink_stalled"), self.event("sink_recovered")
        os.close(reader)
        await stalled
        self.assertIn("nobody has this FIFO open to read", str(sink.trouble))
        reader = self.reader()
        await recovered
        self.assertIsNone(sink.trouble)
        delivered = sink.deliver(group(b"two\n"))
        self.assertEqual(await deferToThread(read_exactly, reader, 4), b"two\n")
        await delivered

    async def test_given_up(self) -> None:
        """What was not read when the sink is given up was not delivered."""
        reader = self.reader()
        sink = self.started()
        delivered = sink.deliver(group(b"one\n"))
        await deferToThread(select.select, [reader], [], [])
        sink.abandon()
        await self.assertFailure(delivered, SinkError)


def read_exactly(descriptor: int, size: int) -> bytes:
    """Read so many bytes; fewer where no more come."""
    data = b""
    while len(data) < size and select.select([descriptor], [], [], 5)[0]:
        more = os.read(descriptor, size - len(data))
        if not more:
            break
        data += more
    return data


class DescriptorTests(FileCase):
    def open_descriptors(self) -> int:
        return len(os.listdir("/proc/self/fd"))

    def test_thousands_of_openings(self) -> None:
        """Opening anew costs no descriptor, whether it works or fails at any step."""
        target = FileTarget(self.path)
        target.open()
        self.addCleanup(target.close)
        before = self.open_descriptors()
        for _ in range(1000):
            target.open()
        self.assertEqual(self.open_descriptors(), before)
        below = FileTarget(os.path.join(self.path, "x"))
        for _ in range(1000):
            self.assertRaises(OSError, below.open)
        self.assertEqual(self.open_descriptors(), before)
        write(self.path, b"torn")
        self.patch(os, "write", self.refuse)
        for _ in range(1000):
            self.assertRaises(OSError, target.open)
        self.assertEqual(self.open_descriptors(), before - 1)

    def refuse(self, *_: object) -> int:
        """Be a full disk."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def test_failing_syncs_and_renames(self) -> None:
        """Nor do syncs of a directory that fail, files put aside, and files removed."""
        before = self.open_descriptors()
        target = FileTarget(self.path)
        for number in range(300):
            target.open()
            target.write([b"x\n"])
            self.patch(os, "fsync", self.refuse)
            self.assertRaises(OSError, target.sync)
            target.retire(worthless=bool(number % 3))
        target.close()
        self.assertEqual(self.open_descriptors(), before)
        self.assertEqual(len(os.listdir(self.directory)), 100)


class DirectorySyncTests(FileCase):
    def sync_with(self, error: int) -> None:
        """Sync a new file where ``fsync`` of its directory fails."""

        def fsync(descriptor: int) -> None:
            raise OSError(error, os.strerror(error))

        self.patch(os, "fsync", fsync)
        target = FileTarget(self.path)
        self.addCleanup(target.close)
        target.open()
        target.write([b"x\n"])
        target.sync()

    def test_what_cannot_be_synced(self) -> None:
        """A file system that syncs no directories is taken as it is; any other error fails the sync."""
        for error in (errno.EINVAL, errno.ENOTSUP):
            self.sync_with(error)
        for error in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            with self.assertRaises(OSError):
                self.sync_with(error)

    def test_directories_that_were_made(self) -> None:
        """The names of directories made for the file become durable with it, once, after a retry of the open too."""
        synced = []
        self.patch(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
        top = os.path.abspath(self.directory)
        target = FileTarget(os.path.join(top, "a", "b", "ingest.log"))
        self.addCleanup(target.close)
        for _ in range(2):
            target.open()
        for _ in range(2):
            target.write([b"x\n"])
            target.sync()
        self.assertEqual(sorted(synced), [top, os.path.join(top, "a"), os.path.join(top, "a", "b")])


class FullDiskTests(FileCase):
    async def test_full_device(self) -> None:
        """A device without space holds deliveries back, says so, and fails them when it is abandoned."""
        stalled = self.event("sink_stalled")
        sink = self.started("/dev/full")
        delivered = sink.deliver(group(b"one\n"))
        await stalled
        self.assertNoResult(delivered)
        self.assertIn("No space left on device", sink.trouble or "")
        closed = sink.close()
        self.assertNoResult(closed)
        sink.abandon()
        await self.assertFailure(delivered, SinkError)
        await closed

    def mount(self) -> str:
        """Mount a file system of 64 KiB, or skip."""
        place = os.path.abspath(os.path.join(self.directory, "small"))
        os.mkdir(place)
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=10)
        except (OSError, subprocess.SubprocessError) as failure:
            raise SkipTest(f"cannot mount a small tmpfs: {failure}") from failure
        # Lazy, because a thread that a failed test left behind may still have the file open.
        self.addCleanup(subprocess.run, ["umount", "--lazy", place], check=True, timeout=10)
        return place

    async def test_space_returns(self) -> None:
        """On a full disk nothing is lost: when space returns all lines are there, whole, once and in order."""
        place = self.mount()
        path = os.path.join(place, "ingest.log")
        filler = os.path.join(place, "filler")
        write(filler, b"x" * 40 * KIB)
        sink = self.started(path, Fsync.ALWAYS)
        blocks = [b"".join(b"%04d %b\n" % (i, b"y" * 90) for i in range(j, j + 100)) for j in range(0, 400, 100)]
        stalled = self.event("sink_stalled")
        deliveries = [sink.deliver(group(block)) for block in blocks]
        await stalled
        self.assertIn("No space left on device", sink.trouble or "")
        self.assertNoResult(deliveries[-1])
        recovered = self.event("sink_recovered")
        os.remove(filler)
        await gatherResults(deliveries)
        await recovered
        await sink.close()
        self.assertIsNone(sink.trouble)
        self.assertEqual(read(path), b"".join(blocks))
        self.assertEqual(sink.details()["torn_records"], 0)

    async def full_in_the_middle(self) -> tuple[str, str, FileSink, bytes, "Deferred[Any]"]:
        """Fill a disk in the middle of a line; gives paths of the file and of what fills the disk, and what to come."""
        place = self.mount()
        path, filler = os.path.join(place, "ingest.log"), os.path.join(place, "filler")
        write(filler, b"x" * 40 * KIB)
        sink = self.started(path)
        data = b"".join(b"%05d %b\n" % (i, b"y" * 93) for i in range(300))
        stalled = self.event("sink_stalled")
        delivered = sink.deliver(group(data))
        await stalled
        self.assertNotIn(os.path.getsize(path) % 100, (0, len(data)))
        return path, filler, sink, data, delivered

    async def test_rotation_of_a_full_disk(self) -> None:
        """A file rotated away in the middle of a line is followed by one that has that line whole."""
        path, filler, sink, data, delivered = await self.full_in_the_middle()
        os.rename(path, path + ".1")
        sink.reopen()
        while not os.path.exists(path):
            await deferLater(reactor, 0.001)
        os.remove(filler)
        await delivered
        first = read(path + ".1")
        torn = len(first) - first.rfind(b"\n") - 1
        self.assertTrue(torn)
        self.assertEqual(first[: len(first) - torn] + read(path), data)
        self.assertEqual(sink.details()["torn_records"], 1)

    async def test_removal_frees_a_full_disk(self) -> None:
        """A file that is removed to make room gives its room back, and what was not reported yet stays."""
        path, filler, sink, data, delivered = await self.full_in_the_middle()
        os.remove(path)
        os.remove(filler)
        await delivered
        self.assertEqual(read(path), data)
        details = sink.details()
        self.assertEqual((details["torn_records"], details["moved_files"]), (0, 1))
        self.assertGreater(details["rescued_bytes"], 0)

    async def test_full_at_start(self) -> None:
        """A disk that is full at the start is waited for: the torn tail gets its LF when there is space."""
        place = self.mount()
        path = os.path.join(place, "ingest.log")
        write(path, b"x" * 4096)
        filler = os.path.join(place, "filler")
        self.assertRaises(OSError, write, filler, b"x" * 64 * KIB)
        stalled = self.event("sink_stalled")
        sink = self.started(path)
        delivered = sink.deliver(group(b"one\n"))
        await stalled
        self.assertIn("cannot open: No space left on device", sink.trouble or "")
        os.remove(filler)
        await delivered
        self.assertEqual(read(path), b"x" * 4096 + b"\none\n")
        self.assertEqual(sink.details()["repaired_lines"], 1)
