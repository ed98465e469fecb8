"""Before a connection: stages on a virtual transport and clock, and on real sockets; who comes in, and who does not."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from tests.test_server_sockets import ListeningTestCase
from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import DiscardReason, RefuseReason
from twisted_ingest.limits import CLOSE_TIMEOUT, DOORWAY_BYTES, DOORWAY_LEAST, DOORWAY_TIMEOUT, KIB, READ_SIZE
from twisted_ingest.networks import AllowList, parse_network
from twisted_ingest.server.connection import Connection
from twisted_ingest.server.doorway import IStage, TurnedAwayError
from twisted_ingest.server.lines import IngestProtocol
from twisted_ingest.server.transports import IngestTransport
from twisted_ingest.testing import PumpTransport, Rig, StalledSink


class Header(IStage):
    """Reads ``FROM host`` and LF, which is who it is; capital letters are a bug, and ``nobody`` is turned away."""

    def __init__(self) -> None:
        self.held = b""
        self.is_closed = False

    def begin(self, info: ConnectionInfo, transport: IngestTransport) -> None:
        """Keep what is to be corrected."""
        self.info = info

    def feed(self, data: bytes) -> bytes | None:
        """Wait for the whole line."""
        self.held += data
        line, end, rest = self.held.partition(b"\n")
        if not end:
            return None
        host = line.removeprefix(b"FROM ").decode()
        if host.isupper():
            raise ZeroDivisionError(host)
        if host == "nobody":
            raise TurnedAwayError(RefuseReason.NOT_ALLOWED, "nobody may\nconnect", farewell=b"no\n")
        self.info.proxy, self.info.peer, self.info.host = self.info.peer, f"{host}:1", host
        return rest

    def close(self, reason: RefuseReason) -> None:
        """Note it."""
        self.is_closed = True


class Challenge(IStage):
    """Asks ``who?`` and wants four bytes, which are the identity."""

    def begin(self, info: ConnectionInfo, transport: IngestTransport) -> None:
        """Ask."""
        self.info, self.held = info, b""
        transport.write(b"who?")

    def feed(self, data: bytes) -> bytes | None:
        """Wait for the answer."""
        self.held += data
        if len(self.held) < 4:
            return None
        self.info.identity = self.held[:4].decode()
        return self.held[4:]


BOTH = (Header, Challenge)
HELLO = b"FROM 198.51.100.7\nmine"


class DoorwayCase(SynchronousTestCase):
    def rig(self, *sinks: Any, stages: Any = BOTH, **limits: Any) -> Rig:
        rig = Rig(*sinks, **limits)
        rig.factory.stages = stages
        self.addCleanup(lambda: self.assertEqual(rig.survey.conservation_error(), 0))
        return rig

    def refused(self, rig: Rig) -> dict[str, int]:
        return {reason.value: count for reason, count in rig.factory.ledger.connections_refused.items() if count}

    def say(self, peer: PumpTransport, data: bytes, size: int = READ_SIZE) -> None:
        peer.peer_sends(data)
        peer.pump(size)


class AdmissionTests(DoorwayCase):
    @given(st.integers(1, 40), st.sampled_from(["lines", "relp"]))
    def test_any_cut(self, size: int, wire: str) -> None:
        """However the bytes are cut, the stages learn the same, and what is behind them is the connection's."""
        rig = self.rig(wire=wire)
        peer = rig.connect()
        opening = b"relp_version=0\ncommands=syslog"
        session = b"1 open %d %s\n2 syslog 3 one\n3 syslog 3 two\n" % (len(opening), opening)
        said = session if wire == "relp" else b"one\ntwo\n"
        self.say(peer, HELLO + said, size)
        rig.turn()
        self.assertEqual(rig.sink.records, [b"one", b"two"])
        (connection,) = rig.factory.connections.values()
        info = connection.info
        self.assertEqual(
            (info.peer, info.host, info.proxy, info.identity),
            ("198.51.100.7:1", "198.51.100.7", "192.0.2.1:40000", "mine"),
        )
        self.assertEqual(rig.sink.batches[0].info, info)
        ledger = rig.factory.ledger
        self.assertEqual((ledger.bytes_received, connection.bytes_received), (len(HELLO + said), len(said)))
        self.assertEqual((rig.factory.doorways, rig.admission.room), ({}, 999))
        self.assertTrue(bytes(peer.written).startswith(b"who?"))
        self.assertEqual(b"2 rsp 6 200 OK\n" in peer.written, wire == "relp")

    def test_not_counted_before(self) -> None:
        """Until the last stage is through there is no connection: no place, no framer, no lane; then there is."""
        rig = self.rig(max_connections=1, descriptors=100)
        peers = [rig.connect(port=port) for port in (1, 2)]
        self.say(peers[0], HELLO[:-1])
        self.assertEqual((rig.factory.connections, rig.admission.open, rig.admission.room), ({}, 0, 1))
        self.assertEqual(rig.survey.view().listeners["test"].doorways_open, 2)
        self.assertEqual(rig.survey.view().listeners["test"].buffered_bytes, len(HELLO) - 1)
        self.say(peers[0], HELLO[-1:])
        self.assertIsInstance(peers[0].protocol, Connection)
        self.assertEqual((len(rig.factory.connections), rig.admission.room), (1, 0))
        self.say(peers[1], HELLO)  # the house was filled meanwhile
        self.assertEqual(self.refused(rig), {"full": 1})
        rig.turn()
        self.assertTrue(peers[1].was_reset)

    def test_judged_by_who_it_is(self) -> None:
        """Networks and caps per peer go by what the stages have learnt, not by who connected."""
        rig = self.rig(allow=AllowList([parse_network("198.51.100.0/24")]), per_peer=1)
        first, second, third = (rig.connect("192.0.2.1", port) for port in (1, 2, 3))
        for peer, host in ((first, b"198.51.100.7"), (second, b"198.51.100.7"), (third, b"203.0.113.1")):
            self.say(peer, b"FROM " + host + b"\nmineline\n")
        rig.turn()
        self.assertEqual(self.refused(rig), {"per_peer": 1, "not_allowed": 1})
        self.assertEqual((first.was_reset, second.was_reset, third.was_reset), (False, True, True))
        self.assertEqual(rig.admission.by_peer, {"198.51.100.7": 1})

    def test_held_back_as_it_comes_in(self) -> None:
        """One that is admitted while nothing is read is paused, and loses nothing."""
        rig = self.rig(StalledSink(), memory=1000 * KIB)
        rig.factory.stages = ()
        flood = [rig.connect(port=port) for port in range(8)]
        for peer in flood:
            self.say(peer, b"x" * 99 + b"\n" + (b"y" * 999 + b"\n") * 120)
        rig.turn()
        self.assertTrue(rig.intake.budget.mark.is_high)
        rig.factory.stages = BOTH
        peer = rig.connect(port=99)
        self.say(peer, HELLO + b"first\n")
        self.say(peer, b"second\n")
        self.assertEqual((peer.reading, bytes(peer.unread)), (False, b"second\n"))
        for _ in range(4):
            rig.sink.release()
            rig.turn()
        peer.pump()
        rig.turn()
        rig.sink.release()
        self.assertEqual(rig.sink.records[-2:], [b"first", b"second"])

    def test_no_stage_no_doorway(self) -> None:
        """Where there is no stage nothing stands before the connection."""
        rig = self.rig(stages=())
        built: list[object] = []
        self.patch(rig.factory, "_make_doorway", lambda *_: built.append(1))
        peer = rig.send(b"line\n")
        self.assertIsInstance(peer.protocol, Connection)
        self.assertEqual((built, rig.factory.doorways, rig.sink.records), ([], {}, [b"line"]))

    def test_a_layer_that_stays(self) -> None:
        """A stage may put a layer between the transport and the connection, as TLS has to."""

        class Layer(Header):
            def wrap(self, protocol: Any) -> Any:
                return Upper(protocol)

        class Upper:
            def __init__(self, protocol: Any) -> None:
                self.protocol = protocol

            def makeConnection(self, transport: Any) -> None:
                self.protocol.makeConnection(transport)

            def dataReceived(self, data: bytes) -> None:
                self.protocol.dataReceived(data.upper())

            def connectionLost(self, reason: Any) -> None:
                self.protocol.connectionLost(reason)

        rig = self.rig(stages=(Layer,))
        peer = rig.connect()
        self.say(peer, b"FROM a\nbehind\n")
        self.say(peer, b"line\n")
        peer.peer_closes()
        peer.pump()
        rig.turn()
        self.assertEqual((rig.sink.records, rig.factory.connections), ([b"BEHIND", b"LINE"], {}))


class RefusalTests(DoorwayCase):
    def test_deadline(self) -> None:
        """One deadline holds for all stages; bytes that wait to be read put it off once, whoever drips them."""
        rig = self.rig()
        silent, slow = rig.connect(port=1), rig.connect(port=2)
        self.say(slow, HELLO[:-2])
        rig.turn(DOORWAY_TIMEOUT - 1)
        self.assertEqual(self.refused(rig), {})
        slow.peer_sends(HELLO[-2:-1])
        rig.turn(1)
        self.assertEqual((self.refused(rig), silent.was_reset, slow.was_reset), ({"doorway_timeout": 1}, True, False))
        slow.pump()
        slow.peer_sends(HELLO[-1:])
        rig.turn(1)
        self.assertEqual((self.refused(rig), rig.factory.doorways), ({"doorway_timeout": 2}, {}))
        self.assertEqual(rig.factory.ledger.bytes_discarded[DiscardReason.DOORWAY], len(HELLO) - 1)
        self.assertEqual(rig.factory.ledger.bytes_unread, 1)

    def test_our_sleep(self) -> None:
        """Time that the process slept counts towards no deadline."""
        rig = self.rig()
        rig.connect()
        rig.factory.forgive(100)
        rig.turn(DOORWAY_TIMEOUT + 50)
        self.assertEqual((self.refused(rig), len(rig.factory.doorways)), ({}, 1))

    def test_turned_away(self) -> None:
        """Who is turned away is told so where the stage says what, and closed; what follows is not looked at."""
        rig = self.rig()
        peer = rig.connect()
        self.say(peer, b"FROM nobody\nmineline\n")
        self.assertEqual((bytes(peer.written), peer.disconnecting), (b"no\n", True))
        self.assertEqual(self.refused(rig), {"not_allowed": 1})
        rig.turn()
        self.assertEqual((rig.factory.doorways, rig.sink.records), ({}, []))

    def test_a_farewell_that_is_not_read(self) -> None:
        """A close in good order has its deadline here too."""
        rig = self.rig()
        peer = rig.connect()
        self.patch(peer, "loseConnection", lambda: None)
        self.say(peer, b"FROM nobody\n")
        self.say(peer, b"more")
        rig.turn(CLOSE_TIMEOUT - 1)
        self.assertFalse(peer.was_reset)
        rig.turn(2)
        self.assertEqual((peer.was_reset, rig.factory.doorways), (True, {}))

    def test_bug(self) -> None:
        """A stage that raises costs its newcomer, wherever it does so, and lets go of what the stages hold."""

        class Broken(Challenge):
            def begin(self, info: ConnectionInfo, transport: IngestTransport) -> None:
                raise ZeroDivisionError

        class Stuck(Header):
            def close(self, reason: RefuseReason) -> None:
                raise ZeroDivisionError

        def unmade() -> IStage:
            raise ZeroDivisionError

        cases: list[tuple[Any, ...]] = [(Header,), (Broken,), (unmade,), (Stuck, Broken)]
        for stages in cases:
            rig = self.rig(stages=stages)
            peer = rig.connect()
            self.say(peer, b"FROM A\n" if stages == (Header,) else b"FROM a\n")
            rig.turn()
            self.assertEqual((self.refused(rig), peer.was_reset), ({"internal_error": 1}, True))
            self.assertEqual((rig.factory.doorways, rig.factory.connections), ({}, {}))
            rig.factory.stages = BOTH
            self.say(rig.connect(port=2), HELLO + b"line\n")
            rig.turn()
            self.assertEqual(rig.sink.records, [b"line"])
            self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    def test_bug_as_it_comes_in(self) -> None:
        """A connection that fails as it is made is ended and counted; what stood behind the stages is discarded."""

        class Faulty(IngestProtocol):
            def connectionMade(self) -> None:
                raise ZeroDivisionError

        rig = self.rig(protocol=Faulty)
        peer = rig.connect()
        self.say(peer, HELLO + b"line\n")
        rig.turn()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((peer.was_reset, rig.factory.connections, rig.admission.open), (True, {}, 0))
        self.assertEqual(rig.factory.ledger.bytes_discarded[DiscardReason.INTERNAL_ERROR], 5)

    def test_hung_up(self) -> None:
        """Who hangs up or resets in the doorway is out of it at once, and its stages let go."""
        made: list[Header] = []

        def make() -> Header:
            made.append(Header())
            return made[-1]

        for end in ("peer_closes", "peer_resets"):
            rig = self.rig(stages=(make,))
            peer = rig.connect()
            peer.peer_sends(b"FROM")
            getattr(peer, end)()
            peer.pump()
            self.assertEqual((self.refused(rig), rig.factory.doorways), ({"doorway_left": 1}, {}))
            self.assertTrue(made[-1].is_closed)

    def test_no_end_of_bytes(self) -> None:
        """A stage that is never satisfied does not hold what it is sent for ever."""
        rig = self.rig()
        peer = rig.connect()
        peer.peer_sends(b"x" * 2 * DOORWAY_BYTES)
        peer.pump()
        rig.turn()
        self.assertEqual((self.refused(rig), rig.factory.doorways), ({"doorway_bytes": 1}, {}))
        self.assertLess(rig.factory.ledger.bytes_received, DOORWAY_BYTES + READ_SIZE + 1)


class FloodTests(DoorwayCase):
    def test_flood(self) -> None:
        """Thousands that say nothing hold no more than their share; the oldest make room, and who speaks comes in."""
        rig = self.rig(max_connections=1000, descriptors=1500)
        admitted = rig.connect(port=9)
        self.say(admitted, HELLO)
        silent = [rig.connect(f"192.0.2.{number % 200}", number) for number in range(3000)]
        self.assertEqual(rig.admission.doorway_limit, DOORWAY_LEAST)
        self.assertEqual(self.refused(rig), {"doorway_full": 3000 - DOORWAY_LEAST})
        self.assertGreater(rig.admission.room, 990)
        peer = rig.connect(port=9999)
        self.say(peer, b"FROM b\nmineline\n")
        self.say(admitted, b"admitted\n")
        rig.turn()
        self.assertEqual(rig.sink.records, [b"line", b"admitted"])
        self.assertEqual(sum(each.connected for each in silent), DOORWAY_LEAST - 1)
        rig.turn(DOORWAY_TIMEOUT)
        self.assertEqual((rig.factory.doorways, len(rig.factory.connections)), ({}, 2))

    def test_few_descriptors(self) -> None:
        """Where descriptors are few, doorways hold a part of them; a gate that they had closed opens again."""
        rig = self.rig(max_connections=10, descriptors=4)
        opened: list[int] = []
        rig.admission.on_room = lambda: opened.append(rig.admission.room)
        self.assertEqual(rig.admission.doorway_limit, 1)
        for port in range(3):
            self.say(rig.connect(port=port), HELLO)
        rig.connect(port=9)
        self.assertEqual(rig.admission.room, 0)
        self.assertIn("1 have yet to say who they are", rig.admission.fullness)
        rig.turn(DOORWAY_TIMEOUT)
        self.assertEqual(opened, [1])


class DrainTests(DoorwayCase):
    def test_drain(self) -> None:
        """A stop turns away at once who is not admitted, and whoever comes then; who is in is read to its end."""
        rig = self.rig()
        inside, outside = rig.connect(port=1), rig.connect(port=2)
        self.say(inside, HELLO + b"half")
        self.say(outside, HELLO[:-1])
        done = rig.drain()
        self.assertEqual((self.refused(rig), outside.was_reset), ({"draining": 1}, True))
        self.assertRaises(ConnectionRefusedError, rig.connect, "192.0.2.1", 3)
        self.say(inside, b" a line\n")
        inside.peer_closes()
        inside.pump()
        rig.clock.pump([0.05] * 100)
        self.successResultOf(done)
        self.assertEqual((rig.sink.records, self.refused(rig)), ([b"half a line"], {"draining": 2}))


class SocketTests(ListeningTestCase):
    async def test_comes_in(self) -> None:
        """On a real socket: a silent newcomer holds no place, one that speaks comes in, and sends and ends as any."""
        listener = await self.listen(self.listener(cap=8))
        listener.factory.stages = BOTH
        silent, peer = self.connect(listener), self.connect(listener)
        await self.until(lambda: len(listener.factory.doorways) == 2)
        self.assertEqual((self.admission.room, self.admission.open), (8, 0))
        peer.sendall(b"FROM 127.0.0.2\n")
        self.assertEqual(await self.heard(peer, 4), b"who?")
        peer.sendall(b"mineline\n")
        await self.until(lambda: self.sink.records)
        (connection,) = listener.factory.connections.values()
        self.assertEqual((connection.info.host, connection.info.identity), ("127.0.0.2", "mine"))
        connection.pauseProducing()
        peer.sendall(b"last")
        peer.close()
        await self.until(lambda: connection.transport.unread_bytes() == 4)
        listener.factory.sweep(0.0)
        self.assertTrue(connection.departed)
        connection.resumeProducing()
        await self.until(lambda: not listener.factory.connections)
        self.assertEqual(self.sink.records, [b"line", b"last"])
        listener.begin_drain()
        await self.until(lambda: self.is_reset(silent))
        await self.until(lambda: not listener.factory.doorways)

    async def test_closed_by_the_kernel(self) -> None:
        """One that is reset or closed in the doorway is noticed, and leaves nothing behind."""
        listener = await self.listen(self.listener())
        listener.factory.stages = BOTH
        orderly, rude = self.connect(listener), self.connect(listener)
        await self.until(lambda: len(listener.factory.doorways) == 2)
        orderly.sendall(b"FROM")
        orderly.close()
        rude.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: a reset
        rude.close()
        await self.until(lambda: not listener.factory.doorways)
        self.assertEqual(listener.factory.ledger.connections_refused[RefuseReason.DOORWAY_LEFT], 2)

    async def heard(self, peer: Any, count: int) -> bytes:
        peer.setblocking(False)
        found = b""
        for _ in range(1000):
            try:
                found += peer.recv(count)
            except BlockingIOError:
                await deferLater(reactor, 0.001)
            if len(found) >= count:
                break
        peer.setblocking(True)
        return found
