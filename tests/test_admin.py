"""The admin pages: what they say, to whom, and that no request can make them say or keep anything else."""

import gc
import json
import tracemalloc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from twisted.internet import error, reactor
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IReactorTCP, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from twisted_ingest import __version__
from twisted_ingest.admin.channel import REQUEST_TIMEOUT_SECONDS
from twisted_ingest.admin.hosts import HostList
from twisted_ingest.admin.pages import ROWS_PER_PIECE
from twisted_ingest.admin.site import build_site
from twisted_ingest.admin.turns import Turns
from twisted_ingest.errors import CloseReason, DropReason, Oversize
from twisted_ingest.observe.metrics import build_registry
from twisted_ingest.server.connection import Connection
from twisted_ingest.testing import MemorySink, Rig, StalledSink

TEXT = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = b"application/openmetrics-text; version=1.0.0; charset=utf-8"
PAGES = ("/", "/metrics", "/healthz", "/readyz", "/status", "/connections")

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
"""What a Prometheus 3 server sends as ``Accept``."""

TURN = 0.001
"""Seconds that stand for a turn of the reactor."""

LOOPBACK = IPv4Address("TCP", "127.0.0.1", 50000)

SECRET = "sEcReT"
"""Stands in every part of a request; must stand in no answer and no log line."""


@dataclass
class Answer:
    """A parsed response."""

    code: int
    headers: dict[bytes, bytes]
    body: bytes

    def json(self) -> Any:
        """Give the body as JSON in its strict form."""
        return json.loads(self.body, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def parse(raw: bytes) -> Answer:
    """Take a response apart, chunks joined."""
    head, body = raw.split(b"\r\n\r\n", 1)
    status, *lines = head.split(b"\r\n")
    headers = {name.lower(): value for name, value in (line.split(b": ", 1) for line in lines)}
    if headers.get(b"transfer-encoding") == b"chunked":
        body = b"".join(_chunks(body))
    return Answer(int(status.split()[1]), headers, body)


def _chunks(body: bytes) -> Iterator[bytes]:
    while body:
        size, body = body.split(b"\r\n", 1)
        yield body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]


@implementer(ILogObserver)
class Seen:
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)


class ReadTransport(StringTransport):
    """A transport whose peer reads what was written when the test says so."""

    is_reset = False

    def read(self) -> None:
        """Take everything, unless the peer has gone; whoever writes is told."""
        if self.producer is not None and not self.streaming:
            producer: Any = self.producer
            producer.resumeProducing()

    def abortConnection(self) -> None:
        """Reset."""
        self.is_reset = True
        super().abortConnection()


class AdminTestCase(SynchronousTestCase):
    """Gives each test the site of a rig, reached through a transport in memory on a clock of its own."""

    def setUp(self) -> None:
        self.stalled = StalledSink()
        self.make_rig(MemorySink(), self.stalled)

    def make_rig(self, *sinks: Any, hosts: HostList | None = None, **options: Any) -> None:
        """Put a rig behind the site."""
        self.rig = Rig(*sinks, **options)
        self.rig.survey.state = "ready"
        self.web = Clock()
        registry = build_registry(self.rig.survey)
        self.site = build_site(self.rig.survey, registry, self.rig.events, hosts=hosts, reactor=self.web)
        self.cost = 0.0
        """Seconds by which the clock that measures pages advances with each look at it."""
        self.site.turns = Turns(self.web, self._spent)
        self._now = 0.0
        self.transports: list[ReadTransport] = []

    def _spent(self) -> float:
        self._now += self.cost
        return self._now

    def connect(self, address: Any = LOOPBACK) -> tuple[Any, "ReadTransport"]:
        """Open a connection to the site."""
        channel = self.site.buildProtocol(address)
        transport = ReadTransport(hostAddress=address)
        transport.protocol = channel  # type: ignore[attr-defined]
        channel.makeConnection(transport)
        self.transports.append(transport)
        return channel, transport

    def turn(self, seconds: float = TURN) -> None:
        """Let a turn pass in which clients read what was written."""
        self.web.advance(seconds)
        for transport in self.transports:
            transport.read()

    def lose(self, channel: Any) -> None:
        """End a connection as the peer's reset does."""
        channel.connectionLost(Failure(error.ConnectionLost()))

    def send(self, request: bytes) -> Answer:
        """Send raw bytes on a connection of their own, and give the answer."""
        channel, transport = self.connect()
        channel.dataReceived(request)
        for _ in range(50):
            self.turn()
        self.lose(channel)
        return parse(transport.value())

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Make a request."""
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: localhost",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))


class RouteTests(AdminTestCase):
    def test_every_page(self) -> None:
        """Every page answers GET, may not be kept by caches, and has the type it says it has."""
        for path in PAGES:
            answer = self.ask(path)
            self.assertEqual(answer.code, 200, path)
            self.assertEqual(answer.headers[b"cache-control"], b"no-store", path)
            self.assertEqual(answer.headers[b"x-content-type-options"], b"nosniff", path)
            self.assertIn(b"content-type", answer.headers, path)
            self.assertTrue(answer.body, path)

    def test_head(self) -> None:
        """HEAD gives the head of GET without the body."""
        for path in PAGES:
            answer = self.ask(path, "HEAD")
            self.assertEqual((answer.code, answer.body), (200, b""), path)
            self.assertEqual(answer.headers[b"cache-control"], b"no-store", path)
        self.assertEqual(self.ask("/healthz", "HEAD").headers[b"content-length"], b"3")
        self.assertEqual(self.ask("/metrics", "HEAD").headers[b"content-type"], TEXT)
        self.assertEqual(self.ask("/connections", "HEAD").headers[b"content-type"], b"application/json")

    def test_head_of_a_page_that_is_not(self) -> None:
        """HEAD says 404 and 503 where GET does."""
        self.assertEqual(self.ask("/nothing", "HEAD").code, 404)
        self.rig.survey.state = "draining"
        self.assertEqual(self.ask("/readyz", "HEAD").code, 503)

    def test_other_methods(self) -> None:
        """What is not a read is 405 and told what is allowed, on every page."""
        for path in PAGES:
            for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "BREW"):
                answer = self.ask(path, method)
                self.assertEqual((answer.code, answer.headers[b"allow"]), (405, b"GET, HEAD"), (path, method))
                self.assertEqual(answer.body, b"only GET and HEAD\n")

    def test_unknown_paths(self) -> None:
        """Whatever is not a page is 404, plain text, uncached, for every method."""
        for path in ("/nothing", "/metrics/extra", "/metrics/", "/status/x/y", "//metrics", "/..", "/Metrics"):
            for method in ("GET", "POST", "BREW"):
                answer = self.ask(path, method)
                self.assertEqual((answer.code, answer.body), (404, b"not found\n"), (path, method))
                self.assertEqual(answer.headers[b"cache-control"], b"no-store", path)
                self.assertEqual(answer.headers[b"content-type"], b"text/plain; charset=utf-8", path)

    def test_query_is_ignored(self) -> None:
        """A query changes nothing."""
        self.assertEqual(self.ask("/healthz?name[]=x&a=b;c").body, b"ok\n")

    def test_keep_alive(self) -> None:
        """Requests that follow one another on a connection are answered in order."""
        channel, transport = self.connect()
        channel.dataReceived(
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        self.turn()
        self.lose(channel)
        first, second = transport.value().split(b"HTTP/1.1 ")[1:]
        self.assertTrue(first.startswith(b"200"))
        self.assertTrue(second.startswith(b"404"))


class HostileRequestTests(AdminTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.seen = Seen()
        globalLogPublisher.addObserver(self.seen)
        self.addCleanup(globalLogPublisher.removeObserver, self.seen)

    def test_nothing_is_echoed(self) -> None:
        """No part of a request is in any answer or in the log."""
        for path in (*PAGES, "/", f"/{SECRET}"):
            for method in ("GET", "HEAD", "POST", SECRET):
                for accept in (f"text/{SECRET}", f"application/openmetrics-text;version=2.{SECRET}"):
                    headers = {"Accept": accept, "X-Own": SECRET, "Cookie": f"{SECRET}={SECRET}"}
                    channel, transport = self.connect()
                    lines = [f"{method} {path}?{SECRET}={SECRET} HTTP/1.1", f"Host: {SECRET}"]
                    lines += [f"{name}: {value}" for name, value in headers.items()]
                    channel.dataReceived("\r\n".join([*lines, "", ""]).encode())
                    self.web.advance(TURN)
                    self.web.advance(TURN)
                    self.lose(channel)
                    self.assertNotIn(SECRET.encode(), transport.value(), (method, path))
        self.assertEqual([event for event in self.seen.events if SECRET in str(event)], [])

    def test_nothing_is_logged(self) -> None:
        """Requests, good ones and bad ones, leave no line in the log: scrapes would fill it."""
        for path in (*PAGES, "/nothing"):
            for method in ("GET", "HEAD", "POST"):
                self.ask(path, method)
        self.send(b"nonsense\r\n\r\n")
        self.assertEqual([event.get("log_format") for event in self.seen.events], [])

    def test_bodies_are_not_kept(self) -> None:
        """A request's body is let fall as it comes: it takes neither memory nor disk."""
        channel, transport = self.connect()
        size = 50_000_000
        channel.dataReceived(b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
        chunk = b"x" * 1_000_000
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in range(size // len(chunk)):
            channel.dataReceived(chunk)
            (request,) = channel.requests or [None]
            if request is not None:
                self.assertEqual(request.content.getvalue(), b"")
        _, peak = tracemalloc.get_traced_memory()
        self.assertLess(peak, 5_000_000)
        self.lose(channel)
        self.assertEqual(parse(transport.value()).code, 405)

    def test_chunked_body(self) -> None:
        """A body without a length is let fall as well."""
        request = (
            b"POST /status HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        )
        self.assertEqual(self.send(request).code, 405)

    def test_forms(self) -> None:
        """A form, even a broken one, is a body like any other."""
        for kind in (b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b"multipart/form-data"):
            request = (
                b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Type: %b\r\nContent-Length: 5\r\n\r\n--x\r\n"
            )
            self.assertEqual(self.send(request % kind).code, 405, kind)

    def test_nonsense(self) -> None:
        """What is not HTTP is refused without a word."""
        answer = self.send(b"\x16\x03\x01\x02\x00\x01\r\n\r\n")
        self.assertEqual((answer.code, answer.body), (400, b""))

    def test_silent_client(self) -> None:
        """A client that does not finish its request is disconnected in the end."""
        channel, transport = self.connect()
        channel.dataReceived(b"GET /metrics HTTP/1.1\r\n")
        self.web.advance(REQUEST_TIMEOUT_SECONDS)
        self.assertTrue(transport.disconnecting)
        self.lose(channel)


class MetricsPageTests(AdminTestCase):
    def kind(self, *accept: str) -> bytes:
        """Give the type of the page for these ``Accept`` headers."""
        lines = ["GET /metrics HTTP/1.1", "Host: localhost", *(f"Accept: {value}" for value in accept), "", ""]
        answer = self.send("\r\n".join(lines).encode("latin-1"))
        self.assertEqual(answer.code, 200, accept)
        return answer.headers[b"content-type"]

    def test_text_by_default(self) -> None:
        """Whoever does not ask for OpenMetrics gets the text format, curl and browsers included."""
        for accept in ("*/*", "", "text/html,application/xhtml+xml,*/*;q=0.8", "text/plain", "application/json"):
            self.assertEqual(self.kind(accept), TEXT, accept)
        self.assertEqual(self.kind(), TEXT)

    def test_openmetrics_where_preferred(self) -> None:
        """Prometheus, and whoever wants OpenMetrics no less than text, gets it."""
        for accept in (
            PROMETHEUS,
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "Application/OpenMetrics-Text;VERSION=1.0.0",
            "application/openmetrics-text;q=0.5;version=1.0.0,text/plain;q=0.5",
            "text/plain;q=0.3 , application/openmetrics-text ; q=0.7",
        ):
            self.assertEqual(self.kind(accept), OPENMETRICS, accept)
        self.assertEqual(self.kind("text/plain;q=0.1", "application/openmetrics-text"), OPENMETRICS)

    def test_text_where_preferred(self) -> None:
        """Weights are heeded, and a version that we do not speak is not answered with another."""
        for accept in (
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.0,text/plain;q=0.1",
            "application/openmetrics-text;q=0.2,text/plain;q=0.9",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;version=1.0.0x",
        ):
            self.assertEqual(self.kind(accept), TEXT, accept)

    def test_odd_accept(self) -> None:
        """No ``Accept`` makes the page fail."""
        for accept in (
            "application/openmetrics-text;version=abc",
            "application/openmetrics-text;version=",
            "application/openmetrics-text;q=zzz;;=;version==",
            "\xff\xfe",
            "," * 1000,
            ";" * 5000,
            "application/openmetrics-text" + ";version=" * 1000,
        ):
            self.assertIn(self.kind(accept), (TEXT, OPENMETRICS))

    def test_bodies(self) -> None:
        """Each format's own parser reads the page of that type, and each finds our metrics."""
        text = list(parse_text(self.ask("/metrics").body.decode()))
        openmetrics = list(parse_openmetrics(self.ask("/metrics", Accept=PROMETHEUS).body.decode()))
        for families in (text, openmetrics):
            self.assertIn("ingest_conservation_error", {family.name for family in families})


class HealthTests(AdminTestCase):
    def test_healthy(self) -> None:
        """``/healthz`` is 200 while the reactor turns, ready or not."""
        self.rig.survey.state = "draining"
        answer = self.ask("/healthz")
        self.assertEqual((answer.code, answer.body), (200, b"ok\n"))

    def test_ready(self) -> None:
        """``/readyz`` is 200 when records are being taken."""
        answer = self.ask("/readyz")
        self.assertEqual((answer.code, answer.body), (200, b"ready\n"))

    def test_starting_and_draining(self) -> None:
        """``/readyz`` is 503 before the start is done and while stopping, and says which."""
        for state in ("starting", "draining"):
            self.rig.survey.state = state
            answer = self.ask("/readyz")
            self.assertEqual((answer.code, answer.body), (503, f"{state}\n".encode()))

    def test_starts_as_starting(self) -> None:
        """A survey is not ready until the service says so."""
        self.assertEqual(Rig().survey.reasons(), ["starting"])

    def test_trouble(self) -> None:
        """A required sink in trouble is a reason, with what it is about."""
        self.stalled.trouble = "cannot write ingest.log: No space left on device"
        answer = self.ask("/readyz")
        expected = b"sink stalled: cannot write ingest.log: No space left on device\n"
        self.assertEqual((answer.code, answer.body), (503, expected))

    def test_trouble_of_an_optional_sink(self) -> None:
        """A sink that is not required keeps nobody from being ready; its trouble shows in ``/status``."""
        self.make_rig(StalledSink(), required=False)
        self.rig.sink.trouble = "no reader"
        self.assertEqual(self.ask("/readyz").code, 200)
        self.assertEqual(self.ask("/status").json()["sinks"][0]["trouble"], "no reader")

    def test_one_reason_a_line(self) -> None:
        """All reasons are given, one a line."""
        self.rig.survey.state = "draining"
        for sink in self.rig.sinks:
            sink.trouble = "stuck"
        self.rig.factory.ledger.bytes_received += 3
        self.assertEqual(
            self.ask("/readyz").body.decode().splitlines(),
            ["draining", "sink memory: stuck", "sink stalled: stuck", "conservation error 3 (test: bytes)"],
        )

    def test_path_that_is_not_utf8(self) -> None:
        """A reason that names a path which is not UTF-8 is still a page."""
        self.stalled.trouble = "cannot write \udcff.log"
        self.assertEqual(self.ask("/readyz").body, b"sink stalled: cannot write \\udcff.log\n")
        self.assertEqual(self.ask("/status").code, 200)
        self.assertEqual(self.ask("/metrics").code, 200)

    def test_lost_byte(self) -> None:
        """One byte not accounted for makes the process not ready, and the page names the place."""
        self.rig.send(b"one\nhalf")
        self.rig.factory.ledger.bytes_accepted -= 1
        answer = self.ask("/readyz")
        self.assertEqual((answer.code, answer.body), (503, b"conservation error 1 (test: bytes)\n"))
        self.assertIn(b"\ningest_conservation_error 1.0\n", self.ask("/metrics").body)
        self.assertIn(b"\ningest_ready 0.0\n", self.ask("/metrics").body)

    def test_lost_record(self) -> None:
        """A record that a sink was handed and neither has nor took makes the process not ready."""
        self.rig.send(b"one\n")
        self.rig.intake.outlets[1].outstanding.clear()
        answer = self.ask("/readyz")
        self.assertEqual((answer.code, answer.body), (503, b"conservation error 1 (test: records at stalled)\n"))
        self.assertIn(b"\ningest_conservation_error 1.0\n", self.ask("/metrics").body)


class StatusTests(AdminTestCase):
    def test_fields(self) -> None:
        """``/status`` has everything about the process, and each part all its fields."""
        status = self.ask("/status").json()
        self.assertEqual(
            {key: set(value) if isinstance(value, dict) else type(value) for key, value in status.items()},
            {
                "version": str,
                "scanner": str,
                "openssl": str,
                "state": str,
                "ready": bool,
                "reasons": list,
                "uptime_seconds": float,
                "listeners": list,
                "http": {"active_pollers", "pollers"},
                "connections": {"open", "limit", "paused", "paused_by_reason", "departed"},
                "budget": {
                    "limit_bytes",
                    "used_bytes",
                    "partial_bytes",
                    "connections_bytes",
                    "high_bytes",
                    "low_bytes",
                    "reading_stopped",
                },
                "admin": {"connections", "limit"},
                "sinks": list,
                "conservation": {"error", "by_place"},
                "limits": set(),
            },
        )

    def test_values(self) -> None:
        """What it says is what happened."""
        self.rig.send(b"one\ntwo\nhalf")
        self.rig.turn(7)
        status = self.ask("/status").json()
        self.assertEqual((status["version"], status["state"], status["ready"]), (__version__, "ready", True))
        self.assertEqual(status["reasons"], [])
        self.assertEqual(status["uptime_seconds"], 7.0)
        by_reason = {"budget": 0, "connection": 0, "answers": 0, "rate": 0}
        self.assertEqual(
            status["connections"],
            {"open": 1, "limit": 1000, "paused": 0, "paused_by_reason": by_reason, "departed": 0},
        )
        self.assertEqual(
            status["conservation"],
            {"error": 0, "by_place": {"test: bytes": 0, "test: records at memory": 0, "test: records at stalled": 0}},
        )
        budget = self.rig.intake.budget
        self.assertEqual(status["budget"]["limit_bytes"], budget.limit)
        self.assertEqual(status["budget"]["used_bytes"], budget.used)
        self.assertEqual(status["budget"]["partial_bytes"], budget.partials)
        self.assertGreater(budget.partials, 0)

    def test_listener(self) -> None:
        """A listener shows its endpoint, its address, its limits, its connections and all its counts."""
        self.make_rig(max_record_bytes=10, oversize=Oversize.DROP, idle_timeout_seconds=None)
        self.rig.send(b"half")
        (listener,) = self.ask("/status").json()["listeners"]
        counts = listener.pop("counts")
        self.assertEqual(
            listener,
            {
                "name": "test",
                "endpoint": "none",
                "address": None,
                "trouble": None,
                "protocol": "lines",
                "durability": "written",
                "sinks": ["memory"],
                "framing": "auto",
                "max_length": 10,
                "oversize": "drop",
                "idle_timeout_seconds": None,
                "idle_until_first_record": True,
                "frame_timeout_seconds": 30.0,
                "allow": None,
                "proxy_protocol_from": None,
                "rate": None,
                "rate_per_peer": None,
                "tls": None,
                "connections_open": 1,
                "doorways_open": 0,
                "unanswered_frames": 0,
                "unanswered_bytes": 0,
                "bytes_buffered": 4,
            },
        )
        self.assertEqual(counts["bytes_received"], 4)
        self.assertEqual({f"connections_closed/{reason}" for reason in CloseReason} - set(counts), set())

    def test_sinks(self) -> None:
        """A sink shows what it took, what it has yet to take, and what it lost by reason."""
        self.rig.send(b"one\ntwo\n")
        memory, stalled = self.ask("/status").json()["sinks"]
        none = {reason.value: 0 for reason in DropReason}
        self.assertEqual(
            memory,
            {
                "name": "memory",
                "to": "memory",
                "required": True,
                "trouble": None,
                "delivered_records": 2,
                "delivered_bytes": 8,
                "in_flight_records": 0,
                "queued_bytes": 0,
                "dropped_records": none,
            },
        )
        self.assertEqual((stalled["delivered_records"], stalled["in_flight_records"]), (0, 2))
        self.stalled.fail()
        _, stalled = self.ask("/status").json()["sinks"]
        self.assertEqual(stalled["dropped_records"], none | {"sink_failed": 2})

    def test_not_ready(self) -> None:
        """The reasons of ``/readyz`` are here too."""
        self.rig.survey.state = "draining"
        self.rig.factory.ledger.bytes_received += 1
        status = self.ask("/status").json()
        self.assertEqual((status["state"], status["ready"]), ("draining", False))
        self.assertEqual(status["reasons"], ["draining", "conservation error 1 (test: bytes)"])
        self.assertEqual(status["conservation"]["error"], 1)


class ConnectionsTests(AdminTestCase):
    def connect_peers(self, count: int) -> None:
        """Open so many connections."""
        for number in range(count):
            self.rig.connect(f"10.0.{number // 250}.{number % 250}", 1000 + number)

    def test_none(self) -> None:
        """Without connections it is an empty array."""
        answer = self.ask("/connections")
        self.assertEqual((answer.json(), answer.body), ([], b"[]\n"))
        self.assertEqual(answer.headers[b"content-type"], b"application/json")

    def test_one(self) -> None:
        """A row says who, since when, how much, and whether we read from it."""
        self.rig.send(b"one\ntwo\nhalf")
        self.rig.turn(3)
        (row,) = self.ask("/connections").json()
        (connection,) = self.rig.factory.connections.values()
        self.assertEqual(
            row,
            {
                "id": 1,
                "listener": "test",
                "peer": "192.0.2.1:40000",
                "proxy": None,
                "local": None,
                "age_seconds": 3.0,
                "bytes_received": 12,
                "records": 2,
                "buffered_bytes": 4,
                "in_flight_bytes": connection.lane.in_flight,
                "paused": None,
                "paused_seconds": 0.0,
            },
        )
        self.assertGreater(connection.lane.in_flight, 8)

    def test_paused(self) -> None:
        """A row says why and how long we have not read from a peer, the pause that lasts included."""
        self.make_rig(StalledSink(), connection_memory=100_000)
        self.rig.send(b"0123456789\n" * 10_000)
        self.rig.turn(4)
        (row,) = self.ask("/connections").json()
        self.assertEqual((row["paused"], row["paused_seconds"]), ("connection", 4.0))

    def test_a_thousand(self) -> None:
        """A thousand connections are a thousand rows of one valid array, a line each."""
        self.connect_peers(1000)
        answer = self.ask("/connections")
        self.assertEqual([row["id"] for row in answer.json()], list(range(1, 1001)))
        self.assertEqual(answer.body.count(b"\n"), 1000)

    def test_exact_pages(self) -> None:
        """Counts at the edges of one write give valid arrays too."""
        for count in (ROWS_PER_PIECE - 1, ROWS_PER_PIECE, ROWS_PER_PIECE + 1, 2 * ROWS_PER_PIECE):
            self.make_rig()
            self.connect_peers(count)
            self.assertEqual(len(self.ask("/connections").json()), count)

    def begin(self, count: int) -> tuple[Any, ReadTransport]:
        """Ask for so many rows; the first piece is written."""
        self.connect_peers(count)
        channel, transport = self.connect()
        channel.dataReceived(b"GET /connections HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return channel, transport

    def test_pieces(self) -> None:
        """A piece is made when the one before has been read: ten thousand rows hold nobody up."""
        channel, transport = self.begin(3 * ROWS_PER_PIECE)
        for expected in (1, 2, 3, 3):
            self.web.advance(TURN)
            self.assertEqual(transport.value().count(b'"id"'), expected * ROWS_PER_PIECE)
            transport.read()
        self.lose(channel)

    def test_connections_that_end_meanwhile(self) -> None:
        """Connections that end while rows are written are left out, and not kept for their row."""
        channel, transport = self.begin(2 * ROWS_PER_PIECE)
        ended = [weakref.ref(connection) for connection in self.rig.factory.connections.values()]
        for transport_of_peer in [connection.transport for connection in self.rig.factory.connections.values()]:
            transport_of_peer.abortConnection()
        self.rig.turn()
        del transport_of_peer
        self.assertEqual(self.rig.factory.connections, {})
        gc.collect()
        self.assertEqual([connection() for connection in ended], [None] * len(ended))
        for _ in range(5):
            self.turn()
        self.assertEqual(len(parse(transport.value()).json()), ROWS_PER_PIECE)
        self.lose(channel)

    def test_client_goes_away(self) -> None:
        """A client that goes away mid-way ends the writing, quietly, and nothing is kept for it."""
        before = len(self.web.getDelayedCalls())
        channel, transport = self.begin(1000)
        written = len(transport.value())
        self.assertEqual(transport.value().count(b'"id"'), ROWS_PER_PIECE)
        self.lose(channel)
        for _ in range(20):
            self.web.advance(TURN)
        self.assertEqual(len(transport.value()), written)
        self.assertEqual(len(self.web.getDelayedCalls()), before)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_stalled_client(self) -> None:
        """A client that takes nothing more is disconnected, and the rows are not written into memory."""
        channel, transport = self.begin(1000)
        written = len(transport.value())
        self.web.advance(REQUEST_TIMEOUT_SECONDS - TURN)
        self.assertFalse(transport.is_reset)
        self.web.advance(TURN)
        self.assertTrue(transport.is_reset)
        self.assertEqual(len(transport.value()), written)
        self.lose(channel)

    def test_slow_client(self) -> None:
        """A client that takes a piece now and then gets all of them."""
        channel, transport = self.begin(1000)
        for _ in range(6):
            self.turn(REQUEST_TIMEOUT_SECONDS - TURN)
        self.assertFalse(transport.is_reset)
        self.assertEqual(len(parse(transport.value()).json()), 1000)
        self.lose(channel)

    def test_hostile_peer_name(self) -> None:
        """A peer's name that holds what steers terminals is escaped."""
        protocol = self.rig.factory.buildProtocol(UNIXAddress("/tmp/\x1b[2J\n\u202e"))
        assert isinstance(protocol, Connection)
        self.rig.connect()
        self.rig.factory.connection_made(protocol)
        rows = self.ask("/connections").json()
        self.assertTrue(all(row["peer"].isprintable() for row in rows), rows)


class Client(Protocol):
    """Asks one thing; ``answered`` fires with the whole answer when the connection has ended."""

    def __init__(self, path: str, headers: bytes = b"") -> None:
        self._request = b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%b\r\n" % (path.encode(), headers)
        self._parts: list[bytes] = []
        self.answered: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        """Ask."""
        assert self.transport is not None
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        """Take a part."""
        self._parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give what came."""
        self.answered.callback(b"".join(self._parts))


class LeavingClient(Client):
    """Resets the connection at the first bytes of the answer."""

    def dataReceived(self, data: bytes) -> None:
        """Leave."""
        ITCPTransport(self.transport).abortConnection()


class RealPortTests(TestCase):
    """The same through the kernel."""

    def setUp(self) -> None:
        self.rig = Rig(max_connections=2000)
        self.rig.survey.state = "ready"
        for number in range(1000):
            self.rig.connect("10.0.0.1", number)
        site: Any = build_site(self.rig.survey, build_registry(self.rig.survey), self.rig.events)
        self.port: Any = IReactorTCP(reactor).listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)

    async def get(self, client: Client) -> bytes:
        """Connect, and wait for the end."""
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port), client)
        return await client.answered

    async def test_pages(self) -> None:
        """Each page comes through a real socket whole."""
        for path in PAGES:
            answer = parse(await self.get(Client(path)))
            self.assertEqual((answer.code, bool(answer.body)), (200, True), path)

    async def test_connections(self) -> None:
        """A thousand rows come through a real socket as one valid array."""
        answer = parse(await self.get(Client("/connections")))
        self.assertEqual([row["id"] for row in answer.json()], list(range(1, 1001)))

    async def test_openmetrics(self) -> None:
        """Prometheus' ``Accept`` gives OpenMetrics, complete to its end mark."""
        answer = parse(await self.get(Client("/metrics", b"Accept: %b\r\n" % PROMETHEUS.encode())))
        self.assertEqual(answer.headers[b"content-type"], OPENMETRICS)
        self.assertTrue(answer.body.endswith(b"# EOF\n"))

    async def test_client_goes_away(self) -> None:
        """Clients that reset mid-way leave no error behind, and the next one is served."""
        for _ in range(5):
            await self.get(LeavingClient("/connections"))
        answer = parse(await self.get(Client("/connections")))
        self.assertEqual(len(answer.json()), 1000)
        self.assertEqual(self.flushLoggedErrors(), [])
