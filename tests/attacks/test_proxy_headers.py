"""
Attack: PROXY headers that are forged, unfinished or monstrous, and proxies that only look whether we are there.

Cost to a careless receiver: anybody is whoever he likes, past every limit; a header without end holds a connection and
its memory; a balancer's checks fill the log. Bound proven: only named proxies are believed, within five seconds and two
kilobytes, and a thousand that stall take nothing from those that are in.
"""

import contextlib
import socket
import struct
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.report import Group, Scenario
from tests.server import PATIENCE, Server, wait_until
from tests.test_framing_proxy import LOCAL, PROXY, TCP4, UNSPEC, block, element, ends4
from twisted_ingest.limits import DOORWAY_OVERHEAD, MIB, PROXY_TIMEOUT

SPOOFED = Scenario(
    Group.ACCEPT,
    "A spoofed PROXY header",
    "peers that are no proxies send headers with addresses that are allowed, over and over",
    "each is reset before a byte is read and counted; the log has a few lines and a count; nothing of it is a record",
    ('ingest_connections_refused_total{reason="proxy_untrusted"}', "ingest_log_suppressed_total"),
)
STALLED = Scenario(
    Group.ACCEPT,
    "PROXY headers that do not end",
    "a thousand connections begin a header and stop; another sends a byte a second",
    "each is reset after 5 s, whatever it drips, and charged until then; they are no connections: an admitted peer "
    "sends on, and another comes in",
    ('ingest_connections_refused_total{reason="proxy_missing"}', "ingest_doorways_open"),
)
MONSTROUS = Scenario(
    Group.ACCEPT,
    "PROXY headers that cannot be believed",
    "108 bytes and more in version 1, 64 KiB and elements that do not fit in version 2, wrong families, bad ports, "
    "control characters, a header twice, none at all",
    "refused at the first byte that is wrong, the fault named and nothing of it in the log as it came; no record",
    (
        'ingest_connections_refused_total{reason="proxy_bad"}',
        'ingest_connections_refused_total{reason="proxy_missing"}',
    ),
)
CHECKS = Scenario(
    Group.ACCEPT,
    "Health checks without end",
    "a proxy connects for itself (LOCAL, UNKNOWN, nothing at all) and leaves, hundreds of times",
    "counted, past the allow-list and every limit per peer, and no line in the log; one that sends records all the "
    "same is told of, and they are delivered",
    ("ingest_connections_opened_total", 'ingest_connections_refused_total{reason="doorway_left"}'),
)

PROXY_HOST = "127.0.0.2"
"""The only proxy; everybody else on this machine is none."""

HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.1 40001 514\r\n"


class HeaderTests(SynchronousTestCase):
    def server(self, *flags: str) -> Server:
        server = Server("--proxy-protocol-from", PROXY_HOST, *flags)
        self.addCleanup(server.kill)
        server.wait_ready()
        return server

    def connect(self, server: Server, host: str = PROXY_HOST) -> socket.socket:
        """Connect, from an address of this machine."""
        peer = socket.create_connection(("127.0.0.1", server.port), PATIENCE, source_address=(host, 0))
        self.addCleanup(peer.close)
        return peer

    def refused(self, server: Server, reason: str) -> float:
        return server.metrics()[f"ingest_connections_refused_total[{reason}]"]

    def see_refused(self, server: Server, reason: str, count: int) -> None:
        """Wait until so many have been refused for a reason."""
        wait_until(lambda: self.refused(server, reason) == count, f"{count} refused, {reason}")

    def test_spoofed(self) -> None:
        """Whoever is no proxy is nobody, whatever he announces, and beside a proxy that is served."""
        server = self.server("--allow", "192.0.2.0/24")
        for number in range(1000):
            with contextlib.suppress(OSError), self.connect(server, "127.0.0.1") as peer:
                peer.sendall((HEADER if number % 2 else block(PROXY, TCP4, ends4("192.0.2.7", "::", (1, 2)))) + b"x\n")
        with self.connect(server) as peer:
            peer.sendall(HEADER + b"from a proxy\n")
        self.assertEqual(server.wait_output(13), b"from a proxy\n")
        self.see_refused(server, "proxy_untrusted", 1000)
        lines = [line for line in server.log if "proxy_untrusted" in line]
        self.assertLessEqual(len(lines), 20)
        self.assertIn("(--proxy-protocol-from)", lines[0])
        metrics = server.metrics()
        self.assertEqual((metrics["ingest_connections_opened_total"], metrics["ingest_conservation_error"]), (1, 0))
        SPOOFED.measured(f"1,000 spoofed: none admitted, {len(lines)} lines in the log")

    def test_stalled(self) -> None:
        """A thousand begun headers cost what is charged for them, and go by themselves; who speaks comes in."""
        server = self.server()
        admitted = self.connect(server)
        admitted.sendall(HEADER + b"first\n")
        server.wait_output(6)
        before = server.rss()
        dripping = self.connect(server)
        for _ in range(1000):
            self.connect(server).sendall(b"PROXY TCP4 192.0.2.7 ")
        admitted.sendall(b"second\n")
        late = self.connect(server)
        late.sendall(HEADER.replace(b".7 ", b".8 ") + b"third\n")
        self.assertEqual(sorted(server.wait_output(19).split()), [b"first", b"second", b"third"])
        metrics, grown = server.metrics(), server.rss() - before
        standing = metrics["ingest_doorways_open[tcp-0]"]
        self.assertGreaterEqual(metrics["ingest_budget_used_bytes"], standing * DOORWAY_OVERHEAD)
        self.assertEqual(metrics["ingest_connections_open"], 2)
        self.assertLess(grown, 24 * MIB)
        for byte in HEADER:
            try:
                dripping.sendall(bytes((byte,)))
            except OSError:
                break
            time.sleep(1)
        else:
            self.fail("a byte a second kept a connection")
        wait_until(lambda: not server.metrics()["ingest_doorways_open[tcp-0]"], "all gone")
        gone = self.refused(server, "proxy_missing") + self.refused(server, "doorway_full")
        self.assertEqual(gone, 1001)
        self.assertEqual(server.metrics()["ingest_budget_used_bytes"], 0)
        STALLED.measured(
            f"{standing:,.0f} stood there at once, {grown / MIB:.1f} MiB of memory, all gone after "
            f"{PROXY_TIMEOUT:g} s; no line of the others missing"
        )

    def test_monstrous(self) -> None:
        """Each is refused for its fault, with nothing behind it taken for a record, and the server goes on."""
        ends = ends4("192.0.2.7", "192.0.2.1", (1, 2))
        bad = [
            b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r\n",
            b"PROXY UNKNOWN " + b"x" * 100_000,
            HEADER.replace(b"40001", b"99999999"),
            HEADER.replace(b"TCP4", b"TCP6"),
            HEADER.replace(b"192.0.2.7", b"\x1b[31mEVIL"),
            HEADER.replace(b"\r\n", b"\n"),
            HEADER.replace(b" 514", b" 0514"),
            block(LOCAL, UNSPEC, bytes(0xFFFF)),
            block(PROXY, TCP4, ends + element(4, bytes(2030))),
            block(PROXY, TCP4, ends + struct.pack("!BH", 4, 60000)),
            block(PROXY, TCP4, ends + element(3, b"bad!")),
            block(PROXY, 0x12, ends),
            block(PROXY, TCP4, ends[:5]),
            block(0x22, TCP4, ends),
        ]
        missing = [b"<13>a line without a header\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 4096]
        server = self.server()
        for data in (*bad, *missing):
            peer = self.connect(server)
            with contextlib.suppress(OSError):  # it may be reset while it sends
                peer.sendall(data + b"\nno record\n")
        self.see_refused(server, "proxy_bad", len(bad))
        self.see_refused(server, "proxy_missing", len(missing))
        self.connect(server).sendall(HEADER + HEADER + b"no record\n")
        self.see_refused(server, "proxy", 1)
        self.connect(server).sendall(HEADER + b"a record\n")
        self.assertEqual(server.wait_output(9), b"a record\n")
        self.assertFalse(any("\x1b" in line or "EVIL" in line for line in server.log))
        self.assertEqual(server.metrics()["ingest_conservation_error"], 0)
        MONSTROUS.measured(f"{len(bad)} bad ones, one twice and {len(missing)} that were none: all refused, no record")

    def test_health_checks(self) -> None:
        """A proxy's checks are past every limit and silent; one that sends records is heard, and told of."""
        server = self.server("--allow", "192.0.2.0/24", "--max-connections-per-peer", "1")
        ways = (block(LOCAL, UNSPEC, b""), b"PROXY UNKNOWN\r\n", b"")
        for number in range(300):
            self.connect(server).sendall(ways[number % 3])
        wait_until(lambda: server.metrics()["ingest_connections_opened_total"] == 200, "all that said so are in")
        for _ in range(100):
            self.connect(server).close()
        self.assertGreaterEqual(server.metrics()["ingest_connections_open"], 200)
        wait_until(lambda: self.refused(server, "doorway_left") == 100, "all that left are counted")
        last = max(number for number, line in enumerate(server.log) if "  try  " in line)
        told = [line for line in server.log[last:] if " connected " in line or " closed " in line or "_left" in line]
        self.assertEqual(told, [])
        self.connect(server).sendall(ways[0] + b"a record all the same\n")
        self.assertEqual(server.wait_output(22), b"a record all the same\n")
        wait_until(lambda: any(" connected (#" in line for line in server.log), "it is told of")
        CHECKS.measured("300 that left or stayed and said nothing: no line in the log; a record of another delivered")
