"""The header of a syslog message (RFC 5424)."""

import logging
import os
import re
import socket
import sys
from datetime import UTC, datetime
from logging.handlers import SysLogHandler

_FACILITIES = SysLogHandler.facility_names
_LOWEST = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7
_UNPRINTABLE = re.compile("[^!-~]")


class SyslogHeader:
    """Writes headers: priority, time (UTC, microseconds), host, application, process, and the logger as message id."""

    def __init__(self, facility: str | int, app_name: str | None, host_name: str | None) -> None:
        self._facility = _facility(facility)
        program = os.path.basename(sys.argv[0] if sys.argv else "").removesuffix(".py")
        self._host = word(socket.gethostname() if host_name is None else host_name, 255)
        self._app = word(program if app_name is None else app_name, 48)

    def write(self, record: logging.LogRecord) -> str:
        """Give the header of a record, up to the blank before the message."""
        priority = self._facility * 8 + severity(record.levelno)
        time = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return f"<{priority}>1 {time} {self._host} {self._app} {record.process or '-'} {word(record.name, 32)} - "


def severity(level: int) -> int:
    """Give the syslog severity of a level: that of the next lower one that has a name."""
    return next((number for lowest, number in _LOWEST if level >= lowest), _DEBUG)


def word(text: str, size: int) -> str:
    """Make a field of a header: printable ASCII without blanks, at most ``size`` characters; ``-`` for nothing."""
    return _UNPRINTABLE.sub("_", text)[:size] or "-"


def _facility(name: str | int) -> int:
    number = _FACILITIES.get(name, -1) if isinstance(name, str) else name
    if not 0 <= number <= 23:  # noqa: PLR2004 - local7, the last of RFC 5424
        raise ValueError(f"no facility {name!r}: use a number from 0 to 23, or one of {', '.join(sorted(_FACILITIES))}")
    return number
