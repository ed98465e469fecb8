"""
Fault: a network that is slow, or carries little at a time.

Cost to a careless receiver: live peers closed by timers that a slow network runs out, or records cut where packets are.
Bound proven: nobody who sends is closed, every line arrives as it was sent; who comes how far meanwhile is reported.
"""

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.attacks.networks import NetworkCase
from tests.attacks.report import Group, Scenario
from tests.relp_client import RelpClient
from tests.server import PATIENCE, Server, wait_until
from twisted_ingest.limits import KIB

PEERS = 100
LINES = 25 * max(2, int(os.environ.get("INGEST_TEST_STALL_SECONDS", "0")))
"""Of each peer; `make slow` sets 250, which take half a minute."""

SMALL_MTU = 576
"""Bytes: what every host must take in one piece (RFC 791)."""

SLOW = Scenario(
    Group.PRESSURE,
    "A slow link",
    "a hundred clients send at once over a link of 1 Mbit/s, which loses what it cannot hold",
    "they share the link, every line arrives, no peer that sends is closed",
    ('ingest_connections_closed_total{reason="frame_deadline"}', 'ingest_connections_closed_total{reason="idle"}'),
)
NARROW = Scenario(
    Group.PRESSURE,
    "A narrow path and a tiny window",
    "packets of 576 bytes at most, receive buffers of 4 KiB on both sides; records of up to 100 KiB in every "
    "framing, and over RELP",
    "correct, only slower: every record arrives as it was sent and is answered",
    ("ingest_conservation_error", "ingest_truncated_records_total"),
)
CONFIG = """
[listeners.lines]
endpoint = "tcp:0:interface=127.0.0.1"
receive_buffer = "4KiB"

[listeners.answered]
endpoint = "tcp:0:interface=127.0.0.1"
protocol = "relp"
receive_buffer = "4KiB"
"""
WINDOW = 4 * KIB


class LinkCase(NetworkCase):
    def start(self, *flags: str) -> Server:
        """Start a server whose windows are small."""
        path = os.path.join(self.folder(), "ingest.toml")
        with open(path, "w") as stream:
            stream.write(CONFIG)
        return self.server("--config", path, *flags)


class SlowLinkTests(LinkCase):
    def test_hundred_clients(self) -> None:
        """Every line of a hundred clients arrives over a link that takes seconds for it; none of them is closed."""
        self.network(mtu=1500, rate="1mbit")
        server = self.start("--idle-timeout", "20s", "--frame-timeout", "20s")
        port = server.ports[0]
        senders = [threading.Thread(target=self.send, args=(port, peer), daemon=True) for peer in range(PEERS)]
        began = time.monotonic()
        for sender in senders:
            sender.start()
        # Not by asking for the metrics, which would come over the same link.
        wait_until(lambda: server.output().count(b"\n") >= PEERS * LINES // 2, "half of the lines")
        halfway = Counter(line.split()[0] for line in server.output().splitlines())
        wait_until(lambda: server.output().count(b"\n") == PEERS * LINES, "all lines")
        took = time.monotonic() - began
        for sender in senders:
            sender.join(PATIENCE)
        self.check(server)
        reached = [halfway[b"%d" % peer] for peer in range(PEERS)]
        SLOW.measured(
            f"{PEERS} clients, {PEERS * LINES:,} lines in {took:.0f} s, each there once and in order, none closed; "
            f"half-way each client had {min(reached)} to {max(reached)} of its {LINES}"
        )

    def check(self, server: Server) -> None:
        """See that every line is there, and nobody was closed but who had ended."""
        seen: dict[bytes, list[int]] = {}
        for line in server.output().splitlines():
            name, number, _ = line.split(b" ", 2)
            seen.setdefault(name, []).append(int(number))
        self.assertEqual(seen, {b"%d" % peer: list(range(LINES)) for peer in range(PEERS)})
        wait_until(lambda: server.metrics()["ingest_connections_closed_total[eof]"] == PEERS, "all closed")
        metrics = server.metrics()
        closed = [count for name, count in metrics.items() if name.startswith("ingest_connections_closed_total")]
        self.assertEqual(sum(closed), PEERS)
        self.assertEqual(metrics["ingest_conservation_error"], 0)

    def send(self, port: int, name: int) -> None:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as peer:
            for number in range(LINES):
                peer.sendall(b"%d %d %s\n" % (name, number, b"." * 80))


FRAMES: dict[str, Callable[[bytes], bytes]] = {
    "newline": lambda record: record + b"\n",
    "CRLF": lambda record: record + b"\r\n",
    "NUL": lambda record: record + b"\0",
    "octet-counted": lambda record: b"%d %s" % (len(record), record),
}


class NarrowLinkTests(LinkCase):
    def test_small_packets_and_windows(self) -> None:
        """Records of every size and framing, cut into small packets and through tiny windows, arrive as they were."""
        self.network(mtu=SMALL_MTU)
        NARROW.measured(f"packets of {SMALL_MTU} bytes: {self.exchange()}")

    def test_small_windows(self) -> None:
        """The same with tiny windows alone, which any machine allows."""
        NARROW.measured(f"windows alone: {self.exchange()}")

    def exchange(self) -> str:
        """Send records in each framing and over RELP; see that what arrives is what was sent. Gives that in words."""
        server = self.start()
        # Around the size of a packet and of the window, and the longest.
        sizes = [12, 519, 520, 521, 522, *range(WINDOW - 2, WINDOW + 3), 50 * KIB, 100 * KIB]
        records = [(b"<13>%d " % size).ljust(size, b".") for size in sizes]
        for number, frame in enumerate(FRAMES.values(), 1):
            with socket.create_connection(("127.0.0.1", server.ports[0]), PATIENCE) as peer:
                peer.sendall(b"".join(map(frame, records)))
            self.arrive(server, records * number)
        self.assertEqual(self.answered(server, records), records)
        self.arrive(server, records * (len(FRAMES) + 1))
        self.assertEqual(server.metrics()["ingest_conservation_error"], 0)
        return (
            f"{len(records)} records of {sizes[0]} bytes to {sizes[-1] // KIB} KiB in each of {len(FRAMES)} framings "
            "and over RELP, all as they were sent"
        )

    def arrive(self, server: Server, records: list[bytes]) -> None:
        """Wait for records; nothing else may have come."""
        written = server.wait_output(sum(len(record) + 1 for record in records))
        self.assertEqual(written.splitlines(), records)

    def answered(self, server: Server, records: list[bytes]) -> list[bytes]:
        """Send records over RELP; give those that were answered."""
        with RelpClient(server.ports[1]) as client:
            client._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
            client.open()
            for record in records:
                client.send(record)
            client.close()
            return client.answered
