"""A PROXY header in front of everything: who is let in, as whom, and what is said of it."""

import dataclasses
from typing import Any

from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from tests.test_framing_proxy import LOCAL, PROXY, TCP4, TCP6, UNIX, UNSPEC, block, checked, ends4
from tests.test_server_sockets import ListeningTestCase
from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import CloseReason, DiscardReason
from twisted_ingest.flow.rate import PeerBuckets
from twisted_ingest.limits import DOORWAY_TIMEOUT, PROXY_TIMEOUT, READ_SIZE
from twisted_ingest.networks import AllowList, parse_network
from twisted_ingest.server.connection import Connection
from twisted_ingest.server.stages import IStage
from twisted_ingest.server.transports import IngestTransport
from twisted_ingest.testing import PumpTransport, Rig
from twisted_ingest.units import Rate


def networks(*texts: str) -> AllowList:
    """Read networks."""
    return AllowList(map(parse_network, texts))


HEADER = b"PROXY TCP4 198.51.100.7 203.0.113.9 40001 514\r\n"


class ProxyCase(SynchronousTestCase):
    def rig(self, proxies: str = "192.0.2.0/24", **limits: Any) -> Rig:
        rig = Rig(proxies=networks(proxies), **limits)
        self.facts: list[Any] = []
        rig.events.subscribe(self.facts.append)
        self.addCleanup(lambda: self.assertEqual(rig.survey.conservation_error(), 0))
        self.addCleanup(self.see_charges, rig)
        return rig

    def see_charges(self, rig: Rig) -> None:
        """Let everybody in the doorway go; nothing may be left charged."""
        rig.turn(DOORWAY_TIMEOUT + PROXY_TIMEOUT)
        self.assertEqual((len(rig.factory.doorways), rig.admission.doorway_bytes), (0, 0))

    def say(self, peer: PumpTransport, data: bytes, size: int = READ_SIZE) -> None:
        peer.peer_sends(data)
        peer.pump(size)

    def come(self, rig: Rig, data: bytes, host: str = "192.0.2.1", port: int = 40000) -> PumpTransport:
        """Connect, and send."""
        peer = rig.connect(host, port)
        self.say(peer, data)
        return peer

    def refused(self, rig: Rig) -> dict[str, int]:
        return {reason.value: count for reason, count in rig.factory.ledger.connections_refused.items() if count}

    def told(self) -> list[str]:
        return [fact.kind for fact in self.facts]


class AnnouncedTests(ProxyCase):
    def test_who_it_is(self) -> None:
        """Whom the header names is the peer, the proxy is known beside it, and what follows is its records."""
        cases = [
            (HEADER, "198.51.100.7:40001", "198.51.100.7", "203.0.113.9:514"),
            (b"PROXY TCP6 2001:db8::7 2001:db8::9 1 2\r\n", "[2001:db8::7]:1", "2001:db8::7", "[2001:db8::9]:2"),
            (
                checked(PROXY, TCP4, ends4("198.51.100.7", "203.0.113.9", (1, 2))),
                "198.51.100.7:1",
                "198.51.100.7",
                "203.0.113.9:2",
            ),
            (block(PROXY, TCP6, bytes(15) + b"\1" + bytes(15) + b"\2\0\3\0\4"), "[::1]:3", "::1", "[::2]:4"),
            (block(PROXY, UNIX, b"/run/a".ljust(216, b"\0")), "unix:/run/a", None, "unix:anonymous"),
        ]
        for header, peer, host, local in cases:
            for size in (1, 7, READ_SIZE):
                rig = self.rig()
                self.say(rig.connect(), header + b"one\ntwo\n", size)
                rig.turn()
                (connection,) = rig.factory.connections.values()
                info = connection.info
                self.assertEqual((info.peer, info.host, info.local, info.proxy), (peer, host, local, "192.0.2.1:40000"))
                self.assertEqual((rig.sink.records, rig.sink.batches[0].info), ([b"one", b"two"], info))
                row = next(rig.survey.connections())
                self.assertEqual((row["peer"], row["proxy"], row["local"]), (peer, "192.0.2.1:40000", local))
                ledger = rig.factory.ledger
                self.assertEqual((ledger.bytes_framing, ledger.bytes_accepted), (len(header) + 2, 6))

    def test_limits_follow(self) -> None:
        """Networks, caps and rates go by the announced address, not by the proxy's."""
        rig = self.rig(allow=networks("198.51.100.0/24"), per_peer=1, arrivals=PeerBuckets(1.0))
        self.come(rig, HEADER + b"in\n", port=1)
        self.come(rig, HEADER.replace(b".7 ", b".8 "), port=2)
        denied = self.come(rig, HEADER.replace(b"198.51", b"203.0") + b"denied\n", port=3)
        second = self.come(rig, HEADER + b"second\n", port=4)
        hasty = self.come(rig, HEADER.replace(b".7 ", b".8 "), port=5)
        rig.turn()
        self.assertEqual(self.refused(rig), {"not_allowed": 1, "per_peer": 2})
        self.assertEqual([peer.was_reset for peer in (denied, second, hasty)], [True] * 3)
        self.assertEqual((rig.sink.records, rig.admission.by_peer), ([b"in"], {"198.51.100.7": 1, "198.51.100.8": 1}))
        self.assertIn(
            "203.0.100.7:40001", [fact.fields["peer"] for fact in self.facts if fact.kind.endswith("allowed")]
        )

    def test_rate_of_connecting(self) -> None:
        """How often one may connect is charged once, to whom the header names."""
        rig = self.rig(arrivals=PeerBuckets(1.0))
        for number, expected in enumerate(({}, {"connection_rate": 1})):
            self.come(rig, HEADER, port=number)
            self.assertEqual(self.refused(rig), expected)
        self.come(rig, HEADER.replace(b".7 ", b".8 "), port=9)
        self.assertEqual(len(rig.factory.connections), 2)

    def test_rate_per_peer(self) -> None:
        """The rate of a peer is that of whom the header names: others by the same proxy are not held back."""
        rig = self.rig(rate_per_peer=Rate(10.0, False))
        fast = self.come(rig, HEADER + b"x\n" * 1000, port=1)
        other = self.come(rig, HEADER.replace(b".7 ", b".8 ") + b"x\n", port=2)
        self.assertEqual((fast.reading, other.reading), (False, True))

    def test_cap_of_a_proxy(self) -> None:
        """A proxy is no peer: it has the cap on all connections for itself, the departed included."""
        rig = self.rig(per_peer=1, max_connections=4)
        peers = [self.come(rig, HEADER.replace(b".7 ", b".%d " % number), port=number) for number in range(1, 5)]
        self.assertEqual((rig.admission.by_proxy, self.refused(rig)), ({"192.0.2.1": 4}, {}))
        for connection in list(rig.factory.connections.values())[:2]:
            connection.pauseProducing()
        for peer in peers[:2]:
            peer.peer_sends(b"unread\n")
            peer.peer_closes()
        rig.turn(1)
        self.assertEqual((rig.admission.open, rig.admission.departed), (2, 2))
        self.come(rig, HEADER, port=9)
        self.assertEqual(self.refused(rig), {"full": 1})
        self.come(rig, HEADER, "192.0.2.2", 9)
        self.assertEqual(rig.admission.by_proxy, {"192.0.2.1": 4, "192.0.2.2": 1})
        for connection in list(rig.factory.connections.values()):
            connection.resumeProducing()
        for peer in peers:
            peer.peer_closes()
            peer.pump()
        self.assertEqual((rig.admission.by_proxy, rig.admission.by_peer), ({"192.0.2.2": 1}, {"198.51.100.7": 1}))

    def test_before_other_stages(self) -> None:
        """The header comes before any other stage, which is not made for whom the header refuses."""
        made: list[str] = []

        class Next(IStage):
            def begin(self, info: ConnectionInfo, transport: IngestTransport) -> None:
                made.append(info.peer)

            def feed(self, data: bytes) -> bytes | None:
                return data

        rig = self.rig(allow=networks("198.51.100.0/24"))
        rig.factory.stages = (Next,)
        self.come(rig, HEADER + b"line\n", port=1)
        self.come(rig, HEADER.replace(b"198.51", b"203.0"), port=2)
        rig.turn()
        self.assertEqual((made, rig.sink.records), (["198.51.100.7:40001"], [b"line"]))

    def test_relp(self) -> None:
        """So it is in front of RELP."""
        rig = self.rig(wire="relp")
        peer = self.come(rig, HEADER + b"1 open 30 relp_version=0\ncommands=syslog\n2 syslog 3 one\n")
        rig.turn()
        self.assertIn(b"2 rsp 6 200 OK\n", peer.written)
        self.assertEqual(rig.sink.batches[0].info.peer, "198.51.100.7:40001")

    def test_unix_socket(self) -> None:
        """Who may open a UNIX socket's file is a proxy that is trusted; its connections have one cap."""
        rig = self.rig()
        protocol = rig.factory.buildProtocol(UNIXAddress(b""))
        assert protocol is not None
        peer = PumpTransport(rig.clock)
        peer.connect(protocol)
        self.say(peer, HEADER + b"line\n")
        rig.turn()
        info = rig.sink.batches[0].info
        self.assertEqual((info.peer, info.proxy), ("198.51.100.7:40001", "unix:anonymous"))
        self.assertEqual(rig.admission.by_proxy, {"unix": 1})


class ForItselfTests(ProxyCase):
    """A proxy speaks for itself where it says so, does not know, or names its own end of the connection."""

    SAID = (b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN a b 1 2\r\n", block(LOCAL, UNSPEC, b""), block(PROXY, UNSPEC, b""))

    def test_health_checks(self) -> None:
        """A proxy that connects for itself and leaves is counted, and not told of; nor is one that sends no byte."""
        for header in self.SAID:
            for end, reason in (("peer_closes", CloseReason.EOF), ("peer_resets", CloseReason.RESET)):
                rig = self.rig()
                for number in range(20):
                    peer = self.come(rig, header, port=number)
                    rig.turn(2)
                    getattr(peer, end)()
                    peer.pump()
                ledger = rig.factory.ledger
                self.assertEqual((ledger.connections_opened, ledger.connections_closed[reason]), (20, 20))
                self.assertEqual((self.told(), self.refused(rig)), ([], {}))
                self.assertEqual((rig.admission.open, rig.admission.by_proxy, rig.factory._unheard), (0, {}, {}))
                getattr(rig.connect(), end)()
                self.assertEqual(self.told(), [])

    def test_under_its_own_address(self) -> None:
        """It is admitted as what its socket is, whoever may connect otherwise, and counts towards no peer."""
        for header in self.SAID:
            rig = self.rig(allow=networks("198.51.100.0/24"), per_peer=1, arrivals=PeerBuckets(1.0))
            for number in range(3):
                self.come(rig, header, port=number)
            self.assertEqual((len(rig.factory.connections), rig.admission.by_peer, self.refused(rig)), (3, {}, {}))
            row = next(rig.survey.connections())
            self.assertEqual(
                (row["peer"], row["proxy"], row["local"]), ("192.0.2.1:0", "192.0.2.1:0", "192.0.2.254:1514")
            )

    def test_its_own_address(self) -> None:
        """One that names its own end of the connection speaks for itself, on a socket of both families too."""
        header = b"PROXY TCP4 192.0.2.1 192.0.2.254 40000 1514\r\n"
        rig = self.rig(allow=networks("198.51.100.0/24"))
        for peer in (self.come(rig, header), self.come6(rig, header, "::ffff:192.0.2.1")):
            self.assertEqual(rig.admission.by_peer, {})
            peer.peer_closes()
            peer.pump()
        self.assertEqual((rig.factory.ledger.connections_opened, self.told()), (2, []))
        other = self.come(rig, header.replace(b"40000", b"40001"))
        rig.turn()
        self.assertTrue(other.was_reset)

    def come6(self, rig: Rig, data: bytes, host: str) -> PumpTransport:
        """Connect by IPv6, and send."""
        peer = IPv6Address("TCP", host, 40000)
        transport = PumpTransport(rig.clock, peer)  # type: ignore[arg-type]
        transport.connect(rig.factory.buildProtocol(peer))
        self.say(transport, data)
        return transport

    def test_that_sends(self) -> None:
        """One that sends after all is told of, from its beginning to its end; its records are as any other's."""
        for turns, expected in ((2, ["connection_opened"]), (0, [])):
            rig = self.rig()
            peer = self.come(rig, block(LOCAL, UNSPEC, b"") + b"a line\n")
            rig.turn(turns)
            self.assertEqual(self.told(), expected)
            peer.peer_closes()
            peer.pump()
            self.assertEqual(self.told(), ["connection_opened", "connection_closed"])
            self.assertEqual((rig.sink.records, rig.factory.ledger.connections_opened), ([b"a line"], 1))


class RefusalTests(ProxyCase):
    def messages(self) -> list[str]:
        return [fact.message for fact in self.facts]

    def test_untrusted(self) -> None:
        """Who is none of the proxies is refused before anything is made for it, header or not, whatever is allowed."""
        rig = self.rig(allow=networks("0.0.0.0/0"))
        for host in ("198.51.100.1", "2001:db8::1"):
            self.assertRaises(ConnectionRefusedError, rig.connect, host)
        self.assertEqual((self.refused(rig), len(rig.factory.doorways)), ({"proxy_untrusted": 2}, 0))
        self.assertIn("(--proxy-protocol-from)", self.messages()[0])
        self.come(rig, HEADER, "::ffff:192.0.2.1")
        self.assertEqual(len(rig.factory.connections), 1)

    def test_missing(self) -> None:
        """Without a header nobody is let in: not with a line, not with a handshake; nothing of it is a record."""
        for said in (b"<13>a line\n", b"\x16\x03\x01\x02\x00", b"PROXY", b""):
            rig = self.rig()
            peer = self.come(rig, said)
            rig.turn(PROXY_TIMEOUT + 1)
            self.assertEqual((self.refused(rig), peer.was_reset), ({"proxy_missing": 1}, True), said)
            self.assertEqual((rig.sink.records, self.told()), ([], ["connection_refused_proxy_missing"]))
            self.assertEqual(rig.factory.ledger.bytes_discarded[DiscardReason.DOORWAY], len(said))
            self.assertIn("--proxy-protocol-from", self.messages()[0])

    def test_deadline(self) -> None:
        """The header has its own deadline, which another byte does not put off."""
        rig = self.rig()
        peer = rig.connect()
        for number in range(int(PROXY_TIMEOUT) - 1):
            self.say(peer, HEADER[number : number + 1])
            rig.turn(1)
        self.assertEqual(self.refused(rig), {})
        rig.turn(1)
        self.assertEqual(self.refused(rig), {"proxy_missing": 1})
        self.assertIn("a PROXY header without its end within 5 s", self.messages()[0])

    def test_the_next_stage_has_its_own(self) -> None:
        """A stage behind the header has all of its own time."""

        class Waits(IStage):
            def begin(self, info: ConnectionInfo, transport: IngestTransport) -> None:
                pass

            def feed(self, data: bytes) -> bytes | None:
                return None

            def close(self, reason: Any) -> None:
                pass

        rig = self.rig()
        rig.factory.stages = (Waits,)
        peer = rig.connect()
        rig.turn(PROXY_TIMEOUT - 1)
        self.say(peer, HEADER)
        rig.turn(DOORWAY_TIMEOUT - 1)
        self.assertEqual(self.refused(rig), {})
        rig.turn(1)
        self.assertEqual(self.refused(rig), {"doorway_timeout": 1})

    def test_bad(self) -> None:
        """A header that cannot be believed is refused at once, its fault named."""
        cases = {
            HEADER.replace(b"40001", b"70001"): "a port that there is not",
            HEADER.replace(b"TCP4", b"TCP6"): "no address of its family",
            b"PROXY UNKNOWN " + b"x" * 200: "does not end within 107 bytes",
            block(LOCAL, UNSPEC, bytes(0xFFFF)): "2048 are the most",
            block(PROXY, 0x12, bytes(12)): "none of TCP4, TCP6",
            checked(PROXY, TCP4, bytes(12))[:-1] + b"\0": "checksum is wrong",
        }
        for said, fault in cases.items():
            rig = self.rig()
            peer = self.come(rig, said + b"\nline\n")
            rig.turn()
            self.assertEqual((self.refused(rig), peer.was_reset, rig.sink.records), ({"proxy_bad": 1}, True, []))
            self.assertIn(fault, self.messages()[0])
            self.assertIn("(--proxy-protocol-from)", self.messages()[0])

    def test_twice(self) -> None:
        """A second header is no record: it is known for what it is, and ends the connection with its fix."""
        rig = self.rig()
        peer = self.come(rig, HEADER + HEADER + b"line\n")
        rig.turn()
        self.assertEqual((self.refused(rig), rig.sink.records, peer.was_reset), ({"proxy": 1}, [], True))
        self.assertIn("behind two proxies, let one send it", self.messages()[-2])

    def test_on_a_plain_listener(self) -> None:
        """Where no header is expected, the log says which setting would expect it."""
        rig = Rig()
        seen: list[Any] = []
        rig.events.subscribe(seen.append)
        for header in (HEADER, block(LOCAL, UNSPEC, b"")):
            self.come(rig, header + b"line\n")
        rig.turn()
        self.assertEqual((self.refused(rig), rig.sink.records), ({"proxy": 2}, []))
        told = [fact.message for fact in seen if fact.kind.startswith("wrong")]
        self.assertTrue(all("--proxy-protocol-from NETWORK" in text for text in told))

    def test_limits_change(self) -> None:
        """The networks may be replaced while the listener runs: who connects from then on is held to the new ones."""
        rig = self.rig()
        limits = rig.factory.limits
        rig.factory.limits = dataclasses.replace(limits, proxies=networks("198.51.100.0/24"))
        self.assertRaises(ConnectionRefusedError, rig.connect)
        rig.factory.limits = dataclasses.replace(limits, proxies=None)
        self.assertIsInstance(rig.connect().protocol, Connection)


class SocketTests(ListeningTestCase):
    async def test_on_real_sockets(self) -> None:
        """A header, a record in the same segment, and the end of the connection."""
        listener = await self.listen(self.listener(proxies=networks("127.0.0.1")))
        peer = self.connect(listener)
        peer.sendall(HEADER + b"line\n")
        peer.close()
        await self.until(lambda: self.sink.records)
        self.assertEqual(self.sink.records, [b"line"])
        self.assertEqual(self.sink.batches[0].info.peer, "198.51.100.7:40001")
        check = self.connect(listener)
        check.sendall(block(LOCAL, UNSPEC, b""))
        await self.until(lambda: any(c.info.host is None for c in listener.factory.connections.values()))
        (connection,) = listener.factory.connections.values()
        self.assertEqual(connection.info.local, listener.address)
        check.close()
        await self.until(lambda: not listener.factory.connections)
