"""The sink that sends records onward over RELP: its session against a server written a second time, and on a clock."""

from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.delivering import SinkCase, batch
from twisted_ingest.errors import Durability
from twisted_ingest.rejected import Rejected
from twisted_ingest.sinks.delivery.session import Answer, SessionError
from twisted_ingest.sinks.delivery.sink import StreamSink
from twisted_ingest.sinks.relp import LONGEST_ANSWER, RelpSession, RelpSettings

OPENED = b"1 rsp 93 200 OK\nrelp_version=0\nrelp_software=librelp,1.11.0,http://librelp.adiscon.com\ncommands=syslog\n"


def frames(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Read what a client sends, in the plainest way."""
    while data:
        number, command, rest = data.split(b" ", 2)
        digits = rest[: min(rest.find(end) for end in (b" ", b"\n") if end in rest)]
        body = rest[len(digits) :]
        length = int(digits)
        if length:
            assert body[:1] == b" "
            body = body[1:]
        text, data = body[:length], body[length:]
        assert data[:1] == b"\n", data[:20]
        data = data[1:]
        yield int(number), command, text


def ok(*numbers: int) -> bytes:
    """Answer records."""
    return b"".join(b"%d rsp 6 200 OK\n" % number for number in numbers)


def refused(number: int, text: bytes = b"500 too bad") -> bytes:
    """Refuse a record."""
    return b"%d rsp %d %b\n" % (number, len(text), text)


def opened(window: int = 1000) -> RelpSession:
    """Make a session that is open."""
    session = RelpSession(window)
    assert not session.received(OPENED)
    return session


def summary(answers: Sequence[Answer]) -> list[str | None]:
    """Give what became of each record, in order: why it was refused, or ``None``."""
    found: list[str | None] = []
    for taken, why in answers:
        found += [None] * taken
        if why is not None:
            found.append(why)
    return found


class SessionTests(SynchronousTestCase):
    def test_frames(self) -> None:
        """A session begins with offers; records are numbered from 2 on."""
        session = RelpSession()
        ((number, command, text),) = frames(session.begin())
        self.assertEqual((number, command, text.split(b"\n")[0]), (1, b"open", b"relp_version=0"))
        self.assertEqual((session.room, session.is_open), (0, False))
        session.received(OPENED)
        one = batch(b"one", b"two\nlines", b"three", delimiter=b"\0")
        sent = session.frame(one, 0, 2) + session.frame(one, 2, 1)
        expected = [(2, b"syslog", b"one"), (3, b"syslog", b"two\nlines"), (4, b"syslog", b"three")]
        self.assertEqual(list(frames(sent)), expected)

    def test_window(self) -> None:
        """No more than the window is unanswered; a full one is filled again once it is half empty."""
        session = opened(4)
        session.frame(batch(b"1", b"2", b"3", b"4"), 0, 4)
        rooms = [session.room]
        for number in (2, 3, 4):
            session.received(ok(number))
            rooms.append(session.room)
        self.assertEqual(rooms, [0, 0, 2, 3])

    def test_spent(self) -> None:
        """Numbers end."""
        session = opened()
        session._next = session._oldest = 900_000_001
        self.assertEqual((session.is_spent, session.room), (True, 0))

    @given(
        st.lists(st.sampled_from(["ok", "long", "refused"]), min_size=1, max_size=40),
        st.randoms(use_true_random=False),
        st.lists(st.integers(1, 60), max_size=30),
        st.integers(0, 5),
    )
    def test_answers(self, outcomes: list[str], random: Any, cuts: list[int], disorder: int) -> None:
        """Whatever the answers, their order and the cuts of the stream: what became of each record comes in order."""
        session = opened()
        session.frame(batch(*[b"x"] * len(outcomes)), 0, len(outcomes))
        forms = {"ok": ok, "long": lambda n: refused(n, b"200 all is\nwell"), "refused": refused}
        answers = [forms[outcome](number) for number, outcome in enumerate(outcomes, 2)]
        for _ in range(disorder):
            one, other = random.randrange(len(answers)), random.randrange(len(answers))
            answers[one], answers[other] = answers[other], answers[one]
        data = b"".join(answers)
        found: list[Answer] = []
        while data:
            size = cuts.pop() if cuts else len(data)
            found += session.received(data[:size])
            data = data[size:]
        self.assertEqual(summary(found), ["500 too bad" if each == "refused" else None for each in outcomes])

    @given(st.binary(max_size=200), st.lists(st.integers(1, 20)))
    def test_any_bytes(self, data: bytes, cuts: list[int]) -> None:
        """Garbage is refused, or says nothing: it never takes a record that was not sent."""
        session = opened()
        session.frame(batch(b"one", b"two"), 0, 2)
        try:
            found = sum(len(summary(session.received(data[at : at + 7]))) for at in range(0, len(data), 7))
        except SessionError:
            return
        self.assertLessEqual(found, 2)
        self.assertLessEqual(len(session._held), 100 + LONGEST_ANSWER)

    def test_wrong(self) -> None:
        """What breaks a rule ends the session, and is named."""
        for data, why in (
            (b"HTTP/1.1 400 Bad Request\r\n", "speaks no RELP: HTTP/1.1 400"),
            (b"2 rsp 99999 200 OK", "an answer of 99999 bytes"),
            (b"2 rsp 6 200 OK too long\n", "longer than it says"),
            (b"2 syslog 3 one\n", "sends syslog"),
            (ok(4), "answers number 4"),
            (ok(2, 2), "answers number 2"),
            (ok(2, 3, 4), "answers number 4"),
            (b"2 rsp 2 OK\n", "no status: OK"),
            (b"2" * 60, "speaks no RELP"),
        ):
            with self.subTest(data=data):
                session = opened()
                session.frame(batch(b"one", b"two"), 0, 2)
                self.assertIn(why, str(self.assertRaises(SessionError, session.received, data)))

    def test_wrong_open(self) -> None:
        """A server that will not have us, or speaks otherwise, is named."""
        for text, why in (
            (b"500 required command not supported by client", "refuses the session: 500 required"),
            (b"200 OK\nrelp_version=1\ncommands=syslog", "version 1"),
            (b"200 OK\nrelp_version=0\ncommands=starttls", "it offers starttls"),
        ):
            with self.subTest(text=text):
                answer = b"1 rsp %d %b\n" % (len(text), text)
                self.assertIn(why, str(self.assertRaises(SessionError, RelpSession().received, answer)))
        for text in (b"200 OK", b"200 OK\ncommands=starttls,syslog", b"200 OK\n\nrelp_version=0"):
            session = RelpSession()
            session.received(b"1 rsp %d %b\n" % (len(text), text))
            self.assertTrue(session.is_open)

    def test_serverclose(self) -> None:
        """Answers before it count."""
        session = opened()
        session.frame(batch(b"one", b"two"), 0, 2)
        self.assertEqual(session.received(ok(2) + b"0 serverclose 0\n"), [Answer(1)])
        self.assertTrue(session.is_over)

    def test_end(self) -> None:
        """Our close is answered with nothing, or with 200."""
        for answer in (b"2 rsp 0\n", ok(2)):
            session = opened()
            self.assertEqual(session.end(), b"2 close 0\n")
            session.received(answer)
            self.assertTrue(session.is_over)


class RelpTests(SinkCase):
    @staticmethod
    def table(**keys: Any) -> RelpSettings:
        """See `SinkCase`."""
        return RelpSettings(type="relp", **keys)

    def make_sink(self, table: RelpSettings) -> StreamSink:
        """See `SinkCase`."""
        return StreamSink(
            "relp",
            table,
            self.context,
            lambda: RelpSession(table.window),
            durability=Durability.DELIVERED,
            endpoint=self.receiver.endpoint,
        )

    def open(self) -> None:
        """Answer the latest connection's ``open``."""
        self.receiver.line.read()
        self.receiver.line.answer(OPENED)

    def records(self) -> list[tuple[int, bytes]]:
        """Read what the latest connection brought: numbers and records."""
        self.receiver.line.read()
        heard = list(frames(self.receiver.line.heard))
        return [(number, text) for number, command, text in heard if command == b"syslog"]

    def test_taken_when_answered(self) -> None:
        """Nothing is sent before the session is open, and nothing taken before it is answered."""
        self.make()
        one, two = self.deliver(batch(b"one", b"two")), self.deliver(batch(b"three"))
        self.assertEqual((self.records(), self.sink.details()["connected"]), ([], 0))
        self.open()
        self.assertEqual(self.records(), [(2, b"one"), (3, b"two"), (4, b"three")])
        self.receiver.line.answer(ok(2))
        self.assertEqual((one, two), ([], []))
        self.receiver.line.answer(ok(3, 4))
        self.assertEqual((one, two), ([None], [None]))
        self.assertIsNone(self.sink.trouble)

    def test_lost_connection(self) -> None:
        """The unanswered are sent again, from the first of them on, in the middle of a batch too."""
        self.make()
        self.open()
        outcome, later = self.deliver(batch(b"one", b"two", b"three")), self.deliver(batch(b"four"))
        self.receiver.line.answer(ok(2))
        self.receiver.line.reset()
        self.wait(1)
        self.open()
        self.assertEqual(self.records(), [(2, b"two"), (3, b"three"), (4, b"four")])
        self.receiver.line.answer(ok(2, 3, 4))
        self.assertEqual((outcome, later), ([None], [None]))
        details = self.sink.details()
        self.assertEqual((details["resent_records"], details["requests/again"], details["requests/taken"]), (3, 2, 2))

    def test_window_smaller_than_a_batch(self) -> None:
        """A batch goes in parts where the window is small."""
        self.make(window=2)
        self.open()
        outcome = self.deliver(batch(b"a", b"b", b"c", b"d", b"e"))
        number = 2
        while not outcome:
            sent = self.records()
            self.receiver.line.answer(ok(*range(number, number + len(sent))))
            number, self.receiver.line.heard = number + len(sent), b""
            self.assertLess(number, 20)
        self.assertEqual(outcome, [None])

    def test_refused(self) -> None:
        """A record that is answered with 500 is rejected; all others are taken."""
        self.make()
        self.open()
        one = batch(b"one", b"two", b"three")
        outcome = self.deliver(one, batch(b"four"))
        self.receiver.line.answer(ok(2) + refused(3) + ok(4, 5))
        (rejected,) = outcome
        self.assertIsInstance(rejected, Rejected)
        self.assertEqual(
            [(each.batch, list(each.records or ()), each.reason) for each in rejected.refusals],
            [(one, [1], "500 too bad")],
        )
        details = self.sink.details()
        self.assertEqual((details["rejected_records"], details["requests/never"], details["requests/taken"]), (1, 1, 1))

    def test_reads_and_never_answers(self) -> None:
        """It is said, then given up for another connection, on which all comes again."""
        self.make(timeout="20s")
        self.open()
        outcome = self.deliver(batch(b"one"))
        self.receiver.line.read()
        self.wait(10)
        self.assertIn("a:1 answers nothing", self.sink.trouble or "")
        self.wait(15)
        self.assertTrue(self.receiver.lines[0].was_reset)
        self.open()
        self.assertEqual(self.records(), [(2, b"one")])
        self.receiver.line.answer(ok(2))
        self.assertEqual(outcome, [None])

    def test_open_is_never_answered(self) -> None:
        """A host that accepts and says nothing is given up too."""
        self.make(timeout="20s")
        self.wait(25)
        self.assertEqual(len(self.receiver.lines), 2)

    def test_garbage(self) -> None:
        """A peer that speaks otherwise is left, tried again later and later, and named."""
        self.make()
        for _ in range(6):
            self.receiver.line.answer(b"SSH-2.0-OpenSSH_9.2\r\n")
            self.wait(40)
        self.assertIn("it speaks no RELP: SSH-2.0", " ".join(self.facts))
        waits = [attempt for _, attempt in self.receiver.attempts]
        self.assertGreater(waits[-1] - waits[-2], waits[2] - waits[1])

    def test_serverclose(self) -> None:
        """A server that ends the session is left; what it has not answered is sent to the next."""
        self.make()
        self.open()
        outcome = self.deliver(batch(b"one", b"two"))
        self.receiver.line.answer(ok(2) + b"0 serverclose 0\n")
        self.wait(1)
        self.assertFalse(self.receiver.lines[0].is_up)
        self.open()
        self.assertEqual(self.records(), [(2, b"two")])
        self.receiver.line.answer(ok(2))
        self.assertEqual(outcome, [None])

    def test_rebind(self) -> None:
        """A session whose time is over ends in good order: answers first, then close, then a new one."""
        self.make(rebind="10s")
        self.open()
        self.wait(9)
        outcome = self.deliver(batch(b"one"))
        self.wait(2)
        self.receiver.line.read()
        self.assertNotIn(b"close", self.receiver.line.heard)
        self.receiver.line.answer(ok(2))
        self.receiver.line.read()
        self.assertTrue(self.receiver.line.heard.endswith(b"3 close 0\n"))
        self.receiver.line.answer(b"3 rsp 0\n0 serverclose 0\n")
        self.wait(0.25)
        self.assertEqual((outcome, len(self.receiver.lines)), ([None], 2))

    def test_close(self) -> None:
        """A stop says goodbye; a server that does not answer that is left all the same."""
        self.make()
        self.open()
        closed: list[Any] = []
        _ = self.sink.close().addBoth(closed.append)
        self.receiver.line.read()
        self.assertTrue(self.receiver.line.heard.endswith(b"2 close 0\n"))
        self.wait(8)
        self.assertEqual(closed, [None])

    def test_answers_before_a_fin_count(self) -> None:
        """What a server answered before it went is not sent again."""
        self.make()
        self.open()
        outcome = self.deliver(batch(b"one"))
        self.receiver.line.answer(ok(2))
        self.receiver.line.close()
        self.wait(1)
        self.open()
        self.assertEqual((outcome, self.records()), ([None], []))
