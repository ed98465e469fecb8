"""Lines go to a file, and a protocol of our own is given each of them as well."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from twisted_ingest.config.load import load
from twisted_ingest.server.protocol import IngestProtocol
from twisted_ingest.service import IngestService


class Talking(IngestProtocol):
    """Answers some lines; the file has them all."""

    delimiter = b"\n"
    MAX_LENGTH = 4096
    reactor: Any

    def connectionMade(self) -> None:
        """Begin: the base class first."""
        super().connectionMade()
        self.setTimeout(60)

    def lineReceived(self, line: bytes) -> None:
        """Be given one line, once and in order; it is on its way to the file already."""
        self.resetTimeout()
        if line == b"ping":
            self.sendLine(b"pong")
        elif line == b"quit":
            self.transport.loseConnection()
        elif line == b"wait":
            self.pauseProducing()  # no further line, and the sender is held back
            _ = self.look_up().addBoth(self.go_on)

    def look_up(self) -> Deferred[None]:
        """Stand for a query that takes its time."""
        return deferLater(self.reactor, 0.05)

    def go_on(self, _: object) -> None:
        """Answer, and have the next line."""
        self.sendLine(b"done")
        self.resumeProducing()


def make_service(reactor: Any, endpoint: str, path: str) -> IngestService:
    """Make a service that listens at ``endpoint``; start it in a reactor that runs or is about to."""
    Talking.reactor = reactor
    loaded = load(None, {"admin": "off"}, listen=[endpoint], sinks=[f"file:{path}"])
    service = IngestService(loaded, reactor)
    for listener in service.listeners:
        service.set_protocol(listener.name, Talking)
    return service
