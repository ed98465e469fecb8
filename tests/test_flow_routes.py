"""Routes: who gathers with whom, who waits for whom, and accounts that balance whatever sinks make of groups."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.test_flow import AnsweringProducer, Producer
from twisted_ingest.batch import Batch, ConnectionInfo
from twisted_ingest.errors import DropReason, SinkError
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.intake import Intake
from twisted_ingest.flow.lane import Lane
from twisted_ingest.flow.outlet import Outlet
from twisted_ingest.flow.route import Route
from twisted_ingest.limits import BATCH_OVERHEAD, GROUP_OVERHEAD, KIB, MIB
from twisted_ingest.rejected import Refusal, Rejected
from twisted_ingest.testing import MemorySink, StalledSink


def batch(listener: str, number: int, size: int = 20, count: int = 1) -> Batch:
    """Make a batch of ``count`` records."""
    records = [b"%d.%d" % (number, index) for index in range(count)]
    wire = b"".join(record.ljust(size, b"x") + b"\n" for record in records)
    return Batch(wire, count, ConnectionInfo(1, listener, "192.0.2.1:1", "192.0.2.1"), 0.0)


class RouteCase(SynchronousTestCase):
    """An intake with several sinks, which all stall, on a clock."""

    def make(self, *names: str, memory: int = MIB, connection: int = 256 * KIB) -> Intake:
        self.clock = Clock()
        self.sinks = {name: StalledSink(name) for name in names}
        intake = Intake(self.clock, Budget(memory), connection)
        for sink in self.sinks.values():
            intake.add_sink(sink, required=True)
        return intake

    def lane(self, intake: Intake, route: Route) -> tuple[Lane, Producer]:
        lane, producer = intake.open_lane(route), Producer()
        lane.registerProducer(producer, True)
        return lane, producer

    def turn(self) -> None:
        self.clock.advance(0)


class RouteTests(RouteCase):
    def test_one_for_each_pair(self) -> None:
        """The same sinks and the same wish for a sync are one route, in whatever order they are named; others not."""
        intake = self.make("a", "b")
        self.assertIs(intake.route(["a", "b"]), intake.route(["b", "a"]))
        self.assertIs(intake.route(), intake.route(None, needs_sync=False))
        self.assertEqual(len({intake.route(), intake.route(needs_sync=True), intake.route(["a"])}), 3)
        self.assertEqual(len(intake.routes), 4)

    def test_a_sink_that_comes_later(self) -> None:
        """A sink added to the intake belongs to the routes to all sinks and to those that name it, and to no other."""
        intake = self.make("a")
        routes = [intake.route(), intake.route(["late", "a"]), intake.route(["late"]), intake.route(["a"])]
        late = intake.add_sink(MemorySink("late"), required=False)
        self.assertEqual([late in route.outlets for route in routes], [True, True, True, False])

    def test_what_must_be_synced_is_apart(self) -> None:
        """Lines and acknowledged records for one sink are in groups of their own, and only these ask for a sync."""
        intake = self.make("a")
        (lines, _), (frames, _) = (self.lane(intake, intake.route(needs_sync=sync)) for sync in (False, True))
        for number in range(4):
            (lines if number % 2 else frames).write(batch("test", number))
        self.turn()
        groups = [group for group, _ in self.sinks["a"].waiting]
        self.assertEqual([(len(group.batches), group.needs_sync) for group in groups], [(2, True), (2, False)])

    def test_each_to_its_own(self) -> None:
        """A batch goes to the sinks of its route, once to each, in the order of its connection."""
        intake = self.make("a", "b")
        one, _ = self.lane(intake, intake.route(["a"]))
        both, _ = self.lane(intake, intake.route())
        for number in range(6):
            one.write(batch("one", number))
            both.write(batch("both", number))
            if number % 2:
                self.turn()
        for sink in self.sinks.values():
            sink.release()
        expected = [b"%d.0" % number for number in range(6)]
        for name, listeners in (("a", {"one", "both"}), ("b", {"both"})):
            batches = self.sinks[name].batches
            self.assertEqual({each.info.listener for each in batches}, listeners)
            for listener in listeners:
                sent = [each.records()[0].rstrip(b"x") for each in batches if each.info.listener == listener]
                self.assertEqual(sent, expected)

    def test_settled_by_its_own_sinks(self) -> None:
        """An answer waits for the required sinks of its route, and a failure of another is nothing to it."""
        intake = self.make("a", "b")
        producers = []
        for names in (["a"], ["b"], ["a", "b"]):
            lane, producer = intake.open_answering_lane(intake.route(names)), AnsweringProducer()
            lane.registerProducer(producer, True)
            lane.write(batch("test", 1))
            producers.append(producer)
        self.turn()
        self.sinks["a"].release()
        self.assertEqual([producer.calls for producer in producers], [["settled 1"], [], []])
        while self.sinks["b"].waiting:
            self.sinks["b"].fail()
        self.assertEqual([producer.calls for producer in producers], [["settled 1"], ["refused"], ["refused"]])

    def test_a_stalled_sink_holds_back_its_own(self) -> None:
        """A sink that stalls pauses connections of its routes; those of others read on."""
        intake = self.make("stalled", "healthy", connection=160 * KIB)
        (slow, first), (quick, second) = (self.lane(intake, intake.route([name])) for name in self.sinks)
        for number in range(100):
            if not first.paused:
                slow.write(batch("slow", number, 8 * KIB))
            quick.write(batch("quick", number, 8 * KIB))
            self.turn()
            self.sinks["healthy"].release()
        self.assertEqual((first.paused, second.calls, len(self.sinks["healthy"].batches)), (True, [], 100))

    def test_the_budget_is_one(self) -> None:
        """What waits for one stalled sink can use up the budget: everybody pauses then, and resumes later."""
        intake = self.make("stalled", "healthy", memory=256 * KIB)
        slow, _ = self.lane(intake, intake.route(["stalled"]))
        _, bystander = self.lane(intake, intake.route(["healthy"]))
        while not bystander.paused:
            slow.write(batch("slow", 0, 8 * KIB))
            self.turn()
        self.assertGreater(intake.budget.used, intake.budget.mark.high)
        self.sinks["stalled"].release()
        self.turn()
        self.assertEqual((bystander.calls, intake.budget.used), (["pause", "resume"], 0))

    def test_idle_and_abandoned(self) -> None:
        """Idle is when every route is; what is abandoned is counted for each sink, and no timer is left."""
        intake = self.make("a", "b")
        for names in (["a"], ["b"]):
            self.lane(intake, intake.route(names))[0].write(batch(names[0], 1, count=3))
        idle = intake.when_idle()
        self.sinks["a"].release()
        self.assertNoResult(idle)
        intake.abandon()
        self.assertIsNone(self.successResultOf(idle))
        dropped = [each.tally(each.sink.name).records_dropped[DropReason.SHUTDOWN] for each in intake.outlets]
        self.assertEqual((dropped, intake.budget.used, self.clock.getDelayedCalls()), ([0, 3], 0, []))

    def test_no_sink_changes_a_group(self) -> None:
        """What a sink would do to the group that others are handed too raises, and no account loses its balance."""
        intake = self.make("a", "b")
        lane, _ = self.lane(intake, intake.route())
        lane.write(batch("test", 1, count=2))
        self.turn()
        group: Any = self.sinks["a"].waiting[0][0]
        self.assertIs(self.sinks["b"].waiting[0][0], group)
        with self.assertRaises(AttributeError):
            group.batches.clear()
        with self.assertRaises(TypeError):
            group.records["test"] = 0
        for sink in self.sinks.values():
            sink.release()
        tally = intake.outlets[0].tally("test")
        self.assertEqual((tally.records_delivered, lane.in_flight, intake.budget.used), (2, 0, 0))


WAYS: list[tuple[list[str] | None, bool]] = [
    (["a"], False),
    (["b"], False),
    (None, False),
    (None, True),
    (["c"], False),
]
"""Of the listeners of the property: which sinks, and whether synced. Sink ``c`` is not required."""

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, len(WAYS) - 1), st.integers(1, 4)),
        st.tuples(st.sampled_from(["take", "fail", "bug", "reject all"]), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("reject"), st.sampled_from("abc"), st.integers(0, 30)),
        st.tuples(st.just("turn"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


class RoutePropertyTests(RouteCase):
    @settings(max_examples=150, deadline=None)
    @given(ACTIONS)
    def test_any_interleaving(self, actions: list[tuple[str, Any, int]]) -> None:
        """Whatever sinks make of groups, each record is in one account of each sink of its route, and of no other."""
        intake = self.make("a", "b")
        self.sinks["c"] = StalledSink("c")
        intake.add_sink(self.sinks["c"], required=False, share=0.01)
        intake.on_bug = lambda where, failure: None
        self.framed = dict.fromkeys(map(str, range(len(WAYS))), 0)
        lanes = [self.lane(intake, intake.route(names, needs_sync=sync))[0] for names, sync in WAYS]
        for number, (action, which, amount) in enumerate(actions):
            if action == "write":
                self.framed[str(which)] += amount
                lanes[which].write(batch(str(which), number, 500, amount))
            elif action == "turn":
                self.turn()
            elif self.sinks[which].waiting:
                self.answer(self.sinks[which], action, amount)
            self.check(intake)
        for _ in range(3):
            self.turn()
            for sink in self.sinks.values():
                sink.release()
        self.check(intake)
        self.assertTrue(intake.is_idle)
        self.assertEqual(([lane.in_flight for lane in lanes], intake.budget.used), ([0] * len(lanes), 0))

    def answer(self, sink: StalledSink, action: str, amount: int) -> None:
        """Give the oldest group one of the answers there are."""
        group, done = sink.waiting.popleft()
        answers: dict[str, Any] = {"take": None, "reject all": Rejected.whole(group, "never")}
        answers["reject"] = Rejected(Refusal(each, [amount % each.count], "odd") for each in group.batches[::2])
        if action in answers:
            done.callback(answers[action])
        else:
            done.errback(SinkError("gone") if action == "fail" else ValueError("a bug"))

    def check(self, intake: Intake) -> None:
        for outlet in intake.outlets:
            in_flight = intake.in_flight(outlet)
            for listener, (names, _) in enumerate(WAYS):
                is_its = names is None or outlet.sink.name in names
                framed = self.framed[str(listener)] if is_its else 0
                self.assertEqual(self.accounted(outlet, str(listener)) + in_flight[str(listener)], framed)
        claims = {each for outlet in intake.outlets for each in outlet.outstanding}
        batches = [each for claim in claims for each in claim.batches]
        batches += [each for route in intake.routes for each in route.pending]
        charged = sum(each.size + BATCH_OVERHEAD for each in batches) + len(claims) * GROUP_OVERHEAD
        self.assertEqual(intake.budget.used, charged)

    def accounted(self, outlet: Outlet, listener: str) -> int:
        tally = outlet.tally(listener)
        return tally.records_delivered + sum(tally.records_dropped.values())
