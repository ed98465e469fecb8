"""
Which sockets can be read, asked for a whole port at once.

Twisted's reactor calls each ready descriptor through `callWithLogger`, which sets up a logging context that nothing of
ours uses: 43 % of the CPU time of a thousand connections that send a line now and then. So the connections of a port
have an epoll of their own. It is a descriptor too: the reactor watches it, and calls it once a turn for all of them.
"""

import contextlib
import os
import select
from collections.abc import Callable
from time import perf_counter
from typing import Any

from twisted.internet import error
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_ingest.flow.slabs import Slabs
from twisted_ingest.server.whole import IS_COMPILED, WholeReads

HAS_EPOLL = hasattr(select, "epoll") and hasattr(os, "eventfd")

REST_SECONDS = 0.001
"""Seconds a port is not read from after a turn that brought little. Half of what batches wait for each other anyway
(`GATHER_SECONDS`); of 50,000 lines a second it makes turns of fifty lines instead of ten."""

ROUNDS_PER_TURN = 16
"""Times that a port is read from in one turn of the reactor, where its peers send in bulk. What the reactor does
between two turns costs as much as receiving 32 KiB."""

TURN_SECONDS = 0.001
"""Seconds after which no other of these rounds begins, so that timers and other ports do not wait for them."""

RETRY_SECONDS = 0.1
"""Seconds until it is tried again to have the reactor watch us, where the kernel has no room for another watch."""

DENSE_SECONDS = 0.005
"""Seconds since the last turn within which the next one is said to follow closely. A line now and then is not worth a
timer."""


@implementer(IReadDescriptor)
class Readiness:
    """
    Reads from the connections of one port, each as often as the others.

    Connections call `add`, `remove`, and `leave` at their end, and `recall` while they hold what they have not brought.
    It holds two descriptors until it is retired and the last one has left. Where it ``rests``, small reads that follow
    each other closely are made fewer and larger: for ports that answer nobody. ``on_bug`` is called with where, inside
    the ``except`` block: a bug costs its connection. With ``slabs`` all are received for in one call (`WholeReads`).
    """

    def __init__(
        self,
        reactor: Any,
        on_bug: Callable[[str], None],
        *,
        rests: bool = False,
        slabs: Slabs | None = None,
        seconds: Callable[[], float] = perf_counter,
    ) -> None:
        self._reactor = reactor
        self._on_bug = on_bug
        self._rests = rests
        self._seconds = seconds
        self._read_at = float("-inf")
        """When the last turn began."""
        self._resting: Any = None
        self._is_retired = self._is_ringing = False
        self.is_bulk = False
        """Set by a connection whose read brought much: it is likely to have more, and nobody rests after that turn."""
        self._watched: dict[int, Any] = {}
        self._whole = WholeReads(slabs, self._watched, self._attempt) if slabs is not None and IS_COMPILED else None
        self._members: set[Any] = set()
        """The connections that have come and not left, watched or held back."""
        self._recalled: dict[Any, None] = {}
        """Those to be read from in the next round whatever the kernel shows, as they asked."""
        self._epoll: Any = select.epoll()
        self._bell = -1
        """A descriptor that can always be read: while it is watched the reactor calls us each turn."""
        try:
            self._bell = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._epoll.register(self._bell, 0)
            reactor.addReader(self)
        except BaseException:
            self._close()
            raise

    def add(self, transport: Any) -> None:
        """Watch a connection until it is removed, or leaves. Raises ``OSError`` where the kernel cannot watch more."""
        number = transport.fileno()
        if number < 0 or self._watched.get(number) is transport:
            return
        # A number may be new although it is known: the kernel watches no closed socket, whoever forgot to remove it.
        with contextlib.suppress(FileExistsError):
            self._epoll.register(number, select.EPOLLIN)
        self._watched[number] = transport
        self._members.add(transport)

    def remove(self, transport: Any) -> None:
        """Watch a connection no longer; safe for one that is not watched."""
        # By its number: a transport is asked to stop before it closes its socket.
        number = transport.fileno()
        if self._watched.get(number) is not transport:
            return
        del self._watched[number]
        self._recalled.pop(transport, None)
        # Closed behind our back it is watched no longer, and to say so is not worth a connection.
        with contextlib.suppress(OSError):
            self._epoll.unregister(number)

    def watches(self, transport: Any) -> bool:
        """Whether a connection is read from."""
        return self._watched.get(transport.fileno()) is transport

    def recall(self, transport: Any) -> None:
        """
        Read from a connection once, in the next round or turn, whatever the kernel shows.

        Not where it is not watched, or is removed before that: added again, it has to ask again.
        """
        if not self.watches(transport):
            return
        self._recalled[transport] = None
        if not self._is_ringing:
            self._epoll.modify(self._bell, select.EPOLLIN)
            self._is_ringing = True

    def leave(self, transport: Any) -> None:
        """Forget a connection that is over, and has been removed."""
        self._members.discard(transport)
        self._settle()

    def retire(self) -> None:
        """Let go of the descriptor as soon as all connections have left: the port is closed."""
        self._is_retired = True
        self._settle()

    def _settle(self) -> None:
        # Not whenever nobody is watched: a descriptor made anew may get the number of a socket that was closed in the
        # same turn of the reactor, which then takes the hang-up of that one for ours.
        if self._is_retired and not self._members and self._epoll is not None:
            self._let_go()

    def _let_go(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        else:
            self._reactor.removeReader(self)
        self._close()

    def _close(self) -> None:
        self._epoll.close()
        self._epoll = None
        self._is_ringing = False
        if self._bell >= 0:
            os.close(self._bell)

    # The reactor calls these.

    def fileno(self) -> int:
        """Give the number of the descriptor, or -1."""
        return -1 if self._epoll is None else int(self._epoll.fileno())

    def logPrefix(self) -> str:
        """Name us in the reactor's log."""
        return "readiness"

    def doRead(self) -> None:
        """Read from the connections that can be read: from each once, and in bulk once more while that is quick."""
        try:
            self._read_in_turn()
        except Exception:  # noqa: BLE001 - the reactor would end us, and leave the whole port deaf
            self._on_bug("reading from a port")

    def _read_in_turn(self) -> None:
        before, self._read_at = self._read_at, self._seconds()
        self.is_bulk = False
        self._read_each()
        if self.is_bulk:
            self._read_on()
        elif self._rests and self._watched and not self._recalled and self._read_at - before < DENSE_SECONDS:
            self._rest()
        if self._is_ringing and not self._recalled:
            self._epoll.modify(self._bell, 0)
            self._is_ringing = False

    def _read_on(self) -> None:
        """Read once more from each while that brings much and is quick."""
        for _ in range(ROUNDS_PER_TURN - 1):
            if not self.is_bulk or not self._watched or self._seconds() - self._read_at >= TURN_SECONDS:
                return
            self.is_bulk = False
            self._read_each()

    def _read_each(self) -> None:
        watched = self._watched
        if not watched:
            return  # all were removed in this turn of the reactor
        shown = self._epoll.poll(0, len(watched) + 1)
        ready = {watched[number]: None for number, _events in shown if number in watched} | self._recalled
        self._recalled = {}
        if self._whole is not None and (much := [transport for transport in ready if transport.last_read]):
            for transport in much:
                del ready[transport]
            self._whole.read(much)
        # Small reads are plain ones: what it takes to ask for a whole read outweighs a line.
        for transport in ready:
            # One read may pause or end the connections behind it.
            if self.watches(transport):
                self._attempt(transport, transport.doRead)

    def _rest(self) -> None:
        """Let some more come before the next turn; not where this one took longer than that would."""
        if self._seconds() - self._read_at < REST_SECONDS:
            self._reactor.removeReader(self)
            self._resting = self._reactor.callLater(REST_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._resting = None
        try:
            self._reactor.addReader(self)
        except OSError:
            # Others have used up the machine's watches meanwhile (ENOSPC): without another try the port would be deaf.
            self._resting = self._reactor.callLater(RETRY_SECONDS, self._go_on)

    def _attempt(self, transport: Any, read: Callable[..., Exception | None], *arguments: Any) -> None:
        """Read from a connection, and end it where it is over."""
        reason: Exception | None
        try:
            reason = read(*arguments)
        except Exception as bug:  # noqa: BLE001 - as the reactor: the connection ends, the others go on
            self._on_bug("reading from a connection")
            reason = bug
        if reason is None:
            return
        try:
            self._end(transport, reason)
        except Exception:  # noqa: BLE001 - as above
            self._on_bug("ending a connection")
            transport.abortConnection()

    def _end(self, transport: Any, reason: Exception) -> None:
        """Do what the reactor does with a connection that is over."""
        self.remove(transport)
        if isinstance(reason, error.ConnectionDone):
            # Ends it too, unless the protocol can be half-closed.
            transport.readConnectionLost(Failure(reason))
        else:
            transport.stopWriting()
            transport.connectionLost(Failure(reason))

    def connectionLost(self, reason: Failure) -> None:
        """Let go, as the reactor ends; the service has ended the connections, or the process ends with them."""
        if self._epoll is not None:
            self._watched.clear()
            self._members.clear()
            self._recalled.clear()
            self._let_go()
