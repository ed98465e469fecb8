"""
The admin endpoint: its pages over HTTP, to so many clients at a time.
"""

from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.interfaces import IAddress
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_ingest.admin.channel import REQUEST_TIMEOUT_SECONDS, AdminChannel
from twisted_ingest.admin.clients import Clients
from twisted_ingest.admin.hosts import HostList
from twisted_ingest.admin.pages import PageContext, Root
from twisted_ingest.admin.request import AdminRequest
from twisted_ingest.admin.survey import Survey
from twisted_ingest.admin.turns import Turns
from twisted_ingest.ledger import ListenerLedger
from twisted_ingest.observe.events import Events


class AdminSite(Site):
    """A site without an access log: scrapes would fill it, and request lines are a stranger's text."""

    name = "admin"
    noisy = False
    displayTracebacks = False
    protocol = AdminChannel  # type: ignore[assignment]

    def __init__(self, root: Resource, clients: Clients, events: Events, reactor: Any) -> None:
        super().__init__(root, AdminRequest, timeout=REQUEST_TIMEOUT_SECONDS, reactor=reactor)
        self.clients = clients
        self.events = events
        self.clock = self.reactor
        self.ledger = ListenerLedger()
        """What its port counts: connections that could not be accepted."""
        self.turns = Turns(self.reactor)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Give a newcomer its channel, evicting another where the cap is reached; ``None`` closes it. Never raises."""
        try:
            if len(self.clients) >= self.clients.limit:
                self.events.admin_full(self.clients.limit)
            return super().buildProtocol(addr) if self.clients.make_room() else None
        except Exception:  # noqa: BLE001 - the port, and with it the operator's window, must stay
            self.events.internal_error("an admin connection")
            return None

    def stopFactory(self) -> None:
        """Let go of everybody."""
        super().stopFactory()
        self.turns.stop()
        self.clients.evict_all()

    def log(self, request: http.Request) -> None:
        """Log nothing."""


def build_site(
    survey: Survey,
    registry: CollectorRegistry,
    events: Events,
    *,
    hosts: HostList | None = None,
    reactor: Any = None,
) -> AdminSite:
    """Put the pages where they belong. ``hosts`` are the names it answers to, besides addresses and localhost."""
    root = Root(PageContext(survey, registry, events, hosts or HostList()))
    return AdminSite(root, survey.clients, events, reactor)
