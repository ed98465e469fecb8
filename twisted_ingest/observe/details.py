"""
The counters that sinks keep of themselves: what each says, and what those of several sinks of one name make together.

One that is not listed counts up. A sink of our own that counts something new says here what it means.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from operator import add
from typing import NamedTuple

from twisted_ingest.observe.adding import Rule


class Kind(Enum):
    """What becomes of a number."""

    COUNTER = "counter"
    """It only grows, and adds."""
    LEVEL = "level"
    """It falls as well, and adds."""
    HIGHEST = "highest"
    """It falls as well; of several it is the highest."""
    LOWEST = "lowest"
    """It falls as well; of several it is the lowest."""
    HISTOGRAM = "histogram"
    """A counter for each bound, ``NAME/BOUND``, of what was above the one before, and ``NAME/sum``."""


class Detail(NamedTuple):
    """What a number says."""

    text: str
    kind: Kind = Kind.COUNTER
    label: str = ""
    """What stands behind the slash of its names, as a label of the metric."""

    @property
    def has_parts(self) -> bool:
        """Whether its names have a slash."""
        return bool(self.label) or self.kind is Kind.HISTOGRAM


DETAILS: Mapping[str, Detail] = {
    "retries": Detail("Writes, requests and connections tried again."),
    "requests": Detail("Requests that have ended, by what became of them.", label="result"),
    "request_seconds": Detail("Seconds from a request's first byte to its last answer.", Kind.HISTOGRAM),
    "in_flight_requests": Detail("Requests sent and not answered.", Kind.LEVEL),
    "rejected_records": Detail("Records that the sink will never take."),
    "dead_letter_records": Detail("Records that the sink will never take, written to its dead letters."),
    "resent_records": Detail("Records sent again, which may have arrived before."),
    "sent_bytes": Detail("Bytes sent, those sent again included."),
    "connections": Detail("Connections that were made."),
    "connected": Detail("Connections to its targets now.", Kind.LEVEL),
    "last_success_timestamp_seconds": Detail("When a record was last taken, Unix time; 0: never.", Kind.HIGHEST),
    "syncs": Detail("Syncs of the file."),
    "sync_seconds": Detail("Seconds that syncs of the file took."),
    "sync_failures": Detail("Syncs of the file that failed, which is final for that file."),
    "rewritten_bytes": Detail("Bytes written again to a new file after a sync failed."),
    "torn_records": Detail("Records begun in one file and written whole to the next."),
    "moved_files": Detail("Times the file was found renamed or removed."),
    "rescued_bytes": Detail("Bytes written again because the file that had them was removed."),
    "truncations": Detail("Times another program truncated the file."),
    "repaired_lines": Detail("Files that ended in half a line, which was given its end."),
    "spooled_records": Detail("Records that the spool has taken."),
    "spooled_bytes": Detail("Bytes that the spool has taken."),
    "spool_recovered_records": Detail("Records that were waiting in the spool at the start."),
    "replayed_records": Detail("Records that the sink behind the spool has taken."),
    "replayed_bytes": Detail("Bytes that the sink behind the spool has taken."),
    "replay_retries": Detail("Times the sink behind the spool was brought a group again."),
    "spool_waiting_records": Detail("Records that wait in the spool.", Kind.LEVEL),
    "spool_waiting_batches": Detail("Batches that wait in the spool.", Kind.LEVEL),
    "spool_oldest_seconds": Detail("Age of the oldest batch handed to the sink behind the spool.", Kind.HIGHEST),
    "spool_disk_bytes": Detail("Bytes that the spool takes on the disk.", Kind.LEVEL),
    "spool_segments": Detail("Segment files of the spool.", Kind.LEVEL),
    "spool_replaying": Detail("Whether the sink behind the spool takes records at the moment.", Kind.LOWEST),
    "spool_dropped_records": Detail("Records that a full spool has given up."),
    "spool_rejected_records": Detail("Records in the spool that the sink behind will never take."),
    "spool_missing_batches": Detail("Batches that are missing from the spool: the disk has lost them."),
    "spool_duplicate_batches": Detail("Copies of batches in the spool, each of them passed over."),
    "spool_passed_batches": Detail("Batches before the position at the start, passed over as delivered."),
    "spool_lost_positions": Detail("Starts that found no position they could believe."),
    "spool_torn_bytes": Detail("Bytes of writes to the spool that a killed process did not finish."),
    "spool_quarantined_regions": Detail("Damaged regions of segments, set apart."),
    "spool_quarantined_bytes": Detail("Bytes of damaged regions of segments, set apart."),
    "spool_unreadable_segments": Detail("Segments of which nothing can be read, set apart."),
    "spool_retries": Detail("Writes to the spool tried again."),
    "spool_syncs": Detail("Syncs of the spool."),
    "spool_sync_seconds": Detail("Seconds that syncs of the spool took."),
    "spool_sync_failures": Detail("Syncs of the spool that failed."),
    "spool_rewritten_bytes": Detail("Bytes written again to a new segment after a sync failed."),
    "spool_position_failures": Detail("Times the spool's position could not be written."),
}
"""By the end of the metric's name."""

_ADD: Mapping[Kind, Callable[[float, float], float]] = {
    Kind.COUNTER: add,
    Kind.LEVEL: add,
    Kind.HIGHEST: max,
    Kind.LOWEST: min,
    Kind.HISTOGRAM: add,
}


def detail_of(name: str) -> Detail:
    """Say what a sink's own counter means, as far as that is known; its name may have a label behind a slash."""
    name = name.partition("/")[0]
    return DETAILS.get(name) or Detail(f"Of the sink: {name.replace('_', ' ')}.")


def _sum(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    both = {name: _ADD[detail_of(name).kind](one[name], other[name]) for name in one if name in other}
    return {**one, **other, **both}


def _counted(details: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in details.items() if detail_of(name).kind in (Kind.COUNTER, Kind.HISTOGRAM)}


OF_SINK = Rule(dict, _sum, keep=_counted)
"""How the details of sinks add."""
