"""Records that a sink will never take are told of before their group is settled, before a spool and behind one."""

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.spooling import make_batch
from tests.test_flow_leases import INFO, Buffer
from tests.test_spool_flow import SpoolCase
from twisted_ingest.batch import NUL, Batch, ConnectionInfo, Group
from twisted_ingest.errors import DropReason
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.delivery import OnRejected
from twisted_ingest.flow.intake import Intake
from twisted_ingest.limits import MIB
from twisted_ingest.rejected import Refusal, Rejected, RejectedRecord
from twisted_ingest.testing import MemorySink

OTHER = ConnectionInfo(2, "other", "192.0.2.2:1", "192.0.2.2")


class Picky(MemorySink):
    """Takes everything but each second record."""

    def deliver(self, group: Group) -> "Deferred[Any]":
        """Reject records 1, 3, … of each batch."""
        self.keep(group)
        return succeed(Rejected(Refusal(batch, range(1, batch.count, 2), "odd") for batch in group.batches))


class AnswerTests(SynchronousTestCase):
    def test_each_record(self) -> None:
        """Each is given once, with who sent it, when, and the first reason; no delimiter is part of it."""
        one = Buffer(b"a\nb\nc\n").lend(3)
        two = Batch(b"line\nof two\0", 1, OTHER, 8.0, NUL)
        three = Batch(b"taken\n", 1, OTHER, 9.0)
        refusals = [Refusal(two, None, "odd"), Refusal(one, [2, 0], "long"), Refusal(one, (0, 1), "late")]
        rejected = Rejected([*refusals, Refusal(three, [], "none of it")])
        self.assertEqual(
            list(rejected.records()),
            [
                RejectedRecord(b"line\nof two", OTHER, 8.0, "odd"),
                RejectedRecord(b"a", INFO, 7.0, "long"),
                RejectedRecord(b"b", INFO, 7.0, "late"),
                RejectedRecord(b"c", INFO, 7.0, "long"),
            ],
        )
        self.assertEqual((rejected.count, rejected.lost([one, two, three])), (4, [(two, 1, 12), (one, 3, 6)]))


class RouteTests(SynchronousTestCase):
    """Before a sink without a spool."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.intake = Intake(self.clock, Budget(MIB), MIB)
        self.outlet = self.intake.add_sink(Picky("picky"), required=True)
        self.bugs: list[tuple[str, str]] = []
        self.intake.on_bug = lambda where, failure: self.bugs.append((where, str(failure.value)))
        self.buffer = Buffer(b"a\nb\nc\nd\n")

    def bring(self, on_rejected: OnRejected) -> None:
        """Bring a batch of four records."""
        self.intake.on_rejected = on_rejected
        self.lane = self.intake.open_lane(self.intake.route())
        self.lane.write(self.buffer.lend(4))
        self.clock.advance(0)

    def see(self) -> None:
        """See that it is settled: two are taken and two rejected, and nothing is held any more."""
        tally = self.outlet.tally("test")
        self.assertEqual((tally.records_delivered, tally.records_dropped[DropReason.REJECTED]), (2, 2))
        self.assertEqual((self.intake.budget.used, self.lane.in_flight, self.buffer.times_back), (0, 0, 1))
        self.assertTrue(self.intake.is_idle)

    def test_told(self) -> None:
        """Whoever hears of them reads them, although their bytes are lent."""
        told: list[Any] = []
        self.bring(lambda sink, rejected: told.extend((sink, each.record) for each in rejected.records()))
        self.assertEqual(told, [("picky", b"b"), ("picky", b"d")])
        self.see()

    def test_waited_for(self) -> None:
        """Nothing is settled before whoever hears of them is done: a file for them that is full holds senders back."""
        done: Deferred[None] = Deferred()
        told: list[Rejected] = []

        def hear(_: str, rejected: Rejected) -> "Deferred[None]":
            told.append(rejected)
            return done

        self.bring(hear)
        self.assertEqual((self.lane.in_flight > 0, self.buffer.times_back, self.intake.is_idle), (True, 0, False))
        self.assertEqual([each.record for each in told[0].records()], [b"b", b"d"])
        done.callback(None)
        self.see()

    def test_a_bug(self) -> None:
        """What hearing raises, or fails with later, is told as a bug, and costs nothing else."""
        hooks: tuple[OnRejected, ...] = (_raise, lambda *_: fail(RuntimeError("no")))
        for hook in hooks:
            self.setUp()
            self.bring(hook)
            self.assertEqual(self.bugs, [("what sink picky rejects", "no")])
            self.see()

    def test_nothing_is_rejected(self) -> None:
        """An answer that names no record is none to be told of."""
        self.outlet.sink = MemorySink()
        self.outlet.sink.deliver = lambda group: succeed(Rejected([Refusal(group.batches[0], [], "odd")]))  # type: ignore[method-assign]
        told: list[Any] = []
        self.bring(lambda *said: told.append(said))
        self.assertEqual((told, self.bugs, self.outlet.tally("test").records_delivered), ([], [], 4))


def _raise(_sink: str, _rejected: Rejected) -> None:
    raise RuntimeError("no")


class SpoolTests(SpoolCase):
    """Behind a spool: the same hook, told before the position passes."""

    def test_waited_for(self) -> None:
        """The position stays before what is not put aside yet, so that another start would bring it again."""
        done: Deferred[None] = Deferred()
        told: list[Any] = []
        sink = self.make(Picky("picky"))

        def hear(name: str, rejected: Rejected) -> "Deferred[None]":
            told.extend((name, each.record[:4], each.info.listener, each.received_at) for each in rejected.records())
            return done

        sink._behind.on_rejected = hear
        self.take(sink, make_batch(1, 60, records=4))
        self.reactor.run_until(lambda: told)
        batch = make_batch(1, 60, records=4)
        wanted = [record for index, record in enumerate(batch.records()) if index % 2]
        self.assertEqual(told, [("picky", each[:4], batch.info.listener, batch.received_at) for each in wanted])
        self.end(sink)
        self.assertEqual(sink.details()["spool_rejected_records"], 0)
        sink = self.make(Picky("picky"))
        sink._behind.on_rejected = hear
        self.reactor.run_until(lambda: len(told) == 4)
        done.callback(None)
        self.close(sink)
        details = sink.details()
        self.assertEqual((details["replayed_records"], details["spool_rejected_records"]), (2, 2))

    def test_a_bug(self) -> None:
        """What hearing raises is told as a bug; the records are given up, and those behind them come."""
        sink = self.make(Picky("picky"))
        bugs: list[tuple[str, str]] = []
        sink._behind.on_rejected = _raise
        sink._behind.on_bug = lambda where, failure: bugs.append((where, str(failure.value)))
        self.take(sink, make_batch(1, 60, records=4))
        self.take(sink, make_batch(2, 60, records=4))
        self.close(sink)
        self.assertEqual(set(bugs), {("what sink picky rejects", "no")})
        self.assertEqual(sink.details()["spool_rejected_records"], 4)
