"""
The other side of a network sink, without a network: it takes, reads, answers and goes as a test says.

What is written goes through a pair of UNIX sockets, so that the kernel's part (what it takes, what it still has) is
real; time is a `Clock`.
"""

import socket
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer


class ReceiverConnection:
    """One connection, from the receiver's side, and the transport of the sink's. ``heard`` is all that was read."""

    def __init__(self, clock: Clock, protocol: Any) -> None:
        self._clock = clock
        self._protocol = protocol
        self._ours, self._theirs = socket.socketpair()
        for end in (self._ours, self._theirs):
            end.setblocking(False)
        self.is_up = True
        self.was_reset = False
        self._wants_writing = False
        self.producer: Any = None
        self.heard = b""
        protocol.makeConnection(self)

    # The receiver.

    def read(self, most: int = 1 << 30) -> bytes:
        """Read what is there, and let the sink send on; gives what was read."""
        read = b""
        while len(read) < most:
            try:
                some = self._theirs.recv(min(most - len(read), 1 << 16))
            except BlockingIOError:
                if not self._let_write():
                    break
            else:
                if not some:
                    break
                read += some
        self.heard += read
        return read

    def _let_write(self) -> bool:
        """Let the sink write, as a reactor does; false where it does not want to."""
        wanted, self._wants_writing = self._wants_writing, False
        if wanted and self.producer is not None and self.is_up:
            self.producer.resumeProducing()
        return wanted

    def answer(self, data: bytes) -> None:
        """Send something back."""
        if self.is_up:
            self._protocol.dataReceived(data)

    def close(self) -> None:
        """Send FIN."""
        self._protocol.readConnectionLost()

    def reset(self) -> None:
        """Send RST."""
        self._lose(error.ConnectionLost())

    # The sink's transport.

    def getHandle(self) -> socket.socket:
        """Give our end."""
        return self._ours

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Say that this is no TCP."""
        raise AttributeError("no TCP")

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Keep whoever sends more when the kernel takes more."""
        self.producer = producer
        producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """Forget it."""
        self.producer = None

    def startWriting(self) -> None:
        """Note that the sink wants to hear when the kernel takes more."""
        self._wants_writing = True

    def loseConnection(self) -> None:
        """Close in the next turn."""
        self._clock.callLater(0, self._lose, error.ConnectionDone())

    def abortConnection(self) -> None:
        """Reset in the next turn."""
        self.was_reset = True
        self._clock.callLater(0, self._lose, error.ConnectionAborted())

    def _lose(self, reason: Exception) -> None:
        if self.is_up:
            self.is_up = False
            self._protocol.connectionLost(Failure(reason))
            self._ours.close()
            self.read()
            self._theirs.close()


@implementer(IStreamClientEndpoint)
class _Endpoint:
    def __init__(self, receiver: "ScriptedReceiver") -> None:
        self._receiver = receiver

    def connect(self, protocolFactory: Any) -> "Deferred[Any]":
        """See `IStreamClientEndpoint`."""
        return self._receiver.connect(protocolFactory)


class ScriptedReceiver:
    """
    A host that can be connected to, or not. Its `endpoint` makes what a sink connects with.

    ``mood`` is, by the text of a target, ``"up"``, ``"refuses"`` or ``"silent"``; ``lines`` are the connections so far,
    ``attempts`` the targets that were tried and when.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.mood: dict[str, str] = {}
        self.lines: list[ReceiverConnection] = []
        self.attempts: list[tuple[str, float]] = []

    def endpoint(self, target: Any, timeout: float) -> IStreamClientEndpoint:
        """Make what a sink connects with, to a target that has a ``text``."""
        self.attempts.append((target.text, self._clock.seconds()))
        self._target = target.text
        return _Endpoint(self)

    def connect(self, factory: Any) -> "Deferred[Any]":
        """Connect, as the mood is."""
        mood = self.mood.get(self._target, "up")
        if mood == "refuses":
            return fail(error.ConnectionRefusedError())
        done: Deferred[Any] = Deferred()
        if mood == "up":
            protocol = factory.buildProtocol(None)
            self.lines.append(ReceiverConnection(self._clock, protocol))
            done.callback(protocol)
        return done

    @property
    def line(self) -> ReceiverConnection:
        """The latest connection."""
        return self.lines[-1]
