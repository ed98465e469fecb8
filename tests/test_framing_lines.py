"""Line framing: any cut of the bytes gives the same records, drops and accounting."""

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.scanners import both
from twisted_ingest.batch import LF, NUL, Batch, ConnectionInfo
from twisted_ingest.errors import DiscardReason, DropReason, Oversize
from twisted_ingest.framing.lines import LineFramer, NulFramer
from twisted_ingest.ledger import Balance, ListenerLedger

INFO = ConnectionInfo(1, "test", "192.0.2.1:1", "192.0.2.1")

KINDS: dict[bytes, type[LineFramer]] = {LF: LineFramer, NUL: NulFramer}

# Few symbols and small limits: every boundary is met often.
STREAMS = st.lists(st.sampled_from([b"a", b"bc", b"\r", b"\n", b"\r\n", b"\n\n", b"\0", b"defghij"]), max_size=40).map(
    b"".join
)
LIMITS = st.integers(1, 9)
POLICIES = st.sampled_from(Oversize)
DELIMITERS = st.sampled_from([LF, NUL])


@dataclass
class Outcome:
    """What became of a stream, comparable between a framer and the model."""

    records: list[tuple[bytes, bool, bool]] = field(default_factory=list)
    accepted: int = 0
    framing: int = 0
    discarded: int = 0
    empty: int = 0
    framed: int = 0
    dropped: int = 0
    buffered: int = 0


def model(data: bytes, limit: int, policy: Oversize, delimiter: bytes) -> Outcome:
    """Say record by record, with the whole stream at hand, what a framer must do."""
    out = Outcome()
    *pieces, tail = data.split(delimiter)
    closed = False
    for index, piece in enumerate([*pieces, tail]):
        is_tail = index == len(pieces)
        if closed:
            out.discarded += len(piece) + (not is_tail)
            continue
        strips = delimiter == LF and piece.endswith(b"\r")
        content = piece[:-1] if strips else piece
        if len(content) > limit:
            out.framed += 1
            if policy is Oversize.TRUNCATE:
                out.records.append((piece[:limit], False, True))
                out.accepted += limit
                out.discarded += len(piece) - limit
            else:
                out.dropped += 1
                out.discarded += len(piece)
            closed = policy is Oversize.CLOSE
            if not is_tail:
                out.framing += not closed
                out.discarded += closed
        elif is_tail:
            out.buffered = len(piece)
        elif content:
            out.records.append((content, False, False))
            out.framed += 1
            out.accepted += len(content)
            out.framing += 1 + strips
        else:
            out.empty += 1
            out.framing += 1 + strips
    return out


def run(chunks: list[bytes], limit: int, policy: Oversize, delimiter: bytes) -> Outcome:
    """Feed a framer, and one that finds nothing in C, and read off what they did."""
    found, plain = (
        run_one(kind(INFO, ListenerLedger(), limit, policy, sniff=False), chunks) for kind in both(KINDS[delimiter])
    )
    if found != plain:
        raise AssertionError(f"with the scanner {found}, without it {plain}")
    return found


def run_one(framer: LineFramer, chunks: list[bytes]) -> Outcome:
    """Feed one framer."""
    ledger = framer._ledger
    batches: list[Batch] = []
    for chunk in chunks:
        ledger.bytes_received += len(chunk)
        batches += framer.feed(chunk, 0.0)
        if Balance.of_bytes(ledger, framer.buffered).error:
            raise AssertionError("a byte is not accounted for")
    return outcome(batches, ledger, framer)


def outcome(batches: list[Batch], ledger: ListenerLedger, framer: LineFramer) -> Outcome:
    """Sum up."""
    return Outcome(
        records=[(record, batch.partial, batch.truncated) for batch in batches for record in batch.records()],
        accepted=ledger.bytes_accepted,
        framing=ledger.bytes_framing,
        discarded=sum(ledger.bytes_discarded.values()),
        empty=ledger.records_empty,
        framed=ledger.records_framed,
        dropped=sum(ledger.records_dropped.values()),
        buffered=framer.buffered,
    )


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut a stream at the places given."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(edges)]


class LineFramerPropertyTests(SynchronousTestCase):
    """Against the model, over all cuts."""

    @settings(max_examples=400, deadline=None)
    @given(STREAMS, LIMITS, POLICIES, DELIMITERS, st.lists(st.integers(0, 200), max_size=8))
    def test_any_cut(self, data: bytes, limit: int, policy: Oversize, delimiter: bytes, places: list[int]) -> None:
        """However a stream is cut, its records, drops and sums are those of the model."""
        self.assertEqual(run(cut(data, places), limit, policy, delimiter), model(data, limit, policy, delimiter))

    @settings(max_examples=150, deadline=None)
    @given(STREAMS, LIMITS, POLICIES, DELIMITERS)
    def test_whole_and_byte_by_byte(self, data: bytes, limit: int, policy: Oversize, delimiter: bytes) -> None:
        """One chunk, single bytes, and every size between give the same."""
        expected = model(data, limit, policy, delimiter)
        for size in range(1, len(data) + 1):
            chunks = [data[at : at + size] for at in range(0, len(data), size)]
            self.assertEqual(run(chunks, limit, policy, delimiter), expected)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=200), st.integers(1, 50), POLICIES, DELIMITERS, st.lists(st.integers(0, 200), max_size=5))
    def test_any_bytes(self, data: bytes, limit: int, policy: Oversize, delimiter: bytes, places: list[int]) -> None:
        """No bytes raise, and none stays unaccounted for."""
        self.assertEqual(run(cut(data, places), limit, policy, delimiter), model(data, limit, policy, delimiter))

    @settings(max_examples=200, deadline=None)
    @given(STREAMS, LIMITS, POLICIES, st.lists(st.sampled_from(["feed", "evict", "finish", "discard"]), max_size=12))
    def test_balance_after_any_calls(self, data: bytes, limit: int, policy: Oversize, calls: list[str]) -> None:
        """Evicting, finishing and discarding in any order keep every byte and record accounted for."""
        ledger = ListenerLedger()
        framer = LineFramer(INFO, ledger, limit, policy)
        delivered = 0
        for call in calls:
            batches: list[Batch] = []
            if call == "feed":
                ledger.bytes_received += len(data)
                batches = framer.feed(data, 0.0)
            elif call == "evict":
                batches = framer.evict(0.0)
            elif call == "finish":
                batches = framer.finish(0.0)
            else:
                framer.discard(DiscardReason.RESET)
            delivered += sum(batch.count for batch in batches)
            self.assertEqual(Balance.of_bytes(ledger, framer.buffered).error, 0)
            self.assertEqual(ledger.records_framed, delivered + sum(ledger.records_dropped.values()))


class LineFramerTests(SynchronousTestCase):
    """Single rules, by example."""

    def setUp(self) -> None:
        self.ledger = ListenerLedger()

    def framer(self, limit: int = 10, policy: Oversize = Oversize.TRUNCATE, delimiter: bytes = LF) -> LineFramer:
        return KINDS[delimiter](INFO, self.ledger, limit, policy, sniff=False)

    def test_one_batch_per_chunk(self) -> None:
        """A chunk of whole lines is one batch that holds its bytes as they came."""
        (batch,) = self.framer().feed(b"one\ntwo\nthree\n", 7.0)
        self.assertEqual((batch.wire, batch.count, batch.received_at), (b"one\ntwo\nthree\n", 3, 7.0))

    def test_length_is_inclusive(self) -> None:
        """A record of exactly the limit is whole, also when its CR or LF comes later."""
        for chunks in ([b"0123456789\n"], [b"0123456789\r", b"\n"], [b"0123456789", b"\r\n"], [b"0123456789\r\n"]):
            batches = [batch for framer in [self.framer()] for chunk in chunks for batch in framer.feed(chunk, 0.0)]
            self.assertEqual([(b.records(), b.truncated) for b in batches], [([b"0123456789"], False)])

    def test_one_more_is_truncated(self) -> None:
        """One byte more is cut off at once, before the delimiter has come."""
        framer = self.framer()
        (batch,) = framer.feed(b"0123456789x", 0.0)
        self.assertEqual((batch.records(), batch.truncated), ([b"0123456789"], True))
        self.assertEqual(framer.buffered, 0)
        self.assertEqual(self.ledger.bytes_discarded[DiscardReason.OVERSIZE], 1)

    def test_what_follows_survives(self) -> None:
        """The record behind an oversize one is delivered, in the same chunk and in a later one."""
        for policy in (Oversize.TRUNCATE, Oversize.DROP):
            framer = self.framer(policy=policy)
            batches = framer.feed(b"a\n" + b"x" * 30 + b"\nb\n" + b"y" * 30, 0.0)
            batches += framer.feed(b"y" * 10 + b"\nc\n", 0.0)
            kept = [record for batch in batches for record in batch.records()]
            self.assertEqual([record for record in kept if record[:1] in b"abc"], [b"a", b"b", b"c"])

    def test_drop_is_counted(self) -> None:
        """A dropped record counts as framed and dropped, all its bytes as discarded."""
        self.framer(policy=Oversize.DROP).feed(b"x" * 30 + b"\n", 0.0)
        self.assertEqual(self.ledger.records_framed, 1)
        self.assertEqual(self.ledger.records_dropped[DropReason.OVERSIZE], 1)
        self.assertEqual(self.ledger.bytes_discarded[DiscardReason.OVERSIZE], 30)
        self.assertEqual(self.ledger.bytes_framing, 1)

    def test_close_gives_up_the_stream(self) -> None:
        """Under close the framer delivers what came before and discards what comes after."""
        framer = self.framer(policy=Oversize.CLOSE)
        batches = framer.feed(b"a\n" + b"x" * 30 + b"\nb\n", 0.0)
        self.assertEqual([batch.records() for batch in batches], [[b"a"]])
        self.assertIs(framer.closed, DiscardReason.OVERSIZE)
        self.assertEqual(framer.feed(b"c\n", 0.0), [])

    def test_empty_records(self) -> None:
        """Empty lines are keep-alives: counted, not delivered."""
        batches = self.framer().feed(b"\n\r\na\n\n\nb\n\r\n", 0.0)
        self.assertEqual([batch.records() for batch in batches], [[b"a", b"b"]])
        self.assertEqual(self.ledger.records_empty, 5)

    def test_only_one_cr(self) -> None:
        """One CR before LF is stripped; any other stays."""
        (batch,) = self.framer().feed(b"a\r\r\nb\rc\n", 0.0)
        self.assertEqual(batch.records(), [b"a\r", b"b\rc"])

    def test_end_of_stream(self) -> None:
        """An unterminated last record is delivered, marked, without a CR that has lost its LF."""
        framer = self.framer()
        framer.feed(b"a\nlast\r", 0.0)
        (batch,) = framer.finish(0.0)
        self.assertEqual((batch.records(), batch.partial), ([b"last"], True))
        self.assertEqual(self.ledger.records_partial, 1)

    def test_eviction(self) -> None:
        """An evicted record is treated as oversize: its start is kept, its rest skipped, the next one whole."""
        framer = self.framer()
        framer.feed(b"start", 0.0)
        (batch,) = framer.evict(0.0)
        self.assertEqual((batch.records(), batch.truncated), ([b"start"], True))
        (after,) = framer.feed(b" of it\nnext\n", 0.0)
        self.assertEqual(after.records(), [b"next"])
        self.assertEqual(self.ledger.bytes_discarded[DiscardReason.MEMORY], 6)

    def test_nul_keeps_lf(self) -> None:
        """Under NUL framing an LF belongs to the record; as a line it is escaped."""
        (batch,) = self.framer(delimiter=NUL).feed(b"a\nb\0c\0", 0.0)
        self.assertEqual(batch.records(), [b"a\nb", b"c"])
        self.assertEqual(batch.block(), b"a\\nb\nc\n")

    def test_memory_of_dripped_bytes(self) -> None:
        """A record that comes a byte at a time takes little more memory than its bytes."""
        framer = self.framer(limit=100_000)
        for _ in range(50_000):
            framer.feed(b"x", 0.0)
        self.assertEqual(framer.buffered, 50_000)
        self.assertLess(framer.memory, 50_000 * 1.25)

    def test_knows_when_a_record_began(self) -> None:
        """``crossed`` tells a chunk that began another record from one that went on with the same."""
        framer = self.framer(limit=4)
        seen = []
        for chunk in (b"a", b"b", b"c\nd", b"e", b"fghij", b"k", b"l\nm"):
            framer.feed(chunk, 0.0)
            seen.append((framer.crossed, framer.in_record))
        self.assertEqual(seen, [(False, True)] * 2 + [(True, True)] + [(False, True)] * 3 + [(True, True)])
