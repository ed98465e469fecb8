"""
What happens to sinks and spools: one function for each fact.
"""

from twisted.logger import LogLevel

from twisted_ingest.observe.facts import Facts
from twisted_ingest.rejected import Rejected
from twisted_ingest.units import format_size


class SinkEvents(Facts):
    """Facts of sinks and of the spools before them."""

    def sink_stalled(self, sink: str, trouble: str) -> None:
        """Note that a sink cannot take records at the moment; it goes on trying."""
        self._limited(f"sink_stalled:{sink}", LogLevel.error, "sink {sink}: {trouble}", sink=sink, trouble=trouble)

    def sink_recovered(self, sink: str, path: str) -> None:
        """Note that a sink takes records again."""
        text = "sink {sink}: {path}: writing again"
        self._limited(f"sink_recovered:{sink}", LogLevel.info, text, sink=sink, path=path)

    def sink_failed(self, sink: str, error: str) -> None:
        """Note that a sink has given up for good."""
        text = "sink {sink} has failed for good: {error}"
        self._always("sink_failed", LogLevel.critical, text, sink=sink, error=error)

    def sink_rejected(self, sink: str, rejected: Rejected) -> None:
        """Note that a sink will never take some records; it goes on with others."""
        self._limited(
            f"sink_rejected:{sink}",
            LogLevel.error,
            "sink {sink}: {records} records dropped, which it will never take: {reason}",
            sink=sink,
            records=rejected.count,
            reason=str(rejected),
        )

    def sink_repaired(self, sink: str, path: str) -> None:
        """Note that a file ended in half a line, left by a killed process, which now has its LF."""
        text = "sink {sink}: {path} ended in half a line (a killed process); it was ended with LF"
        self._always("sink_repaired", LogLevel.warn, text, sink=sink, path=path)

    def sink_file_moved(self, sink: str, path: str, rewritten: int | None) -> None:
        """Note that a file was renamed (``None``), or removed and so many bytes in it are being written again."""
        text = "sink {sink}: {path} was renamed: going on in a new one"
        if rewritten is not None:
            text = (
                "sink {sink}: {path} was removed: {size} of it, not yet counted as delivered, "
                "are written again to a new one"
            )
        self._limited("sink_file_moved", LogLevel.warn, text, sink=sink, path=path, size=format_size(rewritten or 0))

    def sink_truncated(self, sink: str, path: str) -> None:
        """Note that somebody has truncated a file that we append to."""
        self._limited(
            "sink_truncated",
            LogLevel.warn,
            "sink {sink}: {path} was truncated by another program; what came between a copy of it and that is lost: "
            "let logrotate rename (create), not copytruncate",
            sink=sink,
            path=path,
        )

    def spool_recovered(self, sink: str, found: str, *, is_clean: bool) -> None:
        """Note what a spool held at start; a warning where not all of it was whole."""
        level = LogLevel.info if is_clean else LogLevel.warn
        self._always("spool_recovered", level, "sink {sink}: spool {found}", sink=sink, found=found)

    def spool_segment_gone(self, sink: str, path: str) -> None:
        """Note that somebody has taken a segment away whose records were not delivered yet."""
        self._limited(
            f"spool_segment_gone:{sink}",
            LogLevel.error,
            "sink {sink}: {path} is gone, and what was in it with it (spool_missing_batches): "
            "nobody but the spool may remove its files",
            sink=sink,
            path=path,
        )

    def spool_left_over(self, found: str) -> None:
        """Note records on the disk that no sink will read."""
        self._always("spool_left_over", LogLevel.warn, "spool {found}", found=found)
