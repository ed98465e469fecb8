"""A bad byte costs its own record and its neighbours: damage to streams of every known kind, and how lies are met."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.containment import (
    ATOMS,
    BEGIN,
    BOUND,
    INFO,
    KINDS,
    PAGE,
    POISONS,
    RECORDS,
    cut,
    damaged,
    intact,
    loss,
    places,
    records,
    wires,
    worst,
)
from tests.scanners import without_scanner
from tests.test_framing_mixed import STREAMS, run_one
from twisted_ingest.errors import Oversize, Resync
from twisted_ingest.framing.auto import AutoFramer
from twisted_ingest.ledger import ListenerLedger
from twisted_ingest.limits import KIB, MAX_LENGTH
from twisted_ingest.testing import Rig

DAMAGE = st.one_of(
    st.lists(st.sampled_from(ATOMS), min_size=1, max_size=12).map(b"".join),
    st.binary(min_size=1, max_size=64),
    st.text(alphabet="0123456789 <>\n\0{}ax", min_size=1, max_size=64).map(str.encode),
).map(lambda poison: poison[:64])

# Bytes that make the doubtful cases, which arbitrary streams seldom meet.
DOUBTS = st.lists(
    st.sampled_from(
        [
            *(b"5 <1>a", b"6 <1>ab", b"8 <1>a\nb", b"4 <1>", b"14 <1>a\nb5 <1>", b"\0<1>", b"\n<1>", b"\0{", b"\n{"),
            *(
                b"9 <1>",
                b"99 <1>",
                b"12",
                b"1234567 <1>",
                b" <1>",
                b"<1>a\nb\0",
                b"{\n}\0",
                b"<1>a\0",
                b"a",
                b"\n",
                b"\0",
            ),
        ]
    ),
    max_size=25,
).map(b"".join)


NUMBERS = [[b"%03d" % number] for number in range(RECORDS)]


class PropertyTests(SynchronousTestCase):
    """What holds whatever the damage."""

    @settings(max_examples=400, deadline=None)
    @given(
        st.sampled_from(sorted(KINDS)),
        st.integers(0, RECORDS - 1),
        st.integers(0, 200),
        DAMAGE,
        st.lists(st.integers(0, 2000), max_size=5),
    )
    @example("counted", 34, 15, b"1 <1>\0}5 500 <1>9 46 <13> 500 <1>bcbc", [300])
    @example("CRLF", 0, 8, b"7\xef\xbb\xbfa\xef\xbb\xbf46 <13>9 \n99999 <13><1>", [])
    def test_damage_costs_three_records(self, kind: str, at: int, offset: int, poison: bytes, cuts: list[int]) -> None:
        """Up to 64 bytes, between records or behind a record's first bytes, cost it and its neighbours at most."""
        offset = offset % len(wires(kind)[at])
        offset = offset if offset >= 8 else 0
        data = damaged(kind, at, offset, poison)
        self.assertLessEqual(loss(records(cut(data, cuts)), intact(kind)), BOUND)

    @pytest.mark.slow
    def test_every_poison_everywhere(self) -> None:
        """No row of the table of poisons costs more than three records, wherever it stands in whatever stream."""
        for kind in KINDS:
            for poison in POISONS:
                self.assertLessEqual(worst(kind, poison), BOUND, (kind, poison))

    @settings(max_examples=300, deadline=None)
    @given(
        st.one_of(STREAMS, DOUBTS, st.binary(max_size=120)),
        st.integers(1, 40),
        st.sampled_from(Oversize),
        st.lists(st.integers(0, 300), max_size=6),
        st.sampled_from([0, 3, 20, 4096]),
        st.sampled_from([32, 40, 256]),
        st.sampled_from([1, 2, 16]),
    )
    def test_any_cut(  # noqa: PLR0917 - what is chosen of a stream
        self, data: bytes, limit: int, policy: Oversize, cuts: list[int], wary: int, slack: int, trust: int
    ) -> None:
        """A stream gives what its bytes give one at a time, however it is cut, with the scanner and without."""
        chosen = {"__slots__": (), "_wary_bytes": wary, "_slack": slack, "_trust": trust}
        found = type("Chosen", (AutoFramer,), chosen)
        plain = type("Chosen", (without_scanner(AutoFramer),), chosen)
        bytewise = [data[at : at + 1] for at in range(len(data))]
        expected = run_one(plain(INFO, ListenerLedger(), limit, policy, sniff=False), bytewise)
        for kind in (found, plain):
            for chunks in ([data], cut(data, cuts)):
                self.assertEqual(run_one(kind(INFO, ListenerLedger(), limit, policy, sniff=False), chunks), expected)

    def test_well_formed_streams(self) -> None:
        """Undamaged, each kind gives its records, but for the first that holds LF and ends in NUL, which is split."""
        for kind in KINDS:
            given = intact(kind)
            # Its first record is three lines.
            split = 2 if kind == "NUL-ended, LF inside" else 0
            self.assertEqual(len(given), RECORDS + split, kind)
            self.assertEqual([re.findall(rb"msg (\d{3})", record) for record in given[split + 1 :]], NUMBERS[1:], kind)

    def test_nothing_is_taken_back_without_damage(self) -> None:
        """Of undamaged streams no reading is given up, but for what ends in NUL and has not shown it yet."""
        for kind in KINDS:
            ledger = ListenerLedger()
            framer = AutoFramer(INFO, ledger, MAX_LENGTH, sniff=False)
            for chunk in cut(b"".join(wires(kind)), list(range(0, 2000, 7))):
                framer.feed(chunk, 0.0)
            self.assertEqual(sum(ledger.framing_resyncs.values()), 0, kind)

    def test_what_is_seen_late_decides_nothing_earlier(self) -> None:
        """A header that begins in a frame and ends behind it is none while the frame is judged."""
        data = damaged("counted", 34, 15, b"1 <1>\0}5 500 <1>9 46 <13> 500 <1>bcbc")
        self.assertEqual(records([data]), records([data[at : at + 1] for at in range(len(data))]))

    def test_damage_was_tried_where_it_matters(self) -> None:
        """The places are between records, inside them, and on both sides of the point from which frames are trusted."""
        for kind in KINDS:
            self.assertTrue({(0, 0), (1, 0), (20, 0), (RECORDS - 1, 0)} <= set(places(kind)))

    def test_page(self) -> None:
        """The page shows the table, with a row of each kind."""
        _, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        for kind in KINDS:
            self.assertIn(f"\n| {kind} |", rest)


class TableTests(SynchronousTestCase):
    """Damage that was met, or is to be feared: what is wanted of each."""

    def given(self, data: bytes, limit: int = MAX_LENGTH) -> list[bytes]:
        """Give the records of a stream that goes on: none is held back for its end."""
        self.framer = AutoFramer(INFO, ListenerLedger(), limit)
        batches = self.framer.feed(data, 0.0)
        batches += self.framer.settle(0.0)
        self.assertFalse(self.framer.in_doubt)
        return [record for batch in batches for record in batch.records()]

    def test_nul_in_lines(self) -> None:
        """A stray NUL, or a block of them as an unclean shutdown leaves it, touches its own line only."""
        good = [b"<13>good %d" % number for number in range(500)]
        for damage, of_it in (
            (b"<13>x\0y\n", [b"<13>x", b"y"]),
            (b"\0\n", []),
            (b"\0" * 64 + b"\n", []),
            (b"<13>x\0<13>y\n", [b"<13>x", b"<13>y"]),
        ):
            self.assertEqual(self.given(damage + b"".join(line + b"\n" for line in good)), of_it + good)
            causes = [cause for cause, _ in self.framer.resyncs]
            self.assertEqual(causes, [Resync.NUL] if b"\0<" in damage else [])

    def test_python_traceback_first(self) -> None:
        """A first record with LF of a client that ends with NUL is split; all that follow are whole."""
        data = b"<14>first\nsecond\nthird\0<14>after\0<14>two\nlines\0"
        self.assertEqual(self.given(data), [b"<14>first", b"second", b"third", b"<14>after", b"<14>two\nlines"])

    def test_perl_syslog(self) -> None:
        """LF and NUL, or NUL alone behind a message that holds LF, end what Perl's Sys::Syslog sends."""
        data = b"<14>one\n\0<14>two\nlines\0<11>three\n\0<14>four\nlines\0<11>five\n\0"
        self.assertEqual(
            self.given(data), [b"<14>one", b"<14>two", b"lines", b"<11>three", b"<14>four\nlines", b"<11>five"]
        )

    def test_lying_counts_in_raw_lines(self) -> None:
        """A line that looks like the header of a frame is a line, and so is what follows it."""
        good = [b"line %d" % number for number in range(200)]
        for lie in (b"9999999 <0>", b"100 <1> retries", b"2000000 <13>first", b"5000 <13>", b"102000 <13>x"):
            lines = [b"ok", lie, *good]
            self.assertEqual(self.given(b"".join(line + b"\n" for line in lines)), lines)
            self.assertEqual(self.given(b"".join(line + b"\n" for line in lines[1:])), lines[1:])

    def test_characters_counted_instead_of_bytes(self) -> None:
        """One wrong count without LF costs its record: the next frames are found, and the cause is named."""
        good = [b"<13>good %d" % number for number in range(20_000)]
        data = b"5 <13>ab" + b"".join(b"%d %b" % (len(frame), frame) for frame in good)
        self.assertEqual(self.given(data), [b"<13>a", b"b", *good])
        self.assertEqual([cause for cause, _ in self.framer.resyncs], [Resync.JUNK])

    def test_digits_before_a_count(self) -> None:
        """Where what lies between frames ends in digits, the frame behind it is found all the same."""
        frames = b"".join(b"8 <13>%04d" % number for number in range(10))
        self.assertEqual(self.given(frames + b"lost pid=71" + frames)[10:], [b"lost pid=71", *self.given(frames)])

    def test_blanks_before_no_priority(self) -> None:
        """Blanks are padding only before a priority."""
        self.assertEqual(self.given(b"  <b>1</b>\n   <13>x\n  <13\n"), [b"  <b>1</b>", b"<13>x", b"  <13"])

    def test_senders_that_end_nothing(self) -> None:
        """Records that end with nothing are one unfinished record, of bounded size."""
        self.assertEqual(self.given(b"<14>a<14>b" * 3), [])
        self.assertEqual([len(record) for record in self.given(b"<14>a<14>b" * 30_000)], [MAX_LENGTH])

    def test_frame_that_quotes_headers(self) -> None:
        """Headers in a frame that lead nowhere are content; linked ones are taken for frames."""
        quoting = b"<13>sent 9 <13>abc and 77 <1> to it"
        data = b"%d %b" % (len(quoting), quoting)
        self.assertEqual(self.given(data * 3), [quoting] * 3)
        linked = b"<13>got 7 <13>abc7 <13>def."
        self.assertEqual(self.given(b"%d %b" % (len(linked), linked) + b"5 <13>x")[1:3], [b"<13>abc", b"<13>def"])

    def test_oversize_frame(self) -> None:
        """A frame too long is cut and skipped by its count; where no frames came before it, not past a line's end."""
        data = b"5 <13>a" * 20 + b"1000 <13>" + b"x" * 995 + b"\n" + b"7 <13>abc"
        self.assertEqual(self.given(data, limit=50)[-2:], [b"<13>" + b"x" * 46, b"<13>abc"])
        self.assertEqual(self.given(b"9000 <13>" + b"x" * 995 + b"\nnext\n", limit=50), [b"<13>" + b"x" * 46, b"next"])

    def test_nothing_but_lies(self) -> None:
        """Lies a byte at a time are read in time that grows with their number, and cost nobody's record."""
        lies = b"102000 <13>x\n" * 3000
        framer = AutoFramer(INFO, ListenerLedger(), MAX_LENGTH)
        held, batches = 0, []
        for at in range(len(lies)):
            batches += framer.feed(lies[at : at + 1], 0.0)
            held = max(held, framer.buffered)
        batches += framer.finish(0.0)
        given = [record for batch in batches for record in batch.records()]
        self.assertEqual(given, [b"102000 <13>x"] * 3000)
        # What is weighed at a time is bounded, so that no line is looked at more often than that.
        self.assertLess(held, 2 * KIB)


class DoubtTests(SynchronousTestCase):
    """What is whole is delivered, or told apart from what is not, within a second."""

    def test_given_within_a_second(self) -> None:
        """Lines behind a lying count, and a frame that holds LF, are delivered although nothing follows."""
        for data, expected in (
            (b"9999 <0>\nand a line\n", [b"9999 <0>", b"and a line"]),
            (b"9 <13>a\nbcd", [b"<13>a\nbcd"]),
            (b"<14>one\ntwo\0", [b"<14>one", b"two"]),
        ):
            rig = Rig(frame_timeout_seconds=None, idle_timeout_seconds=None)
            transport = rig.send(data)
            rig.clock.pump([0.1] * 10)
            self.assertEqual(rig.sink.records, expected)
            self.assertFalse(transport.was_reset)

    def test_a_reset_takes_nothing_that_is_whole(self) -> None:
        """What was held as whole when the peer resets is delivered."""
        rig = Rig()
        transport = rig.send(b"9999 <0>\nand a line\nhalf")
        transport.peer_resets()
        transport.pump()
        rig.clock.pump([0.1] * 3)
        self.assertEqual(rig.sink.records, [b"9999 <0>", b"and a line"])

    def test_a_pause_costs_one_record(self) -> None:
        """A second without bytes, anywhere in an undamaged stream, costs the record it is in if that holds LF."""
        for kind in KINDS:
            data, expected = b"".join(wires(kind)), intact(kind)
            for at in range(1, len(data), 2):
                framer = AutoFramer(INFO, ListenerLedger(), MAX_LENGTH, sniff=False)
                batches = [*framer.feed(data[:at], 0.0), *framer.settle(0.0)]
                self.assertFalse(framer.in_doubt)
                batches += [*framer.feed(data[at:], 0.0), *framer.finish(0.0)]
                given = [record for batch in batches for record in batch.records()]
                self.assertLessEqual(loss(given, expected), int("LF inside" in kind), (kind, at))

    def test_quiet_afterwards(self) -> None:
        """No timer is left when the doubt is over, nor when the connection is."""
        rig = Rig(idle_timeout_seconds=None)
        transport = rig.send(b"9999 <0>\nand a line\n")
        transport.peer_closes()
        transport.pump()
        rig.clock.pump([0.1] * 3)
        self.assertEqual([call for call in rig.clock.getDelayedCalls() if "_settle" in str(call)], [])
        self.assertEqual(rig.sink.records, [b"9999 <0>", b"and a line"])
