"""
Lifecycle: how connections end, what is left of them, and what a server's descriptors have to do with it.
"""

import contextlib
import resource
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from labs.clients import ENOUGH_SECONDS, connection_each, dial, is_gone, one_connection, received, server, visit, write
from labs.conclusions.lifecycle import describe
from labs.measure import Timeline, cpu_seconds, descriptors, is_established, tcp_states
from labs.report import Figures, Lab, Tell
from labs.running import wait_until, within
from twisted_ingest.config.checks import most_connections

STATES = ("ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT1", "FIN_WAIT2", "LAST_ACK", "TIME_WAIT")

SERVED_SECONDS = 1.0
"""How long a line may take to be received before it counts as not served."""

HONEST = "127.0.0.2"
"""The address of the client that means well, while the flood comes from 127.0.0.1."""

RESET = struct.pack("ii", 1, 0)
"""``SO_LINGER`` with no time: closing sends a reset."""


def visits(kind: str, clients: int, pace: float, nofile: int) -> Figures:
    """
    Let clients come one after the other, ``pace`` seconds apart, each with one line; look at what is left of them.

    Where the server is to close, the client waits for that; else it closes itself.
    """
    with server(kind, nofile=nofile) as (process, port):
        resting = descriptors(process.pid)

        def look() -> dict[str, float]:
            here, there = tcp_states(port)
            ends = {f"server {state}": here[state] for state in STATES}
            ends |= {f"client {state}": there[state] for state in STATES}
            return {"descriptors": descriptors(process.pid), **ends}

        seen: dict[str, int] = {}
        with Timeline(look, 0.01) as timeline:
            for _ in range(clients):
                seen_now = visit(port, server_closes=kind in ("graceful", "forceful"))
                seen[seen_now] = seen.get(seen_now, 0) + 1
                time.sleep(pace)
            within(ENOUGH_SECONDS, lambda: descriptors(process.pid) <= resting)
        return {
            "clients": clients,
            "resting": resting,
            "limit": nofile,
            "most_descriptors": timeline.most("descriptors"),
            "left": {key: value for key, value in timeline.samples[-1].items() if key != "t" and value},
            "descriptors_left": timeline.samples[-1]["descriptors"] - resting,
            "seen": seen,
            "descriptors": timeline.line("descriptors"),
            "states": {key: timeline.line(key) for key in look() if timeline.most(key) and key != "descriptors"},
        }


def idle_close(kind: str, senders: int, idle: float) -> Figures:
    """
    Let senders send a line, fall silent until the server has closed, and send another.

    A sender whose write fails connects again and sends the line again, as a careful one does.
    """
    flags = ("--idle-timeout", f"{int(idle * 1000)}ms") if kind == "ours" else ()
    with server(kind, *flags, idle=idle) as (process, port), contextlib.ExitStack() as peers:
        sockets = [peers.enter_context(dial(port)) for _ in range(senders)]
        for peer in sockets:
            peer.sendall(b"first\n")
        wait_until(lambda: not any(map(is_established, sockets)), "the server has closed all idle connections")
        here, there = tcp_states(port)
        taken = [write(peer) for peer in sockets]
        for _ in range(taken.count(False)):
            write(peers.enter_context(dial(port)))
        within(SERVED_SECONDS, lambda: received(process, kind) == 2 * senders)
        lines = received(process, kind)
        return {
            "senders": senders,
            "writes_that_succeeded": taken.count(True),
            "second_lines_received": lines - senders,
            "states": {"server": dict(here), "client": dict(there)},
        }


def flood(kind: str, flags: tuple[str, ...], clients: int, nofile: int) -> Figures:
    """Let one host open connections and keep them, then see whether an honest client is served."""
    with server(kind, *flags, nofile=nofile) as (process, port), contextlib.ExitStack() as peers:
        crowd = []
        for _ in range(clients):
            # Beyond the limit it resets, and may do so before the client has seen that it is connected.
            with contextlib.suppress(ConnectionResetError):
                crowd.append(peers.enter_context(dial(port)))
        honest: socket.socket | None = None
        with contextlib.suppress(OSError):
            honest = peers.enter_context(dial(port, HONEST))
            honest.sendall(b"an honest line\n")

        def is_decided() -> bool:
            return bool(received(process, kind)) or honest is None or is_gone(honest)

        within(SERVED_SECONDS, is_decided)
        held, during = descriptors(process.pid), received(process, kind)
        for peer in crowd:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            peer.close()
        within(SERVED_SECONDS, is_decided)
        after = received(process, kind)
        return {
            "clients": clients,
            "limit": nofile,
            "descriptors": held,
            "served_during": during,
            "served_after": after,
        }


def pooling(process: Any, port: int, send: Callable[[int, int], None], lines: int) -> Figures:
    """Measure what a way to send lines costs sender, our server and ports."""
    before = received(process, "ours")
    usage, work, waiting = resource.getrusage(resource.RUSAGE_SELF), cpu_seconds(process.pid), time_wait(port)
    began = time.perf_counter()
    send(port, lines)
    spent = resource.getrusage(resource.RUSAGE_SELF)
    wait_until(lambda: received(process, "ours") == before + lines, "all lines have arrived")
    seconds = time.perf_counter() - began
    return {
        "lines": lines,
        "seconds": seconds,
        "server_cpu": cpu_seconds(process.pid) - work,
        "sender_cpu": spent.ru_utime + spent.ru_stime - usage.ru_utime - usage.ru_stime,
        "time_wait": time_wait(port) - waiting,
    }


def time_wait(port: int) -> int:
    """Count what connections with a port have left in TIME_WAIT, on either side."""
    here, there = tcp_states(port)
    return here["TIME_WAIT"] + there["TIME_WAIT"]


def ports() -> int:
    """Count the ports that the kernel gives to outgoing connections."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as stream:
        first, last = map(int, stream.read().split())
    return last - first + 1


def measure(
    tell: Tell, *, clients: int, pace: float, nofile: int, senders: int, idle: float, crowd: int, lines: int
) -> Figures:
    """Carry the lab out; ``nofile`` bounds the descriptors of the servers, ``idle`` is in seconds."""
    figures: Figures = {"visits": {}, "idle_close": {}, "flood": {}, "pooling": {}, "ports": ports()}
    for kind in ("graceful", "forceful", "forgetful", "ours"):
        tell(f"{clients} clients, one after the other: {kind}")
        figures["visits"][kind] = visits(kind, clients, pace, nofile)
    for kind in ("closes-idle", "ours"):
        tell(f"{senders} senders that fall silent: {kind}")
        figures["idle_close"][kind] = idle_close(kind, senders, idle)
    cap = most_connections(nofile)
    defences = {
        "no limit": ("closes-idle", ()),
        "ours, a cap on connections": ("ours", ("--max-connections", str(cap))),
        "ours, a cap for each peer": (
            "ours",
            ("--max-connections", str(cap), "--max-connections-per-peer", str(cap // 2)),
        ),
    }
    for name, (kind, flags) in defences.items():
        tell(f"a flood of {crowd} connections: {name}")
        figures["flood"][name] = flood(kind, flags, crowd, nofile)
    with server("ours") as (process, port):
        for name, send in {"one connection": one_connection, "a connection for each": connection_each}.items():
            tell(f"{lines} lines: {name}")
            figures["pooling"][name] = pooling(process, port, send, lines)
    return figures


LAB = Lab(
    name="lifecycle",
    title="Lifecycle: how connections end, and what is left of them",
    question="Connections come and go. Who closes, how, what does the other side see, and what stays behind?",
    setting="Clients come one after the other with one line each, to plain Twisted servers that close in good "
    "order, reset, or pause the connection and forget it, and to ours, all with few descriptors. Then "
    "senders fall silent and go on after the server has closed; one host floods the server while another "
    "means well; and lines are sent on one connection, or on one each.",
    server="A registry holds every connection until it is lost, each with one reason (`server/factory.py`). Idle "
    "peers are reset. At the cap accepting stops and the backlog waits; `--max-connections-per-peer` keeps "
    "one host from filling it.",
    full={"clients": 300, "pace": 0.01, "nofile": 100, "senders": 25, "idle": 0.5, "crowd": 200, "lines": 3000},
    quick={"clients": 80, "pace": 0.001, "nofile": 48, "senders": 5, "idle": 0.25, "crowd": 100, "lines": 300},
    measure=measure,
    describe=describe,
)
