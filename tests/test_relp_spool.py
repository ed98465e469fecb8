"""
Proof: what was answered from a spool arrives behind it, whatever the moment of a SIGKILL.

As tests/test_relp_kill.py, with its client and its ledger; ``make kill`` runs fifty rounds.
"""

import os
import random
import shutil
import tempfile
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.relp_client import Ledger, Sender
from tests.server import Server, wait_until
from tests.test_relp_kill import KILLS, SECONDS, line


class SpoolKillTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="ingest-test-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.server = self.start(0)

    def start(self, port: int) -> Server:
        """Start a process in the folder, with a spool in front of its file."""
        sink = "file:ingest-data/ingest.log?spool=true"
        relp = f"--relp=tcp:{port}:interface=127.0.0.1"
        server = Server(relp, "--sink", sink, folder=self.folder, port=port)
        self.addCleanup(server.kill)
        server.wait_ready()
        return server

    def test_what_was_answered_arrives(self) -> None:
        """After any number of kills each answered record comes out behind the spool; first copies are in order."""
        path = os.path.join(self.folder, "ledger")
        ledger = Ledger(path)
        self.addCleanup(ledger.close)
        sender = Sender(self.server.port, line, ledger)
        deadline = time.monotonic() + SECONDS
        load = threading.Thread(target=sender.run, args=(deadline,), daemon=True)
        load.start()
        for _ in range(KILLS):
            answered = ledger.count
            wait_until(lambda n=answered: ledger.count > n, "answers")  # type: ignore[misc]
            time.sleep(random.uniform(0.02, 0.4))
            self.server.crash()
            self.server = self.start(self.server.port)
        sender.finish()
        load.join(max(1.0, deadline - time.monotonic()))
        self.assertFalse(load.is_alive(), "not everything was answered")
        wait_until(lambda: self.server.metrics()["ingest_sink_spool_waiting_batches[file]"] == 0, "replayed")
        self.check([line(number) for number in range(sender.sent)], ledger.read())

    def check(self, sent: list[bytes], answered: list[bytes]) -> None:
        """Hold the file against what was sent and answered."""
        known = set(sent)
        lines = self.server.output().splitlines()
        self.assertEqual(set(answered) - set(lines), set(), "answered, and not behind the spool")
        self.assertEqual(list(dict.fromkeys(text for text in lines if text in known)), sent)
        torn = [text for text in lines if text not in known]
        self.assertLessEqual(len(torn), KILLS)
        metrics = self.server.metrics()
        self.assertEqual(metrics["ingest_conservation_error"], 0)
        self.assertEqual(metrics["ingest_sink_spool_missing_batches_total[file]"], 0)
