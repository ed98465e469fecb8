"""
A listener: an endpoint string, the port it became, and the factory behind it.
"""

from typing import Any

from twisted.internet import error
from twisted.internet.endpoints import serverFromString

from twisted_ingest.errors import ListenError, WireProtocol
from twisted_ingest.limits import ACCEPTS_PER_TURN
from twisted_ingest.observe.events import Events
from twisted_ingest.server.admission import Admission
from twisted_ingest.server.factory import IngestFactory
from twisted_ingest.server.relp import RelpFactory
from twisted_ingest.server.sockets import ListeningReactor
from twisted_ingest.server.transports import address_text

FACTORIES: dict[WireProtocol, type[IngestFactory]] = {
    WireProtocol.LINES: IngestFactory,
    WireProtocol.RELP: RelpFactory,
}


class Listener:
    """One place where records come in. Made by the service, which also stops it."""

    def __init__(self, endpoint: str, factory: IngestFactory) -> None:
        self.endpoint = endpoint
        self.factory = factory
        self.port: Any = None

    @property
    def name(self) -> str:
        """The configured name: a metric label."""
        return self.factory.name

    @property
    def address(self) -> str | None:
        """Where it listens in fact, port 0 resolved; ``None`` while it does not."""
        return address_text(self.port.getHost())[0] if self.port is not None else None

    async def listen(self, reactor: Any, admission: Admission, events: Events) -> None:
        """Bind. Raises `ListenError`, which names the address and the reason."""
        ports = ListeningReactor(reactor, admission, events, self.factory.limits.receive_buffer_bytes)
        try:
            self.port = await serverFromString(ports, self.endpoint).listen(self.factory)
        except error.CannotListenError as failure:
            reason = failure.socketError
            raise ListenError(
                f"cannot listen on {self.endpoint}: {getattr(reason, 'strerror', None) or reason}"
            ) from failure
        except OSError as failure:
            raise ListenError(f"cannot listen on {self.endpoint}: {failure.strerror}") from failure

    def open_gate(self) -> None:
        """Accept again after the cap on connections."""
        if self.port is not None:
            self.port.open_gate()

    async def stop(self) -> None:
        """
        Accept what the kernel has accepted for us already, then close the port.

        Closing with connections in the queue would reset clients whose first lines were sent in good faith.
        """
        if self.port is None:
            return
        port, self.port = self.port, None
        # The queue is no longer than the backlog; a flood may refill it, so this is bounded too.
        for _ in range(1 + port.backlog // ACCEPTS_PER_TURN if port.backlog else 1):
            if port.accept_some(ACCEPTS_PER_TURN) or not port.admission.room:
                break
        port.close_gate()
        await port.stopListening()
