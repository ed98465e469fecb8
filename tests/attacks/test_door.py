"""
Attack: what happens before the first byte: floods of connections, too many of them, a kernel out of means.

Cost to a careless receiver: its descriptors, its processor, or the connections of innocent peers. Bound proven: the
caps hold, whoever waits is served in the end, and established peers notice nothing.
"""

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import time

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.attacks.report import Group, Scenario
from tests.server import Server, wait_until

CAP = Scenario(
    Group.ACCEPT,
    "More connections than allowed",
    "ten times as many connections as the cap, under a low descriptor limit",
    "accepting stops at the cap, which lies below the descriptor limit; who waits in the backlog is accepted when one "
    "closes; nobody is reset",
    ("ingest_connections_open", "ingest_connections_limit"),
)
EXHAUSTED = Scenario(
    Group.ACCEPT,
    "A kernel out of means",
    "accepting fails with ENFILE, EMFILE, ENOBUFS, ENOMEM or ECONNABORTED",
    "accepting backs off (0.1 s, doubling to 5 s) instead of spinning, goes on by itself, and resets nobody",
    ("ingest_connections_opened_total",),
)
DENIED = Scenario(
    Group.ACCEPT,
    "A flood of denied peers",
    "peers outside the allow-list connect over and over",
    "each is reset before anything is built for it, and counted; the log has a few lines and a count",
    ('ingest_connections_refused_total{reason="not_allowed"}', "ingest_log_suppressed_total"),
)
RESETS = Scenario(
    Group.ACCEPT,
    "Connect and reset",
    "one peer connects and resets as fast as it can, beside an established one",
    "its connections past its rate are refused; a hundred are accepted a turn at most; the established peer's lines "
    "are delivered",
    ('ingest_connections_refused_total{reason="connection_rate"}',),
)
STAMPEDE = Scenario(
    Group.ACCEPT,
    "A fleet reconnects",
    "a thousand clients connect at once and send a line each",
    "the backlog of 1,024 holds them; each is accepted and its line delivered",
    ("ingest_connections_opened_total",),
)

RESET = struct.pack("ii", 1, 0)


class DoorTests(SynchronousTestCase):
    def server(self, *flags: str, prefix: tuple[str, ...] = ()) -> Server:
        server = Server(*flags, prefix=prefix)
        self.addCleanup(server.kill)
        server.wait_ready()
        return server

    def send_lines(self, server: Server, number: int, until: int) -> None:
        """Open connections, each with a line, closing the oldest ones as the cap asks for it."""
        peers = []
        for index in range(number):
            peer = server.connect()
            self.addCleanup(peer.close)
            peer.sendall(b"from %03d\n" % index)
            peers.append(peer)
        for peer in peers[: number - until]:
            peer.shutdown(socket.SHUT_WR)
            self.assertEqual(peer.recv(1), b"")

    def test_cap(self) -> None:
        """Under a limit of 64 descriptors and a cap of 20, two hundred connections are served, twenty at a time."""
        if shutil.which("prlimit") is None:
            raise SkipTest("needs prlimit (util-linux)")
        server = self.server("--max-connections", "20", prefix=("prlimit", "--nofile=64:64"))
        self.send_lines(server, 200, 20)
        output = server.wait_output(200 * 9)
        self.assertEqual(sorted(output.splitlines()), [b"from %03d" % index for index in range(200)])
        metrics = server.metrics()
        closed = {
            name: value for name, value in metrics.items() if name.startswith("ingest_connections_closed") and value
        }
        self.assertEqual(closed, {"ingest_connections_closed_total[eof]": 180})
        CAP.measured(f"200 connections under a cap of 20: all served, {server.descriptors()} descriptors in use")

    def test_exhausted(self) -> None:
        """Whatever accepting fails with, for a while, the server waits it out without spinning; nobody is lost."""
        if shutil.which("strace") is None:
            raise SkipTest("needs strace")
        probe = subprocess.run(
            ["strace", "-o", "/dev/null", sys.executable, "-c", ""], capture_output=True, check=False, timeout=60
        )
        if probe.returncode:
            raise SkipTest("needs to trace processes (ptrace)")
        for error in ("ENFILE", "EMFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED"):
            # -D: the server is our child, not strace's.
            inject = f"inject=accept4:error={error}:when=1..3"
            server = Server(prefix=("strace", "-D", "-f", "-o", "/dev/null", "-e", "trace=accept4", "-e", inject))
            self.addCleanup(server.kill)
            server.wait_ready()
            began = time.monotonic()
            used = _processor_seconds(server)
            server.send(b"through all the same\n")
            server.wait_output(21)
            waited, used = time.monotonic() - began, _processor_seconds(server) - used
            # Three failures in a row without a wait take a millisecond; a spin would use all of the processor.
            if error != "ECONNABORTED":
                self.assertGreater(waited, 0.3)
            self.assertEqual(server.metrics()["ingest_connections_refused_total[internal_error]"], 0)
            server.kill()
            EXHAUSTED.measured(f"{error} three times: accepted after {waited:.1f} s, {used:.2f} s of processor time")

    def test_denied(self) -> None:
        """A thousand denied connections are reset and counted, log a few lines, and leave nothing behind."""
        server = self.server("--allow", "192.0.2.0/24", "--allow", "2001:db8::/32")
        before = server.descriptors()
        for _ in range(1000):
            with contextlib.suppress(ConnectionResetError):
                server.connect().close()
        wait_until(lambda: server.metrics()[_refused("not_allowed")] == 1000, "all refused")
        self.assertEqual(server.metrics()["ingest_connections_opened_total"], 0)
        wait_until(lambda: any("refused" in line for line in server.log), "a line in the log")
        lines = [line for line in server.log if "refused" in line]
        self.assertIn("not_allowed", lines[0])
        self.assertIn("(--allow)", lines[0])
        self.assertLessEqual(len(lines), 20)
        wait_until(lambda: server.descriptors() <= before, "all descriptors closed")
        DENIED.measured(f"1,000 denied: {len(lines)} lines in the log, no descriptor more than before")

    def test_resets(self) -> None:
        """A peer that connects and resets past its rate is refused; an established one goes on all the while."""
        server = self.server("--connection-rate-per-peer", "50/s")
        with server.connect() as established:
            for number in range(1000):
                with contextlib.suppress(ConnectionError), server.connect() as peer:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                if number % 10 == 0:
                    established.sendall(b"line %04d\n" % number)
            output = server.wait_output(100 * 10)
        self.assertEqual(output.splitlines(), [b"line %04d" % number for number in range(0, 1000, 10)])
        wait_until(lambda: server.metrics()["ingest_connections_open"] == 0, "all gone")
        metrics = server.metrics()
        refused, opened = metrics[_refused("connection_rate")], metrics["ingest_connections_opened_total"]
        self.assertGreater(refused, 0)
        self.assertEqual(metrics["ingest_conservation_error"], 0)
        RESETS.measured(
            f"1,000 at 50/s: {opened:,.0f} admitted, {refused:,.0f} refused, no line of the other peer missing"
        )

    def test_stampede(self) -> None:
        """A thousand clients at once are all accepted, and all their lines delivered."""
        server = self.server()
        address = ("127.0.0.1", server.port)
        peers = [socket.socket() for _ in range(1000)]
        for peer in peers:
            self.addCleanup(peer.close)
            peer.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                peer.connect(address)
        for number, peer in enumerate(peers):
            peer.settimeout(60)
            peer.connect_ex(address)  # waits for the handshake
            peer.sendall(b"client %03d\n" % number)
        output = server.wait_output(1000 * 11)
        self.assertEqual(sorted(output.splitlines()), [b"client %03d" % number for number in range(1000)])
        STAMPEDE.measured("1,000 connections and lines, none refused or lost")


def _refused(reason: str) -> str:
    return f"ingest_connections_refused_total[{reason}]"


def _processor_seconds(server: Server) -> float:
    # Not from the metrics: asking for those is accepted too.
    with open(f"/proc/{server.process.pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
