"""A real server process for tests: started on free loopback ports, read through its own windows."""

import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

PATIENCE = 60.0
"""Seconds a step of a real process may take before the test fails; far above what it does take."""

RELP_ENDPOINT = "tcp:0:interface=127.0.0.1"
"""Any free port; for ``--relp``."""

LAUNCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launch.py")

MEASURED = any(name.startswith("COVERAGE_") for name in os.environ)
"""Whether `make coverage` is measuring: then processes must save what they measured before a signal ends them."""

REACTOR = os.environ.get("INGEST_TEST_REACTOR")
"""The reactor of server processes, where not the default: the tox environment `asyncio` sets it."""


def wait_until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait for another process to get somewhere; fails with ``what`` after ``patience`` seconds."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {patience} s: {what}")
        threading.Event().wait(0.01)


class Server:
    """
    One process of the server in a folder of its own.

    ``log`` holds its standard error so far; ``port``, ``ports`` (of all listeners, in their order) and ``admin`` are
    where it listens in fact. While ``reads_log`` is clear nobody reads its standard error.
    """

    def __init__(
        self,
        *flags: str,
        folder: str | None = None,
        port: int = 0,
        admin: bool = True,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder or tempfile.mkdtemp(prefix="ingest-test-")
        self._own_folder = folder is None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.log: list[str] = []
        self.reads_log = threading.Event()
        self.reads_log.set()
        self.port = port
        self.ports: list[int] = []
        self.admin = ""
        command = [sys.executable, LAUNCH] if MEASURED else [sys.executable, "-m", "twisted_ingest"]
        if REACTOR:
            twistd = "from twisted.scripts.twistd import run; run()"
            command = [sys.executable, "-c", twistd, "-n", "--pidfile=", "--reactor", REACTOR, "ingest"]
        if not any(flag.startswith(("--listen", "--relp", "--config")) for flag in flags):
            command += ["--listen", f"tcp:{port}:interface=127.0.0.1"]
        if not any(flag.startswith("--admin") for flag in flags):
            command += ["--admin", "tcp:0:interface=127.0.0.1" if admin else "off"]
        self.process = subprocess.Popen(
            [*prefix, *command, *flags],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            text = line.decode("utf-8", "replace").rstrip("\n")
            self.log.append(text)
            self._lines.put(text)
            self.reads_log.wait()
        self._lines.put("")

    def __enter__(self) -> Self:
        self.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def wait_ready(self) -> None:
        """Wait for the banner and take the ports from it."""
        end = time.monotonic() + PATIENCE
        while True:
            line = self._lines.get(timeout=max(0.01, end - time.monotonic()))
            if self.process.poll() is not None and not line:
                raise AssertionError(f"the server ended: {self.log}")
            if match := re.search(r"  listening  127\.0\.0\.1:(\d+)", line):
                self.port = int(match[1])
                self.ports.append(self.port)
            if match := re.search(r"  metrics    (http://\S+)/metrics", line):
                self.admin = match[1]
                if not any("  listening  " in text for text in self.log):
                    return  # a server that polls only has nothing to be tried
            if "  try  " in line:
                return

    def get(self, page: str) -> str:
        """Read an admin page, whatever its status."""
        try:
            with urllib.request.urlopen(f"{self.admin}/{page}", timeout=PATIENCE) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()

    def status(self) -> dict[str, Any]:
        """Read ``/status``."""
        document: dict[str, Any] = json.loads(self.get("status"))
        return document

    def metrics(self) -> dict[str, float]:
        """Read ``/metrics``: values by name, with the one label value that matters in brackets."""
        values: dict[str, float] = {}
        for family in text_string_to_metric_families(self.get("metrics")):
            for sample in family.samples:
                labels = [value for key, value in sample.labels.items() if key in ("reason", "sink", "listener")]
                values[sample.name + "".join(f"[{label}]" for label in labels)] = sample.value
        return values

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def send(self, data: bytes) -> None:
        """Send on a connection of its own and close in good order."""
        with self.connect() as peer:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(4096):
                pass

    @property
    def path(self) -> str:
        """The file that the default sink appends to."""
        return os.path.join(self.folder, "ingest-data", "ingest.log")

    def output(self) -> bytes:
        """Give what has been written so far."""
        try:
            with open(self.path, "rb") as stream:
                return stream.read()
        except FileNotFoundError:
            return b""

    def wait_output(self, size: int) -> bytes:
        """Wait until at least ``size`` bytes have been written, and give them."""
        wait_until(lambda: os.path.exists(self.path) and os.path.getsize(self.path) >= size, f"{size} bytes written")
        return self.output()

    def rss(self) -> int:
        """Give the resident memory, in bytes."""
        return self._proc_status("VmRSS")

    def peak_rss(self) -> int:
        """Give the most it ever was, in bytes."""
        return self._proc_status("VmHWM")

    def address_space(self) -> int:
        """Give the size of the address space, in bytes: what is reserved, used or not."""
        return self._proc_status("VmSize")

    def _proc_status(self, key: str) -> int:
        with open(f"/proc/{self.process.pid}/status") as stream:
            return next(int(line.split()[1]) * 1024 for line in stream if line.startswith(f"{key}:"))

    def descriptors(self) -> int:
        """Count its open descriptors."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop and wait; gives the exit status."""
        self.send_signal(number)
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def crash(self) -> None:
        """End it as the kernel would: SIGKILL, at once."""
        self.process.kill()
        self.process.wait(PATIENCE)
        self._let_go()

    def kill(self) -> None:
        """End it, whatever state it is in, and remove its folder."""
        self.reads_log.set()
        if self.process.poll() is None:
            # SIGTERM first where it is quick: a killed process leaves no coverage behind.
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(PATIENCE)
        self._let_go()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _let_go(self) -> None:
        self._reader.join(PATIENCE)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def numbered(prefix: str, count: int, size: int = 100) -> list[bytes]:
    """Make distinct lines, without their LF."""
    return [f"{prefix} {number:08d} ".encode().ljust(size, b".") for number in range(count)]
