"""Views add: in any order of addition, without loss on the way to another process, and no total ever falls."""

import json
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Metric
from twisted.trial.unittest import SynchronousTestCase

from tests.test_observe_metrics import MetricsTestCase, series_of
from twisted_ingest.errors import DropReason, Durability, PauseReason
from twisted_ingest.ledger import ListenerLedger, RelpLedger
from twisted_ingest.observe.adding import Adds, rules
from twisted_ingest.observe.lag import LagView, LoopLag
from twisted_ingest.observe.metrics import families
from twisted_ingest.observe.steps import StepDirection
from twisted_ingest.observe.view import ListenerView, SinkView, View
from twisted_ingest.testing import MemorySink, Rig, StalledSink

COUNTS = st.integers(0, 2**40)

SECONDS = st.integers(0, 2**30).map(lambda eighths: eighths / 8)
"""Such as floating point adds without rounding."""

TEXTS = st.lists(st.sampled_from(["full", "No space left on device", "draining", "file /x"]), max_size=3, unique=True)

TRUTHS = st.sampled_from([None, False, True])

NAMES = st.sampled_from(["a", "b", "c"])

SNAPSHOTS = [ListenerLedger().snapshot(), RelpLedger().snapshot()]


@st.composite
def counted(draw: st.DrawFn) -> dict[str, int]:
    """Make the counts of a listener, some of them above zero."""
    counts = dict(draw(st.sampled_from(SNAPSHOTS)))
    return counts | draw(st.dictionaries(st.sampled_from(sorted(counts)), COUNTS, max_size=8))


def by(keys: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[Any, Any]]:
    """Make a mapping that has every key."""
    return st.fixed_dictionaries(dict.fromkeys(keys, values))


LISTENERS = st.builds(
    ListenerView,
    counts=counted(),
    is_up=TRUTHS,
    connections_open=COUNTS,
    doorways_open=COUNTS,
    buffered_bytes=COUNTS,
    durability=st.sampled_from([None, *Durability]),
    answers=st.booleans(),
    unanswered_frames=COUNTS,
    unanswered_bytes=COUNTS,
)

DETAILS = st.dictionaries(
    st.sampled_from(["retries", "their_own", "spool_oldest_seconds", "spool_replaying", "spool_disk_bytes"]), SECONDS
)

SINKS = st.builds(
    SinkView,
    descriptions=TEXTS.map(tuple),
    required=st.booleans(),
    is_up=TRUTHS,
    troubles=TEXTS.map(tuple),
    delivered_records=COUNTS,
    delivered_bytes=COUNTS,
    dropped_records=by(DropReason, COUNTS),
    in_flight_records=COUNTS,
    queued_bytes=COUNTS,
    details=DETAILS,
)

LAGS = st.lists(SECONDS, max_size=5).map(lambda delays: lag_of(*delays))

PLACES = st.dictionaries(st.sampled_from(["a: bytes", "b: records at c"]), COUNTS)

VIEWS = st.builds(
    View,
    builds=st.lists(st.sampled_from(["1.0 c", "1.1 c", "1.1 python"]), max_size=2, unique=True).map(tuple),
    reasons=TEXTS.map(tuple),
    missing=PLACES,
    surplus=PLACES,
    listeners=st.dictionaries(NAMES, LISTENERS, max_size=2),
    sinks=st.dictionaries(NAMES, SINKS, max_size=2),
    connections_limit=COUNTS,
    departed_connections=COUNTS,
    paused_connections=COUNTS,
    paused_by_reason=by(PauseReason, COUNTS),
    pauses=by(PauseReason, COUNTS),
    pause_seconds=by(PauseReason, SECONDS),
    budget_limit=COUNTS,
    budget_used=COUNTS,
    budget_partials=COUNTS,
    budget_standing=COUNTS,
    slabs_given_up=COUNTS,
    uptime_seconds=SECONDS,
    loop_lag=LAGS,
    clock_steps=by(StepDirection, COUNTS),
    internal_errors=COUNTS,
    log_suppressed=COUNTS,
    log_dropped=COUNTS,
    admin_connections=COUNTS,
    admin_requests=st.dictionaries(st.sampled_from(["/metrics 200", "/ 404", "other 404"]), COUNTS),
)


def lag_of(*delays: float) -> LagView:
    """Measure delays."""
    lag = LoopLag()
    for delay in delays:
        lag.observe(delay)
    return lag.view()


def unordered(value: Any) -> Any:
    """Leave the order of texts out of account."""
    if isinstance(value, Adds):
        return {name: unordered(getattr(value, name)) for name in rules(type(value))}
    if isinstance(value, dict):
        return {key: unordered(each) for key, each in value.items()}
    return frozenset(value) if isinstance(value, tuple) else value


def counters(found: list[Metric]) -> Counter[tuple[str, frozenset[tuple[str, str]]]]:
    """Give the counters among the series, and the buckets of histograms, which count as well."""
    kinds = ("counter", "histogram")
    return Counter(series_of(family for family in found if family.type in kinds))


class AdditionTests(SynchronousTestCase):
    @given(VIEWS, VIEWS, VIEWS)
    def test_associative(self, one: View, two: View, three: View) -> None:
        """It does not matter which two are added first."""
        self.assertEqual((one + two) + three, one + (two + three))

    @given(VIEWS)
    def test_identity(self, view: View) -> None:
        """Nothing added, on either side, changes nothing."""
        self.assertEqual(view + View.nothing(), view)
        self.assertEqual(View.nothing() + view, view)

    @given(VIEWS, VIEWS)
    def test_commutative(self, one: View, two: View) -> None:
        """Neither does it matter which comes first, but for the order of texts."""
        self.assertEqual(unordered(one + two), unordered(two + one))

    @given(VIEWS)
    def test_to_another_process(self, view: View) -> None:
        """What is told in JSON is read as what it was, and adds as it did."""
        read = View.from_plain(json.loads(json.dumps(view.to_plain())))
        self.assertEqual(read, view)
        self.assertEqual(read + view, view + view)

    @given(VIEWS, VIEWS)
    def test_metrics_of_a_sum(self, one: View, two: View) -> None:
        """Each counter of a sum is the sum of the counters."""
        expected = counters(list(families(one)))
        expected.update(counters(list(families(two))))
        self.assertEqual(counters(list(families(one + two))), expected)

    @given(VIEWS, VIEWS)
    def test_no_total_falls(self, one: View, two: View) -> None:
        """Whatever is added, and whatever of it goes, no counter falls."""
        before = counters(list(families(one)))
        for later in (one + two, two + one, one.counted(), one.counted() + two):
            after = counters(list(families(later)))
            self.assertEqual({key for key, value in before.items() if after[key] < value}, set())

    @given(VIEWS)
    def test_what_is_gone_holds_nothing(self, view: View) -> None:
        """Of what is gone the counts stay: it holds nothing, and is neither up nor down."""
        gauges = (family for family in families(view.counted()) if family.type == "gauge")
        held = {sample.name for family in gauges for sample in family.samples if sample.value}
        self.assertEqual(held, {"ingest_ready"})

    def test_another_version(self) -> None:
        """What another version knows more is let fall, and what it does not know is nothing."""
        self.assertEqual(View.from_plain({"budget_used": 7, "unheard_of": [1]}), View(budget_used=7))


class MeaningTests(SynchronousTestCase):
    def test_every_field(self) -> None:
        """Every field of every part says how it adds."""
        for kind in (View, ListenerView, SinkView, LagView):
            self.assertEqual(set(rules(kind)), set(kind.__dataclass_fields__))

    def test_ages(self) -> None:
        """The age of a sum is that of its oldest part."""
        total = View(uptime_seconds=3.0) + View(uptime_seconds=50.0)
        self.assertEqual(total.uptime_seconds, 50.0)

    def test_weaker_durability(self) -> None:
        """What a listener promises in two processes is the weaker of both."""
        weak, strong = (ListenerView(durability=each) for each in (Durability.WRITTEN, Durability.FSYNC))
        self.assertEqual((weak + strong).durability, Durability.WRITTEN)
        self.assertEqual((strong + weak).durability, Durability.WRITTEN)
        self.assertEqual((strong + ListenerView.nothing()).durability, Durability.FSYNC)

    def test_up(self) -> None:
        """A listener is up where it is up everywhere; who is gone has no say."""
        up, down, gone = (ListenerView(is_up=each) for each in (True, False, None))
        self.assertEqual(
            [(up + up).is_up, (up + down).is_up, (gone + up).is_up, (gone + gone).is_up], [True, False, True, None]
        )

    def test_details(self) -> None:
        """The oldest age, the lowest state, the sum of what is held; a counter nobody has heard of counts up."""
        one = SinkView(details={"spool_oldest_seconds": 9, "spool_replaying": 0, "spool_disk_bytes": 1, "odd": 1})
        two = SinkView(details={"spool_oldest_seconds": 2, "spool_replaying": 1, "spool_disk_bytes": 5, "odd": 2})
        expected = {"spool_oldest_seconds": 9, "spool_replaying": 0, "spool_disk_bytes": 6, "odd": 3}
        self.assertEqual((one + two).details, expected)
        self.assertEqual(one.counted().details, {"odd": 1})

    def test_errors_do_not_cancel_out(self) -> None:
        """A byte missing in one process and one too many in another are two errors."""
        total = View(missing={"tcp: bytes": 1}) + View(surplus={"tcp: bytes": 1})
        self.assertEqual(total.conservation_error, 2)

    def test_reasons_say_where(self) -> None:
        """Reasons of several processes are told apart, and a sum is ready where all of it is."""
        ready, unready = View(), View(reasons=("draining",), missing={"tcp: bytes": 3})
        total = unready.at("worker 1") + unready.at("worker 2") + ready.at("worker 3")
        self.assertEqual(total.reasons, ("worker 1: draining", "worker 2: draining"))
        self.assertEqual(total.conservation, {"worker 1: tcp: bytes": 3, "worker 2: tcp: bytes": 3})
        self.assertEqual((ready + View()).reasons, ())


class RetiredTests(MetricsTestCase):
    """What is taken away stays in the totals."""

    def setUp(self) -> None:
        super().setUp()
        self.send(b"one\ntwo\n")

    def send(self, data: bytes) -> None:
        """Let a peer send and close."""
        transport = self.rig.send(data)
        transport.peer_closes()
        transport.pump()
        self.rig.turn(1)

    def retire(self) -> None:
        """Let go of the one listener, which nobody is connected to any more."""
        self.assertFalse(self.rig.factory.connections)
        self.rig.survey.retire(self.rig.listener)

    def test_a_listener(self) -> None:
        """Whoever retires leaves its counts in every total; it is neither up nor down, and holds nothing."""
        before = self.page.series()
        self.retire()
        after = self.page.series()
        fallen = {key for key, value in before.items() if key[0].endswith("_total") and after.get(key, -1) < value}
        self.assertEqual(fallen, set())
        self.assertEqual(after["ingest_records_total", frozenset()], 2)
        self.assertNotIn(("ingest_listener_up", frozenset({("listener", "test")})), after)
        self.assertEqual(self.rig.survey.status()["listeners"], [])

    def test_records_on_their_way(self) -> None:
        """Records of a listener that is gone are weighed until they are delivered, and after."""
        self.retire()
        self.assertEqual(self.page.value("ingest_sink_in_flight_records", sink="stalled"), 2)
        self.assertEqual(self.rig.survey.conservation_error(), 0)
        self.stalled.release()
        self.assertEqual(self.page.value("ingest_sink_delivered_records_total", sink="stalled"), 2)
        self.assertEqual(self.rig.survey.conservation_error(), 0)

    def test_a_record_lost_afterwards(self) -> None:
        """One of them that is lost is missed as it would have been before."""
        self.retire()
        self.rig.intake.outlets[1].tally("test").records_delivered -= 1
        self.assertEqual(self.rig.survey.reasons(), ["conservation error 1 (test: records at stalled)"])

    def test_an_error_stays(self) -> None:
        """What was not accounted for when it went is not forgotten."""
        self.rig.factory.ledger.bytes_accepted -= 3
        self.retire()
        self.assertEqual(self.rig.survey.reasons(), ["conservation error 3 (test: bytes)"])

    def test_its_name_again(self) -> None:
        """A listener of the same name takes up where the other left off."""
        self.retire()
        self.rig.survey._accounts.sources.append(self.rig.listener)
        self.rig.factory.ledger = ListenerLedger()
        self.assertEqual(self.rig.survey.conservation_error(), 0)
        self.send(b"three\n")
        self.assertEqual(self.page.value("ingest_listener_records_total", listener="test"), 3)
        self.assertEqual(self.rig.survey.conservation_error(), 0)

    def test_not_while_it_has_connections(self) -> None:
        """A listener whose connections count on cannot retire."""
        self.rig.send(b"more")
        with self.assertRaisesRegex(ValueError, "listener test has connections"):
            self.rig.survey.retire(self.rig.listener)

    def test_a_sink(self) -> None:
        """A sink that is taken away leaves what it has counted, and is no longer weighed, nor in trouble."""
        self.stalled.trouble = "No space left on device"
        self.stalled.fail()
        before = self.page.series()
        outlet = self.rig.intake.outlets[1]
        self.rig.intake.outlets = [self.rig.intake.outlets[0]]
        self.rig.survey.retire_sink(outlet)
        after = self.page.series()
        fallen = {key for key, value in before.items() if key[0].endswith("_total") and after.get(key, -1) < value}
        self.assertEqual(fallen, set())
        self.assertEqual(self.page.value("ingest_dropped_records_total", reason="sink_failed"), 2)
        self.assertNotIn(("ingest_sink_up", frozenset({("sink", "stalled")})), after)
        self.assertEqual(self.rig.survey.reasons(), [])

    def test_a_sink_that_is_added(self) -> None:
        """It is weighed against what comes from now on, what was gathered before included, and nothing earlier."""
        self.rig.connect().protocol.dataReceived(b"gathered\n")
        added = StalledSink("added")
        self.rig.intake.add_sink(added, required=True)
        self.assertEqual(self.rig.survey.conservation_error(), 0)
        self.rig.turn()
        self.send(b"three\nfour\n")
        self.assertEqual(self.page.value("ingest_sink_in_flight_records", sink="added"), 3)
        self.assertEqual(self.rig.survey.conservation_error(), 0)
        added.release()
        self.assertEqual(added.records, [b"gathered", b"three", b"four"])
        self.assertEqual(self.rig.survey.conservation_error(), 0)
        self.rig.intake.outlets[-1].tally("test").records_delivered -= 1
        self.assertEqual(self.rig.survey.reasons(), ["conservation error 1 (test: records at added)"])

    def test_a_listener_that_goes_after_it(self) -> None:
        """What was on no way to an added sink is not owed to it by a listener that is gone either."""
        added = MemorySink("added")
        self.rig.intake.add_sink(added, required=True)
        self.send(b"three\n")
        self.retire()
        self.stalled.release()
        self.assertEqual((added.records, self.rig.survey.conservation_error()), ([b"three"], 0))

    def test_both(self) -> None:
        """A sink that goes after a listener takes what that one owed it along."""
        self.retire()
        self.test_a_sink()
        self.assertEqual(self.rig.survey.conservation_error(), 0)


class SurveyTests(SynchronousTestCase):
    def test_plain(self) -> None:
        """What a survey sees of a live process survives the way to another, and nothing of it is a live object."""
        rig = Rig(MemorySink(), StalledSink())
        rig.send(b"one\ntwo\nopen")
        view = rig.survey.view()
        rig.send(b"more\n")
        self.assertEqual(View.from_plain(json.loads(json.dumps(view.to_plain()))), view)
        self.assertEqual(view.listeners["test"].counts["records_framed"], 2)
