"""The protocol on a virtual transport and clock: contract, timers, pauses, ends."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.errors import CloseReason, DiscardReason, DropReason, Oversize
from twisted_ingest.limits import CLOSE_TIMEOUT, KIB
from twisted_ingest.server.protocol import IngestProtocol
from twisted_ingest.testing import PumpTransport, Rig, StalledSink


def protocol_of(transport: PumpTransport) -> IngestProtocol:
    """Give the protocol behind a transport."""
    protocol: IngestProtocol = transport._protocol
    return protocol


class ProtocolCase(SynchronousTestCase):
    """Every test ends with everything accounted for."""

    def rig(self, *sinks: Any, **settings: Any) -> Rig:
        rig = Rig(*sinks, **settings)
        self.addCleanup(self.check, rig)
        return rig

    def check(self, rig: Rig) -> None:
        self.assertEqual(rig.survey.conservation_error(), 0)

    def closed(self, rig: Rig) -> dict[str, int]:
        """Give the close reasons that occurred."""
        self.assertEqual(rig.factory.connections, {})
        self.assertEqual(rig.admission.open, 0)
        return {reason.value: n for reason, n in rig.factory.ledger.connections_closed.items() if n}


class DeliveryTests(ProtocolCase):
    def test_is_a_line_receiver(self) -> None:
        """The contract of `LineReceiver` holds: base class, delimiter, MAX_LENGTH."""
        rig = self.rig(max_record_bytes=77)
        protocol = protocol_of(rig.connect())
        self.assertIsInstance(protocol, LineReceiver)
        self.assertEqual((protocol.delimiter, protocol.MAX_LENGTH), (b"\n", 77))
        self.assertRaises(RuntimeError, protocol.setRawMode)

    def test_lines_arrive(self) -> None:
        """Lines reach the sink in order, however they were cut."""
        for size in (1, 3, 1000):
            rig = self.rig()
            rig.send(b"one\ntwo\r\nthree\n", size)
            self.assertEqual(rig.sink.records, [b"one", b"two", b"three"])

    def test_subclass_gets_every_line_too(self) -> None:
        """A subclass that overrides ``lineReceived`` gets each line, and the sink gets the batches."""
        got: list[bytes] = []

        class Tee(IngestProtocol):
            def lineReceived(self, line: bytes) -> None:
                got.append(line)

        rig = self.rig(protocol=Tee)
        rig.send(b"one\ntwo\n")
        self.assertEqual((got, rig.sink.records), ([b"one", b"two"], [b"one", b"two"]))

    def test_subclass_that_pauses_itself(self) -> None:
        """A subclass that pauses gets no further line until it resumes, and loses none."""
        got: list[bytes] = []

        class Hesitant(IngestProtocol):
            def lineReceived(self, line: bytes) -> None:
                got.append(line)
                self.pauseProducing()

        rig = self.rig(protocol=Hesitant)
        transport = rig.connect()
        transport.peer_sends(b"one\ntwo\n")
        transport.pump()
        self.assertEqual(got, [b"one"])
        protocol_of(transport).resumeProducing()
        self.assertEqual(got, [b"one", b"two"])
        self.assertFalse(transport.reading)

    def test_subclass_cannot_resume_against_the_lane(self) -> None:
        """A subclass that resumes while the sinks are behind is not read from before they have caught up."""
        sink = StalledSink()
        rig = self.rig(sink, connection_memory=64 * KIB)
        transport = rig.send(b"one\n")
        protocol_of(transport).resumeProducing()
        self.assertFalse(transport.reading)
        sink.release()
        self.assertTrue(transport.reading)

    def test_oversize_is_told(self) -> None:
        """``lineLengthExceeded`` is told the beginning of a record that is too long, once."""
        told: list[bytes] = []

        class Listening(IngestProtocol):
            def lineLengthExceeded(self, line: bytes) -> None:
                told.append(line)

        rig = self.rig(protocol=Listening, max_record_bytes=5)
        rig.send(b"0123456789" * 10 + b"\nok\n", 7)
        self.assertEqual((told, rig.sink.records), ([b"01234"], [b"01234", b"ok"]))

    def test_oversize_close(self) -> None:
        """Under ``close`` the connection is reset, with its reason; what came before was delivered."""
        rig = self.rig(max_record_bytes=5, oversize=Oversize.CLOSE)
        transport = rig.send(b"ok\n0123456789")
        self.assertTrue(transport.was_reset)
        self.assertEqual((self.closed(rig), rig.sink.records), ({"oversize": 1}, [b"ok"]))
        self.assertEqual(rig.factory.ledger.records_dropped[DropReason.OVERSIZE], 1)

    def test_exception_in_subclass(self) -> None:
        """An exception costs its connection only, is counted, and leaves everything accounted for."""

        class Broken(IngestProtocol):
            def lineReceived(self, line: bytes) -> None:
                raise ZeroDivisionError

        rig = self.rig(protocol=Broken)
        other = rig.connect()
        rig.send(b"one\nhalf")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(rig.factory.ledger.connections_closed[CloseReason.INTERNAL_ERROR], 1)
        self.assertEqual(rig.events.internal_errors, 1)
        self.assertTrue(other.connected)
        self.assertEqual(rig.sink.records, [b"one"])


class EndTests(ProtocolCase):
    def test_eof_delivers_the_last_line(self) -> None:
        """An unterminated line is delivered at EOF, marked and counted as partial."""
        rig = self.rig()
        transport = rig.send(b"one\nlast")
        transport.peer_closes()
        transport.pump()
        rig.turn()
        self.assertEqual(rig.sink.records, [b"one", b"last"])
        self.assertEqual([batch.partial for batch in rig.sink.batches], [False, True])
        self.assertEqual((self.closed(rig), rig.factory.ledger.records_partial), ({"eof": 1}, 1))

    def test_eof_while_paused(self) -> None:
        """What a peer sent before it left is read once the pressure is gone, its last half line included."""
        sink = StalledSink()
        rig = self.rig(sink, connection_memory=64 * KIB)
        transport = rig.send(b"x\n" * 10)
        self.assertFalse(transport.reading)
        transport.peer_sends(b"more\nlast")
        transport.peer_closes()
        transport.pump()
        self.assertEqual(len(rig.factory.connections), 1)
        for _ in range(3):
            rig.turn(0.01)
            sink.release()
            transport.pump()
        rig.turn()
        sink.release()
        self.assertEqual(sink.records[-2:], [b"more", b"last"])
        self.assertEqual(self.closed(rig), {"eof": 1})

    def test_reset_counts_the_partial(self) -> None:
        """After a reset the unfinished record is counted, not delivered."""
        rig = self.rig()
        transport = rig.send(b"one\nhalf")
        transport.peer_resets()
        transport.pump()
        self.assertEqual((rig.sink.records, self.closed(rig)), ([b"one"], {"reset": 1}))
        self.assertEqual(rig.factory.ledger.bytes_discarded[DiscardReason.RESET], 4)

    def test_closed_by_an_embedding_application(self) -> None:
        """A connection that an application closes by itself ends with its own reason."""
        rig = self.rig()
        transport = rig.connect()
        protocol_of(transport).transport.loseConnection()
        rig.turn()
        self.assertEqual(self.closed(rig), {"local": 1})

    def test_close_has_a_deadline(self) -> None:
        """A graceful close that does not come to its end is turned into a reset."""
        rig = self.rig()
        transport = rig.connect()
        transport._lose = lambda reason: None  # type: ignore[method-assign]
        protocol_of(transport).close(CloseReason.DRAIN, reset=False)
        rig.turn(CLOSE_TIMEOUT - 1)
        self.assertFalse(transport.was_reset)
        rig.turn(1)
        self.assertTrue(transport.was_reset)
        del transport._lose
        transport._lose(Exception())

    def test_nothing_outlives_a_connection(self) -> None:
        """After any end no delayed call, lane or registry entry is left."""
        rig = self.rig()
        for end in ("peer_closes", "peer_resets"):
            transport = rig.send(b"half")
            getattr(transport, end)()
            transport.pump()
            rig.turn()
        self.assertEqual(rig.clock.getDelayedCalls(), [])
        self.assertEqual((rig.intake.lanes, rig.intake.budget.used), (set(), 0))

    def test_draining_peer_that_resets(self) -> None:
        """A peer that resets while we drain is counted as a reset, and its unfinished record with it."""
        rig = self.rig()
        resets, ends = rig.send(b"half"), rig.send(b"half")
        for transport in (resets, ends):
            protocol_of(transport).begin_drain()
            self.assertTrue(transport.write_closed)
        resets.peer_resets()
        ends.peer_closes()
        for transport in (resets, ends):
            transport.pump()
        rig.turn()
        self.assertEqual(self.closed(rig), {"reset": 1, "drain": 1})
        self.assertEqual(rig.sink.records, [b"half"])

    def test_drain_deadline(self) -> None:
        """A connection that is still there at the drain deadline ends as drained: its half line is delivered."""
        rig = self.rig()
        transport = rig.send(b"half")
        protocol_of(transport).begin_drain()
        protocol_of(transport).close(CloseReason.DRAIN, reset=True)
        rig.turn()
        rig.turn()
        self.assertEqual(self.closed(rig), {"drain": 1})
        self.assertEqual((rig.sink.records, rig.sink.batches[0].partial), ([b"half"], True))

    def test_quiet_while_draining(self) -> None:
        """A draining peer is quiet once it has sent nothing for a while, nothing waits, and we do read from it."""
        rig = self.rig()
        transport = rig.connect()
        protocol = protocol_of(transport)
        self.assertFalse(protocol.is_quiet(rig.clock.seconds(), 0))
        protocol.begin_drain()
        protocol.begin_drain()
        rig.turn(0.9)
        transport.peer_sends(b"late\n")
        self.assertFalse(protocol.is_quiet(rig.clock.seconds() + 5, 1))
        transport.pump()
        rig.turn(0.9)
        self.assertFalse(protocol.is_quiet(rig.clock.seconds(), 1))
        rig.turn(0.2)
        self.assertTrue(protocol.is_quiet(rig.clock.seconds(), 1))
        protocol.pauseProducing()
        self.assertFalse(protocol.is_quiet(rig.clock.seconds(), 1))
        protocol.close(CloseReason.DRAIN, reset=True)
        rig.turn()

    def test_producer_contract(self) -> None:
        """Pausing twice is pausing once, a resume needs no pause before it, and stopping ends the connection."""
        rig = self.rig()
        transport = rig.connect()
        protocol = protocol_of(transport)
        protocol.resumeProducing()
        protocol.pauseProducing()
        protocol.pauseProducing()
        self.assertFalse(transport.reading)
        protocol.resumeProducing()
        self.assertTrue(transport.reading)
        protocol.stopProducing()
        rig.turn()
        self.assertEqual(self.closed(rig), {"local": 1})

    def test_bug_at_the_end(self) -> None:
        """An exception at the end of a stream, or at an eviction, is counted; the connection is gone all the same."""

        class Broken(IngestProtocol):
            def lineReceived(self, line: bytes) -> None:
                raise ZeroDivisionError

        rig = self.rig(protocol=Broken, memory=1024)
        transport = rig.send(b"half")
        transport.peer_closes()
        transport.pump()
        rig.send(b"evicted")
        rig.turn(0.5)  # the oldest is evicted
        other = rig.send(b"half")
        rig.turn()
        other.peer_resets()
        other.pump()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(self.closed(rig), {"eof": 1, "internal_error": 1, "reset": 1})


class TimerTests(ProtocolCase):
    def test_idle_until_the_first_record(self) -> None:
        """By default silence ends a connection only until its first record."""
        rig = self.rig()
        silent, live = rig.connect(), rig.send(b"hello\n")
        rig.turn(299)
        self.assertEqual(len(rig.factory.connections), 2)
        rig.turn(2)
        self.assertTrue(silent.was_reset)
        rig.turn(10_000)
        self.assertFalse(live.was_reset)

    def test_explicit_idle_timeout_always_holds(self) -> None:
        """An idle timeout that was set ends a silent connection with a reset, records or not."""
        rig = self.rig(idle_timeout_seconds=10.0, idle_until_first_record=False)
        transport = rig.send(b"hello\n")
        rig.turn(9)
        transport.peer_sends(b"\n")
        transport.pump()
        rig.turn(9)
        self.assertFalse(transport.was_reset)
        rig.turn(2)
        self.assertTrue(transport.was_reset)
        self.assertEqual(self.closed(rig), {"idle": 1})

    def test_bytes_in_the_kernel_are_read_first(self) -> None:
        """A timer that finds bytes waiting was late itself: it lets them be read."""
        rig = self.rig(idle_timeout_seconds=10.0)
        transport = rig.connect()
        transport.peer_sends(b"in time\n")
        rig.turn(15)
        transport.pump()
        rig.turn()
        self.assertEqual(rig.sink.records, [b"in time"])
        self.assertFalse(transport.was_reset)

    def test_our_sleep_is_not_idleness(self) -> None:
        """A timer that fires late by more than a busy reactor explains closes nobody: it was we who slept."""
        rig = self.rig(idle_timeout_seconds=10.0)
        transport = rig.connect()
        rig.clock.advance(100)
        rig.turn()
        self.assertFalse(transport.was_reset)
        rig.turn(11)
        self.assertEqual(self.closed(rig), {"idle": 1})

    def test_our_sleep_is_in_no_frame(self) -> None:
        """Nor does a record's deadline count the time that we slept, whenever the record was begun."""
        rig = self.rig(idle_timeout_seconds=None)
        early = rig.send(b"half")
        rig.clock.advance(100)
        late = rig.send(b"half")
        rig.factory.forgive(99)
        rig.turn(29)
        self.assertEqual((early.was_reset, late.was_reset), (False, False))
        rig.turn(3)
        self.assertEqual((early.was_reset, late.was_reset), (True, True))
        self.assertEqual(self.closed(rig), {"frame_deadline": 2})

    def test_our_sleep_is_in_no_close(self) -> None:
        """Nor does the deadline of a close in good order."""
        rig = self.rig()
        transport = rig.connect()
        connection = protocol_of(transport)
        transport.disconnecting = True  # as a real transport whose peer takes nothing
        connection.close(CloseReason.LOCAL, reset=False)
        rig.clock.advance(100)
        rig.factory.forgive(99)
        rig.factory.sweep(rig.clock.seconds())
        self.assertFalse(transport.was_reset)
        rig.turn(5)
        self.assertTrue(transport.was_reset)

    def test_pause_is_not_idleness(self) -> None:
        """Time in which we did not read counts neither as idleness nor towards the frame deadline."""
        sink = StalledSink()
        rig = self.rig(sink, connection_memory=64 * KIB, idle_timeout_seconds=10.0, idle_until_first_record=False)
        transport = rig.send(b"one\nhalf")
        self.assertFalse(transport.reading)
        rig.turn(1000)
        self.assertFalse(transport.was_reset)
        sink.release()
        self.assertTrue(transport.reading)
        rig.turn(9)
        self.assertFalse(transport.was_reset)
        self.assertEqual(round(protocol_of(transport).paused_seconds_now()), 1000)
        rig.turn(2)
        self.assertEqual(self.closed(rig), {"idle": 1})

    def test_frame_deadline(self) -> None:
        """A record that drips in is ended by its own deadline: delivered as far as it came, then a reset."""
        rig = self.rig(idle_timeout_seconds=None)
        transport = rig.send(b"whole\n")
        for _ in range(40):
            transport.peer_sends(b"x")
            transport.pump()
            rig.turn(1)
        self.assertTrue(transport.was_reset)
        self.assertEqual(self.closed(rig), {"frame_deadline": 1})
        self.assertEqual(rig.sink.records[0], b"whole")
        self.assertEqual(set(rig.sink.records[1]), {ord("x")})
        self.assertTrue(rig.sink.batches[1].partial)

    def test_each_record_has_its_own_deadline(self) -> None:
        """A peer that ends records in time is never cut off, though it is never between records."""
        rig = self.rig(idle_timeout_seconds=None)
        transport = rig.connect()
        for _ in range(50):
            transport.peer_sends(b"half\nhalf")
            transport.pump()
            rig.turn(20)
        self.assertFalse(transport.was_reset)

    def test_frame_deadline_after_a_stall_of_ours(self) -> None:
        """After a stall of the reactor the rest of a record that waits in the kernel is read, once."""
        rig = self.rig(idle_timeout_seconds=None)
        transport = rig.send(b"begun ")
        rig.clock.advance(100)
        transport.peer_sends(b"and ended\n")
        rig.factory.sweep(rig.clock.seconds())
        transport.pump()
        rig.turn(5)
        self.assertEqual(rig.sink.records, [b"begun and ended"])
        self.assertFalse(transport.was_reset)

    def test_flood_without_end_meets_the_deadline(self) -> None:
        """A peer whose endless record always has bytes waiting gets one second of grace, not for ever."""
        rig = self.rig(idle_timeout_seconds=None)
        transport = rig.connect()
        for _ in range(40):
            transport.peer_sends(b"x" * 1000)
            transport.pump(reads=1, chunk_size=500)
            rig.turn(1)
        self.assertTrue(transport.was_reset)


class PressureTests(ProtocolCase):
    def test_nothing_is_read_above_the_mark(self) -> None:
        """With the sink stalled, what is held stays below the budget and the rest stays with the sender."""
        sink = StalledSink()
        rig = self.rig(sink, memory=1024 * KIB, connection_memory=256 * KIB)
        transports = [rig.connect() for _ in range(10)]
        for transport in transports:
            transport.peer_sends(b"a line of text\n" * 20_000)
        for _ in range(20):
            for transport in transports:
                transport.pump(reads=1)
            rig.turn(0.01)
            self.assertLessEqual(rig.intake.budget.used, rig.intake.budget.limit)
        self.assertFalse(any(transport.reading for transport in transports))
        for _ in range(400):
            sink.release(1)
            rig.turn(0.01)
            for transport in transports:
                transport.pump(reads=1)
        self.assertEqual(len(sink.records), 200_000)

    def test_half_lines_cannot_wedge(self) -> None:
        """Unfinished records of many peers leave room: the oldest are given up, a good peer gets through."""
        rig = self.rig(memory=1024 * KIB, connection_memory=256 * KIB)
        for port in range(100):
            transport = rig.connect(port=port + 1)
            transport.peer_sends(b"x" * 30_000)
            transport.pump()
            rig.turn(0.01)
        self.assertLessEqual(rig.intake.budget.partials, 256 * KIB)
        rig.send(b"good\n")
        self.assertEqual(rig.sink.records[-1], b"good")
        self.assertGreater(rig.factory.ledger.records_truncated, 80)


SCHEDULE = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 3), st.sampled_from([b"a\n", b"bb", b"\n", b"c" * 300, b"d\r\ne\n"])),
        st.tuples(st.just("pump"), st.integers(0, 3), st.integers(1, 400)),
        st.tuples(st.sampled_from(["fin", "rst"]), st.integers(0, 3), st.just(0)),
        st.tuples(st.sampled_from(["turn", "second", "release", "release one"]), st.just(0), st.just(0)),
    ),
    max_size=50,
)


class SchedulePropertyTests(ProtocolCase):
    @settings(max_examples=150, deadline=None)
    @given(SCHEDULE, st.sampled_from(Oversize))
    def test_any_schedule(self, schedule: list[tuple[str, int, Any]], policy: Oversize) -> None:
        """After every step everything is accounted for; in the end every record is delivered or counted."""
        sink = StalledSink()
        rig = Rig(sink, memory=16 * KIB, connection_memory=4 * KIB, max_record_bytes=200, oversize=policy)
        transports = [rig.connect(port=port + 1) for port in range(4)]
        for action, which, value in schedule:
            transport = transports[which]
            if action == "send":
                transport.peer_sends(value)
            elif action == "pump":
                transport.pump(value, 1)
            elif action == "fin":
                transport.peer_closes()
            elif action == "rst":
                transport.peer_resets()
            elif action == "turn":
                rig.turn()
            elif action == "second":
                rig.turn(1)
            else:
                sink.release(1 if action == "release one" else None)
            self.check(rig)
        for _ in range(50):
            rig.turn(0.1)
            sink.release()
            for transport in transports:
                transport.peer_closes()
                transport.pump()
        ledger = rig.factory.ledger
        self.assertEqual(len(sink.records) + sum(ledger.records_dropped.values()), ledger.records_framed)
        self.assertEqual((rig.intake.budget.used, rig.factory.connections), (0, {}))
        self.assertEqual(rig.clock.getDelayedCalls(), [])
        self.check(rig)
