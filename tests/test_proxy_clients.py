"""Behind a real load balancer: HAProxy, with each of its ways to send a PROXY header, and with its health checks."""

import contextlib
import json
import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.haproxy import HAProxy
from tests.relp_client import RelpClient
from tests.server import RELP_ENDPOINT, Server, numbered, wait_until
from tests.tls import NAME, Folder, client_context, issued

WAYS = (
    "send-proxy",
    "send-proxy-v2",
    "send-proxy-v2-ssl",
    "send-proxy-v2-ssl-cn",
    "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority,cert-cn,ssl",
)

JSON = ("--sink", "file:ingest-data/ingest.log?format=json")

TRUSTED = ("--proxy-protocol-from", "127.0.0.1")


class HAProxyCase(SynchronousTestCase):
    def server(self, *flags: str) -> Server:
        server = Server(*flags)
        self.addCleanup(server.kill)
        server.wait_ready()
        return server

    def haproxy(self, server: Server, how: str, *, front: str = "") -> HAProxy:
        balancer = HAProxy(server.port, how, front=front)
        self.addCleanup(balancer.kill)
        return balancer

    def send(self, balancer: HAProxy, lines: bytes, source: str = "127.0.0.1") -> str:
        """Send from a loopback address, and give the address and port that were used."""
        with balancer.connect(source) as peer:
            address: str = "%s:%d" % peer.getsockname()[:2]  # noqa: UP031 - a pair
            with contextlib.suppress(OSError):  # it may be turned away at any point
                peer.sendall(lines)
                peer.shutdown(socket.SHUT_WR)
                peer.recv(1)
        return address

    def see_lines(self, server: Server, count: int) -> None:
        """Wait until so many lines have been written."""
        wait_until(lambda: server.output().count(b"\n") == count, f"{count} lines")

    def refused(self, server: Server) -> dict[str, float]:
        """Give the refusals so far."""
        prefix = "ingest_connections_refused_total["
        found = {name: value for name, value in server.metrics().items() if name.startswith(prefix)}
        self.assertLessEqual({f"{prefix}proxy_{word}]" for word in ("untrusted", "bad", "missing")}, set(found))
        return {name.removeprefix(prefix)[:-1]: value for name, value in found.items() if value}


class HeaderTests(HAProxyCase):
    def test_each_way(self) -> None:
        """Whichever header it sends, the senders are known by their own addresses, and the proxy beside them."""
        for how in WAYS:
            server = self.server(*TRUSTED, *JSON)
            balancer = self.haproxy(server, how)
            sources = ["127.0.0.7", "127.0.0.8"]
            peers = [self.send(balancer, b"from %b\n" % source.encode(), source) for source in sources]
            self.see_lines(server, 2)
            lines = sorted(map(json.loads, server.output().splitlines()), key=lambda line: line["message"])
            self.assertEqual([line["peer"] for line in lines], peers, how)
            self.assertEqual([line["local"] for line in lines], [f"127.0.0.1:{balancer.port}"] * 2)
            self.assertTrue(all(line["proxy"].startswith("127.0.0.1:") for line in lines))
            self.assertEqual((self.refused(server), server.metrics()["ingest_conservation_error"]), ({}, 0))

    def test_load(self) -> None:
        """Twenty senders at once, ten thousand lines each way: none is lost, doubled or somebody else's."""
        for how in WAYS[:2]:
            server = self.server(*TRUSTED)
            balancer = self.haproxy(server, how)
            lines = [numbered(f"sender {number}", 500) for number in range(20)]
            peers = [balancer.connect() for _ in lines]
            for peer, each in zip(peers, lines, strict=True):
                peer.sendall(b"".join(line + b"\n" for line in each))
            for peer in peers:
                peer.close()
            wanted = sorted(line for each in lines for line in each)
            output = server.wait_output(len(wanted) * 101)
            self.assertEqual(sorted(output.splitlines()), wanted)

    def test_limits(self) -> None:
        """The allow-list and the cap per peer go by the senders' addresses, of which one takes nothing from another."""
        server = self.server(*TRUSTED, "--allow", "127.0.0.8/29", "--max-connections-per-peer", "2")
        balancer = self.haproxy(server, "send-proxy-v2")
        kept = [balancer.connect("127.0.0.8") for _ in range(2)]
        for peer in kept:
            self.addCleanup(peer.close)
            peer.sendall(b"kept\n")
        server.wait_output(10)
        self.send(balancer, b"a third\n", "127.0.0.8")
        self.send(balancer, b"denied\n", "127.0.0.7")
        self.send(balancer, b"other\n", "127.0.0.9")
        wait_until(lambda: set(self.refused(server)) == {"per_peer", "not_allowed"}, "two refused")
        self.assertEqual(sorted(server.wait_output(16).split()), [b"kept", b"kept", b"other"])

    def test_relp(self) -> None:
        """RELP behind it is answered."""
        server = self.server("--relp", RELP_ENDPOINT, *TRUSTED)
        balancer = self.haproxy(server, "send-proxy-v2")
        with RelpClient(balancer.port) as client:
            client.open()
            client.send(b"a record")
            while client.unanswered:
                client.settle()
        self.assertEqual(server.output(), b"a record\n")

    def test_forgotten(self) -> None:
        """A header that nobody expects, and one that does not come, are each told with what to do."""
        plain, expecting = self.server(), self.server(*TRUSTED)
        for how in WAYS[:2]:
            self.send(self.haproxy(plain, how), b"line\n")
        # HAProxy may try again, where it learns of the reset early enough.
        wait_until(lambda: self.refused(plain).get("proxy", 0) >= 2, "two headers known for what they are")
        self.assertEqual(set(self.refused(plain)), {"proxy"})
        self.assertTrue(any("--proxy-protocol-from" in line for line in plain.log))
        self.send(self.haproxy(expecting, ""), b"line\n")
        wait_until(lambda: set(self.refused(expecting)) == {"proxy_missing"}, "no header")
        self.assertTrue(any("send-proxy-v2" in line for line in expecting.log))
        self.assertEqual((plain.output(), expecting.output()), (b"", b""))

    def test_two_in_a_row(self) -> None:
        """Of a balancer behind a balancer that takes the header and sends its own, the first sender is known."""
        server = self.server(*TRUSTED, *JSON)
        inner = self.haproxy(server, "send-proxy-v2", front="accept-proxy")
        outer = HAProxy(inner.port, "send-proxy")
        self.addCleanup(outer.kill)
        peer = self.send(outer, b"line\n", "127.0.0.7")
        self.see_lines(server, 1)
        self.assertEqual(json.loads(server.output())["peer"], peer)


class TLSTests(HAProxyCase):
    """A balancer that passes TLS through, with its header in front of the client's handshake."""

    def setUp(self) -> None:
        self.folder = Folder()
        self.addCleanup(self.folder.remove)
        self.flags = ("--tls-certificate", self.folder.certificate, "--tls-key", self.folder.key, *TRUSTED)

    def test_each_way(self) -> None:
        """The header comes first, then the handshake; the client's certificate and address are both known."""
        asking = ("--tls-client-ca", self.folder.client_ca, "--tls-peer", "shop.example.com")
        for how in WAYS:
            server = self.server("--listen-tls", RELP_ENDPOINT, *self.flags, *asking, *JSON)
            balancer = self.haproxy(server, how)
            context = client_context(issued("shop.example.com"))
            with (
                balancer.connect("127.0.0.7") as peer,
                context.wrap_socket(peer, server_hostname=NAME) as secured,
            ):
                address = "%s:%d" % secured.getsockname()[:2]  # noqa: UP031 - a pair
                secured.sendall(b"a line\n")
                self.see_lines(server, 1)
            line = json.loads(server.output())
            self.assertEqual((line["peer"], line["peer_identity"]), (address, "shop.example.com"), how)
            self.assertEqual(line["local"], f"127.0.0.1:{balancer.port}")

    def test_refused(self) -> None:
        """Whom the allow-list leaves out costs no handshake; nor does TLS in place of a header, nor a plain line."""
        server = self.server("--listen-tls", RELP_ENDPOINT, *self.flags, "--allow", "127.0.0.8/32")
        balancer, bare = self.haproxy(server, "send-proxy-v2"), self.haproxy(server, "")
        context = client_context()
        for front, source in ((balancer, "127.0.0.7"), (bare, "127.0.0.8")):
            with front.connect(source) as peer, contextlib.suppress(OSError):
                context.wrap_socket(peer, server_hostname=NAME).close()
        self.send(balancer, b"a plain line\n", "127.0.0.8")
        wanted = {"not_allowed", "proxy_missing", "plain"}
        wait_until(lambda: set(self.refused(server)) == wanted, "all three refused")
        counts = [
            line for line in server.get("metrics").splitlines() if line.startswith("ingest_tls_handshakes_total{")
        ]
        # That of the plain line was begun.
        self.assertEqual((sum(float(line.split()[-1]) for line in counts), server.output()), (1, b""))

    def test_health_checks(self) -> None:
        """Its checks end before a handshake begins, and are no line in the log."""
        server = self.server("--listen-tls", RELP_ENDPOINT, *self.flags)
        balancer = self.haproxy(server, "send-proxy-v2 check inter 50ms")
        wait_until(lambda: self.refused(server).get("doorway_left", 0) >= 20, "twenty checks")
        self.assertEqual(balancer.status(), "UP")
        self.assertFalse(any("doorway_left" in line for line in server.log))


class HealthCheckTests(HAProxyCase):
    def see_checks(self, server: Server, count: int) -> None:
        """Wait until the server has been checked so often."""
        wait_until(lambda: server.metrics()["ingest_connections_opened_total"] >= count, f"{count} checks")

    def test_health_checks(self) -> None:
        """Its checks find the server up, are counted, and leave no line in the log, whoever may connect otherwise."""
        for how in WAYS[:3]:
            server = self.server(*TRUSTED, "--allow", "192.0.2.0/24", "--max-connections-per-peer", "1")
            balancer = self.haproxy(server, f"{how} check inter 50ms")

            self.see_checks(server, 20)
            self.assertEqual((balancer.status(), self.refused(server)), ("UP", {}))
            last = max(number for number, line in enumerate(server.log) if "  try  " in line)
            self.assertEqual([line for line in server.log[last:] if " info " in line or " warn " in line], [], how)

    def test_checks_without_a_header(self) -> None:
        """A check that only connects, from a proxy, is no reason for a line in the log either."""
        server = self.server(*TRUSTED)
        for _ in range(20):
            server.connect().close()
        wait_until(lambda: self.refused(server) == {"doorway_left": 20}, "all counted")
        self.assertFalse(any("refused" in line for line in server.log))

    def test_down(self) -> None:
        """A balancer whose header is not believed finds the server down: a check is no way around."""
        server = self.server("--proxy-protocol-from", "192.0.2.1")
        balancer = self.haproxy(server, "send-proxy-v2 check inter 50ms fall 1")
        wait_until(lambda: self.refused(server).get("proxy_untrusted", 0) >= 3, "refused")
        self.assertIn("proxy_untrusted", " ".join(server.log))
        self.assertEqual(server.metrics()["ingest_connections_opened_total"], 0)
        del balancer
