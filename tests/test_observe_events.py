"""Events: what a peer causes is logged a few times, in constant formats, with its bytes bounded and escaped."""

import re
from typing import Any, NoReturn

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import CloseReason, RefuseReason
from twisted_ingest.escaping import escape, preview
from twisted_ingest.framing.signatures import PLAIN, SIGNATURES
from twisted_ingest.ledger import ListenerLedger
from twisted_ingest.limits import PREVIEW
from twisted_ingest.observe.events import Events
from twisted_ingest.observe.folding import BURST, INTERVAL_SECONDS, FoldingLog
from twisted_ingest.observe.peer_events import _REFUSALS
from twisted_ingest.server.admission import Admission
from twisted_ingest.tap import _PARAMETERS, _REPEATABLE

PEER = ConnectionInfo(7, "tcp-1514", "192.0.2.1:40000", "192.0.2.1")

HOSTILE = "\x1b[2J\r\n\x00\x07\x7f\x85\u2028\u202e\u2066\ufeff"
"""What clears a screen, begins a new line, ends a string, rings, or turns text around."""


OF_THE_OLD_LOG = {"message", "time", "system", "format", "logLevel", "isError", "failure", "why"}
"""What `twisted.python.log`, which a test is watched by too, adds to an event."""


def bug(message: str = "") -> NoReturn:
    """Fail as a bug of ours would."""
    raise ValueError(message)


@implementer(ILogObserver)
class Seen:
    """Keeps what was logged of ours while a test lasts."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace") == FoldingLog.logger.namespace:
            self.events.append({key: value for key, value in event.items() if key not in OF_THE_OLD_LOG})

    @classmethod
    def during(cls, test: SynchronousTestCase) -> "Seen":
        """Listen to the log until a test ends, and take the bugs in it for meant."""
        seen = cls()
        globalLogPublisher.addObserver(seen)
        test.addCleanup(globalLogPublisher.removeObserver, seen)
        test.addCleanup(test.flushLoggedErrors)
        return seen

    @property
    def lines(self) -> list[str]:
        """The messages."""
        return [formatEvent(event) for event in self.events]


class EventsTestCase(SynchronousTestCase):
    """Gives each test events whose log is kept and whose clock stands still."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.seen = Seen.during(self)
        self.ledger = ListenerLedger()
        self.events = Events(self.clock.seconds)

    def oversize(self, start: bytes = b"x") -> None:
        """Let a peer send a record that is too long."""
        self.events.record_oversize(PEER, 1024, "truncate", start)

    def fail(self, message: str = "boom") -> None:  # type: ignore[override]
        """Let a bug of ours happen."""
        try:
            bug(message)
        except ValueError:
            self.events.internal_error("dataReceived", PEER)


class RateLimitTests(EventsTestCase):
    def test_burst(self) -> None:
        """A kind is logged at most ``BURST`` times per interval, and every line left out is counted."""
        for _ in range(BURST + 5):
            self.oversize()
        self.assertEqual(len(self.seen.events), BURST)
        self.assertEqual(self.events.log.suppressed, 5)

    def test_ten_thousand(self) -> None:
        """Ten thousand faults of peers within a second are ten lines."""
        for _ in range(10_000):
            self.oversize()
            self.clock.advance(0.0001)
        self.assertEqual(len(self.seen.events), BURST)
        self.assertEqual(self.events.log.suppressed, 10_000 - BURST)

    def test_folded_are_reported_with_the_next(self) -> None:
        """The first line after the interval says how many were folded, and the second says nothing of it."""
        for _ in range(BURST + 3):
            self.oversize()
        self.clock.advance(INTERVAL_SECONDS)
        self.oversize()
        self.oversize()
        last, after = self.seen.events[-2:]
        self.assertTrue(formatEvent(last).endswith(" (3 more like it before)"), formatEvent(last))
        self.assertEqual((last["folded"], after["folded"]), (3, 0))
        self.assertNotIn("more like it", formatEvent(after))

    def test_just_before_the_interval_ends(self) -> None:
        """The window is as long as it is said to be."""
        for _ in range(BURST):
            self.oversize()
        self.clock.advance(INTERVAL_SECONDS - 0.001)
        self.oversize()
        self.assertEqual(len(self.seen.events), BURST)
        self.clock.advance(0.001)
        self.oversize()
        self.assertEqual(len(self.seen.events), BURST + 1)

    def test_a_full_burst_without_more_folds_nothing(self) -> None:
        """A kind that used its share exactly reports nothing as folded."""
        for _ in range(BURST):
            self.oversize()
        self.clock.advance(INTERVAL_SECONDS)
        self.oversize()
        self.assertEqual(self.seen.events[-1]["folded"], 0)

    def test_kinds_are_apart(self) -> None:
        """A flood of one kind hides no other kind."""
        for _ in range(BURST * 3):
            self.oversize()
        self.events.connection_opened(self.ledger, PEER)
        self.events.sink_stalled("file", "disk full")
        self.events.sink_stalled("file-2", "disk full")
        self.assertEqual(
            [event["event"] for event in self.seen.events[BURST:]],
            ["connection_opened", "sink_stalled:file", "sink_stalled:file-2"],
        )

    def test_internal_errors(self) -> None:
        """Tracebacks are limited and folded as all else is, and each bug is counted."""
        for _ in range(BURST + 4):
            self.fail()
        self.clock.advance(INTERVAL_SECONDS)
        self.fail()
        self.assertEqual(len(self.seen.events), BURST + 1)
        self.assertEqual(self.events.internal_errors, BURST + 5)
        self.assertEqual(self.events.log.suppressed, 4)
        self.assertEqual(self.seen.events[-1]["folded"], 4)
        self.assertIn("(4 more like it before)", self.seen.lines[-1])

    def test_every_refusal_names_its_flag(self) -> None:
        """Who is turned away unheard: the log names the flag that changes it, where there is one."""
        flags = {f"--{name}" for name in (*_PARAMETERS, *_REPEATABLE)}
        told_the_fix = {signature.reason for signature in (*SIGNATURES, PLAIN)}
        self.assertEqual(set(_REFUSALS), set(RefuseReason) - told_the_fix)
        # Those of a doorway are of the newcomer's making, or bounds that no workload wants different.
        in_doorway = {reason for reason in _REFUSALS if reason.value.startswith(("doorway_", "proxy_", "tls_"))}
        for reason in set(_REFUSALS) - {RefuseReason.INTERNAL_ERROR} - in_doorway:
            self.events.connection_refused(self.ledger, "tcp-1514", "192.0.2.1:1", reason)
            named = re.search(r"\((--[a-z-]+)\)", self.seen.lines[-1])
            assert named is not None, reason
            self.assertIn(named[1], flags)

    def test_counts_are_not_limited(self) -> None:
        """What is folded in the log is counted in the ledger all the same."""
        for _ in range(1000):
            self.events.connection_opened(self.ledger, PEER)
            self.events.connection_closed(self.ledger, PEER, CloseReason.IDLE, 1, 2)
            self.events.connection_refused(self.ledger, "tcp-1514", "192.0.2.1:1", RefuseReason.PER_PEER)
        self.assertEqual(self.ledger.connections_opened, 1000)
        self.assertEqual(self.ledger.connections_closed[CloseReason.IDLE], 1000)
        self.assertEqual(self.ledger.connections_refused[RefuseReason.PER_PEER], 1000)
        self.assertEqual(len(self.seen.events), 3 * BURST)

    def test_memory_is_bounded(self) -> None:
        """The rate limit remembers kinds, never peers."""
        for number in range(1000):
            peer = ConnectionInfo(number, "tcp-1514", f"192.0.2.1:{number}", "192.0.2.1")
            self.events.connection_opened(self.ledger, peer)
            self.events.timed_out(peer, CloseReason.IDLE, 5.0)
            self.events.timed_out(peer, CloseReason.FRAME_DEADLINE, 5.0)
        self.assertEqual(len(self.events.log._windows), 3)


class PreviewTests(SynchronousTestCase):
    def test_bounded(self) -> None:
        """No more than ``PREVIEW`` bytes of a peer are shown, and a cut is marked."""
        self.assertEqual(preview(b"x" * PREVIEW), "'" + "x" * PREVIEW + "'")
        self.assertEqual(preview(b"x" * (PREVIEW + 1)), "'" + "x" * PREVIEW + "'…")

    def test_hostile_bytes(self) -> None:
        """Escapes, line ends, NUL, text direction and bytes that are not UTF-8 are shown, not sent."""
        shown = preview(HOSTILE.encode() + b"\xff\xfe")
        self.assertTrue(shown.isprintable(), shown)
        self.assertTrue(shown.isascii(), shown)
        self.assertTrue(shown.startswith(r"'\x1b[2J\r\n\x00"), shown)

    def test_quotes(self) -> None:
        """A quote in the data neither raises nor changes what is shown."""
        self.assertEqual(preview(b"""it's "so" \\"""), """'it\\'s "so" \\\\'""")

    @given(st.binary(max_size=300))
    def test_any_bytes(self, data: bytes) -> None:
        """Whatever is sent, what is shown is one short printable ASCII line (the mark of a cut aside)."""
        shown = preview(data)
        self.assertTrue(shown.isprintable())
        self.assertTrue(shown.rstrip("…").isascii())
        self.assertLessEqual(len(shown), 4 * PREVIEW + 3)

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Escaped text is printable, and printable text stays as it is."""
        escaped = escape(text)
        self.assertTrue(escaped.isprintable())
        if text.isprintable():
            self.assertEqual(escaped, text)

    def test_escape(self) -> None:
        """Letters of all languages stay; what steers a terminal does not."""
        self.assertEqual(escape("/run/größe/日本\x1b\n\udcff\u202e"), "/run/größe/日本\\x1b\\n\\udcff\\u202e")


class ContentTests(EventsTestCase):
    def say_everything(self, peer: str, start: bytes) -> None:
        """Make every event that carries something of a peer."""
        info = ConnectionInfo(1, "unix", peer, None)
        self.events.connection_opened(self.ledger, info)
        self.events.connection_closed(self.ledger, info, CloseReason.EOF, 3, 2048)
        self.events.connection_refused(self.ledger, "unix", peer, RefuseReason.PER_PEER)
        self.events.record_oversize(info, 1024, "truncate", start)
        self.events.timed_out(info, CloseReason.IDLE, 300.0)
        self.events.timed_out(info, CloseReason.FRAME_DEADLINE, 30.0)
        try:
            bug()
        except ValueError:
            self.events.internal_error("dataReceived", info)

    def test_hostile_peer(self) -> None:
        """A peer's name and bytes come out on one printable line, whatever the event."""
        self.say_everything(HOSTILE, HOSTILE.encode())
        self.assertEqual(len(self.seen.lines), 7)
        for line in self.seen.lines:
            self.assertTrue(line.isprintable(), repr(line))

    def test_braces_and_percents(self) -> None:
        """What looks like a format is shown, never interpreted."""
        tricky = "{0} {log_format} {log_logger.__class__} {conn()} %s %(peer)s %n"
        self.say_everything(tricky, tricky.encode())
        for line in self.seen.lines:
            self.assertIn(tricky, line)

    def test_formats_are_constant(self) -> None:
        """Two peers' events have the same formats: nothing of a peer is part of one."""
        self.say_everything("{peer}", b"{start}")
        first = [event["log_format"] for event in self.seen.events]
        self.seen.events.clear()
        self.say_everything("192.0.2.9:1", b"GET / HTTP/1.1")
        self.assertEqual([event["log_format"] for event in self.seen.events], first)

    def test_fields_of_a_peer(self) -> None:
        """An event about a connection names listener, peer and number, and holds no object of ours."""
        self.say_everything("192.0.2.1:5", b"x")
        for event in self.seen.events:
            self.assertEqual((event["listener"], event["peer"]), ("unix", "192.0.2.1:5"))
            own = [value for key, value in event.items() if not key.startswith("log_")]
            self.assertTrue(all(isinstance(value, (str, int, float)) for value in own), own)

    def test_a_megabyte_is_not_kept(self) -> None:
        """An event holds a preview of an oversize record, not the record."""
        self.oversize(b"y" * 1_000_000)
        kept = [len(value) for value in self.seen.events[0].values() if isinstance(value, str)]
        self.assertLess(max(kept), 200)


class WordingTests(EventsTestCase):
    def test_each_event(self) -> None:
        """Each event reads as a sentence with its numbers in units and the flag that would change it."""
        self.events.connection_closed(self.ledger, PEER, CloseReason.EOF, 3, 2048)
        self.events.accepting_paused(Admission(0).fullness)
        self.events.accept_failed("tcp-1514", OSError(24, "Too many open files"), 0.5)
        self.oversize(b"abc")
        self.events.timed_out(PEER, CloseReason.IDLE, 300.0)
        self.events.timed_out(PEER, CloseReason.FRAME_DEADLINE, 30.0)
        self.events.intake_high(900, 1024)
        self.events.intake_low(512)
        self.events.sink_recovered("file", "/var/log/x")
        self.events.sink_failed("file", "gone")
        self.events.sink_repaired("file", "/var/log/x")
        self.events.note("hello {who}", who="you")
        self.assertEqual(
            self.seen.lines,
            [
                "tcp-1514: 192.0.2.1:40000 closed (#7): eof, 3 records, 2KiB",
                "0 connections are open, the most allowed (--max-connections): new ones wait until one closes",
                "tcp-1514: cannot accept: [Errno 24] Too many open files; trying again in 0.5 s",
                "tcp-1514: 192.0.2.1:40000 sent a record longer than 1KiB (--max-length): truncate; it begins 'abc'",
                "tcp-1514: 192.0.2.1:40000 sent nothing for 300.0 s (--idle-timeout)",
                "tcp-1514: 192.0.2.1:40000 did not end a record within 30.0 s (--frame-timeout)",
                "900B of 1KiB are waiting for the sinks: reading has stopped until they catch up (--memory)",
                "reading goes on, 512B waiting",
                "sink file: /var/log/x: writing again",
                "sink file has failed for good: gone",
                "sink file: /var/log/x ended in half a line (a killed process); it was ended with LF",
                "hello you",
            ],
        )

    def test_internal_error(self) -> None:
        """A bug is logged as critical with its traceback, and says where and on account of whom."""
        self.fail("the bug")
        event: dict[str, Any] = self.seen.events[0]
        self.assertEqual(formatEvent(event), "tcp-1514: 192.0.2.1:40000 (#7): internal error in dataReceived")
        self.assertIs(event["log_level"], LogLevel.critical)
        self.assertIn("the bug", event["log_failure"].getTraceback())

    def test_internal_error_without_a_connection(self) -> None:
        """A bug that belongs to no connection says where it is, and names nobody."""
        try:
            bug()
        except ValueError:
            self.events.internal_error("buildProtocol")
        self.assertEqual(self.seen.lines, ["internal error in buildProtocol"])
