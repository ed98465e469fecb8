"""A real process with a spool: what it has taken survives SIGKILL and a sink that cannot be written to."""

import os
import re
import shutil
import signal
import socket
import tempfile
import threading

from twisted.trial.unittest import SynchronousTestCase

from tests.server import Server, numbered, wait_until
from twisted_ingest.spool.disk import RealDisk
from twisted_ingest.spool.position import Position, write_position

ROUNDS = int(os.environ.get("INGEST_TEST_RESTARTS", "3"))


class SpoolServerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="ingest-test-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.output = os.path.join(self.folder, "out.log")

    def server(self, sink: str, *flags: str) -> Server:
        """Start a process in the folder, and wait until it is ready."""
        server = Server("--sink", sink, *flags, folder=self.folder)
        self.addCleanup(server.kill)
        server.wait_ready()
        return server

    def end(self, server: Server) -> None:
        """Kill a process the hard way."""
        server.process.kill()
        server.process.wait(60)

    def lines(self) -> list[bytes]:
        """Give what the sink behind has written."""
        with open(self.output, "rb") as stream:
            return stream.read().splitlines()

    def test_stalled_and_killed(self) -> None:
        """Behind a spool a full disk holds nobody up; killed twice, everything arrives once space is there, once."""
        os.symlink("/dev/full", self.output)
        sink = f"file:{self.output}?spool=true"
        sent = self.stall_and_kill(sink, "first", 0)
        sent += self.stall_and_kill(sink, "second", len(sent))
        os.unlink(self.output)
        server = self.server(sink)
        wait_until(lambda: server.metrics()["ingest_sink_spool_waiting_records[file]"] == 0, "replayed")
        self.assertEqual(self.lines(), sent)
        self.assertEqual(server.metrics()["ingest_conservation_error"], 0)
        server.stop()
        # Nothing comes again.
        again = self.server(sink)
        self.assertTrue(any("0 records (0B) wait" in line for line in again.log), again.log)

    def test_a_position_of_another_spool(self) -> None:
        """With a position beyond everything that waits, all of it is delivered, and the log and a count say why."""
        os.symlink("/dev/full", self.output)
        sink = f"file:{self.output}?spool=true"
        sent = self.stall_and_kill(sink, "first", 0)
        os.unlink(self.output)
        directory = os.path.join(self.folder, "ingest-data", "spool", "sink-file")
        write_position(RealDisk(), directory, Position(1_000_000, 50))
        server = self.server(sink)
        self.wait_empty(server)
        self.assertEqual(self.lines(), sent)
        self.assertEqual(server.metrics()["ingest_sink_spool_lost_positions_total[file]"], 1)
        told = "the position, 1000000, is beyond all there is, and is now position.unreadable"
        self.assertTrue(any(directory in line and told in line for line in server.log), server.log)

    def test_a_file_that_cannot_be_opened(self) -> None:
        """With a file behind it that may not be made the process starts, takes, and says what waits for what."""
        server = self.server("file:/sys/none/out.log?spool=true")
        server.send(b"one\n")
        wait_until(lambda: _taken(server) == 1, "taken")
        wait_until(lambda: server.metrics()["ingest_sink_spool_replaying[file]"] == 0, "the stall shown")
        self.assertEqual(server.get("readyz"), "ready\n")
        wait_until(lambda: "which keeps what comes (" in server.get("status"), "named in /status")
        self.assertIn("trying again, its spool keeps records meanwhile", server.get("status"))
        # By the thread that writes: an open may hang.
        wait_until(lambda: server.metrics()["ingest_sink_retries_total[file]"] > 1, "tried again")
        wait_until(
            lambda: any("sink file:" in line and "cannot open" in line for line in server.log), "named in the log"
        )
        self.assertEqual(server.stop(signal.SIGTERM), -signal.SIGTERM)
        again = self.server("file:out.log?spool=true")
        self.wait_empty(again)
        self.assertEqual(self.lines(), [b"one"])

    def stall_and_kill(self, sink: str, prefix: str, waiting: int) -> list[bytes]:
        """Have the spool take lines for a sink that takes none, and kill it; gives the lines."""
        server = self.server(sink)
        self.assertTrue(any(f"{waiting} records" in line for line in server.log), server.log)
        lines = numbered(prefix, 3000)
        server.send(b"\n".join(lines) + b"\n")
        wait_until(lambda: _taken(server) == len(lines), "taken")
        in_spool = waiting + len(lines)
        wait_until(lambda: server.metrics()["ingest_sink_spool_waiting_records[file]"] == in_spool, "waiting")
        wait_until(lambda: server.metrics()["ingest_sink_spool_replaying[file]"] == 0, "the stall shown")
        self.assertEqual(server.get("readyz"), "ready\n")
        self.assertEqual(server.metrics()["ingest_conservation_error"], 0)
        self.end(server)
        return lines

    def test_killed_under_load(self) -> None:
        """Killed at any moment, what counted as taken before arrives, the first copies in order."""
        for run in range(ROUNDS):
            prefix = f"run{run}"
            taken = self.load_and_kill(prefix)
            server = self.server(f"file:{self.output}?spool=true")
            self.wait_empty(server)
            self.assertEqual(server.stop(signal.SIGTERM), -signal.SIGTERM)
            # A killed process may leave half a line, which the next one ends.
            whole = re.compile(prefix.encode() + rb" (\d{8})")
            found = [int(match[1]) for line in self.lines() if (match := whole.fullmatch(line))]
            first_copies = list(dict.fromkeys(found))
            self.assertEqual(first_copies, list(range(len(first_copies))))
            self.assertGreaterEqual(len(first_copies), taken)

    def wait_empty(self, server: Server) -> None:
        """Wait until nothing is left in the spool."""
        wait_until(lambda: server.metrics()["ingest_sink_spool_waiting_batches[file]"] == 0, "replayed")

    def load_and_kill(self, prefix: str) -> int:
        """Pour lines in and kill the process meanwhile; gives how many it had counted as taken, which are some."""
        server = self.server(f"file:{self.output}?spool=true")
        stopping = threading.Event()
        sender = threading.Thread(target=_pour, args=(server, prefix, stopping), daemon=True)
        sender.start()
        wait_until(lambda: _taken(server) > 1000, "some taken")
        taken = _taken(server)
        self.end(server)
        stopping.set()
        sender.join(60)
        return taken

    def test_two_processes(self) -> None:
        """A second process on the same spool says what is wrong and exits with 1."""
        self.server(f"file:{self.output}?spool=true")
        other = Server("--sink", "file:other.log?spool=true", folder=self.folder)
        self.addCleanup(other.kill)
        self.assertEqual(other.process.wait(60), 1)
        other._reader.join(60)
        self.assertTrue(any(re.search("error: .*in use by another process", line) for line in other.log), other.log)


def _taken(server: Server) -> int:
    return int(server.metrics()["ingest_sink_delivered_records_total[file]"])


def _pour(server: Server, prefix: str, stopping: threading.Event) -> None:
    """Send numbered lines until told to stop, or the server is gone."""
    number = 0
    try:
        with socket.create_connection(("127.0.0.1", server.port), 20) as peer:
            while not stopping.is_set():
                peer.sendall(b"".join(f"{prefix} {n:08d}\n".encode() for n in range(number, number + 100)))
                number += 100
    except OSError:
        pass
