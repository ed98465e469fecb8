"""
The metrics: made of one look, of which plain integers are read at scrape time.

Nothing is counted here, so nothing on the way of a record pays for it. Names follow
``ingest_<what>_<unit>[_total]``; labels come from closed sets only; every series known in advance is there
with 0 from the start. What shows is said where it is seen: `View`, `ListenerView` and `SinkView`, `counts`, `details`;
here is what is made of several of these.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import accumulate
from typing import Any, Protocol

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from twisted_ingest.errors import DropReason, Durability, PollResult, ReloadResult
from twisted_ingest.ledger import ACK_SECONDS
from twisted_ingest.observe.adding import Adds, Exposure, exposures
from twisted_ingest.observe.counts import BY_LISTENER, TOTALS, Count
from twisted_ingest.observe.details import Detail, Kind, detail_of
from twisted_ingest.observe.view import ListenerView, SinkView, View

Parts = Mapping[str, ListenerView] | Mapping[str, SinkView]

_DERIVED: tuple[tuple[str, str, Callable[[View], float]], ...] = (
    ("ingest_connections_open", "Connections now.", lambda view: view.connections_open),
    (
        "ingest_conservation_error",
        "Bytes and records not accounted for: must be 0.",
        lambda view: view.conservation_error,
    ),
    ("ingest_ready", "Whether /readyz says so.", lambda view: not view.reasons),
    (
        "ingest_tls_handshakes_active",
        "TLS handshakes under way.",
        lambda view: sum(listener.handshakes_active for listener in view.listeners.values()),
    ),
)


def families(view: View) -> Iterator[Metric]:
    """Give every family, each series known in advance included."""
    yield _build(view)
    for name, text, read in _DERIVED:
        yield GaugeMetricFamily(name, text, value=float(read(view)))
    yield from _of_process(view)
    totals = view.totals()
    for count in TOTALS:
        yield _total(count, totals)
    yield _dropped(view)
    yield _reloads(view)
    for count in BY_LISTENER:
        yield from _by_listener(count, view.listeners)
    yield from _of_parts(ListenerView, "listener", view.listeners)
    yield _durability(view)
    yield from _answers({name: listener for name, listener in view.listeners.items() if listener.answers})
    yield from _ack_seconds(view)
    yield from _polls(view.listeners)
    yield from _of_parts(SinkView, "sink", view.sinks)
    yield from _details(view.sinks)


# What is written down where it is seen.


def _family(exposure: Exposure, *labels: str, counts: bool) -> Metric:
    kind = CounterMetricFamily if counts else GaugeMetricFamily
    return kind(exposure.name, exposure.text, labels=[*labels, *exposure.label.split()])


def _add(family: Metric, label: str, value: Any, *names: str) -> None:
    """Add a field's samples: one, or one for each key of a mapping; none where nobody can say."""
    if isinstance(value, Mapping):
        is_pair = " " in label
        for key, each in value.items():
            family.add_metric([*names, *(key.split(" ") if is_pair else [str(key)])], each)  # type: ignore[attr-defined]
    elif value is not None:
        family.add_metric([*names], float(value))  # type: ignore[attr-defined]


def _of_process(view: View) -> Iterator[Metric]:
    for field, (exposure, counts) in exposures(View).items():
        family = _family(exposure, counts=counts)
        _add(family, exposure.label, getattr(view, field))
        yield family


def _of_parts(kind: type[Adds], word: str, those: Parts) -> Iterator[Metric]:
    for field, (exposure, counts) in exposures(kind).items():
        family = _family(exposure, word, counts=counts)
        for name, part in those.items():
            _add(family, exposure.label, getattr(part, field), name)
        yield family


@cache
def _keys(count: Count) -> list[tuple[str, list[str]]]:
    """Give the ledger's names of a count, each with the labels it shows under."""
    return [(f"{count.key}/{each}", [str(each)]) for each in count.members] or [(count.key, [])]


def _total(count: Count, totals: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(count.name, count.text, labels=[count.label] if count.label else [])
    for key, member in _keys(count):
        family.add_metric(member, totals.get(key, 0))
    return family


def _by_listener(count: Count, listeners: Mapping[str, ListenerView]) -> Iterator[Metric]:
    keys = _keys(count)
    counting = {name: listener.counts for name, listener in listeners.items() if keys[0][0] in listener.counts}
    family = CounterMetricFamily(count.name, count.text, labels=["listener", *([count.label] if count.label else [])])
    for name, counts in counting.items():
        for key, member in keys:
            family.add_metric([name, *member], counts.get(key, 0))
    if counting:
        yield family


def _details(sinks: Mapping[str, SinkView]) -> Iterator[Metric]:
    for name in sorted({name.partition("/")[0] for sink in sinks.values() for name in sink.details}):
        detail = detail_of(name)
        if detail.kind is Kind.HISTOGRAM:
            yield _detailed_histogram(name, detail, sinks)
            continue
        exposure = Exposure(f"ingest_sink_{name}", detail.text, detail.label)
        family = _family(exposure, "sink", counts=detail.kind is Kind.COUNTER)
        for sink, view in sinks.items():
            _add(family, "", _behind(name, view.details) if detail.label else view.details.get(name), sink)
        yield family


def _behind(name: str, details: Mapping[str, float]) -> Mapping[str, float]:
    """Give what of a detail stands behind its slash, in order."""
    return {key.partition("/")[2]: value for key, value in details.items() if key.startswith(f"{name}/")}


def _detailed_histogram(name: str, detail: Detail, sinks: Mapping[str, SinkView]) -> Metric:
    rows = []
    for sink, view in sinks.items():
        counts = dict(_behind(name, view.details))
        total = counts.pop("sum", 0.0)
        if counts:
            rows.append(([sink], dict(zip(counts, accumulate(counts.values()), strict=True)), total))
    return _histogram(f"ingest_sink_{name}", detail.text, rows, "sink")


# What is made of several.


def _build(view: View) -> Metric:
    family = InfoMetricFamily(
        "ingest_build", "The version that runs, and what finds the ends of its records.", labels=[]
    )
    for build in view.builds:
        version, scanner = build.split(" ")
        family.add_metric([], {"version": version, "scanner": scanner})
    return family


def _dropped(view: View) -> Metric:
    family = CounterMetricFamily(
        "ingest_dropped_records", "Records lost after framing, once per sink that lost them.", labels=["reason"]
    )
    for reason in DropReason:
        family.add_metric([reason.value], view.dropped(reason))
    return family


def _reloads(view: View) -> Metric:
    family = CounterMetricFamily(
        "ingest_tls_reloads", "Times that certificates were read anew, by what became of it.", labels=["result"]
    )
    for result in ReloadResult:
        count = sum(listener.tls_reloads.get(result, 0) for listener in view.listeners.values())
        family.add_metric([result.value], count)
    return family


def _durability(view: View) -> Metric:
    family = GaugeMetricFamily(
        "ingest_listener_durability",
        "1 for what the listener's records must have reached before they count as taken.",
        labels=["listener", "level"],
    )
    asked = {name: each.durability for name, each in view.listeners.items() if each.durability is not None}
    for name, durability in asked.items():
        for level in Durability:
            family.add_metric([name, level.value], int(level is durability))
    return family


def _answers(listeners: Mapping[str, ListenerView]) -> Iterator[Metric]:
    """Give what waits at listeners that answer; the series are there once there is such a listener."""
    for name, text, field in (
        ("ingest_relp_sessions", "RELP sessions now.", "connections_open"),
        ("ingest_relp_waiting_frames", "Frames that wait for their answer.", "unanswered_frames"),
        ("ingest_relp_waiting_bytes", "Bytes charged for their records.", "unanswered_bytes"),
    ):
        family = GaugeMetricFamily(name, text, labels=["listener"])
        for listener, view in listeners.items():
            family.add_metric([listener], getattr(view, field))
        if listeners:
            yield family


def _histogram(
    name: str, text: str, rows: Iterable[tuple[list[str], Mapping[str, float], float]], *labels: str
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for names, buckets, total in rows:
        family.add_metric(names, list(buckets.items()), sum_value=total)
    return family


def _ack_seconds(view: View) -> Iterator[Metric]:
    lag = view.loop_lag
    yield _histogram(
        "ingest_event_loop_lag_seconds",
        "How late the reactor was to a timer, ten times a second.",
        [([], lag.buckets, lag.sum)] if lag.buckets else [],
    )
    counting = {name: each.counts for name, each in view.listeners.items() if "relp_ack_seconds_sum" in each.counts}
    text = "Seconds from a record's last byte to its answer."
    rows = [([name], _buckets(counts), counts["relp_ack_seconds_sum"]) for name, counts in counting.items()]
    if rows:
        yield _histogram("ingest_relp_ack_seconds", text, rows, "listener")


def _polls(listeners: Mapping[str, ListenerView]) -> Iterator[Metric]:
    """Give what is under way at pollers: what was begun and has not ended."""
    family = GaugeMetricFamily("ingest_poll_active", "Polls under way.", labels=["listener"])
    counting = {name: each.counts for name, each in listeners.items() if "polls_begun" in each.counts}
    for name, counts in counting.items():
        ended = sum(counts.get(f"polls/{result}", 0) for result in PollResult)
        family.add_metric([name], counts["polls_begun"] - ended)
    if counting:
        yield family


def _buckets(counts: Mapping[str, float]) -> Mapping[str, float]:
    totals = accumulate(counts.get(f"relp_ack_seconds/{bound}", 0) for bound in (*ACK_SECONDS, math.inf))
    return dict(zip((*map(str, ACK_SECONDS), "+Inf"), totals, strict=True))


# For Prometheus.


class Survey(Protocol):
    """Who takes a look when asked."""

    def view(self) -> View:
        """Take it."""


class IngestCollector(Collector):
    """Takes a look at each scrape."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey

    def describe(self) -> Iterable[Metric]:
        """Give nothing: describing would take a look before the service runs."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give every family."""
        return families(self._survey.view())


def build_registry(survey: Survey) -> CollectorRegistry:
    """Make a registry of our own: the library's global one stays untouched."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(IngestCollector(survey))
    return registry
