"""
Attack: clients of the admin endpoint that ask without end, read nothing, or only hold their connections.

Cost to a careless receiver: every answer in memory (1,900 requests in one packet's worth of text are 80 MB of pages),
no turn of the reactor for those whose lines it is there for, and the descriptors that they need. Bound proven: a
client has one unread page, all of them a share of the reactor's time and descriptors of their own; lines flow, and a
scraper gets in.
"""

import contextlib
import errno
import os
import re
import socket
import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionAborted
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.attacks.report import Group, Scenario
from tests.server import PATIENCE, Server, numbered, wait_until
from tests.test_admin import Client
from twisted_ingest.admin.port import AdminListener
from twisted_ingest.admin.site import build_site
from twisted_ingest.errors import ListenError
from twisted_ingest.limits import ADMIN_CONNECTIONS, MIB
from twisted_ingest.observe.metrics import build_registry
from twisted_ingest.testing import Rig

UNREAD = Scenario(
    Group.PEERS,
    "Pipelined scrapes, unread",
    "ten admin clients send 1,900 `GET /metrics` each at once and read nothing",
    "one request of a connection at a time: the next is not parsed before the answer has left the process; who reads "
    "nothing for 15 s is reset; lines are taken meanwhile",
    ('ingest_admin_requests_total{code="200",route="/metrics"}', "ingest_admin_connections"),
)
GREEDY = Scenario(
    Group.PEERS,
    "Scrapes without end",
    "eight admin clients ask for pages as fast as they are answered",
    "pages are made one at a time, and take a quarter of the reactor's time at most; probes and pages take turns; "
    "lines are taken meanwhile",
    ('ingest_admin_requests_total{code="200",route="/metrics"}', "ingest_event_loop_lag_seconds"),
)
IDLE = Scenario(
    Group.PEERS,
    "Idle admin connections",
    "300 connections to the admin endpoint that ask nothing, under a limit of 256 descriptors",
    "they are capped with descriptors of their own: data connections up to their cap are accepted; at the admin cap a "
    "newcomer takes the place of who is idle the longest",
    ("ingest_admin_connections", "process_open_fds"),
)

CLIENTS = 10
REQUESTS = 1900
ASK = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


class AdminPortTests(TestCase):
    """The port itself: what the kernel refuses, and what becomes of a port that is lost."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.rig.survey.state = "ready"
        registry = build_registry(self.rig.survey)
        self.site = build_site(self.rig.survey, registry, self.rig.events, reactor=reactor)
        self.listener = AdminListener("tcp:0:interface=127.0.0.1", self.site, reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.listener.stop()))

    async def ask(self, number: int) -> bytes:
        """Ask whether it is well."""
        client = Client("/healthz")
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", number), client)
        return await client.answered

    async def test_kernel_out_of_means(self) -> None:
        """Where the kernel can give no connection the port waits, and accepts in the end."""
        self.listener.bind()
        port, real = self.listener.port, self.listener.port.socket
        failures = iter((errno.ENFILE, errno.EMFILE, errno.ENOMEM))

        class Poor:
            def accept(self) -> Any:
                for number in failures:
                    raise OSError(number, os.strerror(number))
                return real.accept()

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        port.socket = Poor()
        self.assertIn(b"200 OK", await self.ask(port.getHost().port))
        self.assertEqual(sum(self.site.ledger.accept_errors.values()), 3)

    async def test_lost(self) -> None:
        """A port that is lost is bound again, on the same number, and answers."""
        self.listener.bind()
        number = self.listener.port.getHost().port
        self.listener.port.connectionLost(Failure(ConnectionAborted()))
        self.assertIsNone(self.listener.port)
        while self.listener.port is None:
            await deferLater(reactor, 0.01)
        self.assertEqual(self.listener.port.getHost().port, number)
        self.assertIn(b"200 OK", await self.ask(number))

    async def test_taken(self) -> None:
        """An address that is taken is a `ListenError` that names the flag."""
        self.listener.bind()
        taken = f"tcp:{self.listener.port.getHost().port}:interface=127.0.0.1"
        with self.assertRaises(ListenError) as caught:
            AdminListener(taken, self.site, reactor).bind()
        self.assertEqual(str(caught.exception), f"cannot listen on {taken} (--admin): Address already in use")


class AdminClientTests(SynchronousTestCase):
    def server(self, *flags: str, prefix: tuple[str, ...] = ()) -> Server:
        """Start one."""
        server = Server(*flags, prefix=prefix)
        self.addCleanup(server.kill)
        server.wait_ready()
        return server

    def ask(self, server: Server, data: bytes = b"") -> socket.socket:
        """Connect to the admin endpoint and send."""
        match = re.search(r":(\d+)$", server.admin)
        assert match is not None
        client = socket.create_connection(("127.0.0.1", int(match[1])), PATIENCE)
        self.addCleanup(client.close)
        client.sendall(data)
        return client

    def check_lines(self, server: Server, count: int = 2000) -> None:
        """Send lines, and see them delivered, each once and in order."""
        before = len(server.output())
        lines = b"".join(line + b"\n" for line in numbered("line", count))
        server.send(lines)
        self.assertEqual(server.wait_output(before + len(lines))[before:], lines)

    def test_unread(self) -> None:
        """Lines are delivered before the pages that nobody reads are made; those take next to no memory."""
        server = self.server("--memory", "64MiB")
        server.metrics()
        before = server.rss()
        clients = [self.ask(server, ASK * REQUESTS) for _ in range(CLIENTS)]
        self.check_lines(server)
        # A scraper of its own gets in, and a probe.
        self.assertEqual(server.get("readyz"), "ready\n")
        early = self.pages(server)
        wait_until(lambda: server.metrics()["ingest_admin_connections"] == 1, "those that read nothing are reset")
        # Those made were for what the kernel holds of both ends, and for ourselves.
        self.assertLess(self.pages(server), CLIENTS * REQUESTS / 10)
        grown = server.peak_rss() - before
        self.assertLess(grown, 64 * MIB)
        self.assertEqual(server.metrics()["ingest_conservation_error"], 0)
        for client in clients:
            self.assertRaises(ConnectionResetError, self.read_on, client)
        UNREAD.measured(
            f"2,000 lines delivered when {early} of {CLIENTS * REQUESTS:,} pages had been made; all clients reset; "
            f"{grown / MIB:.0f} MiB more resident at most"
        )

    def pages(self, server: Server) -> int:
        """Give how many pages of metrics were made for the attackers."""
        match = re.search(r'ingest_admin_requests_total\{code="200",route="/metrics"\} (\d+)', server.get("metrics"))
        assert match is not None
        return int(match[1])

    def read_on(self, client: socket.socket) -> None:
        """Read to the end."""
        while client.recv(1 << 20):
            pass

    def test_greedy(self) -> None:
        """Lines, probes and a scraper get through while clients ask without end."""
        server = self.server()
        stop = threading.Event()
        greedy = [threading.Thread(target=self.flood, args=(server, stop), daemon=True) for _ in range(8)]
        for thread in greedy:
            thread.start()
        try:
            wait_until(lambda: server.metrics()["ingest_admin_connections"] > len(greedy), "the flood")
            self.check_lines(server)
            self.assertEqual(server.get("readyz"), "ready\n")
            self.assertEqual(server.metrics()["ingest_conservation_error"], 0)
            self.assertTrue(all(thread.is_alive() for thread in greedy))
        finally:
            stop.set()
            for thread in greedy:
                thread.join(PATIENCE)
        GREEDY.measured("2,000 lines, a probe and three scrapes got through beside 8 clients that never pause")

    def flood(self, server: Server, stop: threading.Event) -> None:
        """Ask and read, over and over; bounded."""
        client = self.ask(server)
        client.settimeout(PATIENCE)
        with contextlib.suppress(OSError):
            for _ in range(100_000):
                if stop.is_set():
                    break
                client.sendall(ASK)
                client.recv(1 << 20)

    def test_idle(self) -> None:
        """Idle admin connections take no descriptor of a data peer, and keep no scraper out."""
        server = self.server(prefix=("prlimit", "--nofile=256:256"))
        limit = int(server.metrics()["ingest_connections_limit"])
        self.assertEqual(limit, 192)
        idle = [self.ask(server) for _ in range(300)]
        # Made room for a newcomer: no deadline ends a connection with a reset before its first request.
        self.assertRaises(ConnectionResetError, idle[0].recv, 1)
        peers = [server.connect() for _ in range(limit)]
        for peer in peers:
            self.addCleanup(peer.close)
            peer.sendall(b"here\n")
        self.assertEqual(server.wait_output(5 * limit), b"here\n" * limit)
        metrics = server.metrics()
        self.assertEqual(metrics["ingest_connections_open"], limit)
        self.assertLessEqual(metrics["ingest_admin_connections"], ADMIN_CONNECTIONS)
        self.assertEqual(server.get("healthz"), "ok\n")
        for client in idle:
            client.close()
        IDLE.measured(
            f"{limit} data connections beside {len(idle)} idle ones, {server.descriptors()} descriptors; "
            f"the scraper was answered"
        )
