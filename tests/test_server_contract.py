"""
What a subclass of `IngestProtocol` may count on, as one of `LineReceiver` and of `TimeoutMixin`.

The cases are those of Twisted's own tests of the two, as far as they can hold; what cannot must say so.
"""

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.protocols.basic import LineReceiver

from tests.test_server_protocol import ProtocolCase, protocol_of
from twisted_ingest.errors import DiscardReason, Framing, Oversize
from twisted_ingest.limits import CLOSE_TIMEOUT, KIB, READ_SIZE
from twisted_ingest.server.protocol import IngestProtocol
from twisted_ingest.server.relp import RelpProtocol
from twisted_ingest.testing import PumpTransport, Rig, StalledSink


class Commanded(IngestProtocol):
    """Does what its lines say; remembers them."""

    delimiter = b"\n"
    MAX_LENGTH = 64

    def connectionMade(self) -> None:
        """Begin."""
        super().connectionMade()
        self.received: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        """Remember, and do."""
        assert not self.paused, "a line while paused"
        self.received.append(line)
        if line == b"pause":
            self.pauseProducing()
            self._clock.callLater(0, self.resumeProducing)
        elif line == b"stop":
            self.stopProducing()
        elif line == b"lose":
            self.transport.loseConnection()
        elif line == b"abort":
            self.transport.abortConnection()
        elif line == b"resume":
            self.resumeProducing()
        elif line == b"echo":
            self.sendLine(line)
        elif line == b"more":
            self.dataReceived(b"extra\n")


class ContractCase(ProtocolCase):
    def connect(self, protocol: type[IngestProtocol] = Commanded, **options: Any) -> tuple[Rig, PumpTransport, Any]:
        rig = self.rig(protocol=protocol, **options)
        transport = rig.connect()
        return rig, transport, protocol_of(transport)

    def say(self, rig: Rig, transport: PumpTransport, text: bytes, size: int = READ_SIZE) -> None:
        """Send in pieces, reading each as far as the server does."""
        for begin in range(0, len(text), size):
            transport.peer_sends(text[begin : begin + size])
            transport.pump()


class LineTests(ContractCase):
    def test_any_size_of_chunk(self) -> None:
        """Lines are the same for every size of chunk."""
        for size in range(1, 10):
            rig, transport, protocol = self.connect()
            self.say(rig, transport, b"twiddle\nand another\r\nlast\n", size)
            self.assertEqual(protocol.received, [b"twiddle", b"and another", b"last"])

    def test_pause_inside_a_line(self) -> None:
        """No line comes after the one that paused until the resume, whatever the size of the chunks."""
        for size in range(1, 20):
            rig, transport, protocol = self.connect()
            self.say(rig, transport, b"one\ntwo\npause\nthree\n", size)
            self.assertEqual(protocol.received, [b"one", b"two", b"pause"])
            rig.turn()
            transport.pump()
            self.assertEqual(protocol.received, [b"one", b"two", b"pause", b"three"])

    def test_resume_inside_a_line(self) -> None:
        """A resume inside a line, with a pause before it or without, gives each line once."""
        rig, transport, protocol = self.connect()
        self.say(rig, transport, b"resume\none\nresume\nresume\ntwo\n")
        self.assertEqual(protocol.received, [b"resume", b"one", b"resume", b"resume", b"two"])
        self.assertTrue(transport.reading)

    def test_ends(self) -> None:
        """No line comes after the one that ended the connection; the sinks have the whole chunk."""
        for word in (b"stop", b"lose", b"abort"):
            for size in range(1, 20):
                rig, transport, protocol = self.connect()
                self.say(rig, transport, b"one\ntwo\n" + word + b"\nmore\nlast\nhalf", size)
                rig.turn()
                self.assertEqual(protocol.received, [b"one", b"two", word])
                self.assertEqual(rig.sink.records[:3], [b"one", b"two", word])
                self.assertEqual(self.closed(rig), {"local": 1})
            rig, transport, protocol = self.connect()
            self.say(rig, transport, b"one\n" + word + b"\nlast\nhalf")
            protocol.resumeProducing()
            rig.turn()
            protocol.resumeProducing()
            self.assertEqual(protocol.received, [b"one", word])
            self.assertEqual(rig.sink.records, [b"one", word, b"last", b"half"])

    def test_data_from_inside_a_line(self) -> None:
        """``dataReceived`` inside a line comes after what was read before it."""
        rig, transport, protocol = self.connect()
        self.say(rig, transport, b"more\nthen\n")
        self.assertEqual(protocol.received, [b"more", b"then", b"extra"])

    def test_data_while_paused(self) -> None:
        """What a transport brings in spite of a pause waits for the resume."""

        class Consuming(Commanded):
            def lineReceived(self, line: bytes) -> None:
                super().lineReceived(line)
                self.pauseProducing()

        _, transport, protocol = self.connect(Consuming)
        protocol.dataReceived(b"hello, ")
        self.assertTrue(transport.reading)
        protocol.dataReceived(b"world\n")
        self.assertEqual((protocol.received, transport.reading), ([b"hello, world"], False))
        protocol.resumeProducing()
        self.assertTrue(transport.reading)
        protocol.dataReceived(b"a\nb\n")
        protocol.dataReceived(b"c\n")
        for expected in (b"a", b"b", b"c"):
            self.assertEqual((protocol.received[-1], transport.reading), (expected, False))
            protocol.resumeProducing()
        self.assertEqual((len(protocol.received), transport.reading), (4, True))

    def test_many_lines_do_not_recurse(self) -> None:
        """A subclass that pauses and resumes in every line needs no deeper stack for more of them."""

        class Flipping(Commanded):
            def lineReceived(self, line: bytes) -> None:
                super().lineReceived(line)
                self.pauseProducing()
                self.resumeProducing()

        rig, transport, protocol = self.connect(Flipping)
        self.say(rig, transport, b"x\n" * 3000)
        self.assertEqual(protocol.received, [b"x"] * 3000)

    def test_answers(self) -> None:
        """``sendLine`` ends a line with the delimiter."""
        for delimiter in (b"\n", b"\0"):
            protocol = type("Answering", (Commanded,), {"delimiter": delimiter})
            rig, transport, _ = self.connect(protocol)
            self.say(rig, transport, b"echo" + delimiter)
            self.assertEqual(transport.written, b"echo" + delimiter)

    def test_as_a_producer(self) -> None:
        """The protocol may be the producer of its own transport; the end of its peer stays the peer's."""
        rig, transport, protocol = self.connect()
        transport.registerProducer(protocol, True)
        self.say(rig, transport, b"one\n")
        transport.producer.pauseProducing()
        self.say(rig, transport, b"two\n")
        self.assertEqual(protocol.received, [b"one"])
        transport.producer.resumeProducing()
        transport.peer_closes()
        transport.pump()
        self.assertEqual((protocol.received, self.closed(rig)), ([b"one", b"two"], {"eof": 1}))

    def test_not_overridden(self) -> None:
        """Without a ``lineReceived`` of one's own there is none, and nothing is kept for it."""
        _, _, protocol = self.connect(IngestProtocol)
        protocol.pauseProducing()
        protocol.dataReceived(b"one\n")
        self.assertRaises(NotImplementedError, protocol.lineReceived, b"x")
        self.assertEqual(protocol._owed.count, 0)

    def test_what_cannot_be_kept(self) -> None:
        """Raw mode and the buffer raise, and name what to do; nothing is silently ignored."""
        _, _, protocol = self.connect()
        for call, words in (
            (protocol.setRawMode, "octet-counted or nul"),
            (protocol.setLineMode, "octet-counted or nul"),
            (lambda: protocol.rawDataReceived(b""), "octet-counted or nul"),
            (protocol.clearLineBuffer, "return early from lineReceived"),
        ):
            self.assertIn(words, str(self.assertRaises(NotImplementedError, call)))

    def test_an_outcome(self) -> None:
        """A line method that returns something, or is a coroutine, ends its connection with what to do instead."""

        async def coroutine(self: Commanded, line: bytes) -> None:
            """Never runs."""

        def deferred(self: Commanded, line: bytes) -> "Deferred[None]":
            return Deferred()

        for method, words in ((coroutine, "Deferred.fromCoroutine"), (deferred, "self.pauseProducing()")):
            rig, transport, _ = self.connect(type("Returning", (IngestProtocol,), {"lineReceived": method}))
            self.say(rig, transport, b"one\ntwo\n")
            rig.turn()
            (failure,) = self.flushLoggedErrors(TypeError)
            self.assertIn(words, str(failure.value))
            self.assertEqual((self.closed(rig), rig.sink.records), ({"internal_error": 1}, [b"one", b"two"]))

    def test_a_line_that_raises(self) -> None:
        """Nothing comes after a line that raised, though the protocol is resumed."""

        class Broken(Commanded):
            def lineReceived(self, line: bytes) -> None:
                super().lineReceived(line)
                if line == b"bug":
                    self.pauseProducing()
                    raise ZeroDivisionError

        rig, transport, protocol = self.connect(Broken)
        self.say(rig, transport, b"one\nbug\ntwo\n")
        protocol.resumeProducing()
        rig.turn()
        protocol.resumeProducing()
        self.assertEqual(protocol.received, [b"one", b"bug"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.closed(rig), {"internal_error": 1})


class DeclarationTests(ContractCase):
    def test_delimiter(self) -> None:
        """A class's delimiter frames, whatever else ``auto`` would have seen."""
        for delimiter, text, lines in (
            (b"\n", b"5 <1>ab\n<1>a\0<1>b\n", [b"5 <1>ab", b"<1>a\0<1>b"]),
            (b"\0", b"one\ntwo\0three\0", [b"one\ntwo", b"three"]),
        ):
            protocol: type[Any] = type("Mine", (Commanded,), {"delimiter": delimiter})
            self.assertEqual(protocol.delimiter, delimiter)
            for size in (1, 3, 100):
                rig, transport, made = self.connect(protocol)
                self.say(rig, transport, text, size)
                self.assertEqual((made.received, made.delimiter), (lines, delimiter))

    def test_left_to_the_listener(self) -> None:
        """A class that declares nothing has the framing and the length of its listener."""

        class Plain(IngestProtocol):
            pass

        _, _, protocol = self.connect(Plain, framing=Framing.NUL, max_record_bytes=99)
        self.assertEqual((Plain.delimiter, Plain.MAX_LENGTH), (None, None))
        self.assertEqual((protocol.delimiter, protocol.MAX_LENGTH), (b"\0", 99))

    def test_maximum_length(self) -> None:
        """A line of exactly ``MAX_LENGTH`` is one, in any cut; a longer one is told and dealt with by the policy."""

        class Short(Commanded):
            MAX_LENGTH = 4

            def lineLengthExceeded(self, line: bytes) -> None:
                self.received.append(b"exceeded " + line)

        for size in (1, 2, 5, 100):
            rig, transport, protocol = self.connect(Short, max_record_bytes=1000, oversize=Oversize.DROP)
            self.say(rig, transport, b"xxxx\nxxxx\r\n", size)
            self.assertEqual(protocol.received, [b"xxxx", b"xxxx"])
            self.say(rig, transport, b"12345\nok\n")
            self.assertEqual(sorted(protocol.received[2:]), [b"exceeded 1234", b"ok"])
        rig, transport, protocol = self.connect(Short, max_record_bytes=2)
        self.say(rig, transport, b"1234\n")
        self.assertEqual(protocol.received, [b"1234"])

    def test_losing_on_a_long_line(self) -> None:
        """As in Twisted: a ``lineLengthExceeded`` that ends the connection has had the lines before it."""

        class Strict(Commanded):
            def lineLengthExceeded(self, line: bytes) -> None:
                self.received.append(b"exceeded")
                self.transport.loseConnection()

        rig, transport, protocol = self.connect(Strict, oversize=Oversize.DROP)
        self.say(rig, transport, b"one\n" + b"x" * 65 + b"\n" + b"x" * 65 + b"\n")
        rig.turn()
        self.assertEqual((protocol.received, self.closed(rig)), ([b"one", b"exceeded"], {"local": 1}))

    def test_set_as_it_begins(self) -> None:
        """Both may be set until the first byte, and afterwards only to what they are; else they raise."""

        class Late(Commanded):
            def connectionMade(self) -> None:
                super().connectionMade()
                self.delimiter = b"\0"
                self.MAX_LENGTH = 5

        rig, transport, protocol = self.connect(Late)
        self.say(rig, transport, b"a\nb\x00123456\0")
        self.assertEqual((protocol.received, protocol.MAX_LENGTH), ([b"a\nb", b"12345"], 5))
        protocol.MAX_LENGTH = 5
        for name, value in (("MAX_LENGTH", 6), ("delimiter", b"\n")):
            problem = self.assertRaises(RuntimeError, setattr, protocol, name, value)
            self.assertIn("set it in the class, or in connectionMade", str(problem))

    def test_set_too_early(self) -> None:
        """An ``__init__`` that sets one before it has called its base is told so."""

        class Early(IngestProtocol):
            def __init__(self, *arguments: Any) -> None:
                self.MAX_LENGTH = 5
                super().__init__(*arguments)

        rig = self.rig(protocol=Early)
        self.assertRaises(ConnectionRefusedError, rig.connect)
        (failure,) = self.flushLoggedErrors(RuntimeError)
        self.assertIn("call super().__init__ first", str(failure.value))

    def test_what_no_class_may_declare(self) -> None:
        """A delimiter or length that cannot be kept is an error where the class is made, used, or overruled."""
        for name, value, words in (
            ("delimiter", b"\r\n", "set b'\\n', which ends lines at LF and at CRLF"),
            ("delimiter", b";", "leave it out"),
            ("delimiter", "\n", "leave it out"),
            ("delimiter", b"", "leave it out"),
            ("MAX_LENGTH", 0, "1 or more"),
            ("MAX_LENGTH", True, "1 or more"),
            ("MAX_LENGTH", "64KiB", "1 or more"),
        ):
            problem = self.assertRaises(ValueError, type, "Bad", (IngestProtocol,), {name: value})
            self.assertIn(words, str(problem))
            self.assertIn(f"Bad.{name}", str(problem))
            changed = type("Changed", (IngestProtocol,), {})
            setattr(changed, name, value)
            self.assertRaises(ValueError, Rig, protocol=changed)
            _, _, protocol = self.connect()
            self.assertRaises(ValueError, setattr, protocol, name, value)

    def test_changed_afterwards(self) -> None:
        """What is set in a class later holds from when the class is given to the listener."""
        changed: type[Any] = type("Changed", (Commanded,), {})
        changed.delimiter = b"\0"
        rig, transport, protocol = self.connect(changed)
        self.say(rig, transport, b"a\nb\0")
        self.assertEqual(protocol.received, [b"a\nb"])
        self.assertRaises(RuntimeError, setattr, protocol, "delimiter", b"\n")

    def test_inherited(self) -> None:
        """A mixin's delimiter counts, and a grandchild's overrules its parent's."""

        class Mixin:
            delimiter = b"\0"

        class Mixed(Mixin, IngestProtocol):
            pass

        class Again(Mixed):
            delimiter = b"\n"

        self.assertEqual((Mixed.delimiter, Again.delimiter), (b"\0", b"\n"))
        self.assertEqual(self.connect(Mixed)[2].delimiter, b"\0")
        self.assertEqual(self.connect(Again)[2].delimiter, b"\n")

    def test_against_the_listener(self) -> None:
        """A delimiter against a framing that was chosen, or a length that does not fit, is refused, with the fix."""
        for framing in (Framing.OCTET_COUNTED, Framing.NUL):
            problem = self.assertRaises(ValueError, Rig, protocol=Commanded, framing=framing)
            self.assertIn("set its framing to newline or auto, or leave the delimiter out", str(problem))
        Rig(protocol=Commanded, framing=Framing.NEWLINE)
        long = type("Long", (IngestProtocol,), {"MAX_LENGTH": 1000 * KIB})
        problem = self.assertRaises(ValueError, Rig, protocol=long, connection_memory=256 * KIB)
        self.assertIn(f"set MAX_LENGTH to {256 * KIB - READ_SIZE} at most", str(problem))
        _, _, protocol = self.connect(IngestProtocol, connection_memory=256 * KIB)
        self.assertRaises(ValueError, setattr, protocol, "MAX_LENGTH", 1000 * KIB)

    def test_of_what_kind(self) -> None:
        """A listener of one protocol takes no class of another."""
        problem = self.assertRaises(TypeError, Rig, protocol=Commanded, wire="relp")
        self.assertIn("a subclass of RelpProtocol", str(problem))


class PauseTests(ContractCase):
    def test_the_lane_does_not_resume_a_subclass(self) -> None:
        """Room in the lane resumes nobody who has paused himself, and the other way round."""
        sink = StalledSink()
        rig, transport, protocol = self.connect_to(sink)
        protocol.pauseProducing()
        protocol.dataReceived(b"one\n")
        self.assertTrue(protocol.lane.is_paused)
        rig.turn()
        sink.release()
        self.assertFalse(protocol.lane.is_paused)
        self.assertEqual((protocol.received, transport.reading), ([], False))
        protocol.resumeProducing()
        self.assertEqual((protocol.received, transport.reading), ([b"one"], True))

    def test_a_subclass_does_not_resume_the_lane(self) -> None:
        """A subclass that pauses and resumes while the sinks are behind is not read from before they have caught up."""
        sink = StalledSink()
        rig, transport, protocol = self.connect_to(sink)
        transport.peer_sends(b"one\n")
        transport.pump()
        protocol.pauseProducing()
        protocol.resumeProducing()
        self.assertEqual((protocol.received, transport.reading), ([], False))
        rig.turn()
        sink.release()
        self.assertEqual((protocol.received, transport.reading), ([b"one"], True))

    def connect_to(self, sink: StalledSink) -> tuple[Rig, PumpTransport, Any]:
        """Connect to a server whose lanes pause with each batch."""
        rig = self.rig(sink, protocol=Commanded, connection_memory=64 * KIB)
        transport = rig.connect()
        return rig, transport, protocol_of(transport)

    def test_eviction(self) -> None:
        """A paused subclass gets what was left of an evicted record in its place, and all behind it."""
        rig, transport, protocol = self.connect()
        self.say(rig, transport, b"pause\none\nhalf")
        protocol.evict_partial()
        self.assertEqual(protocol.received, [b"pause"])
        rig.turn()
        transport.peer_sends(b" of it\nlast\n")
        transport.pump()
        self.assertEqual(protocol.received, [b"pause", b"one", b"half", b"last"])


class EndTests(ContractCase):
    def hold(self) -> tuple[Rig, PumpTransport, Any]:
        """Connect a subclass that pauses with its first line, with more behind it."""

        class Holding(Commanded):
            def lineReceived(self, line: bytes) -> None:
                super().lineReceived(line)
                if line == b"hold":
                    self.pauseProducing()

        rig, transport, protocol = self.connect(Holding)
        self.say(rig, transport, b"hold\none\ntwo\nhalf")
        return rig, transport, protocol

    def test_peer_closes_while_paused(self) -> None:
        """The end of the peer comes after the lines a paused subclass has yet to be given, and after its resume."""
        rig, transport, protocol = self.hold()
        transport.peer_closes()
        rig.turn(3)
        self.assertEqual((protocol.received, len(rig.factory.connections)), ([b"hold"], 1))
        protocol.resumeProducing()
        transport.pump()
        self.assertEqual(protocol.received, [b"hold", b"one", b"two", b"half"])
        self.assertEqual(self.closed(rig), {"eof": 1})

    def test_peer_closes_with_nothing_owed(self) -> None:
        """A pause does not keep a connection whose peer is gone and of which nothing is left."""
        rig, transport, protocol = self.connect()
        self.say(rig, transport, b"one\n")
        protocol.pauseProducing()
        transport.peer_closes()
        rig.turn(1)
        self.assertEqual(self.closed(rig), {"eof": 1})

    def test_stop_of_the_server(self) -> None:
        """At the end of a stop a subclass that never resumed is given what is left, once, paused or not."""
        rig, transport, protocol = self.connect(_Patient)
        self.say(rig, transport, b"hold\none\ntwo\nhalf")
        stopped = rig.drain(1)
        rig.turn(1)
        rig.turn(1)
        self.successResultOf(stopped)
        self.assertEqual(protocol.received, [b"hold", b"one", b"two", b"half"])
        protocol.resumeProducing()
        self.assertEqual((len(protocol.received), rig.clock.getDelayedCalls()), (4, []))
        self.assertEqual(self.closed(rig), {"drain": 1})

    def test_reset_while_paused(self) -> None:
        """Of a connection that is lost whole lines are given, the half one is counted."""
        rig, transport, protocol = self.connect(_Patient)
        self.say(rig, transport, b"hold\none\nlose\ntwo\nhalf")
        transport.peer_resets()
        transport.notice_end()
        self.assertEqual(protocol.received, [b"hold", b"one", b"lose"])
        self.assertEqual(rig.factory.ledger.bytes_discarded[DiscardReason.RESET], 4)
        self.assertEqual(self.closed(rig), {"reset": 1})

    def test_oversize_close_while_paused(self) -> None:
        """A close for a reason of ours takes no line that came before it."""
        rig, transport, protocol = self.connect(_Patient, oversize=Oversize.CLOSE)
        self.say(rig, transport, b"hold\none\n" + b"x" * 100)
        rig.turn()
        self.assertEqual((protocol.received, self.closed(rig)), ([b"hold", b"one"], {"oversize": 1}))

    def test_a_close_that_hangs(self) -> None:
        """A close that a subclass asked for has a deadline as ours have."""
        for end in ("loseConnection", "stopProducing"):
            rig, transport, protocol = self.connect()
            transport._lose = lambda reason: None  # type: ignore[method-assign]
            (transport.loseConnection if end == "loseConnection" else protocol.stopProducing)()
            rig.turn(1 + CLOSE_TIMEOUT)
            self.assertTrue(transport.was_reset)
            del transport._lose
            transport._lose(Exception())


class _Patient(Commanded):
    """Pauses with a word, and never resumes."""

    def lineReceived(self, line: bytes) -> None:
        self.received.append(line)
        if line == b"hold":
            self.pauseProducing()
        elif line == b"lose":
            self.transport.loseConnection()


class TimeoutTests(ContractCase):
    """As Twisted's tests of `TimeoutMixin` have it."""

    class Timed(Commanded):
        """Times out by itself."""

        timeOut = 3
        timed_out = 0

        def connectionMade(self) -> None:
            """Begin to wait."""
            super().connectionMade()
            self.setTimeout(self.timeOut)

        def lineReceived(self, line: bytes) -> None:
            """Wait on."""
            super().lineReceived(line)
            self.resetTimeout()

        def timeoutConnection(self) -> None:
            """Note it."""
            self.timed_out += 1

    def pump(self, rig: Rig, seconds: Sequence[float]) -> None:
        for step in seconds:
            rig.turn(step)

    def test_timeout(self) -> None:
        """It ends when it says, once; the listener's idle timeout does not count any more."""
        rig, _, protocol = self.connect(self.Timed, idle_timeout_seconds=1.0)
        self.pump(rig, [0.5, 0.9, 0.9, 0.6])
        self.assertEqual(protocol.timed_out, 0)
        self.pump(rig, [0.2, 10, 10])
        self.assertEqual(protocol.timed_out, 1)

    def test_reset(self) -> None:
        """``resetTimeout`` begins it anew, and does nothing once it is over or was cancelled."""
        rig, transport, protocol = self.connect(self.Timed)
        for _ in range(5):
            self.pump(rig, [0.9, 0.9, 0.9])
            self.say(rig, transport, b"line\n")
        self.assertEqual(protocol.timed_out, 0)
        rig.clock.advance(3)
        self.assertEqual(protocol.timed_out, 1)
        protocol.resetTimeout()
        protocol.setTimeout(None)
        protocol.resetTimeout()
        rig.turn(100)
        self.assertEqual((protocol.timed_out, rig.clock.getDelayedCalls()), (1, []))

    def test_bytes_alone_do_not_reset(self) -> None:
        """Whatever else comes moves a subclass's own timeout no more than in Twisted."""
        rig, transport, protocol = self.connect(self.Timed)
        for _ in range(3):
            self.say(rig, transport, b"x")
            rig.clock.advance(1)
        self.assertEqual(protocol.timed_out, 1)

    def test_set_gives_the_former(self) -> None:
        """``setTimeout`` returns what was set before."""
        _, _, protocol = self.connect()
        self.assertEqual([protocol.setTimeout(period) for period in (10, None, 1, None)], [None, 10, None, 1])
        self.assertIsNone(protocol.timeOut)

    def test_cancel(self) -> None:
        """``None`` cancels, also the listener's timeout, also a call that was cancelled elsewhere."""
        rig, transport, protocol = self.connect(idle_timeout_seconds=5.0)
        protocol.setTimeout(None)
        rig.turn(100)
        self.assertFalse(transport.was_reset)
        protocol.setTimeout(3)
        rig.clock.getDelayedCalls()[0].cancel()
        protocol.setTimeout(None)
        self.assertIsNone(protocol.timeOut)

    def test_call_later(self) -> None:
        """Time comes from the server's clock, by ``callLater``, which a subclass may override."""
        periods: list[float] = []

        class Noting(Commanded):
            def callLater(self, period: float, func: Callable[[], None]) -> IDelayedCall:
                periods.append(period)
                return super().callLater(period, func)

        rig, _, protocol = self.connect(Noting, idle_timeout_seconds=None)
        protocol.setTimeout(10)
        self.assertEqual((periods, [call.getTime() for call in rig.clock.getDelayedCalls()]), ([10], [10.0]))

    def test_set_before_the_base(self) -> None:
        """A timeout set before the base class has begun is not overruled by it, nor by the first record."""

        class Early(Commanded):
            def connectionMade(self) -> None:
                self.setTimeout(3)
                super().connectionMade()

        rig, transport, _ = self.connect(Early)
        self.say(rig, transport, b"line\n")
        rig.turn(2)
        self.assertFalse(transport.was_reset)
        rig.turn(2)
        self.assertEqual(self.closed(rig), {"idle": 1})

    def test_pause(self) -> None:
        """Time in which nothing is read does not count; what was set or cancelled meanwhile holds afterwards."""
        rig, _, protocol = self.connect(self.Timed)
        protocol.pauseProducing()
        rig.turn(100)
        protocol.resumeProducing()
        rig.clock.advance(2.9)
        self.assertEqual(protocol.timed_out, 0)
        protocol.pauseProducing()
        protocol.setTimeout(5)
        protocol.resumeProducing()
        rig.clock.advance(4.9)
        self.assertEqual(protocol.timed_out, 0)
        protocol.pauseProducing()
        protocol.setTimeout(None)
        protocol.resumeProducing()
        rig.turn(100)
        self.assertEqual(protocol.timed_out, 0)

    def test_waiting_bytes(self) -> None:
        """Bytes that wait in the kernel are read first, once."""
        rig, transport, protocol = self.connect(self.Timed)
        transport.peer_sends(b"in time\n")
        rig.clock.advance(3)
        transport.pump()
        rig.turn(0.5)
        self.assertEqual(protocol.timed_out, 0)
        transport.peer_sends(b"never read")
        rig.clock.advance(3)
        self.assertEqual(protocol.timed_out, 0)
        rig.turn(0.5)
        self.assertEqual(protocol.timed_out, 1)

    def test_after_the_end(self) -> None:
        """Nothing set after the end of a connection runs."""
        rig, transport, protocol = self.connect(self.Timed)
        transport.peer_closes()
        transport.pump()
        protocol.setTimeout(3)
        self.assertEqual(rig.clock.getDelayedCalls(), [])


class SessionTests(ContractCase):
    def test_a_session_is_no_line_receiver(self) -> None:
        """What a class declares as a `LineReceiver` would be in vain for RELP: it is refused, with what to do."""
        self.assertFalse(issubclass(RelpProtocol, LineReceiver))
        vain: dict[str, Any] = {"lineReceived": lambda _, line: None, "delimiter": b"\0", "MAX_LENGTH": 5}
        for name, value in vain.items():
            declared = type("Declared", (RelpProtocol,), {name: value})
            problem = self.assertRaises(TypeError, Rig, protocol=declared, wire="relp")
            self.assertIn(f"Declared.{name}", str(problem))
            self.assertIn("add a sink of your own", str(problem))


# Against Twisted's own.

Act = Callable[[Any], None]

ACTS: dict[str, Act] = {
    "nothing": lambda protocol: None,
    "pause": lambda protocol: protocol.pauseProducing(),
    "resume": lambda protocol: protocol.resumeProducing(),
    "lose": lambda protocol: protocol.transport.loseConnection(),
    "abort": lambda protocol: protocol.transport.abortConnection(),
    "stop": lambda protocol: protocol.stopProducing(),
}


def scripted(base: type[Any], script: Sequence[Sequence[str]]) -> type[Any]:
    """Make a class that does with its lines what the script says, one entry a line."""

    def made(self: Any) -> None:
        base.connectionMade(self)
        self.received = []

    def received(self: Any, line: bytes) -> None:
        assert not self.paused or self._is_lost, "a line while paused"
        self.received.append(line)
        if len(self.received) <= len(script):
            for act in script[len(self.received) - 1]:
                ACTS[act](self)

    return type("Scripted", (base,), {"delimiter": b"\n", "connectionMade": made, "lineReceived": received})


class PlainTransport(PumpTransport):
    """What Twisted's class needs; a reset ends the lines as a close does, which a real transport leaves to luck."""

    def abortConnection(self) -> None:
        """Reset, and say so."""
        super().abortConnection()
        self.disconnecting = True

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()


QUIET = st.sampled_from([["nothing"], ["nothing"], ["pause"], ["resume"], ["pause", "resume"], ["pause", "resume"] * 2])
FINAL = st.sampled_from(
    [["lose"], ["abort"], ["stop"], ["pause", "lose"], ["lose", "resume"], ["pause", "lose", "resume"]]
)
SCRIPT = st.lists(QUIET, max_size=12) | st.tuples(st.lists(QUIET, max_size=6), FINAL).map(lambda two: [*two[0], two[1]])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 5)),
        st.tuples(st.just("read"), st.integers(1, 12)),
        st.tuples(st.sampled_from(["resume", "pause", "turn", "sweep", "close"]), st.just(0)),
    ),
    max_size=30,
)


class Side:
    """One of two servers that are told the same."""

    def __init__(self, clock: Clock, transport: PumpTransport, turn: Callable[[float], None]) -> None:
        self.clock = clock
        self.transport = transport
        self.turn = turn
        self.protocol = transport._protocol
        self.sent = 0

    def step(self, action: str, amount: int) -> None:
        """Do one step; nothing but time touches a connection that has been ended."""
        transport = self.transport
        over = transport.disconnecting or transport.was_reset or not transport.connected
        if action == "send" and transport.has_hung_up():
            return
        if action in ("turn", "sweep"):
            self.turn(1 if action == "sweep" else 0)
        elif action == "send":
            for _ in range(amount):
                self.sent += 1
                transport.peer_sends(b"line %d\n" % self.sent)
        elif action == "close":
            transport.peer_closes()
        elif not over and action == "read":
            transport.pump(amount, 1)
        elif not over:
            ACTS[action](self.protocol)

    def finish(self) -> None:
        """Resume and read until all has come."""
        for _ in range(200):
            self.step("resume", 0)
            self.step("read", 1000)
            self.step("turn", 0)


class ReferenceTests(ContractCase):
    @settings(max_examples=300, deadline=None)
    @given(SCRIPT, STEPS)
    def test_any_script(self, script: list[list[str]], steps: list[tuple[str, int]]) -> None:
        """
        Whatever a subclass does inside its lines, in any cut: the lines Twisted gives, in order, none twice.

        At each moment, not in the end alone: none comes earlier, none later.
        """
        rig = Rig(protocol=scripted(IngestProtocol, script))
        ours = Side(rig.clock, rig.connect(), rig.turn)
        clock = Clock()
        reference = PlainTransport(clock)
        reference.connect(scripted(LineReceiver, script)())
        theirs = Side(clock, reference, clock.advance)
        for action, amount in steps:
            ours.step(action, amount)
            theirs.step(action, amount)
            self.assertEqual(ours.protocol.received, theirs.protocol.received)
            self.check(rig)
        ours.finish()
        theirs.finish()
        self.assertEqual(ours.protocol.received, theirs.protocol.received)
        self.check(rig)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(QUIET, max_size=12), STEPS, st.lists(st.booleans(), max_size=30))
    def test_any_script_and_pressure(
        self, script: list[list[str]], steps: list[tuple[str, int]], releases: list[bool]
    ) -> None:
        """With a sink that stalls now and then every line still comes once, in order, and none while paused."""
        sink = StalledSink()
        rig = Rig(sink, protocol=scripted(IngestProtocol, script), connection_memory=READ_SIZE + KIB)
        side = Side(rig.clock, rig.connect(), rig.turn)
        for number, (action, amount) in enumerate(steps):
            side.step(action, amount)
            if number < len(releases) and releases[number]:
                rig.turn()
                sink.release()
            self.check(rig)
        for _ in range(100):
            sink.release()
            side.step("resume", 0)
            side.step("read", 1000)
            side.step("turn", 0)
        self.assertEqual(side.protocol.received, [b"line %d" % (n + 1) for n in range(side.sent)])
        self.assertEqual(sink.records, side.protocol.received)
        self.check(rig)
