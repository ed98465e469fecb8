"""
Attack: three servers in a row, each killed at random while records are on their way through all of them.

Cost to a relay that answers for itself: what it had answered and not passed on. Proof that ours answers for the end:
the first one answers once the last one has the record on disk, and the client's ledger holds nothing that is missing
there.
"""

import os
import random
import tempfile
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.report import Group, Scenario
from tests.attacks.test_relp_kill import KILLS, SECONDS, RelpServer, Tail, line
from tests.relp_client import Ledger, Sender
from tests.server import wait_until

CHAIN = Scenario(
    Group.RELP,
    "A chain of three servers, each killed at random",
    "SIGKILL of any of three servers, RELP between them and only the last with a disk, under a client that keeps a "
    "synced ledger of its answers",
    "each answered record is in the last one's file, first copies in order; the first answers for the end of the chain",
    ("ingest_sink_resent_records_total", "ingest_sink_requests_total"),
)

LENGTH = 3


class ChainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.servers: list[RelpServer] = []
        folder = os.path.abspath(self.mktemp())
        for number in range(LENGTH):
            os.makedirs(os.path.join(folder, str(number)))
        self.folder = folder
        # From the end, whose ports the others need.
        for number in reversed(range(LENGTH)):
            self.servers.insert(0, self.launch(number, 0))
        self.addCleanup(self.end)

    def end(self) -> None:
        """Let none live on."""
        for server in self.servers:
            server.kill()

    def launch(self, number: int, port: int) -> RelpServer:
        """Start one of them."""
        sinks = () if number == LENGTH - 1 else (f"--sink=relp:127.0.0.1:{self.servers[-(LENGTH - 1 - number)].port}",)
        server = RelpServer(os.path.join(self.folder, str(number)), port, sinks)
        server.wait_ready()
        return server

    def kill(self, number: int) -> None:
        """Kill one within half a second of load, and start it again."""
        time.sleep(random.uniform(0.02, 0.4))
        self.servers[number].crash()
        port = self.servers[number].port
        time.sleep(random.uniform(0, 0.3))
        self.servers[number] = self.launch(number, port)

    def test_nothing_answered_at_the_edge_is_missing_at_the_end(self) -> None:
        """Whoever is killed, in whatever order."""
        path = tempfile.mktemp(prefix="ingest-acks-")
        ledger = Ledger(path)
        self.addCleanup(os.remove, path)
        self.addCleanup(ledger.close)
        sender = Sender(self.servers[0].port, line, ledger)
        deadline = time.monotonic() + SECONDS
        load = threading.Thread(target=sender.run, args=(deadline,), daemon=True)
        load.start()
        for _ in range(KILLS):
            answered = ledger.count
            wait_until(lambda n=answered: ledger.count > n, "answers")  # type: ignore[misc]
            self.kill(random.randrange(LENGTH))
            missing = set(ledger.read()) - set(self.servers[-1].output().split(b"\n"))
            self.assertEqual(missing, set(), "answered at the edge, and not at the end")
        sender.finish()
        load.join(max(1.0, deadline - time.monotonic()))
        self.assertFalse(load.is_alive(), "not everything was answered")
        sent = [line(number) for number in range(sender.sent)]
        tail = Tail(self.servers[-1].path)
        tail.wait_for(sent)
        known = set(sent)
        whole = [text for text in tail.lines if text in known]
        self.assertEqual(list(dict.fromkeys(whole)), sent)
        for server in self.servers:
            self.assertEqual(server.metrics()["ingest_conservation_error"], 0)
        CHAIN.measured(f"{KILLS} kills: {len(sent):,} records answered, each there; {len(whole) - len(sent):,} copies")
