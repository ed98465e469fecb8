"""
Fault: our own code, or that of an application that embeds it, raises where it should not.

Cost to a careless receiver: a stopped sweep, lanes that are never resumed, a registry entry for ever, a traceback per
request. Bound proven: the connection that raised (or the group, or the admin request), counted, with ten tracebacks
in ten seconds at most; every other peer's lines are delivered.
"""

import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.attacks.report import Group as Chapter
from tests.attacks.report import Scenario
from tests.server import Server
from tests.test_admin import AdminTestCase
from tests.test_server_sockets import ListeningTestCase
from twisted_ingest.admin.pages import ROWS_PER_PIECE
from twisted_ingest.admin.survey import Survey
from twisted_ingest.batch import Batch, Group
from twisted_ingest.errors import AcceptError, CloseReason, DropReason
from twisted_ingest.flow.lane import Lane
from twisted_ingest.framing.auto import AutoFramer
from twisted_ingest.limits import KIB, MIB
from twisted_ingest.observe.folding import BURST
from twisted_ingest.observe.log import LogWriter
from twisted_ingest.server.binding import REBIND_BACKOFF_SECONDS
from twisted_ingest.server.connection import Connection
from twisted_ingest.server.protocol import IngestProtocol
from twisted_ingest.server.relp import RelpProtocol
from twisted_ingest.server.sockets import ListeningReactor
from twisted_ingest.sources.listener import Listener
from twisted_ingest.testing import MemorySink, Mode, PumpTransport, Rig, ScriptedSink

VICTIM = "192.0.2.66"
"""The host whose connections raise."""

BUGS = Scenario(
    Chapter.OURSELVES,
    "Exceptions in callbacks",
    "a callback of a connection raises: framer, lane, timers, pause and resume, sweep, first and last call",
    "that connection is reset and counted, leaves the registry, its lane and the caps; the others go on; "
    "tracebacks are folded",
    ("ingest_internal_errors_total", 'ingest_connections_closed_total{reason="internal_error"}'),
)
SINK_BUGS = Scenario(
    Chapter.OURSELVES,
    "Exceptions in a sink",
    "`deliver` raises, gives no Deferred, or its Deferred fails, with an error that is no `SinkError`",
    "that group is counted as dropped at that sink and its charge released; other sinks and later groups go on",
    ("ingest_internal_errors_total", 'ingest_dropped_records_total{reason="sink_failed"}'),
)
LOST = Scenario(
    Chapter.ACCEPT,
    "A port that dies",
    "the listening socket is shut down by somebody who shares it; an `epoll_ctl` that fails; bugs while accepting and "
    "ending connections",
    "one connection's trouble costs that one; a port lost all the same is in `/readyz`, and bound again after 0.1 s, "
    "doubling to 5 s; its connections go on",
    ("ingest_listener_up", "ingest_accept_errors_total"),
)
ADMIN_BUGS = Scenario(
    Chapter.OURSELVES,
    "Exceptions in an admin page",
    "rendering `/metrics` or `/connections` raises",
    "500, or an answer cut off that cannot be taken for whole; other pages and the records go on; tracebacks are "
    "folded",
    ("ingest_internal_errors_total",),
)


class BugError(Exception):
    """What is raised."""


def raises_in(where: str, base: type[Connection] = IngestProtocol) -> type[Any]:
    """Make a protocol whose method ``where`` raises on connections of the victim."""
    original: Callable[..., Any] = getattr(base, where)

    def method(self: Connection, *arguments: Any, **options: Any) -> Any:
        if self.info.host == VICTIM:
            raise BugError(where)
        return original(self, *arguments, **options)

    return type("Faulty", (base,), {where: method})


class FaultyFramer(AutoFramer):
    """Raises when it is fed the word."""

    __slots__ = ()

    def feed(self, chunk: bytes | memoryview, now: float) -> list[Batch]:
        """Raise, or frame."""
        if b"bug" in chunk:
            raise BugError("feed")
        return super().feed(chunk, now)


class FaultyLane(Lane):
    """Raises when it is written to."""

    __slots__ = ()

    def write(self, batch: Batch) -> None:
        """Raise."""
        raise BugError("write")


class FaultyParts(IngestProtocol):
    """Has a framer that raises, or a lane that does."""

    def __init__(self, info: Any, factory: Any, framer: Any, lane: Lane) -> None:
        if info.host == VICTIM:
            framer = FaultyFramer(info, factory.ledger, 1000)
        elif info.host == "192.0.2.67":
            lane = FaultyLane(lane._owner, lane._route, 100 * KIB)
        super().__init__(info, factory, framer, lane)


class Unbuildable(IngestProtocol):
    """Raises when it is made."""

    def __init__(self, *_: object) -> None:
        raise BugError("__init__")


class CallbackTests(SynchronousTestCase):
    """Each test ends with the good peer's lines delivered, and nothing left of anybody."""

    def rig(self, protocol: type[IngestProtocol], **options: Any) -> Rig:
        """Start a server whose lanes pause with every batch and resume with its delivery."""
        self.sink = ScriptedSink()
        options = {"connection_memory": 64 * KIB, "idle_timeout_seconds": 30.0, **options}
        return Rig(self.sink, protocol=protocol, idle_until_first_record=False, **options)

    def say(self, rig: Rig, transport: PumpTransport, text: bytes) -> None:
        """Send, read, and let a turn pass."""
        transport.peer_sends(text)
        transport.pump()
        rig.turn()

    def check(self, rig: Rig, good: PumpTransport, *, errors: int = 1) -> None:
        """See that the good peer is served to its end, the bug counted, and nothing left."""
        self.sink.mode = Mode.TAKE
        self.sink.release()
        rig.turn(0.01)
        self.say(rig, good, b"last\n")
        good.peer_closes()
        good.pump()
        rig.turn(1)
        mine = [batch for batch in self.sink.batches if batch.info.host != VICTIM]
        records = [record for batch in mine for record in batch.records()]
        self.assertEqual(records, [b"first", b"last"])
        self.assertEqual((rig.factory.connections, rig.admission.open, rig.intake.lanes), ({}, 0, set()))
        self.assertEqual((rig.intake.budget.used, rig.intake.pauses.total, rig.clock.getDelayedCalls()), (0, 0, []))
        self.assertEqual(rig.events.internal_errors, errors)
        self.assertEqual(len(self.flushLoggedErrors(BugError)), errors)

    def both(self, rig: Rig) -> tuple[PumpTransport, PumpTransport]:
        """Connect the victim and a good peer, which sends its first line."""
        bad, good = rig.connect(VICTIM), rig.connect()
        self.say(rig, good, b"first\n")
        return bad, good

    def closed(self, rig: Rig, reason: CloseReason) -> None:
        """See that one connection ended for a reason."""
        self.assertEqual(rig.factory.ledger.connections_closed[reason], 1)

    def test_feed(self) -> None:
        """A framer that raises costs its connection; the unfinished line it held is counted as lost to a bug."""
        rig = self.rig(FaultyParts)
        bad, good = self.both(rig)
        self.say(rig, bad, b"half a line")
        self.say(rig, bad, b"bug")
        self.closed(rig, CloseReason.INTERNAL_ERROR)
        self.check(rig, good)
        # The chunk itself is in no bucket; only that shows that there is a bug.
        self.assertEqual(rig.survey.conservation()["test: bytes"], len(b"bug"))
        BUGS.measured("framer: its connection reset, the chunk shows as a conservation error, all others served")

    def test_write(self) -> None:
        """A lane that raises costs its connection."""
        rig = self.rig(FaultyParts)
        bad, good = rig.connect("192.0.2.67"), rig.connect()
        self.say(rig, good, b"first\n")
        self.say(rig, bad, b"lost\n")
        self.closed(rig, CloseReason.INTERNAL_ERROR)
        self.check(rig, good)
        self.assertEqual(rig.survey.conservation()["test: records at scripted"], 1)

    def test_connection_made(self) -> None:
        """A bug as a connection is made ends that one, in the registry or not yet."""
        rig = self.rig(raises_in("connectionMade"))
        bad, good = self.both(rig)
        self.assertFalse(bad.connected)
        self.check(rig, good)

    def test_connection_lost(self) -> None:
        """A ``connectionLost`` that raises before it has done its work leaves no entry, timer, charge or lane."""
        rig = self.rig(raises_in("connectionLost"))
        bad, good = self.both(rig)
        self.say(rig, bad, b"half")
        bad.peer_closes()
        bad.pump()
        self.closed(rig, CloseReason.INTERNAL_ERROR)
        self.check(rig, good)
        self.assertEqual(rig.survey.conservation_error(), 0)

    def test_pause(self) -> None:
        """A producer that raises when it is paused does not keep the budget from pausing the others."""
        rig = self.rig(raises_in("pauseProducing"))
        bad, good = self.both(rig)
        self.say(rig, bad, b"line\n")
        self.closed(rig, CloseReason.INTERNAL_ERROR)
        self.check(rig, good)
        self.assertEqual(rig.survey.conservation_error(), 0)

    def test_resume(self) -> None:
        """A producer that raises when it is resumed does not keep the other lanes of its group from being settled."""
        rig = self.rig(raises_in("resumeProducing"))
        bad, good = rig.connect(VICTIM), rig.connect()
        self.sink.mode = Mode.STALL
        for transport, line in ((bad, b"line\n"), (good, b"first\n")):
            transport.peer_sends(line)
            transport.pump()
        rig.turn()
        self.sink.release()
        self.assertTrue(good.reading)
        rig.turn()
        self.closed(rig, CloseReason.INTERNAL_ERROR)
        self.check(rig, good)
        self.assertEqual(rig.survey.conservation_error(), 0)

    def test_timer(self) -> None:
        """A timer that raises ends its connection instead of leaving it without one."""
        rig = self.rig(raises_in("timeoutConnection"))
        _, good = self.both(rig)
        rig.turn(20)
        good.peer_sends(b"\n")
        good.pump()
        rig.turn(11)
        self.closed(rig, CloseReason.INTERNAL_ERROR)
        self.check(rig, good)

    def test_sweep(self) -> None:
        """A connection whose deadlines cannot be looked at is ended; the sweep goes on to the others."""
        rig = self.rig(raises_in("sweep"), frame_timeout_seconds=5.0)
        bad, good = self.both(rig)
        slow = rig.connect("192.0.2.67")
        self.say(rig, slow, b"half")
        rig.turn(1)
        self.assertFalse(bad.connected)
        rig.turn(6)
        self.assertTrue(slow.was_reset)
        self.sink.batches = [batch for batch in self.sink.batches if not batch.partial]
        self.check(rig, good)

    def test_forgive(self) -> None:
        """A connection that cannot be forgiven the time we slept is ended; the others are."""
        rig = self.rig(raises_in("forgive"))
        bad, good = self.both(rig)
        rig.factory.forgive(5.0)
        rig.turn()
        self.assertFalse(bad.connected)
        self.closed(rig, CloseReason.INTERNAL_ERROR)
        self.check(rig, good)

    def test_fail(self) -> None:
        """A connection that cannot even be failed is aborted: whoever failed it has others to see to."""
        rig = self.rig(raises_in("close"), frame_timeout_seconds=5.0)
        bad, good = self.both(rig)
        self.say(rig, bad, b"half")
        rig.turn(6)
        self.assertFalse(bad.connected)
        self.check(rig, good, errors=2)

    def test_answers(self) -> None:
        """A bug in what a RELP session is told of its answers, or of its peer's end, costs that session."""
        for where, call in (("answers_stalled", "pauseProducing"), ("answers_flow", "resumeProducing")):
            rig = Rig(wire="relp", protocol=raises_in(where, RelpProtocol))
            bad, good = rig.connect(VICTIM), rig.connect()
            getattr(bad.producer, call)()
            rig.turn()
            self.assertEqual((bad.was_reset, good.connected, rig.events.internal_errors), (True, True, 1))
            self.closed(rig, CloseReason.INTERNAL_ERROR)
        rig = Rig(wire="relp", protocol=raises_in("_end", RelpProtocol))
        bad, good = rig.connect(VICTIM), rig.connect()
        bad.peer_closes()
        bad.pump()
        rig.turn()
        self.assertEqual((bad.connected, good.connected, rig.events.internal_errors), (False, True, 1))
        self.closed(rig, CloseReason.INTERNAL_ERROR)
        self.assertEqual(len(self.flushLoggedErrors(BugError)), 3)

    def test_gathering(self) -> None:
        """A bug as a group is handed over is counted; what comes later is handed over."""
        rig = self.rig(IngestProtocol, connection_memory=MIB)
        route = rig.factory.route
        flush = route.flush

        def broken() -> None:
            route.flush = flush  # type: ignore[method-assign]
            raise BugError("flush")

        route.flush = broken  # type: ignore[method-assign]
        good = rig.connect()
        self.say(rig, good, b"first\n")
        self.check(rig, good)

    def test_hang_up(self) -> None:
        """A bug on the news that a paused peer is gone ends that connection; the sweep goes on."""
        rig = self.rig(raises_in("hang_up"))
        bad, good = self.both(rig)
        self.sink.mode = Mode.STALL
        self.say(rig, bad, b"line\n")
        bad.peer_closes()
        rig.turn(1)
        self.closed(rig, CloseReason.INTERNAL_ERROR)
        self.check(rig, good)

    def test_evict(self) -> None:
        """A connection that cannot give up its unfinished record does not keep the next oldest from it."""
        rig = self.rig(raises_in("evict_partial"), memory=4 * KIB)
        bad, good = self.both(rig)
        self.say(rig, bad, b"x" * 300)
        rig.turn(1)
        other = rig.connect("192.0.2.67")
        self.say(rig, other, b"x" * 700)
        rig.turn()
        self.closed(rig, CloseReason.INTERNAL_ERROR)
        other.peer_resets()
        other.pump()
        self.assertTrue(self.sink.batches[-1].truncated)
        del self.sink.batches[-1]
        self.check(rig, good)

    def test_build(self) -> None:
        """A bug as a protocol is built refuses that peer."""
        rig = self.rig(Unbuildable)
        self.assertRaises(ConnectionRefusedError, rig.connect, VICTIM)
        rig.factory.protocol = IngestProtocol
        good = rig.connect()
        self.say(rig, good, b"first\n")
        self.check(rig, good)

    def test_flood(self) -> None:
        """Ten thousand bugs in a second are counted one by one and logged ten times."""
        rig = self.rig(raises_in("connectionMade"))
        for _ in range(10_000):
            rig.connect(VICTIM)
            rig.turn()
        self.assertEqual(rig.events.internal_errors, 10_000)
        self.assertEqual(rig.factory.connections, {})
        self.assertEqual(len(self.flushLoggedErrors(BugError)), BURST)
        BUGS.measured(f"{rig.events.internal_errors:,} in one second: {BURST} tracebacks, no connection left")


class FaultySink(MemorySink):
    """Raises where told to, for groups that hold the word."""

    def __init__(self, name: str, *, late: bool | None) -> None:
        super().__init__(name)
        self._late = late

    def deliver(self, group: Group) -> "Deferred[None]":
        """Raise, fail, give nothing or take."""
        if any(b"bug" in bytes(batch.wire) for batch in group.batches):
            if self._late is None:
                return None  # type: ignore[return-value]
            if not self._late:
                raise BugError("deliver")
            return fail(BugError("deliver"))
        return super().deliver(group)

    def close(self) -> "Deferred[None]":
        """Raise."""
        raise BugError("close")


class SinkTests(SynchronousTestCase):
    def test_a_group_is_lost_alone(self) -> None:
        """A sink that raises, at once, later or by what it gives, loses that group, counted, and nothing else."""
        for late in (False, True, None):
            faulty, good = FaultySink("faulty", late=late), MemorySink("good")
            rig = Rig(faulty, good, connection_memory=64 * KIB)
            rig.send(b"one\n")
            rig.send(b"bug\n")
            rig.send(b"two\n")
            self.assertEqual(faulty.records, [b"one", b"two"])
            self.assertEqual(good.records, [b"one", b"bug", b"two"])
            self.assertEqual(rig.intake.outlets[0].tally("test").records_dropped[DropReason.SINK_FAILED], 1)
            self.assertEqual((rig.survey.conservation_error(), rig.intake.budget.used), (0, 0))
            self.assertEqual(rig.events.internal_errors, 1)
            self.assertEqual(rig.intake.pauses.total, 0)
            self.assertEqual(len(self.flushLoggedErrors(BugError, TypeError)), 1)
        SINK_BUGS.measured("one group of three lost at one sink of two, counted; conservation error 0")

    def test_close(self) -> None:
        """A sink that raises when it is closed does not keep a stop from its end."""
        rig = Rig(FaultySink("faulty", late=False), MemorySink("good"))
        rig.send(b"one\n")
        outcome: list[object] = []
        _ = rig.drain().addBoth(outcome.append)
        for _ in range(200):
            rig.turn(0.05)
        self.assertEqual((outcome, rig.sink.records), ([None], [b"one"]))
        self.assertEqual((rig.events.internal_errors, len(self.flushLoggedErrors(BugError))), (1, 1))


class Full:
    """An epoll of a machine whose watches are used up, for so many times."""

    def __init__(self, real: Any, times: int) -> None:
        self._real = real
        self.times = times

    def register(self, *arguments: Any) -> None:
        """Fail, or watch."""
        if self.times:
            self.times -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._real.register(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class PortTests(ListeningTestCase):
    """Each test ends with a later peer's line delivered through the same listener."""

    def survey(self, listener: Listener) -> Survey:
        """Look at the listener as the admin endpoint does."""
        survey = Survey(
            sources=[listener],
            intake=listener.factory._intake,
            admission=self.admission,
            events=self.events,
            log=LogWriter(),
            seconds=reactor.seconds,
            wall_time=reactor.seconds,
            limits={},
        )
        survey.state = "ready"
        return survey

    async def check(self, listener: Listener) -> None:
        """See that a peer that comes now is served."""
        before = len(self.sink.records)
        self.connect(listener).sendall(b"served\n")
        await self.until(lambda: len(self.sink.records) > before)
        self.assertEqual((self.sink.records[-1], self.survey(listener).reasons()), (b"served", []))

    async def test_no_more_watches(self) -> None:
        """A connection that the kernel cannot watch is reset and counted; accepting waits, and goes on."""
        listener = await self.listen(self.listener())
        readiness = listener.port.reading.readiness
        if readiness is None:
            raise SkipTest("needs epoll (Linux)")
        real, readiness._epoll = readiness._epoll, Full(readiness._epoll, 1)
        unlucky = self.connect(listener)
        await self.until(lambda: self.is_reset(unlucky))
        self.assertEqual(listener.factory.ledger.accept_errors[AcceptError.WATCHES], 1)
        self.assertEqual((listener.factory.connections, self.admission.open), ({}, 0))
        await self.check(listener)
        readiness._epoll = real
        self.assertEqual(self.events.internal_errors, 0)

    async def test_transport(self) -> None:
        """A bug before there is a connection resets that one."""
        listener = await self.listen(self.listener())

        def unmakeable(*_: Any) -> None:
            raise BugError("transport")

        transport, listener.port.transport = listener.port.transport, unmakeable
        for _ in range(3):
            unlucky = self.connect(listener)
            await self.until(lambda peer=unlucky: self.is_reset(peer))
        listener.port.transport = transport
        await self.check(listener)
        self.assertEqual((self.events.internal_errors, len(self.flushLoggedErrors(BugError))), (3, 3))

    async def test_accepting(self) -> None:
        """A bug of accepting itself makes the port wait, not die."""
        listener = await self.listen(self.listener())

        def accept_some(_: int) -> bool:
            raise BugError("accept_some")

        self.patch(listener.port, "accept_some", accept_some)
        self.connect(listener).sendall(b"patient\n")
        await self.until(lambda: self.events.internal_errors)
        del listener.port.accept_some
        await self.until(lambda: self.sink.records == [b"patient"])
        await self.check(listener)
        self.assertEqual(len(self.flushLoggedErrors(BugError)), 1)

    async def test_ending(self) -> None:
        """A connection that cannot be ended, whatever of it raises, leaves the registry; its port goes on."""
        listener = await self.listen(self.listener())

        class Faulty(IngestProtocol):
            def connectionLost(self, reason: Failure = ConnectionDone) -> None:  # type: ignore[assignment]
                raise BugError("connectionLost")

            def close(self, reason: CloseReason, *, reset: bool) -> None:
                raise BugError("close")

        listener.factory.protocol = Faulty
        bad = self.connect(listener)
        await self.until(lambda: listener.factory.connections)
        listener.factory.protocol = IngestProtocol
        bad.close()
        await self.until(lambda: not listener.factory.connections)
        await self.check(listener)
        self.assertEqual((self.events.internal_errors, len(self.flushLoggedErrors(BugError))), (2, 2))

    async def test_lost(self) -> None:
        """A port that dies all the same says so, and is bound again at its number, later and later while it cannot."""
        clock = Clock()
        listener = await self.listen(self.listener(clock=clock))
        survey, number = self.survey(listener), listener.port.getHost().port
        established = self.connect(listener)
        await self.until(lambda: listener.factory.connections)
        listener.port.socket.shutdown(socket.SHUT_RDWR)  # as somebody could who shares it
        await self.until(lambda: listener.port is None)
        self.assertIs(survey.view().listeners["test"].is_up, False)
        self.assertIn("listener test: not listening: its port was lost", survey.reasons()[0])
        with socket.create_server(("127.0.0.1", number)):
            clock.advance(REBIND_BACKOFF_SECONDS[0])
            self.assertIn("cannot be bound again (Address already in use)", survey.reasons()[0])
            self.assertIsNone(survey.status()["listeners"][0]["address"])
        clock.advance(REBIND_BACKOFF_SECONDS[0] * 2)
        self.assertEqual((listener.port.getHost().port, survey.view().listeners["test"].is_up), (number, True))
        established.sendall(b"here all along\n")
        await self.until(lambda: self.sink.records == [b"here all along"])
        await self.check(listener)
        LOST.measured("shut down by another process: `/readyz` said so, bound again at once, established peer served")

    async def test_lost_and_stopped(self) -> None:
        """A stop while a port is lost leaves no timer."""
        clock = Clock()
        listener = await self.listen(self.listener(clock=clock))
        listener.port.socket.shutdown(socket.SHUT_RDWR)
        await self.until(lambda: listener.port is None)
        await listener.stop()
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_lost_of_the_service_manager(self) -> None:
        """A port on a socket that was given to us is taken over again."""
        with socket.create_server(("127.0.0.1", 0)) as given:
            clock = Clock()
            listener = self.listener(clock=clock)
            ports = ListeningReactor(reactor, self.admission, self.events, None, listener._lost)
            listener._ports, listener.port = (
                ports,
                ports.adoptStreamPort(given.fileno(), given.family, listener.factory),
            )
            given.shutdown(socket.SHUT_RDWR)
            await self.until(lambda: listener.port is None)
            clock.advance(REBIND_BACKOFF_SECONDS[0])
            self.assertEqual(listener.port.getHost().port, given.getsockname()[1])
            await self.check(listener)


class SpeechlessSink(MemorySink):
    """Raises when it is asked anything of itself."""

    trouble = property(lambda _: 1 // 0, lambda _, value: None)

    def describe(self) -> str:
        """Raise."""
        raise BugError("describe")

    def details(self) -> dict[str, int]:
        """Raise."""
        raise BugError("details")


class Odd(MemorySink):
    """Has counters that could be no metric."""

    def __init__(self, details: dict[Any, Any]) -> None:
        super().__init__("odd")
        self._details = details

    def details(self) -> dict[str, int]:
        """Give them."""
        return self._details


class SpeechlessTests(AdminTestCase):
    def test_pages(self) -> None:
        """A sink that cannot be asked is in trouble; every page answers, its own counts and all others are there."""
        self.make_rig(SpeechlessSink("speechless"))
        self.rig.survey.state = "ready"
        self.rig.send(b"one\n")
        for path, code in (("/metrics", 200), ("/status", 200), ("/readyz", 503)):
            answer = self.ask(path)
            self.assertEqual(answer.code, code)
            self.assertIn(b"speechless", answer.body)
        self.assertIn(b"sink speechless: it cannot say how it is (ZeroDivisionError: ", self.ask("/readyz").body)
        self.assertTrue(self.rig.events.internal_errors)
        self.assertTrue(self.flushLoggedErrors(BugError, ZeroDivisionError))

    def test_odd_counters(self) -> None:
        """Counters that are no numbers, or have names no metric can have, cost the sink its own, and no page."""
        for details in ({"a b": 1}, {"é": 1}, {"fine": 1, "queue": "long"}, {7: 7}, {None: 1}):
            self.make_rig(Odd(details))
            self.assertEqual(self.ask("/metrics").code, 200)
            self.assertEqual(self.rig.survey.view().sinks["odd"].details, {})
            self.assertEqual(len(self.flushLoggedErrors(TypeError, ValueError, AttributeError)), 2)


class WatchTests(SynchronousTestCase):
    def test_a_real_server(self) -> None:
        """A server whose kernel refuses to watch one connection resets that one, and serves the next."""
        if shutil.which("strace") is None:
            raise SkipTest("needs strace")
        server = Server()
        self.addCleanup(server.kill)
        server.wait_ready()
        # Attached now, so that the first call which fails is that of a connection.
        inject = ["-e", "trace=epoll_ctl", "-e", "inject=epoll_ctl:error=ENOSPC:when=1"]
        tracer = subprocess.Popen(
            ["strace", "-p", str(server.process.pid), "-o", "/dev/null", *inject], stderr=subprocess.PIPE, text=True
        )
        self.addCleanup(tracer.wait)
        self.addCleanup(tracer.terminate)
        assert tracer.stderr is not None
        self.addCleanup(tracer.stderr.close)
        if "attached" not in tracer.stderr.readline():
            raise SkipTest("needs to trace processes (ptrace)")
        with server.connect() as unlucky:
            self.assertRaises(ConnectionResetError, unlucky.recv, 1)
        server.send(b"served all the same\n")
        server.wait_output(20)
        self.assertIn('ingest_accept_errors_total{listener="tcp-0",reason="watches"} 1.0', server.get("metrics"))
        metrics = server.metrics()
        self.assertEqual((metrics["ingest_listener_up[tcp-0]"], metrics["ingest_internal_errors_total"]), (1, 0))
        self.assertEqual(server.get("readyz"), "ready\n")
        LOST.measured("`ENOSPC` from `epoll_ctl` in a real server: one connection reset, the next one served")


class AdminTests(AdminTestCase):
    def setUp(self) -> None:
        self.make_rig(MemorySink())

    def test_page(self) -> None:
        """A page that cannot be rendered is a 500, counted; others answer, and 1,000 scrapes log ten tracebacks."""

        def view() -> Any:
            raise BugError("view")

        self.patch(self.rig.survey, "view", view)
        for _ in range(1000):
            self.assertEqual(self.ask("/metrics").code, 500)
        self.assertEqual(self.ask("/healthz").code, 200)
        self.assertEqual(self.rig.events.internal_errors, 1000)
        self.assertEqual(len(self.flushLoggedErrors(BugError)), BURST)
        ADMIN_BUGS.measured(f"1,000 scrapes that fail: {BURST} tracebacks, `/healthz` answers")

    def test_rows(self) -> None:
        """An answer in many pieces that fails midway is cut off, not ended as if it were whole."""
        self.rig.connect()

        def rows() -> Any:
            yield from ({"id": number} for number in range(ROWS_PER_PIECE))
            raise BugError("rows")

        self.patch(self.rig.survey, "connections", rows)
        channel, transport = self.connect()
        channel.dataReceived(b"GET /connections HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.turn()
        self.assertTrue(transport.is_reset)
        self.assertNotIn(b"]\n", transport.value())
        self.assertEqual(len(self.flushLoggedErrors(BugError)), 1)
        self.lose(channel)
