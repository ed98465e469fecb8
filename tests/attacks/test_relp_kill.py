"""
Attack: SIGKILL under load, again and again, while records wait for their answer.

Cost to a careless receiver: records that it answered. Proof that ours survive, whatever the moment: a client that
shares no code with the server and syncs a ledger of the answers it received. ``make kill`` runs fifty rounds of each.
"""

import os
import random
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.report import Group, Scenario
from tests.relp_client import Ledger, Sender
from tests.server import Server, wait_until
from tests.test_relp_clients import Omrelp, omrelp

KILLED = Scenario(
    Group.RELP,
    "Killed while records wait for their answer",
    "SIGKILL under the load of a client that keeps a synced ledger of its answers, over and over",
    "after every kill each answered record is in the file, whole; the client sends the others again: first copies are "
    "in order, and no more come twice than were unanswered",
    ("ingest_relp_acks_total", "ingest_sink_repaired_lines_total"),
)
SPOOLED = Scenario(
    Group.RELP,
    "The same through a spool",
    "SIGKILL under the load of the same client, a spool in front of the file",
    "everything answered before a kill comes out of the spool after it, first copies in order; what came out since the "
    "position was last kept comes out again",
    ("ingest_relp_acks_total",),
)
FORWARDED = Scenario(
    Group.RELP,
    "The same under rsyslog",
    "SIGKILL while rsyslog's `omrelp` sends line after line",
    "every line arrives, first copies in order",
    ("ingest_relp_acks_total",),
)

KILLS = int(os.environ.get("INGEST_TEST_KILLS", "5"))
"""Kills under load; `make kill` sets fifty."""

SECONDS = 60 + KILLS * 20
"""The most that all rounds of one test may take."""

FLOW = 200
"""Lines after which omrelp is under load: more than its window."""


def line(number: int) -> bytes:
    """Make a record; sizes vary, so that writes end anywhere."""
    return b"record %08d " % number + b"x" * (number * 7919 % 1500) + b" end"


class Tail:
    """
    What a file holds, read as it grows: the cost of a test's looks at it must not grow with the rounds.

    ``lines`` are the whole ones so far, in order.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = 0
        self._half = b""
        self.lines: list[bytes] = []

    def read(self) -> list[bytes]:
        """Read on; gives the lines that are new."""
        if not os.path.exists(self._path):
            return []
        with open(self._path, "rb") as stream:
            stream.seek(self._offset)
            data = stream.read()
        self._offset += len(data)
        *new, self._half = (self._half + data).split(b"\n")
        self.lines += new
        return new

    def wait_for(self, lines: Iterable[bytes]) -> None:
        """Wait until all these have arrived."""
        missing = set(lines) - set(self.lines)

        def is_whole() -> bool:
            missing.difference_update(self.read())
            return not missing

        wait_until(is_whole, "every line", SECONDS)


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

    def check_whole(self, lines: list[bytes], sent: list[bytes]) -> list[bytes]:
        """
        First copies of what was sent are there, in order; each kill may have left the beginning of a record.

        Gives the whole lines, copies included.
        """
        known, ordered = set(sent), sorted(sent)
        torn = [text for text in lines if text not in known]
        self.assertLessEqual(len(torn), KILLS)
        for text in torn:
            # What it is the beginning of, if of anything, is the first that does not sort before it.
            (first,) = ordered[bisect_left(ordered, text) :][:1] or [b""]
            self.assertTrue(first.startswith(text), text[:100])
        whole = [text for text in lines if text in known]
        self.assertEqual(list(dict.fromkeys(whole)), sent)
        return whole


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
        self.assertEqual(set(answered), set(sent))
        whole = self.check_whole(self.server.output().splitlines(), sent)
        self.assertLessEqual(len(whole) - len(sent), sender.exposed, "more copies than were open")
        self.assertEqual(self.server.metrics()["ingest_conservation_error"], 0)
        KILLED.measured(
            f"{KILLS} kills: {len(sent):,} records answered, each there; {len(whole) - len(sent):,} twice of "
            f"{sender.exposed:,} that were unanswered"
        )


class SpooledTests(OwnClientCase):
    sinks = ("--sink=file:ingest-data/ingest.log?spool=true",)

    def test_what_was_answered_comes_out_of_the_spool(self) -> None:
        """With a spool in front, everything answered before any kill is delivered after the last, in order."""
        sender, answered = self.under_load()
        sent = [line(number) for number in range(sender.sent)]
        self.assertEqual(set(answered), set(sent))
        tail = Tail(self.server.path)
        tail.wait_for(sent)
        whole = self.check_whole(tail.lines, sent)
        values = self.server.metrics()
        self.assertEqual(values["ingest_conservation_error"], 0)
        self.assertEqual(values["ingest_sink_spool_missing_batches_total[file]"], 0)
        SPOOLED.measured(
            f"{KILLS} kills: {len(sent):,} records answered, each there; {len(whole) - len(sent):,} copies"
        )


class OmrelpTests(KillCase):
    def setUp(self) -> None:
        path = omrelp()
        super().setUp()
        self.sender = Omrelp(path, self.server.port)
        self.addCleanup(self.sender.stop)
        self.tail = Tail(self.server.path)
        self.lines: list[bytes] = []
        """What it was fed."""

    def test_every_line_of_omrelp_arrives(self) -> None:
        """Whatever is killed and restarted under it, rsyslog's omrelp delivers every line, first copies in order."""
        enough = threading.Event()
        feeder = threading.Thread(target=self.feed, args=(enough,), daemon=True)
        feeder.start()
        for _ in range(KILLS):
            self.wait_flow()
            self.crash()
            self.restart()
        # It notices a broken session with the next line it has to send, and no sooner.
        self.tail.wait_for(list(self.lines))
        enough.set()
        feeder.join(SECONDS)
        self.tail.wait_for(self.lines)
        whole = self.check_whole(self.tail.lines, self.lines)
        copies = len(whole) - len(self.lines)
        FORWARDED.measured(f"{KILLS} kills: {len(self.lines):,} lines, each there; {copies:,} twice")

    def wait_flow(self) -> None:
        """Wait until it sends line after line: after a reconnect it sends a single one, and rests for a second."""
        self.tail.read()
        before = len(self.tail.lines)

        def is_flowing() -> bool:
            self.tail.read()
            return len(self.tail.lines) - before > FLOW

        wait_until(is_flowing, "lines flow", SECONDS)

    def feed(self, enough: threading.Event) -> None:
        """Have it forward line after line until it is enough."""
        while not enough.is_set():
            start = len(self.lines)
            some = [b"<13>%08d via omrelp" % number for number in range(start, start + 100)]
            self.sender.feed(some)
            self.lines += some
            enough.wait(0.1)
