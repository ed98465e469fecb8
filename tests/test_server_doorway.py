"""Before a connection: stages on a virtual transport and clock, and on real sockets; who comes in, and who does not."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from tests.test_server_sockets import ListeningTestCase
from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import CloseReason, DiscardReason, RefuseReason
from twisted_ingest.flow.rate import PeerBuckets
from twisted_ingest.limits import (
    CLOSE_TIMEOUT,
    DOORWAY_BYTES,
    DOORWAY_LEAST,
    DOORWAY_OVERHEAD,
    DOORWAY_TIMEOUT,
    KIB,
    READ_SIZE,
)
from twisted_ingest.networks import AllowList, parse_network
from twisted_ingest.server.connection import Connection
from twisted_ingest.server.lines import IngestProtocol
from twisted_ingest.server.stages import IStage, TurnedAwayError
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
        self.assertEqual((len(rig.factory.doorways), rig.admission.room), (0, 999))
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

    def test_judged_before_a_stage(self) -> None:
        """Where no stage changes whose address counts, nothing is made for one that may not come in."""
        made: list[int] = []

        def make() -> IStage:
            made.append(1)
            return Header()

        arrivals = PeerBuckets(1.0)
        rig = self.rig(stages=(make,), allow=AllowList([parse_network("192.0.2.0/24")]), per_peer=1, arrivals=arrivals)
        self.say(rig.connect(), b"FROM 192.0.2.1\n")
        for host in ("192.0.2.1", "203.0.113.1"):
            self.assertRaises(ConnectionRefusedError, rig.connect, host, 2)
        rig.connect("192.0.2.2")
        self.assertRaises(ConnectionRefusedError, rig.connect, "192.0.2.2", 2)
        self.assertEqual(self.refused(rig), {"per_peer": 1, "not_allowed": 1, "connection_rate": 1})
        self.assertEqual(len(made), 2)

    def test_judged_again(self) -> None:
        """Caps are looked at again at the end of the doorway: two that came at once are not both let in."""
        rig = self.rig(per_peer=1, stages=(Challenge,))
        first, second = rig.connect(port=1), rig.connect(port=2)
        self.say(first, b"mine")
        self.say(second, b"mine")
        rig.turn()
        self.assertEqual((self.refused(rig), second.was_reset), ({"per_peer": 1}, True))
        self.assertEqual(rig.admission.by_peer, {"192.0.2.1": 1})

    def stalled(self, **limits: Any) -> Rig:
        """Make a rig that reads from nobody, because a sink is behind."""
        rig = self.rig(StalledSink(), memory=1000 * KIB, **limits)
        rig.factory.stages = ()
        for port in range(8):
            self.say(rig.connect(port=port), b"x" * 99 + b"\n" + (b"y" * 999 + b"\n") * 120)
        rig.turn()
        self.assertTrue(rig.intake.budget.mark.is_high)
        rig.factory.stages = BOTH
        return rig

    def relieve(self, rig: Rig) -> None:
        for _ in range(4):
            rig.sink.release()
            rig.turn()

    def test_held_back_as_it_comes_in(self) -> None:
        """Of one that is admitted while nothing is read nothing is framed, what stood behind its stages included."""
        rig = self.stalled()
        used = rig.intake.budget.used
        peer = rig.connect(port=99)
        self.say(peer, HELLO + b"first\n")
        (connection,) = (each for each in rig.factory.connections.values() if each.info.identity)
        self.assertEqual((connection.paused, connection.bytes_received), (True, 0))
        self.assertEqual((rig.intake.budget.used - used, rig.admission.kept_bytes), (6, 6))
        self.say(peer, b"second\n")
        self.assertEqual((peer.reading, bytes(peer.unread)), (False, b"first\nsecond\n"))
        self.assertEqual(rig.survey.conservation_error(), 0)
        self.relieve(rig)
        peer.pump()
        rig.turn()
        rig.sink.release()
        self.assertEqual(b"\n".join(rig.sink.records[-2:]), b"first\nsecond")
        self.assertEqual((rig.admission.kept_bytes, rig.intake.budget.used), (0, 0))

    def test_held_back_and_gone(self) -> None:
        """One that hangs up while it is held back is read to its end; one that is cut off leaves no charge behind."""
        rig = self.stalled()
        leaver, cut = rig.connect(port=98), rig.connect(port=99)
        for peer in (leaver, cut):
            self.say(peer, HELLO + b"last words\n")
        leaver.peer_closes()
        rig.turn(1)
        self.assertEqual((rig.admission.departed, rig.admission.kept_bytes), (1, 22))
        cut.protocol.close(CloseReason.DRAIN, reset=True)
        rig.turn()
        self.assertEqual((rig.admission.kept_bytes, rig.factory.ledger.bytes_unread), (11, 11))
        self.relieve(rig)
        leaver.pump()
        rig.turn()
        rig.sink.release()
        self.assertEqual(rig.sink.records[-1], b"last words")
        self.assertEqual((rig.admission.departed, rig.admission.kept_bytes), (0, 0))

    def test_too_much_to_keep(self) -> None:
        """What is kept of those who come while nothing is read has a bound; past it they are turned away."""
        rig = self.stalled()
        rig.admission.doorway_memory = 100 * KIB
        peers = [rig.connect(port=100 + number) for number in range(8)]
        for peer in peers:
            self.say(peer, HELLO + b"z" * 9 * KIB + b"\n")
        self.assertLessEqual(rig.admission.kept_bytes, 50 * KIB)
        self.assertEqual(self.refused(rig), {"doorway_full": 3})
        rig.turn()
        self.assertEqual([peer.was_reset for peer in peers], [False] * 5 + [True] * 3)

    def test_no_stage_no_doorway(self) -> None:
        """Where there is no stage nothing stands before the connection."""
        rig = self.rig(stages=())
        built: list[object] = []
        self.patch(rig.factory, "_make_doorway", lambda *_: built.append(1))
        peer = rig.send(b"line\n")
        self.assertIsInstance(peer.protocol, Connection)
        self.assertEqual((built, len(rig.factory.doorways), rig.sink.records), ([], 0, [b"line"]))

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
        self.assertEqual((self.refused(rig), len(rig.factory.doorways)), ({"doorway_timeout": 2}, 0))
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
        self.assertEqual((len(rig.factory.doorways), rig.sink.records), (0, []))

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
        self.assertEqual((peer.was_reset, len(rig.factory.doorways)), (True, 0))

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
            self.assertEqual((len(rig.factory.doorways), rig.factory.connections), (0, {}))
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
            self.assertEqual((self.refused(rig), len(rig.factory.doorways)), ({"doorway_left": 1}, 0))
            self.assertTrue(made[-1].is_closed)

    def test_a_look_at_the_door(self) -> None:
        """Who leaves without a byte for a stage to begin with, as checks of ports do, is counted, and not told of."""
        rig = self.rig()
        seen: list[str] = []
        rig.events.subscribe(lambda fact: seen.append(fact.kind))
        for end in ("peer_closes", "peer_resets"):
            peer = rig.connect()
            getattr(peer, end)()
            peer.pump()
        self.assertEqual((self.refused(rig), seen), ({"doorway_left": 2}, []))
        for said, told in ((b"FROM a\n", []), (b"FROM a\nmi", ["connection_refused_doorway_left"])):
            peer = rig.connect()
            self.say(peer, said)
            peer.peer_closes()
            peer.pump()
            self.assertEqual(seen, told)

    def test_no_end_of_bytes(self) -> None:
        """A stage that is never satisfied does not hold what it is sent for ever."""
        rig = self.rig()
        peer = rig.connect()
        peer.peer_sends(b"x" * 2 * DOORWAY_BYTES)
        peer.pump()
        rig.turn()
        self.assertEqual((self.refused(rig), len(rig.factory.doorways)), ({"doorway_bytes": 1}, 0))
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
        self.assertEqual((len(rig.factory.doorways), len(rig.factory.connections)), (0, 2))

    def test_memory(self) -> None:
        """What newcomers send is charged, and has a bound for all of them together: the oldest make room."""
        rig = self.rig(stages=(Header,))
        rig.admission.doorway_memory = 10 * (DOORWAY_OVERHEAD + 10 * KIB)
        admitted = rig.connect(port=9)
        self.say(admitted, b"FROM a\n")
        peers = [rig.connect(port=10 + number) for number in range(30)]
        for number, peer in enumerate(peers):
            self.say(peer, b"x" * 10 * KIB)
            self.assertLessEqual(rig.admission.doorway_bytes, rig.admission.doorway_memory)
            self.assertEqual(rig.intake.budget.used, rig.admission.doorway_bytes, number)
        rig.turn()
        refused = self.refused(rig)["doorway_full"]
        self.assertEqual([peer.was_reset for peer in peers], [True] * refused + [False] * (30 - refused))
        self.assertGreater(refused, 19)
        self.say(admitted, b"admitted\n")
        rig.turn(DOORWAY_TIMEOUT + 1)
        self.assertEqual(rig.sink.records, [b"admitted"])
        self.assertEqual((rig.admission.doorway_bytes, rig.intake.budget.used), (0, 0))

    def test_what_a_stage_takes(self) -> None:
        """What a stage says that it takes is charged as long as its newcomer stands there, however it goes."""

        class Dear(Header):
            cost = 30 * KIB

        for said, end in ((b"FROM a\n", None), (b"FROM nobody\n", None), (b"FROM", "peer_resets")):
            rig = self.rig(stages=(Dear,))
            peer = rig.connect()
            self.assertEqual(rig.intake.budget.used, DOORWAY_OVERHEAD + 30 * KIB)
            self.say(peer, said)
            if end:
                getattr(peer, end)()
                peer.pump()
            rig.turn()
            self.assertEqual((rig.intake.budget.used, rig.admission.doorway_bytes), (0, 0))

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

    async def test_held_back(self) -> None:
        """What stood behind the stages of one that is held back is brought when it is read, before anything newer."""

        class Waiting(IngestProtocol):
            def connectionMade(self) -> None:
                super().connectionMade()
                self.pauseProducing()

        listener = await self.listen(self.listener())
        listener.factory.stages, listener.factory.protocol = (Header,), Waiting
        for newer in (b"", b"newer\n"):
            peer = self.connect(listener)
            peer.sendall(b"FROM a\nbehind\n")
            await self.until(lambda: listener.factory.connections)
            (connection,) = listener.factory.connections.values()
            peer.sendall(newer)
            peer.close()
            wanted = len(b"behind\n" + newer)
            await self.until(lambda each=connection, size=wanted: each.transport.unread_bytes() == size)
            listener.factory.sweep(0.0)
            self.assertEqual((connection.departed, connection.bytes_received), (True, 0))
            connection.resumeProducing()
            connection.pauseProducing()
            await deferLater(reactor, 0.01)
            self.assertEqual(connection.bytes_received, 0)
            connection.resumeProducing()
            await self.until(lambda: not listener.factory.connections)
            self.assertEqual((self.admission.kept_bytes, listener.factory.ledger.bytes_unread), (0, 0))
        self.assertEqual(self.sink.records, [b"behind", b"behind", b"newer"])

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
