"""
The service as twistd runs it: with the signals, the exit status and the log of a process of its own.
"""

import os
import time
from threading import Timer
from typing import Any, NoReturn

from twisted.application.service import IServiceCollection
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from twisted_ingest.config.load import Loaded
from twisted_ingest.errors import IngestError
from twisted_ingest.limits import STOP_GRACE
from twisted_ingest.observe.log import LogObserver, LogWriter
from twisted_ingest.observe.logfile import LogFile
from twisted_ingest.process import ending, signals
from twisted_ingest.process.announce import Summary
from twisted_ingest.process.detach import Detached
from twisted_ingest.service import IngestService


class Daemon(IngestService):
    """
    The service, and the process that is there for it alone.

    A failed start is one line on standard error, and in the log where that is elsewhere; the exit status is 1. A stop
    ends the process in time whatever is stuck, with status 1 where records were lost by it; the summary is the last
    line of the log.

    ``log`` is where that goes: a file, a descriptor, or ``None`` for where twistd was told to send it. ``detached`` is
    told when the start is over, in a process that nobody watches. ``pid_file`` is what twistd has written, if any.
    """

    def __init__(
        self,
        loaded: Loaded,
        reactor: Any,
        *,
        log: LogFile | int | None,
        detached: Detached | None = None,
        pid_file: str | None = None,
    ) -> None:
        self._file = log if isinstance(log, LogFile) else None
        self._is_on_stderr = log == 2  # noqa: PLR2004
        self._detached = detached
        self._pid_file = pid_file
        self._writer = LogWriter(log.descriptor if isinstance(log, LogFile) else log or 2, loaded.secrets.hide)
        self._observer = LogObserver(self._writer, loaded.settings.log_format) if log is not None else None
        super().__init__(loaded, reactor, time.time, self._writer)

    def setServiceParent(self, parent: Any) -> None:
        """Join the application; twistd asks it for the observer afterwards."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(IServiceCollection(parent))

    # Start.

    def privilegedStartService(self) -> None:
        """Bind, or end the process."""
        try:
            super().privilegedStartService()
        except IngestError as error:
            self._refuse(error)

    def startService(self) -> None:
        """Begin, or end the process."""
        self._writer.start()
        try:
            super().startService()
        except IngestError as error:
            self._refuse(error)
        _ = self.when_stopped().addCallbacks(self._over, self._failed)
        signals.end_early()
        # Only with the reactor running does a signal mean what we say it means.
        self._reactor.callWhenRunning(self._running)

    def _running(self) -> None:
        signals.install(self._reactor, self.reopen, lambda: ending.remove_pid_file(self._pid_file))
        if self._detached is not None and self.running:
            self._detached.ready()

    def _refuse(self, error: IngestError) -> NoReturn:
        """End the process that cannot start."""
        if not self._is_on_stderr:
            self.events.start_failed(f"error: {error}")
            text = self._loaded.secrets.hide(f"error: {error}\n")
            os.write(2, text.encode("utf-8", "backslashreplace"))
        else:
            self._writer.write(f"error: {error}")
        self._writer.stop()
        ending.remove_pid_file(self._pid_file)
        if self._detached is not None:
            self._detached.told()
        raise SystemExit(1)

    def show_banner(self, lines: list[str]) -> None:
        """Say where everything is: as it stands, without time and level, where our log is text."""
        if self._observer is None or self._settings.log_format != "text":
            super().show_banner(lines)
            return
        for line in lines:
            self._writer.write(line)

    # While running.

    def reopen(self, why: str = "reopen") -> None:
        """Let the sinks go of files that were rotated away, and our log too."""
        if self._file is not None:
            try:
                self._file.reopen()
            except OSError as error:
                self.events.log_not_reopened(self._file.path, error)
        super().reopen(why)

    # Stop.

    def stopService(self) -> "Deferred[None]":
        """Stop, or end the process."""
        last_resort = ending.last_resort(self._settings.limits.drain_timeout + STOP_GRACE, self._pid_file)
        return super().stopService().addBoth(self._say_no_more, last_resort)

    def _say_no_more(self, _: object, last_resort: Timer) -> None:
        """Let the summary be the last line: neither Twisted's parting words nor ours follow it."""
        last_resort.cancel()
        if self._observer is not None:
            self._observer.close()
        self._writer.stop()

    def _over(self, summary: Summary) -> None:
        """Let the exit status say so where records that we had read were lost by the stop."""
        if summary.lost:
            self._exit_failed()

    def _failed(self, _: Failure) -> None:
        """End the process whose service has stopped by itself."""
        # twistd itself would exit with 0 after a plain stop.
        self._exit_failed()
        if self._reactor.running:
            self._reactor.stop()

    def _exit_failed(self) -> None:
        """Have the process end with status 1: supervisors must see a failure."""
        self._reactor.addSystemEventTrigger("after", "shutdown", ending.exit_failed, self._writer, self._pid_file)
