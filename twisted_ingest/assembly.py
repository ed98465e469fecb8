"""
From settings to parts: what a service is made of.
"""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from twisted_ingest.config import checks
from twisted_ingest.config.load import Loaded
from twisted_ingest.config.model import FileSettings, Settings, SinkSettings, SpoolSettings, StdoutSettings
from twisted_ingest.errors import Durability, SpoolPolicy
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.intake import Intake
from twisted_ingest.flow.rate import PeerBuckets
from twisted_ingest.interfaces import ISink
from twisted_ingest.limits import OPTIONAL_SHARE
from twisted_ingest.observe.events import Events
from twisted_ingest.server.admission import Admission
from twisted_ingest.server.listener import FACTORIES, Listener
from twisted_ingest.sinks.access import FileAccess
from twisted_ingest.sinks.null import NullSink
from twisted_ingest.sinks.writing import FileSink, StdoutSink
from twisted_ingest.spool.leftovers import find_leftovers, spool_directory
from twisted_ingest.spool.sink import SpoolSink
from twisted_ingest.units import Rate


def make_sinks(
    settings: Settings, reactor: Any, events: Events, wall_time: Callable[[], float]
) -> Iterator[tuple[ISink, bool, float]]:
    """Make the sinks; with each whether it is required, and the share of the budget where it is not."""
    optional = sum(not sink.required for sink in settings.sinks.values()) or 1
    for name, sink in settings.sinks.items():
        made = _make_sink(name, sink, _relier(settings, sink), reactor, events)
        if sink.spool:
            made = _put_spool_before(made, settings.spool, reactor, events, wall_time)
        yield made, sink.required, OPTIONAL_SHARE / optional


def make_intake(settings: Settings, reactor: Any, events: Events, wall_time: Callable[[], float]) -> Intake:
    """Make the intake, and the sinks behind it."""
    intake = Intake(reactor, Budget(settings.limits.memory), settings.limits.connection_memory)
    intake.on_bug = events.bug
    intake.on_rejected = events.sink_rejected
    intake.on_high = lambda: events.intake_high(intake.budget.used, intake.budget.limit)
    intake.on_low = lambda: events.intake_low(intake.budget.used)
    for sink, is_required, share in make_sinks(settings, reactor, events, wall_time):
        intake.add_sink(sink, required=is_required, share=share)
    return intake


def make_listeners(settings: Settings, clock: Any, wall_time: Callable[[], float], **parts: Any) -> list[Listener]:
    """Make the listeners; ``parts`` are the intake, the admission and the events that they share."""
    ids = count(1)
    return [
        Listener(
            listener.endpoint,
            FACTORIES[listener.protocol](
                name, settings.listener_limits(name), clock=clock, wall_time=wall_time, ids=ids, **parts
            ),
        )
        for name, listener in settings.listeners.items()
    ]


def _relier(settings: Settings, sink: SinkSettings) -> str | None:
    """Name a listener that relies on syncs of this sink; a spool in front of one keeps what it cannot."""
    if sink.required and not sink.spool:
        for name in settings.listeners:
            if settings.durability(name) is Durability.FSYNC:
                return f"listener {name} (durability fsync)"
    return None


def _make_sink(name: str, sink: SinkSettings, sync_for: str | None, reactor: Any, events: Events) -> ISink:
    match sink:
        case FileSettings():
            return FileSink(
                name,
                sink.path,
                reactor=reactor,
                events=events,
                fsync=sink.fsync,
                format=sink.format,
                access=FileAccess(sink.mode, sink.owner, sink.group),
                sync_for=sync_for,
                is_patient=sink.spool,
            )
        case StdoutSettings():
            return StdoutSink(name, reactor=reactor, events=events, format=sink.format)
        case _:
            return NullSink(name)


def _put_spool_before(
    sink: ISink, spool: SpoolSettings, reactor: Any, events: Events, wall_time: Callable[[], float]
) -> ISink:
    return SpoolSink(
        sink,
        spool_directory(spool.directory, sink.name),
        reactor=reactor,
        events=events,
        wall_time=wall_time,
        max_bytes=spool.max_bytes,
        free_space_floor=spool.free_space_floor or 0,
        drops_oldest=spool.policy is SpoolPolicy.DROP_OLDEST,
    )


def tell_leftovers(settings: Settings, events: Events) -> None:
    """Warn of records that wait in the spools' directory for sinks that are not there."""
    spooled = [name for name, sink in settings.sinks.items() if sink.spool]
    try:
        for found in find_leftovers(settings.spool.directory, spooled):
            events.spool_left_over(found)
    except OSError:
        # No directory, or none of ours. Where a spool needs it, its own start has said so.
        return


def make_admission(settings: Settings) -> Admission:
    """Make the caps on connections."""
    limits = settings.limits
    arrivals = limits.connection_rate_per_peer
    return Admission(
        checks.max_connections(settings),
        limits.max_connections_per_peer,
        descriptors=checks.descriptor_limit() - checks.reserved_descriptors(settings),
        arrivals=None if arrivals is None else PeerBuckets(arrivals.per_second),
        peer_prefix_ipv6=limits.peer_prefix_ipv6,
    )


def limit_origins(loaded: Loaded, connections: int) -> dict[str, dict[str, object]]:
    """List the limits of the process and where each comes from, for ``/status``."""
    limits = loaded.settings.limits
    found: dict[str, dict[str, object]] = {}
    for name in type(limits).model_fields:
        value = connections if name == "max_connections" else getattr(limits, name)
        value = str(value) if isinstance(value, Rate) else value
        found[name] = {"value": value, "from": loaded.origin("limits", name)}
    return found
