"""Ports on real sockets: inherited options, the gate at the cap, back-off, refusals, UNIX sockets."""

import errno
import os
import socket
import struct
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from twisted_ingest.errors import AcceptError, ListenError, RefuseReason
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.intake import Intake
from twisted_ingest.limits import KEEPALIVE_COUNT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, MIB, READ_SIZE, ListenerLimits
from twisted_ingest.observe.events import Events
from twisted_ingest.server.admission import Admission
from twisted_ingest.server.gate import ACCEPT_BACKOFF_SECONDS
from twisted_ingest.server.lines import IngestFactory
from twisted_ingest.server.protocol import IngestProtocol
from twisted_ingest.server.reading import PortReading
from twisted_ingest.server.sockets import ListeningReactor, TCPPort
from twisted_ingest.server.transports import UNIXTransport, address_text
from twisted_ingest.sources.listener import Listener
from twisted_ingest.testing import MemorySink, Rig, StalledSink


class AdmissionTests(SynchronousTestCase):
    @given(st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "b", None])), max_size=50))
    def test_counts(self, steps: list[tuple[bool, str | None]]) -> None:
        """Counts equal the set of live connections, never go negative, and room opens exactly when one leaves."""
        admission = Admission(3, 2)
        opened: list[int] = []
        admission.on_room = lambda: opened.append(admission.open)
        alive: list[str | None] = []
        for enters, host in steps:
            if enters and admission.room and admission.refusal(host, 0.0) is None:
                admission.enter(host)
                alive.append(host)
            elif not enters and host in alive:
                alive.remove(host)
                admission.leave(host)
            self.assertEqual((admission.open, admission.room), (len(alive), 3 - len(alive)))
            self.assertEqual(dict(admission.by_peer), {h: alive.count(h) for h in set(alive) if h is not None})
            self.assertTrue(all(alive.count(h) <= 2 for h in alive if h is not None))
        self.assertEqual(set(opened) <= {2}, True)

    def test_per_peer(self) -> None:
        """A peer beyond its own cap is refused and counted; others are not."""
        rig = Rig(per_peer=2)
        rig.connect("192.0.2.1", 1)
        rig.connect("192.0.2.1", 2)
        self.assertRaises(ConnectionRefusedError, rig.connect, "192.0.2.1", 3)
        rig.connect("192.0.2.2", 1)
        self.assertEqual(rig.factory.ledger.connections_refused[RefuseReason.PER_PEER], 1)

    def test_full(self) -> None:
        """A server whose room is taken is not ready, and says what takes it: the silent, the departed, descriptors."""
        rig = Rig(StalledSink(), connection_memory=READ_SIZE + 134_000, max_connections=2, descriptors=3)
        rig.survey.state = "ready"
        rig.send(b"a line\n")
        self.assertEqual(rig.survey.reasons(), [])
        rig.connect()
        words = "2 connections are open, the most allowed (--max-connections)"
        self.assertEqual(
            rig.survey.reasons(), [f"{words}; 1 of them have sent no record: new ones wait until one closes"]
        )
        for _ in range(2):
            peer = rig.send(b"x" * 99_000 + b"\n" + b"y" * 99_000 + b"\n")
            peer.peer_sends(b"left\n")
            peer.peer_closes()
            rig.turn(1)
        (reason,) = rig.survey.reasons()
        self.assertIn("and those of 2 peers that are gone have yet to be read", reason)

    def test_address_text(self) -> None:
        """Addresses of every family become text, and the host that limits count by."""
        self.assertEqual(address_text(IPv4Address("TCP", "192.0.2.1", 5)), ("192.0.2.1:5", "192.0.2.1"))
        self.assertEqual(address_text(IPv6Address("TCP", "2001:db8::1", 5)), ("[2001:db8::1]:5", "2001:db8::1"))
        self.assertEqual(address_text(UNIXAddress(b"/run/x")), ("unix:/run/x", None))
        self.assertEqual(address_text(UNIXAddress(None)), ("unix:anonymous", None))

    def test_build_protocol_never_raises(self) -> None:
        """An exception while building a protocol refuses that connection, counted, and nothing else."""
        rig = Rig()
        self.assertIsNone(rig.factory.buildProtocol(SimpleNamespace(host="no port")))  # type: ignore[arg-type]
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertEqual(rig.factory.ledger.connections_refused[RefuseReason.INTERNAL_ERROR], 1)


class ListeningTestCase(TestCase):
    """A listener on the real reactor; ``clock`` drives its own timers."""

    def listener(
        self,
        endpoint: str = "tcp:0:interface=127.0.0.1",
        cap: int = 100,
        clock: Any = reactor,
        **limits: Any,
    ) -> Listener:
        self.sink = MemorySink()
        self.events = Events(reactor.seconds)
        self.admission = Admission(cap)
        intake = Intake(reactor, Budget(64 * MIB), MIB)
        intake.add_sink(self.sink, required=True)
        factory = IngestFactory(
            "test",
            ListenerLimits(**limits),
            intake=intake,
            admission=self.admission,
            events=self.events,
            clock=clock,
            wall_time=reactor.seconds,
        )
        listener = Listener(endpoint, factory, reactor, self.admission)
        self.admission.on_room = listener.open_gate
        self.addCleanup(self.stop, listener)
        return listener

    async def listen(self, listener: Listener) -> Listener:
        listener.bind()
        return listener

    def stop(self, listener: Listener) -> "Deferred[None]":
        return ensureDeferred(self._stop(listener))

    async def _stop(self, listener: Listener) -> None:
        await listener.stop()
        for connection in list(listener.factory.connections.values()):
            connection.transport.abortConnection()
        await self.until(lambda: not listener.factory.connections)

    async def until(self, condition: Any) -> None:
        """Let the reactor turn until something is so."""
        for _ in range(2000):
            if condition():
                return
            await deferLater(reactor, 0.001)
        self.fail("it never came to be")

    def connect(self, listener: Listener) -> socket.socket:
        peer = socket.create_connection(("127.0.0.1", listener.port.getHost().port))
        self.addCleanup(peer.close)
        return peer

    def is_reset(self, peer: socket.socket) -> bool:
        peer.setblocking(False)
        try:
            return peer.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True


class ListeningTests(ListeningTestCase):
    async def test_accepted_sockets_inherit_the_options(self) -> None:
        """Keepalive, user timeout, no-delay and the receive buffer set on the port hold on what it accepts."""
        listener = await self.listen(self.listener(receive_buffer_bytes=32768))
        self.connect(listener)
        await self.until(lambda: listener.factory.connections)
        (connection,) = listener.factory.connections.values()
        accepted = connection.transport.getHandle()  # type: ignore[attr-defined]
        tcp = socket.IPPROTO_TCP
        self.assertEqual(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
        self.assertEqual(accepted.getsockopt(tcp, socket.TCP_KEEPIDLE), KEEPALIVE_IDLE)
        self.assertEqual(accepted.getsockopt(tcp, socket.TCP_KEEPINTVL), KEEPALIVE_INTERVAL)
        self.assertEqual(accepted.getsockopt(tcp, socket.TCP_KEEPCNT), KEEPALIVE_COUNT)
        self.assertEqual(accepted.getsockopt(tcp, socket.TCP_USER_TIMEOUT), 120_000)
        self.assertNotEqual(accepted.getsockopt(tcp, socket.TCP_NODELAY), 0)
        # The kernel doubles what is asked for, for its own bookkeeping (socket(7)).
        self.assertEqual(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), 2 * 32768)
        self.assertGreaterEqual(listener.port.backlog, 1024)

    async def test_half_closing_one_that_was_reset(self) -> None:
        """A peer that resets while it is held back can be half-closed, and what it had sent is read all the same."""
        listener = await self.listen(self.listener())
        peer = self.connect(listener)
        await self.until(lambda: listener.factory.connections)
        (connection,) = listener.factory.connections.values()
        connection.pauseProducing()
        peer.sendall(b"line\n" * 50)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        connection.begin_drain()
        for _ in range(20):
            await deferLater(reactor, 0)
        self.assertEqual(connection.transport.unread_bytes(), 250)
        connection.resumeProducing()
        await self.until(lambda: not listener.factory.connections)
        self.assertEqual((len(self.sink.records), listener.factory.ledger.bytes_unread), (50, 0))

    async def test_unread_at_a_reset(self) -> None:
        """What the kernel holds of a connection that is ended by us is counted as it is closed."""
        listener = await self.listen(self.listener())
        peer = self.connect(listener)
        await self.until(lambda: listener.factory.connections)
        (connection,) = listener.factory.connections.values()
        connection.pauseProducing()
        peer.sendall(b"line\n" * 50)
        await self.until(lambda: connection.transport.unread_bytes() == 250)
        connection.transport.abortConnection()
        await self.until(lambda: not listener.factory.connections)
        self.assertEqual((len(self.sink.records), listener.factory.ledger.bytes_unread), (0, 250))

    async def test_stops_accepting_at_the_cap(self) -> None:
        """At the cap new clients wait in the backlog, unharmed, and come in as soon as one leaves."""
        listener = await self.listen(self.listener(cap=3))
        peers = [self.connect(listener) for _ in range(6)]
        for number, peer in enumerate(peers):
            peer.sendall(b"peer %d\n" % number)
        await self.until(lambda: len(self.sink.records) == 3)
        for _ in range(20):
            await deferLater(reactor, 0)
        self.assertEqual(len(listener.factory.connections), 3)
        for peer in peers[:3]:
            peer.close()
        await self.until(lambda: len(self.sink.records) == 6)
        self.assertEqual(listener.factory.ledger.connections_opened, 6)

    async def test_backs_off_when_the_kernel_has_nothing_to_give(self) -> None:
        """Out of descriptors or memory, accepting waits, longer each time, and then goes on."""
        listener = await self.listen(self.listener())
        port: TCPPort = listener.port
        real, clock = port.socket, Clock()

        class Exhausted:
            """A listening socket of a process out of descriptors."""

            calls = 0

            def accept(self) -> Any:
                self.calls += 1
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        exhausted = Exhausted()
        port.socket = exhausted  # type: ignore[assignment]
        self.patch(port, "reactor", clock)
        self.patch(port, "startReading", port.doRead)
        self.patch(port, "stopReading", lambda: None)
        port.doRead()
        waits = []
        for _ in range(8):
            (call,) = clock.getDelayedCalls()
            waits.append(round(call.getTime() - clock.seconds(), 3))
            clock.advance(waits[-1])
        first, longest = ACCEPT_BACKOFF_SECONDS
        self.assertEqual(waits[:3], [first, 2 * first, 4 * first])
        self.assertEqual((max(waits), exhausted.calls), (longest, 9))
        self.assertEqual(listener.factory.ledger.accept_errors[AcceptError.DESCRIPTORS], 9)
        port.close_gate()
        self.assertEqual(clock.getDelayedCalls(), [])
        port.socket = real

    async def test_a_peer_gone_before_accept(self) -> None:
        """A connection that ended before we accepted it costs one look, not a wait."""
        listener = await self.listen(self.listener())
        port = listener.port
        real = port.socket

        class Flaky:
            """A socket whose first accept fails for its peer's sake."""

            failed = False

            def accept(self) -> Any:
                if not self.failed:
                    self.failed = True
                    raise OSError(errno.ECONNABORTED, "gone")
                return real.accept()

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        port.socket = Flaky()
        self.connect(listener)
        await self.until(lambda: listener.factory.connections)
        self.assertIsNone(port._backoff_call)
        self.assertEqual(listener.factory.ledger.accept_errors[AcceptError.ABORTED], 1)
        port.socket = real

    async def test_unix_socket(self) -> None:
        """A UNIX socket listens like a TCP one, and its file is gone afterwards."""
        path = self.mktemp()
        listener = await self.listen(self.listener(f"unix:{path}"))
        peer = socket.socket(socket.AF_UNIX)
        self.addCleanup(peer.close)
        peer.connect(path)
        peer.sendall(b"over unix\nlast")
        peer.close()
        await self.until(lambda: len(self.sink.records) == 2)
        self.assertEqual(self.sink.records, [b"over unix", b"last"])
        await listener.stop()
        self.assertNotIn(os.path.basename(path), os.listdir(os.path.dirname(path) or "."))

    async def test_socket_from_the_service_manager(self) -> None:
        """A socket that is listened on already is taken over, with our options set on it."""
        for family, address in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, self.mktemp())):
            given = socket.socket(family)
            self.addCleanup(given.close)
            given.bind(address)
            given.listen(5)
            given.setblocking(False)
            listener = self.listener()
            ports = ListeningReactor(reactor, self.admission, self.events, None)
            listener._ports, listener.port = ports, ports.adoptStreamPort(given.fileno(), family, listener.factory)
            peer = socket.socket(family)
            self.addCleanup(peer.close)
            peer.connect(given.getsockname())
            peer.sendall(b"adopted\n")
            await self.until(lambda: self.sink.records)
            (connection,) = listener.factory.connections.values()
            self.assertEqual(connection.transport.unread_bytes(), 0)
            accepted = connection.transport.getHandle()  # type: ignore[attr-defined]
            keepalive = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            self.assertEqual(keepalive, int(family == socket.AF_INET))
            peer.close()
            await self.until(lambda: not self.admission.open)

    async def test_a_descriptor_that_was_handed_over(self) -> None:
        """A connection needs no port: read with a `PortReading` it frames, pauses, is half-closed and ends as any."""
        factory = self.listener().factory
        reading = PortReading(reactor, self.events.internal_error)
        handed, peer = socket.socketpair()
        self.addCleanup(peer.close)
        handed.setblocking(False)
        protocol = factory.buildProtocol(UNIXAddress(None))
        assert isinstance(protocol, IngestProtocol)
        transport = UNIXTransport(handed, protocol, "", reading, reactor)
        protocol.makeConnection(transport)
        reading.retire()
        peer.sendall(b"handed\nover\nhalf")
        await self.until(lambda: len(self.sink.records) == 2)
        protocol.pauseProducing()
        peer.sendall(b" a line\n")
        await self.until(lambda: transport.unread_bytes() == 8)
        protocol.resumeProducing()
        protocol.begin_drain()
        self.assertEqual(peer.recv(1), b"")
        peer.close()
        await self.until(lambda: not factory.connections)
        self.assertEqual(self.sink.records, [b"handed", b"over", b"half a line"])
        if reading.readiness is not None:
            self.assertEqual(reading.readiness.fileno(), -1)

    async def test_refused_and_broken_connections(self) -> None:
        """A refused peer is reset at once; a bug as a connection is made resets that one; the port goes on."""
        listener = await self.listen(self.listener())
        self.admission.draining = True
        refused = self.connect(listener)
        await self.until(lambda: listener.factory.ledger.connections_refused[RefuseReason.DRAINING])
        # A reset, not a FIN: after that its next write would succeed and vanish.
        self.assertRaises(ConnectionResetError, refused.recv, 1)
        self.admission.draining = False

        class Broken(IngestProtocol):
            def connectionMade(self) -> None:
                raise ZeroDivisionError

        listener.factory.protocol = Broken
        broken = self.connect(listener)
        await self.until(lambda: self.events.internal_errors)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        listener.factory.protocol = IngestProtocol
        await self.until(lambda: self.is_reset(broken))
        self.connect(listener)
        await self.until(lambda: listener.factory.connections)

    async def test_taken_port(self) -> None:
        """A port that is taken is an error that names the address and the reason."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            with self.assertRaisesRegex(ListenError, f"{endpoint}: Address already in use"):
                await self.listen(self.listener(endpoint))

    async def test_reset_is_told_from_eof(self) -> None:
        """A reset and an orderly end are counted under their own reasons."""
        listener = await self.listen(self.listener())
        orderly, rude = self.connect(listener), self.connect(listener)
        orderly.sendall(b"half")
        rude.sendall(b"half")
        await self.until(lambda: listener.factory.buffered() == 8)
        orderly.close()
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        rude.close()
        await self.until(lambda: not listener.factory.connections)
        reasons = {r.value: n for r, n in listener.factory.ledger.connections_closed.items() if n}
        self.assertEqual(reasons, {"eof": 1, "reset": 1})
        await self.until(lambda: self.sink.records)
        self.assertEqual(self.sink.records, [b"half"])

    async def test_unread_bytes(self) -> None:
        """What waits in the kernel while we do not read is counted."""
        listener = await self.listen(self.listener())
        peer = self.connect(listener)
        await self.until(lambda: listener.factory.connections)
        (connection,) = listener.factory.connections.values()
        connection.pauseProducing()
        peer.sendall(b"x" * 1234)
        await self.until(lambda: connection.transport.unread_bytes() == 1234)
        connection.resumeProducing()
        await self.until(lambda: connection.bytes_received == 1234)
