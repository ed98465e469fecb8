"""
Attack: one client sends without ever ending a line.

Cost to the attacker: bandwidth. Cost to a naive receiver: all its memory. Bound proven: peak RSS grows by less
than 16 MiB over a gibibyte, and later lines arrive.
"""

from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.report import Group, Scenario
from tests.server import Server, wait_until
from twisted_ingest.limits import GIB, KIB, MIB

ENDLESS = Scenario(
    Group.PEERS,
    "An endless line",
    "one client sends a gibibyte without a newline",
    "the record is cut at the limit while it still comes (or dropped, or the connection reset: `--oversize`); "
    "the rest is skipped without being held, later lines arrive",
    ("ingest_truncated_records_total", 'ingest_discarded_bytes_total{reason="oversize"}'),
)


class EndlessLineTests(SynchronousTestCase):
    def endless(self, *flags: str, size: int = GIB) -> Server:
        server = Server(*flags)
        self.addCleanup(server.kill)
        server.wait_ready()
        server.send(b"before\n")
        resting = server.rss()
        with server.connect() as peer:
            block = b"x" * MIB
            for _ in range(size // MIB):
                peer.sendall(block)
            peer.sendall(b"\nafter\n")
            wait_until(lambda: server.metrics()["ingest_received_bytes_total"] >= size, "all of it read")
        grown = server.peak_rss() - resting
        self.assertLess(grown, 16 * MIB)
        ENDLESS.measured(f"{size // MIB} MiB without a newline: {grown // KIB:,} KiB more resident at the peak")
        return server

    def test_truncate(self) -> None:
        """A gibibyte without a newline costs less than 16 MiB; its start is kept and later lines arrive."""
        server = self.endless()
        lines = server.wait_output(100 * 1024 + 14).splitlines()
        self.assertEqual([line[:6] for line in lines], [b"before", b"xxxxxx", b"after"])
        self.assertEqual(len(lines[1]), 100 * 1024)
        metrics = server.metrics()
        self.assertEqual(metrics["ingest_truncated_records_total"], 1)
        self.assertEqual(metrics["ingest_discarded_bytes_total[oversize]"], GIB - 100 * 1024)
        self.assertEqual(metrics["ingest_conservation_error"], 0)

    def test_drop(self) -> None:
        """Under drop nothing of it is kept, and it is counted."""
        server = self.endless("--oversize", "drop", size=64 * MIB)
        self.assertEqual(server.wait_output(13), b"before\nafter\n")
        self.assertEqual(server.metrics()["ingest_dropped_records_total[oversize]"], 1)

    def test_close(self) -> None:
        """Under close the connection is reset at the limit; other peers notice nothing."""
        server = Server("--oversize", "close")
        self.addCleanup(server.kill)
        server.wait_ready()
        with server.connect() as good, server.connect() as bad:
            with self.assertRaises(ConnectionError):
                for _ in range(1000):
                    bad.sendall(b"x" * 100_000)
            good.sendall(b"good\n")
            self.assertEqual(server.wait_output(5), b"good\n")
        self.assertEqual(server.metrics()["ingest_connections_closed_total[oversize]"], 1)
