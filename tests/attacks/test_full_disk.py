"""
Fault: the disk is full.

Cost to a naive receiver: lines dropped, torn, or held in memory without bound. Bound proven: the budget; senders are
held back, readiness says why, and when space returns every line is there once, whole and in order.
"""

import os
import shutil
import subprocess
import tempfile
import threading

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.attacks.report import Group, Scenario
from tests.server import Server, numbered, wait_until
from twisted_ingest.limits import KIB, MIB

FULL = Scenario(
    Group.DISK,
    "A full disk",
    "`write` fails with ENOSPC under load",
    "nothing is dropped: the write is tried again from the byte where it stopped, the budget fills, senders wait; "
    "`/readyz` says why",
    ("ingest_sink_up", "ingest_paused_connections"),
)


class FullDiskTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = tempfile.mkdtemp(prefix="ingest-disk-")
        self.addCleanup(shutil.rmtree, self.disk)
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", self.disk]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            raise SkipTest("needs to mount a small tmpfs (root, or a user namespace that may)")
        self.addCleanup(subprocess.run, ["umount", self.disk], check=True)

    def test_space_returns(self) -> None:
        """A full disk holds the senders back; when there is space again not a line is missing, torn or doubled."""
        ballast = os.path.join(self.disk, "ballast")
        with open(ballast, "wb") as stream:
            stream.write(b"x" * (MIB + MIB // 2))
        output = os.path.join(self.disk, "lines.log")
        server = Server("--sink", f"file:{output}", "--memory", "4MiB", "--connection-memory", "256KiB")
        self.addCleanup(server.kill)
        server.wait_ready()
        resting = server.rss()
        lines = numbered("line", 18_000)

        def send() -> None:
            with server.connect() as peer:
                peer.sendall(b"\n".join(lines) + b"\n")

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        wait_until(lambda: "No space left on device" in server.get("readyz"), "readiness says why")
        wait_until(lambda: server.metrics()["ingest_paused_connections"] == 1, "the sender held back")
        grown = server.rss() - resting
        self.assertLess(grown, 16 * MIB)
        self.assertEqual(server.metrics()["ingest_sink_up[file]"], 0)
        os.remove(ballast)
        wait_until(lambda: os.path.getsize(output) >= sum(len(line) + 1 for line in lines), "all lines")
        sender.join(60)
        with open(output, "rb") as written:
            self.assertEqual(written.read().splitlines(), lines)
        wait_until(lambda: server.get("readyz") == "ready\n", "ready again")
        self.assertEqual(server.metrics()["ingest_conservation_error"], 0)
        FULL.measured(
            f"{len(lines):,} lines, each there once, whole and in order; {grown // KIB:,} KiB more resident while full"
        )
