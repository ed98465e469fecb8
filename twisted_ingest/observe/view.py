"""
What one look at a process sees, as values that add: nothing of it changes, and none of it is a live object.

A field says how it adds, and as which metric it shows; what listeners count is in `twisted_ingest.observe.counts`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce

from twisted_ingest.errors import DropReason, Durability, PauseReason, ReloadResult
from twisted_ingest.observe.adding import (
    ANY,
    COUNT,
    COUNTS,
    EVER,
    EVERY,
    HIGHEST,
    LEVEL,
    LEVELS,
    SOONEST,
    TEXTS,
    Adds,
    Exposure,
    Rule,
    adds,
    parts,
)
from twisted_ingest.observe.details import OF_SINK
from twisted_ingest.observe.lag import LAG, LagView
from twisted_ingest.observe.steps import StepDirection


def _weaker(one: Durability | None, other: Durability | None) -> Durability | None:
    if one is None or other is None:
        return one or other
    return other if one.covers(other) else one


WEAKEST = Rule(lambda: None, _weaker, read=lambda plain: plain and Durability(plain))
"""What is promised: the weakest of all; ``None``: nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerView(Adds):
    """One look at one source."""

    counts: Mapping[str, float] = adds(COUNTS)
    """See `ListenerLedger.snapshot`."""
    is_up: bool | None = adds(
        EVERY, Exposure("ingest_listener_up", "Whether the port is open, or the last poll went well.")
    )
    """``None`` for one that is gone."""
    connections_open: int = adds(LEVEL, Exposure("ingest_listener_connections_open", "Connections now, by listener."))
    doorways_open: int = adds(
        LEVEL, Exposure("ingest_doorways_open", "Newcomers that have yet to be admitted, by listener.")
    )
    handshakes_active: int = adds(LEVEL)
    """Newcomers whose TLS handshake is under way."""
    certificate_not_after: float | None = adds(
        SOONEST,
        Exposure(
            "ingest_tls_certificate_not_after_timestamp_seconds",
            "When the certificate of the listener expires, Unix time.",
        ),
    )
    """``None`` where there is none."""
    tls_reloads: Mapping[ReloadResult, int] = adds(COUNTS)
    """How often its certificate was read anew, by what became of it."""
    buffered_bytes: int = adds(
        LEVEL, Exposure("ingest_listener_buffered_bytes", "Bytes of unfinished records, by listener.")
    )
    durability: Durability | None = adds(WEAKEST)
    """What it asks of the sinks."""
    answers: bool = adds(ANY)
    """Whether it answers (RELP)."""
    unanswered_frames: int = adds(LEVEL)
    """Frames that wait for their answer."""
    unanswered_bytes: int = adds(LEVEL)
    """Bytes of their records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkView(Adds):
    """One look at one sink."""

    descriptions: tuple[str, ...] = adds(TEXTS)
    required: bool = adds(EVER)
    is_up: bool | None = adds(EVERY, Exposure("ingest_sink_up", "Whether the sink takes records at the moment."))
    """``None`` for one that is gone."""
    troubles: tuple[str, ...] = adds(TEXTS)
    """Why nothing is being taken at the moment."""
    delivered_records: int = adds(COUNT, Exposure("ingest_sink_delivered_records", "Records the sink has taken."))
    delivered_bytes: int = adds(COUNT, Exposure("ingest_sink_delivered_bytes", "Bytes the sink has taken."))
    dropped_records: Mapping[DropReason, int] = adds(
        COUNTS, Exposure("ingest_sink_dropped_records", "Records this sink lost.", "reason")
    )
    in_flight_records: int = adds(LEVEL, Exposure("ingest_sink_in_flight_records", "Records the sink has yet to take."))
    queued_bytes: int = adds(LEVEL, Exposure("ingest_sink_queued_bytes", "Bytes charged for them."))
    details: Mapping[str, float] = adds(OF_SINK)
    """The sink's own counters, by the ends of their metric names."""

    @property
    def description(self) -> str:
        """Where records go."""
        return "; ".join(self.descriptions)

    @property
    def trouble(self) -> str | None:
        """Why nothing is being taken at the moment, in one text."""
        return "; ".join(self.troubles) or None


@dataclass(frozen=True, slots=True, kw_only=True)
class View(Adds):
    """One look at a whole process, or at the sum of several."""

    builds: tuple[str, ...] = adds(TEXTS)
    """The version that runs and the scanner it found, each in a word."""
    reasons: tuple[str, ...] = adds(TEXTS)
    """Why the process is not ready; empty when it is."""
    missing: Mapping[str, int] = adds(LEVELS)
    """Bytes and records that are not accounted for, by place."""
    surplus: Mapping[str, int] = adds(LEVELS)
    """Those accounted for that never came. Apart from the missing, so that two errors never cancel out."""
    listeners: Mapping[str, ListenerView] = adds(parts(ListenerView))
    sinks: Mapping[str, SinkView] = adds(parts(SinkView))

    connections_limit: int = adds(LEVEL, Exposure("ingest_connections_limit", "Connections allowed."))
    departed_connections: int = adds(
        LEVEL,
        Exposure(
            "ingest_connections_departed",
            "Connections whose peer is gone while we hold back, their bytes yet to be read.",
        ),
    )
    paused_connections: int = adds(
        LEVEL, Exposure("ingest_paused_connections", "Connections we do not read from for now.")
    )
    paused_by_reason: Mapping[PauseReason, int] = adds(
        LEVELS, Exposure("ingest_connections_paused", "Connections not read from now, by reason.", "reason")
    )
    pauses: Mapping[PauseReason, int] = adds(COUNTS, Exposure("ingest_pauses", "Pauses begun, by reason.", "reason"))
    pause_seconds: Mapping[PauseReason, float] = adds(
        COUNTS, Exposure("ingest_pause_seconds", "Seconds of all connections together.", "reason")
    )
    budget_limit: int = adds(LEVEL, Exposure("ingest_budget_bytes", "The byte budget (--memory)."))
    budget_used: int = adds(LEVEL, Exposure("ingest_budget_used_bytes", "Bytes charged to the budget."))
    budget_standing: int = adds(
        LEVEL,
        Exposure("ingest_budget_connections_bytes", "Bytes kept free for what connections take by being there (TLS)."),
    )
    budget_partials: int = adds(
        LEVEL, Exposure("ingest_budget_partial_bytes", "Bytes of it charged for unfinished records.")
    )
    slabs_given_up: int = adds(
        COUNT,
        Exposure(
            "ingest_slabs_given_up",
            "Receive buffers left to the garbage collector, since a sink kept a view of one for too long.",
        ),
    )
    uptime_seconds: float = adds(HIGHEST, Exposure("ingest_uptime_seconds", "Seconds since the start."))
    loop_lag: LagView = adds(LAG)
    clock_steps: Mapping[StepDirection, int] = adds(
        COUNTS, Exposure("ingest_clock_steps", "Times the wall clock was set.", "direction")
    )
    internal_errors: int = adds(COUNT, Exposure("ingest_internal_errors", "Exceptions that ended a connection: bugs."))
    log_suppressed: int = adds(COUNT, Exposure("ingest_log_suppressed", "Own log lines folded by the rate limit."))
    log_dropped: int = adds(COUNT, Exposure("ingest_log_dropped", "Own log lines lost because their reader stalled."))
    admin_connections: int = adds(LEVEL, Exposure("ingest_admin_connections", "Connections to the admin endpoint now."))
    admin_requests: Mapping[str, int] = adds(
        COUNTS, Exposure("ingest_admin_requests", "Requests the admin endpoint has answered.", "route code")
    )

    @property
    def conservation_error(self) -> int:
        """The sum of all that is not accounted for, signs ignored."""
        return sum(self.missing.values()) + sum(self.surplus.values())

    @property
    def conservation(self) -> dict[str, int]:
        """What is not accounted for, by place: above zero what is missing."""
        return {place: count - self.surplus.get(place, 0) for place, count in self.missing.items()}

    @property
    def connections_open(self) -> int:
        """Connections of all listeners."""
        return sum(listener.connections_open for listener in self.listeners.values())

    def totals(self) -> Mapping[str, float]:
        """Give all that listeners have counted, summed up by name."""
        counts = [listener.counts for listener in self.listeners.values()]
        return reduce(COUNTS.add, counts) if counts else {}

    def total(self, name: str) -> float:
        """Give what all listeners have counted of something (`ListenerLedger.snapshot`)."""
        return sum(listener.counts.get(name, 0) for listener in self.listeners.values())

    def dropped(self, reason: DropReason) -> int:
        """Give the records lost for a reason: before the sinks, and by each sink that lost them."""
        by_sinks = sum(sink.dropped_records.get(reason, 0) for sink in self.sinks.values())
        return int(self.total(f"records_dropped/{reason}")) + by_sinks

    def at(self, where: str) -> "View":
        """Say of everything that is wrong where that is, so that it can be told apart in a sum."""
        return replace(
            self,
            reasons=tuple(f"{where}: {reason}" for reason in self.reasons),
            missing={f"{where}: {place}": count for place, count in self.missing.items()},
            surplus={f"{where}: {place}": count for place, count in self.surplus.items()},
        )
