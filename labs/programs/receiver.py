"""
The receiver of the Nagle lab: reads messages that carry their time of sending, and may answer.
"""

import json
import socket
import struct
import sys
import time
from typing import Any

from labs.running import role, speak
from twisted_ingest.limits import READ_SIZE

MESSAGE = struct.Struct("!qH")
"""Ten bytes: when it was sent (nanoseconds, monotonic, the same in all processes of a machine), and its number."""


def receive() -> None:
    """
    Take one connection for each line of orders on standard input, and speak what came.

    The orders: how many ``messages`` to read; ``quick_acks`` acknowledges every segment at once, else the kernel may
    delay; ``answer_every`` messages are answered with a byte (0: none are).
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        speak(port=listening.getsockname()[1])
        for orders in sys.stdin:
            peer, _ = listening.accept()
            with peer:
                speak(**read(peer, **json.loads(orders)))


def read(peer: socket.socket, messages: int, quick_acks: bool, answer_every: int) -> dict[str, Any]:
    """Read messages; gives the seconds that each and all of them took, and the number of reads."""
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    taken: list[float] = []
    reads, rest, first, now = 0, b"", 0, 0
    while len(taken) < messages:
        if quick_acks:
            # Not a lasting setting: the kernel may leave this mode by itself (tcp(7)).
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        chunk = peer.recv(READ_SIZE)
        if not chunk:
            break
        now = time.monotonic_ns()
        reads += 1
        rest += chunk
        whole = len(rest) // MESSAGE.size * MESSAGE.size
        before = len(taken)
        for sent, _ in MESSAGE.iter_unpack(rest[:whole]):
            first = first or sent
            taken.append((now - sent) / 1e9)
        rest = rest[whole:]
        if answer_every:
            peer.sendall(b"." * (len(taken) // answer_every - before // answer_every))
    return {"taken": taken, "reads": reads, "seconds": (now - first) / 1e9}


if __name__ == "__main__":
    role({"receive": receive})
