"""
What lies in the spools' directory for sinks that are not there: renamed, taken away, or left without their spool.
"""

import os
from collections.abc import Collection, Iterator

from twisted_ingest.spool.body import ForeignError
from twisted_ingest.spool.disk import Disk, RealDisk
from twisted_ingest.spool.recovery import look
from twisted_ingest.spool.scan import Report
from twisted_ingest.spool.segments import LOCK, parse_name
from twisted_ingest.units import format_size

_PREFIX = "sink-"


def spool_directory(base: str, sink: str) -> str:
    """Give the directory of a sink's spool. The prefix is there because a sink may be named ``..``."""
    return os.path.join(os.path.abspath(base), f"{_PREFIX}{sink}")


def find_leftovers(base: str, sinks: Collection[str]) -> Iterator[str]:
    """
    Say, in one line for each, which spools below ``base`` hold records for nobody of ``sinks``, and what to do.

    Nothing is changed. It takes as long as a start of those spools would. One that another process uses is passed over.
    """
    disk = RealDisk()
    for name in _others(base, sinks):
        directory = spool_directory(base, name)
        try:
            if _is_used(disk, directory):
                continue
            report = look(disk, directory).recovered.report
        except (ForeignError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            yield f"{directory} is no sink's, and cannot be looked through: {reason}; {_fix(name)}"
            continue
        if report.unreadable:
            yield (
                f"{directory} is no sink's, and cannot be looked through: a segment is unreadable: "
                f"{', '.join(report.unreadable)}; {_fix(name)}"
            )
        elif report.size or report.quarantined_bytes:
            yield f"{directory}: {_waiting(report)} for a spooled sink {name!r} that is not there; {_fix(name)}"


def _is_used(disk: Disk, directory: str) -> bool:
    """Whether a process has a spool's lock. Where there is none it is not made."""
    if LOCK not in disk.list(directory):
        return False
    try:
        # Let go at once: its owner may be about to start, and must not find it taken.
        disk.close(disk.lock(os.path.join(directory, LOCK)))
    except BlockingIOError:
        return True
    return False


def _others(base: str, sinks: Collection[str]) -> Iterator[str]:
    """Name the sinks that have segments below ``base`` and are none of these."""
    with os.scandir(base) as entries:
        found = sorted(entry.path for entry in entries if entry.name.startswith(_PREFIX) and entry.is_dir())
    for path in found:
        name = os.path.basename(path).removeprefix(_PREFIX)
        if name not in sinks and any(map(parse_name, os.listdir(path))):
            yield name


def _waiting(report: Report) -> str:
    damaged = f" and {format_size(report.quarantined_bytes)} damaged" if report.quarantined_bytes else ""
    return f"{report.records} records ({format_size(report.size)}{damaged}) wait"


def _fix(name: str) -> str:
    return (
        f"to have them delivered, configure a sink {name!r} with spool = true; to give them up, move the directory away"
    )
