"""The sink behind a spool: not there at the start, in trouble with itself. The spool takes all the same."""

import threading
from typing import Any

from tests.spooling import make_batch
from tests.test_spool_flow import SpoolCase
from twisted_ingest.errors import MisconfiguredError, SinkError
from twisted_ingest.observe.events import Events
from twisted_ingest.spool import target
from twisted_ingest.spool.behind import START_SECONDS
from twisted_ingest.spool.sink import SpoolSink
from twisted_ingest.testing import MemorySink


class Late(MemorySink):
    """Raises these as it is started, one after the other, and then starts. What it is not started for is a mistake."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__("late")
        self.errors = list(errors)
        self.events: list[str] = []
        self.is_started = False

    def start(self) -> None:
        self.events.append("start")
        if self.errors:
            raise self.errors.pop(0)
        self.is_started = True

    def deliver(self, group: Any) -> Any:
        assert self.is_started
        return super().deliver(group)

    def reopen(self) -> None:
        assert self.is_started
        super().reopen()

    def close(self) -> Any:
        assert self.is_started
        self.events.append("close")
        return super().close()


def not_yet(times: int = 1, reason: str = "no disk") -> list[SinkError]:
    """Give so many errors that pass."""
    return [SinkError(f"sink late: {reason}") for _ in range(times)]


class LateTests(SpoolCase):
    def late(self, inner: Late, **options: Any) -> SpoolSink:
        """Start a spool in front of it; what it logs is kept."""
        self.log: list[str] = []
        sink = self.make(inner, **options)
        sink._events.subscribe(lambda fact: self.log.append(fact.message))
        return sink

    def test_taken_meanwhile(self) -> None:
        """A sink that cannot start yet is named, records are taken for it, and brought in order once it has started."""
        inner = Late(*not_yet(3))
        sink = self.late(inner)
        self.assertEqual((sink.details()["spool_replaying"], sink.trouble), (0, None))
        wanted = "which keeps what comes (cannot start: no disk; trying again, its spool takes records meanwhile)"
        self.assertIn(wanted, sink.describe())
        self.take(sink, make_batch(1))
        self.take(sink, make_batch(2))
        self.assertEqual(sink.details()["spool_waiting_records"], 2)
        for wait in (1, 2, 4):
            self.assertEqual(inner.is_started, False)
            self.reactor.advance(wait)
        self.assertEqual(inner.events, ["start"] * 4)
        self.assertTrue(self.log[-1].startswith("sink late: started behind its spool"), self.log)
        self.reactor.run_until(lambda: len(inner.batches) == 2)
        self.assertEqual(inner.records, [b"1.0:", b"2.0:"])
        self.assertEqual(sink.details()["spool_replaying"], 1)
        self.assertNotIn("cannot start", sink.describe())
        self.assertEqual(sink._events.internal_errors, 0)

    def test_said_once(self) -> None:
        """The log has each reason once, however often a start is tried; the waits grow to their longest and stay."""
        inner = Late(*not_yet(20), *not_yet(20, "no network"))
        self.late(inner)
        waits = []
        for _ in range(30):
            (call,) = self.reactor.getDelayedCalls()
            waits.append(call.getTime() - self.reactor.seconds())
            self.reactor.advance(waits[-1])
        self.assertEqual(waits[:8], [1, 2, 4, 8, 16, 32, 60, 60])
        self.assertEqual(set(waits[6:]), {START_SECONDS[1]})
        self.assertEqual(len([line for line in self.log if "cannot start: no network" in line]), 1)

    def test_told_at_the_start(self) -> None:
        """The first failure is in the log with the sink's name."""
        lines: list[tuple[str, str]] = []
        self.patch(Events, "sink_stalled", lambda _, sink, trouble: lines.append((sink, trouble)))
        self.make(Late(*not_yet()))
        self.assertEqual(lines, [("late", "cannot start: no disk; trying again, its spool takes records meanwhile")])

    def test_a_bug_at_the_start(self) -> None:
        """A start that raises something unforeseen is tried again too, and counted each time."""
        inner = Late(ValueError("what?"), ValueError("what?"))
        sink = self.late(inner)
        self.take(sink, make_batch(1))
        self.reactor.advance(1)
        self.reactor.advance(2)
        self.reactor.run_until(lambda: inner.batches)
        self.assertEqual(sink._events.internal_errors, 2)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_a_mistake(self) -> None:
        """What only another configuration can help ends the start, and leaves the directory free; later it waits."""
        with self.assertRaisesRegex(MisconfiguredError, "a directory"):
            self.make(Late(MisconfiguredError("sink late: a directory")))
        inner = Late(*not_yet(), MisconfiguredError("sink late: a directory"))
        sink = self.late(inner)
        self.reactor.advance(1)
        self.assertIn("cannot start: a directory", sink.describe())
        self.reactor.advance(2)
        self.assertTrue(inner.is_started)

    def test_a_stop_before(self) -> None:
        """A stop does not wait for it, nor close what was never opened; what it was to have waits."""
        inner = Late(*not_yet(1000))
        sink = self.late(inner)
        self.take(sink, make_batch(1))
        self.close(sink)
        self.assertEqual((inner.events, self.reactor.getDelayedCalls()), (["start"], []))
        after = MemorySink()
        self.make(after)
        self.reactor.run_until(lambda: after.batches)
        self.assertEqual(after.records, [b"1.0:"])

    def test_a_signal(self) -> None:
        """SIGHUP has it tried at once, and reopens only what was opened."""
        inner = Late(*not_yet(2))
        sink = self.late(inner)
        sink.reopen()
        self.assertEqual((inner.events, inner.is_started), (["start"] * 2, False))
        sink.reopen()
        self.assertEqual((inner.is_started, inner.reopened, self.reactor.getDelayedCalls()), (True, 0, []))
        sink.reopen()
        self.assertEqual(inner.reopened, 1)

    def test_dropping_before(self) -> None:
        """With ``drop-oldest`` a sink that never starts does not hold the senders back either."""
        self.patch(target, "ROOM_SECONDS", 0.01)
        sink = self.late(Late(*not_yet(1000)), max_bytes=4000, drops_oldest=True)
        for number in range(1, 31):
            self.take(sink, make_batch(number, 300))
        details = sink.details()
        self.assertGreater(details["spool_dropped_records"], 0)
        self.assertEqual(details["spool_dropped_records"] + details["spool_waiting_records"], 30)

    def test_no_thread(self) -> None:
        """Where there can be no more threads the start says so and leaves nothing: the next one works."""

        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patched = self.patch(threading.Thread, "start", start)
        inner = Late()
        with self.assertRaisesRegex(SinkError, "no threads for its spool can be started"):
            self.make(inner)
        patched.restore()
        self.make(MemorySink())


class Broken(MemorySink):
    """Raises when it is asked, reopened, closed or abandoned."""

    trouble = property(lambda _: 1 // 0, lambda _, value: None)

    def describe(self) -> str:
        raise ZeroDivisionError

    def details(self) -> dict[str, int]:
        raise ZeroDivisionError

    def close(self) -> Any:
        raise ZeroDivisionError

    def abandon(self) -> None:
        raise ZeroDivisionError


class BrokenTests(SpoolCase):
    def setUp(self) -> None:
        super().setUp()
        self.log: list[str] = []
        self.addCleanup(self.flushLoggedErrors, ZeroDivisionError)

    def make(self, inner: Any, **options: Any) -> SpoolSink:
        """Make a spool in front of a sink, and keep what it tells."""
        sink = super().make(inner, **options)
        sink._events.subscribe(lambda fact: self.log.append(fact.message))
        return sink

    def test_whatever_it_raises(self) -> None:
        """A sink that raises whatever it is asked keeps its spool from nothing: counts, pages, the stop, the lock."""
        inner = Broken("broken")
        sink = self.make(inner)
        self.take(sink, make_batch(1))
        self.reactor.run_until(lambda: inner.batches)
        details = sink.details()
        self.assertEqual((details["spooled_records"], details["spool_replaying"]), (1, 0))
        self.assertIn("through the spool", sink.describe())
        self.close(sink)
        for where in ("trouble", "describe", "details", "close", "abandon"):
            self.assertTrue([line for line in self.log if line.startswith(f"internal error in {where} of sink broken")])
        self.make(MemorySink())

    def test_an_abandon(self) -> None:
        """Nor from being abandoned."""
        sink = self.make(Broken("broken"))
        sink.abandon()
        self.close(sink)
        self.make(MemorySink())
