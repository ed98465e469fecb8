"""The admin endpoint's clients: one request at a time, by deadlines, in turn, up to a cap, and by which name."""

import tracemalloc
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.test_admin import LOOPBACK, PAGES, TURN, AdminTestCase, ReadTransport, parse
from twisted_ingest.admin.channel import KEEP_ALIVE_SECONDS, REQUEST_TIMEOUT_SECONDS
from twisted_ingest.admin.clients import Clients
from twisted_ingest.admin.hosts import HostList
from twisted_ingest.admin.turns import SHARE, Turns
from twisted_ingest.limits import ADMIN_CONNECTIONS, KIB

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
METRICS = GET.replace(b"/healthz", b"/metrics")


class PipeliningTests(AdminTestCase):
    def test_one_at_a_time(self) -> None:
        """However many requests come at once, each is answered once the answer before it has left us."""
        channel, transport = self.connect()
        channel.dataReceived(GET * 100)
        for answered in range(1, 101):
            for _ in range(3):
                self.web.advance(TURN)
                self.assertEqual(transport.value().count(b"HTTP/1.1 200"), answered)
            transport.read()
        self.assertEqual(self.rig.survey.clients.answered["/healthz", 200], 100)
        self.lose(channel)

    def test_any_cut(self) -> None:
        """Requests cut anyhow are answered all the same, in order."""
        requests = GET + GET.replace(b"/healthz", b"/nothing") + GET
        for size in (1, 2, 7, 50, 120):
            channel, transport = self.connect()
            for start in range(0, len(requests), size):
                channel.dataReceived(requests[start : start + size])
                self.turn()
            for _ in range(5):
                self.turn()
            codes = [part[:3] for part in transport.value().split(b"HTTP/1.1 ")[1:]]
            self.assertEqual(codes, [b"200", b"404", b"200"], size)
            self.lose(channel)

    def test_unread(self) -> None:
        """A client that reads nothing costs one page and a read or two of its requests, then it is reset."""
        channel, transport = self.connect()
        transport.producerState = "producing"
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in range(100):
            if transport.producerState == "producing":
                channel.dataReceived(METRICS * 1400)
            self.web.advance(TURN)
        _, peak = tracemalloc.get_traced_memory()
        self.assertLess(peak, 1024 * KIB)
        self.assertEqual(transport.producerState, "paused")
        self.assertEqual(transport.value().count(b"HTTP/1.1 200"), 1)
        self.web.advance(REQUEST_TIMEOUT_SECONDS)
        self.assertTrue(transport.is_reset)
        self.lose(channel)

    def test_reading_goes_on(self) -> None:
        """A client that was held back for what it sent ahead is read from again, and all of it is answered."""
        channel, transport = self.connect()
        transport.producerState = "producing"
        channel.dataReceived(GET * 100)
        channel.dataReceived(GET * 400)
        self.assertEqual(transport.producerState, "paused")
        self.turn()
        self.assertEqual(transport.producerState, "paused")
        for _ in range(600):
            self.turn()
        self.assertEqual(transport.producerState, "producing")
        self.assertEqual(transport.value().count(b"HTTP/1.1 200"), 500)
        self.lose(channel)

    def test_closed_side(self) -> None:
        """A client that has closed its side is answered what it asked, then closed."""
        channel, transport = self.connect()
        channel.dataReceived(GET * 3 + b"GET /hal")
        channel.readConnectionLost()
        self.assertFalse(transport.disconnecting)
        for _ in range(5):
            self.turn()
        self.assertEqual(transport.value().count(b"HTTP/1.1 200"), 3)
        self.assertTrue(transport.disconnecting)
        self.lose(channel)

    def test_closed_side_without_a_request(self) -> None:
        """One that has asked nothing is closed at once."""
        for data in (b"", b"GET /hea"):
            channel, transport = self.connect()
            channel.dataReceived(data)
            channel.readConnectionLost()
            self.assertTrue(transport.disconnecting)
            self.lose(channel)


class DeadlineTests(AdminTestCase):
    def wait(self, seconds: float, transport: ReadTransport) -> None:
        """Let time pass after which the connection is there, and a moment after which it is not."""
        self.web.advance(seconds - TURN)
        self.assertFalse(transport.disconnecting)
        self.web.advance(TURN)
        self.assertTrue(transport.disconnecting)

    def test_dripped_request(self) -> None:
        """A request must be whole by its deadline, however many of its bytes come in between."""
        for start in (
            b"",
            b"GET ",
            b"GET / HTTP/1.1\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n",
        ):
            channel, transport = self.connect()
            channel.dataReceived(start)
            for _ in range(REQUEST_TIMEOUT_SECONDS - 1):
                self.web.advance(1)
                channel.dataReceived(b"a")
            self.wait(1, transport)
            self.lose(channel)

    def test_idle(self) -> None:
        """Between requests a client may be silent longer than scrapers are; a request has its own deadline then."""
        channel, transport = self.connect()
        channel.dataReceived(GET)
        self.turn()
        self.web.advance(KEEP_ALIVE_SECONDS - 1)
        channel.dataReceived(GET)
        self.turn()
        self.assertEqual(transport.value().count(b"HTTP/1.1 200"), 2)
        self.wait(KEEP_ALIVE_SECONDS, transport)
        self.assertFalse(transport.is_reset)
        self.lose(channel)

    def test_idle_then_dripping(self) -> None:
        """The first byte after a silence begins the request's deadline."""
        channel, transport = self.connect()
        channel.dataReceived(GET)
        self.turn()
        self.web.advance(KEEP_ALIVE_SECONDS / 2)
        channel.dataReceived(b"G")
        self.wait(REQUEST_TIMEOUT_SECONDS, transport)
        self.lose(channel)

    def test_unread_last_answer(self) -> None:
        """An answer that is the last of its connection has a deadline as well."""
        for request in (
            GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
            b"GET /healthz HTTP/1.0\r\n\r\n",
            b"?\r\n",
        ):
            channel, transport = self.connect()
            channel.dataReceived(request)
            self.assertTrue(transport.value().startswith(b"HTTP/1."))
            self.assertFalse(transport.is_reset)
            self.web.advance(REQUEST_TIMEOUT_SECONDS)
            self.assertTrue(transport.is_reset)
            self.lose(channel)

    def test_nothing_is_left(self) -> None:
        """No timer outlives its connection, whatever it was doing."""
        before = len(self.web.getDelayedCalls())
        for data in (b"", b"GET ", GET, METRICS * 3, b"?\r\n"):
            channel, _ = self.connect()
            channel.dataReceived(data)
            self.lose(channel)
        self.assertEqual(len(self.web.getDelayedCalls()), before)
        self.assertEqual(len(self.rig.survey.clients), 0)


class TurnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.now = 0.0
        self.turns = Turns(self.clock, lambda: self.now)
        self.made: list[str] = []

    def make(self, name: str, cost: float = 0.01) -> Any:
        """Give something to call that takes its time."""

        def call() -> None:
            self.made.append(name)
            self.now += cost

        return call

    def test_share(self) -> None:
        """Pages take no more than their share of the time, one after the other."""
        for number in range(5):
            self.turns.ask(self.make(str(number)))
        for number in range(5):
            self.assertEqual(self.made, [str(before) for before in range(number + 1)])
            self.clock.advance(0.01 / SHARE - 0.011)
            self.assertEqual(len(self.made), number + 1)
            self.clock.advance(0.001001)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_once(self) -> None:
        """Who comes when nobody has been before is not kept waiting."""
        for number in range(5):
            self.turns.ask(self.make(str(number)))
            self.assertEqual(len(self.made), number + 1)
            self.clock.advance(1)

    def test_probes(self) -> None:
        """Probes and pages take turns: a queue of either does not keep the other waiting."""
        for number in range(3):
            self.turns.ask(self.make(f"page {number}"))
        for number in range(3):
            self.turns.ask(self.make(f"probe {number}"), is_probe=True)
        self.clock.pump([0.1] * 6)
        self.assertEqual(self.made, ["page 0", "probe 0", "page 1", "probe 1", "page 2", "probe 2"])

    def test_forget(self) -> None:
        """Who has gone is not called, and takes nobody's turn."""
        gone = self.make("gone")
        self.turns.ask(self.make("first"))
        self.turns.ask(gone)
        self.turns.ask(self.make("last"))
        self.turns.forget(gone)
        self.turns.forget(gone)
        self.clock.advance(0.04)
        self.assertEqual(self.made, ["first", "last"])

    def test_stop(self) -> None:
        """Nobody is called after the end."""
        for _ in range(3):
            self.turns.ask(self.make("one"))
        self.turns.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.made, ["one"])


class WaitingTests(AdminTestCase):
    def test_pages_of_many_clients(self) -> None:
        """Pages asked for at the same moment are made one at a time, with time for others in between."""
        self.cost = 0.01
        channels = [self.connect() for _ in range(5)]
        for channel, _ in channels:
            channel.dataReceived(METRICS)
        for answered in range(1, 6):
            self.assertEqual(sum(bool(transport.value()) for _, transport in channels), answered)
            self.web.advance(0.01 / SHARE)
        for channel, _ in channels:
            self.lose(channel)

    def test_client_goes_away(self) -> None:
        """A client that goes away before its turn leaves it to the next."""
        self.cost = 0.01
        channels = [self.connect() for _ in range(3)]
        for channel, _ in channels:
            channel.dataReceived(METRICS)
        self.lose(channels[1][0])
        self.web.advance(0.01 / SHARE)
        self.assertEqual([bool(transport.value()) for _, transport in channels], [True, False, True])
        self.assertEqual(self.flushLoggedErrors(), [])


class CapTests(AdminTestCase):
    def fill(self) -> list[tuple[Any, ReadTransport]]:
        """Take all places, one after the other."""
        found = []
        for _ in range(ADMIN_CONNECTIONS):
            found.append(self.connect())
            self.web.advance(0.01)
        return found

    def test_newcomer(self) -> None:
        """At the cap a newcomer gets in and is answered; who was silent the longest is reset."""
        held = self.fill()
        self.assertEqual([transport.is_reset for _, transport in held], [False] * ADMIN_CONNECTIONS)
        self.assertEqual(self.ask("/healthz").code, 200)
        self.assertEqual([transport.is_reset for _, transport in held], [True] + [False] * (ADMIN_CONNECTIONS - 1))

    def test_active(self) -> None:
        """Whoever waits for us stays, however long; who has just been answered stays before those who are silent."""
        held = self.fill()
        answered, waiting = held[0], held[1]
        self.cost = 1.0
        answered[0].dataReceived(METRICS)
        answered[1].read()
        waiting[0].dataReceived(METRICS)
        lost: set[Any] = set()
        for _ in range(2 * ADMIN_CONNECTIONS):
            held.append(self.connect())
            self.web.advance(0.01)
            for channel, transport in held:
                if transport.is_reset and channel not in lost:
                    lost.add(channel)
                    self.lose(channel)
            if len(held) == ADMIN_CONNECTIONS + 3:
                self.assertEqual(
                    [transport.is_reset for _, transport in held[:6]], [False, False, True, True, True, False]
                )
        self.assertEqual([answered[1].is_reset, waiting[1].is_reset], [True, False])

    def test_flood(self) -> None:
        """A flood within one turn holds no more descriptors than are reserved; the rest is closed at once."""
        self.fill()
        built = [self.site.buildProtocol(LOOPBACK) for _ in range(3)]
        self.assertNotIn(None, built)
        for _ in range(10 * ADMIN_CONNECTIONS):
            channel = self.site.buildProtocol(LOOPBACK)
            if channel is not None:
                transport = ReadTransport()
                channel.makeConnection(transport)
        self.assertLessEqual(len(self.rig.survey.clients), 2 * ADMIN_CONNECTIONS)

    def test_all_wait_for_us(self) -> None:
        """Where all wait for us, who has been answered most goes; where none has been answered, nobody does."""
        held = self.fill()
        held[7][0].dataReceived(GET)
        held[7][1].read()
        self.cost = 1.0
        for channel, _ in held:
            channel.dataReceived(METRICS)
        # The first has its answer already: have it wait again.
        held[0][1].read()
        held[0][0].dataReceived(METRICS)
        self.assertTrue(all(channel.waits_for_us for channel, _ in held))
        clients = self.rig.survey.clients
        for index in (0, 7):
            self.assertTrue(clients.make_room())
            self.assertTrue(held[index][1].is_reset)
            clients.enter(Waiting())
        self.assertFalse(clients.make_room())

    def test_no_place_at_all(self) -> None:
        """Without a place nobody gets in, and nothing raises."""
        self.assertFalse(Clients(0).make_room())

    def test_shown(self) -> None:
        """Open connections are a gauge, and stand in the status; those of it too."""
        held = self.fill()[:-1]
        page = self.ask("/metrics").body
        self.assertIn(b"\ningest_admin_connections %d.0\n" % (ADMIN_CONNECTIONS + 1), page)
        for channel, _ in held:
            self.lose(channel)
        self.assertEqual(self.ask("/status").json()["admin"], {"connections": 2, "limit": ADMIN_CONNECTIONS})

    def test_stop(self) -> None:
        """When the port closes, nobody is left."""
        held = self.fill()
        self.site.doStart()
        self.site.doStop()
        self.assertEqual([transport.is_reset for _, transport in held], [True] * ADMIN_CONNECTIONS)


class Waiting:
    """A client whose request waits, the first it made."""

    since = 0.0
    answers = 0
    waits_for_us = True

    def evict(self) -> None:
        """Nobody may."""
        raise AssertionError("evicted")


class CountTests(AdminTestCase):
    def test_known_from_the_start(self) -> None:
        """Every answer there can be is a series from the start; none is added by what clients ask."""
        before = set(self.rig.survey.clients.answered)
        self.assertEqual(len(before), 31)
        for path in (*PAGES, "/nothing", "/metrics/x"):
            for method in ("GET", "HEAD", "POST"):
                self.ask(path, method)
                self.send(f"{method} {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode())
                self.send(f"{method} {path} HTTP/1.1\r\n\r\n".encode())
        self.rig.survey.state = "draining"
        self.ask("/readyz")
        self.send(b"nonsense\r\n\r\n")
        answered = self.rig.survey.clients.answered
        self.assertEqual(set(answered), before)
        self.assertEqual(
            {pair for pair, count in answered.items() if not count}, {pair for pair in before if 500 in pair}
        )

    def test_metric(self) -> None:
        """Answers are counted by route and code."""
        for path in ("/healthz", "/healthz", "/nothing", "/nothing/else", "/metrics"):
            self.ask(path)
        page = self.ask("/metrics").body.decode().splitlines()
        for line in (
            'ingest_admin_requests_total{code="200",route="/healthz"} 2.0',
            'ingest_admin_requests_total{code="404",route="other"} 2.0',
            'ingest_admin_requests_total{code="200",route="/metrics"} 1.0',
            'ingest_admin_requests_total{code="421",route="/metrics"} 0.0',
        ):
            self.assertIn(line, page)


class HostTests(AdminTestCase):
    def code(self, path: str, host: str | None, version: str = "1.1", address: Any = None) -> int:
        """Ask by a name."""
        channel, transport = self.connect(address or LOOPBACK)
        head = "" if host is None else f"Host: {host}\r\n"
        channel.dataReceived(f"GET {path} HTTP/{version}\r\n{head}\r\n".encode("latin-1"))
        self.turn()
        self.lose(channel)
        return parse(transport.value()).code

    def test_ours(self) -> None:
        """Addresses and localhost are us, on every page; so are names that were given."""
        self.make_rig(hosts=HostList(["ingest.example"]))
        for path in PAGES:
            for host in (
                "127.0.0.1",
                "192.0.2.1:9108",
                "[::1]:9108",
                "localhost",
                "LOCALHOST.:1",
                "Ingest.Example:9108",
            ):
                self.assertEqual(self.code(path, host), 200, (path, host))

    def test_rebound(self) -> None:
        """A name that is not ours is 421 on every page but the probes, whatever the method; the text names the fix."""
        for host in (
            "evil.example",
            "evil.example:9108",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            "a b",
        ):
            for path in (*PAGES, "/nothing", "/metrics/x"):
                self.assertEqual(self.code(path, host), 200 if path in ("/healthz", "/readyz") else 421, (path, host))
        answer = self.send(b"POST /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        self.assertEqual(answer.code, 421)
        self.assertIn(b"--admin-host NAME", answer.body)
        self.assertNotIn(b"evil", answer.body)

    def test_no_host(self) -> None:
        """HTTP/1.0 has no Host, and no browser speaks it; HTTP/1.1 must have one, and exactly one."""
        self.assertEqual(self.code("/metrics", None, "1.0"), 200)
        self.assertEqual(self.code("/metrics", "evil.example", "1.0"), 421)
        self.assertEqual(self.code("/metrics", None, "1.1"), 400)
        self.assertEqual(self.code("/metrics", "localhost\r\nHost: localhost"), 400)
        self.assertEqual(self.code("/healthz", None, "1.1"), 200)
        self.assertEqual(self.code("/readyz", "evil.example\r\nHost: localhost"), 200)

    def test_unix_socket(self) -> None:
        """On a UNIX socket any name is good: no browser reaches it."""
        for host in ("evil.example", "", None):
            self.assertEqual(self.code("/metrics", host, address=UNIXAddress("/run/admin.sock")), 200)

    def test_whole_url(self) -> None:
        """A target that is a whole URL is served, and its host is the one that counts."""
        self.assertEqual(self.code("http://localhost:9108/metrics", "evil.example"), 200)
        self.assertEqual(self.code("HTTPS://[::1]/metrics?x=1", "evil.example"), 200)
        self.assertEqual(self.code("http://evil.example/metrics", "localhost"), 421)
        self.assertEqual(self.code("http://evil.example/healthz", "localhost"), 200)
        self.assertEqual(self.code("http://localhost", "localhost"), 200)
        self.assertEqual(self.code("http:///metrics", "localhost"), 421)
        self.assertEqual(self.code("ftp://localhost/metrics", "localhost"), 404)

    def test_other_targets(self) -> None:
        """A target that is no path is no page either."""
        for target in ("*", "metrics", "xmetrics", "localhost:443", "http:metrics", "x?y"):
            self.assertEqual(self.code(target, "localhost"), 404, target)
        self.assertEqual(self.send(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n").code, 404)

    def test_logged_once(self) -> None:
        """The refusal is in the log, a few times, without the name."""
        for _ in range(100):
            self.code("/metrics", "evil.example")
        self.assertEqual(self.rig.events.log.suppressed, 90)

    def test_index(self) -> None:
        """The first page lists the others."""
        lines = self.ask("/").body.decode().splitlines()
        self.assertEqual([line.split()[0] for line in lines], list(PAGES))


class OddRequestTests(AdminTestCase):
    """Whatever is sent is answered 400 or closed, counted, and neither logged nor a bug."""

    ODD = (
        b"\r\n\r\n\r\n",
        b"\0" * 100_000,
        b"\r\n" * 50_000,
        b"\n" * 50_000,
        b"G" * 100_000,
        b"GET\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1 x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n",
        b"GET / HTTP/1.1\r\n: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nA\0B: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n a: continued before anything\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: x\r\n" * 600 + b"\r\n",
        b"GET / HTTP/1.1\r\nA: x" + b"\r\n x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxxxx",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 2000 + b"\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: x\r\n" * 20_000 + b"\r\n",
    )
    FINE = (
        b"\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c, websocket\r\nConnection: Upgrade\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: \xff\r\nCookie: =;;=\r\nContent-Type: \xff;=\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data\r\nContent-Length: 3\r\n\r\nabc",
        b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%00%ff?%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /\x80\xb0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /" + b"a/" * 8000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /?" + b"a=b&" * 3000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )

    def play(self, data: bytes, size: int) -> ReadTransport:
        """Send in pieces, as long as anybody reads."""
        channel, transport = self.connect()
        for start in range(0, len(data), size):
            if transport.disconnecting:
                break
            channel.dataReceived(data[start : start + size])
        for _ in range(5):
            self.turn()
        self.web.advance(REQUEST_TIMEOUT_SECONDS)
        self.lose(channel)
        return transport

    def test_odd(self) -> None:
        """None of it is more than a bad request."""
        for data in self.ODD:
            for size in (65536, 1000):
                transport = self.play(data, size)
                self.assertIn(transport.value()[:12], (b"HTTP/1.1 400", b""), data[:80])
                self.assertTrue(transport.disconnecting, data[:80])
        self.assertGreater(self.rig.survey.clients.answered["other", 400], 20)
        self.check()

    def test_dear_heads_and_bodies(self) -> None:
        """What would be dear to take apart is not taken apart: folded headers are refused, bodies in chunks unread."""
        head = b"POST /metrics HTTP/1.1\r\nHost: localhost\r\n"
        for data, code in (
            (head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000, b"405"),
            (head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a:b\r\n" * 100_000, b"405"),
            (head + b"A: b\r\n" + b" \r\n" * 100_000, b"400"),
        ):
            channel, transport = self.connect()
            channel.dataReceived(data[:200])
            self.assertEqual(transport.value()[9:12], code)
            self.assertTrue(transport.disconnecting)
            lines = 0

            def count(line: bytes) -> None:
                nonlocal lines
                lines += 1

            self.patch(channel, "lineReceived", count)
            channel.dataReceived(data[200:])
            self.assertEqual(lines, 0)
            self.lose(channel)
        self.check()

    def test_fine(self) -> None:
        """What only looks odd is answered as what it is."""
        for data in self.FINE:
            for size in (65536, 1000):
                transport = self.play(data, size)
                codes = {part[:3] for part in transport.value().split(b"HTTP/1.1 ")[1:]}
                self.assertLessEqual(codes, {b"100", b"200", b"404", b"405"}, data[:80])
                self.assertTrue(codes, data[:80])
        self.check()

    def check(self) -> None:
        """See that nothing of it was a bug, and that nothing is left."""
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.rig.events.internal_errors, 0)
        self.assertEqual(len(self.rig.survey.clients), 0)
        self.assertEqual(self.ask("/healthz").code, 200)


class GuardTests(AdminTestCase):
    def test_bug(self) -> None:
        """A bug on a connection costs that one, is counted, and others are served."""
        channel, transport = self.connect()

        def bug(*_: object) -> None:
            raise RuntimeError("bug")

        self.patch(channel, "lineReceived", bug)
        channel.dataReceived(GET)
        self.assertTrue(transport.is_reset)
        self.lose(channel)
        self.assertEqual(self.rig.events.internal_errors, 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.ask("/healthz").code, 200)

    def test_bug_in_a_newcomer(self) -> None:
        """A channel that cannot be made closes its connection; the port goes on."""

        def bug() -> None:
            raise RuntimeError("bug")

        self.patch(self.site, "protocol", bug)
        self.assertIsNone(self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1)))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
