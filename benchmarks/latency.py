"""
How long a line takes from its sender into the file, and how long while another client floods with bare newlines.

    python benchmarks/latency.py [--servers ours,linereceiver] [--newlines 10000000] [--seconds 2]

A line is sent every 10 ms. The flood is one connection after another, each of ``--newlines`` bare newlines, until
``--seconds`` have passed; it is cut off after ``--cap``. A line that has
not arrived by then counts with the time it has waited.
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
_PROBE = re.compile(rb"probe (\d{9})\n")


class Probes:
    """Lines sent on one connection, and when each was seen in the file."""

    def __init__(self, peer: socket.socket, output: int) -> None:
        self._peer, self._output = peer, output
        self._tail = b""
        self.sent: list[float] = []
        self.seen: dict[int, float] = {}

    def send(self) -> None:
        """Send the next line."""
        self.sent.append(time.monotonic())
        self._peer.sendall(b"probe %09d\n" % (len(self.sent) - 1))

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
    """A client that sends nothing but newlines; ``busy`` is set until the server has read them."""

    def __init__(self, port: int, newlines: int, seconds: float, cap: float) -> None:
        super().__init__(daemon=True)
        self._port, self._newlines, self._seconds, self._cap = port, newlines, seconds, cap
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
            for start in range(0, self._newlines, BLOCK):
                peer.settimeout(max(0.01, self._until - time.monotonic()))
                block = b"\n" * min(BLOCK, self._newlines - start)
                peer.sendall(block)
                self.sent += len(block)
            peer.shutdown(socket.SHUT_WR)
            peer.recv(1)


@contextlib.contextmanager
def probing(server: Running) -> Iterator[Probes]:
    """Open a connection to the server and its file from its present end."""
    output = os.open(server.output, os.O_RDONLY | os.O_CREAT, 0o600)
    try:
        os.lseek(output, 0, os.SEEK_END)
        with socket.create_connection(("127.0.0.1", server.port), 10) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield Probes(peer, output)
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
    with probing(server) as probes:
        probes.run(quiet, chosen.seconds)
        yield row(server.name, "alone", probes.finish(chosen.cap))
    flood = Flood(server.port, chosen.newlines, chosen.seconds, chosen.cap)
    with probing(server) as probes:
        flood.start()
        probes.run(flood.busy, chosen.cap)
        delays = probes.finish(chosen.cap)
    flood.join(chosen.cap)
    yield row(server.name, f"beside {flood.sent / 1e6:,.1f} million newlines", delays)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure how long a line takes into the file.")
    parser.add_argument("--servers", default="ours,lineonlyreceiver,linereceiver")
    parser.add_argument("--newlines", type=int, default=10_000_000)
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
