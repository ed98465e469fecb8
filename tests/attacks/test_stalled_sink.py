"""
Attack: the sink stops taking, while many clients send at full speed or in tiny pieces.

Cost to a naive receiver: everything sent meanwhile, in memory. Bound proven: the budget and a fixed rest; the
clients are held back instead; nothing is missing, doubled or out of order afterwards.
"""

import os
import socket
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.report import Group, Scenario
from tests.server import Server, wait_until
from twisted_ingest.limits import MIB

STALL_SECONDS = float(os.environ.get("INGEST_TEST_STALL_SECONDS", "1"))
"""How long the sink takes nothing; `make slow` sets ten."""

LINES = 100_000

STALLED = Scenario(
    Group.PRESSURE,
    "A stalled sink under full load",
    "the sink takes nothing while twenty clients send at full speed",
    "the budget fills, reading stops, TCP holds the clients back; when the sink goes on every line is delivered "
    "in order",
    ("ingest_budget_used_bytes", "ingest_paused_connections", "ingest_sink_queued_bytes"),
)
ONE_BYTE = Scenario(
    Group.PRESSURE,
    "A stalled sink and one-byte lines",
    "the sink takes nothing while 200 clients send one-byte lines, one a packet",
    "each batch is charged what it costs in memory, not just its bytes, so that the budget holds all the same",
    ("ingest_budget_used_bytes", "ingest_paused_connections"),
)


class StalledSinkTests(SynchronousTestCase):
    def server(self, *flags: str) -> Server:
        server = Server("--sink", "stdout:", *flags)
        self.addCleanup(server.kill)
        server.wait_ready()
        return server

    def test_full_load(self) -> None:
        """A stall under full load from twenty clients costs the budget at most, and not one line."""
        server = self.server("--memory", "64MiB")
        resting = server.rss()
        peers = [server.connect() for _ in range(20)]
        senders = [threading.Thread(target=self.send, args=(peer, n), daemon=True) for n, peer in enumerate(peers)]
        for sender in senders:
            sender.start()
        wait_until(lambda: server.metrics()["ingest_paused_connections"] == len(peers), "all clients held back")
        time.sleep(STALL_SECONDS)
        grown = server.peak_rss() - resting
        self.assertLess(grown, (64 + 64) * MIB)
        seen = self.drain(server, len(peers) * LINES)
        for sender in senders:
            sender.join(60)
        self.assertEqual(seen, [LINES] * len(peers))
        wait_until(lambda: server.metrics()["ingest_connections_open"] == 0, "all connections closed")
        metrics = server.metrics()
        self.assertEqual(metrics["ingest_sink_delivered_records_total[stdout]"], len(peers) * LINES)
        self.assertEqual(metrics["ingest_conservation_error"], 0)
        STALLED.measured(
            f"budget of 64 MiB: {grown / MIB:.0f} MiB more resident at the peak; {sum(seen):,} lines delivered, "
            "none missing, doubled or out of order"
        )

    def send(self, peer: socket.socket, name: int) -> None:
        with peer:
            for start in range(0, LINES, 1000):
                peer.sendall(b"".join(b"%d %d %s\n" % (name, n, b"." * 80) for n in range(start, start + 1000)))

    def drain(self, server: Server, count: int) -> list[int]:
        """Read lines; each client's must come in order and without a gap. Gives how many came of each."""
        assert server.process.stdout is not None
        expected = [0] * 20
        for _ in range(count):
            name, number, rest = server.process.stdout.readline().split(b" ", 2)
            self.assertEqual((int(number), len(rest)), (expected[int(name)], 81))
            expected[int(name)] += 1
        return expected

    def test_one_byte_lines(self) -> None:
        """One-byte lines, one a packet, from 200 clients fill the budget no further than the budget."""
        server = self.server("--memory", "32MiB")
        peers = [server.connect() for _ in range(200)]
        for peer in peers:
            self.addCleanup(peer.close)
        resting = server.rss()
        # The answer comes after the turn that read these lines: one line a read, not several.
        while server.metrics()["ingest_paused_connections"] < len(peers):
            for peer in peers:
                peer.sendall(b"x\n")
        grown = server.peak_rss() - resting
        self.assertLess(grown, 32 * MIB * 1.5)
        ONE_BYTE.measured(f"budget of 32 MiB: {grown / MIB:.0f} MiB more resident at the peak")
