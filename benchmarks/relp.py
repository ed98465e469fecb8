"""
How long a RELP client waits for its answers, and how many records a second are on disk for good.

    python benchmarks/relp.py [--quick] [--servers ours,syncloop,rsyslog] [--in-flight 1,16,128,1000] [--place FOLDER]

One session sends records of ``--size`` bytes, as many ahead of their answers as ``--in-flight`` says. Servers write to
``--place``, which must be on the disk in question: a folder in memory measures nothing. Each server's file is held
against what was answered.
"""

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from measure import running_command
from report import markdown
from servers import Setting, UnavailableError, program
from tools import compiled

OFFERS = b"relp_version=0\nrelp_software=bench\ncommands=syslog"
PATIENCE = 30.0
ANSWER = b"%d rsp 6 200 OK\n"


def ours(query: str = "") -> Callable[[Setting], list[str]]:
    """Make the command of this project's server."""

    def command(setting: Setting) -> list[str]:
        relp = ("--relp", f"tcp:{setting.port}:interface=127.0.0.1", "--admin", "off")
        return [sys.executable, "-m", "twisted_ingest", *relp, "--sink", f"file:{setting.output}{query}"]

    return command


def syncloop(setting: Setting) -> list[str]:
    """Make the command of the C loop."""
    path = compiled("syncloop", setting.folder)
    if path is None:
        raise UnavailableError("needs a C compiler")
    return [path, str(setting.port), setting.output]


def rsyslog(setting: Setting) -> list[str]:
    """Make the command of rsyslog: imrelp into a file that is synced, without a queue in between."""
    lines = [
        f'global(workDirectory="{setting.folder}" parser.escapeControlCharactersOnReceive="off" net.enableDNS="off")',
        'module(load="imrelp")',
        'template(name="asSent" type="string" string="%rawmsg%\\n")',
        'ruleset(name="received" queue.type="Direct") {',
        f'  action(type="omfile" file="{setting.output}" template="asSent" sync="on" flushOnTXEnd="on")',
        "}",
        f'input(type="imrelp" port="{setting.port}" address="127.0.0.1" ruleset="received")',
    ]
    config = setting.write("rsyslog.conf", "\n".join(lines) + "\n")
    return [program("rsyslogd"), "-n", "-f", config, "-i", os.path.join(setting.folder, "pid")]


SERVERS: dict[str, Callable[[Setting], list[str]]] = {
    "syncloop": syncloop,
    "ours": ours(),
    "ours-spool": ours("?spool=true"),
    "rsyslog": rsyslog,
}


class Session:
    """One client: records ahead of their answers, and how long each answer took."""

    def __init__(self, port: int, size: int) -> None:
        self._peer = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._size = size
        self._number = 1
        self._answered = 1
        self._sent: deque[float] = deque()
        self._tail = b""
        self.delays: list[float] = []
        self._peer.sendall(b"1 open %d %b\n" % (len(OFFERS), OFFERS))
        whole = b""
        while not re.fullmatch(rb"1 rsp \d+ 200 OK\n.*\n", whole, re.DOTALL) or not _is_whole(whole):
            whole += self._receive()

    def _receive(self) -> bytes:
        some = self._peer.recv(1 << 18)
        if not some:
            raise UnavailableError("the server has closed the session")
        return some

    def run(self, ahead: int, seconds: float) -> float:
        """Send for some seconds, then wait for what is under way; gives the seconds it took."""
        began = time.monotonic()
        end = began + seconds
        while self._sent or time.monotonic() < end:
            if time.monotonic() < end:
                self._send(ahead - len(self._sent))
            self._settle()
        return time.monotonic() - began

    def _send(self, number: int) -> None:
        first = self._number + 1
        frames = [b"%d syslog %d %b\n" % (n, self._size, self.record(n)) for n in range(first, first + number)]
        self._number += number
        self._sent.extend([time.monotonic()] * number)
        self._peer.sendall(b"".join(frames))

    def record(self, number: int) -> bytes:
        """Make a record."""
        return (b"<13>record %09d " % number).ljust(self._size, b".")

    def _settle(self) -> None:
        answers, _, self._tail = (self._tail + self._receive()).rpartition(b"\n")
        now = time.monotonic()
        for answer in answers.splitlines(keepends=False):
            self._answered += 1
            if answer + b"\n" != ANSWER % self._answered:
                raise RuntimeError(f"answer {self._answered} is {answer!r}")
            self.delays.append(now - self._sent.popleft())

    def close(self) -> None:
        """End the session."""
        self._peer.close()

    def missing(self, path: str) -> int:
        """Count the records that were answered and are not in a file."""
        with open(path, "rb") as stream:
            there = set(stream.read().splitlines())
        return sum(self.record(number) not in there for number in range(2, self._answered + 1))


def _is_whole(answer: bytes) -> bool:
    header = re.match(rb"1 rsp (\d+) ", answer)
    return header is not None and len(answer) == header.end() + int(header[1]) + 1


class Numbers(NamedTuple):
    """What was measured once: records a second, delays in seconds, the server's CPU seconds by record."""

    rate: float
    p50: float
    p99: float
    cpu: float
    missing: int


def once(name: str, ahead: int, chosen: argparse.Namespace) -> Numbers:
    """Run one server."""
    with running_command(name, SERVERS[name], chosen.place) as server:
        session = Session(server.port, chosen.size)
        cpu = server.cpu()
        seconds = session.run(ahead, chosen.seconds)
        delays = sorted(session.delays)
        session.close()
        if name == "ours-spool":
            server.wait_written(len(delays) * (chosen.size + 1), 1.0, PATIENCE)
        cpu = (server.cpu() - cpu) / len(delays)
        missing = session.missing(server.output)
    return Numbers(len(delays) / seconds, delays[len(delays) // 2], delays[int(len(delays) * 0.99)], cpu, missing)


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure acknowledged delivery.")
    parser.add_argument("--servers", default=",".join(SERVERS))
    parser.add_argument("--in-flight", default="1,16,128,1000")
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--place", default=tempfile.gettempdir(), help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help="does it work, not how fast is it")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.seconds, chosen.rounds = 0.3, 1
    return chosen


def main() -> int:
    """Print the table; the exit status is 1 when a record was answered and is not there."""
    chosen = options()
    kind = subprocess.run(
        [program("stat"), "-f", "-c", "%T", chosen.place], capture_output=True, text=True, check=False
    )
    print(f"servers write to {chosen.place} ({kind.stdout.strip()}, {shutil.disk_usage(chosen.place).free:,} B free)")
    rows, lost = [], False
    for ahead in map(int, chosen.in_flight.split(",")):
        found: dict[str, list[Numbers]] = {}
        for _ in range(chosen.rounds):
            for name in chosen.servers.split(","):
                try:
                    found.setdefault(name, []).append(once(name, ahead, chosen))
                except UnavailableError as error:
                    print(f"{name}: left out: {error}", file=sys.stderr)
        for name, runs in found.items():
            rate, p50, p99, cpu = (statistics.median(run[field] for run in runs) for field in range(4))
            missing = sum(run.missing for run in runs)
            lost = lost or bool(missing and name.startswith("ours"))
            rows.append(
                [ahead, name, f"{rate:,.0f}", f"{p50 * 1000:,.2f}", f"{p99 * 1000:,.2f}", f"{cpu * 1e6:,.1f}", missing]
            )
    print(
        markdown(
            ["in flight", "server", "records/s", "p50 ms", "p99 ms", "CPU s a million", "answered, not in the file"],
            rows,
        )
    )
    return int(lost)


if __name__ == "__main__":
    sys.exit(main())
