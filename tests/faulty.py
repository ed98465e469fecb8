"""
A proxy between a sink and its receiver that does on purpose what networks and receivers do.

Whatever it does to a connection of plain lines, it passes on what its kernel has acknowledged: more no sink can know.
"""

import contextlib
import re
import select
import socket
import struct
import threading
import time
from enum import Enum
from typing import Self


class Fault(Enum):
    """What it does while it is told to."""

    NONE = "passes everything on"
    REFUSED = "refuses connections"
    DEAF = "accepts and never reads"
    MUTE = "reads and never answers"
    SLOW = "passes on 1 KB/s"
    RESETS = "ends the connection every 100 records"
    GARBAGE = "answers with garbage"
    HUGE = "answers without end"
    FLAPPING = "closes every connection at once"
    POISON = "refuses every record that says poison"


RESET_BYTES = 100 * 800
"""Bytes of some 100 records."""

SLOW_BYTES = 1000
"""Bytes a second."""

_POISON = re.compile(rb"(?<=\n)([0-9]{1,9}) syslog [0-9]+ [^\n]*poison")
_OK = re.compile(rb"^([0-9]{1,9}) rsp 6 200 OK$", re.MULTILINE)


class FaultyProxy:
    """
    Listens on ``port``, and passes on to ``target``.

    With ``is_careful`` connections are ended by FIN, and read to their end; else by a reset.
    """

    def __init__(self, target: int, *, is_careful: bool) -> None:
        self._target = target
        self._is_careful = is_careful
        self.fault = Fault.NONE
        self.connections = 0
        self._is_over = False
        self._listener: socket.socket | None = None
        self.port = 0
        self._listen()
        self._live: set[_Passage] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen()
        self._listener.settimeout(0.05)
        self.port = self._listener.getsockname()[1]

    def set(self, fault: Fault) -> None:
        """Do this from now on, to the connections there are as well."""
        self.fault = fault
        if fault in (Fault.REFUSED, Fault.FLAPPING):
            for passage in list(self._live):
                passage.is_unwanted = True

    def _run(self) -> None:
        while not self._is_over:
            if self.fault is Fault.REFUSED:
                if self._listener is not None:
                    self._listener.close()
                    self._listener = None
                time.sleep(0.02)
                continue
            if self._listener is None:
                self._listen()
            try:
                assert self._listener is not None
                client, _ = self._listener.accept()
            except OSError:
                continue
            self.connections += 1
            passage = _Passage(self, client, self._target, is_careful=self._is_careful)
            passage.is_unwanted = self.fault is Fault.FLAPPING
            self._live.add(passage)
            threading.Thread(target=self._pass, args=(passage,), daemon=True).start()

    def _pass(self, passage: "_Passage") -> None:
        try:
            passage.run()
        finally:
            self._live.discard(passage)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join(5)
        if self._listener is not None:
            self._listener.close()
        for passage in list(self._live):
            passage.is_unwanted = True


class _Passage:
    """One connection, and the one that goes with it."""

    def __init__(self, proxy: FaultyProxy, client: socket.socket, target: int, *, is_careful: bool) -> None:
        self._proxy = proxy
        self._client = client
        self._is_careful = is_careful
        self._server = socket.create_connection(("127.0.0.1", target), 10)
        self.is_unwanted = False
        self._passed = 0
        self._poisoned: set[bytes] = set()
        self._tail = b""
        self._half = b""

    def run(self) -> None:
        """Pass on until an end comes."""
        with contextlib.suppress(OSError):
            while not self.is_unwanted and self._step():
                pass
        with contextlib.suppress(OSError):
            self._end()
        self._client.close()
        self._server.close()

    def _step(self) -> bool:
        fault = self._proxy.fault
        if fault is Fault.DEAF:
            time.sleep(0.02)
            return True
        if fault is Fault.SLOW:
            time.sleep(0.1)
        readable, _, _ = select.select([self._client, self._server], [], [], 0.02)
        if self._client in readable and not self._bring(fault):
            return False
        return self._server not in readable or self._answer(fault)

    def _bring(self, fault: Fault) -> bool:
        data = self._client.recv(SLOW_BYTES // 10 if fault is Fault.SLOW else 65536)
        self._server.sendall(data)
        if fault is Fault.POISON:
            seen = self._tail + data
            self._poisoned.update(_POISON.findall(seen))
            self._tail = seen[-8192:]
        self._passed += len(data)
        if fault is Fault.RESETS and self._passed >= RESET_BYTES:
            return False
        return bool(data)

    def _answer(self, fault: Fault) -> bool:
        data = self._server.recv(65536)
        if fault is Fault.POISON:
            # Whole lines: an answer may come in two pieces.
            whole, end, self._half = (self._half + data).rpartition(b"\n")
            self._client.sendall(_OK.sub(self._refuse, whole + end))
            return bool(data)
        if fault is Fault.GARBAGE:
            self._client.sendall(bytes(range(256)) * 4)
        elif fault is Fault.HUGE:
            self._client.sendall(b"2 rsp 999999999 " + b"x" * 1_000_000)
        elif fault is not Fault.MUTE:
            self._client.sendall(data)
        return bool(data)

    def _refuse(self, answer: re.Match[bytes]) -> bytes:
        return b"%b rsp 9 500 never" % answer[1] if answer[1] in self._poisoned else answer[0]

    def _end(self) -> None:
        if not self._is_careful:
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        self._client.shutdown(socket.SHUT_WR)
        self._client.settimeout(10)
        while data := self._client.recv(65536):
            self._server.sendall(data)
