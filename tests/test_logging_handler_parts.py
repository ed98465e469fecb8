"""The logging handler's parts, each alone: what waits, what travels, headers, the times between tries."""

import logging
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.logging_handler import IngestHandler, wire
from twisted_ingest.logging_handler.backlog import Backlog
from twisted_ingest.logging_handler.delivery import FIRST_DELAY, LONGEST_DELAY, backoff
from twisted_ingest.logging_handler.syslog import SyslogHeader, severity, word
from twisted_ingest.logging_handler.wire import RELP_WINDOW, Lines, Relp, WireError

OPENED = b"1 rsp 30 200 OK\nrelp_version=0\nx=1,2,34\n"


def pieces_of(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut data into pieces of these sizes, and the rest."""
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in [*pieces, data] if piece]


class BacklogTests(SynchronousTestCase):
    def test_bounded_by_number(self) -> None:
        """A record above the number is dropped and counted; the ones that wait stay."""
        backlog = Backlog(2, 1000)
        self.assertEqual([backlog.put(record) for record in (b"a", b"b", b"c")], [True, True, False])
        self.assertEqual((backlog.look(0, 9, 999), backlog.dropped), ([b"a", b"b"], 1))

    def test_bounded_by_bytes(self) -> None:
        """A record above the bytes is dropped; what has left makes room."""
        backlog = Backlog(100, 10)
        self.assertEqual([backlog.put(record) for record in (b"x" * 6, b"y" * 5, b"z" * 4)], [True, False, True])
        backlog.settle(1)
        self.assertTrue(backlog.put(b"x" * 6))
        self.assertFalse(backlog.put(b"."))

    def test_tells_once_there_is_room(self) -> None:
        """What was dropped is told of when there is room again, behind what waits."""
        backlog = Backlog(4, 100)
        for record in (b"a", b"b", b"c", b"d", b"e", b"f"):
            backlog.put(record)
        self.assertEqual((backlog.dropped, backlog.untold), (2, 0))
        backlog.settle(1)
        self.assertEqual(backlog.untold, 2)
        backlog.tell(2, b"2 dropped")
        self.assertEqual((backlog.look(2, 9, 999), backlog.untold, backlog.dropped), ([b"d", b"2 dropped"], 0, 2))

    def test_look(self) -> None:
        """No more is looked at than asked for; one record at least."""
        backlog = Backlog(100, 1000)
        for record in (b"aaaa", b"bb", b"c"):
            backlog.put(record)
        self.assertEqual(backlog.look(0, 9, 1), [b"aaaa"])
        self.assertEqual(backlog.look(1, 1, 999), [b"bb"])
        self.assertEqual(backlog.look(0, 9, 5), [b"aaaa", b"bb"])

    def test_wait(self) -> None:
        """Waiting is for what was put so far."""
        backlog = Backlog(100, 1000)
        self.assertTrue(backlog.wait(0))
        backlog.put(b"a")
        self.assertFalse(backlog.wait(0))
        backlog.settle(1)
        self.assertTrue(backlog.wait(0))

    def test_give_up(self) -> None:
        """What is given up counts as dropped; an answer that comes later changes nothing."""
        backlog = Backlog(100, 1000)
        backlog.put(b"a")
        self.assertEqual((backlog.give_up(), backlog.dropped, len(backlog)), (1, 1, 0))
        backlog.settle(1)
        self.assertEqual(backlog.dropped, 1)


class LinesTests(SynchronousTestCase):
    def test_one_record_one_line(self) -> None:
        """Nothing that may end a line is left in a record."""
        lines = Lines()
        self.assertEqual(lines.encode("a\r\nb\0\\n"), b"a\\r\\nb\\0\\n")
        self.assertEqual(lines.encode("é\ud800"), "é".encode() + b"\\ud800")

    @given(st.lists(st.integers(0, 6)), st.lists(st.integers(1, 9)))
    def test_settled_once_sent_whole(self, lengths: list[int], sizes: list[int]) -> None:
        """A record is settled by the byte that ends it, however the kernel takes them."""
        lines, settled = Lines(), 0
        data = lines.frame([b"x" * length for length in lengths])
        pieces = pieces_of(data, sizes)
        for number, piece in enumerate(pieces, 1):
            settled += lines.sent(len(piece))
            self.assertEqual(settled, b"".join(pieces[:number]).count(b"\n"))
        self.assertEqual((settled, lines.ahead), (len(lengths), 0))

    def test_partly_sent_is_sent_again(self) -> None:
        """On a new connection the record comes first that was not sent whole."""
        lines = Lines()
        lines.frame([b"one", b"two"])
        self.assertEqual(lines.sent(6), 1)
        lines.begin()
        self.assertEqual(lines.ahead, 0)


class RelpTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.relp = Relp()
        self.relp.begin()

    def opened(self) -> Relp:
        self.relp.received(OPENED)
        return self.relp

    def test_opens_first(self) -> None:
        """No record is sent before the server has agreed."""
        self.assertTrue(self.relp.begin().startswith(b"1 open "))
        self.assertEqual((self.relp.room, self.relp.is_owed), (0, True))
        self.relp.received(OPENED)
        self.assertEqual((self.relp.room, self.relp.is_owed), (RELP_WINDOW, False))

    def test_frames(self) -> None:
        """Records are counted and numbered; an empty one has no blank."""
        self.opened()
        self.assertEqual(self.relp.frame([b"a\nb", b""]), b"2 syslog 3 a\nb\n3 syslog 0\n")
        self.assertEqual((self.relp.ahead, self.relp.room), (2, RELP_WINDOW - 2))
        self.assertEqual(self.relp.end(), b"4 close 0\n")

    @given(st.lists(st.integers(1, 40)))
    def test_any_cut(self, sizes: list[int]) -> None:
        """Answers are understood however they are cut."""
        relp = Relp()
        for piece in pieces_of(OPENED, sizes):
            relp.received(piece)
        relp.frame([b"a", b"b", b"c", b"d"])
        answers = b"2 rsp 6 200 OK\n3 rsp 0\n4 rsp 10 200 OK\na\nb\n5 rsp 6 200 OK\n"
        self.assertEqual(sum(relp.received(piece) for piece in pieces_of(answers, sizes)), 4)
        self.assertEqual((relp.ahead, relp.refused), (0, 1))

    def test_answers_in_any_order(self) -> None:
        """Records are settled in their order, whatever the order of the answers."""
        self.opened().frame([b"a", b"b", b"c"])
        self.assertEqual(self.relp.received(b"4 rsp 6 200 OK\n"), 0)
        self.assertEqual(self.relp.received(b"2 rsp 6 200 OK\n"), 1)
        self.assertEqual(self.relp.received(b"2 rsp 6 200 OK\n"), 0)
        self.assertEqual(self.relp.received(b"3 rsp 6 200 OK\n"), 2)

    def test_refused(self) -> None:
        """A record that is refused is settled and counted: it would be refused for ever."""
        self.opened().frame([b"a", b"b"])
        self.assertEqual(self.relp.received(b"2 rsp 9 500 never\n3 rsp 6 200 OK\n"), 2)
        self.assertEqual(self.relp.refused, 1)

    def test_window(self) -> None:
        """No more than the window is sent ahead of answers."""
        self.opened().frame([b""] * RELP_WINDOW)
        self.assertEqual(self.relp.room, 0)

    def test_numbers_end(self) -> None:
        """Before the numbers end no record is sent any more; once all are answered the session is begun anew."""
        self.patch(wire, "RELP_LAST_NUMBER", 2)
        self.opened().frame([b"a"])
        self.assertEqual(self.relp.room, 0)
        self.relp.received(b"2 rsp 6 200 OK\n")
        self.assertRaises(WireError, lambda: self.relp.room)
        self.relp.begin()
        self.opened()
        self.assertEqual(self.relp.room, RELP_WINDOW)

    def test_not_relp(self) -> None:
        """Whatever breaks the protocol, or ends the session, is told at once; nothing is held but an answer's bytes."""
        for data in (
            b"HTTP/1.1 400 Bad Request\r\n",
            b"x" * 100,
            b"1 rsp 65537 ",
            b"1 rsp 9 500 never\n",
            b"0 serverclose 0\n",
            b"1 syslog 1 a\n",
            b"\n",
        ):
            with self.assertRaises(WireError, msg=repr(data)):
                Relp().received(data)


class HeaderTests(SynchronousTestCase):
    def test_header(self) -> None:
        """A header has each field of RFC 5424, with what Python knows."""
        record = logging.LogRecord("my app.db", logging.ERROR, "x.py", 1, "text", None, None)
        record.created = datetime(2026, 11, 5, 1, 2, 3, 4567, UTC).timestamp()
        record.process = 77
        header = SyslogHeader("local0", "shop", "web1")
        self.assertEqual(header.write(record), "<131>1 2026-11-05T01:02:03.004567Z web1 shop 77 my_app.db - ")

    def test_severities(self) -> None:
        """Levels without a name count as the next lower one that has one."""
        levels = [(60, 2), (50, 2), (45, 3), (40, 3), (30, 4), (25, 6), (20, 6), (10, 7), (0, 7)]
        self.assertEqual([(level, severity(level)) for level, _ in levels], levels)

    def test_words(self) -> None:
        """A field holds what RFC 5424 allows; nothing is a dash."""
        self.assertEqual([word(text, 4) for text in ("", "a b", "é\n", "abcdef")], ["-", "a_b", "__", "abcd"])

    def test_mistakes(self) -> None:
        """A mistake in the configuration names what would be right."""
        for arguments, hint in (
            ({"facility": "lokal0"}, "local0"),
            ({"facility": 24}, "0 to 23"),
            ({"protocol": "udp"}, "lines, relp"),
            ({"address": "127.0.0.1:1514"}, "a host and a port"),
            ({"address": ("127.0.0.1",)}, "a host and a port"),
        ):
            with self.assertRaises(ValueError) as caught:
                IngestHandler(**arguments)
            self.assertIn(hint, str(caught.exception))


class BackoffTests(SynchronousTestCase):
    def test_grows_to_its_cap(self) -> None:
        """Delays double up to the cap; chance takes half of each at most."""
        longest = [backoff(attempt, lambda: 1.0) for attempt in (1, 2, 3, 50, 5000)]
        self.assertEqual(longest, [FIRST_DELAY, FIRST_DELAY * 2, FIRST_DELAY * 4, LONGEST_DELAY, LONGEST_DELAY])
        self.assertEqual(backoff(3, lambda: 0.0), FIRST_DELAY * 2)
        self.assertLessEqual(backoff(9), LONGEST_DELAY)
