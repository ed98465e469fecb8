"""What is looked at once a second, and what it says in the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

KIB = 1024
MIB = KIB * KIB
WARM_UP_SECONDS = 300.0
"""Seconds that the slope leaves out, or a quarter of the soak where that is less: a process grows as it warms."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look."""

    seconds: float
    rss: int
    descriptors: int
    connections: float
    paused: float
    conservation_error: float
    records: float
    budget_used: float


def slope(samples: Sequence[Sample], minutes: float) -> float:
    """Give the growth of resident memory in KiB per ten minutes: least squares over what follows the warm-up."""
    begin = min(WARM_UP_SECONDS, minutes * 60 / 4)
    late = [sample for sample in samples if sample.seconds >= begin]
    if len(late) < 2:
        return 0.0
    mean_time = sum(sample.seconds for sample in late) / len(late)
    mean_rss = sum(sample.rss for sample in late) / len(late)
    over = sum((sample.seconds - mean_time) * (sample.rss - mean_rss) for sample in late)
    under = sum((sample.seconds - mean_time) ** 2 for sample in late)
    return over / under * 600 / KIB


def by_reason(metrics: Mapping[str, float], name: str) -> str:
    """Write the counts of a metric by reason, those that are not zero."""
    found = {key[len(name) + 1 : -1]: value for key, value in metrics.items() if key.startswith(f"{name}[") and value}
    return ", ".join(f"{reason} {value:,.0f}" for reason, value in sorted(found.items())) or "none"


def summary(minutes: float, samples: Sequence[Sample], metrics: Mapping[str, float]) -> dict[str, str]:
    """Write what the samples and the last look at the metrics say, for a table."""
    rss = [sample.rss for sample in samples]
    return {
        "minutes": f"{minutes:g}",
        "connections": f"{metrics['ingest_connections_opened_total']:,.0f}",
        "records": f"{metrics['ingest_records_total']:,.0f}",
        "bytes": f"{metrics['ingest_received_bytes_total'] / MIB:,.0f} MiB",
        "conservation error, the most ever": f"{max(sample.conservation_error for sample in samples):g}",
        "resident memory": f"{min(rss) / MIB:.1f} to {max(rss) / MIB:.1f} MiB",
        "its slope after the warm-up": f"{slope(samples, minutes):+,.0f} KiB per 10 minutes",
        "connections paused at a time, the most": f"{max(sample.paused for sample in samples):,.0f}",
        "closed": by_reason(metrics, "ingest_connections_closed_total"),
        "refused": by_reason(metrics, "ingest_connections_refused_total"),
        "records dropped": by_reason(metrics, "ingest_dropped_records_total"),
        "bytes discarded": by_reason(metrics, "ingest_discarded_bytes_total"),
        "own log lines folded": f"{metrics['ingest_log_suppressed_total']:,.0f}",
        "internal errors": f"{metrics['ingest_internal_errors_total']:,.0f}",
    }


def as_columns(samples: Sequence[Sample]) -> dict[str, list[float]]:
    """Give the samples as JSON takes them in little room: a list for each thing that was looked at."""
    return {field.name: [round(getattr(sample, field.name), 1) for sample in samples] for field in fields(Sample)}


def from_columns(columns: Mapping[str, Sequence[float]]) -> list[Sample]:
    """Give the samples back that `as_columns` was given, rounded as they are there."""
    return [Sample(*values) for values in zip(*(columns[field.name] for field in fields(Sample)), strict=True)]
