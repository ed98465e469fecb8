"""Whole reads: what is received and looked through in C, for however many at once, comes to what plain reads give."""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests import scanners
from tests.test_framing_take import ORDINARY
from twisted_ingest.batch import Batch
from twisted_ingest.errors import CloseReason, Framing
from twisted_ingest.flow import slabs
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.slabs import Slabs
from twisted_ingest.framing.auto import AutoFramer
from twisted_ingest.framing.scan import Look
from twisted_ingest.ledger import Balance
from twisted_ingest.limits import KIB, MEMORY, MIB, READ_SIZE, SLAB_SIZE, WHOLE_READ
from twisted_ingest.server import arrivals, whole
from twisted_ingest.server.arrivals import Arrivals
from twisted_ingest.server.lines import IngestProtocol
from twisted_ingest.server.pace import Pace
from twisted_ingest.server.readiness import HAS_EPOLL
from twisted_ingest.server.reading import PortReading
from twisted_ingest.server.transports import UNIXTransport
from twisted_ingest.testing import MemorySink, Rig, StalledSink
from twisted_ingest.units import Rate

LINE = b"<13>an ordinary line of some bytes\n"


class Watcher(Clock):
    """A reactor as far as watching goes; what is written is never sent."""

    def addReader(self, reader: object) -> None:
        """Do nothing: reading is called for."""

    removeReader = addWriter = removeWriter = addReader


class Port:
    """Connections on real pairs of sockets, read with one `PortReading`, turn by turn."""

    def __init__(self, case: SynchronousTestCase, *sinks: Any, is_whole: bool = True, **options: Any) -> None:
        if not HAS_EPOLL or not whole.IS_COMPILED:
            raise SkipTest("needs epoll (Linux) and what is built in C")
        self.rig = Rig(*sinks, **options)
        self.is_whole = is_whole
        self.case = case
        self.judged: list[int] = []
        # Else a few small reads would make plain reads of those to come.
        case.patch(arrivals, "SETTLING", 1)
        # What the machine is doing else says nothing of the bytes.
        case.patch(Pace, "adjust", lambda _pace, _transport, size, _seconds: self.judged.append(size))
        self.reactor = Watcher()
        self.bugs: list[str] = []
        given = self.rig.intake.slabs if is_whole else None
        self.reading = PortReading(self.reactor, self.note_bug, slabs=given)
        case.addCleanup(self.close)
        self.transports: list[UNIXTransport] = []
        self.peers: list[socket.socket] = []

    def note_bug(self, where: str) -> None:
        """Note where a bug was met, and which."""
        self.bugs.append(f"{where}: {Failure().getErrorMessage()}")

    def close(self) -> None:
        """Let go of all descriptors."""
        for peer in self.peers:
            peer.close()
        for transport in self.transports:
            if hasattr(transport, "socket"):
                transport.socket.close()
        assert self.reading.readiness is not None
        self.reading.readiness.connectionLost(Failure(ConnectionError()))

    def connect(self) -> tuple[UNIXTransport, socket.socket]:
        """Connect a peer over TCP, which alone can be reset."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            peer = socket.create_connection(listening.getsockname())
            accepted, _ = listening.accept()
        accepted.setblocking(False)
        protocol = self.rig.factory.buildProtocol(None)
        assert protocol is not None
        transport = UNIXTransport(accepted, protocol, "", self.reading, self.reactor)
        protocol.makeConnection(transport)
        if self.is_whole:
            transport.last_read = 1
        self.transports.append(transport)
        self.peers.append(peer)
        return transport, peer

    def turn(self, number: int = 1) -> None:
        """Let the port be read from, and timers run."""
        for _ in range(number):
            assert self.reading.readiness is not None
            self.reading.readiness.doRead()
            self.reactor.advance(0)
            self.rig.clock.advance(0)

    def run(self, until: Callable[[], bool], turns: int = 20_000) -> None:
        """Turn until something is so."""
        for _ in range(turns):
            if until():
                return
            self.turn()
        self.case.fail("it never came to be")

    @property
    def is_balanced(self) -> bool:
        """Whether every byte brought is accounted for."""
        return not Balance.of_bytes(self.rig.factory.ledger, self.rig.factory.buffered()).error

    def read_all(self, *sent: int) -> None:
        """Turn until each connection has been brought all that was sent to it."""
        self.run(
            lambda: (
                [each.protocol.bytes_received for each in self.transports if not each.protocol._is_lost] == list(sent)
            )
        )


ACTIONS = st.one_of(
    ORDINARY, ORDINARY, ORDINARY, st.sampled_from(["turn", "turn", "pause", "resume"]), st.binary(max_size=4)
)


class EqualityTests(SynchronousTestCase):
    """Any bytes, any cuts, any framing, paused, resumed and ended anywhere: records, order, accounts as without C."""

    def outcome(self, framing: Framing, streams: list[list[Any]], end: str, *, is_whole: bool, pace: int) -> object:
        port = Port(self, is_whole=is_whole, framing=framing, max_record_bytes=40)
        try:
            connections = [port.connect() for _ in streams]
            for transport, _ in connections:
                transport.read_size = pace
            for step in range(max(map(len, streams))):
                for (transport, peer), stream in zip(connections, streams, strict=True):
                    if step < len(stream):
                        self.act(port, transport, peer, stream[step])
                port.turn()
            lost = self.end(port, connections, end)
            ledger = port.rig.factory.ledger
            self.assertEqual((port.bugs, port.rig.events.internal_errors), ([], 0))
            self.assertTrue(port.is_balanced)
            self.assertEqual((port.rig.intake.budget.used, port.rig.intake.slabs.held_back), (0, 0))
            records: dict[int, list[bytes]] = {}
            for batch in port.rig.sink.batches:
                records.setdefault(batch.info.id, []).extend(batch.records())
            return records, _numbers(ledger, lost)
        finally:
            port.close()

    def act(self, port: Port, transport: UNIXTransport, peer: socket.socket, action: Any) -> None:
        if not hasattr(transport, "socket") or transport.disconnecting:
            return
        protocol = transport.protocol
        if isinstance(action, bytes):
            if action:
                peer.send(action)
        elif action == "pause":
            protocol.pauseProducing()
        elif action == "resume":
            protocol.resumeProducing()
        else:
            port.turn()

    def end(self, port: Port, connections: list[tuple[UNIXTransport, socket.socket]], end: str) -> int:
        for _, peer in connections:
            if end == "reset":
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
        for transport, _ in connections:
            if hasattr(transport, "socket"):
                transport.protocol.resumeProducing()
        port.run(lambda: not port.rig.factory.connections)
        port.turn(3)
        return sum(transport.unread_at_close for transport, _ in connections)

    @settings(max_examples=60 if "INGEST_TEST_SCANS" not in os.environ else 300, deadline=None)
    @given(
        st.sampled_from([Framing.AUTO, Framing.NEWLINE, Framing.NUL, Framing.OCTET_COUNTED]),
        st.lists(st.lists(ACTIONS, max_size=10), min_size=1, max_size=3),
        st.sampled_from(["eof", "reset"]),
        st.sampled_from([1, 7, 1024]),
        st.tuples(st.sampled_from([1, 20, 32 * KIB]), st.sampled_from([0, 4096])),
    )
    def test_equal(
        self, framing: Framing, streams: list[list[Any]], end: str, pace: int, sizes: tuple[int, int]
    ) -> None:
        """See above; with everything a view, or nothing."""
        views_from, wary = sizes
        self.patch(whole, "VIEWS_FROM", views_from)
        self.patch(arrivals, "TIMED_SIZE", 1 << 30)
        self.patch(AutoFramer, "_wary_bytes", wary)
        if not any(streams):
            return
        plain = self.outcome(framing, streams, end, is_whole=False, pace=1024)
        self.assertEqual(self.outcome(framing, streams, end, is_whole=True, pace=pace), plain)


def _numbers(ledger: Any, lost: int) -> dict[str, object]:
    """Give what a ledger counts; how much of a stream that was given up is read, and how much not, may differ."""
    found = {name: getattr(ledger, name) for name in dir(ledger) if name.startswith(("bytes_", "records_", "connect"))}
    if found["bytes_unread"] != lost:
        raise AssertionError("what was unread is not counted")
    given_up = sum(found["bytes_discarded"].values())
    found["bytes_received"] += found.pop("bytes_unread")
    if ledger.connections_closed[CloseReason.FRAMING] or ledger.connections_closed[CloseReason.WRONG_PROTOCOL]:
        del found["bytes_discarded"]
    elif lost:
        raise AssertionError(f"{lost} bytes unread, {given_up} given up")
    return found


class NeighbourTests(SynchronousTestCase):
    """One connection's records may pause or end others whose bytes are received already: none is lost."""

    def two(self, act: Callable[[Any], None], **options: Any) -> Port:
        """Make two connections with a line each to read; whichever is brought first acts on the other."""
        port: Port

        class Acting(IngestProtocol):
            def lineReceived(self, line: bytes) -> None:
                if line == b"go":
                    (other,) = [each.protocol for each in port.transports if each.protocol is not self]
                    act(other)

        port = Port(self, protocol=Acting, framing=Framing.NEWLINE, **options)
        for _ in range(2):
            port.connect()
        for transport in port.transports:
            port.peers[port.transports.index(transport)].sendall(b"x\n" * 200)
        port.run(lambda: all(each.protocol.records == 200 for each in port.transports))
        return port

    def test_paused(self) -> None:
        """Paused after it was received, before it was brought: it waits as if in the kernel, and comes first then."""
        port = self.two(lambda other: other.pauseProducing())
        for peer in port.peers:
            peer.sendall(b"go\nand more\nhalf")
        port.turn()
        paused = [each for each in port.transports if each.protocol.records == 200]
        self.assertEqual([each.unread_bytes() for each in paused], [16])
        self.assertEqual(port.rig.intake.slabs.held_back, 16)
        (transport,) = paused
        port.peers[port.transports.index(transport)].sendall(b" and half\n")
        port.turn(3)
        self.assertEqual(transport.unread_bytes(), 16 + 10)
        transport.protocol.resumeProducing()
        port.run(lambda: not transport.unread_bytes())
        self.assertEqual(port.rig.sink.records[-3:], [b"go", b"and more", b"half and half"])
        self.assertTrue(port.is_balanced)

    def test_aborted(self) -> None:
        """Aborted by a neighbour: what was received for it is counted as unread, and waits no longer."""
        port = self.two(lambda other: other.transport.abortConnection())
        for peer in port.peers:
            peer.sendall(b"go\nand more\n")
        port.turn(3)
        port.run(lambda: len(port.rig.factory.connections) == 1)
        ledger = port.rig.factory.ledger
        self.assertEqual((ledger.bytes_unread, port.rig.intake.slabs.held_back), (12, 0))
        self.assertTrue(port.is_balanced)

    def test_lost(self) -> None:
        """So is it where the connection is gone altogether."""
        port = self.two(lambda other: other.transport.connectionLost(Failure(ConnectionError())))
        for peer in port.peers:
            peer.sendall(b"go\nand more\n")
        port.turn(2)
        self.assertEqual((port.rig.factory.ledger.bytes_unread, port.rig.intake.slabs.held_back), (12, 0))
        self.assertEqual(port.bugs, [])

    def test_evicted(self) -> None:
        """A neighbour may cost one its unfinished record, after what ends it was received: that is still read, once."""
        port = self.two(lambda other: other.evict_partial())
        for peer in port.peers:
            peer.sendall(b"g")
        port.read_all(401, 401)
        for peer in port.peers:
            peer.sendall(b"o\nmore\n")
        port.read_all(408, 408)
        port.turn()
        self.assertTrue(port.is_balanced)
        self.assertEqual(sorted(port.rig.sink.records[400:]), [b"g", b"go", b"more", b"more"])
        self.assertEqual([batch.truncated for batch in port.rig.sink.batches if batch.records() == [b"g"]], [True])

    def test_bug(self) -> None:
        """A bug met with what came of the call costs its own connection only."""
        port = Port(self, framing=Framing.NEWLINE)
        for _ in range(3):
            port.connect()
        for peer in port.peers:
            peer.sendall(b"x\n" * 100)
        port.read_all(200, 200, 200)

        protocols = [each.protocol for each in port.transports]

        def bug(*_: object) -> None:
            raise ZeroDivisionError

        protocols[1].records_received = bug
        for peer in port.peers:
            peer.sendall(b"y\n")
        port.turn(3)
        self.assertEqual(port.bugs, ["reading from a connection: "])
        self.assertEqual([each.records for each in protocols], [101, 100, 101])

    def test_bug_before_the_call(self) -> None:
        """A bug met in asking for a read costs its own connection only."""
        port = Port(self, framing=Framing.NEWLINE)
        for _ in range(3):
            port.connect()
        protocols = [each.protocol for each in port.transports]

        def bug(*_: object) -> None:
            raise ZeroDivisionError

        port.transports[1].request = bug  # type: ignore[assignment, method-assign]
        for peer in port.peers:
            peer.sendall(b"y\n")
        port.turn(3)
        self.assertEqual(port.bugs, ["reading from a connection: "])
        self.assertEqual([each.records for each in protocols], [1, 0, 1])

    def test_lost_in_the_call(self) -> None:
        """Where what was received cannot be told, every connection that was asked for ends: none goes on with a gap."""
        port = Port(self, framing=Framing.NEWLINE)
        for _ in range(2):
            port.connect()
        for peer in port.peers:
            peer.sendall(b"x\n" * 100)
        port.read_all(200, 200)

        class Broken:
            def receive(self, *_: object) -> None:
                raise MemoryError

        self.patch(whole, "_receive", Broken())
        for peer in port.peers:
            peer.sendall(b"y\n")
        port.turn(3)
        self.assertEqual(port.bugs, ["reading from a connection: "] * 2)
        self.assertEqual(port.rig.factory.connections, {})


def is_slab(batch: Batch) -> bool:
    """Whether a batch is a view of a slab; the rig lends the others too, and fills them once they are let go of."""
    return isinstance(batch.lease, slabs.Lease)


class BulkTests(SynchronousTestCase):
    """Large reads: slabs, bounds, the pace."""

    def sent(self, port: Port, data: bytes, number: int = 0) -> None:
        peer = port.peers[number]
        peer.setblocking(False)
        transport = port.transports[number]
        while data:
            try:
                data = data[peer.send(data) :]
            except BlockingIOError:
                before = transport.protocol.bytes_received
                port.turn()
                if transport.protocol.bytes_received == before and transport.protocol.paused:
                    self.fail("it is not read from")

    def test_views(self) -> None:
        """Ordinary bytes are brought in large views, in order, and the slabs are used again."""
        sink = MemorySink()
        port = Port(self, sink)
        port.connect()
        lines = b"".join(b"<13>line %07d %s\n" % (number, b"x" * 180) for number in range(40_000))
        self.sent(port, lines)
        port.read_all(len(lines))
        port.turn()
        self.assertEqual(b"".join(bytes(batch.wire) for batch in sink.batches), lines)
        slabs = port.rig.intake.slabs
        self.assertGreater(max(batch.size for batch in sink.batches), 2 * whole.VIEWS_FROM)
        self.assertLessEqual(slabs.made, 3)
        self.assertEqual((port.rig.intake.budget.used, slabs.given_up), (0, 0))

    def test_frames(self) -> None:
        """Counted frames too: the counts are taken off where they stand."""
        sink = MemorySink()
        port = Port(self, sink, framing=Framing.OCTET_COUNTED)
        port.connect()
        records = [b"<13>frame %07d %s" % (number, b"x" * (number % 300)) for number in range(20_000)]
        stream = b"".join(b"%d %s" % (len(record), record) for record in records)
        self.sent(port, stream)
        port.read_all(len(stream))
        port.turn()
        self.assertEqual(sink.records, records)
        self.assertGreater(max(batch.size for batch in sink.batches), 2 * whole.VIEWS_FROM)
        self.assertTrue(port.is_balanced)

    def test_a_stalled_sink(self) -> None:
        """While a sink has all slabs, what is received is copied; nothing that it has is written over."""
        sink = StalledSink()
        port = Port(self, sink, connection_memory=8 * MIB, framing=Framing.NEWLINE)
        transport, _ = port.connect()
        port.rig.intake.slabs._most = 1
        lines = b"".join(b"line %07d %s\n" % (number, b"x" * 180) for number in range(20_000))
        self.sent(port, lines)
        port.read_all(len(lines))
        port.rig.intake.flush()
        slabs = port.rig.intake.slabs
        self.assertEqual(slabs.made, 1)
        got = b"".join(bytes(batch.wire) for group, _ in sink.waiting for batch in group.batches)
        self.assertEqual(got, lines)
        copied = [batch for group, _ in sink.waiting for batch in group.batches if not is_slab(batch)]
        self.assertGreater(len(copied), 1)
        while sink.waiting:
            sink.release()
        self.assertEqual(port.rig.intake.budget.used, transport.protocol.lane.held)

    def test_a_view_that_is_kept(self) -> None:
        """What a sink keeps a view of for too long is left to it, and counted."""
        kept: list[memoryview] = []

        class Keeping(MemorySink):
            def keep(self, group: Any) -> None:
                kept.extend(batch.wire[:50] for batch in group.batches if is_slab(batch))
                super().keep(group)

        port = Port(self, Keeping(), framing=Framing.NEWLINE)
        port.connect()
        lines = b"".join(b"line %07d %s\n" % (number, b"x" * 180) for number in range(20_000))
        self.sent(port, lines)
        port.read_all(len(lines))
        port.turn()
        seen = [bytes(view) for view in kept]
        self.assertTrue(seen)
        self.assertTrue(all(text.startswith(b"line ") for text in seen), seen)
        self.assertGreater(port.rig.intake.slabs.given_up, 0)
        self.assertEqual(port.rig.survey.view().slabs_given_up, port.rig.intake.slabs.given_up)
        self.assertEqual(port.rig.intake.budget.used, 0)

    def dear(self, port: Port, size: int) -> int:
        """Bring one past its first bytes, then receive of it what is dear at once."""
        transport, peer = port.transports[0], port.peers[0]
        self.sent(port, LINE * 300)
        port.read_all(len(LINE) * 300)
        flood = LINE * 100 + b"a\n\0" * (size // 3)
        peer.setblocking(True)
        peer.settimeout(5)
        peer.sendall(flood)
        before: int = transport.protocol.bytes_received
        assert port.reading.readiness is not None
        self.patch(port.reading.readiness, "_seconds", iter(range(1_000_000)).__next__)  # one round a turn
        transport.read_size = 1024
        port.turn()
        self.flood = flood
        after: int = transport.protocol.bytes_received
        return after - before

    def test_what_is_odd_is_paced(self) -> None:
        """Of what is received at once as much is brought as is framed at a time; the rest waits, and is counted."""
        port = Port(self)
        transport, _ = port.connect()
        brought = self.dear(port, 60_000)
        self.assertEqual(brought, len(LINE) * 100 + len(b"a\n") + 1024)
        held = port.rig.intake.slabs.held_back
        self.assertGreater(held, 20_000)
        self.assertEqual(transport.unread_bytes(), len(self.flood) - brought)
        port.read_all(len(LINE) * 300 + len(self.flood))
        self.assertEqual((port.rig.intake.slabs.held_back, transport.unread_bytes()), (0, 0))
        self.assertTrue(port.is_balanced)

    def test_backlog_before_the_end(self) -> None:
        """An end that the peer makes meanwhile is noticed behind what waits, be it orderly or not."""
        for is_reset in (False, True):
            port = Port(self)
            transport, peer = port.connect()
            protocol = transport.protocol
            self.dear(port, 60_000)
            if is_reset:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            port.run(lambda port=port: not port.rig.factory.connections)  # type: ignore[misc]
            total = len(LINE) * 300 + len(self.flood)
            self.assertEqual((protocol.bytes_received, transport.unread_at_close), (total, 0))
            self.assertTrue(port.is_balanced)

    def test_backlog_at_an_abort(self) -> None:
        """What waits as we end a connection is counted as unread."""
        port = Port(self)
        transport, _ = port.connect()
        brought = self.dear(port, 60_000)
        transport.abortConnection()
        port.run(lambda: not port.rig.factory.connections)
        self.assertEqual(port.rig.factory.ledger.bytes_unread, len(self.flood) - brought)
        self.assertEqual(port.rig.intake.slabs.held_back, 0)

    def test_backlogs_are_bounded(self) -> None:
        """Past their share no more is received of anybody than is framed at once."""
        port = Port(self)
        port.connect()
        slabs = port.rig.intake.slabs
        slabs.held_back += slabs._backlogs_limit
        self.assertFalse(slabs.has_room)
        transport = port.transports[0]
        asked: list[Any] = []
        request = transport.request

        def note(most: int) -> Any:
            asked.append(request(most))
            return asked[-1]

        transport.request = note  # type: ignore[method-assign]
        self.sent(port, LINE * 300)
        port.read_all(len(LINE) * 300)
        self.assertEqual({each[2] for each in asked if each is not None}, {transport.read_size})
        slabs.held_back -= slabs._backlogs_limit
        whole_request = request(WHOLE_READ)
        assert whole_request is not None
        self.assertEqual(whole_request[2], WHOLE_READ)

    def test_little_is_read_plainly(self) -> None:
        """A line now and then is no whole read; whoever fills one is read whole, until several in a row are small."""
        port = Port(self)
        self.patch(arrivals, "SETTLING", 8)
        transport, peer = port.connect()
        transport.last_read = 0
        size = 0
        for line in [LINE] * 200:
            peer.sendall(line)
            size += len(line)
            port.read_all(size)
            self.assertIsNone(transport.request(WHOLE_READ))
        peer.sendall(LINE * 1000)
        size += len(LINE) * 1000
        port.read_all(size)
        for _ in range(6):
            self.assertIsNotNone(transport.request(WHOLE_READ))
            peer.sendall(LINE)
            size += len(LINE)
            port.read_all(size)
        self.assertIsNone(transport.request(WHOLE_READ))

    def test_once_dear(self) -> None:
        """Of one that is known to be dear no more is received than is framed, and each read is judged."""
        port = Port(self)
        transport, _ = port.connect()
        self.sent(port, LINE * 300)
        port.read_all(len(LINE) * 300)
        transport.is_dear = True
        transport.read_size = 8192
        request = transport.request(WHOLE_READ)
        assert request is not None
        self.assertEqual(request[2], 8192)
        port.judged.clear()
        self.sent(port, LINE * 20_000)
        port.read_all(len(LINE) * 20_300)
        self.assertLessEqual(max(port.judged), 8192)
        self.assertGreater(sum(port.judged), len(LINE) * 19_000)

    def test_rates(self) -> None:
        """Whoever has a rate is read from as before."""
        port = Port(self, rate=Rate(1e9, True), framing=Framing.NEWLINE)
        transport, _ = port.connect()
        self.assertIsNone(transport.request(WHOLE_READ))
        self.sent(port, b"x\n" * 100)
        port.read_all(200)


class Chunks(IngestProtocol):
    """A protocol that sees every chunk."""

    def dataReceived(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        super().dataReceived(data)


class PlainTests(SynchronousTestCase):
    def test_whoever_sees_chunks(self) -> None:
        """A protocol that overrides ``dataReceived`` is given bytes, each read as it came."""
        port = Port(self, protocol=Chunks, framing=Framing.NEWLINE)
        transport, peer = port.connect()
        self.assertIsNone(transport.request(WHOLE_READ))
        peer.sendall(b"x\ny")
        port.read_all(3)
        self.assertEqual(port.rig.sink.records, [b"x"])

    def test_an_unfinished_record_beyond_measure(self) -> None:
        """One longer than half a slab is gone on with as before."""
        size = SLAB_SIZE
        port = Port(self, framing=Framing.NEWLINE, max_record_bytes=2 * size)
        transport, peer = port.connect()
        peer.setblocking(False)
        data, sent = b"x" * size + b"\nlast\n", 0
        for _ in range(20_000):
            if sent < len(data):
                with contextlib.suppress(BlockingIOError):
                    sent += peer.send(data[sent:])
            port.turn()
            if transport.protocol.bytes_received == len(data):
                break
        self.assertEqual(list(map(len, port.rig.sink.records)), [size, 4])


class SlabTests(SynchronousTestCase):
    """The pool of slabs, by itself."""

    def setUp(self) -> None:
        self.charged = 0
        self.slabs = Slabs(Budget(MEMORY), self.charge)

    def charge(self, delta: int) -> None:
        self.charged += delta

    @given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 5)), max_size=60))
    def test_charge(self, steps: list[tuple[int, int]]) -> None:
        """With what batches are charged for, a pinned slab is charged whole, and a free one not at all."""
        self.setUp()
        held: list[tuple[Any, int]] = []
        for kib, back in steps:
            slab = self.slabs.writable(READ_SIZE)
            if slab is not None:
                size = min(kib * KIB, SLAB_SIZE - slab.position)
                held.append((self.slabs.lend(slab, size, slab.position + size), size))
            for _ in range(min(back, len(held))):
                held.pop(0)[0].let_go()
            pinned = {lease._slab for lease, _ in held}
            self.assertEqual(self.charged + sum(size for _, size in held), len(pinned) * SLAB_SIZE)
            self.assertLessEqual(self.slabs.made, self.slabs._most)
        while held:
            held.pop()[0].let_go()
        self.assertEqual(self.charged, 0)

    def test_not_before_it_is_let_go_of(self) -> None:
        """Nothing that is lent is given to be written to, however long it takes."""
        lent: dict[slabs.Slab, list[tuple[int, int]]] = {}
        while (slab := self.slabs.writable(READ_SIZE)) is not None:
            begin, end = slab.position, slab.position + READ_SIZE
            taken = lent.setdefault(slab, [])
            self.assertFalse([each for each in taken if begin < each[1] and each[0] < end])
            taken.append((begin, end))
            self.slabs.lend(slab, READ_SIZE, end)
        self.assertEqual(len(lent), self.slabs._most)

    def test_kept(self) -> None:
        """A slab that somebody looks at is never written to again, and another takes its place."""
        slab = self.slabs.writable(READ_SIZE)
        assert slab is not None
        view = slab.view[:100]
        piece = view[10:20]
        lease = self.slabs.lend(slab, 100, 100)
        view.release()
        lease.let_go()
        other = self.slabs.writable(READ_SIZE)
        self.assertIsNot(other, slab)
        self.assertEqual((self.slabs.given_up, self.slabs.made, len(piece), self.charged), (1, 1, 10, 0))

    def test_used_again(self) -> None:
        """One that is free is begun anew, whether it was full or not."""
        first = self.slabs.writable(READ_SIZE)
        assert first is not None
        self.slabs.lend(first, 100, 100).let_go()
        self.assertIs(self.slabs.writable(READ_SIZE), first)
        self.assertEqual((first.position, len(first.memory)), (0, SLAB_SIZE))
        lease = self.slabs.lend(first, SLAB_SIZE, SLAB_SIZE)
        second = self.slabs.writable(READ_SIZE)
        assert second is not None
        self.assertIsNot(second, first)
        lease.let_go()
        self.slabs.lend(second, SLAB_SIZE, SLAB_SIZE)
        self.assertIs(self.slabs.writable(slabs.LEAST_ROOM), first)

    def test_not_before_the_last_is_let_go_of(self) -> None:
        """One that was full is kept from being written to by the last batch as by the first."""
        first = self.slabs.writable(READ_SIZE)
        assert first is not None
        leases = [self.slabs.lend(first, 100, 100), self.slabs.lend(first, SLAB_SIZE - 100, SLAB_SIZE)]
        second = self.slabs.writable(READ_SIZE)
        assert second is not None
        leases[0].let_go()
        self.slabs.lend(second, SLAB_SIZE, SLAB_SIZE)
        third = self.slabs.writable(READ_SIZE)
        assert third is not None
        self.assertIsNot(third, first)
        leases[1].let_go()
        self.slabs.lend(third, SLAB_SIZE, SLAB_SIZE)
        self.assertIs(self.slabs.writable(READ_SIZE), first)


class CallTests(SynchronousTestCase):
    """What the calls into C find, held against what is to be found, said in Python."""

    def setUp(self) -> None:
        if not whole.IS_COMPILED:
            raise SkipTest("nothing was built in C")
        self.receive = whole._receive.receive
        self.ours, self.peers = [], []
        for _ in range(3):
            ours, peer = socket.socketpair()
            self.addCleanup(ours.close)
            self.addCleanup(peer.close)
            self.ours.append(ours.fileno())
            self.peers.append(peer)

    def expected(self, partial: bytes, data: bytes, limit: int, look: Look) -> tuple[bytes, int, bytes]:
        """Give the ordinary records, how many bytes they were, and the rest."""
        joined = partial + data
        if look == Look.NOTHING:
            return b"", 0, data
        evidence = look in (Look.LINES_OF_MIXED, Look.FRAMES_OF_MIXED)
        if look <= Look.LINES_OF_MIXED:
            wire, count, end = scanners.lines(b"", joined, 0, limit, evidence)
        else:
            wire, count, end = scanners.frames(joined, 0, limit, evidence)
        return (wire, end, joined[end:]) if count and end > len(partial) else (b"", 0, data)

    @settings(max_examples=int(os.environ.get("INGEST_TEST_SCANS", "300")), deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from([b"", b"li", b"<1", b"5 ", b"9 <1>lo"]), ORDINARY), min_size=1, max_size=3),
        st.sampled_from(list(Look)),
        st.integers(1, 40),
        st.sampled_from([1, 20, 1 << 30]),
    )
    def test_received(self, given: list[tuple[bytes, bytes]], look: Look, limit: int, views_from: int) -> None:
        """For each in turn: the records, the bytes they were, the rest; nothing behind the memory is touched."""
        given = [(partial, data) for partial, data in given if data]
        requests = []
        for (partial, data), ours, peer in zip(given, self.ours, self.peers, strict=False):
            peer.send(data)
            requests.append((ours, bytearray(partial), 1 << 20, limit, int(look)))
        size = sum(len(partial) + len(data) for partial, data in given)
        memory = bytearray(b"#" * (7 + size + 1))
        answers = self.receive(memory, 7, requests, 1, views_from)
        self.assertEqual((len(answers), memory[:7], memory[-1:]), (len(requests), b"#" * 7, b"#"))
        for (partial, data), answer in zip(given, answers, strict=True):
            got, (wire, count, size), rest = answer
            records, end, left = self.expected(partial, data, limit, look)
            self.assertEqual(got, len(data))
            if end < views_from and look >= Look.FRAMES:
                records, end, left = b"", 0, data  # so few are left to the framer
            if isinstance(wire, int):
                if look >= Look.FRAMES:
                    arguments = (wire, wire + size, wire + len(partial) + got, limit, look == Look.FRAMES_OF_MIXED)
                    wire = memory[wire : wire + whole._receive.compact(memory, *arguments)]
                else:
                    wire = memory[wire : wire + size]
            self.assertEqual((bytes(wire), count, size, rest), (records, records.count(b"\n"), end, left))
            self.assertLessEqual(whole.ordinary(partial, memoryview(data), limit, look), len(data))

    def test_room(self) -> None:
        """No more is received than was asked for, nor than there is room for; whoever finds none is not answered."""
        for peer in self.peers:
            peer.send(b"x" * 99 + b"\n")
        requests = [(ours, b"", 60, 1000, int(Look.LINES)) for ours in self.ours]
        memory = bytearray(130)
        answers = self.receive(memory, 0, requests, 20, 1)
        self.assertEqual([answer[0] for answer in answers], [60, 60])
        self.assertEqual(self.receive(memory, 120, requests, 20, 1), [])
        self.assertEqual([answer[0] for answer in self.receive(memory, 100, requests[2:], 20, 1)], [30])

    def test_ends(self) -> None:
        """An end, an error, and nothing at all are numbers."""
        self.peers[0].close()
        requests = [(number, b"part", 60, 1000, int(Look.LINES)) for number in (*self.ours[:2], -1)]
        self.assertEqual(self.receive(bytearray(999), 0, requests, 20, 1), [0, -errno.EAGAIN, -errno.EBADF])

    def test_refused(self) -> None:
        """What cannot be meant is refused, and no buffer stays taken."""
        memory, partial = bytearray(100), bytearray(b"part")
        good = (self.ours[0], partial, 60, 1000, int(Look.LINES))
        for arguments in (
            (memory, -1, [good], 20, 1),
            (memory, 101, [good], 20, 1),
            (memory, 0, [good], 0, 1),
            (memory, 0, [good, (1, partial, 0, 1000, 1)], 20, 1),
            (memory, 0, [good, (1, partial, 60, 1000, 5)], 20, 1),
            (memory, 0, [good] * (whole.MOST_AT_ONCE + 1), 20, 1),
        ):
            self.assertRaises(ValueError, self.receive, *arguments)
        for wrong in ([good, None], [good, (1, 2)], (good,)):
            self.assertRaises(TypeError, self.receive, memory, 0, wrong, 20, 1)
        for places in ((-1, 5, 5), (6, 5, 5), (0, 5, 4), (0, 5, 101)):
            self.assertRaises(ValueError, whole._receive.compact, memory, *places, 10, False)
        memory.append(0)
        partial.append(0)


class AttributeTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        """A connection that sends little carries nothing of this by itself."""
        self.assertEqual((Arrivals.last_read, len(Arrivals._backlog), Arrivals._let_go), (0, 0, None))
