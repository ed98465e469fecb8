"""
Back-pressure: what a fast sender does to memory when its reader is slow, on the way out and on the way in.
"""

import contextlib
import selectors
import socket
import statistics
import time
from typing import Any

from labs.conclusions.backpressure import describe
from labs.measure import Timeline, mib, receive_queue, rss, send_queue, thinned
from labs.programs.senders import PIECE
from labs.report import Figures, Lab, Tell
from labs.running import Child, Ours, wait_until
from twisted_ingest.limits import KIB, MIB

STALL_SECONDS = 0.3
"""The reader reads nothing at first, so that it can be seen where the bytes wait."""

TICK = 0.01
"""Seconds between two reads of the slow reader."""

HELD_BACK_SECONDS = 0.6
"""A flood that could send nothing for so long counts as held back."""

REQUESTS = (1 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 1 * MIB, 16 * MIB)
"""Bytes asked of the kernel for a socket's buffers."""


def outward(mode: str, total: int, rate: int | None, watermark: int = PIECE) -> Figures:
    """Have a child send to us, read ``rate`` bytes a second (``None``: at full speed), and say what it held."""
    with Child("labs.programs.senders", "send", mode=mode, total=total, watermark=watermark) as child:
        port = child.hear()["port"]
        with socket.create_connection(("127.0.0.1", port)) as peer:
            with Timeline(lambda: {"inq": receive_queue(peer)}) as ours:
                began = time.monotonic()
                read_all(peer, rate)
                seconds = time.monotonic() - began
            receive_buffer = peer.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        theirs = child.hear()
    samples = [sample | {"t": sample["t"] + theirs["began"] - began} for sample in theirs["samples"]]
    # While nothing is being read the looks of the two processes belong together.
    stalled = [s for s in samples if "queued" in s and s["t"] < STALL_SECONDS] or samples
    fullest = max(stalled, key=lambda s: s.get("queued", 0))
    waiting = fullest | {"inq": max(s["inq"] for s in ours.samples if s["t"] < STALL_SECONDS)}
    resting = samples[0]["rss"]
    return {
        "total": total,
        "watermark": watermark,
        "seconds": seconds,
        "pauses": theirs["pauses"],
        "queued_most": max(s.get("queued", 0) for s in samples),
        "growth": max(s["rss"] for s in samples) - resting,
        "waiting": {key: waiting.get(key, 0) for key in ("queued", "outq", "unsent", "inq")},
        "limited_us": {key: samples[-2].get(key, 0) for key in ("rwnd_limited_us", "sndbuf_limited_us")},
        "receive_buffer": receive_buffer,
        "queued": thinned([[s["t"], mib(s["queued"])] for s in samples if "queued" in s]),
        "rss": thinned([[s["t"], mib(s["rss"] - resting)] for s in samples]),
        "kernel": thinned([[s["t"], mib(s["outq"])] for s in samples if "outq" in s]),
    }


def read_all(peer: socket.socket, rate: int | None) -> None:
    """Read to the end, slowly where a rate is given."""
    if rate is None:
        while peer.recv(MIB):
            pass
        return
    time.sleep(STALL_SECONDS)
    began, got = time.monotonic(), 0
    while size := len(peer.recv(int(rate * TICK))):
        got += size
        time.sleep(max(0.0, got / rate - (time.monotonic() - began)))


def inward(memory: str, connection_memory: str, total: int, connections: int) -> Figures:
    """Flood our server, whose sink takes nothing, and say what that cost it."""
    flags = ("--memory", memory, "--connection-memory", connection_memory)
    with Ours(*flags, sink="stdout:") as server, contextlib.ExitStack() as peers:
        sockets = [
            peers.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(connections)
        ]
        sent = [0]
        resting = rss(server.pid)
        with Timeline(lambda: {"rss": rss(server.pid), "sent": sent[0]}) as timeline:
            flood(sockets, total // connections, sent)
            status = settled(server, sent)
        return {
            "offered": total,
            "budget": status["limits"]["memory"]["value"],
            "growth": timeline.most("rss") - resting,
            "received": status["listeners"][0]["counts"]["bytes_received"],
            "sender_queues": sum(send_queue(peer) for peer in sockets),
            "taken_by_kernel": sent[0],
            "paused": status["connections"]["paused"],
            "conservation_error": status["conservation"]["error"],
            "rss": [[t, round(value - mib(resting), 2)] for t, value in timeline.line("rss", MIB)],
            "sent": timeline.line("sent", MIB),
        }


def settled(server: Ours, sent: list[int]) -> Figures:
    """Wait until the server has read everything, or has paused every connection; gives its status."""
    last: Figures = {}

    def is_still() -> bool:
        last.update(server.status())
        connections = last["connections"]
        read = last["listeners"][0]["counts"]["bytes_received"]
        return bool(read == sent[0] or connections["paused"] == connections["open"])

    wait_until(is_still, "the server has read everything or paused everybody")
    return last


def flood(sockets: list[socket.socket], each: int, sent: list[int]) -> None:
    """Send lines on every connection until all is sent, or until nobody could send for a while."""
    block = memoryview((b"." * 199 + b"\n") * (PIECE // 200))
    left = dict.fromkeys(sockets, each)
    with selectors.DefaultSelector() as selector:
        for peer in sockets:
            peer.setblocking(False)
            selector.register(peer, selectors.EVENT_WRITE)
        while left and (ready := selector.select(HELD_BACK_SECONDS)):
            for key, _ in ready:
                ready_one: Any = key.fileobj
                # A block begins where the last one was cut off, so that lines stay whole.
                place = (each - left[ready_one]) % len(block)
                size = ready_one.send(block[place : place + left[ready_one]])
                left[ready_one] -= size
                sent[0] += size
                if not left[ready_one]:
                    selector.unregister(ready_one)
                    del left[ready_one]


def kernel_buffers() -> list[Figures]:
    """Ask for buffers of several sizes and say what the kernel made of it."""
    given = []
    for request in (None, *REQUESTS):
        with socket.socket() as fresh:
            options = {"sent": socket.SO_SNDBUF, "received": socket.SO_RCVBUF}
            if request is not None:
                for option in options.values():
                    fresh.setsockopt(socket.SOL_SOCKET, option, request)
            got = {name: fresh.getsockopt(socket.SOL_SOCKET, option) for name, option in options.items()}
            given.append({"asked": request, **got})
    return given


def measure(
    tell: Tell, *, total: int, rate: int, watermarks: list[int], sweep_total: int, rounds: int, connections: int
) -> Figures:
    """Carry the lab out; sizes in bytes, ``rate`` in bytes a second."""
    figures: Figures = {
        "stall_seconds": STALL_SECONDS,
        "piece": PIECE,
        "rate": rate,
        "outward": {},
        "inward": {},
        "watermarks": [],
    }
    for mode in ("bare", "contract"):
        tell(f"out: {mode}, {total // MIB} MiB to a slow reader")
        figures["outward"][mode] = outward(mode, total, rate)
    for watermark in watermarks:
        tell(f"out: the contract with a watermark of {watermark // KIB} KiB, a reader at full speed")
        runs = [outward("contract", sweep_total, None, watermark) for _ in range(rounds)]
        keys = ("seconds", "pauses", "queued_most", "growth")
        medians = {key: statistics.median(run[key] for run in runs) for key in keys}
        figures["watermarks"].append({"watermark": watermark, "total": sweep_total, **medians})
    for name, memory in (("budget", ("16MiB", "1MiB")), ("none", ("16GiB", "1GiB"))):
        tell(f"in: a stalled sink, {'with' if name == 'budget' else 'in effect without'} the budget")
        figures["inward"][name] = inward(*memory, total, connections)
    tell("what the kernel makes of buffer sizes")
    figures["kernel_buffers"] = kernel_buffers()
    return figures


LAB = Lab(
    name="backpressure",
    title="Back-pressure: where the bytes go when a reader is slow",
    question="A sender is faster than its reader. Who holds what has not been read, and how much of it?",
    setting="A Twisted server sends to one client, which reads nothing at first and then at a fixed rate. It "
    "writes bare, or as the transport's registered producer. Then our server is flooded while its sink (a "
    "pipe that nobody reads) takes nothing, with a small budget and with one too large to matter.",
    server="Every connection writes its batches to a lane, and every lane shares one budget: above 80 % nobody is "
    "read from, at 50 % reading goes on (`flow/lane.py`, `flow/budget.py`, `--memory`). Kernel buffers come "
    "on top; `receive_buffer` bounds them.",
    full={
        "total": 96 * MIB,
        "rate": 40 * MIB,
        "watermarks": [4 * KIB, 64 * KIB, MIB, 16 * MIB],
        "sweep_total": 128 * MIB,
        "rounds": 3,
        "connections": 24,
    },
    quick={
        "total": 32 * MIB,
        "rate": 96 * MIB,
        "watermarks": [16 * KIB, 4 * MIB],
        "sweep_total": 16 * MIB,
        "rounds": 1,
        "connections": 24,
    },
    measure=measure,
    describe=describe,
)
