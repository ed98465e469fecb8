"""The sink that sends lines onward over TCP, on a clock and a pair of sockets."""

import errno
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.delivering import SinkCase, batch, group
from twisted_ingest.batch import Batch
from twisted_ingest.errors import Durability, Framing, SinkError
from twisted_ingest.sinks.delivery.exchange import FIN_SECONDS
from twisted_ingest.sinks.delivery.patience import Patience
from twisted_ingest.sinks.delivery.sink import StreamSink
from twisted_ingest.sinks.tcp import FRAMES, PlainSession, TcpSettings
from twisted_ingest.testing import ReceiverConnection


class Exhausted:
    """A socket where no descriptor is left for another."""

    def dup(self) -> None:
        """Fail, as the system does."""
        raise OSError(errno.EMFILE, "Too many open files")


class TcpTests(SinkCase):
    @staticmethod
    def table(**keys: Any) -> TcpSettings:
        """See `SinkCase`."""
        return TcpSettings(type="tcp", **keys)

    def make_sink(self, table: TcpSettings) -> StreamSink:
        """See `SinkCase`."""
        frames = FRAMES[table.framing]()
        return StreamSink(
            "tcp",
            table,
            self.context,
            lambda: PlainSession(frames),
            durability=Durability.MEMORY,
            endpoint=self.receiver.endpoint,
        )

    def test_taken_when_the_other_kernel_has_it(self) -> None:
        """A group is taken once its bytes are out of our kernel, and not because they were written."""
        self.make()
        outcome = self.deliver(batch(b"one", b"two"), batch(b"three"))
        self.wait(1)
        self.assertEqual(outcome, [])
        self.assertEqual(self.sink.details()["in_flight_requests"], 2)
        self.assertEqual(self.receiver.line.read(), b"one\ntwo\nthree\n")
        self.wait(1)
        self.assertEqual(outcome, [None])
        details = self.sink.details()
        self.assertEqual((details["requests/taken"], details["sent_bytes"], details["in_flight_requests"]), (2, 14, 0))
        self.assertEqual(details["request_seconds/5.0"] + details["request_seconds/1.0"], 2)
        self.assertGreater(details["last_success_timestamp_seconds"], 0)

    def test_no_more_is_kept_than_one_gathering(self) -> None:
        """A receiver that does not read has no more of a backlog copied or charged than what one call sends."""
        self.make()
        outcomes = [self.deliver(batch(b"x" * 60000)) for _ in range(100)]
        self.assertLess(self.charged, 1 << 20)
        self.assertGreater(self.charged, 0)
        while not outcomes[-1]:
            self.receiver.line.read()
            self.wait(0.25)
        self.assertEqual(self.receiver.line.heard, (b"x" * 60000 + b"\n") * 100)
        self.assertEqual(outcomes, [[None]] * 100)

    def test_lost_connection(self) -> None:
        """What the receiver's kernel had not acknowledged is sent again, in order, and counted."""
        self.make()
        first, second = self.deliver(batch(b"one")), self.deliver(batch(b"two", b"three"))
        self.receiver.line.read(4)
        self.receiver.line.reset()
        self.assertEqual((first, second), ([], []))
        self.assertIn("a:1", self.sink.trouble or "")
        self.wait(1)
        self.assertIsNone(self.sink.trouble)
        self.receiver.line.read()
        self.wait(1)
        self.assertEqual((first, second), ([None], [None]))
        self.assertTrue(self.receiver.line.heard.endswith(b"two\nthree\n"))
        details = self.sink.details()
        self.assertEqual(details["connections"], 2)
        self.assertGreaterEqual(details["resent_records"], 2)
        self.assertGreaterEqual(details["retries"], 2)

    def test_lost_in_the_middle(self) -> None:
        """Of a batch that was acknowledged in part, the records that were not whole are sent again, and no other."""
        self.make()
        outcome = self.deliver(batch(b"zero")), self.deliver(batch(b"one", b"two", b"three", b"four"))
        exchange: Any = self.sink._streams[0]._exchange
        exchange.wire.acknowledged = lambda: len(b"zero\none\ntwo\nth")
        self.receiver.line.reset()
        self.wait(1)
        self.assertEqual(self.receiver.line.read(), b"three\nfour\n")
        self.wait(1)
        self.assertEqual(outcome, ([None], [None]))
        self.assertEqual(self.sink.details()["resent_records"], 2)

    def test_refused_is_tried_again_with_longer_waits(self) -> None:
        """A target that is down is no reason not to start; it is tried seldom, and said."""
        self.receiver.mood["a:1"] = "refuses"
        self.make()
        outcome = self.deliver(batch(b"one"))
        self.wait(120)
        self.assertLess(len(self.receiver.attempts), 16)
        self.assertRegex(self.sink.trouble or "", "cannot connect to a:1: .*refused.*trying again")
        self.assertEqual(self.sink.details()["connected"], 0)
        self.receiver.mood["a:1"] = "up"
        self.wait(31)
        self.receiver.line.read()
        self.wait(1)
        self.assertEqual(outcome, [None])

    def test_silent_connect_is_given_up(self) -> None:
        """A connection, or a name, that never comes costs ten seconds and no more."""
        self.receiver.mood["a:1"] = "silent"
        self.make("a:1,b:2")
        self.wait(11)
        self.assertEqual([target for target, _ in self.receiver.attempts], ["a:1", "b:2"])
        self.assertEqual(self.sink.details()["connected"], 1)

    def test_failover_comes_back(self) -> None:
        """The second target is for when the first is down, and the first is tried first whenever one connects."""
        self.receiver.mood["a:1"] = "refuses"
        self.make(["a:1", "b:2"])
        self.assertEqual([target for target, _ in self.receiver.attempts], ["a:1", "b:2"])
        self.receiver.mood["a:1"] = "up"
        self.receiver.line.reset()
        self.wait(1)
        self.assertEqual([target for target, _ in self.receiver.attempts], ["a:1", "b:2", "a:1"])

    def test_balanced_by_connection(self) -> None:
        """Each target has some of the senders, whose records stay in order."""
        self.make("a:1,b:2", balance="connection")
        outcome = self.deliver(batch(b"one", connection=2), batch(b"two", connection=3), batch(b"three", connection=2))
        self.assertEqual([line.read() for line in self.receiver.lines], [b"one\nthree\n", b"two\n"])
        self.wait(1)
        self.assertEqual(outcome, [None])

    def test_receiver_that_reads_nothing(self) -> None:
        """It is said after seconds, and given up for another connection after the timeout."""
        self.make(timeout="20s")
        self.deliver(batch(b"x" * 5_000_000))
        self.wait(10)
        self.assertIn("a:1 takes nothing", self.sink.trouble or "")
        self.wait(15)
        self.assertTrue(self.receiver.lines[0].was_reset)
        self.assertEqual(len(self.receiver.lines), 2)

    def test_slow_receiver_is_waited_for(self) -> None:
        """One that reads a little now and then is not given up."""
        self.make(timeout="20s")
        outcome = self.deliver(batch(b"x" * 2_000_000))
        for _ in range(45):
            self.receiver.line.read(50_000)
            self.wait(5)
        self.assertEqual((outcome, len(self.receiver.lines)), ([None], 1))

    def test_fin(self) -> None:
        """A receiver that ends the connection is noticed while nothing is written; what it has is not sent again."""
        self.make()
        outcome = self.deliver(batch(b"one"))
        self.receiver.line.close()
        self.receiver.line.read()
        self.wait(0.5)
        self.assertEqual(outcome, [None])
        self.assertFalse(self.receiver.lines[0].is_up)
        self.wait(1)
        self.assertEqual(len(self.receiver.lines), 2)

    def test_fin_with_something_unacknowledged(self) -> None:
        """It has a second to acknowledge what was under way; then that is sent again."""
        self.make()
        outcome = self.deliver(batch(b"one"))
        self.receiver.line.close()
        self.wait(FIN_SECONDS + 1)
        self.assertEqual(self.receiver.line.read(), b"one\n")
        self.wait(1)
        self.assertEqual(outcome, [None])

    def test_no_descriptor_is_left(self) -> None:
        """A connection that cannot be used is given up for another, later and later, until one can."""
        undo = self.patch(ReceiverConnection, "getHandle", lambda _: Exhausted())
        self.make()
        outcome = self.deliver(batch(b"one"))
        self.wait(20)
        self.assertIn("could not be used", self.sink.trouble or "")
        self.assertLess(len(self.receiver.lines), 12)
        undo.restore()
        self.wait(31)
        self.assertEqual(self.receiver.line.read(), b"one\n")
        self.wait(1)
        self.assertEqual((outcome, self.events.internal_errors), ([None], 0))

    def test_flapping(self) -> None:
        """A receiver that ends each connection at once, in good order, is not connected to in a loop."""
        self.make()
        for _ in range(400):
            if self.receiver.line.is_up:
                self.receiver.line.close()
            self.wait(0.25)
        self.assertLess(len(self.receiver.lines), 20)

    def test_rebind(self) -> None:
        """A connection is ended in good order when its time is over, and the next one goes on."""
        self.make(rebind="10s")
        self.wait(9)
        outcome = self.deliver(batch(b"one"))
        self.wait(2)
        self.assertTrue(self.receiver.line.is_up, "one is unanswered")
        self.receiver.line.read()
        self.wait(2)
        self.assertEqual((outcome, len(self.receiver.lines), self.receiver.lines[0].was_reset), ([None], 2, False))
        self.assertEqual(self.sink.details()["resent_records"], 0)

    def test_close_waits(self) -> None:
        """Closing finishes what was delivered; nothing is left then."""
        self.make()
        closed: list[Any] = []
        outcome = self.deliver(batch(b"one"))
        _ = self.sink.close().addBoth(closed.append)
        self.wait(1)
        self.assertEqual((outcome, closed), ([], []))
        self.receiver.line.read()
        self.wait(1)
        self.assertEqual((outcome, closed), ([None], [None]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_of_one_that_never_connected(self) -> None:
        """There is nothing to wait for."""
        self.receiver.mood["a:1"] = "silent"
        closed: list[Any] = []
        _ = self.make().close().addBoth(closed.append)
        self.assertEqual(closed, [None])

    def test_abandon(self) -> None:
        """What was not taken fails; what comes later as well."""
        self.make()
        outcome = self.deliver(batch(b"one"))
        self.sink.abandon()
        later = self.deliver(batch(b"two"))
        for each in (outcome, later):
            self.assertIs(each[0].type, SinkError)

    def test_close_of_what_was_given_up(self) -> None:
        """Lent bytes that were taken back while they waited are not asked for again; nothing is left behind."""
        self.make()
        lent = Batch(memoryview(bytearray(b"x" * 1_000_000 + b"\n")), 1, batch(b"x").info, 0.0)
        outcome, later = self.deliver(lent), self.deliver(batch(b"two"))
        lent.let_go()
        closed: list[Any] = []
        _ = self.sink.close().addBoth(closed.append)
        self.assertEqual((closed, outcome[0].type, later[0].type), ([None], SinkError, SinkError))
        self.clock.advance(0)
        self.assertEqual((self.receiver.line.was_reset, self.events.internal_errors), (True, 0))

    def test_lent_bytes(self) -> None:
        """Views are sent as they are, and nobody looks at them once their group was answered for."""
        self.make()
        buffer = bytearray(b"abc\n" * 100_000)
        lent = Batch(memoryview(buffer), 100_000, batch(b"x").info, 0.0)
        outcome = self.deliver(lent)
        while not outcome:
            self.receiver.line.read()
            self.wait(0.25)
        lent.let_go()
        buffer.clear()  # refuses where somebody looks at it
        self.assertEqual(self.receiver.line.heard, b"abc\n" * 100_000)

    def test_bug_costs_the_connection(self) -> None:
        """What is raised in a callback is counted, and ends that connection alone."""
        self.make()
        self.deliver(batch(b"one"))
        exchange: Any = self.sink._streams[0]._exchange
        exchange._session.received = lambda _: 1 / 0
        self.receiver.line.answer(b"x")
        self.assertEqual((self.events.internal_errors, len(self.flushLoggedErrors(ZeroDivisionError))), (1, 1))
        self.wait(1)
        self.assertEqual(len(self.receiver.lines), 2)
        self.assertEqual(self.receiver.line.read(), b"one\n")

    def test_what_the_receiver_says_is_nothing(self) -> None:
        """Garbage, however much, changes nothing."""
        self.make()
        outcome = self.deliver(batch(b"one"))
        self.receiver.line.answer(b"\0" * 1_000_000)
        self.receiver.line.read()
        self.wait(1)
        self.assertEqual(outcome, [None])

    def test_delivered_from_inside_an_answer(self) -> None:
        """Whoever is answered may deliver at once; it is sent in order."""
        self.make()
        more: list[Any] = []
        _ = self.sink.deliver(group(batch(b"one"))).addCallback(lambda _: more.append(self.deliver(batch(b"two"))))
        self.receiver.line.read()
        self.wait(1)
        self.receiver.line.read()
        self.wait(1)
        self.assertEqual((self.receiver.line.heard, more), (b"one\ntwo\n", [[None]]))


class PatienceTests(SynchronousTestCase):
    def test_over_at_the_second_look(self) -> None:
        """Time that passed while nobody looked is not the other side's, until a look later."""
        patience = Patience(0.0)
        patience.look(600.0, 0, is_idle=False)
        patience.begin(0.0)
        patience.look(600.0, 0, is_idle=False)
        self.assertFalse(patience.suspect(90.0))
        patience.look(601.0, 0, is_idle=False)
        self.assertTrue(patience.suspect(90.0))

    def test_progress(self) -> None:
        """Whatever moves begins it anew; so does having nothing to wait for."""
        patience = Patience(0.0)
        for now in range(100):
            patience.look(float(now), now // 4, is_idle=False)
            self.assertLess(patience.waited, 5)
        for now in range(100, 200):
            patience.look(float(now), 0, is_idle=True)
        self.assertEqual((patience.waited, patience.is_stalled), (0, False))


RECORDS = st.lists(st.binary(min_size=1, max_size=20).map(lambda data: data.replace(b"\n", b"x")), min_size=1)


class FramesTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """Each framing, and what of it a record may not hold as it is."""
        for framing, records, delimiter, expected in (
            (Framing.NEWLINE, [b"a", b"b"], b"\n", b"a\nb\n"),
            (Framing.NEWLINE, [b"a\nb", b"c"], b"\0", b"a\\nb\nc\n"),
            (Framing.NUL, [b"a", b"b\0c"], b"\n", b"a\0b\\0c\0"),
            (Framing.OCTET_COUNTED, [b"a", b"b\nc"], b"\0", b"1 a3 b\nc"),
        ):
            with self.subTest(framing=framing):
                frames = FRAMES[framing]()
                self.assertEqual(frames.of_all(batch(*records, delimiter=delimiter)), expected)
                self.assertEqual(frames.of(records), expected)

    @given(st.sampled_from(sorted(FRAMES)), RECORDS, st.data())
    def test_whole(self, framing: Framing, records: list[bytes], data: st.DataObject) -> None:
        """What a beginning of the bytes holds whole, and what follows it, are all records."""
        session, one = PlainSession(FRAMES[framing]()), batch(*records)
        first = data.draw(st.integers(0, len(records) - 1))
        framed = session.frame(one, first, len(records) - first)
        size = data.draw(st.integers(0, len(framed)))
        number = session.whole(one, first, size)
        self.assertLessEqual(len(session.frame(one, first, number)) if number else 0, size)
        if first + number < len(records):
            self.assertGreater(len(session.frame(one, first, number + 1)), size)
