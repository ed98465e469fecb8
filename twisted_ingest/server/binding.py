"""
An endpoint string and the port it became, which is bound again where it is lost.
"""

from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_ingest.backoff import Backoff
from twisted_ingest.errors import ListenError
from twisted_ingest.limits import ACCEPTS_PER_TURN
from twisted_ingest.observe.events import Events
from twisted_ingest.server.admission import Admission
from twisted_ingest.server.endpoints import server_endpoint
from twisted_ingest.server.sockets import ListeningReactor
from twisted_ingest.server.transports import address_text

REBIND_BACKOFF_SECONDS = (0.1, 5.0)
"""First and longest wait before a port that was lost is bound again; doubled each time, and for one lost again soon."""


class Binding:
    """
    One place that is listened on, and what makes the protocols of those who connect.

    ``trouble`` says why it is not listened on although it should be, ``None``: all is well. A port that is lost
    although nobody asked for it is bound again, for as long as that takes. The factory's ``clock`` drives the timers of
    that; the ``reactor`` watches the sockets.
    """

    flag = ""
    """What to add to an address that cannot be listened on, where it is no listener's."""

    def __init__(self, endpoint: str, factory: Any, reactor: Any, admission: Admission) -> None:
        self.endpoint = endpoint
        self.factory = factory
        self.port: Any = None
        self.trouble: str | None = None
        self._reactor = reactor
        self._admission = admission
        self._ports: ListeningReactor | None = None
        self._backoff = Backoff(*REBIND_BACKOFF_SECONDS)
        self._bound_at = 0.0
        self._binding: Any = None
        """The call that will bind again."""

    @property
    def name(self) -> str:
        """The configured name: a metric label."""
        return str(self.factory.name)

    @property
    def address(self) -> str | None:
        """Where it listens in fact, port 0 resolved; ``None`` while it does not."""
        return address_text(self.port.getHost())[0] if self.port is not None else None

    def bind(self) -> None:
        """Listen from now on. Raises `ListenError`, which names the address and the reason."""
        self._ports = self._make_ports(self._reactor, self._admission, self.factory.events)
        try:
            self.port = _now(server_endpoint(self._ports, self.endpoint).listen(self.factory))
        except (error.CannotListenError, OSError) as failure:
            raise ListenError(f"cannot listen on {self.endpoint}{self.flag}: {_reason(failure)}") from failure
        self._bound_at = self.factory.clock.seconds()

    def _make_ports(self, reactor: Any, admission: Admission, events: Events) -> ListeningReactor:
        return ListeningReactor(reactor, admission, events, self.factory.limits.receive_buffer_bytes, self._lost)

    def open_gate(self) -> None:
        """Accept again after the cap on connections."""
        if self.port is not None:
            self.port.open_gate()

    async def stop(self) -> None:
        """
        Accept what the kernel has accepted for us already, then close the port.

        Closing with connections in the queue would reset clients whose first lines were sent in good faith.
        """
        if self._binding is not None:
            self._binding.cancel()
            self._binding = None
        port, self.port = self.port, None
        if port is not None:
            self._accept_rest(port)
            port.close_gate()
            await port.stopListening()
        if self._ports is not None:
            self._ports.let_go()

    def _accept_rest(self, port: Any) -> None:
        # The queue is no longer than the backlog; a flood may refill it, so this is bounded too.
        for _ in range(1 + port.backlog // ACCEPTS_PER_TURN if port.backlog else 1):
            try:
                if port.accept_some(ACCEPTS_PER_TURN) or not port.admission.room:
                    return
            except OSError:
                return  # it is lost already
            except Exception:  # noqa: BLE001 - the port has to be closed all the same
                self.factory.events.internal_error("accepting")
                return

    def _lost(self, reason: Failure) -> None:
        """Bind again in a while: the port was lost."""
        self.port = None
        if self.factory.clock.seconds() - self._bound_at > REBIND_BACKOFF_SECONDS[1]:
            self._backoff.reset()
        self._bind_later(f"its port was lost ({reason.getErrorMessage()})")

    def _bind_later(self, trouble: str) -> None:
        self.trouble = trouble
        wait = self._backoff.lengthen()
        self.factory.events.listener_lost(self.name, trouble, wait)
        self._binding = self.factory.clock.callLater(wait, self._bind_again)

    def _bind_again(self) -> None:
        self._binding = None
        if self._ports is None:
            return
        try:
            self.port = self._ports.listen_again()
        except (error.CannotListenError, OSError) as failure:
            self._bind_later(f"it cannot be bound again ({_reason(failure)})")
        except Exception:  # noqa: BLE001 - whatever it is, a server that does not listen is of no use
            self.factory.events.internal_error("binding a port again")
            self._bind_later("it cannot be bound again (internal error: see the log)")
        else:
            self.trouble = None
            self._bound_at = self.factory.clock.seconds()
            self.factory.events.listener_bound_again(self.name, self.address or "")


def _reason(failure: Exception) -> object:
    """Say in the kernel's words why something cannot be listened on."""
    reason = getattr(failure, "socketError", failure)
    return getattr(reason, "strerror", None) or reason


def _now(bound: "Deferred[Any]") -> Any:
    """Give what a Deferred has fired with already, as binding does; raises what it has failed with."""
    outcome: list[Any] = []
    _ = bound.addBoth(outcome.append)
    if not outcome:
        raise ListenError("an endpoint did not bind at once")
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]
