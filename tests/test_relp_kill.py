"""
Proof: what was answered survives SIGKILL, whatever the moment.

Checked by a client that shares no code with the server and syncs a ledger of the answers it received. ``make kill``
runs fifty rounds of each.
"""

import os
import random
import tempfile
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.relp_client import Ledger, Sender
from tests.server import Server, wait_until
from tests.test_relp_clients import Omrelp, omrelp

KILLS = int(os.environ.get("INGEST_TEST_KILLS", "5"))
"""Kills under load; `make kill` sets fifty."""

SECONDS = 60 + KILLS * 20
"""The most that all rounds of one test may take."""


def line(number: int) -> bytes:
    """Make a record; sizes vary, so that writes end anywhere."""
    return b"record %08d " % number + b"x" * (number * 7919 % 1500) + b" end"


class RelpServer(Server):
    """A server with one RELP listener, on the same port after every restart."""

    def __init__(self, folder: str, port: int = 0, sinks: tuple[str, ...] = ()) -> None:
        super().__init__(f"--relp=tcp:{port}:interface=127.0.0.1", *sinks, folder=folder, port=port)


class KillCase(SynchronousTestCase):
    """A server that is killed and started again in one folder."""

    sinks: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.makedirs(self.folder)
        self.server = RelpServer(os.path.abspath(self.folder), sinks=self.sinks)
        self.addCleanup(self.server.kill)
        self.server.wait_ready()

    def restart(self) -> None:
        """Start the next process where the last one was."""
        self.server = RelpServer(self.server.folder, self.server.port, self.sinks)
        self.addCleanup(self.server.kill)
        self.server.wait_ready()

    def crash(self) -> None:
        """Kill it within half a second of load."""
        time.sleep(random.uniform(0.02, 0.4))
        self.server.crash()

    def check_whole(self, lines: list[bytes], sent: set[bytes], kills: int) -> None:
        """Every line is a record that was sent; each kill may have left the beginning of one."""
        torn = [text for text in lines if text not in sent]
        self.assertLessEqual(len(torn), kills)
        for text in torn:
            self.assertTrue(any(record.startswith(text) for record in sent), text[:100])


class OwnClientCase(KillCase):
    """Kills under the load of our own client."""

    def under_load(self) -> tuple[Sender, list[bytes]]:
        """Kill and restart, then finish; gives the sender and the records it saw answered."""
        path = tempfile.mktemp(prefix="ingest-acks-")
        ledger = Ledger(path)
        self.addCleanup(os.remove, path)
        self.addCleanup(ledger.close)
        sender = Sender(self.server.port, line, ledger)
        deadline = time.monotonic() + SECONDS
        load = threading.Thread(target=sender.run, args=(deadline,), daemon=True)
        load.start()
        for _ in range(KILLS):
            answered = ledger.count
            wait_until(lambda n=answered: ledger.count > n, "answers")  # type: ignore[misc]
            self.crash()
            self.after_crash(ledger.read())
            self.restart()
        sender.finish()
        load.join(max(1.0, deadline - time.monotonic()))
        self.assertFalse(load.is_alive(), "not everything was answered")
        self.assertGreater(sender.sessions, KILLS)
        return sender, ledger.read()

    def after_crash(self, answered: list[bytes]) -> None:
        """Look at the disk while nothing runs."""


class OwnClientTests(OwnClientCase):
    def after_crash(self, answered: list[bytes]) -> None:
        """See `OwnClientCase`: everything answered is there."""
        self.assertEqual(set(answered) - set(self.server.output().split(b"\n")), set(), "answered, and not on disk")

    def test_what_was_answered_is_on_disk(self) -> None:
        """After every kill each answered record is on disk, whole; first copies are in order, and no copy too many."""
        sender, answered = self.under_load()
        sent = [line(number) for number in range(sender.sent)]
        lines = self.server.output().splitlines()
        self.check_whole(lines, set(sent), KILLS)
        first_copies = list(dict.fromkeys(text for text in lines if text in set(sent)))
        self.assertEqual(first_copies, sent)
        self.assertEqual(set(answered), set(sent))
        copies = sum(text in set(sent) for text in lines) - len(sent)
        self.assertLessEqual(copies, sender.exposed)
        self.assertEqual(self.server.metrics()["ingest_conservation_error"], 0)


class SpooledTests(OwnClientCase):
    sinks = ("--sink=file:ingest-data/ingest.log?spool=true",)

    def test_what_was_answered_comes_out_of_the_spool(self) -> None:
        """With a spool in front, everything answered before any kill is delivered after the last, in order."""
        sender, answered = self.under_load()
        sent = [line(number) for number in range(sender.sent)]
        wait_until(lambda: set(sent) <= set(self.server.output().splitlines()), "everything delivered", SECONDS)
        self.assertEqual(set(answered), set(sent))
        lines = self.server.output().splitlines()
        self.check_whole(lines, set(sent), KILLS)
        self.assertEqual(list(dict.fromkeys(text for text in lines if text in set(sent))), sent)


class OmrelpTests(KillCase):
    def test_every_line_of_omrelp_arrives(self) -> None:
        """Whatever is killed and restarted under it, rsyslog's omrelp delivers every line, first copies in order."""
        path = omrelp()
        sender = Omrelp(path, self.server.port)
        self.addCleanup(sender.stop)
        lines: list[bytes] = []
        enough = threading.Event()
        feeder = threading.Thread(target=self.feed, args=(sender, lines, enough), daemon=True)
        feeder.start()
        for _ in range(KILLS):
            before = len(self.server.output())
            wait_until(lambda n=before: len(self.server.output()) > n, "lines flow", SECONDS)  # type: ignore[misc]
            self.crash()
            self.restart()
        enough.set()
        feeder.join(SECONDS)
        wait_until(lambda: set(lines) <= set(self.server.output().splitlines()), "every line", SECONDS)
        got, sent = self.server.output().splitlines(), set(lines)
        self.check_whole(got, sent, KILLS)
        self.assertEqual(list(dict.fromkeys(text for text in got if text in sent)), lines)

    def feed(self, sender: Omrelp, lines: list[bytes], enough: threading.Event) -> None:
        """Have it forward line after line until it is enough."""
        while not enough.is_set():
            some = [b"<13>%08d via omrelp" % number for number in range(len(lines), len(lines) + 100)]
            sender.feed(some)
            lines += some
            enough.wait(0.1)
