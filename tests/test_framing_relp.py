"""RELP's framer: any cut gives the same, a changed byte invents nothing, and the rules of a session hold."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.scanners import without_scanner
from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import DiscardReason, DropReason, Oversize, RefuseReason, RelpCommand, RelpError
from twisted_ingest.framing.relp import RelpFramer
from twisted_ingest.framing.relp_replies import Reply
from twisted_ingest.framing.scan import HIGHEST_NUMBER
from twisted_ingest.ledger import Balance, RelpLedger
from twisted_ingest.limits import KIB, RELP_OFFERS

INFO = ConnectionInfo(1, "test", "192.0.2.1:1", "192.0.2.1")
LIMIT = 20
HEADER_BYTES = len(b"900000000 syslog 999999999 ")

OFFERS = b"relp_version=0\nrelp_software=librelp,1.11.0,http://librelp.adiscon.com\ncommands=syslog"
ANSWER = b"200 OK\nrelp_version=0\nrelp_software=twisted-ingest\ncommands=syslog"


def frame(number: int, command: bytes, data: bytes = b"") -> bytes:
    """Write a frame as librelp does."""
    return b"%d %b %d%b\n" % (number, command, len(data), b" " + data if data else b"")


OPEN = frame(1, b"open", OFFERS)


def session(*records: bytes) -> bytes:
    """Write an ``open`` and a frame for each record."""
    return OPEN + b"".join(frame(number, b"syslog", record) for number, record in enumerate(records, 2))


class Run:
    """A stream, cut into chunks, through a framer to its end; and through one that finds nothing in C."""

    def __init__(
        self,
        chunks: list[bytes],
        limit: int = LIMIT,
        policy: Oversize = Oversize.TRUNCATE,
        kind: type[RelpFramer] = RelpFramer,
    ) -> None:
        self.ledger = RelpLedger()
        self.framer = kind(INFO, self.ledger, limit, policy)
        self.records: list[tuple[bytes, bool]] = []
        self.answers: list[tuple[int, bytes, int]] = []
        """Number, text, and how many records were given up to then."""
        for chunk in chunks:
            self._feed(chunk)
        self.closed = self.framer.closed
        batches = self.framer.finish(0.0)
        if batches or Balance.of_bytes(self.ledger, 0).error:
            raise AssertionError("the end of the stream is not accounted for")
        if kind is RelpFramer:
            plain = Run(chunks, limit, policy, without_scanner(kind)).outcome()
            if plain != self.outcome():
                raise AssertionError(f"with the scanner {self.outcome()}, without it {plain}")

    def _feed(self, chunk: bytes) -> None:
        self.ledger.bytes_received += len(chunk)
        for batch in self.framer.feed(chunk, 0.0):
            self.records += [(record, batch.truncated) for record in batch.records()]
        for reply in self.framer.replies:
            for number in range(reply.number, reply.number + reply.frames):
                self.answers.append((number, reply.text, len(self.records)))
        self.framer.replies = []
        if Balance.of_bytes(self.ledger, self.framer.buffered).error:
            raise AssertionError("a byte is not accounted for")
        if self.framer.buffered > max(RELP_OFFERS, self.framer.limit + 2 + HEADER_BYTES):
            raise AssertionError("more is held than any frame may take")

    def outcome(self) -> object:
        """Give everything that must not depend on the cuts. Empty frames may be answered with their neighbours."""
        texts = [(number, text) for number, text, _ in self.answers]
        return self.records, texts, self.ledger.snapshot(), self.framer.error, self.closed


def reference(stream: bytes, limit: int = LIMIT) -> tuple[list[bytes], list[int]]:
    """Decode in the plainest way: the records that may be delivered, and the numbers that may be answered with 200."""
    records: list[bytes] = []
    acked: list[int] = []
    expected = 1
    while True:
        words = stream[:60].split(b" ", 2)
        if len(words) < 3 or not words[0].isdigit() or len(words[0]) > 9 or int(words[0]) != expected:
            return records, acked
        digits = len(words[2]) - len(words[2].lstrip(b"0123456789"))
        at = len(words[0]) + len(words[1]) + 2 + digits
        if not 1 <= digits <= 9:
            return records, acked
        size = int(words[2][:digits])
        at += size > 0
        if (size and stream[at - 1 : at] != b" ") or stream[at + size : at + size + 1] != b"\n":
            return records, acked
        data, stream = stream[at : at + size], stream[at + size + 1 :]
        if words[1] != (b"open" if expected == 1 else b"syslog"):
            return records, acked
        if expected == 1:
            offers = {line.split(b"=")[0]: line[line.find(b"=") + 1 :] for line in data.split(b"\n") if b"=" in line}
            bare = [line for line in data.split(b"\n") if line in (b"relp_version", b"commands")]
            digits_only = offers.get(b"relp_version", b"0").strip(b"0123456789") == b"" != offers.get(b"relp_version")
            if bare or not digits_only or b"syslog" not in offers.get(b"commands", b"syslog").split(b","):
                return records, acked
        if expected > 1:
            ending = next((end for end in (b"\r\n", b"\n", b"\0") if data.endswith(end)), b"")
            data = data.removesuffix(ending)
            records += [data[:limit]] if data else []
        acked.append(expected)
        expected += 1


# Nothing that is stripped from a record: the tests compare with what was sent.
record = st.binary(max_size=30).map(lambda data: data.rstrip(b"\r\n\0")).filter(lambda data: data[:1] != b"\xef")


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """Cut a stream at places, taken modulo its length."""
    at = sorted({place % (len(stream) + 1) for place in places} | {0, len(stream)})
    return [stream[start:end] for start, end in pairwise(at) if end > start]


class CutTests(SynchronousTestCase):
    def test_every_cut_of_a_session(self) -> None:
        """A session with everything in it, cut in two at every place and into single bytes, gives the same."""
        stream = session(b"one", b"", b"x" * 21, b"two\n", b"a\nb\0c", b"y" * 100, b"z") + frame(9, b"close") + b"junk"
        whole = Run([stream]).outcome()
        for at in range(1, len(stream)):
            self.assertEqual(Run([stream[:at], stream[at:]]).outcome(), whole)
        self.assertEqual(Run([stream[at : at + 1] for at in range(len(stream))]).outcome(), whole)

    @given(st.lists(record, max_size=8), st.lists(st.integers(0), max_size=12), st.sampled_from(Oversize))
    def test_any_cuts(self, records: list[bytes], places: list[int], policy: Oversize) -> None:
        """Any cuts of any session give the same records, answers and accounts, under every policy."""
        stream = session(*records)
        whole = Run([stream], policy=policy)
        self.assertEqual(Run(cut(stream, places), policy=policy).outcome(), whole.outcome())
        if policy is Oversize.TRUNCATE:
            self.assertEqual([record for record, _ in whole.records], [data[:LIMIT] for data in records if data])
            self.assertEqual([number for number, _, _ in whole.answers], list(range(1, len(records) + 2)))

    @given(st.lists(record, max_size=8), st.lists(st.integers(0), max_size=12))
    def test_answers_come_with_their_records(self, records: list[bytes], places: list[int]) -> None:
        """No answer is given before the records up to its own are, whatever the cuts."""
        run = Run(cut(session(*records), places))
        for number, _, safe in run.answers:
            self.assertGreaterEqual(safe, sum(bool(data) for data in records[: number - 1]))


class MutationTests(SynchronousTestCase):
    def check(self, stream: bytes) -> None:
        """Hold a broken stream against the reference: nothing is delivered or answered that it does not give."""
        run = Run([stream], limit=KIB)
        records, acked = reference(stream, KIB)
        self.assertEqual([record for record, _ in run.records], records)
        self.assertEqual([number for number, text, _ in run.answers if text.startswith(b"200")], acked)
        self.assertEqual(
            Run([stream[at : at + 7] for at in range(0, len(stream), 7)], limit=KIB).outcome(), run.outcome()
        )

    def test_every_byte_changed(self) -> None:
        """A session with any one byte replaced, removed or doubled never raises, and invents nothing."""
        stream = session(b"first", b"", b"second one", b"x" * 40)
        for at in range(len(stream)):
            for byte in (b"", b"0", b"9", b" ", b"\n", b"-", b"+", b"\xff", b"\0", b"a", stream[at : at + 1] * 2):
                self.check(stream[:at] + byte + stream[at + 1 :])

    @given(st.lists(record, max_size=6), st.integers(0), st.binary(max_size=3))
    def test_any_byte_changed(self, records: list[bytes], at: int, byte: bytes) -> None:
        """The same for any session and any bytes in place of one."""
        stream = session(*records)
        at %= len(stream)
        self.check(stream[:at] + byte + stream[at + 1 :])

    @given(st.binary(max_size=200))
    def test_anything(self, data: bytes) -> None:
        """Whatever follows an ``open`` is taken or refused, never a fault, however it is cut."""
        stream = OPEN + data
        self.assertEqual(Run([stream[at : at + 1] for at in range(len(stream))]).outcome(), Run([stream]).outcome())

    def test_numbers_no_integer_should_be(self) -> None:
        """Signs, underscores, other scripts' digits, ten digits and emptiness are refused as number and as length."""
        for word in ("-1", "+1", "1_0", "1.0", "0x1", " 1", "", "٣", "1234567890", "9" * 5000, "1e3"):
            for bad in (b"%b syslog 3 abc\n", b"2 syslog %b abc\n"):
                run = Run([OPEN + bad % word.encode() + b"\n" * 4])
                self.assertEqual((run.records, len(run.answers)), ([], 1), word)
                self.assertIs(run.framer.error, RelpError.HEADER, word)


class RecordTests(SynchronousTestCase):
    def test_oversize_is_cut_and_answered(self) -> None:
        """A record longer than the limit is cut, marked, counted and answered; the next one is whole."""
        run = Run([session(b"a" * (LIMIT + 1), b"b" * LIMIT, b"c" * 500)])
        self.assertEqual(run.records, [(b"a" * LIMIT, True), (b"b" * LIMIT, False), (b"c" * LIMIT, True)])
        self.assertEqual([number for number, _, _ in run.answers], [1, 2, 3, 4])
        self.assertEqual(run.ledger.records_truncated, 2)
        self.assertEqual(run.ledger.bytes_discarded[DiscardReason.OVERSIZE], 1 + 480)
        self.assertEqual(run.framer.oversized, [b"a" * LIMIT, b"c" * LIMIT])

    def test_oversize_dropped_is_answered_too(self) -> None:
        """Under ``drop`` the answer is sent all the same, or the client would send the record for ever."""
        run = Run([session(b"a" * 50, b"b")], policy=Oversize.DROP)
        self.assertEqual((run.records, len(run.answers)), ([(b"b", False)], 3))
        self.assertEqual(run.ledger.records_dropped[DropReason.OVERSIZE], 1)

    def test_a_trailer_inside_the_length_is_no_part_of_the_record(self) -> None:
        """One LF, CRLF or NUL at the end of a record is stripped, as of counted frames."""
        run = Run([session(b"one\n", b"two\r\n", b"three\0", b"\n", b"x" * LIMIT + b"\r\n", b"four")])
        self.assertEqual([record for record, _ in run.records], [b"one", b"two", b"three", b"x" * LIMIT, b"four"])
        self.assertEqual((run.ledger.records_empty, run.ledger.records_truncated), (1, 0))

    def test_lf_and_nul_inside(self) -> None:
        """Records that hold LF and NUL stay whole, however many come at once."""
        records = [b"a\nb\0c", b"\0\n\0\nx", b"plain", b"y\nz\0y"] * 5
        self.assertEqual([record for record, _ in Run([session(*records)]).records], records)

    def test_empty_records_are_answered(self) -> None:
        """An empty record is answered and counted, and not delivered."""
        run = Run([session(b"", b"one", b"")])
        self.assertEqual((run.records, len(run.answers), run.ledger.records_empty), ([(b"one", False)], 4, 2))

    def test_a_declared_length_takes_no_memory(self) -> None:
        """Of the longest length that can be declared only what came is held, and not more than the limit."""
        ledger = RelpLedger()
        framer = RelpFramer(INFO, ledger, LIMIT)
        framer.feed(OPEN + b"2 syslog 999999999 x", 0.0)
        self.assertEqual(framer.buffered, 1)
        framer.feed(b"x" * 10_000, 0.0)
        self.assertEqual(framer.buffered, LIMIT + 2)
        self.assertEqual(ledger.bytes_discarded[DiscardReason.OVERSIZE], 10_001 - LIMIT - 2)

    def test_what_is_cut_off_is_not_delivered(self) -> None:
        """A frame whose LF has not come is neither delivered nor answered, be its data whole."""
        run = Run([session(b"one", b"two")[:-1]])
        self.assertEqual(([record for record, _ in run.records], len(run.answers)), ([b"one"], 2))
        self.assertEqual(run.ledger.bytes_discarded[DiscardReason.UNANSWERED], len(b"3 syslog 3 two"))

    def test_memory_never_cuts_a_record(self) -> None:
        """Where unfinished records take too much, the session ends; what was held is neither delivered nor answered."""
        ledger = RelpLedger()
        framer = RelpFramer(INFO, ledger, LIMIT)
        framer.feed(session(b"one", b"two")[:-2], 0.0)
        self.assertEqual((framer.evict(0.0), framer.closed), ([], DiscardReason.MEMORY))
        self.assertEqual(ledger.bytes_discarded[DiscardReason.MEMORY], len(b"3 syslog 3 tw"))


class SessionTests(SynchronousTestCase):
    def broken(self, stream: bytes, error: RelpError, *answers: bytes) -> Run:
        """Check that a stream ends with an error, after these answers."""
        run = Run([stream])
        self.assertIs(run.framer.error, error)
        self.assertFalse(run.framer.ended_well)
        self.assertEqual([text[:3] for _, text, _ in run.answers], list(answers))
        self.assertEqual(run.ledger.relp_errors[error], 1)
        return run

    def test_the_lower_version_is_answered(self) -> None:
        """``open`` is answered with the lower of both versions: a higher one makes rsyslog connect for ever."""
        for offered, answered in (("0", 0), ("000", 0), ("1", 1), ("2", 1), ("18446744073709551616", 1)):
            run = Run([frame(1, b"open", b"relp_version=%b\ncommands=syslog" % offered.encode())])
            self.assertIn(b"\nrelp_version=%d\n" % answered, run.answers[0][1])
        self.assertEqual(Run([OPEN]).answers[0], (1, ANSWER, 0))

    def test_offers_in_other_forms(self) -> None:
        """A LF before the first offer, offers we do not know and no version at all are all right."""
        for offers in (b"\nrelp_version=1\ncommands=syslog", b"x=y\nz\ncommands=starttls,syslog", b"commands=syslog"):
            self.assertEqual(Run([frame(1, b"open", offers)]).answers[0][1][:6], b"200 OK")

    def test_close(self) -> None:
        """``close`` is answered after all records, with nothing; what follows it is no part of the session."""
        run = Run([session(b"one") + frame(3, b"close") + frame(4, b"syslog", b"late")])
        self.assertTrue(run.framer.ended_well)
        self.assertEqual([record for record, _ in run.records], [b"one"])
        self.assertEqual(run.answers[1:], [(2, b"200 OK", 1), (3, b"", 1)])
        self.assertEqual(run.ledger.bytes_discarded[DiscardReason.UNANSWERED], len(frame(4, b"syslog", b"late")))

    def test_rules(self) -> None:
        """Whatever breaks a rule ends the session; what went before keeps its answer."""
        self.broken(frame(1, b"syslog", b"x"), RelpError.NOT_OPEN, b"500")
        self.broken(frame(1, b"close"), RelpError.NOT_OPEN, b"500")
        self.broken(OPEN + frame(2, b"open", OFFERS), RelpError.OPEN_TWICE, b"200", b"500")
        self.broken(frame(1, b"open", b"relp_version=x\ncommands=syslog"), RelpError.VERSION, b"500")
        self.broken(frame(1, b"open", b"relp_version=0\ncommands=rsyslog"), RelpError.COMMANDS, b"500")
        self.broken(session(b"x") + frame(3, b"starttls"), RelpError.COMMAND, b"200", b"200")
        self.broken(session(b"x") + frame(3, b"rsp", b"200 OK"), RelpError.COMMAND, b"200", b"200")
        self.broken(session(b"x") + frame(0, b"serverclose"), RelpError.COMMAND, b"200", b"200")
        for number in (0, 2, 4, 5):
            self.broken(session(b"x") + frame(number, b"syslog", b"y"), RelpError.NUMBER, b"200", b"200")
        self.broken(OPEN + b"2 syslog 0 \n", RelpError.LENGTH, b"200")
        self.broken(OPEN + b"2 syslog 3\nabc\n", RelpError.LENGTH, b"200")
        self.broken(OPEN + b"2 syslog 2 abc\n", RelpError.TRAILER, b"200")
        self.broken(OPEN + b"2 syslog 4 abc\n3 syslog", RelpError.TRAILER, b"200")
        self.broken(OPEN + b"2 syslog  3 abc\n", RelpError.HEADER, b"200")
        self.broken(OPEN + b"2 sys1og 3 abc\n", RelpError.HEADER, b"200")
        self.broken(OPEN + b"2 %b 3 abc\n" % (b"s" * 33), RelpError.HEADER, b"200")
        self.broken(b"1 open %d x" % (RELP_OFFERS + 1), RelpError.LENGTH)
        self.broken(OPEN + b"2 close %d x" % (RELP_OFFERS + 1), RelpError.LENGTH, b"200")

    def test_leading_zeros(self) -> None:
        """Zeros before a number or a length are taken, within nine digits."""
        run = Run([OPEN + b"000000002 syslog 000000003 abc\n"])
        self.assertEqual(([record for record, _ in run.records], len(run.answers)), ([b"abc"], 2))

    def test_numbers_wrap(self) -> None:
        """After 999,999,999 comes 1, in what is taken and in what is answered."""
        ledger = RelpLedger()
        framer = RelpFramer(INFO, ledger, LIMIT, last_number=HIGHEST_NUMBER + 1)
        framer.feed(OPEN, 0.0)
        framer.replies, framer._expected = [], HIGHEST_NUMBER - 1
        stream = b"".join(frame(number, b"syslog", b"x") for number in (HIGHEST_NUMBER - 1, HIGHEST_NUMBER, 1, 2))
        framer.feed(stream, 0.0)
        self.assertIsNone(framer.error)
        encoded = b"".join(reply.encode() for reply in framer.replies)
        self.assertEqual(encoded, b"".join(b"%d rsp 6 200 OK\n" % n for n in (999_999_998, 999_999_999, 1, 2)))
        self.assertEqual(Reply(HIGHEST_NUMBER, 2, b"").encode(), b"999999999 rsp 0\n1 rsp 0\n")

    def test_a_session_ends_before_the_numbers_do(self) -> None:
        """A session is ended in good order long before the number that librelp cannot count past."""
        for size in (1, 7, 1000):
            framer = RelpFramer(INFO, RelpLedger(), LIMIT, last_number=4)
            stream = session(b"one", b"two", b"three", b"four", b"five")
            batches = [
                batch for at in range(0, len(stream), size) for batch in framer.feed(stream[at : at + size], 0.0)
            ]
            self.assertTrue(framer.ended_well)
            self.assertEqual([r for batch in batches for r in batch.records()], [b"one", b"two", b"three"])

    def test_frames_are_counted_by_command(self) -> None:
        """Frames are counted by command, those we do not know together."""
        run = Run([session(b"one", b"x" * 30) + frame(4, b"close")])
        self.assertEqual(
            run.ledger.relp_frames,
            {RelpCommand.OPEN: 1, RelpCommand.SYSLOG: 2, RelpCommand.CLOSE: 1, RelpCommand.OTHER: 0},
        )
        self.assertEqual(Run([OPEN + frame(2, b"starttls")]).ledger.relp_frames[RelpCommand.OTHER], 1)


class WrongProtocolTests(SynchronousTestCase):
    def test_what_is_not_relp(self) -> None:
        """Plain syslog, counted frames, TLS and HTTP on a RELP port are told apart, whatever the cuts."""
        for stream, reason in (
            (b"<13>Nov 21 00:00:00 host app: plain\n", RefuseReason.PLAIN),
            (b"59 <13>counted", RefuseReason.PLAIN),
            (b"2026-11-21 a line\n", RefuseReason.PLAIN),
            (b"hello\n", RefuseReason.PLAIN),
            (b"\n", RefuseReason.PLAIN),
            (b"\x16\x03\x01\x02\x00\x01\x00", RefuseReason.TLS),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", RefuseReason.HTTP),
            (b"SSH-2.0-x\r\n", RefuseReason.SSH),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", RefuseReason.PROXY),
        ):
            for size in (1, 3, 1000):
                run = Run([stream[at : at + size] for at in range(0, len(stream), size)])
                self.assertIsNotNone(run.framer.wrong_protocol, stream)
                assert run.framer.wrong_protocol is not None
                self.assertIs(run.framer.wrong_protocol.reason, reason)
                self.assertEqual((run.records, run.answers), ([], []))
                self.assertEqual(run.ledger.bytes_discarded[DiscardReason.WRONG_PROTOCOL], len(stream))
