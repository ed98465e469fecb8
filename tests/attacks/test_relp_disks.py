"""
Attack: a disk that is slow, fails, is full, or has a FIFO where the file was, under RELP sessions.

Cost to a careless receiver: records answered that no disk has, or refused, which clients of librelp delete. Bound
proven: answers come later, and nothing else changes for the sender.
"""

import os
import signal
import threading

from tests.attacks.disks import DiskCase, read_lines
from tests.attacks.report import Group, Scenario
from tests.relp_client import RelpClient
from tests.server import Server, wait_until
from tests.test_relp_clients import RELP, Omrelp, omrelp
from twisted_ingest.limits import MIB

SLOW = Scenario(
    Group.RELP,
    "A disk whose syncs take long",
    "`fdatasync` takes a third of a second, rsyslog's `omrelp` sends",
    "its session waits; nothing is refused, and nothing sent twice",
    ("ingest_relp_ack_seconds", "ingest_relp_waiting_frames"),
)
FAILING = Scenario(
    Group.RELP,
    "A sync that fails under a session",
    "`fdatasync` fails with EIO once",
    "nothing is answered but from a new file; that and the one put aside hold every answered record",
    ("ingest_sink_sync_failures_total", "ingest_relp_waiting_frames"),
)
FULL = Scenario(
    Group.RELP,
    "A full disk under a session",
    "`write` fails with ENOSPC until somebody makes room",
    "answers are withheld, never refusals; all is answered, in the same session, when there is room",
    ("ingest_sink_up", "ingest_relp_waiting_frames"),
)
FIFO = Scenario(
    Group.RELP,
    "A FIFO in the file's place",
    "the file is renamed, a FIFO put where it was, SIGHUP sent",
    "nothing is written to what cannot be synced, and nothing answered, until a regular file can be made there; "
    "`/readyz` says what to do",
    ("ingest_sink_up", "ingest_sink_retries_total"),
)

WINDOW = 16
"""Records our own client sends ahead of their answers."""


class TroubledDiskTests(DiskCase):
    """What a client sees of a disk that is slow, fails, or is full: answers that come later, and nothing else."""

    def check_session(self, server: Server, records: list[bytes]) -> None:
        """Send with a window: everything is answered in one session, and nothing refused."""
        with RelpClient(server.port, patience=60.0) as client:
            client.open()
            for record in records:
                client.send(record)
                if len(client.unanswered) >= WINDOW:
                    client.settle()
            while client.unanswered:
                client.settle()
            self.assertEqual((client.answered, client.refused), (records, []))
            client.close()
        self.assertEqual(server.metrics()["ingest_conservation_error"], 0)

    def test_slow(self) -> None:
        """While the disk takes its time omrelp's session waits; nothing is refused, and nothing sent twice."""
        path = omrelp()
        server = self.server(RELP, prefix=self.broken("fdatasync:delay_exit=300000"))
        sender = Omrelp(path, server.port)
        self.addCleanup(sender.stop)
        lines = [b"<13>%06d" % number for number in range(300)]
        sender.feed(lines)
        wait_until(lambda: server.output().count(b"\n") >= 300, "all lines", 60)
        self.assertEqual(server.output().splitlines(), lines)
        values = server.metrics()
        self.assertEqual(values["ingest_connections_opened_total"], 1)
        self.assertEqual(sum(n for name, n in values.items() if name.startswith("ingest_relp_errors")), 0)
        SLOW.measured(f"{len(lines)} lines in one session, none twice")

    def test_failing(self) -> None:
        """After a failed sync nothing is answered but from a new file: the two together hold every answered record."""
        server = self.server(RELP, prefix=self.broken("fdatasync:error=EIO:when=5"))
        records = [b"record %06d" % number for number in range(500)]
        self.check_session(server, records)
        self.assertEqual(server.metrics()["ingest_sink_sync_failures_total[file]"], 1)
        aside = read_lines(f"{server.path}.failed-1")
        fresh = read_lines(server.path)
        self.assertEqual(list(dict.fromkeys(aside + fresh)), records)
        # What four syncs of the first file had not covered is in the new one whole; no more was open than the window.
        self.assertEqual(fresh, records[-len(fresh) :])
        copies = len(aside) + len(fresh) - len(records)
        self.assertLessEqual(copies, WINDOW)
        FAILING.measured(
            f"{len(records)} records answered in one session; {copies} in both files, of a window of {WINDOW}"
        )

    def test_full(self) -> None:
        """On a full disk answers are withheld, never refused, and all is answered when there is space again."""
        disk = self.mount("-t", "tmpfs", "-o", "size=2m", "tmpfs")
        ballast, output = os.path.join(disk, "ballast"), os.path.join(disk, "out")
        with open(ballast, "wb") as stream:
            stream.write(b"x" * (MIB + MIB // 2))
        server = self.server(RELP, f"--sink=file:{output}")
        records = [b"record %06d " % number + b"." * 500 for number in range(2000)]
        waiting: list[float] = []

        def relieve() -> None:
            wait_until(lambda: "No space left on device" in server.get("readyz"), "readiness says why")
            waiting.extend(n for name, n in server.metrics().items() if name.startswith("ingest_relp_waiting_frames"))
            os.remove(ballast)

        relief = threading.Thread(target=relieve)
        relief.start()
        self.check_session(server, records)
        relief.join()
        self.assertTrue(0 < sum(waiting) <= WINDOW, waiting)
        self.assertEqual(read_lines(output), records)
        FULL.measured(f"{len(records):,} records answered in one session, each there once; {sum(waiting):.0f} waited")

    def test_fifo(self) -> None:
        """While a FIFO is where the file was nothing is written or answered; then everything is, from a file."""
        server = self.server(RELP)
        records = [b"record %06d" % number for number in range(20)]
        with RelpClient(server.port) as client:
            client.open()
            client.send(records[0])
            client.settle()
            os.rename(server.path, f"{server.path}.1")
            os.mkfifo(server.path)
            reader = os.open(server.path, os.O_RDONLY | os.O_NONBLOCK)
            self.addCleanup(os.close, reader)
            server.send_signal(signal.SIGHUP)
            for record in records[1:]:
                client.send(record)
            wait_until(lambda: "put a regular file there" in server.get("readyz"), "readiness says what to do")
            waiting = len(records) - 1
            wait_until(lambda: server.metrics()["ingest_relp_waiting_frames[relp-0]"] == waiting, "all wait")
            self.assertEqual(os.read(reader, 1), b"")
            os.remove(server.path)
            while client.unanswered:
                client.settle()
            self.assertEqual((client.answered, client.refused), (records, []))
        self.assertEqual((read_lines(f"{server.path}.1"), read_lines(server.path)), (records[:1], records[1:]))
        FIFO.measured(f"{waiting} records waited, none in the FIFO; all in the next file before their answers")
