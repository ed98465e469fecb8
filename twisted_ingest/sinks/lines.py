"""
What the sinks that write lines share: a file, and standard output.
"""

from collections.abc import Callable, Iterator, Sequence

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_ingest.batch import Batch, Group, Refusal, Rejected
from twisted_ingest.errors import Format
from twisted_ingest.observe.events import Events
from twisted_ingest.sinks.rendering import RENDERERS
from twisted_ingest.storage.appender import Appender


class _Lines:
    """
    The lines of one group, made while they are iterated over: in the thread that writes them.

    A batch that cannot be rendered is passed over, and stays in ``unmade`` with what was raised.
    """

    __slots__ = ("_batches", "_render", "unmade")

    def __init__(self, render: Callable[[Batch], bytes | memoryview], batches: Sequence[Batch]) -> None:
        self._render = render
        self._batches = batches
        self.unmade: list[tuple[Batch, Exception]] = []

    def __iter__(self) -> Iterator[bytes | memoryview]:
        render = self._render
        for batch in self._batches:
            try:
                yield render(batch)
            except Exception as failure:  # noqa: BLE001 - a bug of ours, which must cost this batch alone
                self.unmade.append((batch, failure))


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
        # Rendered when it is written and not before: JSON may be many times what the budget was charged for.
        lines = _Lines(self._render, group.batches)
        return self._appender.submit(lines, sync=group.needs_sync).addCallback(self._written, lines)

    def _written(self, _: None, lines: _Lines) -> Rejected | None:
        for _batch, failure in lines.unmade:
            self._events.internal_error(f"what sink {self.name} makes of records", failure=Failure(failure))
        if not lines.unmade:
            return None
        reason = "they cannot be written: {}: {}"
        return Rejected(Refusal(b, None, reason.format(type(error).__name__, error)) for b, error in lines.unmade)

    def close(self) -> "Deferred[None]":
        """See `ISink`."""
        return self._appender.close()

    def abandon(self) -> None:
        """See `ISink`."""
        self._appender.abandon()
