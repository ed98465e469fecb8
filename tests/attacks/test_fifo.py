"""
Fault: a sink writes to a FIFO whose readers come late, leave in the middle of a record, or are killed.

Cost to a naive receiver: it keeps the FIFO open for itself, so that 64 KiB count as delivered that nobody will see,
or it hangs at the start. Bound proven: a record counts as delivered once it was read; no reader's leaving costs one.
"""

import os
import shutil
import tempfile

from twisted.trial.unittest import TestCase

from tests.attacks.report import Group, Scenario
from tests.server import Server, numbered, wait_until

FIFO = Scenario(
    Group.DISK,
    "A FIFO whose readers come and go",
    "the output file is a FIFO; lines arrive while nobody reads it, and readers leave in the middle of a line",
    "the start succeeds, `/readyz` names the missing reader, senders are held back; nothing counts as delivered before "
    "it was read, and the line that a reader's leaving has cut is begun again for the next",
    ("ingest_sink_up", "ingest_sink_torn_records_total"),
)


class FifoTests(TestCase):
    def test_readers_come_and_go(self) -> None:
        """Lines sent before there is a reader, and while readers leave, are each read whole, once and in order."""
        folder = tempfile.mkdtemp(prefix="ingest-test-")
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "pipe")
        os.mkfifo(path)
        lines = numbered("line", 5000)
        with Server("--sink", f"file:{path}") as server:
            reason = f"sink file: {path}: cannot open: nobody has this FIFO open to read"
            wait_until(lambda: reason in server.get("readyz"), "readiness names the missing reader")
            server.send(b"".join(line + b"\n" for line in lines))
            wait_until(lambda: server.metrics()["ingest_records_total"] == len(lines), "all received")
            found: list[bytes] = []
            for size in (100_050, 250, 101 * len(lines)):
                wait_until(lambda: reason in server.get("readyz"), "the reader's leaving is noticed")
                found += self.read(path, min(size, 101 * (len(lines) - len(found))))
            wait_until(
                lambda: server.metrics()["ingest_sink_delivered_records_total[file]"] == len(lines), "all delivered"
            )
            metrics = server.metrics()
        self.assertEqual(found, lines)
        self.assertEqual(metrics["ingest_sink_torn_records_total[file]"], 2)
        FIFO.measured(f"{len(lines):,} lines through 3 readers, each whole and once; 2 begun again")

    def read(self, path: str, size: int) -> list[bytes]:
        """Read so many bytes and leave; gives the whole lines."""
        data = b""
        with open(path, "rb", buffering=0) as stream:
            while len(data) < size and (more := stream.read(size - len(data))):
                data += more
        return data.split(b"\n")[:-1]

    def test_nobody_ever_reads(self) -> None:
        """At a stop what nobody has read is counted as dropped, in the exit status too."""
        folder = tempfile.mkdtemp(prefix="ingest-test-")
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "pipe")
        os.mkfifo(path)
        with Server("--sink", f"file:{path}", "--drain-timeout", "100ms") as server:
            server.send(b"one\ntwo\n")
            self.assertEqual(server.stop(), 1)
            self.assertTrue(any("2 (shutdown)" in line for line in server.log), server.log)
