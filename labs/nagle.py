"""
Nagle: many small messages, and four ways to hand them to the kernel.
"""

import contextlib
import json
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from labs.conclusions.nagle import describe
from labs.measure import tcp_info
from labs.programs.receiver import MESSAGE
from labs.report import Figures, Lab, Tell
from labs.running import Child
from twisted_ingest.limits import GATHER_SECONDS
from twisted_ingest.storage.stream import StreamTarget
from twisted_ingest.storage.target import IOV_MAX

TCP = socket.IPPROTO_TCP

ANSWER_EVERY = 10
"""Messages for which the receiver of the third stream sends one byte, as an acknowledged protocol does."""

Receiver = tuple[Child, int]
"""The receiving process and its port."""

Sender = Callable[[socket.socket, int, float], None]


def message(number: int) -> bytes:
    """Make a message that says when it was made."""
    return MESSAGE.pack(time.monotonic_ns(), number)


def wait_for(moment: float) -> None:
    """Wait for a moment, exactly: a sleep alone would be late by as much as is to be measured."""
    while (left := moment - time.perf_counter()) > 0:
        if left > 0.0005:
            time.sleep(left - 0.0003)


def one_by_one(peer: socket.socket, messages: int, pace: float) -> None:
    """Send each message when it is there, ``pace`` seconds after the last."""
    began = time.perf_counter()
    for number in range(messages):
        wait_for(began + number * pace)
        peer.sendall(message(number))


def without_delay(peer: socket.socket, messages: int, pace: float) -> None:
    """Do the same with Nagle's algorithm off."""
    peer.setsockopt(TCP, socket.TCP_NODELAY, 1)
    one_by_one(peer, messages, pace)


def corked(peer: socket.socket, messages: int, pace: float) -> None:
    """Do the same with a cork: full segments only, until it is pulled (or, in the kernel, after 200 ms)."""
    peer.setsockopt(TCP, socket.TCP_CORK, 1)
    one_by_one(peer, messages, pace)
    peer.setsockopt(TCP, socket.TCP_CORK, 0)


def coalesced(peer: socket.socket, messages: int, pace: float) -> None:
    """Gather what comes within the time our intake gathers, and write it at once, as our sinks do; Nagle off."""
    peer.setsockopt(TCP, socket.TCP_NODELAY, 1)
    target = StreamTarget(peer.fileno(), "a socket")
    began = time.perf_counter()
    gathered: list[bytes] = []
    due = 0.0
    for number in range(messages):
        wait_for(began + number * pace)
        if not gathered:
            due = time.perf_counter() + GATHER_SECONDS
        gathered.append(message(number))
        last = number == messages - 1
        if last or len(gathered) == IOV_MAX or began + (number + 1) * pace > due:
            # The next message would be too late: what is there goes when its time is up.
            wait_for(due if pace else 0.0)
            target.write(gathered)
            gathered = []


WAYS: dict[str, Sender] = {
    "default (Nagle)": one_by_one,
    "no delay": without_delay,
    "cork": corked,
    "coalesced": coalesced,
}


@contextlib.contextmanager
def connection(receiver: Receiver, messages: int, answer_every: int, *, quick_acks: bool) -> Iterator[socket.socket]:
    """Connect to the receiver, after telling it what to expect."""
    child, port = receiver
    child.say(json.dumps({"messages": messages, "quick_acks": quick_acks, "answer_every": answer_every}))
    with socket.create_connection(("127.0.0.1", port)) as peer:
        yield peer


def stream(receiver: Receiver, way: str, messages: int, pace: float, answer_every: int, *, quick_acks: bool) -> Figures:
    """Send messages in one way and say what that took."""
    with connection(receiver, messages, answer_every, quick_acks=quick_acks) as peer:
        before = tcp_info(peer)
        WAYS[way](peer, messages, pace)
        heard = receiver[0].hear()
        return summary(heard, before, tcp_info(peer))


def summary(heard: dict[str, Any], before: dict[str, int], after: dict[str, int]) -> Figures:
    """Join the receiver's times and the kernel's counts of one run."""
    taken = sorted(heard["taken"])
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    return {
        "messages": len(taken),
        "reads": heard["reads"],
        "seconds": heard["seconds"],
        "median_ms": cuts[49] * 1e3,
        "p99_ms": cuts[98] * 1e3,
        "most_ms": taken[-1] * 1e3,
        "percentiles_ms": [round(cut * 1e3, 4) for cut in cuts],
    } | {key: after[key] - before[key] for key in ("segs_out", "data_segs_out", "segs_in")}


def question(receiver: Receiver, way: str, questions: int, *, quick_acks: bool) -> Figures:
    """Ask questions made of two messages, each waiting for its answer; the seconds of each, in milliseconds."""
    with connection(receiver, 2 * questions, 2, quick_acks=quick_acks) as peer:
        if way != "default (Nagle)":
            peer.setsockopt(TCP, socket.TCP_NODELAY, 1)
        spent = []
        for number in range(questions):
            began = time.perf_counter()
            head, body = message(2 * number), message(2 * number + 1)
            if way == "coalesced":
                peer.sendall(head + body)
            else:
                peer.sendall(head)
                peer.sendall(body)
            peer.recv(1)
            spent.append((time.perf_counter() - began) * 1e3)
    receiver[0].hear()
    return {"median_ms": statistics.median(spent), "most_ms": max(spent)}


def measure(tell: Tell, *, messages: int, pace: float, questions: int) -> Figures:
    """Carry the lab out; ``pace`` in seconds between two messages of an application that has one now and then."""
    figures: Figures = {"messages": messages, "pace": pace, "questions": {}, "streams": {}}
    with Child("labs.programs.receiver", "receive") as child:
        receiver = child, child.hear()["port"]
        for acks in ("delayed acks", "quick acks"):
            measure_acks(tell, figures, receiver, acks, questions)
    return figures


def measure_acks(tell: Tell, figures: Figures, receiver: Receiver, acks: str, questions: int) -> None:
    """Add what one way of acknowledging gives."""
    messages, pace, quick = figures["messages"], figures["pace"], acks == "quick acks"
    for kind, (between, answers) in {"burst": (0.0, 0), "paced": (pace, 0), "answered": (pace, ANSWER_EVERY)}.items():
        for way in WAYS:
            tell(f"{messages} messages, {kind}, {way}, {acks}")
            run = stream(receiver, way, messages, between, answers, quick_acks=quick)
            figures["streams"].setdefault(kind, {}).setdefault(way, {})[acks] = run
    for way in ("default (Nagle)", "no delay", "coalesced"):
        tell(f"{questions} questions of two writes, {way}, {acks}")
        figures["questions"].setdefault(way, {})[acks] = question(receiver, way, questions, quick_acks=quick)


LAB = Lab(
    name="nagle",
    title="Nagle: small messages, packets and delays",
    question="1,000 messages of 10 bytes: how many packets do they become, and how long does each one take?",
    setting="Raw sockets on loopback (Twisted would join the writes of a turn). Once as fast as they can be "
    "written, once at the pace of an application that has one now and then, and as questions of two writes "
    "that wait for an answer. Packets are counted by the sender's kernel (`TCP_INFO`); each message "
    "carries the time at which it was made. The receiver acknowledges as the kernel likes (delayed), or at "
    "once (`TCP_QUICKACK` before every read).",
    server="Accepted connections have no delay (`server/sockets.py`), and what goes out goes out joined: batches "
    "are gathered for a turn of the reactor or two milliseconds and written with one `writev` "
    "(`flow/intake.py`, `storage/appender.py`).",
    full={"messages": 1000, "pace": 0.001, "questions": 30},
    quick={"messages": 200, "pace": 0.001, "questions": 10},
    measure=measure,
    describe=describe,
)
