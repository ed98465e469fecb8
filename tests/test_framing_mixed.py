"""Counted frames, and what real clients mix: any cut gives the same, judged by a model that sees the whole stream."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.scanners import both
from twisted_ingest.batch import Batch, ConnectionInfo
from twisted_ingest.errors import DiscardReason, Oversize
from twisted_ingest.framing.auto import AutoFramer
from twisted_ingest.framing.base import Framer
from twisted_ingest.framing.octets import OctetFramer
from twisted_ingest.ledger import Balance, ListenerLedger

INFO = ConnectionInfo(1, "test", "192.0.2.1:1", "192.0.2.1")
BOM = b"\xef\xbb\xbf"

PIECES = st.sampled_from(
    [
        b"a",
        b"bc",
        b"\r",
        b"\n",
        b"\r\n",
        b"\x00",
        b"\n\x00",
        b"<13>",
        b"<1",
        b">",
        b"{",
        b"}",
        b" ",
        b"  <1>x",
        BOM,
        b"\xef",
        b"6 <13>xy",
        b"7 <13>xy\n",
        b"8 <13>xy\r\n",
        b"5 <1>\x00z",
        b"9 " + BOM + b"<1>ab\n",
        b"12 <13>1234567890",
        b"1 \n",
        b"3 abc",
        b"404 ",
        b"2026-11-21T03:04:05 up\n",
        b"<13>one\x00",
        b"<11>two\nTrace\x00",
        b'{"a":1}\x00',
        b"0",
        b"007 <1>",
    ]
)
STREAMS = st.lists(PIECES, max_size=25).map(b"".join)
LIMITS = st.integers(1, 12)
POLICIES = st.sampled_from(Oversize)


@dataclass
class Outcome:
    """What became of a stream."""

    records: list[tuple[bytes, bool]] = field(default_factory=list)
    accepted: int = 0
    framing: int = 0
    discarded: int = 0
    empty: int = 0
    dropped: int = 0
    closed: DiscardReason | None = None


class Model:
    """Walks a whole stream frame by frame, the plain way."""

    def __init__(self, data: bytes, limit: int, policy: Oversize) -> None:
        self.data, self.limit, self.policy = data, limit, policy
        self.at = 0
        self.out = Outcome()

    def give(self, record: bytes, raw: bytes, rest: int, framing: int) -> None:
        """Judge one record: ``raw`` with its trailer, ``rest`` bytes of it not to be kept in any case."""
        out = self.out
        if len(record) > self.limit:
            if self.policy is Oversize.TRUNCATE:
                out.records.append((raw[: self.limit], True))
                out.accepted += self.limit
                out.discarded += len(raw) - self.limit
            else:
                out.dropped += 1
                out.discarded += len(raw)
                if self.policy is Oversize.CLOSE:
                    out.closed = DiscardReason.OVERSIZE
                    out.discarded += rest
                    return
            out.framing += framing
        elif record:
            out.records.append((record, False))
            out.accepted += len(record)
            out.framing += framing + len(raw) - len(record)
        else:
            out.empty += 1
            out.framing += framing + len(raw)

    def counted(self, header: "re.Match[bytes]") -> bool:
        """Take a counted frame; false where it is cut off by the end of the stream."""
        size, start = int(header[1]), header.end()
        body = self.data[start : start + size]
        self.out.framing += start - self.at
        if len(body) < size:
            self.at = start
            return self.cut_off(body, size)
        self.at = start + size
        record = payload(body)
        if size > self.limit + 2:
            record = body
        self.give(record, body, 0, 0)
        return True

    def cut_off(self, body: bytes, size: int) -> bool:
        """Deal with a frame the stream ends in: too long already, or unfinished."""
        if size > self.limit + 2 and len(body) >= self.limit:
            self.give(body[: self.limit] + b"x", body, 0, 0)
            if len(body) == self.limit:
                pass
        elif body:
            self.out.records.append((body, False))
            self.out.accepted += len(body)
        return False


def payload(body: bytes) -> bytes:
    """Strip a trailer and a BOM."""
    for trailer in (b"\r\n", b"\n", b"\0"):
        if body.endswith(trailer):
            body = body[: -len(trailer)]
            break
    return body[3:] if body.startswith(BOM + b"<") else body


def octet_model(data: bytes, limit: int, policy: Oversize) -> Outcome:
    """Say what must become of a stream of counted frames."""
    model = Model(data, limit, policy)
    while model.at < len(data) and model.out.closed is None:
        header = re.compile(rb"\n?([1-9][0-9]{0,6}) ").match(data, model.at)
        if header is None:
            rest = data[model.at :]
            if re.fullmatch(rb"\n?([1-9][0-9]{0,6})?", rest):
                model.out.framing += len(rest)
            else:
                model.out.discarded += len(rest)
                model.out.closed = DiscardReason.FRAMING
            return model.out
        if not model.counted(header):
            return model.out
    if model.out.closed:
        model.out.discarded += len(data) - model.at
    return model.out


def run(kind: type[Framer], chunks: list[bytes], limit: int, policy: Oversize) -> Outcome:
    """Feed a framer, and one that finds nothing in C, and read off what they did."""
    found, plain = (run_one(one(INFO, ListenerLedger(), limit, policy, sniff=False), chunks) for one in both(kind))
    if found != plain:
        raise AssertionError(f"with the scanner {found}, without it {plain}")
    return found


def run_one(framer: Framer, chunks: list[bytes]) -> Outcome:
    """Feed one framer and end the stream."""
    ledger = framer._ledger
    batches: list[Batch] = []
    for chunk in chunks:
        ledger.bytes_received += len(chunk)
        batches += framer.feed(chunk, 0.0)
        if Balance.of_bytes(ledger, framer.buffered).error:
            raise AssertionError("a byte is not accounted for")
    closed = framer.closed
    batches += framer.finish(0.0)
    if Balance.of_bytes(ledger, 0).error:
        raise AssertionError("a byte is not accounted for at the end")
    dropped = sum(ledger.records_dropped.values())
    if ledger.records_framed != sum(batch.count for batch in batches) + dropped:
        raise AssertionError("a record is not accounted for")
    return Outcome(
        records=[(record, batch.truncated) for batch in batches for record in batch.records()],
        accepted=ledger.bytes_accepted,
        framing=ledger.bytes_framing,
        discarded=sum(ledger.bytes_discarded.values()),
        empty=ledger.records_empty,
        dropped=dropped,
        closed=closed,
    )


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut a stream at the places given."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(edges)]


KINDS: dict[type[Framer], Callable[[bytes, int, Oversize], Outcome]] = {OctetFramer: octet_model}
"""What a plain walk over the whole stream says; of mixed streams `tests.test_framing_containment` tells."""

BOTH: tuple[type[Framer], ...] = (OctetFramer, AutoFramer)


class AnyCutTests(SynchronousTestCase):
    """Against the models, over all cuts."""

    @settings(max_examples=600, deadline=None)
    @given(STREAMS, LIMITS, POLICIES, st.lists(st.integers(0, 200), max_size=6))
    def test_any_cut(self, data: bytes, limit: int, policy: Oversize, places: list[int]) -> None:
        """However a stream is cut, its records, drops and sums are those of the model."""
        for kind, model in KINDS.items():
            self.assertEqual(run(kind, cut(data, places), limit, policy), model(data, limit, policy))

    @settings(max_examples=200, deadline=None)
    @given(STREAMS, LIMITS, POLICIES)
    def test_all_sizes(self, data: bytes, limit: int, policy: Oversize) -> None:
        """One chunk, single bytes, and every size between give the same."""
        for kind, model in KINDS.items():
            expected = model(data, limit, policy)
            for size in range(1, len(data) + 1):
                chunks = [data[at : at + size] for at in range(0, len(data), size)]
                self.assertEqual(run(kind, chunks, limit, policy), expected)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=120), st.integers(1, 40), POLICIES, st.lists(st.integers(0, 200), max_size=5))
    def test_any_bytes(self, data: bytes, limit: int, policy: Oversize, places: list[int]) -> None:
        """No bytes raise, and none stays unaccounted for."""
        for kind, model in KINDS.items():
            self.assertEqual(run(kind, cut(data, places), limit, policy), model(data, limit, policy))

    @settings(max_examples=200, deadline=None)
    @given(st.lists(STREAMS, max_size=6), LIMITS, POLICIES, st.data())
    def test_any_calls(self, chunks: list[bytes], limit: int, policy: Oversize, data: st.DataObject) -> None:
        """Evicting, finishing and discarding between any chunks keep every byte and record accounted for."""
        for kind in BOTH:
            ledger = ListenerLedger()
            framer = kind(INFO, ledger, limit, policy)
            delivered = 0
            for chunk in chunks:
                ledger.bytes_received += len(chunk)
                batches = framer.feed(chunk, 0.0)
                call = data.draw(st.sampled_from(["", "", "evict", "finish", "discard"]))
                if call == "discard":
                    framer.discard(DiscardReason.RESET)
                elif call:
                    batches += getattr(framer, call)(0.0)
                delivered += sum(batch.count for batch in batches)
                self.assertEqual(Balance.of_bytes(ledger, framer.buffered).error, 0)
                self.assertEqual(ledger.records_framed, delivered + sum(ledger.records_dropped.values()))


class ExampleTests(SynchronousTestCase):
    """What real clients put on the wire."""

    def records(self, data: bytes, kind: type[Framer] = AutoFramer, limit: int = 100) -> list[bytes]:
        return [record for record, _ in run(kind, [data], limit, Oversize.TRUNCATE).records]

    def test_count_includes_the_trailer(self) -> None:
        """Rsyslog, syslog-ng and Docker count a trailing LF: it is stripped, as CRLF and NUL are."""
        for kind in BOTH:
            for trailer in (b"", b"\n", b"\r\n", b"\0"):
                frame = b"<13>message" + trailer
                data = b"%d %s" % (len(frame), frame)
                self.assertEqual(self.records(data * 3, kind), [b"<13>message"] * 3)
                # The limit leaves the trailer out.
                self.assertEqual(self.records(data, kind, limit=11), [b"<13>message"])
                self.assertEqual(self.records(data, kind, limit=10), [b"<13>messag"])

    def test_a_line_that_is_just_too_long(self) -> None:
        """The longest line goes through whole, alone in its chunk, and one more byte is one too many."""
        for kind in BOTH:
            for size, is_long in ((9, False), (10, False), (11, True), (12, True)):
                data = b"first\n" + b"x" * size + b"\n" if kind is AutoFramer else b"%d %s" % (size, b"x" * size)
                chunks = [data[:6], data[6:]] if kind is AutoFramer else [data]
                last, truncated = run(kind, chunks, 10, Oversize.TRUNCATE).records[-1]
                self.assertEqual((last, truncated), (b"x" * min(size, 10), is_long), (kind, size))

    def test_mixed_on_one_connection(self) -> None:
        """Plain and counted messages alternate on one connection, as omfwd sends them."""
        data = b"<13>plain one\n15 <13>counted one<13>plain two\r\n16 <13>counted two\n<13>end\n"
        self.assertEqual(
            self.records(data), [b"<13>plain one", b"<13>counted one", b"<13>plain two", b"<13>counted two", b"<13>end"]
        )

    def test_alternating_framings_are_joined(self) -> None:
        """A chunk whose framing changes with each record makes one batch, in order."""
        framer = AutoFramer(INFO, ListenerLedger(), 100)
        batches = framer.feed(b"".join(b"line %d\n6 <1>%03d" % (n, n) for n in range(500)), 0.0)
        self.assertEqual(
            [record for batch in batches for record in batch.records()][:4],
            [b"line 0", b"<1>000", b"line 1", b"<1>001"],
        )
        self.assertEqual((sum(batch.count for batch in batches), len(batches)), (1000, 1))

    def test_records_that_hold_both_delimiters_are_not_joined(self) -> None:
        """A counted record that holds LF and NUL stays whole among many of its kind in one chunk."""
        framer = OctetFramer(INFO, ListenerLedger(), 100)
        batches = framer.feed(b"".join(b"8 <1>a\nb\0%d" % n for n in range(8)) + b"4 <1>c", 0.0)
        got = [record for batch in batches for record in batch.records()]
        self.assertEqual(got, [*(b"<1>a\nb\0%d" % n for n in range(8)), b"<1>c"])

    def test_lines_that_begin_with_digits(self) -> None:
        """A date, a status code or an epoch at the beginning of a line is no count."""
        lines = [b"2026-11-21T03:04:05Z up", b"404 <html>", b"1795217014 event", b"12 apples", b"200 <b>x</b>"]
        self.assertEqual(self.records(b"\n".join(lines) + b"\n"), lines)

    def test_content_cannot_change_the_framing(self) -> None:
        """A count inside a counted frame is content, unless it leads to another one inside it."""
        inner = b"<13>a 9999 <0>b 3 <1>"
        self.assertEqual(self.records(b"%d %s<1>after\n" % (len(inner), inner)), [inner, b"<1>after"])

    def test_python_sysloghandler(self) -> None:
        """Records of Python's handler end in NUL, and hold tracebacks once the first has shown that."""
        data = b"<14>one\0<11>two\nTraceback:\n  boom\0<14>three\0"
        self.assertEqual(self.records(data), [b"<14>one", b"<11>two\nTraceback:\n  boom", b"<14>three"])

    def test_log4j(self) -> None:
        """A NUL behind LF is swallowed."""
        self.assertEqual(self.records(b"one\n\0<1>two\n\0three\n\0"), [b"one", b"<1>two", b"three"])

    def test_gelf(self) -> None:
        """JSON ended by NUL is told apart without configuration."""
        self.assertEqual(self.records(b'{"a":1}\0{"b":2}\0'), [b'{"a":1}', b'{"b":2}'])

    def test_blanks_and_bom_before_a_priority(self) -> None:
        """Cisco's blank and a BOM before a priority are skipped; elsewhere they are content."""
        data = b" <1>a\n" + BOM + b"<2>b\n11 " + BOM + b"<3>cdefg<4>d\n  indented\n" + BOM + b"text\n"
        self.assertEqual(self.records(data), [b"<1>a", b"<2>b", b"<3>cdefg", b"<4>d", b"  indented", BOM + b"text"])

    def test_bad_headers(self) -> None:
        """Where only counted frames may come, anything else closes the stream, what came before delivered."""
        for header in (
            b"0 ",
            b"007 x",
            b"+5 hello",
            b"-1 x",
            b"5x",
            b"5\thello",
            b"12345678 x",
            b"\n\n5 hello",
            b"<13>x\n",
        ):
            out = run(OctetFramer, [b"2 ok" + header], 100, Oversize.TRUNCATE)
            self.assertEqual(([r for r, _ in out.records], out.closed), ([b"ok"], DiscardReason.FRAMING))

    def test_digits_without_end(self) -> None:
        """A million digits are refused at the eighth, or are a line like any other; nothing is quadratic."""
        digits = [b"1" * 1000] * 1000
        self.assertIs(run(OctetFramer, digits, 100, Oversize.TRUNCATE).closed, DiscardReason.FRAMING)
        out = run(AutoFramer, digits, 100, Oversize.TRUNCATE)
        self.assertEqual((out.records, out.discarded), ([(b"1" * 100, True)], 999_900))

    def test_nothing_is_allocated_from_a_count(self) -> None:
        """A declared length beyond the limit keeps the first bytes and skips the rest by count."""
        for kind in BOTH:
            frame = b"<13>" + b"x" * 996
            data = b"1000 " + frame + b"<1>next\n" if kind is AutoFramer else b"1000 " + frame + b"4 next"
            kept, after = self.records(data, kind, limit=50)
            self.assertEqual((kept, after[-4:]), (frame[:50], b"next"))
            framer = kind(INFO, ListenerLedger(), 50)
            framer.feed(b"9999999 <13>" + b"x" * 20, 0.0)
            self.assertLess(framer.memory, 1000)

    def test_records_that_hold_both_delimiters(self) -> None:
        """Records with LF and NUL inside are kept byte for byte; as lines each stays one line."""
        inner = b"<13>a\nb\0c."
        framer = OctetFramer(INFO, ListenerLedger(), 100, sniff=False)
        batches = framer.feed(b"%d %s" % (len(inner), inner) * 2 + b"1 x", 0.0)
        self.assertEqual([record for batch in batches for record in batch.records()], [inner, inner, b"x"])
        self.assertEqual(b"".join(batch.block() for batch in batches), b"<13>a\\nb\0c.\n" * 2 + b"x\n")

    def test_cut_off_frame(self) -> None:
        """A counted frame the stream ends in is delivered as far as it came, marked partial."""
        for kind in BOTH:
            ledger = ListenerLedger()
            framer = kind(INFO, ledger, 100, sniff=False)
            self.assertEqual(framer.feed(b"20 <13>half", 0.0), [])
            self.assertTrue(framer.in_record)
            (batch,) = framer.finish(0.0)
            self.assertEqual((batch.records(), batch.partial), ([b"<13>half"], True))
            self.assertFalse(framer.in_record)
