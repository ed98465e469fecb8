"""
Attack: thousands of peers send half a long line each, and wait.

Cost to the attacker: idle sockets. Cost to a naive receiver: their halves, for ever. Bound proven: a quarter of the
budget; the oldest halves are given up (counted, reason ``memory``), and a good peer's lines get through.
"""

from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.report import Group, Scenario
from tests.server import Server, wait_until
from twisted_ingest.limits import KIB, MIB

PEERS = 3000

HALVES = Scenario(
    Group.PEERS,
    "Half lines",
    "thousands of peers send half a long line each, and wait",
    "unfinished records share a quarter of the budget; past it the oldest are cut, counted and delivered as far as "
    "they came; other peers' lines get through",
    ("ingest_budget_partial_bytes", 'ingest_discarded_bytes_total{reason="memory"}', "ingest_truncated_records_total"),
)


class HalfLineTests(SynchronousTestCase):
    def test_a_good_peer_gets_through(self) -> None:
        """With 3,000 peers holding half a 60 KiB line each under 64 MiB, a good peer's lines are delivered."""
        server = Server("--memory", "64MiB", "--frame-timeout", "off", "--max-connections", "4000")
        self.addCleanup(server.kill)
        server.wait_ready()
        resting = server.rss()
        half = b"x" * (30 * KIB)
        for _ in range(PEERS):
            peer = server.connect()
            self.addCleanup(peer.close)
            peer.sendall(half)
        wait_until(lambda: server.metrics()["ingest_received_bytes_total"] == PEERS * len(half), "halves read", 60)
        server.send(b"good line\n")
        wait_until(lambda: server.output().endswith(b"good line\n"), "the good line")
        metrics = server.metrics()
        self.assertLessEqual(metrics["ingest_budget_partial_bytes"], 16 * MIB)
        grown = server.peak_rss() - resting
        self.assertLess(grown, 64 * MIB)
        self.assertEqual(metrics["ingest_conservation_error"], 0)
        self.assertGreater(metrics["ingest_truncated_records_total"], 2000)
        # Told under its true cause: none of them is too long.
        self.assertTrue(any("of a record that it does not end" in line and "(--memory," in line for line in server.log))
        self.assertFalse(any("--max-length" in line for line in server.log))
        HALVES.measured(
            f"{PEERS:,} halves of 60 KiB under a budget of 64 MiB: "
            f"{metrics['ingest_budget_partial_bytes'] / MIB:.1f} MiB of them held, "
            f"{grown / MIB:.0f} MiB more resident at the peak"
        )
