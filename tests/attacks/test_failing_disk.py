"""
Fault: system calls on the disk fail, take seconds, or find it read-only.

Cost to a naive receiver: lines dropped, an acknowledged line that is not on the disk, or a server that stands still.
Bound proven: no line is missing or torn, none doubled but where a sync failed; everybody else is served meanwhile.
"""

import os
import subprocess
import threading

from tests.attacks.disks import DiskCase, read_lines, split
from tests.attacks.report import Group, Scenario
from tests.server import Server, numbered, wait_until
from twisted_ingest.limits import KIB
from twisted_ingest.storage.trouble import STALL_SECONDS

SYNC_SECONDS = max(STALL_SECONDS + 2, float(os.environ.get("INGEST_TEST_STALL_SECONDS", "0")))
"""How long the slow sync takes; `make slow` sets ten."""

EIO_WRITE = Scenario(
    Group.DISK,
    "A write that fails",
    "`writev` fails several times in a row (EIO; EROFS, until it is mounted anew) under load",
    "it is tried again from the byte where it stopped, with growing waits; the lines come late, whole and once",
    ("ingest_sink_retries_total", "ingest_sink_up"),
)
EIO_SYNC = Scenario(
    Group.DISK,
    "A sync that fails",
    "`fdatasync` fails with EIO once, under `fsync=always`",
    "that file is never synced again: it is put aside as `NAME.failed-1`, and what is not acknowledged yet is written "
    "again to a new one",
    ("ingest_sink_sync_failures_total", "ingest_sink_rewritten_bytes_total"),
)
EIO_SYNCS = Scenario(
    Group.DISK,
    "A device whose every sync fails",
    "`fdatasync` fails with EIO, again and again",
    "senders wait; one file is put aside, those after it hold nothing acknowledged and are removed",
    ("ingest_sink_sync_failures_total", "ingest_sink_up"),
)
SLOW_SYNC = Scenario(
    Group.DISK,
    "A sync that takes seconds",
    "`fdatasync` returns late while lines keep coming",
    "reading goes on within the budget, the admin pages answer; `/readyz` says for how long the sync has not returned",
    (
        "ingest_sink_sync_seconds_total",
        "ingest_sink_syncs_total",
        "ingest_sink_up",
        "ingest_event_loop_lag_seconds",
    ),
)
READ_ONLY = Scenario(
    Group.DISK,
    "A file system that turns read-only",
    "the kernel meets an error in the file system and stops writing to it",
    "senders wait; it cannot be repaired while a file is open on it, so a stop says what it has not written (exit "
    "status 1), and after the repair a start goes on in the same file",
    ("ingest_sink_retries_total", "ingest_sink_up", 'ingest_dropped_records_total{reason="shutdown"}'),
)


class FailingDiskTests(DiskCase):
    def delivered(self, server: Server, count: int) -> None:
        """Wait until the sink has taken so many."""
        name = "ingest_sink_delivered_records_total[file]"
        wait_until(lambda: server.metrics()[name] == count, f"{count} lines delivered")

    def send_in_parts(self, server: Server, lines: list[bytes]) -> None:
        """Send lines in ten parts, each delivered before the next, for ten writes and syncs at least."""
        count = 0
        for part in split(lines, 10):
            server.send(b"\n".join(part) + b"\n")
            count += len(part)
            self.delivered(server, count)

    def test_writes_fail(self) -> None:
        """Writes that fail in the middle of a load cost time and not one line, whatever the reason."""
        for error, text in (("EIO", "Input/output error"), ("EROFS", "Read-only file system")):
            server = self.server(prefix=self.broken(f"writev:error={error}:when=3..6"))
            lines = numbered("line", 20_000)
            self.send_in_parts(server, lines)
            self.assertEqual(read_lines(server.path), lines)
            metrics = server.metrics()
            # The first is met without the interpreter's lock, and left to the writer, whose first try is no retry.
            self.assertIn(metrics["ingest_sink_retries_total[file]"], (3, 4))
            self.assertEqual(metrics["ingest_sink_up[file]"], 1)
            self.assertTrue(any(f"cannot write: {text}" in line for line in server.log))
            EIO_WRITE.measured(f"4 times {error}: {len(lines):,} lines, each there once, whole and in order")

    def test_one_sync_fails(self) -> None:
        """After a sync that failed every line is in the files, doubled only where counted, and none is torn."""
        server = self.server(
            "--sink", "file:ingest-data/ingest.log?fsync=always", prefix=self.broken("fdatasync:error=EIO:when=3")
        )
        lines = numbered("line", 20_000)
        self.send_in_parts(server, lines)
        written = read_lines(server.path + ".failed-1", server.path)
        self.assertEqual(sorted(set(written)), lines)
        metrics = server.metrics()
        doubled = sum(len(line) + 1 for line in written) - sum(len(line) + 1 for line in lines)
        self.assertEqual(doubled, metrics["ingest_sink_rewritten_bytes_total[file]"])
        self.assertEqual(metrics["ingest_sink_sync_failures_total[file]"], 1)
        EIO_SYNC.measured(f"{len(lines):,} lines, none missing or torn, {doubled:,} bytes in both files, as counted")

    def test_every_sync_fails(self) -> None:
        """A device that fails every sync leaves one file put aside; when it works again nothing is missing."""
        server = self.server(
            "--sink", "file:ingest-data/ingest.log?fsync=always", prefix=self.broken("fdatasync:error=EIO:when=2..5")
        )
        server.send(b"one\n")
        self.delivered(server, 1)
        server.send(b"two\n")
        wait_until(lambda: "cannot sync" in server.get("readyz"), "readiness says why")
        self.delivered(server, 2)
        names = sorted(os.listdir(os.path.dirname(server.path)))
        self.assertEqual(names, ["ingest.log", "ingest.log.failed-1"])
        self.assertEqual(read_lines(server.path + ".failed-1", server.path), [b"one", b"two", b"two"])
        failures = server.metrics()["ingest_sink_sync_failures_total[file]"]
        self.assertEqual(failures, 4)
        EIO_SYNCS.measured(f"{failures:.0f} syncs in a row failed: {len(names) - 1} file put aside, no line missing")

    def test_slow_sync(self) -> None:
        """While a sync hangs other connections are read, the health pages answer, and readiness tells."""
        delay = f"fdatasync:delay_enter={SYNC_SECONDS * 1e6:.0f}:when=2"
        server = self.server(
            "--sink", "file:ingest-data/ingest.log?fsync=always", "--memory", "4MiB", "--connection-memory", "256KiB",
            prefix=self.broken(delay),
        )  # fmt: skip
        server.send(b"before\n")
        self.delivered(server, 1)
        lag = Lag(server)
        server.send(b"held\n")
        lines = numbered("line", 100_000)
        sender = threading.Thread(target=server.send, args=(b"\n".join(lines) + b"\n",), daemon=True)
        sender.start()
        wait_until(lambda: "a sync has not returned for" in server.get("readyz"), "readiness says why", SYNC_SECONDS)
        self.assertEqual(server.get("healthz"), "ok\n")
        metrics = server.metrics()
        self.assertEqual(metrics["ingest_sink_up[file]"], 0)
        self.assertEqual(metrics["ingest_sink_delivered_records_total[file]"], 1)
        self.assertGreater(metrics["ingest_received_bytes_total"], 64 * KIB)
        self.assertLessEqual(metrics["ingest_budget_used_bytes"], metrics["ingest_budget_bytes"])
        with server.connect() as other:
            other.sendall(b"of another connection\n")
            wait_until(lambda: server.metrics()["ingest_records_total"] > metrics["ingest_records_total"], "it is read")
        self.delivered(server, len(lines) + 3)
        sender.join(60)
        metrics = server.metrics()
        self.assertGreater(metrics["ingest_sink_sync_seconds_total[file]"], SYNC_SECONDS)
        expected = {b"before", b"held", b"of another connection", *lines}
        self.assertEqual(sorted(read_lines(server.path)), sorted(expected))
        wait_until(lambda: any(": writing again" in line for line in server.log), "the end is logged")
        self.assertEqual(server.get("readyz"), "ready\n")
        SLOW_SYNC.measured(
            f"a sync of {SYNC_SECONDS:.0f} s: {len(lines):,} lines of others waited within 4 MiB, none missing; "
            f"the reactor was late by {lag.mean() * 1000:.1f} ms in the mean"
        )

    def test_read_only(self) -> None:
        """A file system turned read-only by an error holds the senders back; a start after its repair goes on."""
        disk, device = self.ext4()
        output = f"file:{disk}/lines.log?fsync=always"
        server = self.server("--sink", output, "--drain-timeout", "1s")
        first, second = split(numbered("line", 5_000), 2)
        server.send(b"\n".join(first) + b"\n")
        self.delivered(server, len(first))
        with open(f"/sys/fs/ext4/{os.path.basename(device)}/trigger_fs_error", "w") as trigger:
            trigger.write("planted by a test")
        server.send(b"\n".join(second) + b"\n")
        wait_until(lambda: "Read-only file system" in server.get("readyz"), "readiness says why")
        self.assertEqual(server.stop(), 1)
        kept = f"{len(first)} by file delivered, dropped {len(second)} (shutdown)"
        self.assertTrue(any(kept in line for line in server.log), server.log)
        subprocess.run(["umount", disk], check=True)
        subprocess.run(["e2fsck", "-p", "-f", device], check=False, capture_output=True)
        subprocess.run(["mount", device, disk], check=True)
        again = self.server("--sink", output)
        again.send(b"after\n")
        self.delivered(again, 1)
        self.assertEqual(read_lines(os.path.join(disk, "lines.log")), [*first, b"after"])
        again.stop()
        READ_ONLY.measured(
            f"{len(first):,} lines delivered before it, all there after the repair; {len(second):,} held back until "
            "the stop, counted as dropped, exit status 1"
        )


class Lag:
    """How late the reactor is from now on."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._before = self._look()

    def _look(self) -> tuple[float, float]:
        metrics = self._server.metrics()
        return metrics["ingest_event_loop_lag_seconds_sum"], metrics["ingest_event_loop_lag_seconds_count"]

    def mean(self) -> float:
        """Give the mean, in seconds."""
        (since, before), (now, count) = self._before, self._look()
        return (now - since) / (count - before)
