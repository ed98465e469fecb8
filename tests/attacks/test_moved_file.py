"""
Fault: somebody renames, removes or truncates the file that we are writing to.

Cost to a naive receiver: hours of lines in a file that has no name. Bound proven: what counts as delivered could be
read at the path, or in the file renamed; nothing missing, nothing doubled, whether or not anybody tells us.
"""

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from itertools import count

from tests.attacks.disks import DiskCase, read_lines
from tests.attacks.report import Group, Scenario
from tests.server import Server, wait_until
from tests.test_real_clients import program

REMOVED = Scenario(
    Group.DISK,
    "The file is removed",
    "`rm` of the output file (or of its directory) under load, without a signal",
    "noticed at the next write, before it counts as delivered: what that write put in the removed file is written "
    "again to a new one",
    ("ingest_sink_moved_files_total", "ingest_sink_rescued_bytes_total"),
)
RENAMED = Scenario(
    Group.DISK,
    "The file is renamed and nobody tells us",
    "`mv` of the output file under load, without a signal",
    "written on to for a second, in case a SIGHUP comes, then a new one is made",
    ("ingest_sink_moved_files_total",),
)
CREATE = Scenario(
    Group.DISK,
    "Logrotate, create",
    "logrotate renames the file, makes a new one and sends SIGHUP, under load",
    "records go to the old file up to the signal, and to the new one from there",
    ("ingest_sink_torn_records_total",),
)
COPYTRUNCATE = Scenario(
    Group.DISK,
    "Logrotate, copytruncate",
    "logrotate copies the file and truncates it, under load",
    "we append, so no hole is left; each truncation is counted and told; what is written between copy and truncation "
    "is lost to copytruncate, as it says itself",
    ("ingest_sink_truncations_total",),
)


class Load:
    """
    One connection that sends numbered lines, so many at a time.

    ``lines`` are those sent so far.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._peer: socket.socket = server.connect()
        self._numbers = count()
        self.lines: list[bytes] = []

    def send(self, number: int = 500) -> None:
        """Send some more."""
        lines = [b"line %08d %s" % (next(self._numbers), b"." * 80) for _ in range(number)]
        self._peer.sendall(b"\n".join(lines) + b"\n")
        self.lines += lines

    def keep_on(self, do: Callable[[], object]) -> None:
        """Send all the time while something is being done."""
        done = threading.Event()

        def send() -> None:
            # A pause now and then, for a few thousand lines a second and not a few hundred thousand.
            while not done.wait(0.005):
                self.send(50)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        try:
            do()
        finally:
            done.set()
            sender.join(60)

    def finish(self) -> None:
        """Wait until all is delivered."""
        self._peer.close()
        name = "ingest_sink_delivered_records_total[file]"
        wait_until(lambda: self._server.metrics()[name] == len(self.lines), "all lines delivered")


class MovedFileTests(DiskCase):
    def test_removed(self) -> None:
        """Each time the file or its directory is removed, lines that count as delivered from then on can be read."""
        server = self.server()
        load = Load(server)
        folder = os.path.dirname(server.path)
        found: list[bytes] = []
        for number in range(10):
            load.send()
            server.wait_output(1)
            before = len(load.lines)
            wait_until(lambda count=before: self.delivered(server) == count, "all delivered")  # type: ignore[misc]
            found += read_lines(server.path)
            self.assertEqual(found, load.lines)
            # Another one's hand is between what is delivered and what is to come: nobody can say what it takes with it.
            shutil.rmtree(folder) if number % 2 else os.remove(server.path)
        load.send()
        load.finish()
        self.assertEqual(found + read_lines(server.path), load.lines)
        metrics = server.metrics()
        self.assertEqual(metrics["ingest_sink_moved_files_total[file]"], 10)
        self.assertTrue(any(f"{server.path} was removed" in line for line in server.log))
        rescued = metrics["ingest_sink_rescued_bytes_total[file]"]
        REMOVED.measured(
            f"removed 10 times: {len(load.lines):,} lines, none missing or doubled; {rescued:,.0f} bytes written again"
        )

    def delivered(self, server: Server) -> float:
        return server.metrics()["ingest_sink_delivered_records_total[file]"]

    def test_removed_under_load(self) -> None:
        """Whatever the moment of a removal, the lines that are left have no gap and no double after the last one."""
        server = self.server()
        load = Load(server)

        def remove() -> None:
            for _ in range(20):
                wait_until(lambda: os.path.exists(server.path) and os.path.getsize(server.path), "lines in the file")
                os.remove(server.path)

        load.keep_on(remove)
        load.send()
        load.finish()
        left = read_lines(server.path)
        self.assertEqual(left, load.lines[-len(left) :])
        self.assertGreaterEqual(len(left), 500)

    def test_renamed(self) -> None:
        """A file renamed without a word is followed by another; together they have every line once and in order."""
        server = self.server()
        load = Load(server)

        def rename() -> None:
            for number in range(2):
                server.wait_output(1)
                os.rename(server.path, f"{server.path}.{number}")
                wait_until(lambda: os.path.exists(server.path), "a new file")

        load.keep_on(rename)
        load.finish()
        self.assertEqual(read_lines(f"{server.path}.0", f"{server.path}.1", server.path), load.lines)
        metrics = server.metrics()
        self.assertEqual(metrics["ingest_sink_moved_files_total[file]"], 2)
        self.assertEqual(metrics["ingest_sink_rescued_bytes_total[file]"], 0)
        RENAMED.measured(f"renamed twice: {len(load.lines):,} lines, each there once and in order")

    def logrotate(self, server: Server, *options: str) -> Callable[[], None]:
        """Give what rotates the file once."""
        logrotate = program("logrotate", "logrotate")
        folder = self.folder()
        config, state = os.path.join(folder, "conf"), os.path.join(folder, "state")
        with open(config, "w") as stream:
            stream.write(
                "\n".join((f"{server.path} {{", "rotate 100", "nocompress", "su root root", *options, "}", ""))
            )
        os.chmod(config, 0o600)

        def rotate() -> None:
            subprocess.run([logrotate, "--force", "--state", state, config], check=True, capture_output=True)

        return rotate

    def test_logrotate_create(self) -> None:
        """Twenty rotations as packages set them up, under load, lose, double and tear nothing."""
        server = self.server()
        load = Load(server)
        rotate = self.logrotate(
            server, "create 0640", "postrotate", f"kill -HUP {server.process.pid}", "endscript"
        )  # fmt: skip

        def rotate_often() -> None:
            for _ in range(20):
                server.wait_output(1)
                rotate()

        load.keep_on(rotate_often)
        load.finish()
        names = [f"{server.path}.{number}" for number in range(20, 0, -1)]
        self.assertEqual(read_lines(*names, server.path), load.lines)
        self.assertEqual(len(os.listdir(os.path.dirname(server.path))), 21)
        metrics = server.metrics()
        self.assertEqual(metrics["ingest_sink_torn_records_total[file]"], 0)
        CREATE.measured(f"20 rotations: {len(load.lines):,} lines in 21 files, each there once and in order, none torn")

    def test_logrotate_copytruncate(self) -> None:
        """Copytruncate leaves no hole, and loses nothing but what was written between its copy and its truncation."""
        server = self.server()
        load = Load(server)
        rotate = self.logrotate(server, "copytruncate")
        rotations = 10

        def rotate_often() -> None:
            for _ in range(rotations):
                server.wait_output(1)
                rotate()

        load.keep_on(rotate_often)
        load.finish()
        names = [f"{server.path}.{number}" for number in range(rotations, 0, -1)]
        found = read_lines(*names, server.path)
        with open(server.path, "rb") as stream:
            self.assertNotIn(b"\0", stream.read())
        sent = set(load.lines)
        whole = [line for line in found if line in sent]
        # At a copy's end and at the new beginning a line may be cut.
        self.assertLessEqual(len(found) - len(whole), 2 * rotations)
        self.assertEqual(whole, sorted(set(whole)))
        counted = server.metrics()["ingest_sink_truncations_total[file]"]
        self.assertLessEqual(counted, rotations)
        self.assertTrue(counted)
        lost = len(load.lines) - len(whole)
        COPYTRUNCATE.measured(
            f"{rotations} rotations, {counted:.0f} seen: {lost:,} of {len(load.lines):,} lines lost to copytruncate, "
            "none doubled, no hole"
        )

    def test_quiet_copytruncate(self) -> None:
        """Where nothing is written between copy and truncation, copytruncate loses nothing."""
        server = self.server()
        load = Load(server)
        load.send()
        wait_until(lambda: self.delivered(server) == len(load.lines), "all delivered")
        self.logrotate(server, "copytruncate")()
        load.send()
        load.finish()
        self.assertEqual(read_lines(f"{server.path}.1", server.path), load.lines)
        self.assertEqual(server.metrics()["ingest_sink_truncations_total[file]"], 1)

    def test_signal_without_rotation(self) -> None:
        """SIGHUP alone changes nothing: the file is the same, and no line is torn."""
        server = self.server()
        load = Load(server)
        load.send()
        inode = os.stat(server.path).st_ino if os.path.exists(server.path) else None

        def signals() -> None:
            for _ in range(100):
                server.send_signal(signal.SIGHUP)

        load.keep_on(signals)
        load.finish()
        self.assertEqual(read_lines(server.path), load.lines)
        self.assertIn(inode, (None, os.stat(server.path).st_ino))
