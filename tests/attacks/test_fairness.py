"""
Attack: one peer floods while a hundred others send a line now and then.

Cost to a careless receiver: the quiet ones starve. Bound proven: all their lines arrive; how much later is reported.
"""

import itertools
import socket
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.report import Group, Scenario
from tests.server import Server, wait_until

FAIR = Scenario(
    Group.PRESSURE,
    "One flooder and a hundred quiet peers",
    "one peer sends at full speed what is dearest to frame, a hundred send a line each now and then",
    "every connection is read as often as the others, and less at a time where its bytes are dear, so that all of "
    "them together take 4 ms of a turn",
    ("ingest_event_loop_lag_seconds",),
)
PEERS = 100
ROUNDS = 3
DEAR = b"a\n\0" * 20_000


class FairnessTests(SynchronousTestCase):
    def test_quiet_peers(self) -> None:
        """Beside a flood every line of a hundred quiet peers is delivered while the flood goes on."""
        server = Server()
        self.addCleanup(server.kill)
        server.wait_ready()
        peers = [server.connect() for _ in range(PEERS)]
        for peer in peers:
            self.addCleanup(peer.close)
        alone = self.delay(server, peers, 0)
        stop = threading.Event()
        flooder = threading.Thread(target=self.flood, args=(server, stop), daemon=True)
        flooder.start()
        try:
            wait_until(lambda: server.metrics()["ingest_received_bytes_total"] > len(DEAR), "the flood")
            delays = [self.delay(server, peers, number) for number in range(1, ROUNDS + 1)]
            self.assertTrue(flooder.is_alive())
        finally:
            stop.set()
            flooder.join(60)
        self.assertEqual(server.metrics()["ingest_conservation_error"], 0)
        FAIR.measured(
            f"a round of {PEERS} lines took {alone * 1000:.0f} ms alone, {max(delays) * 1000:.0f} ms at most beside it"
        )

    def delay(self, server: Server, peers: list[socket.socket], number: int) -> float:
        """Send a line from each peer; give the seconds until all are in the file."""
        began = time.monotonic()
        for index, peer in enumerate(peers):
            peer.sendall(b"quiet %d %03d\n" % (number, index))
        wanted = {b"quiet %d %03d" % (number, index) for index in range(PEERS)}
        wait_until(lambda: wanted <= set(server.output().split(b"\n")), "all quiet lines")
        return time.monotonic() - began

    def flood(self, server: Server, stop: threading.Event) -> None:
        with server.connect() as peer:
            # Bounded: a hundred megabytes at most.
            for _ in itertools.takewhile(lambda _: not stop.is_set(), range(2000)):
                peer.sendall(DEAR)
