"""
What one 64 KiB chunk costs: our protocol against Twisted's line receivers.

    python benchmarks/framing.py

Prints the best of several runs per kind of content. Compare columns of one run, never runs of different machines.
"""

import time
from collections.abc import Callable

from twisted.internet.testing import StringTransport
from twisted.protocols.basic import LineOnlyReceiver, LineReceiver

from twisted_ingest.limits import GIB, KIB
from twisted_ingest.testing import Rig, StalledSink

CHUNK = 64 * KIB
ROUNDS = 5

CONTENTS = {
    "bare newlines": b"\n" * CHUNK,
    "one-byte lines": b"x\n" * (CHUNK // 2),
    "20 B lines": (b"x" * 19 + b"\n") * (CHUNK // 20),
    "200 B lines": (b"x" * 199 + b"\n") * (CHUNK // 200),
    "1 KiB lines": (b"x" * 1023 + b"\n") * 64,
    "no newline": b"x" * CHUNK,
}


def ours() -> Callable[[bytes], None]:
    """Make our protocol, with a sink that keeps everything waiting."""
    rig = Rig(StalledSink(), memory=GIB, connection_memory=GIB // 2, lends=False)
    receive: Callable[[bytes], None] = rig.connect()._protocol.dataReceived  # noqa: SLF001
    return receive


def twisted(base: type) -> Callable[[], Callable[[bytes], None]]:
    """Make one of Twisted's, with a ``lineReceived`` that does nothing."""

    def make() -> Callable[[bytes], None]:
        class Receiver(base):  # type: ignore[misc]
            delimiter = b"\n"
            MAX_LENGTH = 100 * KIB

            def lineReceived(self, line: bytes) -> None:
                """Take a line."""

            def lineLengthExceeded(self, line: bytes) -> None:
                """Take a line that is too long."""

        receiver = Receiver()
        receiver.makeConnection(StringTransport())
        receive: Callable[[bytes], None] = receiver.dataReceived
        return receive

    return make


SUBJECTS = {
    "IngestProtocol": ours,
    "LineOnlyReceiver": twisted(LineOnlyReceiver),
    "LineReceiver": twisted(LineReceiver),
}


def cost(make: Callable[[], Callable[[bytes], None]], chunk: bytes) -> float:
    """Give the seconds one chunk takes, the best of several."""
    best = float("inf")
    for _ in range(ROUNDS):
        receive = make()
        start = time.perf_counter()
        receive(chunk)
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    """Print the table."""
    print(f"{'one chunk of 64 KiB, ms':24}" + "".join(f"{name:>18}" for name in SUBJECTS))  # noqa: T201
    for content, chunk in CONTENTS.items():
        costs = "".join(f"{cost(make, chunk) * 1000:18.3f}" for make in SUBJECTS.values())
        print(f"{content:24}{costs}")  # noqa: T201


if __name__ == "__main__":
    main()
