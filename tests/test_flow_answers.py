"""
The accounts of several routes over shared sinks, under schedules that Hypothesis makes up.

Sinks answer at once, late, out of order, for part of a group, with nonsense, or after all was given up. After each
step every record is counted once at each sink of its route, and each charge belongs to something live.
"""

from collections import defaultdict
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twisted_ingest.batch import Batch, ConnectionInfo, Group
from twisted_ingest.errors import DropReason, SinkError
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.intake import Intake
from twisted_ingest.flow.lane import Lane
from twisted_ingest.interfaces import IAnsweringProducer
from twisted_ingest.limits import BATCH_OVERHEAD, GROUP_OVERHEAD, KIB
from twisted_ingest.rejected import Refusal, Rejected
from twisted_ingest.testing import MemorySink

REQUIRED = {"a": True, "b": True, "c": False}
ROUTES: list[tuple[tuple[str, ...] | None, bool]] = [
    *((None, False), (None, True), (("a",), False), (("a",), True), (("b", "c"), False), (("a", "c"), True)),
    (("c",), False),
]
ANSWERS = ["taken", "some", "twice", "whole", "empty", "foreign", "range", "gone", "bug"]
LOST = {"foreign", "range", "gone", "bug"}
"""Answers after which nothing of a group counts as taken."""


def _answer(word: str, group: Group) -> Any:
    """Give what a sink's Deferred fires with."""
    first = group.batches[0]
    refusals = {
        "some": [Refusal(first, [0], "poison")],
        "twice": [Refusal(first, [0], "poison"), Refusal(first, [0, 0], "again"), Refusal(first, (), "none")],
        "whole": list(Rejected.whole(group, "all").refusals),
        "empty": [],
        "foreign": [Refusal(Batch(b"x\n", 1, first.info, 0.0), None, "not of it")],
        "range": [Refusal(first, [0], "poison"), Refusal(first, [first.count], "beyond")],
    }
    match word:
        case "taken":
            return None
        case "gone":
            return Failure(SinkError("gone for good"))
        case "bug":
            return Failure(ValueError("a bug"))
        case _:
            return Rejected(refusals[word])


def _rejected(word: str, group: Group) -> int:
    """Say how many records an answer rejects."""
    return {"some": 1, "twice": 1, "whole": sum(batch.count for batch in group.batches)}.get(word, 0)


class _Sink(MemorySink):
    """Answers at once with ``at_once``, or when it is told to."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.waiting: list[tuple[Group, Deferred[Any]]] = []
        self.at_once: str | None = None
        self.fates: dict[Batch, str] = {}
        self.rejected: dict[str, int] = defaultdict(int)
        self.is_late = False

    def deliver(self, group: Group) -> "Deferred[Any]":
        done: Deferred[Any] = Deferred()
        self.waiting.append((group, done))
        if self.at_once is not None:
            self.answer(len(self.waiting) - 1, self.at_once)
        return done

    def answer(self, which: int, word: str) -> None:
        """Answer one of the groups."""
        group, done = self.waiting.pop(which)
        if not self.is_late:
            for batch in group.batches:
                self.fates[batch] = "lost" if word in LOST else "taken"
            self.rejected[group.batches[0].info.listener] += _rejected(word, group)
        done.callback(_answer(word, group))


@implementer(IAnsweringProducer)
class _Peer:
    """A producer, and what it was told."""

    def __init__(self, lane: Lane, info: ConnectionInfo, sinks: list[_Sink]) -> None:
        self.lane = lane
        self.info = info
        self.sinks = sinks
        self.sent: list[Batch] = []
        self.told = 0
        self.is_refused = False
        self.is_paused = False
        self.echoes = 0
        """Batches that it writes from inside of what it is told."""

    def send(self, count: int) -> None:
        """Write a batch."""
        batch = Batch(b"a record\n" * count, count, self.info, 0.0)
        self.sent.append(batch)
        self.lane.write(batch)

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False

    def stopProducing(self) -> None:
        raise AssertionError

    def settled(self, count: int) -> None:
        self.told += count
        if self.echoes:
            self.echoes -= 1
            self.send(1)

    def refused(self) -> None:
        self.is_refused = True

    def fail(self, where: str) -> None:
        raise AssertionError(where)

    def evict_partial(self) -> None:
        raise AssertionError


class AnswersMachine(RuleBasedStateMachine):
    """Lanes of several routes, sinks that answer anything, time and a stop."""

    @initialize(memory=st.sampled_from([8 * KIB, 64 * KIB, 1024 * KIB]), routes=st.permutations(ROUTES))
    def begin(self, memory: int, routes: list[tuple[tuple[str, ...] | None, bool]]) -> None:
        self.clock = Clock()
        self.intake = Intake(self.clock, Budget(memory), 256 * KIB)
        self.bugs: list[str] = []
        self.intake.on_bug = lambda where, _: self.bugs.append(where)
        self.sinks = {name: _Sink(name) for name in REQUIRED}
        for name, sink in self.sinks.items():
            _ = self.intake.add_sink(sink, required=REQUIRED[name])
        self.peers: list[_Peer] = []
        self.idle: list[Deferred[None]] = []
        for number, (names, needs_sync) in enumerate(routes[:4]):
            route = self.intake.route(names, needs_sync=needs_sync)
            chosen = [self.sinks[outlet.sink.name] for outlet in route.outlets]
            for is_answered in (False, True):
                lane = self.intake.open_answering_lane(route) if is_answered else self.intake.open_lane(route)
                info = ConnectionInfo(len(self.peers), f"listener-{number}", "192.0.2.1:1", None)
                self.peers.append(_Peer(lane, info, chosen))
                lane.registerProducer(self.peers[-1], True)

    @rule(which=st.integers(0, 7), count=st.integers(1, 200), echoes=st.integers(0, 1))
    def send(self, which: int, count: int, echoes: int) -> None:
        peer = self.peers[which]
        if peer.lane.producer is not None and not peer.is_paused:
            peer.echoes = echoes
            peer.send(count)

    @rule(which=st.integers(0, 7), seldom=st.integers(0, 4))
    def leave(self, which: int, seldom: int) -> None:
        peer = self.peers[which]
        if peer.lane.producer is not None and not seldom:
            peer.lane.unregisterProducer()

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.01]))
    def tick(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(name=st.sampled_from("abc"), which=st.integers(0, 3), word=st.sampled_from(ANSWERS))
    def answer(self, name: str, which: int, word: str) -> None:
        sink = self.sinks[name]
        if sink.waiting:
            sink.answer(which % len(sink.waiting), word)

    @rule(name=st.sampled_from("abc"), word=st.sampled_from([None, None, *ANSWERS]))
    def answer_at_once(self, name: str, word: str | None) -> None:
        self.sinks[name].at_once = word

    @rule()
    def wait(self) -> None:
        self.idle.append(self.intake.when_idle())

    @precondition(lambda self: self.intake.outlets)
    @rule(seldom=st.integers(0, 4))
    def abandon(self, seldom: int) -> None:
        """Give up on what sinks have; they may answer yet."""
        if seldom:
            return
        self.flush()
        for outlet in self.intake.outlets:
            sink = self.sinks[outlet.sink.name]
            sink.is_late = True
            for group, _ in sink.waiting:
                for batch in group.batches:
                    sink.fates.setdefault(batch, "lost")
        # What waited before this stays in `waiting` of its sink: answers to it say nothing any more.
        self.intake.abandon()
        for sink in self.sinks.values():
            while sink.waiting:
                sink.answer(0, ANSWERS[len(sink.waiting) % len(ANSWERS)])
            sink.is_late = False
        self.check()
        assert self.intake.is_idle or any(route.pending for route in self.intake.routes)

    def flush(self) -> None:
        """Hand over what was gathered, and what that brings."""
        while any(route.pending for route in self.intake.routes):
            self.intake.flush()

    @invariant()
    def check(self) -> None:
        """Weigh everything."""
        if not hasattr(self, "intake"):
            return
        live = {claims for outlet in self.intake.outlets for claims in outlet.outstanding}
        batches = [batch for claims in live for batch in claims.batches]
        batches += [batch for route in self.intake.routes for batch in route.pending]
        charge = sum(batch.size + BATCH_OVERHEAD for batch in batches) + len(live) * GROUP_OVERHEAD
        assert self.intake.budget.used == charge
        for outlet in self.intake.outlets:
            assert outlet.charge == sum(claims.charge for claims in outlet.outstanding)
            self.weigh(outlet)
        for peer in self.peers:
            self.check_told(peer)

    def weigh(self, outlet: Any) -> None:
        """See that each record of each listener has one outcome at a sink."""
        sink = self.sinks[outlet.sink.name]
        in_flight = self.intake.in_flight(outlet)
        for peers in zip(self.peers[::2], self.peers[1::2], strict=True):
            name = peers[0].info.listener
            tally = outlet.tally(name)
            counted = tally.records_delivered + sum(tally.records_dropped.values()) + in_flight[name]
            offered = [batch for peer in peers for batch in peer.sent] if sink in peers[0].sinks else []
            assert counted == sum(batch.count for batch in offered)
            taken = sum(batch.count for batch in offered if sink.fates.get(batch) == "taken")
            assert tally.records_delivered == taken - sink.rejected[name]
            assert tally.records_dropped[DropReason.REJECTED] == sink.rejected[name]
            assert tally.bytes_delivered == tally.records_delivered * len(b"a record\n")

    def check_told(self, peer: _Peer) -> None:
        """See that a peer was told of the first batches that are safe, and of no other."""
        if not peer.lane.is_answered or peer.lane.producer is None:
            return
        required = [sink for sink in peer.sinks if REQUIRED[sink.name]]
        pending = {id(batch) for route in self.intake.routes for batch in route.pending}
        safe, is_refused = 0, False
        for batch in peer.sent:
            fates = [sink.fates.get(batch) for sink in required]
            if None in fates or id(batch) in pending:
                break
            if "lost" in fates:
                is_refused = True
                break
            safe += 1
        assert (peer.told, peer.is_refused) == (safe, is_refused)

    def teardown(self) -> None:
        """Let everything come to its end."""
        if not hasattr(self, "intake"):
            return
        for _ in range(20):
            for sink in self.sinks.values():
                sink.at_once = "taken"
                while sink.waiting:
                    sink.answer(0, "taken")
            self.flush()
            self.clock.advance(0.01)
        self.check()
        assert self.intake.budget.used == 0
        assert self.intake.is_idle
        assert all(waiter.called for waiter in self.idle)
        assert not any(peer.is_paused for peer in self.peers if peer.lane.producer is not None)
        assert all(bug.startswith("sink ") for bug in self.bugs), self.bugs


class AnswersTests(SynchronousTestCase):
    def test_any_schedule(self) -> None:
        """Whatever sinks of several routes answer, each record has one outcome, and nobody is told too early."""
        run_machine(
            AnswersMachine,
            settings=settings(
                max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
