"""
A RELP client that shares no code with the server: plain blocking sockets and a parser of its own.

It keeps a ledger on disk of every answer it received, synced before it goes on, so that what it says was answered can
be believed whatever happens to anybody.
"""

import contextlib
import os
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Self

OFFERS = b"relp_version=0\nrelp_software=ingest-test,1,http://localhost\ncommands=syslog"


class SessionLostError(Exception):
    """The server has closed, or said that it will, or nobody listens."""


class RelpClient:
    """
    One session. ``unanswered`` maps the numbers of records sent and not answered to the records, in order.

    ``answered`` lists the records answered with 200, as the ledger at ``path`` does, one index a line.
    """

    def __init__(
        self,
        port: int,
        ledger: "Ledger | None" = None,
        patience: float = 60.0,
        wrap: Callable[[socket.socket], socket.socket] = lambda plain: plain,
    ) -> None:
        self._ledger = ledger
        self._held = b""
        self.number = 0
        self.unanswered: OrderedDict[int, bytes] = OrderedDict()
        self.answered: list[bytes] = []
        self.refused: list[tuple[int, bytes]] = []
        self.has_serverclose = False
        try:
            self._socket = wrap(socket.create_connection(("127.0.0.1", port), patience))
        except OSError as failure:
            raise SessionLostError(str(failure)) from failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def command(self, name: bytes, data: bytes = b"") -> int:
        """Send a frame; gives its number."""
        self.number += 1
        body = b" " + data if data else b""
        self.raw(b"%d %b %d%b\n" % (self.number, name, len(data), body))
        return self.number

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        try:
            self._socket.sendall(data)
        except OSError as failure:
            raise SessionLostError(str(failure)) from failure

    def open(self) -> bytes:
        """Open the session; gives the server's answer."""
        wanted = self.command(b"open", OFFERS)
        number, text = self.receive()
        if number != wanted:
            raise AssertionError(f"the answer to open is numbered {number}")
        return text

    def send(self, record: bytes) -> None:
        """Send a record without waiting."""
        # Noted first: when sending fails, nobody knows how much of it has gone.
        self.unanswered[self.number + 1] = record
        self.command(b"syslog", record)

    def receive(self) -> tuple[int, bytes]:
        """Wait for one answer; gives its number and text."""
        header, _, rest = self._line().partition(b" ")
        command, _, length = rest.partition(b" ")
        digits, _, text = length.partition(b" ")
        size = int(digits)
        while len(text) < size:
            # The LF taken for the end was inside the data.
            text += b"\n" + self._line()
        if len(text) != size:
            raise AssertionError(f"an answer of {size} bytes has {len(text)}: {text!r}")
        if command == b"serverclose":
            self.has_serverclose = True
            raise SessionLostError("serverclose")
        if command != b"rsp":
            raise AssertionError(f"the server sent {command!r}")
        return int(header), text

    def settle(self) -> int:
        """Wait for the answer to a record and write it down; gives its number."""
        number, text = self.receive()
        if not text.startswith(b"200 "):
            self.refused.append((number, text))
        if number != next(iter(self.unanswered)):
            raise AssertionError(f"record {number} was answered out of order")
        record = self.unanswered.pop(number)
        self.answered.append(record)
        if self._ledger is not None:
            self._ledger.note(record)
        return number

    def close(self) -> None:
        """End the session in good order: what was sent is answered first."""
        wanted = self.command(b"close")
        while self.unanswered:
            self.settle()
        if self.receive() != (wanted, b""):
            raise AssertionError("close was answered with something")
        with contextlib.suppress(SessionLostError):
            self.receive()
        if not self.has_serverclose:
            raise AssertionError("no serverclose after close")

    def half_close(self) -> None:
        """Send FIN and go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def _line(self) -> bytes:
        while b"\n" not in self._held:
            try:
                some = self._socket.recv(65536)
            except OSError as failure:
                raise SessionLostError(str(failure)) from failure
            if not some:
                raise SessionLostError("end of stream")
            self._held += some
        line, _, self._held = self._held.partition(b"\n")
        return line


class Ledger:
    """The records answered, a line each, synced as they are noted."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.count = 0

    def note(self, record: bytes) -> None:
        """Write a record down, after its answer was received."""
        os.write(self._descriptor, record + b"\n")
        os.fdatasync(self._descriptor)
        self.count += 1

    def read(self) -> list[bytes]:
        """Give all records noted."""
        with open(self._path, "rb") as stream:
            return stream.read().splitlines()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


class Sender:
    """
    Sends numbered records with a window, reconnecting and sending again what was not answered, as omrelp does.

    It goes on until `finish`. ``exposed`` counts what was sent and unanswered each time a session was lost: the most
    that may arrive twice. ``sent`` is how many different records were sent.
    """

    def __init__(self, port: int, make: Callable[[int], bytes], ledger: Ledger, window: int = 128) -> None:
        self._port = port
        self._make = make
        self._ledger = ledger
        self._window = window
        self._next = 0
        """The first record that is not answered."""
        self._last: int | None = None
        self.sent = 0
        self.exposed = 0
        self.sessions = 0

    def finish(self) -> None:
        """Send no new records; `run` ends once all are answered."""
        self._last = self.sent

    def run(self, deadline: float) -> None:
        """Send; raises once ``deadline`` (`time.monotonic` seconds) has passed."""
        while not self._is_done:
            if time.monotonic() > deadline:
                raise AssertionError(f"only {self._next} of {self.sent} records were answered")
            try:
                with RelpClient(self._port, self._ledger) as client:
                    self._session(client)
            except SessionLostError:
                time.sleep(0.02)

    @property
    def _is_done(self) -> bool:
        return self._last is not None and self._next >= self._last

    def _session(self, client: RelpClient) -> None:
        self.sessions += 1
        client.open()
        try:
            self._exchange(client)
            client.close()
        except SessionLostError:
            self.exposed += len(client.unanswered)
            raise

    def _exchange(self, client: RelpClient) -> None:
        following = self._next
        while not self._is_done:
            while len(client.unanswered) < self._window and (self._last is None or following < self._last):
                # Before it is sent, for `finish` may come in between.
                self.sent = max(self.sent, following + 1)
                client.send(self._make(following))
                following += 1
            client.settle()
            self._next += 1
