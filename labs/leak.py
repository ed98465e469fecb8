"""
The leak, replayed: a receiver without limit, timeout or tracking, and ours beside it, under the same three abuses.
"""

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

from labs.clients import dial, server
from labs.conclusions.leak import BEFORE, BUDGET, OURS, describe
from labs.measure import Timeline, is_established, rss, tcp_states
from labs.report import Figures, Lab, Tell
from labs.running import within
from twisted_ingest.limits import MIB, READ_SIZE

T = TypeVar("T")

BLOCK = b"x" * READ_SIZE


def endless_line(port: int, size: int) -> bool:
    """Send one line that does not end; whether the server took all of it."""
    with dial(port) as peer:
        try:
            for start in range(0, size, len(BLOCK)):
                peer.sendall(BLOCK[: size - start])
            # Closed in good order only when all is read.
            peer.shutdown(socket.SHUT_WR)
            return peer.recv(1) == b""
        except OSError:
            return False


def reconnects(port: int, connections: int, half: int) -> None:
    """Come again and again, each time with half a line."""
    for _ in range(connections):
        with dial(port) as peer:
            peer.sendall(BLOCK[:half])
            peer.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                peer.recv(1)


def hang(port: int, connections: int, half: int, seconds: float) -> int:
    """Open connections, send half a line on each and then nothing; gives how many are still open in the end."""
    with contextlib.ExitStack() as peers:
        sockets = [peers.enter_context(dial(port)) for _ in range(connections)]
        for peer in sockets:
            peer.sendall(BLOCK[:half])
        within(seconds, lambda: not any(map(is_established, sockets)))
        return sum(map(is_established, sockets))


class Replay:
    """One receiver, put through all three abuses; memory is counted from its rest."""

    def __init__(self, pid: int, port: int, settle_seconds: float) -> None:
        self._settle_seconds = settle_seconds
        self._resting = rss(pid)
        self._growth: dict[str, Figures] = {}
        self._marks: dict[str, float] = {}
        self._timeline = Timeline(
            lambda: {"rss": rss(pid) - self._resting, "connections": tcp_states(port)[0]["ESTABLISHED"]}
        )

    def abuse(self, name: str, commit: Callable[[], T]) -> T:
        """Commit one; give the receiver a moment, and note what it cost: at its worst, and for good."""
        began = self._marks[name] = self._timeline.now()
        outcome = commit()
        time.sleep(self._settle_seconds)
        self._timeline.sample()
        during = [sample["rss"] for sample in self._timeline.samples if sample["t"] >= began]
        self._growth[name] = {"most": max(during), "kept": during[-1]}
        return outcome

    def run(self, port: int, sizes: Figures) -> Figures:
        """Commit them all."""
        connections, half = sizes["connections"], sizes["half"]
        with self._timeline as timeline:
            self.abuse("an endless line", lambda: endless_line(port, sizes["size"]))
            self.abuse("reconnects", lambda: reconnects(port, connections, half))
            hanging = self.abuse("hanging connections", lambda: hang(port, connections, half, sizes["hang_seconds"]))
        return {
            "growth": self._growth,
            "hanging_left": hanging,
            "left": timeline.samples[-1]["rss"],
            "marks": self._marks,
            "rss": timeline.line("rss", MIB),
            "connections": timeline.line("connections"),
        }


def measure(tell: Tell, **sizes: Any) -> Figures:
    """
    Carry the lab out.

    ``size`` of the endless line and ``half`` a line in bytes; ``timeout`` is our server's for silence and for half a
    line; clients hang for ``hang_seconds`` at most, and receivers settle for ``settle_seconds`` after each abuse.
    """
    timeout = f"{sizes['timeout']:g}s"
    limits = ("--memory", f"{BUDGET}", "--idle-timeout", timeout, "--frame-timeout", timeout)
    figures: Figures = {**sizes, "receivers": {}}
    for name, kind, flags in ((BEFORE, "leaking", ()), (OURS, "ours", limits)):
        tell(f"{name}: an endless line, {sizes['connections']} reconnects, {sizes['connections']} hanging connections")
        with server(kind, *flags) as (process, port):
            replay = Replay(process.pid, port, sizes["settle_seconds"])
            figures["receivers"][name] = replay.run(port, sizes)
    return figures


LAB = Lab(
    name="leak",
    title="The leak, replayed: no limit, no timeout, no tracking",
    question="A receiver's memory grew until it died. Which of its three omissions did it, and what do the limits "
    "cost?",
    setting="A plain Twisted receiver that gathers bytes until a line ends, with no limit, no timeout, and a list "
    "of connections that nothing is ever taken from. Ours beside it with a budget of 8 MiB and short "
    "timeouts. Both get one line without an end, then clients that come with half a line and go, then "
    "clients that come with half a line and stay.",
    server="`--max-length`, `--idle-timeout`, `--frame-timeout`, `--memory` and `--max-connections` all have "
    "defaults; unfinished records may hold a quarter of the budget (`framing/base.py`, `flow/intake.py`). "
    "tests/attacks/ proves each.",
    full={
        "size": 64 * MIB,
        "connections": 400,
        "half": READ_SIZE,
        "timeout": 2.0,
        "hang_seconds": 6.0,
        "settle_seconds": 1.0,
    },
    quick={
        "size": 16 * MIB,
        "connections": 200,
        "half": READ_SIZE,
        "timeout": 0.5,
        "hang_seconds": 2.5,
        "settle_seconds": 0.2,
    },
    measure=measure,
    describe=describe,
)
