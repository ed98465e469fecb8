"""
Attack on our own log: its reader stalls, or peers make us write.

Cost to the attacker: a malformed line each. Cost to a careless receiver: a reactor that waits for its log, or a disk
full of it. Bound proven: a queue of lines that nobody waits for; ten lines of a kind in ten seconds.
"""

import fcntl
import struct
import termios

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.attacks.report import Group, Scenario
from tests.server import Server, numbered, wait_until
from twisted_ingest.limits import MIB
from twisted_ingest.observe.folding import BURST, INTERVAL_SECONDS
from twisted_ingest.testing import Rig

ERRORS = 10_000

STALLED = Scenario(
    Group.OURSELVES,
    "A stalled reader of our log",
    "nobody reads our standard error, a pipe, and it is full",
    "records go on: lines of the log wait in a bounded queue for a thread of their own, past it they are dropped and "
    "counted; a stop waits half a second for them",
    ("ingest_log_dropped_total",),
)
FOLDED = Scenario(
    Group.OURSELVES,
    "A flood of errors",
    "10,000 protocol errors within a second",
    "each is counted; ten of a kind are logged, then one line after ten seconds says how many were folded",
    ("ingest_log_suppressed_total", "ingest_truncated_records_total"),
)

WRONG = (
    b"GET / HTTP/1.1\r\n",
    b"SSH-2.0-x\r\n",
    b"\x16\x03\x01\x00\xc8\x01",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
)
"""Beginnings of other protocols; each is a kind of event."""


class OwnLogTests(SynchronousTestCase):
    def server(self, *flags: str) -> Server:
        server = Server(*flags)
        self.addCleanup(server.kill)
        server.wait_ready()
        return server

    def waiting(self, server: Server) -> int:
        """Count the bytes of the log that nobody has read."""
        assert server.process.stderr is not None
        answer = fcntl.ioctl(server.process.stderr, termios.FIONREAD, b"\0\0\0\0")
        return int(struct.unpack("i", answer)[0])

    def test_stalled_reader(self) -> None:
        """With standard error full and unread, lines are delivered, pages answer, and a stop ends in time."""
        server = self.server()
        assert server.process.stderr is not None
        # One page: full as soon as something is in it.
        fcntl.fcntl(server.process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        server.reads_log.clear()
        known = len(server.log)
        server.send(b"a line that has its connection logged\n")
        wait_until(lambda: len(server.log) > known, "the last line that is read")
        for beginning in WRONG * BURST:
            with server.connect() as peer:
                peer.sendall(beginning)
        wait_until(lambda: self.waiting(server), "a full pipe")
        full = self.waiting(server)
        before = len(server.output())
        lines = numbered("line", 50_000)
        server.send(b"\n".join(lines) + b"\n")
        written = server.wait_output(before + sum(len(line) + 1 for line in lines))
        self.assertEqual(written.splitlines()[-len(lines) :], lines)
        # Nobody has read any of it; a short line may have found room in the page meanwhile.
        self.assertGreaterEqual(self.waiting(server), full)
        self.assertEqual(server.metrics()["ingest_conservation_error"], 0)
        server.process.terminate()
        server.process.wait(60)
        STALLED.measured(f"{len(lines):,} lines delivered meanwhile, each once and in order; a stop came to its end")

    def test_flood_of_errors(self) -> None:
        """Ten thousand oversize records sent at once are counted one by one and logged ten times."""
        server = self.server("--max-length", "10B")
        server.send(b"a longer line than that\n" * ERRORS)
        wait_until(lambda: server.metrics()["ingest_truncated_records_total"] == ERRORS, "all counted")
        metrics = server.metrics()
        server.stop()
        logged = [line for line in server.log if "longer than" in line]
        self.assertEqual(len(logged), BURST)
        self.assertGreaterEqual(metrics["ingest_log_suppressed_total"], ERRORS - BURST)
        FOLDED.measured(f"{ERRORS:,} errors sent at once: {len(logged)} lines in the log, {len(server.log)} in all")

    def test_says_how_many(self) -> None:
        """The first error after the interval says how many of its kind were folded before it."""
        said: list[str | None] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event.get("event") == "record_oversize":
                said.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        rig = Rig(max_record_bytes=10, connection_memory=64 * MIB)
        rig.send(b"a longer line than that\n" * ERRORS)
        rig.turn(INTERVAL_SECONDS)
        rig.send(b"a longer line than that\n")
        self.assertEqual(len(said), BURST + 1)
        self.assertIn(f"({ERRORS - BURST} more like it before)", said[-1] or "")
