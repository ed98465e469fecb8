"""
Fault: signals at the wrong moment: a process put to sleep, storms of SIGHUP, a stop while something is stuck, a kill.

Cost to a naive receiver: lines thrown away by timers that slept too, by files opened in the middle of a line, or by an
end that waits for ever and is then forced. Bound proven: nothing is lost but what is counted, and a stop ends in time.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import count

from tests.attacks.disks import DiskCase, read_lines
from tests.attacks.report import Group, Scenario
from tests.attacks.sleep import TIMEOUTS, oversleep
from tests.server import PATIENCE, Server, numbered, wait_until
from twisted_ingest.limits import FLUSH_GRACE, KIB, STOP_GRACE
from twisted_ingest.process.signals import IGNORED

KILLS = int(os.environ.get("INGEST_TEST_RESTARTS", "3"))
"""How often the process is killed; `make slow` sets ten."""

SLEEP = Scenario(
    Group.PROCESS,
    "SIGSTOP and SIGCONT",
    "the process is put to sleep for longer than every timeout, with peers connected, idle and in the middle of a line",
    "lines that arrived meanwhile are read; timers that are late give the time back: nobody is closed for our sleep",
    ('ingest_connections_closed_total{reason="idle"}', 'ingest_connections_closed_total{reason="frame_deadline"}'),
)
STORM = Scenario(
    Group.PROCESS,
    "A storm of SIGHUP",
    "hundreds of SIGHUP under load, some with a rotation, most without",
    "a signal without a rotation opens nothing; none tears a line; the log folds them",
    ("ingest_sink_torn_records_total", "ingest_log_suppressed_total"),
)
EARLY = Scenario(
    Group.PROCESS,
    "SIGHUP, SIGUSR1 or SIGUSR2 before the start is over",
    "a rotation's signal meets a process that still reads its configuration",
    "nothing comes of it: the start goes on",
    ("ingest_ready",),
)
HUNG = Scenario(
    Group.PROCESS,
    "SIGTERM with a hung sink and a paused peer",
    "the sink takes nothing and its thread hangs in a system call, peers are held back; then SIGTERM",
    "ends within the drain timeout and a grace; the last line counts what was read and not delivered, and the exit "
    "status is 1",
    ('ingest_dropped_records_total{reason="shutdown"}', "ingest_paused_connections"),
)
RELIEVED = Scenario(
    Group.PROCESS,
    "SIGTERM with a paused peer whose sink comes back",
    "the sink takes nothing, peers are held back; SIGTERM; then the sink goes on",
    "held-back peers are read to their end and delivered within the drain timeout; the exit is clean",
    ("ingest_paused_connections", "ingest_sink_delivered_records_total"),
)
UNREADING = Scenario(
    Group.PROCESS,
    "SIGTERM with a peer that does not read",
    "a peer that reads nothing and never closes; then SIGTERM",
    "half-closed, heard for a quiet second, then reset: it holds nothing up",
    ('ingest_connections_closed_total{reason="drain"}',),
)
TWICE = Scenario(
    Group.PROCESS,
    "SIGTERM twice",
    "a second SIGTERM while a long drain is waiting for a hung sink",
    "the second ends the process now, with the signal's own status",
    ("ingest_ready",),
)
KILLED = Scenario(
    Group.PROCESS,
    "SIGKILL",
    "the process is killed under load, again and again; once in the middle of a line, on a full disk",
    "at most the last line is torn; the next start ends it with LF, counts it and truncates nothing",
    ("ingest_sink_repaired_lines_total",),
)


@contextlib.contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Stop a process, and let it go on in the end."""
    server.send_signal(signal.SIGSTOP)
    yield
    server.send_signal(signal.SIGCONT)


class SleepTests(DiskCase):
    def test_stop_and_continue(self) -> None:
        """A process that slept through every timeout reads what came in time, and closes nobody for it."""
        server = self.server(*TIMEOUTS)
        SLEEP.measured(oversleep(self, server, stopped(server)))


class StormTests(DiskCase):
    def test_storm(self) -> None:
        """Hundreds of SIGHUPs under load, with rotations in between, lose, double and tear nothing."""
        server = self.server()
        lines = numbered("line", 50_000)
        done = threading.Event()

        def send() -> None:
            with server.connect() as peer:
                for start in range(0, len(lines), 100):
                    peer.sendall(b"\n".join(lines[start : start + 100]) + b"\n")
            done.set()

        before = server.descriptors()
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        rotated: list[str] = []
        sent = 0
        while sent < 500 or not done.is_set():
            server.send_signal(signal.SIGHUP)
            sent += 1
            if sent % 50 == 0 and len(rotated) < 10:
                wait_until(lambda: os.path.exists(server.path), "a file to rotate")
                rotated.append(f"{server.path}.{len(rotated)}")
                os.rename(server.path, rotated[-1])
        sender.join(PATIENCE)
        delivered = "ingest_sink_delivered_records_total[file]"
        wait_until(lambda: server.metrics()[delivered] == len(lines), "all lines delivered")
        self.assertEqual(read_lines(*rotated, server.path), lines)
        metrics = server.metrics()
        self.assertEqual(metrics["ingest_sink_torn_records_total[file]"], 0)
        wait_until(lambda: server.descriptors() <= before, "descriptors as before")
        told = sum("SIGHUP" in line for line in server.log)
        STORM.measured(
            f"{sent:,} signals, {len(rotated)} rotations: {len(lines):,} lines, each there once and in order; "
            f"{told} lines in the log; no descriptor more"
        )


class EarlyTests(DiskCase):
    def test_before_the_start_is_over(self) -> None:
        """A process that is told to reopen its files before it has any goes on with its start."""
        config = os.path.join(self.folder(), "ingest.toml")
        os.mkfifo(config)
        server = Server("--config", config, "--listen", "tcp:0:interface=127.0.0.1")
        self.addCleanup(server.kill)
        # It waits for its configuration until we close this.
        writing = self.writing(config)
        for _ in range(100):
            for number in IGNORED:
                server.send_signal(number)
        os.close(writing)
        server.wait_ready()
        server.send(b"hello\n")
        self.assertEqual(server.wait_output(6), b"hello\n")
        EARLY.measured("300 signals while it waits for its configuration: the start goes on, lines are delivered")

    def test_interrupted_start(self) -> None:
        """Ctrl-C during a start ends it at once and without a traceback."""
        config = os.path.join(self.folder(), "ingest.toml")
        os.mkfifo(config)
        server = Server("--config", config)
        self.addCleanup(server.kill)
        writing = self.writing(config)
        self.addCleanup(os.close, writing)
        self.assertEqual(server.stop(signal.SIGINT), -signal.SIGINT)
        self.assertEqual(server.log, [])

    def writing(self, path: str) -> int:
        """Open a FIFO for writing once it is read from."""
        opened: list[int] = []

        def is_read() -> bool:
            with contextlib.suppress(OSError):
                opened.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            return bool(opened)

        wait_until(is_read, "the configuration being read")
        return opened[0]


class StopTests(DiskCase):
    def fill(self, server: Server, peer: socket.socket) -> None:
        """Send until the peer is held back."""
        peer.settimeout(1)
        with self.assertRaises(TimeoutError):
            while True:
                peer.sendall(b"x" * 99 + b"\n")
        wait_until(lambda: server.metrics()["ingest_paused_connections"] == 1, "the peer held back")

    def summary(self, server: Server) -> str:
        """Give the last word of a server that has ended."""
        server._reader.join(PATIENCE)
        (line,) = [line for line in server.log if "stopped: " in line]
        return line

    def test_hung_sink_and_paused_peer(self) -> None:
        """A sink whose thread hangs cannot hold up a stop; what it leaves is counted and shows in the exit status."""
        drain = 1.0
        server = self.server("--sink", "stdout:", "--drain-timeout", f"{drain:g}s", "--memory", "8MiB")
        with server.connect() as peer:
            self.fill(server, peer)
            wait_until(lambda: "a write has taken nothing for" in server.get("readyz"), "readiness tells of the stall")
            self.assertEqual(server.metrics()["ingest_sink_up[stdout]"], 0)
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
            status = server.process.wait(drain + STOP_GRACE + 5)
            took = time.monotonic() - began
        self.assertEqual(status, 1)
        told = self.summary(server)
        found = re.search(r"(\d+) records in, (\d+) by stdout delivered, dropped (\d+) \(shutdown\)", told)
        assert found is not None
        came, delivered, dropped = map(int, found.groups())
        self.assertEqual(came, delivered + dropped)
        self.assertIn("conservation error 0", told)
        # Not the thread of last resort, which has no summary to give: the service itself came to its end.
        self.assertFalse(any("still stopping" in line for line in server.log))
        HUNG.measured(
            f"drain timeout {drain:g} s, grace {FLUSH_GRACE:g} s: over after {took:.1f} s, status {status}, "
            f"{dropped:,} records counted as dropped"
        )

    def test_paused_peer_of_a_sink_that_comes_back(self) -> None:
        """A peer held back at the moment of a stop is read to its end when the sink goes on in time."""
        server = self.server("--sink", "stdout:", "--drain-timeout", "10s", "--memory", "8MiB")
        lines = numbered("line", 200_000)
        sender = threading.Thread(target=server.send, args=(b"\n".join(lines) + b"\n",), daemon=True)
        sender.start()
        wait_until(lambda: server.metrics()["ingest_paused_connections"] == 1, "the peer held back")
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: server.get("readyz").startswith("draining"), "the stop begun")
        assert server.process.stdout is not None
        self.assertEqual(server.process.stdout.read().splitlines(), lines)
        sender.join(PATIENCE)
        self.assertEqual(server.process.wait(PATIENCE), -signal.SIGTERM)
        self.assertIn(f"{len(lines)} records in, {len(lines)} by stdout delivered, dropped 0", self.summary(server))
        RELIEVED.measured(f"{len(lines):,} lines, all delivered in order, dropped 0")

    def test_peer_that_does_not_read(self) -> None:
        """A peer that neither reads nor closes is given its quiet second, and then closed; the stop is clean."""
        server = self.server("--drain-timeout", "30s")
        with server.connect() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KIB)
            peer.sendall(b"hello\n")
            server.wait_output(6)
            began = time.monotonic()
            status = server.stop()
            took = time.monotonic() - began
        self.assertEqual(status, -signal.SIGTERM)
        self.assertIn("1 records in, 1 by file delivered, dropped 0", self.summary(server))
        UNREADING.measured(f"drain timeout 30 s: over after {took:.1f} s, exit clean")

    def test_second_signal(self) -> None:
        """A second SIGTERM ends a process that is waiting for a hung sink."""
        server = self.server("--sink", "stdout:", "--drain-timeout", "60s", "--memory", "8MiB")
        with server.connect() as peer:
            self.fill(server, peer)
            server.send_signal(signal.SIGTERM)
            wait_until(lambda: server.get("readyz").startswith("draining"), "the first signal obeyed")
            server.send_signal(signal.SIGTERM)
            status = server.process.wait(PATIENCE)
        self.assertEqual(status, -signal.SIGTERM)
        TWICE.measured(f"drain timeout 60 s: over at once, status {status}")


class KillTests(DiskCase):
    def test_killed_under_load(self) -> None:
        """However often it is killed, what is in the file are whole lines in order, but for the torn ones counted."""
        folder = tempfile.mkdtemp(prefix="ingest-test-")
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "ingest-data", "ingest.log")
        chance, numbers, repaired = random.Random(1), count(), 0.0
        for _ in range(KILLS + 1):
            server = self.server(folder=folder)
            repaired += server.metrics()["ingest_sink_repaired_lines_total[file]"]
            enough = os.path.getsize(path) + chance.randrange(100_000, 2_000_000)
            with server.connect() as peer:
                while os.path.getsize(path) < enough:
                    peer.sendall(b"".join(b"line %08d %s\n" % (next(numbers), b"." * 80) for _ in range(500)))
                server.process.kill()
                server.process.wait(PATIENCE)
        with open(path, "rb") as stream:
            is_torn = not stream.read().endswith(b"\n")
        lines = read_lines(path)
        whole = [line for line in lines if re.fullmatch(rb"line \d{8} \.{80}", line)]
        self.assertEqual(whole, sorted(set(whole)))
        self.assertLessEqual(len(lines) - len(whole), KILLS + 1)
        self.assertEqual(len(lines) - len(whole), repaired + is_torn)
        KILLED.measured(f"{KILLS + 1} kills under load: {len(whole):,} lines whole and in order, {repaired:.0f} torn")

    def test_killed_in_the_middle_of_a_line(self) -> None:
        """A line that a full disk had let in by half is ended with LF by the next start, counted, and kept as it is."""
        disk = self.mount("-t", "tmpfs", "-o", "size=256k", "tmpfs")
        ballast = os.path.join(disk, "ballast")
        with open(ballast, "wb") as stream:
            stream.write(b"x" * 128 * KIB)
        output = os.path.join(disk, "lines.log")
        server = self.server("--sink", f"file:{output}")
        lines = numbered("line", 3_000)
        server.send(b"\n".join(lines) + b"\n")
        wait_until(lambda: "No space left on device" in server.get("readyz"), "the disk full")
        server.process.kill()
        server.process.wait(PATIENCE)
        left = read_lines(output)
        self.assertEqual(left[:-1], lines[: len(left) - 1])
        self.assertTrue(lines[len(left) - 1].startswith(left[-1]))
        self.assertNotEqual(lines[len(left) - 1], left[-1])
        os.remove(ballast)
        again = self.server("--sink", f"file:{output}")
        again.send(b"after\n")
        wait_until(lambda: read_lines(output)[-1:] == [b"after"], "the next line")
        self.assertEqual(read_lines(output), [*left, b"after"])
        repaired = again.metrics()["ingest_sink_repaired_lines_total[file]"]
        self.assertEqual(repaired, 1)
        again.stop()
        KILLED.measured(f"on a full disk: {len(left) - 1:,} lines whole, {repaired:.0f} torn and counted")
