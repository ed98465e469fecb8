"""
Our own log: to standard error, as text or JSON, through a thread.

Records go to standard output; what we say about ourselves never does. A reader of the log that
stalls must not stop the server, so lines wait in a bounded queue and are dropped, counted, past it.
"""

import errno
import json
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.reflect import safe_repr, safe_str
from zope.interface import implementer

from twisted_ingest.escaping import escape

QUEUE_LINES = 1000
"""Lines that wait for a stalled reader of the log before further ones are dropped and counted."""

FLUSH_SECONDS = 0.5
"""How long the end of the process waits for the last lines to be written."""

_OWN = frozenset(("time", "level", "logger", "message"))
"""Keys of a JSON line that say what they say in every line."""

_LEGACY = frozenset(("isError", "system", "logLevel", "format", "why", "failure"))
"""What `twisted.python.log` adds to its events."""


class LogWriter:
    """
    Writes lines to a descriptor without ever blocking its caller once started.

    Before ``start`` it writes at once and waits for its reader, as any program does; ``twistd`` may still fork.
    ``dropped`` counts lines that were not written, those of a traceback one by one.
    """

    def __init__(self, descriptor: int = 2, hide: Callable[[str], str] = str) -> None:
        self._hide = hide
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ending = False
        self._patience: int | None = None
        self.dropped = 0

    def start(self) -> None:
        """Start the thread; after any fork."""
        self._ending = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ingest-log", daemon=True)
            self._thread.start()

    def write(self, text: str) -> None:
        """Write one line, without its LF."""
        line = self._hide(text).encode("utf-8", "backslashreplace") + b"\n"
        with self._wake:
            if self._thread is not None:
                self._queue(line)
                return
        self._put(line, self._patience)

    def stop(self) -> None:
        """
        Write what waits, for a bounded time.

        Afterwards lines are written at once where there is room. Where the reader stalls even now they stay behind
        the thread, which ends with the process or when the reader goes on.
        """
        thread = self._thread
        if thread is None:
            return
        with self._wake:
            self._ending = True
            self._wake.notify()
        thread.join(FLUSH_SECONDS)
        if thread.is_alive():
            return
        with self._wake:
            self._thread, self._patience = None, 0
            late = self._take()
        self._put(late, 0)

    def _queue(self, line: bytes) -> None:
        if len(self._lines) >= QUEUE_LINES:
            self.dropped += line.count(b"\n")
            return
        self._lines.append(line)
        self._wake.notify()

    def _take(self) -> bytes:
        data = b"".join(self._lines)
        self._lines.clear()
        return data

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._lines and not self._ending:
                    self._wake.wait()
                if not self._lines:
                    return
                data = self._take()
            self._put(data, None)

    def _put(self, data: bytes, patience: int | None) -> None:
        """Write, waiting ``patience`` milliseconds for room at most; ``None`` is for ever."""
        # A pipe that `poll` says has room takes `PIPE_BUF` bytes without blocking. To wait for that room here also
        # serves a descriptor that another process has made non-blocking: it would refuse what does not fit.
        room = select.poll()
        room.register(self._descriptor, select.POLLOUT)
        view = memoryview(data)
        try:
            while view and room.poll(patience):
                view = view[os.write(self._descriptor, view[: select.PIPE_BUF]) :]
        except OSError:
            pass  # the reader is gone, and there is nowhere left to say so
        self.dropped += bytes(view).count(b"\n")


def _stamp(event: LogEvent, precision: str) -> str:
    return datetime.fromtimestamp(event["log_time"], UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def _level(event: LogEvent) -> str:
    level: LogLevel = event.get("log_level", LogLevel.info)
    return str(level.name)


def _message(event: LogEvent) -> str:
    message = formatEvent(event)
    failure = event.get("log_failure")
    if failure is not None:
        message = f"{message}\n{failure.getTraceback().rstrip()}"
    return message


def _text(event: LogEvent) -> str:
    # Continuation lines of a traceback are indented, so that a line that is not is an event. A traceback may
    # quote what a peer sent.
    message = "\n    ".join(escape(line) for line in _message(event).split("\n"))
    return f"{_stamp(event, 'milliseconds')} {_level(event):<8} {message}"


def _json(event: LogEvent) -> str:
    fields = {key: _plain(value) for key, value in event.items() if not _is_internal(key)}
    return json.dumps(
        {
            "time": _stamp(event, "microseconds"),
            "level": _level(event),
            "logger": event.get("log_namespace", "-"),
            "message": _message(event),
            **fields,
        },
        default=safe_str,
    )


def _is_internal(key: str) -> bool:
    return key.startswith("log_") or key in _OWN or key in _LEGACY


def _plain(value: object) -> object:
    """Give what JSON can say of a value: itself, or its text."""
    try:
        json.dumps(value, allow_nan=False, default=safe_str)
    except (TypeError, ValueError, RecursionError):
        return safe_repr(value)
    return value


@implementer(ILogObserver)
class LogObserver:
    """
    Renders events of `twisted.logger` as lines; ``style`` is ``text`` or ``json``. Debug is left out.

    Once closed it passes on nothing below a warning.
    """

    def __init__(self, writer: LogWriter, style: str) -> None:
        self._writer = writer
        self._render: Callable[[LogEvent], str] = _json if style == "json" else _text
        self._unsaid = [LogLevel.debug]
        """Levels that are left out."""

    def close(self) -> None:
        """Take what has been said as the last word; only what is wrong comes after it."""
        self._unsaid.append(LogLevel.info)

    def __call__(self, event: LogEvent) -> None:
        """Write one event; a broken one is written as such."""
        if event.get("log_level", LogLevel.info) in self._unsaid or _is_about_cache(event):
            return
        try:
            line = self._render(event)
        except Exception as error:  # noqa: BLE001 - the log is the last place that may raise
            line = self._render(_unloggable(event, error))
        self._writer.write(line)


def _is_about_cache(event: LogEvent) -> bool:
    """
    Whether twistd complains that it may not write down which plugins there are.

    Installed by root and run by somebody else, as it should be, it would do so at every start, and needs nothing.
    """
    text = event.get("format")
    is_cache = isinstance(text, str) and text.startswith("Unable to write to plugin cache")
    return is_cache and event.get("errno") in (errno.EACCES, errno.EPERM, errno.EROFS)


def _unloggable(event: LogEvent, error: Exception) -> LogEvent:
    """Make the event that stands for one that cannot be rendered."""
    return {
        "log_time": time.time(),
        "log_level": LogLevel.critical,
        "log_format": "unloggable event {broken}: {error}",
        "broken": safe_repr(event.get("log_format")),
        "error": safe_repr(error),
    }
