"""The six checks of the document the project was asked for, on a real process."""

import signal

from twisted.trial.unittest import SynchronousTestCase

from tests.server import Server, wait_until
from twisted_ingest.limits import MIB


class SeedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.addCleanup(self.server.kill)
        self.server.wait_ready()

    def open_connections(self) -> int:
        return int(self.server.metrics()["ingest_connections_open"])

    def wait_open(self, count: int) -> None:
        wait_until(lambda: self.open_connections() == count, f"{count} connections open")

    def test_tracked_on_connect(self) -> None:
        """A connection is tracked from the moment it is made."""
        with self.server.connect() as peer:
            self.wait_open(1)
            rows = self.server.get("connections")
            self.assertIn(f"127.0.0.1:{peer.getsockname()[1]}", rows)

    def test_cleaned_up_on_disconnect(self) -> None:
        """A connection that ended is gone from the registry and the descriptors."""
        self.open_connections()
        before = self.server.descriptors()
        with self.server.connect():
            self.wait_open(1)
        self.wait_open(0)
        self.assertEqual(self.server.get("connections"), "[]\n")
        wait_until(lambda: self.server.descriptors() <= before, "all descriptors closed")

    def test_many_at_once(self) -> None:
        """Many connections at once are all tracked, served, and cleaned up."""
        peers = [self.server.connect() for _ in range(100)]
        for number, peer in enumerate(peers):
            self.addCleanup(peer.close)
            peer.sendall(b"from peer %03d\n" % number)
        self.wait_open(100)
        lines = self.server.wait_output(100 * 14).splitlines()
        self.assertEqual(sorted(lines), [b"from peer %03d" % number for number in range(100)])
        for peer in peers:
            peer.close()
        self.wait_open(0)

    def test_no_unbounded_growth_without_a_newline(self) -> None:
        """A client that never sends a newline does not grow the process."""
        self.server.send(b"warm up\n")
        before = self.server.rss()
        with self.server.connect() as peer:
            block = b"x" * MIB
            for _ in range(64):
                peer.sendall(block)
            self.assertLess(self.server.peak_rss() - before, 16 * MIB)

    def test_all_closed_when_the_server_stops(self) -> None:
        """Every connection is closed when the server stops, and the process ends."""
        peers = [self.server.connect() for _ in range(10)]
        self.wait_open(10)
        self.server.send_signal(signal.SIGTERM)
        for peer in peers:
            with peer:
                self.assertEqual(peer.recv(1), b"")
        self.server.process.wait(10)

    def test_diagnostics_are_true(self) -> None:
        """What the diagnostics say is what was sent."""
        self.server.send(b"one\ntwo\n\nthree")
        self.wait_open(0)
        wait_until(lambda: self.server.status()["sinks"][0]["delivered_records"] == 3, "three records delivered")
        status = self.server.status()
        counts = status["listeners"][0]["counts"]
        self.assertEqual(status["listeners"][0]["address"], f"127.0.0.1:{self.server.port}")
        self.assertEqual(counts["bytes_received"], 14)
        self.assertEqual((counts["records_framed"], counts["records_empty"], counts["records_partial"]), (3, 1, 1))
        self.assertEqual(counts["connections_closed/eof"], 1)
        self.assertEqual(status["conservation"]["error"], 0)
        self.assertEqual(self.server.get("readyz"), "ready\n")
