"""What a process must find in order when it wakes up, whoever has put it to sleep."""

import os
import time
from contextlib import AbstractContextManager

from twisted.trial.unittest import SynchronousTestCase

from tests.server import Server, wait_until

SLEEP_SECONDS = max(4.0, float(os.environ.get("INGEST_TEST_STALL_SECONDS", "0")))
"""How long a process is put to sleep; `make slow` sets ten."""

TIMEOUTS = ("--idle-timeout", "2s", "--frame-timeout", "2s")
"""Flags of the server: half of the sleep."""


def oversleep(case: SynchronousTestCase, server: Server, asleep: AbstractContextManager[None]) -> str:
    """
    Have a server with `TIMEOUTS` sleep past them, with a silent peer, one that sends meanwhile, and one inside a line.

    All their lines must be read and none of them closed; gives that in words.
    """
    with server.connect() as silent, server.connect() as late, server.connect() as half:
        half.sendall(b"begun ")
        wait_until(lambda: server.metrics()["ingest_received_bytes_total"] == 6, "half a line read")
        with asleep:
            late.sendall(b"while you slept\n")
            half.sendall(b"and ended\n")
            time.sleep(SLEEP_SECONDS)
        case.assertEqual(sorted(server.wait_output(32).splitlines()), [b"begun and ended", b"while you slept"])
        silent.sendall(b"still here\n")
        server.wait_output(43)
        metrics = server.metrics()
    closed = {name: value for name, value in metrics.items() if name.startswith("ingest_connections_closed_total")}
    case.assertEqual({name for name, value in closed.items() if value}, set())
    return f"asleep for {SLEEP_SECONDS:.0f} s, timeouts of 2 s: 3 lines, {sum(closed.values()):.0f} connections closed"
