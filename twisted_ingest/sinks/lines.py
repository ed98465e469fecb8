"""
What the sinks that write lines share: a file, and standard output.
"""

from twisted.internet.defer import Deferred

from twisted_ingest.batch import LF, Group
from twisted_ingest.errors import Format
from twisted_ingest.observe.events import Events
from twisted_ingest.rejected import Rejected
from twisted_ingest.sinks.rendering import RENDERERS
from twisted_ingest.storage.appender import Appender
from twisted_ingest.storage.buffers import Buffers


class LinesSink:
    """What sinks have in common that write lines by an appender: everything but the opening."""

    wants_groups = True

    def __init__(self, name: str, appender: Appender, format: Format, events: Events) -> None:  # noqa: A002
        self.name = name
        self._events = events
        self.format = format
        self._appender = appender
        self._render = RENDERERS[format]

    @property
    def trouble(self) -> str | None:
        """See `ISink`."""
        return self._appender.writer.trouble

    def deliver(self, group: Group) -> "Deferred[Rejected | None]":
        """See `ISink`."""
        lines = Buffers(self._render, group.batches)
        # Where they are as they came there is nothing to make, and nothing that could fail.
        is_plain = self.format is Format.RAW and all(batch.delimiter == LF for batch in group.batches)
        buffers = [batch.wire for batch in group.batches] if is_plain else lines
        written = self._appender.submit(buffers, sync=group.needs_sync)
        return written.addCallback(lambda _: lines.rejected(self.name, self._events))

    def close(self) -> "Deferred[None]":
        """See `ISink`."""
        return self._appender.close()

    def abandon(self) -> None:
        """See `ISink`."""
        self._appender.abandon()
