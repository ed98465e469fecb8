"""
Fault: the file system has space and no inodes, so that no file can be made.

Cost to a naive receiver: lines lost between the old file and the new one, and an operator who looks at the free space
and finds plenty. Bound proven: senders are held back, the reason is called by its name, and nothing is missing after.
"""

import errno
import itertools
import os
import signal
import threading

from tests.attacks.disks import DiskCase, read_lines
from tests.attacks.report import Group, Scenario
from tests.server import PATIENCE, Server, numbered, wait_until
from twisted_ingest.limits import SPARE_INODES

ROTATED = Scenario(
    Group.DISK,
    "No inodes left at a rotation",
    "the output file is renamed, SIGHUP comes, and no new file can be made although there is space",
    "senders are held back, one line of the log and `/readyz` name the inodes; the new file is made when one is free",
    ("ingest_sink_up", "ingest_sink_retries_total", "ingest_paused_connections"),
)
SPOOLED = Scenario(
    Group.DISK,
    "No inodes left for a spool",
    "the spool can make neither its next segment nor a new position although there is space",
    "what the open segment has room for is taken, then senders are held back, and it is told of as above; segments "
    "leave a few inodes for the position, so that it goes on by itself when some are free",
    ("ingest_sink_up", "ingest_paused_connections"),
)

SPOOL = """
[sinks.file]
type = "file"
path = "{folder}/lines.log"
spool = true

[spool]
directory = "{disk}/spool"
max_bytes = "4MiB"
free_space_floor = "off"
"""


class NoInodesTests(DiskCase):
    def setUp(self) -> None:
        self.disk = self.mount("-t", "tmpfs", "-o", "size=64m,nr_inodes=32", "tmpfs")

    def use_up(self) -> list[str]:
        """Make files until there can be no more; gives them."""
        paths: list[str] = []
        with self.assertRaises(OSError) as raised:
            for path in (os.path.join(self.disk, f"hog-{number}") for number in itertools.count()):
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
                paths.append(path)
        self.assertEqual(raised.exception.errno, errno.ENOSPC)
        return paths

    def start(self, *flags: str) -> Server:
        """Start a server that holds little, and have its first line delivered."""
        server = self.server(*flags, "--memory", "4MiB", "--connection-memory", "256KiB")
        server.send(b"first\n")
        self.delivered(server, 1)
        return server

    def delivered(self, server: Server, count: int) -> None:
        """Wait until the sink has taken so many."""
        name = "ingest_sink_delivered_records_total[file]"
        wait_until(lambda: server.metrics()[name] == count, f"{count} lines delivered")

    def outlast(self, server: Server, lines: list[bytes], hogs: list[str], reason: str) -> None:
        """Send lines, see their sender held back and the reason told in one line, make room, and wait for them."""
        sender = threading.Thread(target=server.send, args=(b"\n".join(lines) + b"\n",), daemon=True)
        sender.start()
        wait_until(lambda: "no inodes are left" in server.get("readyz"), "readiness names it")
        wait_until(lambda: any(reason in line for line in server.log), "the log names it")
        wait_until(lambda: server.metrics()["ingest_paused_connections"] == 1, "the sender held back")
        self.assertEqual(server.metrics()["ingest_sink_up[file]"], 0)
        for hog in hogs[: 4 * SPARE_INODES]:
            os.remove(hog)
        self.delivered(server, len(lines) + 1)
        sender.join(PATIENCE)
        wait_until(lambda: server.get("readyz") == "ready\n", "ready again")
        self.assertEqual(server.metrics()["ingest_conservation_error"], 0)
        self.assertEqual(sum(reason in line for line in server.log), 1)

    def test_rotation(self) -> None:
        """A file that cannot be made for want of an inode is waited for; no line is missing, torn or doubled."""
        output = os.path.join(self.disk, "lines.log")
        server = self.start("--sink", f"file:{output}")
        hogs = self.use_up()
        os.rename(output, f"{output}.1")
        server.send_signal(signal.SIGHUP)
        lines = numbered("line", 50_000)
        reason = f"sink file: {output}: cannot open: no inodes are left on the file system of {self.disk} (see df -i)"
        self.outlast(server, lines, hogs, reason)
        self.assertEqual(read_lines(f"{output}.1"), [b"first"])
        self.assertEqual(read_lines(output), lines)
        ROTATED.measured(f"{len(lines):,} lines, each in the new file once, whole and in order")

    def test_spool(self) -> None:
        """A spool without an inode for its next file holds the senders back, and then brings everything to its sink."""
        folder = self.folder()
        config = os.path.join(folder, "ingest.toml")
        with open(config, "w") as stream:
            stream.write(SPOOL.format(folder=folder, disk=self.disk))
        server = self.start("--config", config, "--listen", "tcp:0:interface=127.0.0.1")
        hogs = self.use_up()
        lines = numbered("line", 50_000)
        reason = f"sink file (spool): no inodes are left on the file system of {self.disk}/spool"
        self.outlast(server, lines, hogs, reason)
        output = os.path.join(folder, "lines.log")
        wait_until(lambda: len(read_lines(output)) == len(lines) + 1, "everything brought to the sink")
        self.assertEqual(read_lines(output), [b"first", *lines])
        SPOOLED.measured(f"{len(lines):,} lines through segments of 1 MiB, each delivered once and in order")
