"""
What the kernel says about processes and sockets, and a thread that asks it again and again.

Everything is Linux's: ``/proc``, ``TCP_INFO`` and two ``ioctl`` requests.
"""

import contextlib
import fcntl
import os
import socket
import struct
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Self

from twisted_ingest.limits import MIB

Look = Callable[[], dict[str, float]]
Sample = dict[str, float]

MOST_SAMPLES = 4000
"""Looks of one `Timeline`, so that a run that never ends cannot fill memory."""

PLOTTED = 240
"""Points of one plotted line: more cannot be told apart in a picture a thousand points wide."""

_STATES = [
    *("ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"),
    *("CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV"),
]
"""The names of the states, from 1 (``include/net/tcp_states.h``)."""

_SIOCOUTQNSD = 0x894B

# Offset and format within ``struct tcp_info`` (``include/uapi/linux/tcp.h``); the structure only ever grows.
_TCP_INFO = {
    "state": (0, "B"),
    "segs_out": (136, "I"),
    "segs_in": (140, "I"),
    "notsent_bytes": (144, "I"),
    "data_segs_out": (156, "I"),
    "rwnd_limited_us": (176, "Q"),
    "sndbuf_limited_us": (184, "Q"),
}


def tcp_info(connection: socket.socket) -> dict[str, int]:
    """Give the counters of a connection that the labs use, named as in tcp(7), times in microseconds."""
    raw = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return {name: struct.unpack_from(form, raw, offset)[0] for name, (offset, form) in _TCP_INFO.items()}


def is_established(connection: socket.socket) -> bool:
    """Whether neither side has ended a connection, as far as this side's kernel knows."""
    return _STATES[tcp_info(connection)["state"] - 1] == "ESTABLISHED"


def _queue(connection: socket.socket, request: int) -> int:
    answer: int = struct.unpack("i", fcntl.ioctl(connection.fileno(), request, b"\0\0\0\0"))[0]
    return answer


def send_queue(connection: socket.socket) -> int:
    """Count bytes in the kernel that the peer's kernel has not acknowledged (``SIOCOUTQ``)."""
    return _queue(connection, termios.TIOCOUTQ)


def unsent(connection: socket.socket) -> int:
    """Count those among them that have not even been sent once (``SIOCOUTQNSD``)."""
    return _queue(connection, _SIOCOUTQNSD)


def receive_queue(connection: socket.socket) -> int:
    """Count bytes in the kernel that the application has not read (``SIOCINQ``)."""
    return _queue(connection, termios.FIONREAD)


def _status(pid: int, key: str) -> int:
    with open(f"/proc/{pid}/status") as stream:
        return next((int(line.split()[1]) * 1024 for line in stream if line.startswith(f"{key}:")), 0)


def rss(pid: int) -> int:
    """Give the resident memory of a process in bytes; 0 when it has ended."""
    with contextlib.suppress(OSError):
        return _status(pid, "VmRSS")
    return 0


def descriptors(pid: int) -> int:
    """Count the open descriptors of a process; 0 when it has ended."""
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def cpu_seconds(pid: int) -> float:
    """Give the processor time of a process; the kernel counts in ticks of 10 ms."""
    with open(f"/proc/{pid}/stat") as stream:
        fields = stream.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tcp_states(port: int, pid: int | str = "self") -> tuple[Counter[str], Counter[str]]:
    """
    Count the sockets of a port by state: those at the port, and their peers where they are in the same namespace.

    ``pid`` names a process whose network namespace is looked at.
    """
    with open(f"/proc/{pid}/net/tcp") as stream:
        next(stream)
        # The kernel walks a table that others change meanwhile: an entry may be told twice (or be passed over).
        found = {(words[1], words[2]): words[3] for words in map(str.split, stream)}
    names = [(local, remote, _STATES[int(state, 16) - 1]) for (local, remote), state in found.items()]
    here = Counter(state for local, _, state in names if _port(local) == port)
    there = Counter(state for _, remote, state in names if _port(remote) == port)
    return here, there


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


class Timeline:
    """
    Looks every ``interval`` seconds from a thread of its own, while the ``with`` block runs, and once at its end.

    ``samples`` holds what ``look`` gave, each with ``t``: seconds since the beginning. A look that fails with
    ``OSError`` (its process or socket is gone) is left out.
    """

    def __init__(self, look: Look, interval: float = 0.02) -> None:
        self._look = look
        self._interval = interval
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.began = time.monotonic()
        self.samples: list[Sample] = []

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        self.sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.sample()

    def now(self) -> float:
        """Give the seconds since the beginning."""
        return time.monotonic() - self.began

    def sample(self) -> None:
        """Look now, whatever the interval: on a busy machine a look may be long in coming."""
        with contextlib.suppress(OSError):
            self.samples.append({"t": self.now(), **self._look()})

    def _run(self) -> None:
        for _ in range(MOST_SAMPLES):
            if self._over.wait(self._interval):
                return
            self.sample()

    def most(self, key: str) -> float:
        """Give the largest value seen."""
        return max((sample[key] for sample in self.samples if key in sample), default=0.0)

    def line(self, key: str, unit: float = 1.0) -> list[list[float]]:
        """Give one line for a plot: pairs of seconds and value over ``unit``, no more than can be told apart."""
        return thinned([[sample["t"], sample[key] / unit] for sample in self.samples if key in sample])


def thinned(points: list[list[float]], most: int = PLOTTED) -> list[list[float]]:
    """Keep at most ``most`` points of a line: of each stretch its highest, so that no peak is lost."""
    if len(points) > most:
        step = -(-len(points) // most)
        points = [max(points[at : at + step], key=lambda point: point[1]) for at in range(0, len(points), step)]
    return [[round(x, 4), round(y, 3)] for x, y in points]


def mib(size: float) -> float:
    """Give bytes as MiB, to two places."""
    return round(size / MIB, 2)
