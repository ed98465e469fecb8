"""What a listener does with streams of other protocols, and with senders that end no records."""

from twisted.logger import formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.test_observe_events import Seen
from tests.wrong_protocols import TOGETHER, WRONG
from twisted_ingest.errors import DiscardReason, RefuseReason
from twisted_ingest.observe.facts import Fact
from twisted_ingest.observe.folding import BURST, INTERVAL_SECONDS
from twisted_ingest.testing import Rig


def watched(rig: Rig) -> list[Fact]:
    """Keep what a rig tells."""
    told: list[Fact] = []
    rig.events.subscribe(told.append)
    return told


class WrongProtocolTests(SynchronousTestCase):
    def test_is_refused(self) -> None:
        """A wrong protocol is refused under its own reason, the connection reset, everything accounted for."""
        for reason, data in WRONG:
            rig = Rig()
            transport = rig.send(data)
            self.assertTrue(transport.was_reset)
            self.assertEqual(rig.factory.ledger.connections_refused[reason], 1)
            closed = {r.value: n for r, n in rig.factory.ledger.connections_closed.items() if n}
            self.assertEqual((closed, rig.sink.records), ({"wrong_protocol": 1}, []))
            self.assertEqual(rig.survey.conservation_error(), 0)

    def test_bad_frame_closes(self) -> None:
        """On a port for counted frames a line ends the connection, under its own reason."""
        rig = Rig(framing="octet-counted")
        transport = rig.send(b"2 ok<13>a line\n")
        self.assertTrue(transport.was_reset)
        self.assertEqual(rig.sink.records, [b"ok"])
        self.assertEqual(rig.factory.ledger.bytes_discarded[DiscardReason.FRAMING], 11)
        self.assertEqual(rig.survey.conservation_error(), 0)

    def of_kind(self, told: list[Fact], kind: str) -> list[str]:
        """Give what was told of a kind."""
        return [fact.message for fact in told if fact.kind == kind]

    def logged(self, seen: Seen, kind: str) -> list[str]:
        """Give the log lines of a kind."""
        return [formatEvent(event) for event in seen.events if event["event"] == kind]

    def test_a_reconnecting_peer_is_folded(self) -> None:
        """A ring that comes back at once, 1,400 times in two seconds, is a few lines, the last of which counts."""
        rig = Rig()
        seen = Seen.during(self)
        for _ in range(1400):
            rig.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n<13>x\n")
            rig.clock.advance(2 / 1400)
        kind = "wrong_protocol_proxy"
        self.assertEqual(len(self.logged(seen, kind)), BURST)
        self.assertLessEqual(len(seen.events), 3 * BURST)
        rig.clock.advance(INTERVAL_SECONDS)
        rig.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
        last = self.logged(seen, kind)[BURST:]
        self.assertEqual(len(last), 1)
        self.assertIn(f"({1400 - BURST} more like it before)", last[0])
        self.assertEqual(rig.factory.ledger.connections_refused[RefuseReason.PROXY], 1401)

    def test_what_is_no_text(self) -> None:
        """First bytes that are no text and no protocol known are framed as ever, and one warning shows them."""
        for start in (b"\x01\x02\x03", b"\0\0\0\x1c\x01", b"0\x1c\x02\x01\x01", b"\xc3\x11", b"ab\x05"):
            for size in (1, 2, 1000):
                rig = Rig(framing="newline")
                told = watched(rig)
                rig.send(start + b"\x1b[2J bytes\nmore\n\x01\n", size)
                rig.turn()
                self.assertEqual(rig.sink.records, [start + b"\x1b[2J bytes", b"more", b"\x01"])
                (line,) = self.of_kind(told, "unknown_protocol")
                self.assertTrue(line.isprintable(), line)
                self.assertEqual(rig.survey.conservation_error(), 0)
        for start in (
            b"<13>x",
            b"\0<13>x",
            b"\xe9t\xe9",
            "日本".encode("shift-jis"),
            b"\x1b[31mred",
            b"a b\x01",
            b"\n\x01",
        ):
            rig = Rig()
            told = watched(rig)
            rig.send(start + b"\n")
            self.assertEqual(self.of_kind(told, "unknown_protocol"), [])

    def test_unknown_protocols_are_folded(self) -> None:
        """However many such peers come, the log has a few lines."""
        rig = Rig()
        seen = Seen.during(self)
        for _ in range(BURST * 5):
            rig.send(b"\x01\x02\n")
        self.assertEqual(len(self.logged(seen, "unknown_protocol")), BURST)

    def test_keep_alives_at_the_beginning(self) -> None:
        """Empty lines before anything else are no begun record: no frame deadline runs."""
        rig = Rig()
        transport = rig.send(b"\r\n")
        rig.turn(100)
        self.assertFalse(transport.was_reset)
        transport.peer_sends(b"\r\n<13>x\n")
        transport.pump()
        rig.turn()
        self.assertEqual((rig.sink.records, rig.factory.ledger.records_empty), ([b"<13>x"], 2))

    def test_a_whole_record_waits_a_second_at_most(self) -> None:
        """A record that could be another protocol's beginning is given within a second, and the connection lives."""
        for framing, start, record in (
            ("newline", b"*1\r\n", b"*1"),
            ("auto", b"*1\r\n", b"*1"),
            ("nul", b"a\0", b"a"),
            ("nul", b"2W\0", b"2W"),
            ("auto", b"*1\r\n$4\r\n", b"*1"),
        ):
            rig = Rig(framing=framing, frame_timeout_seconds=None)
            transport = rig.send(start)
            rig.turn()
            self.assertEqual(rig.sink.records, [], start)
            rig.turn(1)
            self.assertEqual(rig.sink.records[:1], [record], start)
            transport.peer_sends(b"<13>more\n\0")
            transport.pump()
            rig.turn(60)
            self.assertEqual((transport.was_reset, rig.survey.conservation_error()), (False, 0))
            self.assertIn(b"<13>more", rig.sink.records[-1])

    def test_slow_typing_is_no_record(self) -> None:
        """What holds no whole record is held on, so that a slow peer is named as well."""
        rig = Rig()
        transport = rig.send(b"GET / ")
        rig.turn(3)
        transport.peer_sends(b"HTTP/1.1\r\n")
        transport.pump()
        self.assertTrue(transport.was_reset)
        self.assertEqual(rig.factory.ledger.connections_refused[RefuseReason.HTTP], 1)

    def test_nul_at_the_beginning(self) -> None:
        """Nor do empty records ended by NUL begin one."""
        rig = Rig()
        transport = rig.send(b"\0")
        rig.turn(100)
        self.assertFalse(transport.was_reset)


class RunTogetherTests(SynchronousTestCase):
    """Senders that end their records with nothing."""

    def named(self, told: list[Fact]) -> list[str]:
        """Give what was told that names the fix."""
        return [line for line in (fact.message for fact in told) if "set eol / newLine / %n" in line]

    def test_the_deadline_names_it(self) -> None:
        """What came is delivered at the frame deadline, and the log names the sender's mistake and the flag."""
        for data in TOGETHER:
            for size in (1, 1000):
                rig = Rig()
                told = watched(rig)
                transport = rig.send(data, size)
                rig.turn(40)
                self.assertTrue(transport.was_reset)
                closed = {r.value: n for r, n in rig.factory.ledger.connections_closed.items() if n}
                self.assertEqual(closed, {"frame_deadline": 1})
                (line,) = self.named(told)
                self.assertIn("--frame-timeout", line)

    def test_the_end_of_the_stream_names_it(self) -> None:
        """So does a sender that closes; one record cut off by the end is named nothing."""
        for data, count in ((b"<14>a<14>b", 1), (b"<14>a", 0), (b"30 <14>a<14>b", 0), (b"<14>a\n<14>b", 0)):
            rig = Rig()
            told = watched(rig)
            transport = rig.send(data)
            transport.peer_closes()
            transport.pump()
            self.assertEqual(len(self.named(told)), count, data)

    def test_too_long(self) -> None:
        """A fast sender reaches the longest record first: that line names it too."""
        rig = Rig(max_record_bytes=100)
        told = watched(rig)
        rig.send(b"<14>one<14>two" * 10)
        (line,) = self.named(told)
        self.assertIn("--max-length", line)
