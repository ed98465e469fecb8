"""The thread that connects, sends, hears answers, and connects again."""

import contextlib
import logging
import random
import selectors
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable

from twisted_ingest.logging_handler.backlog import Backlog
from twisted_ingest.logging_handler.peer import Address, connect
from twisted_ingest.logging_handler.wire import Wire, WireError

ANSWER_SECONDS = 90.0
"""How long an answer that is owed may take before the connection counts as dead. librelp's own."""

FIRST_DELAY = 0.25
"""Seconds after the first failure until the next try, at most; doubled with each further one."""

LONGEST_DELAY = 30.0
"""Seconds between two tries at most: how long a fleet may need to find a server that is back."""

STABLE_SECONDS = 5.0
"""A connection that has lasted this long was a good one: the next failure is a first one."""

CHUNK = 64 * 1024
"""Bytes handed to the kernel at once, but for a record that is longer."""

_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)
"""Without a descriptor of its own, which a child of the process would inherit."""


def backoff(attempt: int, draw: Callable[[], float] = random.random) -> float:
    """
    Give the seconds to wait after the ``attempt``-th failure in a row (from 1 on): half of it fixed, half by chance.

    ``draw`` gives a number from 0 up to 1.
    """
    longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempt - 1, 20))
    return longest * (0.5 + draw() / 2)


class Delivery:
    """
    Sends what a backlog holds, from a thread that begins with the first record.

    ``failure`` is why there is no connection, or None. ``notice`` makes the record that tells of dropped ones.
    """

    def __init__(
        self,
        address: Address,
        wire: Wire,
        backlog: Backlog,
        notice: Callable[[int], bytes],
        delay: Callable[[int], float],
    ) -> None:
        self._address = address
        self._wire = wire
        self._backlog = backlog
        self._notice = notice
        self._delay = delay
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._ear: socket.socket
        self._mouth: socket.socket
        self._is_asleep = False
        self._stopped = threading.Event()
        self._hurried = threading.Event()
        self._end = 0.0
        self._connected_at = 0.0
        self._attempt = 0
        self._unsent = b""
        self.failure: str | None = None

    # Called by any thread

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in the thread of this delivery."""
        return self._thread is not None and self._thread.ident == threading.get_ident()

    def wake(self) -> bool:
        """Have the backlog looked at; tells whether that began the thread. Raises `RuntimeError` if it cannot begin."""
        if is_first := self._thread is None:
            self._start()
        if self._is_asleep:
            self._is_asleep = False
            with contextlib.suppress(OSError):  # full: then it is going to wake anyway
                self._mouth.send(b"\0")
        return is_first

    def hurry(self) -> None:
        """Have the next try to connect made now."""
        self._hurried.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._ear, self._mouth = socket.socketpair()
            self._ear.setblocking(False)
            self._mouth.setblocking(False)
            self._thread = threading.Thread(target=self._run, name="twisted-ingest-logging", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                self._thread = None
                self.forget()
                raise

    def stop(self, timeout: float) -> None:
        """End the connection in good order and the thread with it; ``timeout`` seconds are waited for it."""
        self._end = time.monotonic() + timeout
        self._stopped.set()
        self.hurry()
        if self._thread is not None:
            self._is_asleep = True
            self.wake()
            if not self.is_current:
                self._thread.join(timeout)

    def forget(self) -> None:
        """Close the descriptors, and nothing more: in a child of the process they are copies of the parent's."""
        for name in ("_socket", "_ear", "_mouth"):
            if (one := getattr(self, name, None)) is not None:
                one.close()

    # In the thread

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                try:
                    self._session()
                except (OSError, WireError) as failure:
                    self.failure = str(failure) or type(failure).__name__
                except Exception:  # noqa: BLE001 - whatever is wrong must not end the thread
                    self.failure = _report()
                self._hang_up()
        finally:
            self.forget()

    def _hang_up(self) -> None:
        """Let go of the connection, and wait before the next one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            if time.monotonic() - self._connected_at >= STABLE_SECONDS:
                self._attempt = 0
        self._attempt += 1
        if not self._stopped.is_set():
            self._hurried.wait(self._next_delay())
            self._hurried.clear()

    def _next_delay(self) -> float:
        try:
            return self._delay(self._attempt)
        except Exception:  # noqa: BLE001 - of the application's making
            _report()
            return LONGEST_DELAY

    def _session(self) -> None:
        self._socket = peer = connect(self._address)
        self._connected_at = self._heard_at = time.monotonic()
        self._unsent = self._wire.begin()
        with _Selector() as selector:
            selector.register(self._ear, selectors.EVENT_READ)
            selector.register(peer, selectors.EVENT_READ)
            self.failure = None
            while not self._stopped.is_set():
                self._turn(selector, peer)
            self._say_goodbye(selector, peer)

    def _turn(self, selector: selectors.BaseSelector, peer: socket.socket) -> None:
        """Wait until there is something to do, and do it; what the peer did comes first, so that a dead one is seen."""
        if not self._unsent:
            self._fill()
        interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        selector.modify(peer, interest)
        ready = {key.fileobj: events for key, events in selector.select(self._patience())}
        self._is_asleep = False
        if self._ear in ready:
            self._ear.recv(4096)
        if ready.get(peer, 0) & selectors.EVENT_READ:
            self._read(peer)
        if ready.get(peer, 0) & selectors.EVENT_WRITE:
            self._write(peer)
        if self._patience() == 0:
            raise WireError(f"no answer within {ANSWER_SECONDS:.0f} s")

    def _patience(self) -> float | None:
        """Give how many seconds may pass until something happens; None for any number."""
        return max(0.0, self._heard_at + ANSWER_SECONDS - time.monotonic()) if self._wire.is_owed else None

    def _fill(self) -> None:
        """Take the next records, or say that whoever puts one must wake us."""
        if untold := self._backlog.untold:
            self._backlog.tell(untold, self._notice(untold))
        if not self._wire.is_owed:
            self._heard_at = time.monotonic()
        if room := self._wire.room:
            self._is_asleep = True  # before the look, so that no record is put unseen
            self._unsent = self._wire.frame(self._backlog.look(self._wire.ahead, room, CHUNK))

    def _read(self, peer: socket.socket) -> None:
        try:
            data = peer.recv(CHUNK)
        except BlockingIOError:
            return
        if not data:
            raise WireError("the server closed the connection")
        self._heard_at = time.monotonic()
        self._backlog.settle(self._wire.received(data))

    def _write(self, peer: socket.socket) -> None:
        try:
            size = peer.send(self._unsent)
        except BlockingIOError:
            return
        self._unsent = self._unsent[size:]
        self._backlog.settle(self._wire.sent(size))

    def _say_goodbye(self, selector: selectors.BaseSelector, peer: socket.socket) -> None:
        """End in good order where the protocol has such an end: until the peer has agreed, or time is up."""
        if not (end := self._wire.end()):
            return
        self._unsent += end
        selector.unregister(self._ear)
        while (left := self._end - time.monotonic()) > 0:
            selector.modify(peer, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0))
            for _, events in selector.select(left):
                if events & selectors.EVENT_READ:
                    self._read(peer)
                elif self._unsent:
                    self._write(peer)


def _report() -> str:
    """Write the exception at hand to standard error, unless logging is to be silent; gives it in short."""
    if logging.raiseExceptions and sys.stderr:
        with contextlib.suppress(OSError, ValueError):
            traceback.print_exc(file=sys.stderr)
    return repr(sys.exception())
