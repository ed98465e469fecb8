"""
Fault: the wall clock jumps, by NTP, by hand, or with a virtual machine that slept.

Cost to a careless receiver: connections closed at once or never, lines out of order. Bound proven: time stamps follow
the wall clock, and nothing else does.
"""

import os
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.report import Group, Scenario
from tests.server import Server, wait_until
from twisted_ingest.process.tuning import take_steady_time
from twisted_ingest.testing import Rig

JUMPS = Scenario(
    Group.PROCESS,
    "The wall clock jumps",
    "by days, forwards or backwards, ten times a second",
    "only the time stamps of records and log lines follow it; idle and frame deadlines, retries and the order of "
    "records go by a clock that cannot jump",
    ('ingest_connections_closed_total{reason="idle"}', "ingest_clock_steps_total"),
)

JUMPING = """
    import time

    real = time.time
    begun = time.monotonic()
    time.time = lambda: real() + DAYS * 86_400 * int((time.monotonic() - begun) * 10)
"""
"""A wall clock for every module of a process, Twisted's and ours: it jumps ten times a second."""


class JumpTests(SynchronousTestCase):
    def run_schedule(self, wall: Callable[[], float]) -> tuple[Any, ...]:
        """Let peers send, fall silent, and drip; give all that can be seen of it."""
        rig = Rig(idle_timeout_seconds=10.0, idle_until_first_record=False)
        rig.factory.wall_time = wall
        seen: list[object] = []
        speaker, silent, slow = (rig.connect(port=port) for port in (1, 2, 3))
        for number in range(60):
            speaker.peer_sends(b"line %d\n" % number)
            slow.peer_sends(b"x")
            for transport in (speaker, silent, slow):
                transport.pump()
            rig.turn(1)
            seen.append((speaker.connected, silent.connected, slow.connected))
        self.stamps = [batch.received_at for batch in rig.sink.batches]
        return seen, rig.sink.records, rig.factory.ledger.snapshot()

    def test_nothing_but_stamps(self) -> None:
        """Deadlines, order and accounts are those of a steady clock; only the stamps differ."""
        jumps: Iterator[float] = cycle([1e9, 0.0, 5e8, -1e9, 4e9])
        steady = self.run_schedule(lambda: 1e9)
        stamps = self.stamps
        self.assertEqual(self.run_schedule(lambda: next(jumps)), steady)
        self.assertNotEqual(self.stamps, stamps)
        self.assertIn((True, False, True), steady[0])

    def test_forwards(self) -> None:
        """In a process whose wall clock jumps ahead by days a speaking peer stays, a silent one is closed."""
        JUMPS.measured(f"a day ahead every 0.1 s: {self.run_process(days=1)} lines in order, the silent peer closed")

    def test_backwards(self) -> None:
        """With a wall clock that falls back by days no timer stands still, and lines arrive."""
        JUMPS.measured(f"a day back every 0.1 s: {self.run_process(days=-1)} lines in order, the silent peer closed")

    def run_process(self, days: int) -> int:
        """Let one peer speak and another be silent until that one is closed; give how many lines arrived."""
        folder = self.mktemp()
        os.makedirs(folder)
        with open(os.path.join(folder, "sitecustomize.py"), "w") as module:
            module.write(textwrap.dedent(JUMPING).replace("DAYS", str(days)))
        path = os.pathsep.join(filter(None, [os.path.abspath(folder), os.environ.get("PYTHONPATH")]))
        server = Server("--idle-timeout", "2s", prefix=("env", f"PYTHONPATH={path}"))
        self.addCleanup(server.kill)
        server.wait_ready()
        lines: list[bytes] = []
        closed = "ingest_connections_closed_total[idle]"
        with server.connect() as speaker, server.connect():
            # Until the silent one is gone: longer than its timeout, so that the speaker's would have run out too.
            for _ in range(400):
                if server.metrics()[closed]:
                    break
                lines.append(b"line %d" % len(lines))
                speaker.sendall(lines[-1] + b"\n")
                threading.Event().wait(0.05)
            metrics = server.metrics()
            self.assertEqual((metrics[closed], metrics["ingest_connections_open"]), (1, 1))
            direction, other = ("forward", "backward") if days > 0 else ("backward", "forward")
            page = server.get("metrics")
            self.assertRegex(page, rf"ingest_clock_steps_total\{{direction=\"{direction}\"\}} [1-9]")
            self.assertIn(f'ingest_clock_steps_total{{direction="{other}"}} 0.0', page)
            speaker.sendall(b"end\n")
            wait_until(lambda: server.output().endswith(b"end\n"), "the last line")
        self.assertEqual(server.output().splitlines(), [*lines, b"end"])
        self.assertEqual(server.metrics()["ingest_conservation_error"], 0)
        return len(lines) + 1


class SteadyTimeTests(SynchronousTestCase):
    def test_what_is_scheduled_moves_along(self) -> None:
        """A call scheduled by the wall clock is as far ahead by the steady one, however often it is asked."""
        reactor = SelectReactor()
        self.addCleanup(lambda: [waker.connectionLost(Failure(ConnectionDone())) for waker in reactor._internalReaders])
        call = reactor.callLater(100, self.fail)
        for _ in range(2):
            take_steady_time(reactor)
            self.assertApproximates(call.getTime() - time.monotonic(), 100, 50)
            self.assertIs(reactor.seconds, time.monotonic)
        call.reset(10)
        self.assertApproximates(call.getTime() - time.monotonic(), 10, 5)
