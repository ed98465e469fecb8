"""What is sent, and what one run of it measures."""

import contextlib
import json
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lines import MIXED_MEAN
from measure import Running, running
from servers import COUNTED
from tools import Tools

MEGABYTE = 1_000_000
RUNAWAY_BYTES = 1000 * MEGABYTE
"""A server that grows by this much in the endless-line run is stopped there."""
JSON_QUIET_SECONDS = 0.5
QUIET_SECONDS = 3.0
"""The size of raw output is known in advance, that of JSON is not: then a file that has stopped growing is complete."""


@dataclass(frozen=True)
class Workload:
    """Lines over connections; ``share`` scales the bytes of a run down where they cost more."""

    title: str
    connections: int = 1
    size: int = 0
    one_per_send: bool = False
    octets: bool = False
    rate: int = 0
    share: float = 1.0


@dataclass(frozen=True)
class Scale:
    """How much of everything, and how long at most."""

    megabytes: int
    idle_connections: int
    idle_seconds: float
    paced_seconds: float
    endless_megabytes: int
    cap_seconds: int


WORKLOADS = {
    "a": Workload("1 connection, blocks of mixed lines (220 B on average)"),
    "b": Workload("64 connections, blocks of mixed lines", connections=64),
    "c": Workload("1,000 connections, one 200 B line a send", connections=1000, size=200, one_per_send=True, share=0.4),
    "d": Workload("1 connection, blocks of 1 KiB lines", size=1024),
    "e": Workload("1 connection, blocks of mixed lines, octet-counted", octets=True),
    "r": Workload(
        "1,000 connections, 50,000 lines of 200 B a second in all", 1000, 200, one_per_send=True, rate=50_000
    ),
}


def lines_each(workload: Workload, scale: Scale) -> int:
    """Give how many lines each connection sends."""
    total = workload.share * scale.megabytes * MEGABYTE / (workload.size or MIXED_MEAN)
    if workload.rate:
        total = workload.rate * scale.paced_seconds
    return max(1, int(total / workload.connections))


def throughput(name: str, key: str, scale: Scale, tools: Tools, place: str) -> dict[str, Any]:
    """Send a workload to a server and verify every line of what it wrote."""
    workload = WORKLOADS[key]
    count = lines_each(workload, scale)
    with running(name, tools, place, connections=workload.connections, octets=workload.octets) as server:
        cpu = server.cpu()
        load = send(server, workload, count, scale, tools)
        done = complete(server, load, scale)
        # The kernel's file times are a few milliseconds coarse; nothing is complete before it is sent.
        seconds = max(done - load["began"], load["seconds"])
        cpu, peak = server.cpu() - cpu, server.peak_rss()
        checked = checks(server, workload, count, tools)
    gigabytes = load["line_bytes"] / 1e9
    return {
        "seconds": seconds,
        "megabytes_per_second": load["line_bytes"] / seconds / MEGABYTE,
        "lines_per_second": load["lines"] / seconds,
        "cpu_seconds_per_gigabyte": cpu / gigabytes,
        "peak_rss_megabytes": peak / MEGABYTE,
        "failed_connections": load["failed"],
        **{word: checked[word] for word in ("good", "missing", "doubled", "torn", "reordered")},
        "connections": checked["connections"],
    }


def complete(server: Running, load: dict[str, Any], scale: Scale) -> float:
    """Wait until all is through; gives the time when it was."""
    if server.name in COUNTED:
        return server.wait_replayed(load["lines"], scale.cap_seconds)
    as_json = server.name == "ours-json"
    expected = 1 << 62 if as_json else load["line_bytes"]
    server.wait_written(expected, JSON_QUIET_SECONDS if as_json else QUIET_SECONDS, scale.cap_seconds)
    return server.written_at()


def checks(server: Running, workload: Workload, count: int, tools: Tools) -> dict[str, Any]:
    """Verify every line; where no file holds them, count them."""
    if server.name in COUNTED:
        good, sent = server.replayed(), count * workload.connections
        counts = {"good": good, "missing": max(0, sent - good), "doubled": max(0, good - sent)}
        return {**counts, "torn": 0, "reordered": 0, "connections": []}
    as_json = server.name == "ours-json"
    return tools.verified(server.output, workload.connections, count, workload.size, json_lines=as_json)


def send(server: Running, workload: Workload, count: int, scale: Scale, tools: Tools) -> dict[str, Any]:
    """Run the load to its end; gives what it says."""
    options = ["-p", server.port, "-c", workload.connections, "-n", count, "-s", workload.size, "-f", tools.filler]
    options += ["-t", scale.cap_seconds, *(["-1"] if workload.one_per_send else [])]
    options += [*(["-o"] if workload.octets else []), *(["-r", workload.rate] if workload.rate else [])]
    command = [*tools.load, *(str(option) for option in options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=scale.cap_seconds + 60, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the load failed: {done.stderr}")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@contextlib.contextmanager
def opened(server: Running, count: int) -> Iterator[list[socket.socket]]:
    """Open connections, and close them afterwards."""
    with contextlib.ExitStack() as stack:
        connect = ("127.0.0.1", server.port)
        yield [stack.enter_context(socket.create_connection(connect, 10)) for _ in range(count)]


def idle(name: str, scale: Scale, tools: Tools, place: str) -> dict[str, Any]:
    """Open connections, let each send one line, and leave them alone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 2 * scale.idle_connections + 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    count = min(scale.idle_connections, int(max(soft, wanted) * 0.7))
    with running(name, tools, place, connections=count) as server:
        before = server.rss()
        with opened(server, count) as peers:
            time.sleep(scale.idle_seconds / 2)
            open_rss = server.rss()
            for peer in peers:
                peer.sendall(b"one line\n")
            server.wait_written(9 * count, 2.0, 10)
            used_rss, cpu = server.rss(), server.cpu()
            time.sleep(scale.idle_seconds)
            cpu = server.cpu() - cpu
    return {
        "connections": count,
        "resting_megabytes": before / MEGABYTE,
        "open_kib_each": (open_rss - before) / count / 1024,
        "used_kib_each": (used_rss - before) / count / 1024,
        "idle_cpu_percent": 100 * cpu / scale.idle_seconds,
    }


def endless(name: str, scale: Scale, tools: Tools, place: str) -> dict[str, Any]:
    """Send a line that does not end."""
    with running(name, tools, place) as server:
        before, end = server.rss(), time.monotonic() + scale.cap_seconds
        block, taken, ended = b"x" * MEGABYTE, 0, "took it all"
        with opened(server, 1) as [peer]:
            while taken < scale.endless_megabytes and ended == "took it all":
                try:
                    peer.sendall(block)
                    taken += 1
                except OSError:
                    ended = "closed the connection"
                if server.alive() and server.rss() - before > RUNAWAY_BYTES:
                    ended = f"stopped after growing by {RUNAWAY_BYTES // MEGABYTE:,} MB"
                if time.monotonic() > end:
                    ended = "out of time"
        time.sleep(0.3)
        growth = (server.peak_rss() - before) / MEGABYTE if server.alive() else None
    return {"megabytes_taken": taken, "growth_megabytes": growth, "ended": ended if growth is not None else "it died"}
