"""What was found in a chunk before the framer saw it: taken, it makes what feeding the chunk would have made."""

from typing import NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests import scanners
from tests.scanners import without_scanner
from tests.test_framing_containment import DOUBTS
from tests.test_framing_lines import cut
from tests.test_framing_mixed import STREAMS
from twisted_ingest.batch import Batch, ConnectionInfo
from twisted_ingest.errors import DiscardReason, Oversize
from twisted_ingest.framing import scan
from twisted_ingest.framing.auto import AutoFramer
from twisted_ingest.framing.base import Framer
from twisted_ingest.framing.lines import LineFramer, NulFramer
from twisted_ingest.framing.octets import OctetFramer
from twisted_ingest.framing.relp import RelpFramer
from twisted_ingest.framing.scan import Chunk, FramesIn, LinesIn, Look
from twisted_ingest.ledger import RelpLedger

INFO = ConnectionInfo(1, "test", "192.0.2.1:1", "192.0.2.1")

# Ordinary streams, long enough to be looked through, with what is odd among them.
ORDINARY = st.lists(
    st.one_of(
        *(st.sampled_from([b"line\n" * 3, b"<13>line\n", b"5 <1>a5 <1>b6 <1>c\n", b"8 <1>long."]) for _ in range(3)),
        st.sampled_from(
            [
                b"4 text",
                b"\n",
                b"\0",
                b"<1>a\0",
                b"7 <1>a\nb",
                b"9 <1>a\n5 <",
                b"1 syslog 2 hi\n",
                b"longer than that\n",
            ]
        ),
        st.binary(max_size=3),
    ),
    max_size=30,
).map(b"".join)


class Scanner(NamedTuple):
    """What looks through a read."""

    lines: LinesIn
    frames: FramesIn


def look(framer: Framer, chunk: bytes, scanner: Scanner, short: int) -> tuple[Chunk, int, int, Chunk]:
    """Look through a read as whoever receives does, but for its last bytes; gives what `Framer.take` takes."""
    mode, partial = framer.look, bytes(framer.partial)
    joined = partial + chunk
    seen = joined[: max(len(partial), len(joined) - short)]
    evidence = mode in (Look.LINES_OF_MIXED, Look.FRAMES_OF_MIXED)
    wire, count, end = b"", 0, 0
    if mode in (Look.LINES, Look.LINES_OF_MIXED):
        wire, count, end = scanner.lines(b"", seen, 0, framer.limit, evidence)
    elif mode is not Look.NOTHING:
        wire, count, end = scanner.frames(seen, 0, framer.limit, evidence)
    return wire, count, end, memoryview(joined)[end:] if count else memoryview(chunk)


class Run:
    """One framer, and everything that can be told of what it made."""

    def __init__(self, kind: type[Framer], limit: int, policy: Oversize, *, sniff: bool) -> None:
        self.ledger = RelpLedger()
        self.framer = kind(INFO, self.ledger, limit, policy, sniff=sniff)
        self.records: list[tuple[bytes, bool, bool]] = []

    def note(self, batches: list[Batch]) -> object:
        """Keep what was given; gives how the framer stands."""
        framer = self.framer
        self.records += [(record, batch.partial, batch.truncated) for batch in batches for record in batch.records()]
        found = (tuple(framer.oversized), tuple(framer.resyncs), framer.unnamed, framer.astray, framer.wrong_protocol)
        stands = (framer.in_doubt, framer.in_record, framer.closed, framer.crossed, framer.look, bytes(framer.partial))
        told = list(getattr(framer, "replies", []))
        return list(self.records), found, stands, told, self.ledger.snapshot()


KINDS: tuple[type[Framer], ...] = (LineFramer, NulFramer, OctetFramer, AutoFramer, RelpFramer)
SCANNERS = {
    "as built": Scanner(scan.lines_in, scan.frames_in),
    "in Python": Scanner(scanners.lines, scanners.frames),
}


class TakeTests(SynchronousTestCase):
    @settings(max_examples=600, deadline=None)
    @example(  # once NUL ends records, lines are to be looked at one by one
        AutoFramer,
        b"<1>a\0{}\0line\nline\nline\n\n\nline\n<13>x\nx\0",
        [5, 28],
        40,
        Oversize.TRUNCATE,
        False,
        20,
        1,
        0,
        [""] * 8,
    )
    @given(
        st.sampled_from(KINDS),
        st.one_of(ORDINARY, ORDINARY, STREAMS, DOUBTS, st.binary(max_size=120)),
        st.lists(st.integers(0, 300), max_size=6),
        st.integers(1, 40),
        st.sampled_from(Oversize),
        st.booleans(),
        st.sampled_from([0, 3, 20, 4096]),
        st.sampled_from([1, 2, 16]),
        st.sampled_from([0, 0, 1, 9]),
        st.lists(st.sampled_from(["", "", "", "settle", "evict"]), min_size=8, max_size=8),
    )
    def test_as_if_fed(  # noqa: PLR0917 - what is chosen of a stream
        self,
        kind: type[Framer],
        data: bytes,
        cuts: list[int],
        limit: int,
        policy: Oversize,
        sniff: bool,
        wary: int,
        trust: int,
        short: int,
        calls: list[str],
    ) -> None:
        """Whatever is found and wherever chunks end, all that can be told of the stream is as if it had been fed."""
        chosen = {"__slots__": (), "_wary_bytes": wary, "_trust": trust}
        kinds = [type("Chosen", (kind,), chosen), type("Chosen", (without_scanner(kind),), chosen)]
        for one in kinds:
            for scanner in SCANNERS.values():
                fed, taken = (Run(one, limit, policy, sniff=sniff) for _ in range(2))
                for chunk, call in zip(cut(data, cuts), calls, strict=False):
                    expected = fed.note(fed.framer.feed(chunk, 0.0))
                    found = look(taken.framer, chunk, scanner, short)
                    self.assertEqual(taken.note(taken.framer.take(*found, 0.0)), expected)
                    if call:
                        both = [run.note(getattr(run.framer, call)(0.0)) for run in (fed, taken)]
                        self.assertEqual(both[1], both[0])
                self.assertEqual(taken.note(taken.framer.finish(0.0)), fed.note(fed.framer.finish(0.0)))

    def test_frames_found_earn_trust(self) -> None:
        """Behind sixteen frames, wherever they were found, LF in a frame is content."""
        framer = AutoFramer(INFO, RelpLedger(), 100)
        framer.feed(b"4 <1>a", 0.0)
        framer.take(b"<1>a\n" * 15, 15, 90, b"", 0.0)
        (batch,) = framer.take(b"", 0, 0, b"6 <1>a\nb", 0.0)
        self.assertEqual(batch.records(), [b"<1>a\nb"])

    def test_wire_is_passed_on(self) -> None:
        """What was found is the wire of the first batch, whatever else there is, and is never joined with it."""
        wire = b"one\ntwo\n"
        framer = AutoFramer(INFO, RelpLedger(), 100)
        framer.feed(b"some line\n" * 500, 0.0)
        rest = b"".join(b"line %d\n6 <1>%03d" % (n, n) for n in range(50))
        first, *others = framer.take(wire, 2, len(wire), rest, 7.0)
        self.assertIs(first.wire, wire)
        self.assertEqual((first.count, first.received_at), (2, 7.0))
        self.assertEqual((len(others), sum(batch.count for batch in others)), (1, 100))


class LookTests(SynchronousTestCase):
    """Nothing is gained where the framer wants to see everything itself."""

    def looks(self, framer: Framer, chunks: list[bytes]) -> list[Look]:
        found = []
        for chunk in chunks:
            found.append(framer.look)
            framer.feed(chunk, 0.0)
        return found

    def test_ordinary_lines(self) -> None:
        """Lines are looked for from 4 KiB of them on, however they are cut, and with one line at a time."""
        lines = b"".join(b"<13>Nov 26 host app: line %d of many, as they come\n" % n for n in range(2000))
        chunks = [lines[at : at + 5000] for at in range(0, len(lines), 5000)]
        looks = self.looks(AutoFramer(INFO, RelpLedger(), 1000), chunks)
        self.assertEqual(looks, [Look.NOTHING] + [Look.LINES_OF_MIXED] * (len(chunks) - 1))
        looks = self.looks(AutoFramer(INFO, RelpLedger(), 1000), lines.splitlines(keepends=True))
        self.assertEqual(set(looks[200:]), {Look.LINES_OF_MIXED})

    def test_ordinary_frames(self) -> None:
        """Frames are looked for from the first one on, wherever they are cut."""
        frames = b"".join(b"31 <13>Nov 26 host app: %010d" % n for n in range(2000))
        for size in (500, 4999, 5000, 5001):
            chunks = [frames[at : at + size] for at in range(0, len(frames), size)]
            looks = self.looks(AutoFramer(INFO, RelpLedger(), 1000), chunks)
            self.assertEqual(looks, [Look.NOTHING] + [Look.FRAMES_OF_MIXED] * (len(chunks) - 1))
            looks = self.looks(OctetFramer(INFO, RelpLedger(), 1000), chunks)
            self.assertEqual(looks, [Look.NOTHING] + [Look.FRAMES] * (len(chunks) - 1))

    def test_where_more_is_looked_for(self) -> None:
        """Lines behind frames, records that NUL ends, what is skipped, and the first bytes are seen by the framer."""
        lines = b"some line\n" * 500
        for before, expected in (
            (b"", Look.NOTHING),
            (lines, Look.LINES_OF_MIXED),
            (lines + b"5 <1>a5 <1>bline", Look.NOTHING),
            (lines + b"5 <1>a5 <1>bline\n", Look.NOTHING),
            (lines + b"5 <1>a5 <1>b" + lines, Look.LINES_OF_MIXED),
            (lines + b"<1>a\0<1>b\0", Look.NOTHING),
            (lines + b"x" * 2000, Look.NOTHING),
            (lines + b"x" * 2000 + b"\n", Look.LINES_OF_MIXED),
        ):
            framer = AutoFramer(INFO, RelpLedger(), 1000)
            framer.feed(before, 0.0)
            self.assertIs(framer.look, expected, before[-20:])
        only_lines = LineFramer(INFO, RelpLedger(), 1000)
        self.assertIs(only_lines.look, Look.NOTHING)
        only_lines.feed(lines, 0.0)
        self.assertIs(only_lines.look, Look.LINES)
        only_lines.discard(DiscardReason.RESET)
        self.assertIs(only_lines.look, Look.NOTHING)
