"""
What one setting alone cannot say: limits that must hold together, addresses that can be parsed.
"""

import os
import resource
from collections.abc import Iterator

from twisted_ingest.config.addresses import endpoint_problem
from twisted_ingest.config.fields import OFF
from twisted_ingest.config.meant import nearest
from twisted_ingest.config.model import Settings
from twisted_ingest.config.overlaps import overlaps
from twisted_ingest.config.positions import Path
from twisted_ingest.errors import Durability
from twisted_ingest.limits import ADMIN_CONNECTIONS, DESCRIPTOR_SHARE, KIB, MAX_CONNECTIONS, READ_SIZE
from twisted_ingest.sinks.registry import Place, SinkTable, sink_types
from twisted_ingest.sources.registry import source_types
from twisted_ingest.spool.sink import SpoolSink
from twisted_ingest.units import exact_size

LEAST_DESCRIPTORS = 256
"""What is asked for where there are too few: a server of 192 connections."""

RESERVED_DESCRIPTORS = 32
"""Descriptors for everything but connections: sinks, listeners, the log."""

SPOOLED_BATCHES = 4
"""Batches of the largest size that a spool must hold: one for each of the segments that a small one is divided into."""


def problems(settings: Settings, *, has_own_sinks: bool = False) -> Iterator[tuple[tuple[Path, ...], str]]:
    """
    Give the message of every mistake, and the paths it may be mended at: the likeliest first.

    With ``has_own_sinks`` an application adds sinks, which are not looked at here.
    """
    yield from _memory(settings)
    yield from _connections(settings)
    yield from _rates(settings)
    if not has_own_sinks:
        yield from _required(settings)
        yield from _routes(settings)
    yield from _sinks(settings)
    yield from _names(settings)
    yield from _answers(settings)
    yield from _spool(settings)
    yield from _endpoints(settings)


def _endpoints(settings: Settings) -> Iterator[tuple[tuple[Path, ...], str]]:
    places: dict[Path, tuple[str, str]] = {
        ("listeners", name, "endpoint"): (listener.endpoint, f"listener {name!r}")
        for name, listener in settings.listeners.items()
    }
    if settings.admin.endpoint != OFF:
        places["admin", "endpoint"] = (settings.admin.endpoint, "admin")
    good = dict(places)
    for path, (endpoint, _) in places.items():
        message = endpoint_problem(endpoint, (OFF,) if path[0] == "admin" else ())
        if message is not None:
            del good[path]
            yield (path,), message
    for path, message in overlaps(good):
        yield (path,), message


def _memory(settings: Settings) -> Iterator[tuple[tuple[Path, ...], str]]:
    limits = settings.limits
    lengths: dict[Path, int] = {("limits", "max_length"): limits.max_length}
    for name, table in settings.inputs.items():
        length: int | None = getattr(table, "max_length", None)
        if length is not None:
            lengths[source_types()[table.word].section, name, "max_length"] = length
    for path, length in lengths.items():
        if length + READ_SIZE > limits.connection_memory:
            yield (
                (path, ("limits", "connection_memory")),
                f"max_length {exact_size(length)} and one read of {exact_size(READ_SIZE)} do not fit in "
                f"connection_memory {exact_size(limits.connection_memory)}: "
                f"raise connection_memory to {_whole_kib(length + READ_SIZE)} or lower max_length",
            )
    if limits.connection_memory > limits.memory // 2:
        yield (
            (("limits", "connection_memory"), ("limits", "memory")),
            f"connection_memory {exact_size(limits.connection_memory)} is more than half of "
            f"memory {exact_size(limits.memory)}: "
            f"raise memory to {_whole_kib(limits.connection_memory * 2)} or lower connection_memory",
        )


def _whole_kib(size: int) -> str:
    """Round up to what an operator would write."""
    return exact_size(-(-size // KIB) * KIB)


def descriptor_limit() -> int:
    """Give the limit on descriptors; a daemon has raised it as far as it can be, before it reads its configuration."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


def admin_connections(settings: Settings) -> int:
    """Give the cap on connections to the admin endpoint: less where there are few descriptors, none where it is off."""
    if settings.admin.endpoint == OFF:
        return 0
    return most_admin_connections(descriptor_limit())


def most_admin_connections(descriptors: int) -> int:
    """Give the cap on connections to the admin endpoint where there may be so many descriptors in all."""
    return min(ADMIN_CONNECTIONS, max(2, descriptors // 16))


def reserved_descriptors(settings: Settings) -> int:
    """Give the descriptors that connections of listeners may not have; the admin endpoint's may be closing as well."""
    return RESERVED_DESCRIPTORS + 2 * admin_connections(settings)


def most_connections(descriptors: int) -> int:
    """Give the most connections that may be asked for beside an admin endpoint, with so many descriptors in all."""
    return descriptors - RESERVED_DESCRIPTORS - 2 * most_admin_connections(descriptors)


def max_connections(settings: Settings) -> int:
    """Give the cap on connections: as configured, or from the descriptor limit."""
    configured, limit = settings.limits.max_connections, descriptor_limit()
    most = min(MAX_CONNECTIONS, int(limit * DESCRIPTOR_SHARE), limit - reserved_descriptors(settings))
    return configured or max(1, most)


def _connections(settings: Settings) -> Iterator[tuple[tuple[Path, ...], str]]:
    wanted, limit, reserved = max_connections(settings), descriptor_limit(), reserved_descriptors(settings)
    if reserved >= limit:
        yield (
            (("limits", "max_connections"),),
            f"the limit of {limit} descriptors leaves none for connections, {reserved} are needed besides: "
            f"raise it to {LEAST_DESCRIPTORS} or more (ulimit -Hn, LimitNOFILE=)",
        )
    elif wanted + reserved > limit:
        yield (
            (("limits", "max_connections"),),
            f"{wanted} connections need {wanted + reserved} descriptors, and the limit is {limit}: "
            f"raise it (ulimit -Hn, LimitNOFILE=) or set max_connections to {max(1, limit - reserved)}",
        )


def _rates(settings: Settings) -> Iterator[tuple[tuple[Path, ...], str]]:
    rate = settings.limits.connection_rate_per_peer
    if rate is not None and rate.is_of_bytes:
        yield (("limits", "connection_rate_per_peer"),), f'{rate}: connections are counted, not bytes (try "10/s")'


def _names(settings: Settings) -> Iterator[tuple[tuple[Path, ...], str]]:
    for name in settings.listeners.keys() & settings.sources.keys():
        yield (
            (("sources", name),),
            f"a listener is named {name!r} too: their counts would be one (rename one of the two)",
        )


def _answers(settings: Settings) -> Iterator[tuple[tuple[Path, ...], str]]:
    """Refuse what would make an answer a lie, and what a client that waits for answers could not live with."""
    for name, table in settings.inputs.items():
        kind = source_types()[table.word]
        for key, problem in kind.problems(table, settings.listener_limits(name)):
            yield ((kind.section, name, key), ("limits", key)), problem
    for name, wanted in settings.promises().items():
        for sink_name, sink in settings.sinks_of(name).items():
            able = SpoolSink.durability if sink.spool else sink_types()[sink.type].durability
            if sink.required and not able.covers(wanted):
                yield (
                    (("listeners", name, "durability"), ("listeners", name), ("sinks", sink_name)),
                    f"listener {name!r} asks for durability {wanted.value!r}, and the required sink {sink_name!r} "
                    f"({sink.type}) {_ability(sink, able, wanted)}, "
                    f"set required = false on it, or set durability = {able.value!r} on the listener",
                )


def _ability(sink: SinkTable, able: Durability, wanted: Durability) -> str:
    """Say what a sink gives that is less than wanted, and what of that sink would have to be changed."""
    if not sink.spool:
        most = f"can give {able.value!r} at most"
        fix = "put a spool in front of that sink (spool = true)"
        return f"{most}: {fix}" if SpoolSink.durability.covers(wanted) else f"{most}: use a sink that answers (relp)"
    if sink_types()[sink.type].durability.covers(wanted):
        return f"has a spool in front, which answers with {able.value!r} before that: take the spool away"
    return f"has a spool in front, which gives {able.value!r} at most: use a sink that answers (relp), without a spool"


def _routes(settings: Settings) -> Iterator[tuple[tuple[Path, ...], str]]:
    """See that the sinks that a source names are there, and that one of them is required."""
    for name, table in settings.inputs.items():
        path = (source_types()[table.word].section, name, "sinks")
        unknown = [sink for sink in table.sinks or () if sink not in settings.sinks]
        if unknown:
            # Their paths too: a sink that was left out for a mistake of its own is not missed a second time.
            paths = (path, *(("sinks", sink) for sink in unknown))
            yield paths, f"sinks: no sink is named {unknown[0]!r}{nearest(unknown[0], list(settings.sinks))}"
        elif table.sinks and not any(sink.required for sink in settings.sinks_of(name).values()):
            yield (
                (path, *(("sinks", sink) for sink in table.sinks)),
                "sinks: none of them is required, so every record may be dropped: set required = true on one",
            )


def unnamed_sinks(settings: Settings) -> list[str]:
    """Give the sinks that no source names, where each names its own."""
    used = {sink for name in settings.inputs for sink in settings.sinks_of(name)}
    return [name for name in settings.sinks if name not in used]


def _required(settings: Settings) -> Iterator[tuple[tuple[Path, ...], str]]:
    if settings.sinks and not any(sink.required for sink in settings.sinks.values()):
        # Any sink would do. With ("sinks",) this is not said where one was left out for a mistake of its own: it may be
        # the required one.
        paths = (*(("sinks", name) for name in settings.sinks), ("sinks",))
        yield paths, "no sink is required, so every record may be dropped: set required = true on one"


def _sinks(settings: Settings) -> Iterator[tuple[tuple[Path, ...], str]]:
    taken: dict[str, str] = {}
    for name, sink in settings.sinks.items():
        kind = sink_types()[sink.type]
        for key, problem in kind.problems(sink):
            yield (("sinks", name, key), ("sinks", name)), problem
        for place in map(_real, kind.all_places(sink)):
            if place in taken:
                yield (("sinks", name),), f"{place} is written to by sink {taken[place]!r} already"
            taken.setdefault(place, name)


def _real(place: Place) -> str:
    """Give what is the same for whatever means the same place."""
    return place.what if place.key is None else os.path.realpath(place.what)


def _spool(settings: Settings) -> Iterator[tuple[tuple[Path, ...], str]]:
    spooled = [name for name, sink in settings.sinks.items() if sink.spool]
    if "spool" in settings.model_fields_set and not spooled:
        # With ("sinks",) this is not said where one was left out for a mistake of its own: it may have a spool.
        paths = (("spool",), ("sinks",), *(("sinks", name) for name in settings.sinks))
        yield paths, "[spool] does nothing: no sink has spool = true (set it on the sinks that need a durable queue)"
    wanted = settings.limits.connection_memory * SPOOLED_BATCHES
    if spooled and settings.spool.max_bytes < wanted:
        yield (
            (("spool", "max_bytes"), ("limits", "connection_memory")),
            f"max_bytes {exact_size(settings.spool.max_bytes)} is less than {SPOOLED_BATCHES} times "
            f"connection_memory {exact_size(settings.limits.connection_memory)}: "
            f"raise max_bytes to {_whole_kib(wanted)} or lower connection_memory",
        )
