"""
Running the labs' own child processes and the server itself; no child outlives the lab.

A child speaks JSON, one object a line on its standard output, and takes its orders as one JSON argument.
"""

import contextlib
import ctypes
import json
import os
import queue
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self

PATIENCE = 30.0
"""Seconds that one step of a child may take before the lab gives up."""

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_PR_SET_PDEATHSIG = 1


class LabError(Exception):
    """A lab could not be carried out; the message says what failed."""


class CannotRunError(LabError):
    """This machine cannot carry the lab out; the message is the reason."""


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends: no orphan is left behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already, and the kernel has nothing to tell
        os._exit(1)


def speak(**facts: Any) -> None:
    """In a child: tell the lab something."""
    print(json.dumps(facts), flush=True)


def role(roles: dict[str, Callable[..., None]]) -> NoReturn:
    """In a child: be what the command line says, ``ROLE JSON PARENT``."""
    die_with(int(sys.argv[3]))
    # Ctrl-C is for the lab; it ends its children in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    roles[sys.argv[1]](**json.loads(sys.argv[2]))
    sys.exit(0)


def the_reactor() -> Any:
    """In a child: give Twisted's reactor, which installs itself where it is imported."""
    from twisted.internet import reactor  # noqa: PLC0415

    return reactor


class Process:
    """A child process whose standard output or error (``ear``) is read line by line; ended with the ``with`` block."""

    def __init__(self, command: Sequence[str], ear: str = "stdout", *, quiet: bool = False) -> None:
        streams: dict[str, Any] = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.DEVNULL if quiet else None,
        }
        streams[ear] = subprocess.PIPE
        # In a group of its own: the terminal's Ctrl-C reaches the lab alone.
        self.process = subprocess.Popen(list(command), cwd=ROOT, process_group=0, **streams)
        self._last = "it had said nothing"
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(getattr(self.process, ear),), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    def _read(self, stream: Any) -> None:
        for line in stream:
            self._lines.put(line.decode("utf-8", "replace"))
        self._lines.put("")

    def line(self, patience: float = PATIENCE) -> str:
        """Wait for the next line; raises `LabError` when the child has ended or says nothing."""
        try:
            line = self._lines.get(timeout=patience)
        except queue.Empty:
            raise LabError(f"a child said nothing for {patience} s: {self.process.args!r}") from None
        if not line:
            raise LabError(f"a child has ended: {self.process.args!r}, status {self.process.wait()}: {self._last}")
        self._last = line.strip()
        return line

    def hear(self, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait for the next object."""
        facts: dict[str, Any] = json.loads(self.line(patience))
        return facts

    def say(self, word: str) -> None:
        """Send a line to its standard input."""
        assert self.process.stdin is not None  # noqa: S101 - it was asked for
        self.process.stdin.write(f"{word}\n".encode())
        self.process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._reader.join(PATIENCE)


class Child(Process):
    """A role of one of the labs' modules, in a process of its own; ``prefix`` is a command that starts it."""

    def __init__(self, module: str, role: str, prefix: Sequence[str] = (), **orders: Any) -> None:
        super().__init__([*prefix, sys.executable, "-m", module, role, json.dumps(orders), str(os.getpid())])


class Ours(Process):
    """
    This project's server, as an operator starts it; the flags are its own.

    ``sink`` ``stdout:`` makes a sink that stalls: nobody reads it. ``nofile`` bounds its descriptors.
    """

    def __init__(self, *flags: str, sink: str = "null:", nofile: int | None = None) -> None:
        anywhere = "tcp:0:interface=127.0.0.1"
        server = ["twisted_ingest", "--listen", anywhere, "--admin", anywhere, "--sink", sink, *flags]
        starter = [sys.executable, "-m", "labs.running", str(os.getpid()), str(nofile or 0)]
        super().__init__([*starter, sys.executable, "-m", *server], ear="stderr")
        self.port = 0
        self._admin = ""

    def __enter__(self) -> Self:
        end = time.monotonic() + PATIENCE
        try:
            while "  try  " not in (line := self.line(max(0.01, end - time.monotonic()))):
                if match := re.search(r"  listening  127\.0\.0\.1:(\d+)", line):
                    self.port = int(match[1])
                if match := re.search(r"  metrics    (http://\S+)/metrics", line):
                    self._admin = match[1]
        except BaseException:
            self.__exit__()
            raise
        return self

    def status(self) -> dict[str, Any]:
        """Read its ``/status``."""
        import urllib.request  # noqa: PLC0415 - dear, and children need it not

        with urllib.request.urlopen(f"{self._admin}/status", timeout=PATIENCE) as answer:  # noqa: S310 - loopback, our own
            document: dict[str, Any] = json.load(answer)
        return document

    def counts(self) -> dict[str, int]:
        """Read the counts of its one listener."""
        counts: dict[str, int] = self.status()["listeners"][0]["counts"]
        return counts


def within(seconds: float, condition: Callable[[], object]) -> bool:
    """Wait until something is so, but no longer than ``seconds``; whether it came to be."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait until something is so; raises `LabError` with ``what`` where patience ends."""
    if not within(PATIENCE, condition):
        raise LabError(f"not within {PATIENCE:g} s: {what}")


def limit_descriptors(most: int) -> None:
    """Bound the descriptors of this process for good, soft and hard."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    # Become the program that follows, which then ends with the lab although it is none of its roles.
    die_with(int(sys.argv[1]))
    if limit := int(sys.argv[2]):
        limit_descriptors(limit)
    os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606 - no shell is wanted
