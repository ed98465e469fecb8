"""
Accepting with a gate and a back-off: what our ports do where Twisted's would reset, spin or die.
"""

import contextlib
import errno
import os
import select
import socket as sockets
import struct
from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from twisted_ingest.backoff import Backoff
from twisted_ingest.errors import AcceptError
from twisted_ingest.limits import ACCEPTS_PER_TURN
from twisted_ingest.observe.events import Events
from twisted_ingest.server.admission import Admission
from twisted_ingest.server.reading import PortReading

ACCEPT_BACKOFF_SECONDS = (0.1, 5.0)
"""First and longest wait after the kernel could not give us a connection; doubled each time."""

_RESET = struct.pack("ii", 1, 0)
"""``SO_LINGER`` on, zero seconds: closing sends RST."""

_REASONS = {
    errno.EMFILE: AcceptError.DESCRIPTORS,
    errno.ENFILE: AcceptError.DESCRIPTORS,
    errno.ENOBUFS: AcceptError.MEMORY,
    errno.ENOMEM: AcceptError.MEMORY,
    errno.ENOSPC: AcceptError.WATCHES,
    # Of the one connection only: the peer is gone already, or a packet filter said no.
    errno.ECONNABORTED: AcceptError.ABORTED,
    errno.EPERM: AcceptError.ABORTED,
    errno.EINTR: AcceptError.ABORTED,
    errno.EPROTO: AcceptError.ABORTED,
}


_NOT_LISTENING = frozenset({errno.EINVAL, errno.EBADF, errno.ENOTSOCK, errno.EOPNOTSUPP})
"""What accepting fails with on a socket that was shut down or closed (accept(2)): to wait would not mend it."""


class GatedPort:
    """
    Accepting that stops at the cap and backs off, mixed into Twisted's ports.

    Twisted's own `Port.doRead` accepts past any cap, resets clients at ``EMFILE`` and spins at ``ENFILE``. Whatever
    goes wrong with one connection costs that one. A port that ends although nobody asked for it calls ``on_lost``.
    """

    accepts_per_turn = ACCEPTS_PER_TURN
    admission: Admission
    events: Events
    receive_buffer: int | None
    reading: PortReading | None = None
    """What the connections are read with; ``None`` while there can be none, or where they are Twisted's own."""
    on_lost: Callable[[Failure], None]
    # Of the Twisted port:
    factory: Any
    reactor: Any
    socket: sockets.socket
    transport: Any
    connected: bool
    disconnecting: bool

    backoff: Backoff
    """How long nothing is accepted after a failure; of this port alone."""
    _backoff_call: Any = None

    def doRead(self) -> OSError | None:
        """Accept what waits, as far as there is room, a bounded number per turn; give why the port is lost, if so."""
        try:
            self.accept_some(self.accepts_per_turn)
        except OSError as failure:
            if failure.errno in _NOT_LISTENING:
                return failure
            self.events.internal_error("accepting")
            self._wait()
        except Exception:  # noqa: BLE001 - the reactor would close the port for good
            self.events.internal_error("accepting")
            self._wait()
        return None

    def accept_some(self, most: int) -> bool:
        """
        Accept at most ``most`` connections; true when the accept queue is empty.

        Raises ``OSError`` where the socket listens no more.
        """
        for number in range(most):
            if not self.admission.room:
                self.stopReading()  # type: ignore[attr-defined]
                self.events.accepting_paused(self.admission.fullness)
                return False
            try:
                accepted, address = self.socket.accept()
            except BlockingIOError:
                if not number and _is_shut_down(self.socket):
                    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from None
                return True
            except OSError as failure:
                if self._count(failure) is AcceptError.ABORTED:
                    continue
                if failure.errno in _NOT_LISTENING:
                    raise
                # Out of descriptors or kernel memory the socket stays readable: without a wait the reactor would spin.
                self._back_off(failure)
                return False
            if not self._take_in(accepted, address):
                return False
        return False

    def open_gate(self) -> None:
        """Accept again: a connection has closed, or the back-off is over."""
        if self.connected and not self.disconnecting and self._backoff_call is None:
            try:
                self.startReading()  # type: ignore[attr-defined]
            except OSError as failure:
                self._count(failure)
                self._back_off(failure)

    def close_gate(self) -> None:
        """Accept no more; nothing is scheduled afterwards."""
        if self._backoff_call is not None:
            self._backoff_call.cancel()
            self._backoff_call = None
        self.stopReading()  # type: ignore[attr-defined]

    def connectionLost(self, reason: Failure) -> None:
        """Close, as Twisted does; the connections go on until they end."""
        was_asked = self.disconnecting
        try:
            self.close_gate()
            super().connectionLost(reason)  # type: ignore[misc]
        except Exception:  # noqa: BLE001 - it is lost all the same
            self.events.internal_error("closing a port")
        if self.reading is not None:
            self.reading.retire()
        if not was_asked:
            self.on_lost(reason)

    def _take_in(self, accepted: sockets.socket, address: Any) -> bool:
        """Begin a connection; false where the kernel cannot bear more of them for now."""
        try:
            self._welcome(accepted, address)
        except OSError as failure:
            # It cannot be watched: a reset, so that its sender tries again; the others wait in the backlog.
            _reset(accepted)
            self._count(failure)
            self._back_off(failure)
            return False
        except Exception:  # noqa: BLE001 - one connection's bug must not close the port
            _reset(accepted)
            self.events.internal_error("accepting a connection")
            return True
        self.backoff.reset()
        return True

    def _welcome(self, accepted: sockets.socket, address: Any) -> None:
        protocol = self.factory.buildProtocol(self._buildAddr(address))  # type: ignore[attr-defined]
        if protocol is None:
            # A reset, so that a sender that writes without reading learns it was turned away.
            _reset(accepted)
            return
        transport = self.make_transport(accepted, protocol, address)
        try:
            protocol.makeConnection(transport)
        except Exception:  # noqa: BLE001 - one connection's bug must not stop accepting
            self.events.internal_error("makeConnection")
            transport.abortConnection()

    def make_transport(self, accepted: sockets.socket, protocol: Any, address: Any) -> Any:
        """Make the transport of a connection, which reads from now on."""
        return self.transport(accepted, protocol, address, self.reading, self.reactor)

    def _count(self, failure: OSError) -> AcceptError:
        reason = _REASONS.get(failure.errno or 0, AcceptError.OTHER)
        self.factory.ledger.accept_errors[reason] += 1
        return reason

    def _back_off(self, failure: OSError) -> None:
        self._wait()
        self.events.accept_failed(self.factory.name, failure, self.backoff.last)

    def _wait(self) -> None:
        """Accept nothing for a while, twice as long as the last time."""
        wait = self.backoff.lengthen()
        self.stopReading()  # type: ignore[attr-defined]
        if self._backoff_call is None:
            self._backoff_call = self.reactor.callLater(wait, self._retry)

    def _retry(self) -> None:
        self._backoff_call = None
        self.open_gate()


def _is_shut_down(listening: sockets.socket) -> bool:
    """Whether nothing will ever come of a socket that was said to be ready: so says a UNIX one that was shut down."""
    poll = select.poll()
    poll.register(listening, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def _reset(accepted: sockets.socket) -> None:
    """Close a socket with a reset."""
    with contextlib.suppress(OSError):
        accepted.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, _RESET)
    with contextlib.suppress(OSError):
        accepted.close()
