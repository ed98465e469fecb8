"""
Attack: a peer that sends faster than it may.

Cost to a careless receiver: everybody's share, or, where its limit drops, the peer's lines. Bound proven: that peer is
read at its rate, loses nothing, and nobody else is held back.
"""

import socket
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.report import Group, Scenario
from tests.server import Server, numbered, wait_until

RATE = Scenario(
    Group.PRESSURE,
    "A peer over its rate",
    "one peer sends at full speed under --rate, another a few lines",
    "the first is not read from until its average is within the rate, TCP holds it back and nothing is dropped; the "
    "other one is read at once",
    ('ingest_connections_paused{reason="rate"}', 'ingest_pause_seconds_total{reason="rate"}'),
)


class RateTests(SynchronousTestCase):
    def test_held_to_its_rate(self) -> None:
        """What is sent at once takes the time that the rate allows, and arrives whole; others are not held back."""
        server = Server("--rate", "10k/s")
        self.addCleanup(server.kill)
        server.wait_ready()
        lines = numbered("fast", 25_000)
        with server.connect() as fast, server.connect() as other:
            began = time.monotonic()
            sender = threading.Thread(target=fast.sendall, args=(b"\n".join(lines) + b"\n",), daemon=True)
            sender.start()
            wait_until(lambda: server.metrics()["ingest_connections_paused[rate]"] == 1, "the fast one at rest")
            other.sendall(b"in between\n")
            wait_until(lambda: b"in between" in server.output(), "the other peer's line")
            sender.join(60)
            fast.shutdown(socket.SHUT_WR)
            self.assertEqual(fast.recv(1), b"")
            took = time.monotonic() - began
        output = server.wait_output(sum(len(line) + 1 for line in lines) + 11)
        self.assertEqual([line for line in output.splitlines() if line != b"in between"], lines)
        # No upper bound: only being too fast would break the promise. A burst of one second is free.
        self.assertGreater(took, 1.0)
        metrics = server.metrics()
        self.assertEqual(metrics["ingest_conservation_error"], 0)
        RATE.measured(
            f"25,000 lines at 10k/s took {took:.1f} s, {metrics['ingest_pause_seconds_total[rate]']:.1f} s of it at "
            "rest, none lost"
        )
