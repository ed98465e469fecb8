"""
The parts of the document behind ``/status``: a view in the words of JSON, with what the sources say of themselves.
"""

from collections.abc import Sequence
from typing import Any

from twisted_ingest.flow.watermark import Watermark
from twisted_ingest.interfaces import IListener, ISource
from twisted_ingest.observe.view import ListenerView, SinkView, View


def of_process(view: View) -> dict[str, Any]:
    """Say how the process is, and what became of the records."""
    return {
        "ready": not view.reasons,
        "reasons": list(view.reasons),
        "uptime_seconds": round(view.uptime_seconds, 3),
        "connections": {
            "open": view.connections_open,
            "limit": view.connections_limit,
            "paused": view.paused_connections,
            "paused_by_reason": view.paused_by_reason,
            "departed": view.departed_connections,
        },
        "sinks": [_sink(name, sink) for name, sink in view.sinks.items()],
        "conservation": {"error": view.conservation_error, "by_place": view.conservation},
    }


def of_budget(view: View, mark: Watermark) -> dict[str, Any]:
    """Say how full the budget is, and where reading stops."""
    return {
        "limit_bytes": view.budget_limit,
        "used_bytes": view.budget_used,
        "partial_bytes": view.budget_partials,
        "connections_bytes": view.budget_standing,
        "high_bytes": mark.high,
        "low_bytes": mark.low,
        "reading_stopped": mark.is_high,
    }


def of_sources(view: View, sources: Sequence[ISource]) -> dict[str, Any]:
    """Give a row for each source: those that others connect to, and apart from them those that ask others."""
    listeners = [source for source in sources if IListener.providedBy(source)]
    asking = [source for source in sources if not IListener.providedBy(source)]
    rows = [{**source.status(), **_counts(view.listeners[source.name])} for source in asking]
    return {
        "listeners": [
            {**source.status(), **_connections(view.listeners[source.name]), **_counts(view.listeners[source.name])}
            for source in listeners
        ],
        "http": {"active_pollers": sum(bool(row.get("running")) for row in rows), "pollers": rows},
    }


def _connections(listener: ListenerView) -> dict[str, Any]:
    return {
        "connections_open": listener.connections_open,
        "doorways_open": listener.doorways_open,
        "unanswered_frames": listener.unanswered_frames,
        "unanswered_bytes": listener.unanswered_bytes,
    }


def _counts(source: ListenerView) -> dict[str, Any]:
    return {"bytes_buffered": source.buffered_bytes, "counts": source.counts}


def _sink(name: str, sink: SinkView) -> dict[str, Any]:
    return {
        "name": name,
        "to": sink.description,
        "required": sink.required,
        "trouble": sink.trouble,
        "delivered_records": sink.delivered_records,
        "delivered_bytes": sink.delivered_bytes,
        "in_flight_records": sink.in_flight_records,
        "queued_bytes": sink.queued_bytes,
        "dropped_records": sink.dropped_records,
        **sink.details,
    }
