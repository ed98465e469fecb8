"""
The sink that writes lines to standard output.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from zope.interface import implementer

from twisted_ingest.config.fields import About
from twisted_ingest.errors import Durability, Format
from twisted_ingest.interfaces import ISink
from twisted_ingest.observe.events import Events
from twisted_ingest.sinks.lines import LinesSink
from twisted_ingest.sinks.registry import STANDARD_OUTPUT, SinkContext, SinkTable, SinkType
from twisted_ingest.storage.appender import Appender
from twisted_ingest.storage.stream import StreamTarget


@implementer(ISink)
class StdoutSink(LinesSink):
    """Writes lines to standard output; a reader that stalls holds the senders back."""

    durability = Durability.WRITTEN

    def __init__(
        self,
        name: str,
        *,
        reactor: Any,
        events: Events,
        format: Format = Format.RAW,  # noqa: A002
        descriptor: int = 1,
    ) -> None:
        super().__init__(
            name, Appender(name, StreamTarget(descriptor, "standard output"), reactor, events), format, events
        )

    def describe(self) -> str:
        """See `ISink`."""
        return "standard output" if self.format is Format.RAW else f"standard output ({self.format.value})"

    def start(self) -> None:
        """See `ISink`."""
        self._appender.start(is_open=True)

    def reopen(self) -> None:
        """See `ISink`: nothing was rotated."""

    def details(self) -> Mapping[str, float]:
        """See `ISink`."""
        return {"retries": self._appender.writer.retries}


class StdoutSettings(SinkTable):
    """``[sinks.NAME]`` with ``type = "stdout"``."""

    type: Literal["stdout"]
    format: Annotated[Format, About("raw|json:", "the bytes as they came, or an object a line")] = Format.RAW


def _make_stdout(name: str, table: StdoutSettings, context: SinkContext) -> StdoutSink:
    return StdoutSink(name, reactor=context.reactor, events=context.events, format=table.format)


KINDS = (
    SinkType(
        table=StdoutSettings,
        make=_make_stdout,
        durability=StdoutSink.durability,
        summary="written to standard output",
        places=lambda _: [STANDARD_OUTPUT],
    ),
)
