"""
The sink that counts and keeps nothing: for measuring what comes before it.
"""

from typing import Literal

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from twisted_ingest.batch import Group
from twisted_ingest.errors import Durability
from twisted_ingest.interfaces import ISink
from twisted_ingest.sinks.registry import SinkTable, SinkType


@implementer(ISink)
class NullSink:
    """Takes everything at once."""

    # Nothing it took survives anything: an answer that rests on it promises as much.
    durability = Durability.MEMORY
    wants_groups = False
    trouble: str | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    def describe(self) -> str:
        """See `ISink`."""
        return "nowhere (records are counted only)"

    def start(self) -> None:
        """See `ISink`."""

    def deliver(self, group: Group) -> "Deferred[None]":
        """See `ISink`."""
        return succeed(None)

    def reopen(self) -> None:
        """See `ISink`."""

    def close(self) -> "Deferred[None]":
        """See `ISink`."""
        return succeed(None)

    def abandon(self) -> None:
        """See `ISink`."""

    def details(self) -> dict[str, int]:
        """See `ISink`."""
        return {}


class NullSettings(SinkTable):
    """``[sinks.NAME]`` with ``type = "null"``."""

    type: Literal["null"]


KINDS = (
    SinkType(
        table=NullSettings,
        make=lambda name, _table, _context: NullSink(name),
        durability=NullSink.durability,
        summary="counted and kept nowhere",
    ),
)
