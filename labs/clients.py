"""
Clients, the servers they talk to, and what both can say about it.
"""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from labs.running import Child, Ours
from twisted_ingest.config.checks import most_connections

ENOUGH_SECONDS = 0.5
"""How long a client waits for an answer before it is counted as hanging."""

CONNECT_SECONDS = 10.0
"""How long a client waits for a connection, or for room to send."""

HANGING_SECONDS = 0.03
"""The same for a client that has closed its own side already: many of them come to a server that hangs."""


@contextlib.contextmanager
def server(kind: str, *flags: str, nofile: int | None = None, idle: float | None = None) -> Iterator[tuple[Any, int]]:
    """Run our server (``ours``, with flags) or one of the plain ones; gives the process and its port."""
    if kind == "ours":
        if nofile is not None and "--max-connections" not in flags:
            flags += ("--max-connections", str(most_connections(nofile)))
        with Ours(*flags, nofile=nofile) as ours:
            yield ours, ours.port
    else:
        with Child("labs.programs.servers", "serve", kind=kind, nofile=nofile, idle=idle) as child:
            yield child, child.hear()["port"]


def dial(port: int, source: str | None = None) -> socket.socket:
    """Connect, from a certain address of this machine where one is given."""
    # Not bound without need: binding takes a port that nobody has, connecting one that is free towards this server.
    return socket.create_connection(("127.0.0.1", port), CONNECT_SECONDS, None if source is None else (source, 0))


def outcome(peer: socket.socket) -> str:
    """Read to the end and say what the client sees: the answer and ``EOF``, ``reset``, or ``nothing``."""
    peer.settimeout(ENOUGH_SECONDS)
    got = b""
    try:
        while chunk := peer.recv(100):
            got += chunk
    except ConnectionResetError:
        return "answer, then reset" if got else "reset"
    except TimeoutError:
        return "nothing"
    return "answer, then EOF" if got else "EOF"


def visit(port: int, *, server_closes: bool) -> str:
    """Be one client; gives what it saw."""
    try:
        # A server out of descriptors may reset before the client has seen that it is connected.
        with dial(port) as peer:
            peer.sendall(b"a line\n")
            if server_closes:
                return outcome(peer)
            peer.shutdown(socket.SHUT_WR)
            peer.settimeout(HANGING_SECONDS)
            return "EOF" if peer.recv(100) == b"" else "answer"
    except TimeoutError:
        return "nothing"
    except OSError:
        return "reset"


def write(peer: socket.socket) -> bool:
    """Send the second line; whether the kernel took it."""
    try:
        peer.sendall(b"second\n")
    except OSError:
        return False
    return True


def ask(child: Child) -> dict[str, Any]:
    """Ask a plain server what it knows."""
    child.say("?")
    return child.hear()


def is_gone(peer: socket.socket) -> bool:
    """Whether the server has ended a connection."""
    peer.setblocking(False)
    try:
        return peer.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def received(process: Any, kind: str) -> int:
    """Count the lines a server has received."""
    count: int = process.counts()["records_framed"] if kind == "ours" else ask(process)["lines"]
    return count


def one_connection(port: int, lines: int) -> None:
    """Send lines on one connection, each with a write of its own."""
    with dial(port) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(lines):
            peer.sendall(b"." * 99 + b"\n")


def connection_each(port: int, lines: int) -> None:
    """Send each line on a connection of its own."""
    for _ in range(lines):
        with dial(port) as peer:
            peer.sendall(b"." * 99 + b"\n")
