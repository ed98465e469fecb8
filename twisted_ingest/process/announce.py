"""
What the process says of itself: at the start where everything is and what to try, at the end what became of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twisted.logger import LogLevel

from twisted_ingest import __version__
from twisted_ingest.errors import Caution, DropReason
from twisted_ingest.interfaces import ISource
from twisted_ingest.observe.events import Events
from twisted_ingest.observe.view import View
from twisted_ingest.sources.registry import LINES


def banner(
    sources: Sequence[ISource], sinks: Sequence[str], admin: str | None, cautions: Sequence[Caution] = ()
) -> list[str]:
    """
    Say where everything is, and what to try; ``sinks`` describe them, ``admin`` is the endpoint's address.

    ``cautions`` are what the configuration says that may not be meant.
    """
    lines = [f"twisted-ingest {__version__}"]
    lines += [_line(*source.describe().split(" ", 1)) for source in sources]
    lines += [_line("lines to", sink) for sink in sinks]
    lines += [_line("warning", f"{caution.where}: {caution.message}") for caution in cautions]
    if admin is not None:
        lines.append(_line("metrics", f"{admin}/metrics"))
    return lines + [_line(*hint) for hint in _hints(sources)]


def _line(word: str, text: str = "") -> str:
    return f"  {word:<9}  {text}"


def _hints(sources: Sequence[ISource]) -> Sequence[tuple[str, str]]:
    """Ask the first source that has something to say, one for lines before the others."""
    lines_first = sorted(sources, key=lambda source: source.protocol != LINES)
    return next((hints for source in lines_first if (hints := source.hints())), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What came in until a stop, and what became of it."""

    connections: int
    records: int
    delivered: Mapping[str, int]
    """Records by sink."""
    dropped: Mapping[str, int]
    """Records by reason, those with none left out."""
    cut: int
    """Records that the stop cut off; they were delivered as far as they had come."""
    unread: int
    """Bytes that the stop left in the kernel."""
    lost: int
    """Records that a required sink should have taken, had the stop not come before."""
    conservation_error: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing was lost or cut off."""
        return not (self.dropped or self.cut or self.unread or self.conservation_error)

    def tell(self, events: Events) -> None:
        """Log it in one line: a warning where it is not whole."""
        events.note(
            "stopped: {connections} connections, {records} records in, {delivered} delivered, dropped {dropped}, "
            "{cut} records cut off by the stop, {unread} bytes left unread in the kernel, "
            "conservation error {error}",
            kind="stopped",
            level=LogLevel.info if self.is_whole else LogLevel.warn,
            connections=self.connections,
            records=self.records,
            delivered=", ".join(f"{count} by {sink}" for sink, count in self.delivered.items()),
            dropped=", ".join(f"{count} ({reason})" for reason, count in self.dropped.items()) or "0",
            cut=self.cut,
            unread=self.unread,
            error=self.conservation_error,
        )


def summarize(view: View, unread: int) -> Summary:
    """Sum up at the end of a stop that left ``unread`` bytes in the kernel."""
    dropped = {reason.value: view.dropped(reason) for reason in DropReason}
    return Summary(
        connections=int(view.total("connections_opened")),
        records=int(view.total("records_framed")),
        delivered={name: sink.delivered_records for name, sink in view.sinks.items()},
        dropped={reason: lost for reason, lost in dropped.items() if lost},
        cut=int(view.total("records_cut")),
        unread=unread,
        lost=sum(sink.dropped_records[DropReason.SHUTDOWN] for sink in view.sinks.values() if sink.required),
        conservation_error=view.conservation_error,
    )
