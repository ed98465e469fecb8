"""
Attack: connect, send, disconnect, a thousand times.

Cost to a careless receiver: a descriptor, a timer or a registry entry each. Bound proven: all return to where they
began.
"""

import socket
import struct

from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.report import Group, Scenario
from tests.server import Server, wait_until

RECONNECTS = Scenario(
    Group.PEERS,
    "Reconnect storm",
    "connect, send, disconnect or reset, over and over",
    "every connection ends with one reason; its descriptor, timer and registry entry go with it",
    ("ingest_connections_opened_total", "ingest_connections_closed_total", "ingest_connections_open"),
)


class ReconnectTests(SynchronousTestCase):
    def test_nothing_is_left_behind(self) -> None:
        """After 1,000 connections, ended in all ways, descriptors and tracked connections are as at the start."""
        server = Server()
        self.addCleanup(server.kill)
        server.wait_ready()
        server.metrics()
        before = server.descriptors()
        for number in range(1000):
            peer = server.connect()
            if number % 2:
                peer.sendall(b"line %d\n" % number)
            if number % 3 == 0:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
        wait_until(lambda: server.metrics()["ingest_connections_open"] == 0, "all connections gone")
        metrics = server.metrics()
        opened = metrics["ingest_connections_opened_total"]
        closed = sum(value for name, value in metrics.items() if name.startswith("ingest_connections_closed_total"))
        self.assertEqual((opened, closed), (1000, 1000))
        wait_until(lambda: server.descriptors() <= before, "all descriptors closed")
        self.assertEqual(metrics["ingest_conservation_error"], 0)
        RECONNECTS.measured(
            f"{opened:,.0f} opened, {closed:,.0f} closed, {server.descriptors() - before} descriptors more than before"
        )
