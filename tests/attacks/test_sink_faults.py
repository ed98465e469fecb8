"""
Attack: whatever networks and receivers do to a sink, under the load of a client that keeps a ledger of its answers.

Cost to a careless sender: what it had written to a socket and took for delivered; or the process, which keeps all it
cannot send; or everybody, who waits for one record that is never taken. One suite for all sinks across a network.
"""

import json
import os
import tempfile
import threading
import time
from collections import Counter
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.report import Group, Scenario
from tests.attacks.test_relp_kill import RelpServer, Tail
from tests.faulty import Fault, FaultyProxy
from tests.relp_client import Ledger, Sender
from tests.server import Server, wait_until

FAULTS = Scenario(
    Group.DISK,
    "Faults between a sink and its receiver",
    "a proxy before the receiver of a `relp` or a `tcp` sink refuses, does not read or not answer, passes on 1 KB/s, "
    "ends connections every 100 records or at once, answers with garbage or without end, each for seconds under load",
    "nothing answered is missing, what arrives twice was counted, memory stays inside the budget, and all goes on by "
    "itself",
    ("ingest_sink_retries_total", "ingest_sink_resent_records_total", "ingest_sink_up"),
)
POISON = Scenario(
    Group.DISK,
    "A record that the receiver refuses for ever",
    "a RELP receiver answers 500 to some records, under load",
    "each of them is in the dead letters, all others arrive; nobody waits",
    ("ingest_sink_rejected_records_total", "ingest_sink_dead_letter_records_total"),
)
NOWHERE = Scenario(
    Group.DISK,
    "A target that there is not",
    "the name of a sink's target cannot be resolved, from the start on",
    "the server starts and reads, says so in `/readyz`, and stops in time",
    ("ingest_sink_up",),
)

FAULT_SECONDS = 4.0
"""How long each fault lasts: longer than the sink's timeout, so that it gives up a connection."""

MEMORY = 32 << 20

CONFIGURATION = """
[listeners.edge]
endpoint = "tcp:0:interface=127.0.0.1"
protocol = "relp"
durability = "{durability}"

[limits]
memory = {memory}

[sinks.onward]
type = "{kind}"
address = "127.0.0.1:{port}"
timeout = "2s"
dead_letter = "file:rejected.json"
"""


def line(number: int) -> bytes:
    """Make a record; sizes vary, so that writes end anywhere."""
    return b"record %08d " % number + b"x" * (number * 7919 % 1500) + b" end"


def poisoned(number: int) -> bytes:
    """Make a record, of which one in fifty is refused."""
    return line(number) + (b" poison" if number % 50 == 7 else b"")


class FaultCase(SynchronousTestCase):
    """An edge that answers, a sink, the proxy, and a receiver with a file."""

    kind = ""
    durability = "memory"

    def begin(self) -> None:
        """Start all of them."""
        self.receiver = self.make_receiver()
        self.addCleanup(self.receiver.kill)
        self.receiver.wait_ready()
        self.proxy = FaultyProxy(self.receiver.port, is_careful=self.kind == "tcp")
        self.addCleanup(self.proxy.__exit__)
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        configuration = os.path.join(folder, "ingest.toml")
        with open(configuration, "w") as stream:
            stream.write(
                CONFIGURATION.format(kind=self.kind, port=self.proxy.port, durability=self.durability, memory=MEMORY)
            )
        self.edge = Server(f"--config={configuration}", folder=folder)
        self.addCleanup(self.edge.kill)
        self.edge.wait_ready()

    def make_receiver(self) -> Server:
        """Make what the sink sends to in the end."""
        raise NotImplementedError

    def load(self, make: object = line) -> None:
        """Begin to send, and go on until `settle`."""
        path = tempfile.mktemp(prefix="ingest-acks-")
        self.ledger = Ledger(path)
        self.addCleanup(os.remove, path)
        self.addCleanup(self.ledger.close)
        self.sender = Sender(self.edge.port, make, self.ledger)  # type: ignore[arg-type]
        self.thread = threading.Thread(target=self.sender.run, args=(time.monotonic() + 100,), daemon=True)
        self.thread.start()
        self.wait_answers()

    def wait_answers(self) -> None:
        """Wait until records flow."""
        answered = self.ledger.count
        wait_until(lambda: self.ledger.count > answered + 50, "answers")

    def settle(self) -> list[bytes]:
        """Send no more, and wait until all is answered; gives what was sent."""
        self.sender.finish()
        self.thread.join(60)
        self.assertFalse(self.thread.is_alive(), f"not everything was answered: {self.edge.log[-5:]}")
        return [self.sender._make(number) for number in range(self.sender.sent)]

    def check_cut(self, cut: set[bytes], sent: list[bytes]) -> None:
        """
        See that whatever arrived and was not sent so is the beginning of a record, one of each connection at most.

        A receiver of lines takes what is unfinished when its connection ends for a record. No sink can help that where
        it gives a connection up: half a record is with the peer's kernel. One of RELP throws that away.
        """
        self.assertLessEqual(len(cut), self.proxy.connections if self.kind == "tcp" else 0, cut)
        for beginning in cut:
            self.assertTrue(any(record.startswith(beginning) for record in sent), beginning)

    def check(self, sent: list[bytes]) -> int:
        """See that all is there, and no more twice than was counted; gives how many are."""
        tail = Tail(self.receiver.path)
        tail.wait_for(sent)
        copies = Counter(tail.lines)
        cut = set(copies) - set(sent)
        self.check_cut(cut, sent)
        for beginning in cut:
            del copies[beginning]
        self.assertEqual(set(copies), set(sent), "what was sent has arrived")
        values = self.edge.metrics()
        twice = sum(copies.values()) - len(sent)
        self.assertLessEqual(twice, values["ingest_sink_resent_records_total[onward]"])
        self.assertEqual(values["ingest_conservation_error"], 0)
        self.assertEqual(values["ingest_internal_errors_total"], 0)
        self.assertLess(values["ingest_budget_used_bytes"], MEMORY)
        self.assertEqual((values["ingest_sink_up[onward]"], values["ingest_sink_connected[onward]"]), (1, 1))
        return twice


class RelayFaults:
    """The suite; a case of it has the sink."""

    faults: ClassVar[tuple[Fault, ...]] = ()

    def test_faults(self: "FaultCase") -> None:  # type: ignore[misc]
        """Each fault in turn, under one load; then all is there."""
        self.begin()
        self.load()
        for fault in self.faults:  # type: ignore[attr-defined]
            self.proxy.set(fault)
            before = self.proxy.connections
            time.sleep(FAULT_SECONDS)
            self.assertEqual(self.edge.get("healthz").strip(), "ok", fault)
            self.assertLess(self.proxy.connections - before, 12 * FAULT_SECONDS, f"{fault}: no busy loop")
            self.proxy.set(Fault.NONE)
            self.wait_answers()
        sent = self.settle()
        twice = self.check(sent)
        FAULTS.measured(f"{self.kind}: {len(sent):,} records, each there; {twice:,} twice")


class RelpFaultTests(RelayFaults, FaultCase):
    kind = "relp"
    durability = "delivered"
    faults = (
        Fault.REFUSED,
        Fault.DEAF,
        Fault.MUTE,
        Fault.SLOW,
        Fault.RESETS,
        Fault.GARBAGE,
        Fault.HUGE,
        Fault.FLAPPING,
    )

    def make_receiver(self) -> Server:
        """See `FaultCase`."""
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        return RelpServer(folder)

    def test_poison(self) -> None:
        """Records that are refused for ever are written down, and hold nobody up."""
        self.begin()
        self.proxy.set(Fault.POISON)
        self.load(poisoned)
        sent = self.settle()
        bad = {record for record in sent if b"poison" in record}
        Tail(self.receiver.path).wait_for(set(sent) - bad)
        with open(os.path.join(self.edge.folder, "rejected.json"), "rb") as stream:
            letters = [json.loads(text) for text in stream]
        self.assertEqual({letter["record"].encode() for letter in letters}, bad)
        self.assertEqual({letter["reason"] for letter in letters}, {"500 never"})
        values = self.edge.metrics()
        self.assertEqual(values["ingest_sink_rejected_records_total[onward]"], len(bad))
        self.assertEqual(values["ingest_sink_dead_letter_records_total[onward]"], len(bad))
        self.assertEqual(values["ingest_conservation_error"], 0)
        POISON.measured(f"{len(sent):,} records, {len(bad):,} refused: all answered, all in their place")


class TcpFaultTests(RelayFaults, FaultCase):
    kind = "tcp"
    # What reads and never answers is every receiver of lines; one that throws away what it has read is beyond any sink.
    faults = (Fault.REFUSED, Fault.DEAF, Fault.SLOW, Fault.RESETS, Fault.FLAPPING)

    def make_receiver(self) -> Server:
        """See `FaultCase`."""
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        return Server("--listen=tcp:0:interface=127.0.0.1", folder=folder)


class NowhereTests(SynchronousTestCase):
    def test_name_that_does_not_resolve(self) -> None:
        """It is no reason not to start, nor to stop late."""
        for kind in ("relp", "tcp"):
            with Server(f"--sink={kind}:no-such-host.invalid:514") as server:
                wait_until(lambda: "cannot be resolved" in server.get("readyz"), "a reason")
                server.send(b"one\n")
                self.assertEqual(server.metrics()[f"ingest_sink_up[{kind}]"], 0)
                start = time.monotonic()
                server.stop()
                self.assertLess(time.monotonic() - start, 20)
                NOWHERE.measured(f"{kind}: started, said so, stopped")
