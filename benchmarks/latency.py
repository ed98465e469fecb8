"""
How long a line takes from its sender into the file, and how long while other clients flood.

    python benchmarks/latency.py [--servers ours,linereceiver] [--flood newlines] [--flooders 1] [--peers 1]

A line is sent every 10 ms, by each of ``--peers`` quiet peers in turn. Each flooder makes one connection after another
and sends ``--bytes`` of bare newlines (or of what is dearest for a server that tells framings apart) on each, until
``--seconds`` have passed; it is cut off after ``--cap``. A line that has not arrived by then counts with the time it
has waited.
"""

import argparse
import contextlib
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator

from compare import FULL, output_place
from measure import Running, running
from report import markdown
from servers import UnavailableError
from tools import prepare

INTERVAL_SECONDS = 0.01
LOOK_SECONDS = 0.0002
REFERENCE_FLUSH_SECONDS = 0.01
"""The reference servers buffer their file; they flush it this often here, which is part of what they show."""
BLOCK = 64 * 1024
FLOODS = {
    "newlines": b"\n",
    "bulk": b"<13>Oct 11 22:14:15 host app: an ordinary line of about a hundred bytes, as servers write them all day\n",
    "lf-nul": b"a\n\0",
    "mixed": b"a\n4 <1>b",
    "nul": b"<1>\0",
}
"""What a flood repeats."""
_PROBE = re.compile(rb"probe (\d{9})\n")


class Probes:
    """Lines sent by quiet peers in turn, and when each was seen in the file."""

    def __init__(self, peers: list[socket.socket], output: int) -> None:
        self._peers, self._output = peers, output
        self._tail = b""
        self.sent: list[float] = []
        self.seen: dict[int, float] = {}

    def send(self) -> None:
        """Send the next line."""
        number = len(self.sent)
        self.sent.append(time.monotonic())
        self._peers[number % len(self._peers)].sendall(b"probe %09d\n" % number)

    def look(self) -> None:
        """Read what is new in the file."""
        while block := os.read(self._output, 1 << 20):
            now = time.monotonic()
            text = self._tail + block
            for match in _PROBE.finditer(text):
                self.seen[int(match[1])] = now
            self._tail = text[text.rfind(b"\n") + 1 :]

    def run(self, busy: threading.Event, seconds: float) -> None:
        """Probe for some seconds, or for as long as others are busy."""
        end, due = time.monotonic() + seconds, time.monotonic()
        while busy.is_set() and time.monotonic() < end:
            if time.monotonic() >= due:
                self.send()
                due += INTERVAL_SECONDS
            self.look()
            time.sleep(LOOK_SECONDS)

    def finish(self, patience: float) -> list[float]:
        """Wait for what is under way; gives all delays, sorted."""
        end = time.monotonic() + patience
        while len(self.seen) < len(self.sent) and time.monotonic() < end:
            self.look()
            time.sleep(LOOK_SECONDS)
        now = time.monotonic()
        return sorted(self.seen.get(number, now) - sent for number, sent in enumerate(self.sent))


class Flood(threading.Thread):
    """A client that repeats ``piece``; ``busy`` is set until the server has read all of it."""

    def __init__(self, port: int, piece: bytes, size: int, seconds: float, cap: float) -> None:
        super().__init__(daemon=True)
        self._port, self._size, self._seconds, self._cap = port, size, seconds, cap
        self._block = piece * (BLOCK // len(piece))
        self.busy = threading.Event()
        self.busy.set()
        self.sent = 0

    def run(self) -> None:
        """Send, until it has lasted long enough."""
        began = time.monotonic()
        self._until = began + self._cap
        try:
            while time.monotonic() - began < self._seconds:
                self._once()
        except OSError:
            pass  # out of time, or the server has had enough
        finally:
            self.busy.clear()

    def _once(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port), 10) as peer:
            for _ in range(0, self._size, len(self._block)):
                peer.settimeout(max(0.01, self._until - time.monotonic()))
                peer.sendall(self._block)
                self.sent += len(self._block)
            peer.shutdown(socket.SHUT_WR)
            peer.recv(1)


@contextlib.contextmanager
def probing(server: Running, number: int) -> Iterator[Probes]:
    """Open connections to the server, and its file from its present end."""
    output = os.open(server.output, os.O_RDONLY | os.O_CREAT, 0o600)
    try:
        os.lseek(output, 0, os.SEEK_END)
        with contextlib.ExitStack() as stack:
            address = ("127.0.0.1", server.port)
            peers = [stack.enter_context(socket.create_connection(address, 10)) for _ in range(number)]
            for peer in peers:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield Probes(peers, output)
    finally:
        os.close(output)


def row(name: str, what: str, delays: list[float]) -> list[str]:
    """Give the table's row of some delays."""
    if not delays:
        return [name, what, "0", "", "", ""]
    figures = (delays[len(delays) // 2], delays[int(len(delays) * 0.99)], delays[-1])
    return [name, what, str(len(delays)), *(f"{figure * 1000:,.1f}" for figure in figures)]


def measure(server: Running, chosen: argparse.Namespace) -> Iterator[list[str]]:
    """Probe without and with the flood."""
    quiet = threading.Event()
    quiet.set()
    with probing(server, chosen.peers) as probes:
        probes.run(quiet, chosen.seconds)
        yield row(server.name, "alone", probes.finish(chosen.cap))
    piece = FLOODS[chosen.flood]
    floods = [Flood(server.port, piece, chosen.bytes, chosen.seconds, chosen.cap) for _ in range(chosen.flooders)]
    with probing(server, chosen.peers) as probes:
        for flood in floods:
            flood.start()
        probes.run(floods[0].busy, chosen.cap)
        delays = probes.finish(chosen.cap)
    for flood in floods:
        flood.join(chosen.cap)
    sent = sum(flood.sent for flood in floods)
    yield row(server.name, f"beside {chosen.flooders} of {chosen.flood}, {sent / 1e6:,.1f} MB", delays)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure how long a line takes into the file.")
    parser.add_argument("--servers", default="ours,lineonlyreceiver,linereceiver")
    parser.add_argument("--flood", choices=FLOODS, default="newlines")
    parser.add_argument("--flooders", type=int, default=1)
    parser.add_argument("--bytes", type=int, default=10_000_000, help="that a flooder sends on each connection")
    parser.add_argument("--peers", type=int, default=1, help="quiet peers that send in turn")
    parser.add_argument("--seconds", type=float, default=2.0, help="that a flood lasts at least (%(default)s)")
    parser.add_argument("--cap", type=float, default=30.0, help="seconds after which a flood is cut off (%(default)s)")
    chosen = parser.parse_args()
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="ingest-bench-") as folder:
        tools = prepare(folder, compile_them=False)
        place = output_place(FULL)
        for name in chosen.servers.split(","):
            try:
                with running(name, tools, place, flush_seconds=REFERENCE_FLUSH_SECONDS) as server:
                    rows.extend(measure(server, chosen))
            except UnavailableError as error:
                print(f"left out, {error}: {name}")
    print(f"\n{markdown(('server', 'a line every 10 ms', 'lines', 'p50 ms', 'p99 ms', 'max ms'), rows)}")


if __name__ == "__main__":
    main()
