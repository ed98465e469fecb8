"""RELP sessions on a virtual transport and clock: what is answered, when, in which order, and how they end."""

import re
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from tests.test_framing_relp import OPEN, frame, session
from tests.test_server_protocol import ProtocolCase
from twisted_ingest.errors import DiscardReason, DropReason, Durability, Oversize, PauseReason
from twisted_ingest.interfaces import IAnsweringProducer, IBatchConsumer
from twisted_ingest.limits import (
    CLOSE_TIMEOUT,
    DRAIN_QUIET,
    KIB,
    READ_SIZE,
    RELP_ACKS_UNREAD_TIMEOUT,
    RELP_DRAIN_QUIET,
    RELP_EOF_TIMEOUT,
    RELP_UNACKED_FRAMES,
)
from twisted_ingest.server.relp import RelpProtocol
from twisted_ingest.testing import FlakySink, PumpTransport, Rig, StalledSink

_RSP = re.compile(rb"(\d+) rsp 6 200 OK\n")


def acked(transport: PumpTransport) -> list[int]:
    """Give the numbers answered with 200 and nothing else (``open`` says more)."""
    return [int(number) for number in _RSP.findall(bytes(transport.written))]


def session_of(transport: PumpTransport) -> RelpProtocol:
    """Give the protocol behind a transport."""
    protocol: RelpProtocol = transport._protocol
    return protocol


class RelpCase(ProtocolCase):
    """RELP listeners; every test ends with everything accounted for."""

    def rig(self, *sinks: Any, **options: Any) -> Rig:
        options = {"durability": Durability.FSYNC, "idle_timeout_seconds": None, **options}
        return super().rig(*sinks, wire="relp", **options)


class OrderedSink(StalledSink):
    """Answers for its groups in whatever order it is told."""

    def answer(self, index: int) -> None:
        group, done = self.waiting[index]
        del self.waiting[index]
        self.keep(group)
        done.callback(None)


class AnswerTests(RelpCase):
    def test_interfaces(self) -> None:
        """A session and its lane provide what they say."""
        protocol = session_of(self.rig().connect())
        self.assertTrue(verifyObject(IAnsweringProducer, protocol))
        self.assertTrue(verifyObject(IBatchConsumer, protocol.lane))

    def test_nothing_before_delivery(self) -> None:
        """No record is answered before the sink has taken it; ``open`` is answered at once."""
        sink = StalledSink()
        rig = self.rig(sink)
        transport = rig.send(OPEN)
        self.assertIn(b"1 rsp ", transport.written)
        transport.peer_sends(session(b"one", b"two").removeprefix(OPEN))
        transport.pump()
        rig.turn()
        self.assertEqual((acked(transport), session_of(transport).unanswered), ([], 2))
        sink.release()
        self.assertEqual((acked(transport), session_of(transport).unanswered), ([2, 3], 0))
        self.assertEqual(rig.factory.ledger.snapshot()["relp_acks"], 2)

    def test_every_required_sink(self) -> None:
        """A record is answered when the last required sink has taken it."""
        first, second = StalledSink("first"), StalledSink("second")
        transport = self.rig(first, second).send(session(b"one"))
        second.release()
        self.assertEqual(acked(transport), [])
        first.release()
        self.assertEqual(acked(transport), [2])

    def test_in_order_whatever_the_sink_does(self) -> None:
        """Answers go out in the order of the frames, also where a sink answers for later groups first."""
        sink = OrderedSink()
        rig = self.rig(sink)
        transport = rig.send(session(b"one"))
        for number in (3, 4):
            transport.peer_sends(frame(number, b"syslog", b"more"))
            transport.pump()
            rig.turn()
        sink.answer(2)
        sink.answer(1)
        self.assertEqual(acked(transport), [])
        sink.answer(0)
        self.assertEqual(acked(transport), [2, 3, 4])

    def test_joined(self) -> None:
        """The answers of a group are one write."""
        sink = StalledSink()
        rig = self.rig(sink)
        transport = rig.connect()
        written: list[bytes] = []
        self.patch(transport, "write", written.append)
        transport.peer_sends(session(*[b"x"] * 50))
        transport.pump(100)
        rig.turn()
        before = len(written)
        sink.release()
        self.assertEqual((before, len(written)), (1, 2))
        self.assertEqual(len(_RSP.findall(written[1])), 50)

    def test_sync_is_asked_for(self) -> None:
        """A group that holds a batch of an ``fsync`` listener says so, one of ``written`` batches does not."""
        for durability in Durability:
            sink = StalledSink()
            self.rig(sink, durability=durability).send(session(b"one"))
            self.assertEqual(sink.waiting[0][0].needs_sync, durability.covers(Durability.FSYNC))
            sink.release()

    def test_lines_may_ask_too(self) -> None:
        """A listener for lines asks for a sync where it is configured to."""
        sink = StalledSink()
        Rig(sink, durability=Durability.FSYNC).send(b"one\n")
        self.assertTrue(sink.waiting[0][0].needs_sync)
        sink.release()

    def test_memory(self) -> None:
        """With ``memory`` a record is answered when we have it."""
        sink = StalledSink()
        transport = self.rig(sink, durability=Durability.MEMORY).send(session(b"one", b"two"))
        self.assertEqual(acked(transport), [2, 3])
        sink.release()
        self.assertEqual(acked(transport), [2, 3])

    def test_limits_replaced(self) -> None:
        """A session goes on as it began where its listener's durability is replaced."""
        sink = StalledSink()
        rig = self.rig(sink, durability=Durability.MEMORY)
        transport = rig.send(session(b"one"))
        rig.factory.limits = replace(rig.factory.limits, durability=Durability.FSYNC)
        sink.release()
        transport.peer_sends(frame(3, b"syslog", b"two"))
        transport.pump()
        self.assertEqual(acked(transport), [2, 3])
        sink.release()

    def test_empty_records_wait_their_turn(self) -> None:
        """An empty record is answered after those before it, not before."""
        sink = StalledSink()
        transport = self.rig(sink).send(session(b"one", b""))
        self.assertEqual(acked(transport), [])
        sink.release()
        self.assertEqual(acked(transport), [2, 3])

    def test_oversize_is_answered(self) -> None:
        """An oversize record is cut, counted and answered: or its client would send it for ever."""
        rig = self.rig(max_record_bytes=5)
        transport = rig.send(session(b"0123456789", b"ok"))
        self.assertEqual((rig.sink.records, acked(transport)), ([b"01234", b"ok"], [2, 3]))
        self.assertEqual(rig.factory.ledger.records_truncated, 1)
        dropping = self.rig(max_record_bytes=5, oversize=Oversize.DROP)
        self.assertEqual(acked(dropping.send(session(b"0123456789", b"ok"))), [2, 3])

    def test_never_a_refusal_for_a_passing_condition(self) -> None:
        """A full budget, a stalled sink and a flood are answered with silence, never with 500."""
        sink = StalledSink()
        rig = self.rig(sink, memory=256 * KIB, connection_memory=100 * KIB)
        transport = rig.send(session(*[b"x" * 1000] * 300))
        self.assertFalse(transport.reading)
        while transport.unread or sink.waiting:
            sink.release()
            rig.turn()
            transport.pump()
            rig.turn()
        self.assertNotIn(b"500", transport.written)
        self.assertEqual(acked(transport), list(range(2, 302)))

    @settings(max_examples=50)
    @given(st.lists(st.booleans(), min_size=1, max_size=12), st.lists(st.integers(0, 200), max_size=60))
    def test_any_interleaving(self, are_empty: list[bool], choices: list[int]) -> None:
        """Whatever the order of reading and taking: an answer only after its record was taken, each once, in order."""
        records = [b"" if is_empty else b"record %d" % number for number, is_empty in enumerate(are_empty)]
        sink = OrderedSink()
        rig = Rig(sink, wire="relp", durability=Durability.FSYNC)
        transport = rig.connect()
        transport.peer_sends(session(*records))
        while transport.unread or sink.waiting or rig.factory.route.pending:
            choice = choices.pop() if choices else 0
            if sink.waiting and choice % 2 == 0:
                sink.answer(choice // 2 % len(sink.waiting))
            elif transport.unread:
                transport.pump(1 + choice, 1)
            rig.turn()
            numbers = acked(transport)
            self.assertEqual(numbers, list(range(2, 2 + len(numbers))))
            self.assertEqual(set(records[: len(numbers)]) - set(sink.records) - {b""}, set())
        self.assertEqual(len(acked(transport)), len(records))
        self.assertEqual(rig.survey.conservation_error(), 0)


class FailureTests(RelpCase):
    def test_a_required_sink_gives_up(self) -> None:
        """Where a required sink gives up for good, the session is reset and what it lost is not answered."""
        sink = StalledSink()
        rig = self.rig(sink)
        transport = rig.send(session(b"one"))
        transport.peer_sends(frame(3, b"syslog", b"two"))
        transport.pump()
        rig.turn()
        sink.fail()
        self.assertTrue(transport.was_reset)
        sink.release()
        rig.turn()
        self.assertEqual((acked(transport), self.closed(rig)), ([], {"sink_failed": 1}))
        self.assertEqual(rig.factory.ledger.snapshot()["relp_unanswered"], 2)
        self.assertEqual(rig.intake.outlets[0].tally("test").records_dropped[DropReason.SINK_FAILED], 1)

    def test_nothing_behind_what_was_refused(self) -> None:
        """What a sink took after it refused something earlier is not answered either."""
        sink = OrderedSink()
        rig = self.rig(sink)
        transport = rig.send(session(b"one"))
        transport.peer_sends(frame(3, b"syslog", b"two"))
        transport.pump()
        rig.turn()
        sink.answer(1)
        sink.fail()
        rig.turn()
        self.assertEqual((acked(transport), self.closed(rig)), ([], {"sink_failed": 1}))

    def test_another_sink_changes_nothing(self) -> None:
        """That a sink which is not required rejects a record, or fails for good, does not concern the answer."""
        sink, failing = StalledSink(), StalledSink("failing")
        rig = self.rig(sink)
        rig.intake.add_sink(FlakySink(1), required=False)
        lost = rig.intake.add_sink(failing, required=False).tally("test").records_dropped
        transport = rig.send(session(b"one"))
        failing.fail()
        self.assertEqual(lost[DropReason.SINK_FAILED], 1)
        sink.release()
        self.assertEqual((acked(transport), transport.was_reset), ([2], False))

    def test_abandoned_is_not_answered(self) -> None:
        """What is given up at a stop is counted and not answered."""
        sink = StalledSink()
        rig = self.rig(sink)
        transport = rig.send(session(b"one"))
        rig.intake.abandon()
        rig.turn()
        self.assertEqual(acked(transport), [])
        self.assertTrue(transport.was_reset)

    def test_answers_of_a_peer_that_is_gone(self) -> None:
        """A sink that takes what a lost connection sent has nobody to tell; the records are counted as unanswered."""
        sink = StalledSink()
        rig = self.rig(sink)
        transport = rig.send(session(b"one", b"two"))
        transport.peer_resets()
        transport.pump()
        rig.turn()
        sink.release()
        self.assertEqual((acked(transport), rig.factory.ledger.snapshot()["relp_unanswered"]), ([], 2))
        self.assertEqual(self.closed(rig), {"reset": 1})

    def test_a_bug_in_an_answer(self) -> None:
        """An exception while answering costs its session; the others of the group get their answers."""

        class Broken(RelpProtocol):
            def settled(self, count: int) -> None:
                if self.info.id == 1:
                    raise ZeroDivisionError
                super().settled(count)

        sink = StalledSink()
        rig = self.rig(sink, protocol=Broken)
        one, other = rig.connect(), rig.connect()
        for transport in (one, other):
            transport.peer_sends(session(b"record"))
            transport.pump()
        rig.turn()
        self.assertEqual(len(sink.waiting), 1)
        sink.release()
        rig.turn()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((acked(one), acked(other), one.was_reset), ([], [2], True))


class BoundTests(RelpCase):
    def test_unanswered_frames_are_bounded(self) -> None:
        """A peer that may have no more frames unanswered is not read, and read again when half are answered."""
        sink = StalledSink()
        rig = self.rig(sink, connection_memory=64 * 1024 * KIB)
        transport = rig.connect()
        transport.peer_sends(session(*[b"x"] * (RELP_UNACKED_FRAMES * 2)))
        transport.pump()
        protocol = session_of(transport)
        self.assertFalse(transport.reading)
        self.assertIs(protocol.lane.pause_reason, PauseReason.ANSWERS)
        self.assertLess(protocol.unanswered, RELP_UNACKED_FRAMES + READ_SIZE // 13)
        while transport.unread or sink.waiting or rig.factory.route.pending:
            sink.release()
            rig.turn()
            transport.pump()
        self.assertEqual(len(acked(transport)), RELP_UNACKED_FRAMES * 2)

    def test_bytes_are_bounded(self) -> None:
        """What one session may have in flight is what any connection may."""
        sink = StalledSink()
        rig = self.rig(sink, connection_memory=128 * KIB)
        transport = rig.send(session(*[b"x" * 1000] * 300))
        self.assertIs(session_of(transport).lane.pause_reason, PauseReason.CONNECTION)
        self.assertLess(session_of(transport).lane.in_flight, 140 * KIB)
        sink.release()

    def test_answers_that_are_not_read(self) -> None:
        """A peer that does not read its answers is not read either, and reset with its own reason after a while."""
        rig = self.rig()
        transport = rig.send(session(b"one"))
        transport.producer.pauseProducing()
        self.assertFalse(transport.reading)
        rig.turn(RELP_ACKS_UNREAD_TIMEOUT - 1)
        self.assertTrue(transport.connected)
        rig.turn(3)
        self.assertEqual((transport.was_reset, self.closed(rig)), (True, {"acks_unread": 1}))

    def test_stalling_is_not_refusing(self) -> None:
        """A peer that does not read its answers is not refused anything."""
        transport = self.rig().send(session(b"one"))
        transport.producer.pauseProducing()
        self.assertNotIn(b"500", transport.written)

    def test_time_we_slept(self) -> None:
        """While we sleep nobody can read our answers: that time does not count."""
        rig = self.rig()
        transport = rig.send(session(b"one"))
        transport.producer.pauseProducing()
        rig.clock.advance(RELP_ACKS_UNREAD_TIMEOUT + 10)
        rig.factory.forgive(RELP_ACKS_UNREAD_TIMEOUT + 10)
        rig.turn(3)
        self.assertTrue(transport.connected)

    def test_answers_that_are_read_again(self) -> None:
        """A peer that reads on is read on, with its time anew."""
        rig = self.rig()
        transport = rig.send(session(b"one"))
        for _ in range(2):
            transport.producer.pauseProducing()
            rig.turn(RELP_ACKS_UNREAD_TIMEOUT - 1)
            transport.producer.resumeProducing()
            self.assertTrue(transport.reading)
        rig.turn(RELP_ACKS_UNREAD_TIMEOUT * 2)
        self.assertTrue(transport.connected)


class EndTests(RelpCase):
    def test_close(self) -> None:
        """``close`` is answered after the last record, then the session is half-closed and the peer waited for."""
        sink = StalledSink()
        rig = self.rig(sink)
        transport = rig.send(session(b"one") + frame(3, b"close"))
        self.assertEqual((acked(transport), transport.write_closed), ([], False))
        sink.release()
        self.assertTrue(bytes(transport.written).endswith(b"\n2 rsp 6 200 OK\n3 rsp 0\n0 serverclose 0\n"))
        self.assertTrue(transport.write_closed)
        transport.peer_closes()
        transport.pump()
        rig.turn()
        self.assertEqual((transport.was_reset, self.closed(rig)), (False, {"eof": 1}))

    def test_a_peer_that_stays(self) -> None:
        """A peer that does not close after its session's end is reset by a deadline; nothing it sends is taken."""
        rig = self.rig()
        transport = rig.send(session(b"one") + frame(3, b"close"))
        transport.peer_sends(frame(4, b"syslog", b"late"))
        transport.pump()
        rig.turn(CLOSE_TIMEOUT + 2)
        self.assertEqual((transport.was_reset, self.closed(rig), rig.sink.records), (True, {"eof": 1}, [b"one"]))

    def test_a_broken_rule(self) -> None:
        """What came before a broken rule is answered, then the session ends; nothing behind it is taken."""
        sink = StalledSink()
        rig = self.rig(sink)
        transport = rig.send(session(b"one") + frame(9, b"syslog", b"wrong number"))
        sink.release()
        self.assertTrue(bytes(transport.written).endswith(b"2 rsp 6 200 OK\n0 serverclose 0\n"))
        transport.peer_closes()
        transport.pump()
        rig.turn()
        self.assertEqual((self.closed(rig), sink.records), ({"protocol": 1}, [b"one"]))
        self.assertEqual(rig.factory.ledger.snapshot()["relp_errors/number"], 1)

    def test_a_missing_trailer(self) -> None:
        """A frame without its LF is neither answered nor delivered; the one before it is."""
        rig = self.rig()
        transport = rig.send(session(b"one") + b"3 syslog 3 abcd\n")
        self.assertEqual((acked(transport), rig.sink.records), ([2], [b"one"]))
        rig.turn(CLOSE_TIMEOUT + 2)
        self.assertEqual(self.closed(rig), {"framing": 1})

    def test_half_closed_peer_gets_its_answers(self) -> None:
        """A peer that has ended its side gets the answers it waits for, then the end."""
        sink = StalledSink()
        rig = self.rig(sink)
        transport = rig.send(session(b"one") + b"3 syslog 9 half")
        transport.peer_closes()
        transport.pump()
        rig.turn(5)
        self.assertTrue(transport.connected)
        sink.release()
        rig.turn()
        self.assertEqual((acked(transport), self.closed(rig)), ([2], {"eof": 1}))
        self.assertEqual((sink.records, rig.factory.ledger.bytes_discarded[DiscardReason.UNANSWERED]), ([b"one"], 15))

    def test_half_closed_peer_is_not_kept_for_ever(self) -> None:
        """A peer that has ended its side is let go when it has long given up, its records unanswered."""
        sink = StalledSink()
        rig = self.rig(sink)
        transport = rig.send(session(b"one"))
        transport.peer_closes()
        transport.pump()
        rig.turn(RELP_EOF_TIMEOUT + 2)
        self.assertEqual(self.closed(rig), {"eof": 1})
        sink.release()

    def test_hang_up_while_paused(self) -> None:
        """A peer that ends its side while we do not read it gets its answers all the same."""
        sink = StalledSink()
        rig = self.rig(sink, connection_memory=64 * KIB)
        transport = rig.send(session(b"one"))
        self.assertFalse(transport.reading)
        transport.peer_closes()
        rig.turn(3)
        self.assertTrue(transport.connected)
        sink.release()
        self.assertEqual(acked(transport), [2])
        transport.pump()
        rig.turn()
        self.assertEqual(self.closed(rig), {"eof": 1})

    def test_no_idle_timeout(self) -> None:
        """A silent session stays."""
        rig = self.rig()
        transport = rig.connect()
        rig.turn(1000)
        self.assertTrue(transport.connected)

    def test_frame_deadline(self) -> None:
        """A frame that does not end in time ends the session, and is not delivered."""
        rig = self.rig(frame_timeout_seconds=5.0)
        transport = rig.send(session(b"one") + b"3 syslog 3 ab")
        rig.turn(8)
        self.assertEqual((transport.was_reset, self.closed(rig)), (True, {"frame_deadline": 1}))
        self.assertEqual(rig.sink.records, [b"one"])

    def test_wrong_protocol(self) -> None:
        """Plain syslog on a RELP port is refused, and counted as what it is."""
        rig = self.rig()
        transport = rig.send(b"<13>plain line\n")
        rig.turn()
        self.assertEqual((transport.was_reset, self.closed(rig)), (True, {"wrong_protocol": 1}))
        self.assertEqual(rig.factory.ledger.snapshot()["connections_refused/plain"], 1)

    def test_memory_ends_the_session(self) -> None:
        """A record that would take too much memory is not cut: the session ends, and its client sends it again."""
        rig = self.rig(memory=256 * KIB, max_record_bytes=128 * KIB)
        transport = rig.send(session(b"one") + b"3 syslog 100000 " + b"x" * 70 * KIB)
        rig.turn(CLOSE_TIMEOUT + 2)
        self.assertEqual((acked(transport), rig.sink.records, self.closed(rig)), ([2], [b"one"], {"memory": 1}))


class DrainTests(RelpCase):
    def drain(self, rig: Rig) -> None:
        for connection in rig.factory.connections.values():
            connection.begin_drain()

    def wait(self, rig: Rig, seconds: float = RELP_DRAIN_QUIET) -> None:
        """Let time pass, and the stop look at the sessions as it goes on."""
        rig.turn(seconds)
        for connection in list(rig.factory.connections.values()):
            connection.drain(rig.clock.seconds())
        rig.turn()

    def test_what_arrived_is_answered(self) -> None:
        """At a stop what has arrived is read, delivered and answered; then the peer is told, and no record is lost."""
        sink = StalledSink()
        rig = self.rig(sink)
        transport = rig.send(session(b"one"))
        transport.peer_sends(frame(3, b"syslog", b"two"))
        self.drain(rig)
        self.wait(rig)
        self.assertFalse(transport.write_closed)
        transport.pump()
        self.wait(rig)
        sink.release()
        self.assertTrue(bytes(transport.written).endswith(b"2 rsp 6 200 OK\n3 rsp 6 200 OK\n0 serverclose 0\n"))
        self.assertTrue(transport.write_closed)
        transport.peer_sends(frame(4, b"syslog", b"too late"))
        transport.pump()
        transport.peer_closes()
        transport.pump()
        rig.turn()
        self.assertEqual((sink.records, acked(transport), self.closed(rig)), ([b"one", b"two"], [2, 3], {"drain": 1}))

    def test_an_idle_session_is_told_soon(self) -> None:
        """A session without anything to answer is told when nothing more comes, and counts as quiet after a second."""
        rig = self.rig()
        transport = rig.send(session(b"one"))
        self.drain(rig)
        self.assertFalse(transport.write_closed)
        self.wait(rig)
        self.assertTrue(bytes(transport.written).endswith(b"0 serverclose 0\n"))
        rig.turn(2)
        self.assertTrue(session_of(transport).is_quiet(rig.clock.seconds(), DRAIN_QUIET))

    def test_unanswered_is_not_quiet(self) -> None:
        """A session that waits for the sinks is not quiet, however long it lasts."""
        sink = StalledSink()
        rig = self.rig(sink)
        transport = rig.send(session(b"one"))
        self.drain(rig)
        self.wait(rig, 10)
        self.assertFalse(session_of(transport).is_quiet(rig.clock.seconds(), DRAIN_QUIET))
        sink.release()

    def test_a_flood_ends_too(self) -> None:
        """A peer that never stops sending is read for a second; what comes then is not taken, and not answered."""
        rig = self.rig()
        transport = rig.send(session(b"one"))
        transport.peer_sends(b"".join(frame(number, b"syslog", b"x") for number in range(3, 1000)))
        self.drain(rig)
        transport.pump(100, 5)
        self.wait(rig, DRAIN_QUIET + 1)
        self.assertTrue(transport.write_closed)
        transport.pump()
        self.assertEqual(len(acked(transport)), len(rig.sink.records))
        self.assertLess(len(rig.sink.records), 200)

    def test_paused_when_it_begins(self) -> None:
        """A session that was paused when the stop began ends once its records are taken."""
        sink = StalledSink()
        rig = self.rig(sink, connection_memory=64 * KIB)
        transport = rig.send(session(b"one"))
        self.assertFalse(transport.reading)
        self.drain(rig)
        self.wait(rig)
        sink.release()
        self.wait(rig)
        self.assertTrue(bytes(transport.written).endswith(b"2 rsp 6 200 OK\n0 serverclose 0\n"))
