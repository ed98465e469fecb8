"""
Which sockets can be read, asked for a whole port at once.

Twisted's reactor calls each ready descriptor through `callWithLogger`, which sets up a logging context that nothing of
ours uses: 43 % of the CPU time of a thousand connections that send a line now and then. So the connections of a port
have an epoll of their own. It is a descriptor too: the reactor watches it, and calls it once a turn for all of them.
"""

import select
from typing import Any

from twisted.internet import error
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

HAS_EPOLL = hasattr(select, "epoll")


@implementer(IReadDescriptor)
class Readiness:
    """
    Reads from the connections of one port, each once a turn, as the reactor would.

    Holds a descriptor while it watches any connection, and none otherwise. Connections call `add` and `remove`.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        self._watched: dict[int, Any] = {}
        self._epoll: Any = None

    def add(self, transport: Any) -> None:
        """Watch a connection until it is removed."""
        number = transport.fileno()
        if number < 0 or number in self._watched:
            return
        if self._epoll is None:
            self._epoll = select.epoll()
            self._reactor.addReader(self)
        self._epoll.register(number, select.EPOLLIN)
        self._watched[number] = transport

    def remove(self, transport: Any) -> None:
        """Watch a connection no longer; safe for one that is not watched."""
        # By its number: a transport is asked to stop before it closes its socket.
        number = transport.fileno()
        if self._watched.get(number) is not transport:
            return
        del self._watched[number]
        self._epoll.unregister(number)
        if not self._watched:
            self._let_go()

    def _let_go(self) -> None:
        self._reactor.removeReader(self)
        self._epoll.close()
        self._epoll = None

    # The reactor calls these.

    def fileno(self) -> int:
        """Give the number of the descriptor, or -1."""
        return -1 if self._epoll is None else int(self._epoll.fileno())

    def logPrefix(self) -> str:
        """Name us in the reactor's log."""
        return "readiness"

    def doRead(self) -> None:
        """Read once from every connection that can be read."""
        watched = self._watched
        for number, _events in self._epoll.poll(0, len(watched)):
            # One read may pause or end the connections behind it.
            transport = watched.get(number)
            if transport is not None:
                self._read(transport)

    def _read(self, transport: Any) -> None:
        try:
            reason = transport.doRead()
        except Exception as bug:  # noqa: BLE001 - as the reactor: the connection ends, the others go on
            self._log.failure("reading from a connection failed")
            reason = bug
        if reason is not None:
            self._end(transport, reason)

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
            self._let_go()
