"""A server's process: started in a folder of its own, read through /proc, ended by its id."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from servers import COUNTED, SERVERS, Setting, UnavailableError
from tools import Tools

TICK = os.sysconf("SC_CLK_TCK")
START_SECONDS = 20
STOP_SECONDS = 10
SETTLE_SECONDS = 0.1


@dataclass
class Running:
    """A server that takes connections."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    output: str
    admin: int = 0

    def cpu(self) -> float:
        """Give the seconds it has computed, in user and system mode, all threads together."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stream:
            fields = stream.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def rss(self) -> int:
        """Give its resident memory in bytes."""
        return self._memory("VmRSS")

    def peak_rss(self) -> int:
        """Give the most that ever was."""
        return self._memory("VmHWM")

    def _memory(self, key: str) -> int:
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as stream:
            found = [int(row.split()[1]) for row in stream if row.startswith(key)]
        return found[0] * 1024 if found else 0

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def written(self) -> int:
        """Give the size of its file."""
        try:
            return os.path.getsize(self.output)
        except FileNotFoundError:
            return 0

    def written_at(self) -> float:
        """Give the time of the last write, as the kernel keeps it."""
        return os.stat(self.output).st_mtime if os.path.exists(self.output) else time.time()

    def replayed(self) -> int:
        """Ask our server how many records have come through its spool."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as answer:
            found = re.search(rb"^ingest_sink_replayed_records_total\S* (\S+)$", answer.read(), re.MULTILINE)
        return int(float(found[1])) if found else 0

    def wait_replayed(self, records: int, patience: float) -> float:
        """Wait until so many have, or for as long as we have patience; gives the time when that was."""
        end = time.time() + patience
        while self.replayed() < records and time.time() < end:
            time.sleep(0.02)  # each look costs the server a millisecond or two
        return time.time()

    def wait_written(self, size: int, quiet: float, patience: float) -> bool:
        """Wait until the file has a size, or has not grown for ``quiet`` seconds; says whether it has."""
        end = time.monotonic() + patience
        last, since = -1, time.monotonic()
        while (now := time.monotonic()) < end and (have := self.written()) < size:
            if have != last:
                last, since = have, now
            if now - since > quiet:
                break
            time.sleep(0.005)
        return self.written() >= size


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    name: str, tools: Tools, place: str, *, connections: int = 1, octets: bool = False, flush_seconds: float = 0.1
) -> Iterator[Running]:
    """Run a server; see `running_command`."""

    def command(setting: Setting) -> list[str]:
        more = {"connections": connections, "octets": octets, "flush_seconds": flush_seconds}
        return SERVERS[name](replace(setting, limit=tools.limit, **more))

    with running_command(name, command, place) as server:
        yield server


@contextlib.contextmanager
def running_command(name: str, make: Callable[[Setting], list[str]], place: str) -> Iterator[Running]:
    """Run a server by its command; afterwards its process, its folder and its output are gone."""
    folder = tempfile.mkdtemp(prefix="ingest-bench-", dir=place)
    try:
        output, port = os.path.join(folder, "output"), free_port()
        admin = free_port() if name in COUNTED else 0
        command = make(Setting(port, output, folder, connections=1, octets=False, limit=None, admin=admin))
        with open(os.path.join(folder, "log"), "wb") as log:
            process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_listening(process, port, log.name)
            yield Running(name, process, port, output, admin)
        finally:
            stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_listening(process: subprocess.Popen[bytes], port: int, log: str) -> None:
    """Wait until it takes a connection, and has dealt with that one."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                with open(log, encoding="utf-8", errors="replace") as stream:
                    said = " ".join(stream.read()[-300:].split())
                raise UnavailableError(f"did not start: {said}") from None
            time.sleep(0.02)
    time.sleep(SETTLE_SECONDS)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it: in good order, and if it does not listen, at once."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
