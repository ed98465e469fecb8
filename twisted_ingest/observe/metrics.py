"""
The metrics: one collector that reads plain integers at scrape time.

Nothing is counted here, so nothing on the way of a record pays for it. Names follow
``ingest_<what>_<unit>[_total]``; labels come from closed sets only; every series known in advance is there
with 0 from the start.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
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

from twisted_ingest.errors import (
    AcceptError,
    CloseReason,
    DiscardReason,
    DropReason,
    Durability,
    PauseReason,
    RefuseReason,
    RelpCommand,
    RelpError,
    Resync,
)
from twisted_ingest.framing.scan import SCANNER
from twisted_ingest.ledger import ACK_SECONDS
from twisted_ingest.observe.lag import LagView
from twisted_ingest.observe.steps import StepDirection

LEVELS = frozenset(
    {
        "spool_disk_bytes",
        "spool_oldest_seconds",
        "spool_replaying",
        "spool_segments",
        "spool_waiting_batches",
        "spool_waiting_records",
    }
)
"""The counters of sinks that also fall."""


@dataclass(frozen=True, slots=True)
class SinkView:
    """One look at one sink."""

    name: str
    description: str
    required: bool
    delivered_records: int
    delivered_bytes: int
    dropped_records: Mapping[DropReason, int]
    in_flight_records: int
    queued_bytes: int
    trouble: str | None
    """Why nothing is being taken at the moment."""
    details: Mapping[str, float]
    """The sink's own counters, by the ends of their metric names."""


@dataclass(frozen=True, slots=True)
class View:
    """One look at the whole process. Counts of listeners are mappings that add (`ListenerLedger.snapshot`)."""

    version: str
    listeners: Mapping[str, Mapping[str, float]]
    listener_up: Mapping[str, bool]
    """Whether each listener's port is open."""
    connections_open: Mapping[str, int]
    buffered_bytes: Mapping[str, int]
    durability: Mapping[str, Durability]
    """What each listener asks of the sinks."""
    answering: Sequence[str]
    """Listeners that answer (RELP)."""
    unanswered: Mapping[str, tuple[int, int]]
    """Frames that wait for their answer, and bytes of their records, by listener."""
    connections_limit: int
    paused_connections: int
    paused_by_reason: Mapping[PauseReason, int]
    pauses: Mapping[PauseReason, int]
    pause_seconds: Mapping[PauseReason, float]
    departed_connections: int
    loop_lag: LagView
    clock_steps: Mapping[StepDirection, int]
    budget_limit: int
    budget_used: int
    budget_partials: int
    sinks: Sequence[SinkView]
    conservation: Mapping[str, int]
    """What is not accounted for, by place."""
    reasons: Sequence[str]
    """Why the process is not ready; empty when it is."""
    internal_errors: int
    log_suppressed: int
    log_dropped: int
    uptime_seconds: float
    admin_connections: int
    admin_requests: Mapping[tuple[str, int], int]
    """Answers of the admin endpoint, by route and status code."""

    @property
    def conservation_error(self) -> int:
        """The sum of all that is not accounted for, signs ignored: two errors never cancel out."""
        return sum(abs(error) for error in self.conservation.values())


class _Survey(Protocol):
    def view(self) -> View:
        """Take a look."""


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _labelled(name: str, text: str, label: str, values: Mapping[Any, float], *, gauge: bool = False) -> Metric:
    family = (GaugeMetricFamily if gauge else CounterMetricFamily)(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family


class IngestCollector(Collector):
    """Turns a `View` into metric families."""

    def __init__(self, survey: _Survey) -> None:
        self._survey = survey

    def describe(self) -> Iterable[Metric]:
        """Give nothing: describing would take a look before the service runs."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give every family, each series known in advance included."""
        view = self._survey.view()
        yield InfoMetricFamily(
            "ingest_build",
            "The version that runs, and what finds the ends of its records.",
            value={"version": view.version, "scanner": SCANNER},
        )
        yield from self._totals(view)
        yield from self._by_listener(view)
        yield from _relp(view)
        yield from self._flow(view)
        yield from _admin(view)
        yield from self._sinks(view.sinks)

    def _totals(self, view: View) -> Iterator[Metric]:
        totals: dict[str, float] = {
            name: sum(counts.get(name, 0) for counts in view.listeners.values())
            for name in {name: None for counts in view.listeners.values() for name in counts}
        }

        def reasons(bucket: str, members: Iterable[str]) -> dict[str, float]:
            return {reason: totals.get(f"{bucket}/{reason}", 0) for reason in members}

        yield GaugeMetricFamily(
            "ingest_connections_open", "Connections now.", value=sum(view.connections_open.values())
        )
        yield GaugeMetricFamily("ingest_connections_limit", "Connections allowed.", value=view.connections_limit)
        for name, text, key in (
            ("ingest_connections_opened", "Connections admitted.", "connections_opened"),
            ("ingest_received_bytes", "Bytes read from sockets.", "bytes_received"),
            ("ingest_accepted_bytes", "Bytes of records, delimiters excluded.", "bytes_accepted"),
            ("ingest_framing_bytes", "Bytes of delimiters and of empty records.", "bytes_framing"),
            ("ingest_records", "Records told apart on the wire.", "records_framed"),
            ("ingest_empty_records", "Empty records (keep-alives), which are not delivered.", "records_empty"),
            ("ingest_truncated_records", "Records cut to --max-length.", "records_truncated"),
            ("ingest_partial_records", "Records delivered although their end never came.", "records_partial"),
        ):
            yield _counter(name, text, totals.get(key, 0))
        for name, text, bucket, members in (
            ("ingest_connections_closed", "Connections ended.", "connections_closed", CloseReason),
            ("ingest_connections_refused", "Connections not admitted.", "connections_refused", RefuseReason),
            ("ingest_discarded_bytes", "Bytes that never became a record.", "bytes_discarded", DiscardReason),
        ):
            yield _labelled(name, text, "reason", reasons(bucket, members))
        dropped = reasons("records_dropped", DropReason)
        for sink in view.sinks:
            for reason, lost in sink.dropped_records.items():
                dropped[reason] += lost
        yield _labelled(
            "ingest_dropped_records", "Records lost after framing, once per sink that lost them.", "reason", dropped
        )

    def _by_listener(self, view: View) -> Iterator[Metric]:
        for name, text, key in (
            ("ingest_listener_received_bytes", "Bytes read, by listener.", "bytes_received"),
            ("ingest_listener_records", "Records framed, by listener.", "records_framed"),
            ("ingest_listener_connections_opened", "Connections admitted, by listener.", "connections_opened"),
            (
                "ingest_unread_at_close_bytes",
                "Bytes that waited in the kernel when their connection was closed, whoever closed it; never received.",
                "bytes_unread",
            ),
        ):
            values = {listener: counts[key] for listener, counts in view.listeners.items()}
            yield _labelled(name, text, "listener", values)
        yield _labelled(
            "ingest_listener_up", "Whether the listener's port is open.", "listener", view.listener_up, gauge=True
        )
        for name, text, bucket, label, members in (
            ("ingest_accept_errors", "Connections that could not be accepted.", "accept_errors", "reason", AcceptError),
            (
                "ingest_framing_resyncs",
                "Readings of auto framing that what followed refuted.",
                "framing_resyncs",
                "cause",
                Resync,
            ),
        ):
            yield _counts((name, text, label), view.listeners, bucket, members)
        yield _labelled(
            "ingest_listener_connections_open",
            "Connections now, by listener.",
            "listener",
            view.connections_open,
            gauge=True,
        )
        yield _labelled(
            "ingest_listener_buffered_bytes",
            "Bytes of unfinished records, by listener.",
            "listener",
            view.buffered_bytes,
            gauge=True,
        )

        levels = GaugeMetricFamily(
            "ingest_listener_durability",
            "1 for what the listener's records must have reached before they count as taken.",
            labels=["listener", "level"],
        )
        for listener, asked in view.durability.items():
            for level in Durability:
                levels.add_metric([listener, level.value], int(level is asked))
        yield levels

    def _flow(self, view: View) -> Iterator[Metric]:
        for name, text, value in (
            ("ingest_budget_bytes", "The byte budget (--memory).", view.budget_limit),
            ("ingest_budget_used_bytes", "Bytes charged to the budget.", view.budget_used),
            ("ingest_budget_partial_bytes", "Bytes of it charged for unfinished records.", view.budget_partials),
            ("ingest_paused_connections", "Connections we do not read from for now.", view.paused_connections),
            (
                "ingest_connections_departed",
                "Connections whose peer is gone while we hold back, their bytes yet to be read.",
                view.departed_connections,
            ),
            ("ingest_conservation_error", "Bytes and records not accounted for: must be 0.", view.conservation_error),
            ("ingest_ready", "Whether /readyz says so.", int(not view.reasons)),
            ("ingest_uptime_seconds", "Seconds since the start.", view.uptime_seconds),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        yield from self._pressure(view)
        yield _labelled("ingest_clock_steps", "Times the wall clock was set.", "direction", view.clock_steps)
        yield _counter("ingest_internal_errors", "Exceptions that ended a connection: bugs.", view.internal_errors)
        yield _counter("ingest_log_suppressed", "Own log lines folded by the rate limit.", view.log_suppressed)
        yield _counter("ingest_log_dropped", "Own log lines lost because their reader stalled.", view.log_dropped)

    def _pressure(self, view: View) -> Iterator[Metric]:
        for name, text, values, is_gauge in (
            ("ingest_connections_paused", "Connections not read from now, by reason.", view.paused_by_reason, True),
            ("ingest_pauses", "Pauses begun, by reason.", view.pauses, False),
            ("ingest_pause_seconds", "Seconds of all connections together.", view.pause_seconds, False),
        ):
            yield _labelled(name, text, "reason", values, gauge=is_gauge)
        lag = view.loop_lag
        yield HistogramMetricFamily(
            "ingest_event_loop_lag_seconds",
            "How late the reactor was to a timer, ten times a second.",
            buckets=list(lag.buckets),
            sum_value=lag.sum,
        )

    def _sinks(self, sinks: Sequence[SinkView]) -> Iterator[Metric]:
        for name, text, field, gauge in (
            ("ingest_sink_delivered_records", "Records the sink has taken.", "delivered_records", False),
            ("ingest_sink_delivered_bytes", "Bytes the sink has taken.", "delivered_bytes", False),
            ("ingest_sink_in_flight_records", "Records the sink has yet to take.", "in_flight_records", True),
            ("ingest_sink_queued_bytes", "Bytes charged for them.", "queued_bytes", True),
        ):
            yield _labelled(name, text, "sink", {sink.name: getattr(sink, field) for sink in sinks}, gauge=gauge)
        up = {sink.name: int(sink.trouble is None) for sink in sinks}
        yield _labelled("ingest_sink_up", "Whether the sink takes records at the moment.", "sink", up, gauge=True)
        dropped = CounterMetricFamily(
            "ingest_sink_dropped_records", "Records this sink lost.", labels=["sink", "reason"]
        )
        for sink in sinks:
            for reason, count in sink.dropped_records.items():
                dropped.add_metric([sink.name, reason], count)
        yield dropped
        for detail in sorted({detail for sink in sinks for detail in sink.details}):
            values = {sink.name: sink.details[detail] for sink in sinks if detail in sink.details}
            text = f"Of the sink: {detail.replace('_', ' ')}."
            yield _labelled(f"ingest_sink_{detail}", text, "sink", values, gauge=detail in LEVELS)


def _admin(view: View) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "ingest_admin_connections", "Connections to the admin endpoint now.", value=view.admin_connections
    )
    requests = CounterMetricFamily(
        "ingest_admin_requests", "Requests the admin endpoint has answered.", labels=["route", "code"]
    )
    for (route, code), count in view.admin_requests.items():
        requests.add_metric([route, str(code)], count)
    yield requests


def _relp(view: View) -> Iterator[Metric]:
    """Give what RELP listeners count; the series are there once there is such a listener."""
    if not view.answering:
        return
    of = {name: view.listeners[name] for name in view.answering}
    for name, text, key in (
        ("ingest_relp_acks", "Records answered with 200.", "relp_acks"),
        ("ingest_relp_unanswered_records", "Records whose session ended before its answer.", "relp_unanswered"),
    ):
        yield _labelled(name, text, "listener", {listener: counts[key] for listener, counts in of.items()})
    sessions = {listener: view.connections_open[listener] for listener in of}
    yield _labelled("ingest_relp_sessions", "RELP sessions now.", "listener", sessions, gauge=True)
    for index, name, text in (
        (0, "ingest_relp_waiting_frames", "Frames that wait for their answer."),
        (1, "ingest_relp_waiting_bytes", "Bytes charged for their records."),
    ):
        waiting = {listener: view.unanswered[listener][index] for listener in of}
        yield _labelled(name, text, "listener", waiting, gauge=True)
    for name, text, bucket, label, members in (
        ("ingest_relp_frames", "Frames by command.", "relp_frames", "command", RelpCommand),
        ("ingest_relp_errors", "Sessions ended for a broken rule.", "relp_errors", "reason", RelpError),
    ):
        yield _counts((name, text, label), of, bucket, members)
    yield _ack_seconds(of)


def _counts(
    names: tuple[str, str, str], of: Mapping[str, Mapping[str, float]], bucket: str, members: Iterable[StrEnum]
) -> Metric:
    """Make a family, ``names`` being its name, its text and its label, of one bucket of every listener's counts."""
    name, text, label = names
    family = CounterMetricFamily(name, text, labels=["listener", label])
    for listener, counts in of.items():
        for member in members:
            family.add_metric([listener, member.value], counts[f"{bucket}/{member}"])
    return family


def _ack_seconds(of: Mapping[str, Mapping[str, float]]) -> Metric:
    family = HistogramMetricFamily(
        "ingest_relp_ack_seconds", "Seconds from a record's last byte to its answer.", labels=["listener"]
    )
    for listener, counts in of.items():
        total, buckets = 0.0, []
        for bound in (*ACK_SECONDS, math.inf):
            total += counts[f"relp_ack_seconds/{bound}"]
            buckets.append(("+Inf" if bound == math.inf else str(bound), total))
        family.add_metric([listener], buckets, sum_value=counts["relp_ack_seconds_sum"])
    return family


def build_registry(survey: _Survey) -> CollectorRegistry:
    """Make a registry of our own: the library's global one stays untouched."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(IngestCollector(survey))
    return registry
