"""The metrics: every name and series there from the start, true to what happened, and nothing of a peer among them."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum

from prometheus_client import REGISTRY
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest import __version__
from twisted_ingest.batch import Batch
from twisted_ingest.errors import AcceptError, CloseReason, DiscardReason, DropReason, Oversize, RefuseReason
from twisted_ingest.flow.intake import Intake
from twisted_ingest.flow.outlet import Outlet
from twisted_ingest.framing.scan import SCANNER
from twisted_ingest.observe.metrics import build_registry
from twisted_ingest.testing import MemorySink, Rig, StalledSink

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]

PROMISED: dict[str, set[str]] = {
    "ingest_connections_open": set(),
    "ingest_connections_closed_total": {"reason"},
    "ingest_received_bytes_total": set(),
    "ingest_records_total": set(),
    "ingest_dropped_records_total": {"reason"},
    "ingest_truncated_records_total": set(),
    "ingest_empty_records_total": set(),
    "ingest_budget_bytes": set(),
    "ingest_budget_used_bytes": set(),
    "ingest_paused_connections": set(),
    "ingest_sink_delivered_records_total": {"sink"},
    "ingest_conservation_error": set(),
}
"""Names and labels that other checks read."""


def series_of(families: Iterable[Metric]) -> Series:
    """Give every sample of ours, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("ingest_")
    }


class Exposed:
    """The page of one rig, parsed anew at each look."""

    def __init__(self, rig: Rig) -> None:
        self._registry = build_registry(rig.survey)

    def text(self) -> str:
        """Give the page as Prometheus text."""
        return generate_text(self._registry).decode()

    def openmetrics(self) -> str:
        """Give the page as OpenMetrics."""
        page: bytes = generate_openmetrics(self._registry)
        return page.decode()

    def families(self) -> list[Metric]:
        """Parse the page, which the stricter of the two parsers must accept."""
        return list(parse_openmetrics(self.openmetrics()))

    def series(self) -> Series:
        """Give all series."""
        return series_of(self.families())

    def value(self, name: str, **labels: str) -> float:
        """Give one value."""
        return self.series()[name, frozenset(labels.items())]


class MetricsTestCase(SynchronousTestCase):
    """Gives each test a rig with a sink that answers and one that stalls."""

    def setUp(self) -> None:
        self.stalled = StalledSink()
        self.rig = Rig(MemorySink(), self.stalled, max_record_bytes=100, per_peer=150)
        self.rig.survey.state = "ready"
        self.page = Exposed(self.rig)

    def make_traffic(self) -> None:
        """Let something happen to as many counts as one listener can have."""
        self.rig.send(b"one\n\ntwo\r\n" + b"x" * 150 + b"\nthree\n").peer_closes()
        half = self.rig.send(b"half a record")
        half.peer_resets()
        half.pump()
        self.rig.send(b"kept open, unfinished")
        self.rig.turn(1)


class FormatTests(MetricsTestCase):
    def test_both_formats_parse(self) -> None:
        """Prometheus' own parsers accept both formats, before and after traffic."""
        for _ in range(2):
            self.assertTrue(list(parse_text(self.page.text())))
            self.assertTrue(list(parse_openmetrics(self.page.openmetrics())))
            self.make_traffic()

    def test_both_formats_agree(self) -> None:
        """Both formats say the same."""
        self.make_traffic()
        text = series_of(parse_text(self.page.text()))
        self.assertEqual(text, self.page.series())

    def test_ends(self) -> None:
        """OpenMetrics ends in its mark: a page cut short is told from a whole one."""
        self.assertTrue(self.page.openmetrics().endswith("# EOF\n"))

    def test_no_family_twice(self) -> None:
        """No two families share a name, and each has a type and a text."""
        families = self.page.families()
        names = [family.name for family in families]
        self.assertEqual(len(names), len(set(names)))
        for family in families:
            self.assertNotEqual(family.type, "unknown", family.name)
            self.assertTrue(family.documentation, family.name)

    def test_names_end_in_units(self) -> None:
        """Counters end in ``_total``, gauges do not, and labels are those of closed sets."""
        for family in self.page.families():
            for sample in family.samples:
                if sample.name.startswith("ingest_"):
                    self.assertEqual(sample.name.endswith("_total"), family.type == "counter", sample.name)
                    self.assertTrue(
                        set(sample.labels)
                        <= {
                            "listener",
                            "sink",
                            "reason",
                            "version",
                            "scanner",
                            "le",
                            "level",
                            "command",
                            "route",
                            "code",
                            "direction",
                            "cause",
                            "result",
                        },
                        sample,
                    )

    def test_version(self) -> None:
        """The page says which version runs."""
        self.assertEqual(self.page.value("ingest_build_info", version=__version__, scanner=SCANNER), 1)


class SeriesTests(MetricsTestCase):
    def test_promised_names(self) -> None:
        """Every promised name is there from the start with exactly the labels promised."""
        found: dict[str, set[str]] = {}
        for name, labels in self.page.series():
            found.setdefault(name, set()).update(key for key, _ in labels)
        self.assertEqual({name: found.get(name) for name in PROMISED}, PROMISED)

    def test_zero_from_the_start(self) -> None:
        """Before anything happens every counter is there, and 0."""
        counters = {key: value for key, value in self.page.series().items() if key[0].endswith("_total")}
        self.assertEqual(set(counters.values()), {0.0})
        self.assertIn(("ingest_sink_delivered_records_total", frozenset({("sink", "stalled")})), counters)

    def test_every_reason(self) -> None:
        """Every reason that anything can end with is a series, and no other."""
        expected: dict[str, type[StrEnum]] = {
            "ingest_accept_errors_total": AcceptError,
            "ingest_connections_closed_total": CloseReason,
            "ingest_connections_refused_total": RefuseReason,
            "ingest_discarded_bytes_total": DiscardReason,
            "ingest_dropped_records_total": DropReason,
        }
        for name, members in expected.items():
            reasons = {dict(labels)["reason"] for found, labels in self.page.series() if found == name}
            self.assertEqual(reasons, {member.value for member in members}, name)

    def test_every_reason_of_every_sink(self) -> None:
        """Each sink has a series for each reason to lose a record."""
        found = {labels for name, labels in self.page.series() if name == "ingest_sink_dropped_records_total"}
        expected = {
            frozenset({("sink", sink), ("reason", reason.value)})
            for sink in ("memory", "stalled")
            for reason in DropReason
        }
        self.assertEqual(found, expected)

    def test_traffic_adds_no_series(self) -> None:
        """A hundred peers, refusals, resets and oversize records add no series."""
        before = set(self.page.series())
        for number in range(100):
            transport = self.rig.connect(f"198.51.100.{number}", 1000 + number)
            transport.peer_sends(b"y" * 200 + b"\nline\n")
            transport.pump()
            (transport.peer_resets if number % 2 else transport.peer_closes)()
            transport.pump()
        self.make_traffic()
        self.rig.turn(1)
        self.assertEqual(set(self.page.series()), before)

    def test_nothing_of_a_peer(self) -> None:
        """Neither a peer's address nor a byte it sent is on the page."""
        for number in range(100):
            transport = self.rig.connect(f"198.51.100.{number}", 41000 + number)
            transport.peer_sends(b"needle-in-the-page " + b"z" * 200 + b"\nneedle\nneedle")
            transport.pump()
        self.rig.turn()
        for page in (self.page.text(), self.page.openmetrics()):
            self.assertNotIn("198.51", page)
            self.assertNotIn("needle", page)
            self.assertIsNone(re.search(r"\b410\d\d\b", page))

    def test_global_registry_untouched(self) -> None:
        """The library's global registry has nothing of ours, however many registries we make."""
        build_registry(self.rig.survey)
        build_registry(self.rig.survey)
        self.assertEqual([name for name in REGISTRY._names_to_collectors if name.startswith("ingest")], [])

    def test_process(self) -> None:
        """The page has what supervisors ask of every process."""
        names = {family.name for family in self.page.families()}
        self.assertTrue({"process_resident_memory_bytes", "process_open_fds", "python_info"} <= names, names)


class TruthTests(MetricsTestCase):
    def test_counts(self) -> None:
        """Each count says what happened."""
        first = self.rig.send(b"one\n\ntwo\r\n" + b"x" * 150 + b"\nthree\n")
        first.peer_closes()
        first.pump()
        second = self.rig.send(b"half")
        second.peer_resets()
        second.pump()
        self.rig.send(b"open")
        series = {(name, *sorted(value for _, value in labels)): n for (name, labels), n in self.page.series().items()}
        expected = {
            ("ingest_connections_open",): 1,
            ("ingest_connections_opened_total",): 3,
            ("ingest_connections_closed_total", "eof"): 1,
            ("ingest_connections_closed_total", "reset"): 1,
            ("ingest_received_bytes_total",): 11 - 1 + 151 + 6 + 4 + 4,
            ("ingest_accepted_bytes_total",): 6 + 100 + 5,
            ("ingest_framing_bytes_total",): 1 + 1 + 2 + 1 + 1,
            ("ingest_discarded_bytes_total", "oversize"): 50,
            ("ingest_discarded_bytes_total", "reset"): 4,
            ("ingest_listener_buffered_bytes", "test"): 4,
            ("ingest_records_total",): 4,
            ("ingest_empty_records_total",): 1,
            ("ingest_truncated_records_total",): 1,
            ("ingest_partial_records_total",): 0,
            ("ingest_sink_delivered_records_total", "memory"): 4,
            ("ingest_sink_delivered_records_total", "stalled"): 0,
            ("ingest_sink_in_flight_records", "memory"): 0,
            ("ingest_sink_in_flight_records", "stalled"): 4,
            ("ingest_conservation_error",): 0,
            ("ingest_ready",): 1,
        }
        self.assertEqual({key: series[key] for key in expected}, expected)

    def test_budget(self) -> None:
        """The budget's limit is its limit, and what is charged goes back to 0 when all is delivered."""
        limit = self.page.value("ingest_budget_bytes")
        self.assertEqual(limit, self.rig.intake.budget.limit)
        self.rig.send(b"line\n").peer_closes()
        self.assertGreater(self.page.value("ingest_budget_used_bytes"), 5)
        self.assertGreater(self.page.value("ingest_sink_queued_bytes", sink="stalled"), 5)
        self.stalled.release()
        self.assertEqual(self.page.value("ingest_budget_used_bytes"), 0)
        self.assertEqual(self.page.value("ingest_sink_queued_bytes", sink="stalled"), 0)

    def test_paused(self) -> None:
        """A connection that we do not read from shows as paused until we do again."""
        rig = Rig(StalledSink(), connection_memory=100_000)
        page = Exposed(rig)
        rig.send(b"0123456789\n" * 10_000)
        self.assertEqual(page.value("ingest_paused_connections"), 1)
        rig.sink.release()
        rig.turn()
        self.assertEqual(page.value("ingest_paused_connections"), 0)

    def test_dropped(self) -> None:
        """A record lost before the sinks and one lost by a sink both count as dropped, each under its reason."""
        rig = Rig(StalledSink(), max_record_bytes=10, oversize=Oversize.DROP)
        page = Exposed(rig)
        rig.send(b"x" * 11 + b"\nshort\nshort\n")
        rig.sink.fail()
        self.assertEqual(page.value("ingest_records_total"), 3)
        self.assertEqual(page.value("ingest_dropped_records_total", reason="oversize"), 1)
        self.assertEqual(page.value("ingest_dropped_records_total", reason="sink_failed"), 2)
        self.assertEqual(page.value("ingest_sink_dropped_records_total", sink="stalled", reason="sink_failed"), 2)
        self.assertEqual(page.value("ingest_conservation_error"), 0)

    def test_two_sinks_lose_apart(self) -> None:
        """A record that two sinks lose is two records dropped, as the text of the metric says."""
        rig = Rig(StalledSink("a"), StalledSink("b"))
        page = Exposed(rig)
        rig.send(b"line\n")
        for sink in rig.sinks:
            sink.fail()
        self.assertEqual(page.value("ingest_dropped_records_total", reason="sink_failed"), 2)
        self.assertEqual(page.value("ingest_conservation_error"), 0)

    def test_trouble(self) -> None:
        """A sink in trouble is down, and where it is required the process is not ready."""
        self.stalled.trouble = "No space left on device"
        self.assertEqual(self.page.value("ingest_sink_up", sink="stalled"), 0)
        self.assertEqual(self.page.value("ingest_sink_up", sink="memory"), 1)
        self.assertEqual(self.page.value("ingest_ready"), 0)

    def test_opened_less_closed_is_open(self) -> None:
        """At every look, the connections opened less those closed for any reason are the open ones."""
        transports = []
        for step in range(60):
            transports.append(self.rig.connect(f"198.51.100.{step}"))
            if step % 3 == 1:
                transports.pop(0).peer_closes()
            if step % 3 == 2:
                transports.pop(0).abortConnection()
            for transport in transports:
                transport.pump()
            self.rig.turn()
            series = self.page.series()
            closed = sum(value for (name, _), value in series.items() if name == "ingest_connections_closed_total")
            opened = series["ingest_connections_opened_total", frozenset()]
            self.assertEqual(opened - closed, series["ingest_connections_open", frozenset()])

    def test_refused(self) -> None:
        """A peer that is turned away counts as refused, and neither as opened nor as closed."""
        rig = Rig(per_peer=1)
        page = Exposed(rig)
        rig.connect()
        with self.assertRaises(ConnectionRefusedError):
            rig.connect()
        self.assertEqual(page.value("ingest_connections_refused_total", reason="per_peer"), 1)
        self.assertEqual(page.value("ingest_connections_opened_total"), 1)

    def test_of_the_port(self) -> None:
        """Accept errors are counted by listener and reason; a listener without a port is down."""
        self.rig.factory.ledger.accept_errors[AcceptError.MEMORY] += 2
        self.assertEqual(self.page.value("ingest_accept_errors_total", listener="test", reason="memory"), 2)
        self.assertEqual(self.page.value("ingest_listener_up", listener="test"), 0)

    def test_counters_only_grow(self) -> None:
        """No counter ever falls, whatever happens between two looks."""
        before = self.page.series()
        for step in range(10):
            self.make_traffic()
            if step % 2:
                self.stalled.release(1)
            elif self.stalled.waiting:
                self.stalled.fail()
            after = self.page.series()
            for key, value in after.items():
                if key[0].endswith("_total"):
                    self.assertGreaterEqual(value, before[key], key)
            before = after
        self.rig.intake.abandon()
        after = self.page.series()
        self.assertTrue(all(after[key] >= before[key] for key in after if key[0].endswith("_total")))
        self.assertEqual(self.page.value("ingest_conservation_error"), 0)

    def test_log(self) -> None:
        """Log lines that were folded or lost are counted on the page."""
        for _ in range(50):
            self.rig.events.accepting_paused("full")
        self.assertEqual(self.page.value("ingest_log_suppressed_total"), self.rig.events.log.suppressed)
        self.assertGreater(self.rig.events.log.suppressed, 0)

    def test_details(self) -> None:
        """A sink's own counters are series of that sink alone."""
        sink = MemorySink("detailed")
        sink.details = lambda: {"retries": 3}  # type: ignore[method-assign]
        page = Exposed(Rig(sink, MemorySink()))
        found = {key: value for key, value in page.series().items() if "retries" in key[0]}
        self.assertEqual(found, {("ingest_sink_retries_total", frozenset({("sink", "detailed")})): 3.0})


class ConservationTests(MetricsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.rig.send(b"one\ntwo\nunfinished")

    def error(self) -> float:
        """Read the metric."""
        return self.page.value("ingest_conservation_error")

    def place(self) -> str:
        """Insist that the process is not ready for exactly one reason, and give it."""
        self.assertEqual(self.page.value("ingest_ready"), 0)
        (reason,) = self.rig.survey.reasons()
        return reason

    def test_nothing_lost(self) -> None:
        """While all is accounted for the error is 0 and the process ready, with records and bytes under way."""
        self.assertEqual(self.error(), 0)
        self.assertEqual(self.rig.survey.reasons(), [])
        self.rig.clock.advance(0)
        self.assertEqual(self.error(), 0)

    def test_before_the_group_is_handed_over(self) -> None:
        """Batches that were gathered and not yet handed over are in flight."""
        transport = self.rig.connect()
        transport.peer_sends(b"gathered\n")
        transport.pump()
        self.assertTrue(self.rig.factory.route.pending)
        self.assertEqual(self.error(), 0)

    def test_lost_byte(self) -> None:
        """One byte that no bucket has is an error of one, and the listener is named."""
        self.rig.factory.ledger.bytes_accepted -= 1
        self.assertEqual(self.error(), 1)
        self.assertEqual(self.place(), "conservation error 1 (test: bytes)")

    def test_byte_from_nowhere(self) -> None:
        """One byte too many is an error as well."""
        self.rig.factory.ledger.bytes_framing += 1
        self.assertEqual(self.error(), 1)
        self.assertEqual(self.place(), "conservation error -1 (test: bytes)")

    def test_lost_from_a_framer(self) -> None:
        """A byte lost from an unfinished record is noticed: what framers hold is recounted."""
        (connection,) = self.rig.factory.connections.values()
        connection.framer.partial = connection.framer.partial[:-2]
        self.assertEqual(self.error(), 2)
        self.assertEqual(self.place(), "conservation error 2 (test: bytes)")

    def test_lost_connection(self) -> None:
        """A connection lost from the registry is noticed by its unfinished record."""
        self.rig.factory.connections.clear()
        self.assertEqual(self.place(), "conservation error 10 (test: bytes)")

    def test_lost_before_the_sinks(self) -> None:
        """A batch lost while it was gathered is missed at every sink."""
        transport = self.rig.connect()
        transport.peer_sends(b"a\nb\nc\n")
        transport.pump()
        self.rig.factory.route.pending.pop()
        self.assertEqual(self.error(), 6)
        self.assertEqual(
            self.rig.survey.reasons(),
            ["conservation error 3 (test: records at memory)", "conservation error 3 (test: records at stalled)"],
        )

    def test_lost_at_a_sink(self) -> None:
        """A group lost at one sink is missed there, and only there."""
        (group,) = self._stalled_outlet().outstanding
        del self._stalled_outlet().outstanding[group]
        self.assertEqual(self.error(), 2)
        self.assertEqual(self.place(), "conservation error 2 (test: records at stalled)")

    def test_lost_from_a_group(self) -> None:
        """A batch lost from a group that a sink still has is noticed: such a group is counted anew."""
        (group,) = self._stalled_outlet().outstanding
        group.batches.pop()
        self.assertEqual(self.place(), "conservation error 2 (test: records at stalled)")

    def test_counted_twice(self) -> None:
        """A record counted as delivered twice is noticed."""
        self._stalled_outlet().tally("test").records_delivered += 1
        self.assertEqual(self.place(), "conservation error -1 (test: records at stalled)")

    def test_errors_do_not_cancel_out(self) -> None:
        """A byte too few and a record too many are two errors."""
        self.rig.factory.ledger.bytes_accepted -= 1
        self._stalled_outlet().tally("test").records_delivered += 1
        self.assertEqual(self.error(), 2)
        self.assertEqual(len(self.rig.survey.reasons()), 2)

    def test_found_again(self) -> None:
        """The error goes when the byte is found: nothing is remembered."""
        self.rig.factory.ledger.bytes_accepted -= 1
        self.assertEqual(self.error(), 1)
        self.rig.factory.ledger.bytes_accepted += 1
        self.assertEqual(self.error(), 0)
        self.assertEqual(self.rig.survey.reasons(), [])

    def _stalled_outlet(self) -> Outlet:
        return self.rig.intake.outlets[1]


class CountingIntake(Intake):
    """Counts how often what is in flight is recounted."""

    recounts = 0

    def in_flight(self, outlet: Outlet) -> Counter[str]:
        """Count, then do it."""
        self.recounts += 1
        return super().in_flight(outlet)


class Unvisited(list[Batch]):
    """Batches of a group that nobody may look at one by one."""

    def __iter__(self) -> Iterator[Batch]:
        """Raise."""
        raise AssertionError("a look at every batch")


class CostTests(MetricsTestCase):
    def test_batches_are_not_visited(self) -> None:
        """No look costs more for more batches in flight: a group's records were counted when it was formed."""
        self.rig.send(b"one\ntwo\n")
        self.rig.intake.flush()
        (group,) = self.rig.intake.outlets[1].outstanding
        group.batches = Unvisited(group.batches)
        for look in (self.rig.survey.view, self.rig.survey.status, self.rig.survey.reasons, self.page.text):
            look()
        self.assertEqual(self.rig.survey.conservation_error(), 0)

    def test_one_recount_for_each_outlet(self) -> None:
        """A scrape, a status and a readiness check recount what is in flight once per sink each."""
        intake = self.rig.intake
        intake.__class__ = CountingIntake
        assert isinstance(intake, CountingIntake)
        for look in (self.rig.survey.view, self.rig.survey.status, self.rig.survey.reasons, self.page.text):
            intake.recounts = 0
            look()
            self.assertEqual(intake.recounts, len(intake.outlets), look)
