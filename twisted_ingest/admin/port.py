"""
The admin endpoint's port: accepts as those of listeners do, with a back-off, and is bound again where it is lost.

Twisted's own would spin where the kernel has no descriptor to give, and log each turn of it.
"""

import os
import socket as sockets
from typing import Any

from twisted.internet import tcp, unix

from twisted_ingest.admin.site import AdminSite
from twisted_ingest.limits import ADMIN_SEND_BUFFER
from twisted_ingest.observe.events import Events
from twisted_ingest.server.admission import Admission
from twisted_ingest.server.binding import Binding
from twisted_ingest.server.sockets import ListeningReactor, TCPPort, UNIXPort

ACCEPTS_PER_TURN = 2
"""Newcomers of one turn of the reactor: at the cap each needs the place of one that is gone in the next turn only."""


class _PlainTransports:
    """Connections that are Twisted's own, which know their port."""

    accepts_per_turn = ACCEPTS_PER_TURN
    transport: Any
    reactor: Any

    def make_transport(self, accepted: sockets.socket, protocol: Any, address: Any) -> Any:
        """See `GatedPort`."""
        return self.transport(accepted, protocol, address, self, 0, self.reactor)


class AdminTCPPort(_PlainTransports, TCPPort):  # type: ignore[misc]
    """A listening TCP socket."""

    transport: Any = tcp.Server


class AdminUNIXPort(_PlainTransports, UNIXPort):  # type: ignore[misc]
    """A listening UNIX socket."""

    transport: Any = unix.Server


class AdminPorts(ListeningReactor):
    """Gives ports whose connections the reactor reads from, as it does from any."""

    tcp_port = AdminTCPPort
    unix_port = AdminUNIXPort

    def _equip(self, port: Any) -> None:
        # Accepted sockets inherit it (Linux).
        port.socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, ADMIN_SEND_BUFFER)


class AdminListener(Binding):
    """Where the admin endpoint listens. The cap on its clients is the site's: the gate is always open."""

    flag = " (--admin)"

    def __init__(self, endpoint: str, site: AdminSite, reactor: Any) -> None:
        super().__init__(endpoint, site, reactor, Admission(1))

    @property
    def url(self) -> str | None:
        """Where it listens in fact, for a browser where that can; ``None`` while it does not."""
        if self.port is None:
            return None
        host = self.port.getHost()
        if not hasattr(host, "port"):
            return f"unix:{os.fsdecode(host.name)}"
        return f"http://[{host.host}]:{host.port}" if ":" in host.host else f"http://{host.host}:{host.port}"

    def _make_ports(self, reactor: Any, admission: Admission, events: Events) -> ListeningReactor:
        return AdminPorts(reactor, admission, events, None, self._lost)
