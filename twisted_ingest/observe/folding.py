"""
How facts come into the log: not more often than somebody can read.
"""

from collections.abc import Callable, Mapping

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

BURST = 10
"""Facts of one kind logged per interval before they are folded into a count."""

INTERVAL_SECONDS = 10.0
"""After this long a kind may log again, beginning with how many were folded."""

_MORE = ("", " ({folded} more like it before)")


class FoldingLog:
    """
    Logs facts. Peers cause most of what there is to log, so that each kind of it has its share, and no more.

    ``seconds`` is the reactor's clock. ``suppressed`` counts the facts that were folded.
    """

    logger = Logger(namespace="twisted_ingest")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._windows: dict[str, tuple[float, int]] = {}
        self.suppressed = 0

    def fold(self, kind: str) -> int | None:
        """Count a fact; gives how many of its kind were folded before it, or ``None`` when it is folded too."""
        now = self._seconds()
        since, count = self._windows.get(kind, (now, 0))
        folded = 0
        if now - since >= INTERVAL_SECONDS:
            folded, since, count = max(0, count - BURST), now, 0
        self._windows[kind] = (since, count + 1)
        if count >= BURST:
            self.suppressed += 1
            return None
        return folded

    def write(
        self, kind: str, level: LogLevel, text: str, fields: Mapping[str, object], folded: int | None = None
    ) -> None:
        """Log a fact; ``text`` is a constant format, and ``folded`` what `fold` gave, where it was asked."""
        told = {} if folded is None else {"folded": folded}
        self.logger.emit(level, text + _MORE[bool(folded)], event=kind, **told, **fields)

    def write_failure(
        self, kind: str, text: str, fields: Mapping[str, object], failure: Failure, folded: int = 0
    ) -> None:
        """Log a bug, with its traceback."""
        text += _MORE[bool(folded)]
        self.logger.failure(text, failure, LogLevel.critical, event=kind, folded=folded, **fields)
