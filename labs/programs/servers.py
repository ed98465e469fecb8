"""
Servers as one writes them first, for the labs to hold beside ours; each is a few lines of plain Twisted.
"""

import sys
import threading
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin

from labs.running import limit_descriptors, role, speak, the_reactor


class Plain(Factory):
    """A factory that keeps every protocol it ever built, as a receiver without tracking comes to do."""

    noisy = False

    def __init__(self, idle: float | None) -> None:
        self.idle = idle
        self.kept: list[Any] = []
        self.lines = 0


class Graceful(LineOnlyReceiver):
    """Takes one line, answers, and closes in good order: FIN, after all that was written."""

    delimiter = b"\n"
    factory: Any

    def lineReceived(self, line: bytes) -> None:
        """Answer and close."""
        self.factory.lines += 1
        self.transport.write(b"ok\n")  # type: ignore[union-attr]
        self.end()

    def end(self) -> None:
        """Close in good order."""
        self.transport.loseConnection()  # type: ignore[union-attr]


class Forceful(Graceful):
    """The same with a reset."""

    def end(self) -> None:
        """Reset."""
        self.transport.abortConnection()  # type: ignore[union-attr]


class Forgetful(Protocol):
    """Stops reading and forgets about it: a paused connection is deaf, so it never sees the end either."""

    factory: Any

    def connectionMade(self) -> None:
        """Keep it for later; there will be no later."""
        self.transport.pauseProducing()  # type: ignore[union-attr]
        self.factory.kept.append(self)


class ClosesIdle(LineOnlyReceiver, TimeoutMixin):
    """Closes a silent peer in good order, as is polite."""

    delimiter = b"\n"
    factory: Any

    def connectionMade(self) -> None:
        """Start the timer."""
        self.setTimeout(self.factory.idle)

    def lineReceived(self, line: bytes) -> None:
        """Count."""
        self.factory.lines += 1
        self.resetTimeout()

    def connectionLost(self, reason: object = None) -> None:
        """Stop the timer."""
        self.setTimeout(None)


class Leaking(Protocol):
    """
    The receiver of the report, before its fixes.

    A buffer without a limit, no timeout, and nobody lets go of a connection that has ended: its buffer stays.
    """

    factory: Any

    def connectionMade(self) -> None:
        """Begin with nothing."""
        self.buffer = bytearray()
        self.factory.kept.append(self)

    def dataReceived(self, data: bytes) -> None:
        """Gather until there is a line."""
        self.buffer += data
        if b"\n" in data:
            *lines, rest = self.buffer.split(b"\n")
            self.factory.lines += len(lines)
            self.buffer = rest


KINDS: dict[str, type[Protocol]] = {
    "graceful": Graceful,
    "forceful": Forceful,
    "forgetful": Forgetful,
    "closes-idle": ClosesIdle,
    "leaking": Leaking,
}


def serve(kind: str, nofile: int | None = None, idle: float | None = None) -> None:
    """Be one of these servers; each line on standard input is answered with what it knows."""
    if nofile is not None:
        limit_descriptors(nofile)
    factory = Plain(idle)
    factory.protocol = KINDS[kind]
    port = the_reactor().listenTCP(0, factory, backlog=1024, interface="127.0.0.1")

    def answer() -> None:
        for _ in sys.stdin:
            speak(lines=factory.lines, kept=len(factory.kept))

    threading.Thread(target=answer, daemon=True).start()
    # Once the reactor has opened the descriptors that it needs for itself.
    the_reactor().callWhenRunning(lambda: speak(port=port.getHost().port))
    the_reactor().run()


if __name__ == "__main__":
    role({"serve": serve})
