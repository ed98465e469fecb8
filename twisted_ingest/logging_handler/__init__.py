"""
A `logging.Handler` that sends to the server and needs nothing but the standard library: Twisted need not be there.

``pip install --no-deps twisted-ingest`` installs it alone. See docs/clients.md.
"""

import contextlib
import logging
import os
import sys
import time
import weakref
from collections.abc import Callable, Sequence

from twisted_ingest.logging_handler.backlog import MAX_BYTES, MAX_RECORDS, Backlog
from twisted_ingest.logging_handler.delivery import Delivery, backoff
from twisted_ingest.logging_handler.peer import Address
from twisted_ingest.logging_handler.syslog import SyslogHeader
from twisted_ingest.logging_handler.wire import Lines, Relp, Wire

__all__ = ["TIMEOUT", "IngestHandler", "backoff"]

TIMEOUT = 5.0
"""Seconds that a flush, and the end of the process, wait at most. Half of what container runtimes grant a stop."""

_WIRES: dict[str, Callable[[], Wire]] = {"lines": Lines, "relp": Relp}


class IngestHandler(logging.Handler):
    r"""
    Sends records over TCP, or to a UNIX socket where ``address`` is a path; logging never waits for the network.

    ``protocol`` is ``"lines"``, or ``"relp"``: then what was not answered is sent again, and a server that was
    killed costs nothing. A record is an RFC 5424 message with the formatter's text in it; with ``raw`` it is that
    text alone. In a line LF, CR and NUL are written as ``\n``, ``\r`` and ``\0``; over RELP they stay.

    At most ``max_records`` and ``max_bytes`` wait; what finds no room is dropped, counted in `dropped`, and told of in
    a record of its own once there is room again. ``timeout``: seconds that `flush` and `close` wait, and with them the
    end of the process. ``backoff`` gives the seconds before the n-th try to connect again.

    A child of the process (fork) has a connection of its own and nothing that waited in its parent. What is logged in
    the sending thread itself, by code that watches sockets for example, is not sent: it would beget itself.
    """

    def __init__(
        self,
        address: Address | Sequence[str | int] = ("127.0.0.1", 1514),
        *,
        protocol: str = "lines",
        level: int | str = logging.NOTSET,
        raw: bool = False,
        facility: str | int = "user",
        app_name: str | None = None,
        host_name: str | None = None,
        max_records: int = MAX_RECORDS,
        max_bytes: int = MAX_BYTES,
        timeout: float = TIMEOUT,
        backoff: Callable[[int], float] = backoff,
    ) -> None:
        if protocol not in _WIRES:
            raise ValueError(f"no protocol {protocol!r}: use one of {', '.join(_WIRES)}")
        self._address = _address(address)
        self._protocol = protocol
        self._header = None if raw else SyslogHeader(facility, app_name, host_name)
        self._bounds = (max_records, max_bytes)
        self._timeout = timeout
        self._backoff = backoff
        self._begin()
        super().__init__(level)
        _handlers.add(self)

    def createLock(self) -> None:
        """Have none: the backlog has its own, and nobody who logs may wait for one who flushes."""
        self.lock = None

    def _begin(self) -> None:
        """Start with nothing that waits and no connection."""
        self._wire = _WIRES[self._protocol]()
        self._backlog = Backlog(*self._bounds)
        self._delivery = Delivery(self._address, self._wire, self._backlog, self._notice, self._backoff)
        self._is_closed = False
        self._stuck_at: int | None = None

    def begin_in_child(self) -> None:
        """Start anew after a fork: what is here of the parent is a copy, without its thread."""
        self._delivery.forget()
        is_closed = self._is_closed
        self._begin()
        self._is_closed = is_closed

    @property
    def dropped(self) -> int:
        """How many records found no room, came too late, were left at the end, or were refused by a RELP server."""
        return self._backlog.dropped + (self._wire.refused if isinstance(self._wire, Relp) else 0)

    @property
    def waiting(self) -> int:
        """How many records are not sent, or not answered."""
        return len(self._backlog)

    @property
    def failure(self) -> str | None:
        """Why there is no connection; None where there is one, or none was tried."""
        return self._delivery.failure

    def emit(self, record: logging.LogRecord) -> None:
        """Put a record among those that wait."""
        if self._delivery.is_current:
            return
        try:
            if self._is_closed:
                self._backlog.dropped += 1
            else:
                self._backlog.put(self._encode(record))
                if self._delivery.wake():
                    self._flush_at_end_of_worker()
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001 - what the standard library's handlers do with it
            self.handleError(record)

    def _encode(self, record: logging.LogRecord) -> bytes:
        text = self.format(record).rstrip("\n")
        return self._wire.encode(text if self._header is None else self._header.write(record) + text)

    def _notice(self, count: int) -> bytes:
        text = f"{count} records were dropped: too many waited to be sent"
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
        try:
            return self._encode(record)
        except Exception:  # noqa: BLE001 - a formatter that wants more than this record has
            return self._wire.encode(text)

    def _flush_at_end_of_worker(self) -> None:
        """Have a process of `multiprocessing` flush: it ends without what the interpreter does at the end of others."""
        util, process = (sys.modules.get(f"multiprocessing.{name}") for name in ("util", "process"))
        if util is not None and process is not None and process.parent_process() is not None:
            util.Finalize(None, self.flush, exitpriority=-100)

    def flush(self) -> None:
        """Wait until all that was logged is sent, or answered (RELP); at most ``timeout`` seconds."""
        if self._is_closed or self._delivery.is_current:
            return
        self._delivery.hurry()
        self._stuck_at = None if self._backlog.wait(self._timeout) else self._backlog.settled

    def close(self) -> None:
        """
        Send what is left, for at most ``timeout`` seconds, and end; `logging` calls this at the end of the process.

        Where a flush has just waited for nothing, this does not wait again.
        """
        if not self._is_closed:
            end = time.monotonic() + self._timeout
            if self._stuck_at != self._backlog.settled:
                self.flush()
            self._is_closed = True
            self._delivery.stop(max(0.0, end - time.monotonic()))
            self._lament(self._backlog.give_up())
        super().close()

    def _lament(self, left: int) -> None:
        """Say on standard error what could not be sent: there is nobody else to tell."""
        if left and logging.raiseExceptions and sys.stderr:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(
                    f"{__name__}: {left} records were not sent, or not answered: {self.failure or 'no time was left'}\n"
                )


def _address(value: Address | Sequence[str | int]) -> Address:
    """Check an address; configuration files have lists where Python has tuples."""
    if isinstance(value, str):
        if "/" in value:
            return value
    elif len(value) == 2:  # noqa: PLR2004 - host and port
        return str(value[0]), int(value[1])
    raise ValueError(f"no address {value!r}: use a host and a port, or the path of a UNIX socket")


_handlers: "weakref.WeakSet[IngestHandler]" = weakref.WeakSet()
"""Those to begin anew in a child of the process; `logging` keeps such a set too."""


def _begin_in_child() -> None:
    for one in list(_handlers):
        one.begin_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
