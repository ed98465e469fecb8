"""
Attack: RELP clients that break the rules, declare what they never send, read nothing, or do not wait.

Cost to a careless receiver: answers that pile up, memory from a declared length, a record answered that nobody has.
Bound proven: what was answered is there, what breaks a rule is not; a session that is not read from costs nothing more.
"""

import os
import signal
import socket
import struct
import threading

from tests.attacks.report import Group, Scenario
from tests.relp_client import Ledger, RelpClient, Sender, SessionLostError
from tests.server import PATIENCE, wait_until
from tests.test_relp_clients import RelpCase
from twisted_ingest.limits import KIB, MIB

RULES = Scenario(
    Group.RELP,
    "Frames against the rules",
    "numbers that repeat, go back, skip or are 0; headers and lengths that are none; a missing LF; records before "
    "`open`, a second `open`, unknown commands",
    "what came before is delivered and answered; the frame that breaks a rule is neither, the session is told "
    "(`serverclose`) and closed, the rule counted",
    ('ingest_relp_errors_total{reason="number"}', 'ingest_relp_errors_total{reason="header"}'),
)
DECLARED = Scenario(
    Group.RELP,
    "Declared lengths of RELP",
    "hundreds of sessions declare records of 999,999,999 bytes and send ten",
    "memory follows what was received; the frame deadline ends them, and nothing of them is delivered or answered",
    ("ingest_budget_partial_bytes", 'ingest_connections_closed_total{reason="frame_deadline"}'),
)
UNREAD = Scenario(
    Group.RELP,
    "Answers that are never read",
    "a client sends records without end and reads none of its answers",
    "it is not read from any more once the kernel has no room for its answers, and reset after a minute of that",
    ("ingest_paused_connections", 'ingest_connections_closed_total{reason="acks_unread"}'),
)
HASTY = Scenario(
    Group.RELP,
    "Clients that do not wait",
    "clients send records and end at once: by FIN, by a reset, by `close`",
    "what could be read is delivered in order, half a frame is not; what nobody was there to be told of is counted as "
    "unanswered",
    ("ingest_relp_unanswered_records_total", 'ingest_discarded_bytes_total{reason="unanswered"}'),
)
STOPPED = Scenario(
    Group.RELP,
    "A stop under RELP load",
    "SIGTERM while clients send with a window, then a start on the same port",
    "what has come is delivered and answered, then the client is told that the session is over: it sends nothing twice",
    ("ingest_relp_acks_total", 'ingest_connections_closed_total{reason="drain"}'),
)

BREACHES = {
    "number": (b"2 syslog 3 bad\n", b"1 syslog 3 bad\n", b"4 syslog 3 bad\n", b"0 syslog 3 bad\n", b"9 close 0\n"),
    "header": (b"3 sys1og 3 bad\n", b"x syslog 3 bad\n", b"3  syslog 3 bad\n", b"3333333333 syslog 3 bad\n"),
    "length": (b"3 syslog 0 \n", b"3 syslog 3\nbad\n", b"3 close 9999 bad"),
    "trailer": (b"3 syslog 3 bad3 syslog 3 bad\n",),
    "open_twice": (b"3 open 15 commands=syslog\n",),
    "command": (b"3 starttls 0\n", b"3 rsp 6 200 OK\n", b"3 bad 3 bad\n"),
}
EARLY = (b"1 syslog 3 bad\n", b"1 close 0\n")
DECLARING = 300
HASTY_CLIENTS = 60
HASTY_RECORDS = 200


class RuleTests(RelpCase):
    def breach(self, data: bytes, *, is_open: bool = True) -> None:
        """Send a good record and what breaks a rule: the record is answered, then the session ends."""
        with RelpClient(self.server.port) as client:
            if is_open:
                client.open()
                client.send(b"good")
            client.raw(data)
            while client.unanswered:
                client.settle()
            with self.assertRaises(SessionLostError):
                while True:
                    self.assertTrue(client.receive()[1].startswith(b"500 "), data)
            self.assertTrue(client.has_serverclose, data)

    def test_rules(self) -> None:
        """Whatever rule is broken: what came before is answered, the frame is not taken, and the session ends."""
        for breaches in BREACHES.values():
            for data in breaches:
                self.breach(data)
        for data in EARLY:
            self.breach(data, is_open=False)
        good = sum(map(len, BREACHES.values()))
        self.assertEqual(self.wait_lines(good), [b"good"] * good)
        values = self.server.metrics()
        name = "ingest_relp_errors_total[relp-0]"
        counted = {rule: values[f"{name}[{rule}]"] for rule in (*BREACHES, "not_open")}
        self.assertEqual(counted, {**{rule: len(every) for rule, every in BREACHES.items()}, "not_open": len(EARLY)})
        self.assertEqual(values["ingest_internal_errors_total"], 0)
        RULES.measured(
            f"{good + len(EARLY)} ways to break {len(BREACHES) + 1} rules: {good} records before them answered, "
            "nothing of the rest delivered"
        )


class LengthTests(RelpCase):
    flags = ("--frame-timeout", "2s")

    def test_declared(self) -> None:
        """Sessions that declare nearly a gigabyte each take no memory for it, and hold no other session up."""
        before = self.server.rss()
        for _ in range(DECLARING):
            client = RelpClient(self.server.port)
            self.addCleanup(client.__exit__)
            client.open()
            client.raw(b"2 syslog 999999999 0123456789")
        with RelpClient(self.server.port) as good:
            good.open()
            good.send(b"good")
            good.settle()
            grown = self.server.peak_rss() - before
            name = "ingest_connections_closed_total[frame_deadline]"
            wait_until(lambda: self.server.metrics()[name] == DECLARING, "all ended")
            good.close()
        self.assertLess(grown, 16 * MIB)
        self.assertEqual(self.wait_lines(1), [b"good"])
        DECLARED.measured(
            f"{DECLARING} frames that declare 300 GB together: {grown // KIB:,} KiB more resident, all ended"
        )


class UnreadTests(RelpCase):
    def test_answers_that_are_never_read(self) -> None:
        """A client that sends without end and reads nothing is not read any more; memory stays where it is."""
        before = self.server.rss()
        with RelpClient(self.server.port, patience=1.0) as client:
            client.open()
            block = b"".join(b"%d syslog 1 x\n" % number for number in range(2, 1_000_000))
            self.assertRaises(SessionLostError, client.raw, block)
            paused = self.server.metrics()
            self.assertEqual(paused["ingest_paused_connections"], 1)
            grown = self.server.rss() - before
            self.assertLess(grown, 24 * MIB)
        UNREAD.measured(
            f"{paused['ingest_received_bytes_total'] / MIB:.1f} MiB of records read, then no more; "
            f"{grown // KIB:,} KiB more resident"
        )


class HastyTests(RelpCase):
    def end(self, way: int, prefix: bytes) -> None:
        """Send records without waiting for any answer, and end."""
        with RelpClient(self.server.port) as client:
            client.open()
            for number in range(HASTY_RECORDS):
                client.send(prefix + b"%d" % number)
            if way == 0:
                client.half_close()
            elif way == 1:
                client.raw(b"%d syslog 9 half" % (client.number + 1))
                client._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                client.command(b"close")

    def test_nobody_waits(self) -> None:
        """Of each client what was read is there in order, none of it twice, and answered or counted as unanswered."""
        for number in range(HASTY_CLIENTS):
            self.end(number % 3, b"%d " % number)
        wait_until(lambda: self.server.metrics()["ingest_connections_open"] == 0, "all gone")
        lines = self.server.output().splitlines()
        for number in range(HASTY_CLIENTS):
            prefix = b"%d " % number
            own = [text for text in lines if text.startswith(prefix)]
            self.assertEqual(own, [prefix + b"%d" % record for record in range(len(own))])
        values = self.server.metrics()
        answered = self.acks()
        unanswered = values["ingest_relp_unanswered_records_total[relp-0]"]
        self.assertEqual(answered + unanswered, len(lines))
        self.assertEqual(values["ingest_conservation_error"], 0)
        HASTY.measured(
            f"{HASTY_CLIENTS * HASTY_RECORDS:,} records of {HASTY_CLIENTS} clients: {len(lines):,} could be read, all "
            f"delivered in order; {answered:,.0f} answered, {unanswered:,.0f} counted as unanswered"
        )


class StopTests(RelpCase):
    def test_stop_under_load(self) -> None:
        """A stop under load answers all it delivers, says that it is over, and nothing comes twice after the start."""
        path = os.path.join(self.server.folder, "ledger")
        ledger = Ledger(path)
        self.addCleanup(ledger.close)
        sender = Sender(self.server.port, lambda number: b"record %08d" % number, ledger)
        load = threading.Thread(target=sender.run, args=(float("inf"),), daemon=True)
        load.start()
        wait_until(lambda: ledger.count > 200, "answers")
        self.server.send_signal(signal.SIGTERM)
        self.server.process.wait(PATIENCE)
        delivered = len(self.server.output().splitlines())
        self.restart()
        wait_until(lambda n=ledger.count: ledger.count > n + 200, "answers again")  # type: ignore[misc]
        sender.finish()
        load.join(PATIENCE)
        self.assertFalse(load.is_alive())
        lines = self.server.output().splitlines()
        self.assertEqual(lines, [b"record %08d" % number for number in range(sender.sent)])
        self.assertEqual(set(ledger.read()), set(lines))
        STOPPED.measured(
            f"{delivered:,} records before the stop, {len(lines) - delivered:,} after the start: each there once, "
            "and answered"
        )

    def test_told(self) -> None:
        """At SIGTERM a client that waits gets its answers and is told that the session is over."""
        with RelpClient(self.server.port) as client:
            client.open()
            for number in range(500):
                client.send(b"%d" % number)
            self.server.send_signal(signal.SIGTERM)
            while client.unanswered:
                client.settle()
            self.assertRaises(SessionLostError, client.receive)
            self.assertTrue(client.has_serverclose)
        self.server.process.wait(PATIENCE)
        self.assertEqual(self.server.output().splitlines(), [b"%d" % number for number in range(500)])
