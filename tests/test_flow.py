"""Watermark, budget, lane and intake: pauses alternate, nothing is lost, charges come back."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_ingest.batch import Batch, ConnectionInfo, Group
from twisted_ingest.errors import DropReason, PauseReason, SinkError
from twisted_ingest.flow.answers import AnsweringLane
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.intake import Intake
from twisted_ingest.flow.lane import Lane
from twisted_ingest.flow.watermark import Watermark
from twisted_ingest.interfaces import IAnsweringProducer, IBatchConsumer, IBatchProducer, ISink
from twisted_ingest.limits import (
    BATCH_OVERHEAD,
    CROWDED_MEMORY,
    GATHER_BYTES,
    GROUP_OVERHEAD,
    KIB,
    MIB,
    READ_SIZE,
    RESUME_PER_TURN,
    WHOLE_READ,
)
from twisted_ingest.rejected import Refusal, Rejected
from twisted_ingest.sinks.null import NullSink
from twisted_ingest.testing import FlakySink, MemorySink, StalledSink

INFO = ConnectionInfo(1, "test", "192.0.2.1:1", "192.0.2.1")


@implementer(IBatchProducer)
class Producer:
    """Notes what its lane tells it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.paused = False
        self.lane: Lane | None = None

    def pauseProducing(self) -> None:
        """Pause; twice in a row is a mistake of the lane's."""
        if self.paused:
            raise AssertionError("paused twice")
        self.paused = True
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        """Resume; without a pause before it is a mistake of the lane's."""
        if not self.paused:
            raise AssertionError("resumed without a pause")
        self.paused = False
        self.calls.append("resume")

    def stopProducing(self) -> None:
        """Stop."""

    def fail(self, where: str) -> None:
        """Note that it raised."""
        self.calls.append(f"fail: {where}")

    def evict_partial(self) -> None:
        """Give up the partial."""
        self.calls.append("evict")
        if self.lane is not None:
            self.lane.hold(0, 0.0)


def batch(size: int, count: int = 1, info: ConnectionInfo = INFO) -> Batch:
    """Make a batch of ``size`` bytes."""
    return Batch(b"x" * (size - 1) + b"\n", count, info, 0.0)


class _Answering(MemorySink):
    """Gives the answers it was made with, whatever they are."""

    def __init__(self, answers: list[Any]) -> None:
        super().__init__("answering")
        self._answers = list(answers)

    def deliver(self, group: Group) -> Any:
        return self._answers.pop(0)


class TurnClock(Clock):
    """A clock that can run one reactor turn: what is due now, without what that schedules for the next."""

    def turn(self) -> None:
        """Run one turn."""
        for call in [call for call in self.calls if call.getTime() <= self.seconds()]:
            self.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)


class WatermarkTests(SynchronousTestCase):
    @given(st.integers(0, 50), st.integers(0, 50), st.lists(st.integers(0, 120)))
    def test_alternates(self, low: int, more: int, levels: list[int]) -> None:
        """It turns high strictly above the high mark and low at or below the low one, and changes alternate."""
        mark = Watermark(low + more, low)
        state = False
        for level in levels:
            expected = level > low + more if not state else level > low
            self.assertEqual(mark.update(level), expected != state)
            state = expected
            self.assertEqual(mark.is_high, state)

    def test_order_of_marks(self) -> None:
        """Marks out of order are refused."""
        self.assertRaises(ValueError, Watermark, 1, 2)
        self.assertRaises(ValueError, Watermark, 1, -1)


class FlowCase(SynchronousTestCase):
    """An intake on a clock."""

    def intake(self, *sinks: Any, memory: int = MIB, connection: int = 256 * KIB, required: bool = True) -> Intake:
        self.clock = TurnClock()
        intake = Intake(self.clock, Budget(memory), connection)
        for sink in sinks:
            intake.add_sink(sink, required=required)
        return intake

    def lane(self, intake: Intake) -> tuple[Lane, Producer]:
        lane, producer = intake.open_lane(intake.route()), Producer()
        lane.registerProducer(producer, True)
        return lane, producer

    def turn(self) -> None:
        self.clock.advance(0)


class LaneTests(FlowCase):
    def test_interfaces(self) -> None:
        """Lanes, producers and the sinks we ship provide what they say."""
        lane, producer = self.lane(self.intake(MemorySink()))
        self.assertTrue(verifyObject(IBatchConsumer, lane))
        self.assertTrue(verifyObject(IBatchProducer, producer))
        for sink in (MemorySink(), StalledSink(), FlakySink(2), NullSink("null")):
            self.assertTrue(verifyObject(ISink, sink))

    def test_one_push_producer(self) -> None:
        """A second producer and a pull producer are refused."""
        lane, producer = self.lane(self.intake(MemorySink()))
        self.assertRaises(RuntimeError, lane.registerProducer, producer, True)
        intake = self.intake(MemorySink())
        self.assertRaises(RuntimeError, intake.open_lane(intake.route()).registerProducer, producer, False)

    def test_greedy_peer_pauses_alone(self) -> None:
        """A lane at its own limit pauses its producer, and resumes it when half has been taken."""
        sink = StalledSink()
        intake = self.intake(sink, memory=64 * MIB)
        (greedy, one), (_, other) = self.lane(intake), self.lane(intake)
        for _ in range(4):
            greedy.write(batch(64 * KIB))
        self.assertEqual(one.calls, ["pause"])
        self.assertEqual(other.calls, [])
        self.assertEqual(greedy.pause_reason, "connection")
        self.turn()
        sink.release()
        self.assertEqual(one.calls, ["pause", "resume"])

    def test_partial_alone_never_pauses(self) -> None:
        """A lane whose unfinished record takes all it may hold is still read: nothing else could end it."""
        intake = self.intake(MemorySink(), memory=64 * MIB)
        lane, producer = self.lane(intake)
        lane.hold(256 * KIB, 0.0)
        self.assertEqual(producer.calls, [])
        lane.write(batch(100))
        self.turn()
        self.assertEqual(producer.calls, ["pause", "resume"])

    def test_outlives_its_connection(self) -> None:
        """Batches of a connection that is gone are delivered, and their charge comes back."""
        sink = StalledSink()
        intake = self.intake(sink)
        lane, _ = self.lane(intake)
        lane.hold(500, 0.0)
        lane.write(batch(100))
        lane.unregisterProducer()
        self.turn()
        self.assertEqual(intake.budget.used, 100 + BATCH_OVERHEAD + GROUP_OVERHEAD)
        sink.release()
        self.assertEqual((intake.budget.used, lane.in_flight, len(sink.batches)), (0, 0, 1))

    def test_crowd(self) -> None:
        """While much is held in all a connection may hold less, one that held more already too; it goes on at half."""
        sink = StalledSink()
        intake = self.intake(sink, memory=64 * MIB, connection=4 * MIB)
        self.assertEqual(intake.open_lane(intake.route()).read_size, WHOLE_READ)
        lane, producer = self.lane(intake)
        lane.write(batch(CROWDED_MEMORY + KIB))
        self.assertFalse(producer.paused)
        others = [self.lane(intake) for _ in range(5)]
        for other, _ in others:
            other.write(batch(MIB))
        self.assertEqual([each.paused for _, each in others], [False, False, False, False, True])
        lane.write(batch(KIB))
        self.assertTrue(producer.paused)
        newcomer = self.lane(intake)
        newcomer[0].write(batch(CROWDED_MEMORY - KIB))
        self.assertFalse(newcomer[1].paused)
        intake.flush()
        while sink.waiting:
            sink.release()
        self.assertFalse(any(each.paused for each in (producer, newcomer[1], *(each for _, each in others))))


class IntakeTests(FlowCase):
    def test_one_group_per_turn(self) -> None:
        """What came in one turn goes to the sink in one group, in order."""
        sink = MemorySink()
        intake = self.intake(sink)
        (one, _), (two, _) = self.lane(intake), self.lane(intake)
        sent = [batch(10), batch(20), batch(30)]
        for lane, item in zip((one, two, one), sent, strict=True):
            lane.write(item)
        self.assertEqual(sink.groups, 0)
        self.turn()
        self.assertEqual((sink.groups, [each.size for each in sink.batches]), (1, [10, 20, 30]))

    def test_gathers_for_dear_sinks(self) -> None:
        """For a sink that wants groups, batches of several turns are gathered, for milliseconds or half a mebibyte."""
        sink = MemorySink()
        sink.wants_groups = True
        intake = self.intake(sink, memory=64 * MIB, connection=8 * MIB)
        lane, _ = self.lane(intake)
        lane.write(batch(10))
        self.turn()
        self.assertEqual(sink.groups, 0)
        self.clock.advance(0.002)
        self.assertEqual(sink.groups, 1)
        for _ in range(GATHER_BYTES // READ_SIZE):
            lane.write(batch(READ_SIZE))
        self.assertEqual(sink.groups, 2)

    def test_paused_lane_is_not_kept_waiting(self) -> None:
        """A batch that pauses its lane goes on in this turn: nothing more can gather behind it."""
        sink = StalledSink()
        sink.wants_groups = True
        intake = self.intake(sink, memory=64 * MIB)
        (lane, producer), (other, _) = self.lane(intake), self.lane(intake)
        other.write(batch(10))
        lane.write(batch(250 * KIB))
        self.turn()
        self.assertEqual((producer.paused, len(sink.waiting)), (True, 1))

    def test_many_batches_of_one_chunk(self) -> None:
        """However many batches one chunk makes, its lane paused or not, they are one group: a group is dear."""
        sink = StalledSink()
        intake = self.intake(sink)
        lane, producer = self.lane(intake)
        for _ in range(1000):
            lane.write(batch(3))
        self.assertTrue(producer.paused)
        self.turn()
        self.assertEqual(len(sink.waiting), 1)

    def test_budget_pauses_everybody(self) -> None:
        """Above 80 % every producer pauses, newcomers too; at 50 % they resume, longest paused first, a few a turn."""
        sink = StalledSink()
        intake = self.intake(sink)
        lanes = [self.lane(intake) for _ in range(RESUME_PER_TURN + 10)]
        heard: list[str] = []
        intake.on_high, intake.on_low = lambda: heard.append("high"), lambda: heard.append("low")
        step = 50 * KIB
        for lane, _ in lanes:
            if intake.budget.used + step > intake.budget.mark.high:
                break
            lane.write(batch(step))
        self.assertFalse(any(producer.paused for _, producer in lanes))
        lanes[0][0].write(batch(step))
        self.assertTrue(all(producer.paused for _, producer in lanes))
        late = self.lane(intake)[1]
        self.assertTrue(late.paused)
        intake.flush()
        sink.release()
        self.assertTrue(late.paused)
        self.clock.turn()
        self.assertEqual(sum(not producer.paused for _, producer in lanes), RESUME_PER_TURN)
        self.turn()
        self.assertFalse(late.paused)
        self.assertEqual(heard, ["high", "low"])
        self.assertEqual(intake.pauses.total, 0)

    def test_oldest_partial_is_evicted(self) -> None:
        """Unfinished records above a quarter of the budget cost the oldest of them, not the newest."""
        intake = self.intake(MemorySink())
        lanes = [self.lane(intake) for _ in range(6)]
        for age, (lane, producer) in enumerate(lanes):
            producer.lane = lane
            lane.hold((40 if age else 100) * KIB, float(age))
        evicted = [producer for _, producer in lanes if "evict" in producer.calls]
        self.assertEqual(evicted, [lanes[0][1]])
        self.assertLessEqual(intake.budget.partials, intake.budget.partials_limit)

    def test_required_sinks_settle(self) -> None:
        """A lane is settled when every required sink has taken its batch, not before."""
        one, two = StalledSink("one"), StalledSink("two")
        intake = self.intake(one, two)
        lane, _ = self.lane(intake)
        lane.write(batch(100))
        self.turn()
        one.release()
        self.assertGreater(lane.in_flight, 0)
        two.release()
        self.assertEqual((lane.in_flight, intake.budget.used), (0, 0))

    def test_optional_sink_overflows_alone(self) -> None:
        """A sink that is not required loses what its bounded queue cannot hold, counted, and holds nobody up."""
        slow, good = StalledSink("slow"), MemorySink("good")
        intake = self.intake(good)
        outlet = intake.add_sink(slow, required=False)
        lane, producer = self.lane(intake)
        for _ in range(40):
            lane.write(batch(10 * KIB))
            self.turn()
        self.assertEqual(len(good.batches), 40)
        self.assertEqual(producer.calls, [])
        self.assertEqual(len(slow.waiting) + outlet.tally("test").records_dropped[DropReason.OVERFLOW], 40)
        self.assertLessEqual(intake.budget.used, MIB // 8)
        slow.release()
        self.assertEqual(intake.budget.used, 0)

    def test_final_failure_is_counted(self) -> None:
        """Records a sink rejects are dropped under that reason and told, and the budget is released."""
        intake = self.intake(FlakySink(2))
        failed: list[object] = []
        intake.on_rejected = lambda sink, rejected: failed.append((sink, rejected.count, str(rejected)))
        lane, _ = self.lane(intake)
        for _ in range(4):
            lane.write(batch(10, count=3))
            self.turn()
        tally = intake.outlets[0].tally("test")
        self.assertEqual((tally.records_delivered, tally.records_dropped[DropReason.REJECTED]), (6, 6))
        self.assertEqual(failed, [("flaky", 3, f"sink flaky rejects call {call}") for call in (2, 4)])
        self.assertEqual(intake.budget.used, 0)

    def test_some_records_are_rejected(self) -> None:
        """What a sink names is counted as rejected by listener, once; the rest of the group is delivered."""
        other = ConnectionInfo(2, "other", "192.0.2.2:1", "192.0.2.2")
        one, two, three = Batch(b"a\nbbb\nc\n", 3, INFO, 0.0), batch(10, 2, other), batch(5)
        refusals = [Refusal(one, [1], "too large"), Refusal(one, (1, 2), "odd"), Refusal(two, None, "odd")]
        intake = self.intake(_Answering([succeed(Rejected(refusals))]))
        said: list[object] = []
        intake.on_rejected = lambda sink, rejected: said.append((sink, rejected.count, str(rejected)))
        lane, _ = self.lane(intake)
        for each in (one, two, three):
            lane.write(each)
        self.turn()
        tally, others = intake.outlets[0].tally("test"), intake.outlets[0].tally("other")
        self.assertEqual((tally.records_delivered, tally.bytes_delivered), (2, 7))
        self.assertEqual((others.records_delivered, others.bytes_delivered), (0, 0))
        rejected = [each.records_dropped[DropReason.REJECTED] for each in (tally, others)]
        self.assertEqual((rejected, said), ([2, 2], [("answering", 4, "odd; too large")]))
        self.assertEqual((intake.budget.used, lane.in_flight), (0, 0))

    def test_rejected_is_answered(self) -> None:
        """A sender that waits is answered for rejected records too: it would bring them for ever."""
        for is_rejected, heard in ((True, "settled 1"), (False, "refused")):
            sink = StalledSink()
            intake, producer = self.intake(sink), AnsweringProducer()
            lane = intake.open_answering_lane(intake.route())
            lane.registerProducer(producer, True)
            lane.write(batch(10))
            self.turn()
            group, done = sink.waiting.popleft()
            done.callback(Rejected.whole(group, "never") if is_rejected else Failure(SinkError("gone")))
            self.assertEqual(producer.calls, [heard])

    def test_a_rejection_of_what_is_not_there(self) -> None:
        """An answer that rejects another's batch, or a record that is not in its batch, is a bug: the group is lost."""
        mine = batch(10)
        odd: list[Any] = [Refusal(batch(10), None, "x"), Refusal(mine, [1], "x"), Refusal(mine, [-1], "x"), (mine,)]
        for refusal in (*odd, Refusal(mine, ["0"], "x")):  # type: ignore[list-item]
            intake = self.intake(_Answering([succeed(Rejected([refusal]))]))
            said: list[str] = []
            intake.on_bug = lambda where, failure, said=said: said.append(where)  # type: ignore[misc]
            lane, _ = self.lane(intake)
            lane.write(mine)
            self.turn()
            tally = intake.outlets[0].tally("test")
            self.assertEqual((tally.records_delivered, tally.records_dropped[DropReason.SINK_FAILED]), (0, 1))
            self.assertEqual((said, intake.budget.used), (["sink answering"], 0))

    def test_many_reasons(self) -> None:
        """The text for our log names the commonest reasons, none at full length."""
        refusals = [Refusal(batch(10), None, f"{number}" * 1000) for number in (1, 2, 2, 3, 4, 2)]
        self.assertEqual(str(Rejected(refusals)), "; ".join(n * 120 for n in "213") + "; and other reasons")

    def test_any_answer(self) -> None:
        """A coroutine and a future are answers; what is neither they nor a Deferred loses its group, named, at once."""

        async def wait(for_it: "Deferred[None]") -> None:
            await for_it

        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        gate: Deferred[None] = Deferred()
        future = loop.create_future()
        answers = [wait(gate), future, None, True, (_ for _ in ()), succeed("anything")]
        sink = _Answering(answers)
        intake, said = self.intake(sink), []
        intake.on_bug = lambda where, failure: said.append((where, failure.getErrorMessage()))
        lane, _ = self.lane(intake)
        for _ in range(len(answers)):
            lane.write(batch(10))
            self.turn()
        tally, outlet = intake.outlets[0].tally("test"), intake.outlets[0]
        self.assertEqual((tally.records_delivered, tally.records_dropped[DropReason.SINK_FAILED]), (1, 3))
        self.assertEqual((len(outlet.outstanding), lane.in_flight > 0), (2, True))
        for (where, text), kind in zip(said, ("NoneType", "bool", "generator"), strict=True):
            self.assertEqual(where, "sink answering")
            self.assertIn(f"deliver of sink answering returned {kind}: let it return a Deferred", text)
        gate.callback(None)
        future.set_result(None)
        loop.run_until_complete(future)
        self.assertEqual((tally.records_delivered, intake.budget.used), (3, 0))

    def test_a_coroutine_that_raises(self) -> None:
        """A coroutine's error is the group's, now or later, and of the kind that it is."""

        async def refuse(error: Exception, gate: "Deferred[None]") -> None:
            await gate
            raise error

        gate: Deferred[None] = Deferred()
        errors = [SinkError("for good"), ValueError("a bug")]
        intake = self.intake(_Answering([refuse(error, gate) for error in errors]))
        said: list[str] = []
        intake.on_sink_failed = lambda outlet: said.append("failed")
        intake.on_bug = lambda where, failure: said.append(f"{where}: {failure.getErrorMessage()}")
        lane, _ = self.lane(intake)
        for _ in errors:
            lane.write(batch(10, count=2))
            self.turn()
        gate.callback(None)
        self.assertEqual(said, ["failed", "sink answering: a bug"])
        dropped = intake.outlets[0].tally("test").records_dropped
        self.assertEqual((dropped[DropReason.SINK_FAILED], dropped[DropReason.REJECTED]), (4, 0))
        self.assertEqual(intake.budget.used, 0)

    def test_a_deferred_for_two_groups(self) -> None:
        """A Deferred given again is no answer: the second group would count as taken though the first one failed."""
        shared: Deferred[None] = Deferred()
        intake, said = self.intake(_Answering([shared, shared])), []
        intake.on_bug = lambda where, failure: said.append(failure.getErrorMessage())
        lane, _ = self.lane(intake)
        for _ in range(2):
            lane.write(batch(10))
            self.turn()
        self.assertEqual(said, ["deliver of sink answering returned a Deferred again: each group needs one of its own"])
        shared.errback(SinkError("no"))
        tally = intake.outlets[0].tally("test")
        self.assertEqual((tally.records_delivered, tally.records_dropped[DropReason.SINK_FAILED]), (0, 2))
        self.assertEqual(intake.budget.used, 0)

    def test_abandon(self) -> None:
        """What no sink has taken at shutdown is dropped and counted; a late answer changes nothing."""
        sink = StalledSink()
        intake = self.intake(sink)
        lane, _ = self.lane(intake)
        lane.write(batch(10, count=2))
        intake.abandon()
        tally = intake.outlets[0].tally("test")
        self.assertEqual(tally.records_dropped[DropReason.SHUTDOWN], 2)
        self.assertEqual((intake.budget.used, self.clock.getDelayedCalls()), (0, []))
        sink.release()
        self.assertEqual(tally.records_delivered, 0)

    def test_without_a_taker(self) -> None:
        """Where no sink admits a group its records are counted as lost, and its charge comes back."""
        intake = self.intake(memory=64 * KIB)
        outlet = intake.add_sink(StalledSink(), required=False)
        lane, _ = self.lane(intake)
        lane.write(batch(20 * KIB))
        self.turn()
        self.assertEqual(outlet.tally("test").records_dropped[DropReason.OVERFLOW], 1)
        self.assertEqual((intake.budget.used, lane.in_flight), (0, 0))

    def test_nobody_required(self) -> None:
        """Where no sink's answer is waited for, a lane is settled at once; bytes stay charged while one holds them."""
        sink = StalledSink()
        intake = self.intake(sink, required=False)
        lane, _ = self.lane(intake)
        lane.write(batch(100))
        self.turn()
        self.assertEqual(lane.in_flight, 0)
        self.assertGreater(intake.budget.used, 0)
        sink.release()
        self.assertEqual(intake.budget.used, 0)

    def test_groups_alone_can_use_up_the_budget(self) -> None:
        """What a group costs counts towards the mark, too; the resume waits while it is high."""
        sink = StalledSink()
        intake = self.intake(sink, memory=100 * KIB, connection=90 * KIB + READ_SIZE)
        lane, producer = self.lane(intake)
        while not producer.paused:
            lane.write(batch(2))
            self.turn()
        self.assertGreater(intake.budget.used, intake.budget.mark.high)
        self.assertLess(len(sink.waiting), 40)
        sink.release()
        intake.hold(90 * KIB)
        self.turn()
        self.assertTrue(producer.paused)
        intake.hold(-90 * KIB)
        self.turn()
        self.assertFalse(producer.paused)

    def test_error_of_ours_on_the_way_back(self) -> None:
        """An exception while a group is settled is logged, not swallowed by its Deferred."""
        sink = StalledSink()
        intake = self.intake(sink)
        lane, _ = self.lane(intake)
        lane.write(batch(10))
        self.turn()
        intake.route()._settle = None  # type: ignore[method-assign,assignment]
        sink.release()
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_idle_without_an_answer(self) -> None:
        """Who waits for idleness hears of it too where the last group has no taker."""
        stalled, tail = StalledSink("stalled"), StalledSink("tail")
        intake = self.intake(stalled, memory=64 * KIB)
        _ = intake.add_sink(tail, required=False, share=0.01)
        lanes = [intake.open_lane(intake.route([name])) for name in ("stalled", "tail")]
        lanes[0].write(batch(10))
        idle = intake.when_idle()
        lanes[1].write(batch(2 * KIB))
        stalled.release()
        self.assertNoResult(idle)
        self.turn()
        self.assertIsNone(self.successResultOf(idle))

    def test_when_idle(self) -> None:
        """The Deferred of ``when_idle`` fires once every sink has answered for everything gathered."""
        sink = StalledSink()
        intake = self.intake(sink)
        self.assertIsNone(self.successResultOf(intake.when_idle()))
        lane, _ = self.lane(intake)
        lane.write(batch(10))
        idle = intake.when_idle()
        self.assertNoResult(idle)
        sink.release()
        self.assertIsNone(self.successResultOf(idle))


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 4), st.integers(1, 100 * KIB)),
        st.tuples(st.just("hold"), st.integers(0, 4), st.integers(0, 60 * KIB)),
        st.tuples(st.sampled_from(["turn", "release", "fail", "release one"]), st.just(0), st.just(0)),
        st.tuples(st.just("leave"), st.integers(0, 4), st.just(0)),
    ),
    max_size=60,
)


class FlowPropertyTests(FlowCase):
    @settings(max_examples=150, deadline=None)
    @given(ACTIONS)
    def test_any_interleaving(self, actions: list[tuple[str, int, int]]) -> None:
        """Whatever the order of things, charges equal what is alive, and in the end all is answered for and reading."""
        sink, optional = StalledSink(), StalledSink("optional")
        intake = self.intake(sink, memory=512 * KIB)
        intake.add_sink(optional, required=False)
        lanes = [self.lane(intake) for _ in range(5)]
        sent: list[Batch] = []
        for action, which, size in actions:
            lane, producer = lanes[which]
            if action == "write" and not producer.paused and lane.producer:
                sent.append(batch(size + 1))
                sent[-1].received_at = len(sent)
                lane.write(sent[-1])
            elif action == "hold" and lane.producer:
                lane.hold(size, self.clock.seconds())
            elif action == "leave" and lane.producer:
                lane.unregisterProducer()
            elif action == "turn":
                self.clock.advance(0.001)
            elif action == "fail" and sink.waiting:
                sink.fail()
            elif action.startswith("release"):
                sink.release(1 if action == "release one" else None)
                optional.release(1)
            self.check(intake, [lane for lane, _ in lanes])
        self.settle(intake, sink, optional)
        tally = intake.outlets[0].tally("test")
        self.assertEqual(tally.records_delivered + tally.records_dropped[DropReason.SINK_FAILED], len(sent))
        taken = [b.received_at for b in sink.batches]
        self.assertEqual((sorted(set(taken)), len(sent) >= len(taken)), (taken, True))
        self.assertFalse(any(producer.paused for lane, producer in lanes if lane.producer))

    def check(self, intake: Intake, lanes: list[Lane]) -> None:
        alive = {id(b): b for outlet in intake.outlets for group in outlet.outstanding for b in group.batches}
        alive.update({id(b): b for b in intake.route().pending})
        groups = {id(group) for outlet in intake.outlets for group in outlet.outstanding}
        charged = sum(b.size + BATCH_OVERHEAD for b in alive.values()) + sum(lane.held for lane in lanes)
        charged += len(groups) * GROUP_OVERHEAD
        self.assertEqual(intake.budget.used, charged)
        self.assertEqual(intake.budget.partials, sum(lane.held for lane in lanes))
        self.assertEqual(intake.pauses.total, sum(lane.is_paused for lane in lanes))

    def settle(self, intake: Intake, *sinks: StalledSink) -> None:
        for _ in range(10):
            self.clock.advance(0.01)
            for sink in sinks:
                sink.release()
        for _ in range(3):
            self.turn()
        self.assertTrue(intake.is_idle)


@implementer(IAnsweringProducer)
class AnsweringProducer(Producer):
    """Notes too what became of its batches."""

    def settled(self, count: int) -> None:
        """Note."""
        self.calls.append(f"settled {count}")

    def refused(self) -> None:
        """Note."""
        self.calls.append("refused")


class AnsweringLaneTests(FlowCase):
    def answering(self, intake: Intake) -> tuple[AnsweringLane, AnsweringProducer]:
        lane, producer = intake.open_answering_lane(intake.route()), AnsweringProducer()
        lane.registerProducer(producer, True)
        return lane, producer

    def write(self, lane: Lane) -> None:
        """Write a batch that makes a group of its own."""
        lane.write(batch(10))
        self.turn()

    def test_told_per_group(self) -> None:
        """What a group held of a lane is told at once, the intake's other lanes hear nothing of it."""
        sink = StalledSink()
        intake = self.intake(sink)
        (one, first), (other, second) = self.answering(intake), self.answering(intake)
        one.write(batch(10))
        one.write(batch(20))
        other.write(batch(30))
        self.turn()
        sink.release()
        self.assertEqual((first.calls, second.calls), (["settled 2"], ["settled 1"]))

    def test_order(self) -> None:
        """Groups that sinks take out of order are told in order."""
        sink = StalledSink()
        lane, producer = self.answering(self.intake(sink))
        for _ in range(3):
            self.write(lane)
        deferreds = [done for _, done in sink.waiting]
        deferreds[2].callback(None)
        deferreds[0].callback(None)
        self.assertEqual(producer.calls, ["settled 1"])
        deferreds[1].callback(None)
        self.assertEqual(producer.calls, ["settled 1", "settled 2"])

    def test_refused(self) -> None:
        """A refused batch is told, and no batch behind it, whenever it was taken."""
        sink = StalledSink()
        lane, producer = self.answering(self.intake(sink))
        for _ in range(3):
            self.write(lane)
        deferreds = [done for _, done in sink.waiting]
        deferreds[1].errback(SinkError("no"))
        deferreds[2].callback(None)
        self.assertEqual(producer.calls, [])
        deferreds[0].callback(None)
        self.assertEqual(producer.calls, ["settled 1", "refused"])
        self.assertEqual(lane.in_flight, 0)

    def test_gone(self) -> None:
        """A lane whose producer is gone settles its batches in silence."""
        sink = StalledSink()
        lane, producer = self.answering(self.intake(sink))
        self.write(lane)
        lane.unregisterProducer()
        sink.release()
        self.assertEqual((producer.calls, lane.in_flight), ([], 0))

    def test_withheld(self) -> None:
        """A producer can have itself paused; the budget's reasons come first."""
        lane, producer = self.answering(self.intake(MemorySink()))
        lane.withhold(True)
        lane.withhold(True)
        self.assertIs(lane.pause_reason, PauseReason.ANSWERS)
        lane.withhold(False)
        self.assertEqual(producer.calls, ["pause", "resume"])

    def test_no_gathering_for_who_waits(self) -> None:
        """A batch that somebody waits for goes out this turn, also where a sink wants groups."""
        sink = StalledSink()
        sink.wants_groups = True
        intake = self.intake(sink)
        self.write(self.answering(intake)[0])
        self.assertEqual(len(sink.waiting), 1)
        self.lane(intake)[0].write(batch(10))
        self.turn()
        self.assertEqual(len(sink.waiting), 1)
        self.clock.advance(1)
        self.assertEqual(len(sink.waiting), 2)
