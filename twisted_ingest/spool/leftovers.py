"""
What lies in the spools' directory for sinks that are not there: renamed, taken away, or left without their spool.
"""

import errno
import os
from collections.abc import Collection, Iterator

from twisted_ingest.spool.codec import ForeignError
from twisted_ingest.spool.disk import RealDisk
from twisted_ingest.spool.recovery import Report, recover
from twisted_ingest.spool.segments import LOCK, POSITION, parse_name
from twisted_ingest.units import format_size

_PREFIX = "sink-"


def spool_directory(base: str, sink: str) -> str:
    """Give the directory of a sink's spool. The prefix is there because a sink may be named ``..``."""
    return os.path.join(os.path.abspath(base), f"{_PREFIX}{sink}")


class _Spectator(RealDisk):
    """The same disk for somebody to whom nothing on it belongs."""

    def create(self, path: str) -> int:
        """See `Disk`: no damaged region is copied aside."""
        raise OSError(errno.EROFS, "not ours to change")

    def unlink(self, path: str) -> None:
        """See `Disk`."""
        raise OSError(errno.EROFS, "not ours to change")

    def rename(self, source: str, target: str) -> None:
        """See `Disk`: what cannot be read is not set aside; a position that is not believed only counts as gone."""
        if os.path.basename(source).startswith(POSITION):
            return
        raise OSError(errno.EROFS, "a segment is unreadable")


def find_leftovers(base: str, sinks: Collection[str]) -> Iterator[str]:
    """
    Say, in one line for each, which spools below ``base`` hold records for nobody of ``sinks``, and what to do.

    Nothing is changed. It takes as long as a start of those spools would. One that another process uses is passed over.
    """
    disk = _Spectator()
    for name in _others(base, sinks):
        directory = spool_directory(base, name)
        try:
            # Let go at once: its owner may be about to start, and must not find it taken.
            disk.close(disk.lock(os.path.join(directory, LOCK)))
            report = recover(disk, directory).report
        except BlockingIOError:
            continue
        except (ForeignError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            yield f"{directory} is no sink's, and cannot be looked through: {reason}; {_fix(name)}"
        else:
            if report.size or report.quarantined_bytes:
                yield f"{directory}: {_waiting(report)} for a spooled sink {name!r} that is not there; {_fix(name)}"


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
