"""
From settings to parts: what a service is made of.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

from twisted_ingest.config import checks
from twisted_ingest.config.load import Loaded
from twisted_ingest.config.model import Settings, SpoolSettings
from twisted_ingest.errors import ConfigurationError, Durability, Problem, SpoolPolicy
from twisted_ingest.escaping import escape
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.delivery import OnRejected
from twisted_ingest.flow.intake import Intake
from twisted_ingest.flow.outlet import Outlet
from twisted_ingest.flow.rate import PeerBuckets
from twisted_ingest.interfaces import ISink, ISource
from twisted_ingest.limits import DOORWAY_MEMORY, OPTIONAL_SHARE
from twisted_ingest.observe.events import Events
from twisted_ingest.server.admission import Admission
from twisted_ingest.sinks.dead_letter import DeadLetters
from twisted_ingest.sinks.registry import SinkContext, SinkTable, sink_types
from twisted_ingest.sources.registry import SourceContext, source_types
from twisted_ingest.spool.leftovers import find_leftovers, spool_directory
from twisted_ingest.spool.sink import SpoolSink
from twisted_ingest.units import Rate


class OwnSink(NamedTuple):
    """A sink that an embedding application adds: how it is made, for each start anew, and whether it is required."""

    make: Callable[[], ISink]
    required: bool


def make_sinks(
    settings: Settings, intake: Intake, reactor: Any, events: Events, wall_time: Callable[[], float]
) -> Iterator[tuple[ISink, bool]]:
    """Make the sinks behind an intake; with each whether it is required."""
    for name, sink in settings.sinks.items():
        context = SinkContext(
            reactor, events, wall_time, _relier(settings, name, sink), is_patient=sink.spool, charge=intake.charge
        )
        made = _make_sink(name, sink, context)
        if sink.dead_letter is not None:
            made = DeadLetters(made, sink.dead_letter, reactor=reactor, events=events, wall_time=wall_time)
        if sink.spool:
            made = _put_spool_before(made, settings.spool, reactor, events, wall_time, intake.on_rejected)
        yield made, sink.required


def make_intake(settings: Settings, reactor: Any, events: Events, wall_time: Callable[[], float]) -> Intake:
    """Make the intake, and the sinks behind it."""
    intake = Intake(reactor, Budget(settings.limits.memory), settings.limits.connection_memory)
    intake.on_bug = events.bug
    intake.on_rejected = events.sink_rejected
    intake.on_high = lambda: events.intake_high(intake.budget.used, intake.budget.limit)
    intake.on_low = lambda: events.intake_low(intake.budget.used)
    for sink, is_required in make_sinks(settings, intake, reactor, events, wall_time):
        intake.add_sink(sink, required=is_required)
    share_out(intake)
    return intake


def add_own_sink(intake: Intake, own: OwnSink) -> None:
    """Make a sink of an embedding application and put it behind the intake, with the others."""
    intake.add_sink(own.make(), required=own.required)
    share_out(intake)


def share_out(intake: Intake) -> None:
    """Let the sinks that are not required share what the budget has for them all."""
    optional = [outlet for outlet in intake.outlets if not outlet.required]
    for outlet in optional:
        outlet.limit = int(intake.budget.limit * OPTIONAL_SHARE / len(optional))


def make_sources(
    settings: Settings,
    reactor: Any,
    wall_time: Callable[[], float],
    *,
    intake: Intake,
    admission: Admission,
    events: Events,
) -> list[ISource]:
    """Make the sources; they share the intake and the admission."""
    ids = count(1)
    return [
        source_types()[table.word].make(
            name,
            table,
            SourceContext(reactor, events, wall_time, ids, settings.listener_limits(name), intake, admission),
        )
        for name, table in settings.inputs.items()
    ]


def _relier(settings: Settings, sink_name: str, sink: SinkTable) -> str | None:
    """Name a listener that relies on syncs of this sink; a spool in front of one keeps what it cannot."""
    if sink.required and not sink.spool:
        for name in settings.listeners:
            if settings.durability(name).covers(Durability.FSYNC) and sink_name in settings.sinks_of(name):
                return f"listener {name} (durability {settings.durability(name).value})"
    return None


def _make_sink(name: str, table: SinkTable, context: SinkContext) -> ISink:
    """Make a sink. Raises `ConfigurationError` where the code of a kind, which may be another's, makes none."""
    types = sink_types()
    try:
        made = types[table.type].make(name, table, context)
        if ISink.providedBy(made):
            return made
        reason = f"{type(made).__name__} is no ISink"
    except Exception as error:  # noqa: BLE001 - it may be anything
        reason = f"{type(error).__name__}: {error}"
    blame = f"{types.owner(table.type)} cannot make it, type {table.type!r}: {escape(reason)}"
    raise ConfigurationError([Problem(f"sink {name!r}", blame)])


def _put_spool_before(  # noqa: PLR0917
    sink: ISink,
    spool: SpoolSettings,
    reactor: Any,
    events: Events,
    wall_time: Callable[[], float],
    on_rejected: OnRejected,
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
        on_rejected=on_rejected,
    )


def check_sinks(settings: Settings, outlets: Sequence[Outlet]) -> None:
    """
    See that the sinks, those of an embedding application included, give what the listeners promise.

    Raises `ConfigurationError` where they do not, where none is required, and where two have the same name.
    """
    names = [outlet.sink.name for outlet in outlets]
    found = [Problem(f"sink {name!r}", "another sink has the same name") for name in {*names} if names.count(name) > 1]
    if not any(outlet.required for outlet in outlets):
        found.append(Problem("sinks", "none is required, so every record may be dropped: add one with required=True"))
    for source, table in settings.inputs.items():
        unknown = [name for name in table.sinks or () if name not in names]
        found += [Problem(f"source {source!r}", f"it names a sink {name!r} that there is not") for name in unknown]
    for listener, wanted in settings.promises().items():
        chosen = settings.listeners[listener].sinks
        found += [
            Problem(
                f"listener {listener!r}",
                f"it asks for durability {wanted.value!r}, and the required sink {outlet.sink.name!r} gives "
                f"{outlet.sink.durability.value!r}: add it with required=False, or set "
                f"durability = {outlet.sink.durability.value!r} on the listener",
            )
            for outlet in outlets
            if outlet.required and not outlet.sink.durability.covers(wanted)
            if chosen is None or outlet.sink.name in chosen
        ]
    if found:
        raise ConfigurationError(found)


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
        doorway_memory=int(limits.memory * DOORWAY_MEMORY),
    )


def limit_origins(loaded: Loaded, connections: int) -> dict[str, dict[str, object]]:
    """List the limits of the process and where each comes from, for ``/status``."""
    limits = loaded.settings.limits
    found: dict[str, dict[str, object]] = {}
    for name in type(limits).model_fields:
        value = connections if name == "max_connections" else getattr(limits, name)
        value = loaded.secrets.references.get(("limits", name), str(value) if isinstance(value, Rate) else value)
        found[name] = {"value": value, "from": loaded.origin("limits", name)}
    return found
