"""
Fault: a stop, or a start, that lies.

Lines of peers that were held back, or that send after it, vanish unseen; a start that has failed seems to go on.

Cost to a naive receiver: up to a receive window of lines for each peer, the next line of every silent sender, a
supervisor that waits for ever. Bound proven: what the kernel had is read or counted, the sender learns of the end, and
the command that started the server learns of its.
"""

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile

from tests.attacks.disks import DiskCase
from tests.attacks.report import Group, Scenario
from tests.server import PATIENCE, Server, numbered, wait_until

HELD_BACK = Scenario(
    Group.PROCESS,
    "SIGTERM with peers over their rate",
    "under --rate two peers have sent eight seconds' worth; one has closed, the other has reset; then SIGTERM",
    "rates are lifted: what the kernel holds of both is read and delivered",
    ("ingest_unread_at_close_bytes_total", 'ingest_connections_paused{reason="rate"}'),
)
SILENT = Scenario(
    Group.PROCESS,
    "SIGTERM with a silent sender",
    "a plain sender that looks for no FIN is silent during a stop, and sends its next line afterwards",
    "its connection is reset once it is silent and nothing of it waits: the line fails there, and does not vanish",
    ('ingest_connections_closed_total{reason="drain"}',),
)
FAILED = Scenario(
    Group.PROCESS,
    "A start that fails, as a daemon",
    "`twistd ingest` without `-n` meets an address in use, or a sink that cannot be opened",
    "one line on standard error and one in the log, exit status 1, no pid file, nothing left running",
    ("ingest_ready",),
)


def summary(server: Server) -> str:
    """Give the last word of a server that has ended."""
    (line,) = [line for line in server.log if "stopped: " in line]
    return line


class RateTests(DiskCase):
    def test_rates_do_not_outlive_a_stop(self) -> None:
        """What peers over their rate had sent is read at a stop, though one has closed and the other has reset."""
        server = self.server("--rate", "10/s")
        lines = numbered("line", 160)
        for ours, ending in ((lines[:80], struct.pack("ii", 0, 0)), (lines[80:], struct.pack("ii", 1, 0))):
            peer = server.connect()
            peer.sendall(b"\n".join(ours[:30]) + b"\n")
            wait_until(lambda: server.metrics()["ingest_connections_paused[rate]"], "a peer at rest")
            peer.sendall(b"\n".join(ours[30:]) + b"\n")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ending)
            peer.close()
        self.assertEqual(server.stop(), -signal.SIGTERM)
        self.assertEqual(sorted(server.output().splitlines()), lines)
        self.assertIn("160 by file delivered, dropped 0, 0 records cut off by the stop, 0 bytes", summary(server))
        HELD_BACK.measured(f"{len(lines)} lines, each there once; 0 bytes left unread")


class SilentTests(DiskCase):
    def test_silent_sender(self) -> None:
        """A sender that is silent while we stop sees its next write fail: its line does not vanish."""
        server = self.server()
        with server.connect() as peer:
            peer.sendall(b"before\n")
            server.wait_output(7)
            self.assertEqual(server.stop(), -signal.SIGTERM)
            with self.assertRaises((BrokenPipeError, ConnectionResetError)) as failed:
                peer.sendall(b"after\n")
        self.assertIn(" info ", summary(server))
        SILENT.measured(f"its first write after the stop fails: {failed.exception.strerror}")


class FailedStartTests(DiskCase):
    def test_failed_start(self) -> None:
        """The command of a daemon that cannot start ends with a line and a status; nothing is left running."""
        folder = tempfile.mkdtemp(prefix="ingest-test-")
        self.addCleanup(shutil.rmtree, folder)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            for words in (
                ["--listen", endpoint],
                ["--listen", "tcp:0:interface=127.0.0.1", "--sink", f"file:{folder}"],
            ):
                command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "ingest", *words]
                # Its standard error is a pipe: that this ends means that nobody holds it any more.
                ended = subprocess.run(
                    [*command, "--admin", "off"],
                    cwd=folder,
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    check=False,
                )
                self.assertEqual((ended.returncode, ended.stdout, ended.stderr.count("\n")), (1, "", 1))
                with open(os.path.join(folder, "twistd.log")) as stream:
                    self.assertIn(ended.stderr, stream.read())
        self.assertEqual(os.listdir(folder), ["twistd.log"])
        FAILED.measured("both end with status 1 and their line; no pid file, no process")
