"""
The pages of the admin endpoint: fixed routes, GET and HEAD only, nothing from the request echoed.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.openmetrics import exposition as openmetrics
from twisted.internet.address import UNIXAddress
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from twisted_ingest.admin.clients import MISDIRECTED_REQUEST, OTHER, PROBES
from twisted_ingest.admin.hosts import HostList
from twisted_ingest.admin.request import AdminRequest
from twisted_ingest.admin.survey import Survey
from twisted_ingest.observe.events import Events

ROWS_PER_PIECE = 200
"""Connections in one piece of an answer: about a millisecond of work, 60 KiB."""

# Media ranges without blanks, in lower case. Any version of OpenMetrics but ours is not wanted from us.
_OPENMETRICS = re.compile(r"application/openmetrics-text(?!.*;version=(?!1\.0\.0(?:;|$)))((?:;[^;]*)*)")
_TEXT = re.compile(r"text/(?:plain|\*)((?:;[^;]*)*)")
_QUALITY = re.compile(r";q=([01](?:\.[0-9]{0,3})?)(?:;|$)")


class PageContext:
    """What every page needs."""

    def __init__(self, survey: Survey, registry: CollectorRegistry, events: Events, hosts: HostList) -> None:
        self.survey = survey
        self.registry = registry
        self.events = events
        self.hosts = hosts


class _Page(Resource):
    """
    A leaf that cannot be cached; by itself, whatever is no page.

    ``route`` is its path, the label that its answers are counted under.
    """

    isLeaf = True

    def __init__(self, context: PageContext, route: str = OTHER) -> None:
        super().__init__()
        self.context = context
        self.survey = context.survey
        self.route = route

    def render(self, request: Any) -> Any:
        """Answer; to HEAD without the body, which Twisted would cut off with a log line that quotes the request."""
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("X-Content-Type-Options", "nosniff")
        try:
            body = self._answer(request)
        except Exception:  # noqa: BLE001 - Twisted would log each, and scrapes come every few seconds
            self.context.events.internal_error("an admin page")
            body = self.text(request, http.INTERNAL_SERVER_ERROR, "internal error: see the log\n")
        self.survey.clients.count(OTHER if request.postpath else self.route, request.code)
        if request.method != b"HEAD" or not body or body is NOT_DONE_YET:
            return body
        request.setHeader("Content-Length", str(len(body)))
        return b""

    def _answer(self, request: AdminRequest) -> Any:
        """Refuse what is meant for somebody else, whatever follows the route, and what is not a read."""
        refusal = None if self.route in PROBES and not request.postpath else self._refusal(request)
        if refusal is not None:
            return refusal
        if request.postpath or self.route == OTHER:
            return self.text(request, http.NOT_FOUND, "not found\n")
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader("Allow", "GET, HEAD")
            return self.text(request, http.NOT_ALLOWED, "only GET and HEAD\n")
        return self.page(request)

    def _refusal(self, request: AdminRequest) -> bytes | None:
        """Refuse a request by a name that is not ours: it may be a page in somebody's browser that asks."""
        if isinstance(request.getHost(), UNIXAddress):
            return None
        authorities = request.authorities()
        if len(authorities) > 1 or (not authorities and request.clientproto == b"HTTP/1.1"):
            return self.text(request, http.BAD_REQUEST, "exactly one Host is needed\n")
        if not authorities or self.context.hosts.admits(authorities[0]):
            return None
        self.context.events.admin_misdirected()
        request.setResponseCode(MISDIRECTED_REQUEST, b"Misdirected Request")
        return self.text(request, None, _MISDIRECTED)

    def page(self, request: AdminRequest) -> Any:
        """Render; overridden."""
        raise NotImplementedError

    def text(self, request: AdminRequest, code: int | None, text: str) -> bytes:
        """Answer in plain text; ``None`` leaves the code as it is."""
        if code is not None:
            request.setResponseCode(code)
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        # A path that is not UTF-8 may stand in a sink's trouble.
        return text.encode(errors="backslashreplace")


class Root(Resource):
    """The routes; not a page itself."""

    def __init__(self, context: PageContext) -> None:
        super().__init__()
        self._missing = _Page(context)
        for route, (page, _) in _PAGES.items():
            self.putChild(route[1:].encode(), page(context, route))

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Give the page of an unknown path: Twisted's own is HTML, and may be cached."""
        return self._missing


class _Index(_Page):
    """``/``: what there is."""

    def page(self, request: AdminRequest) -> bytes:
        """List the paths."""
        return self.text(request, http.OK, "".join(f"{route:<14}{text}\n" for route, (_, text) in _PAGES.items()))


class _Metrics(_Page):
    """``/metrics``: Prometheus text, or OpenMetrics where ``Accept`` prefers it."""

    def page(self, request: AdminRequest) -> bytes:
        """Collect and encode."""
        accept = b",".join(request.requestHeaders.getRawHeaders(b"Accept", [])).decode("latin-1")
        if _wants_openmetrics(accept):
            request.setHeader("Content-Type", openmetrics.CONTENT_TYPE_LATEST)
            page: bytes = openmetrics.generate_latest(self.context.registry)
            return page
        request.setHeader("Content-Type", exposition.CONTENT_TYPE_PLAIN_0_0_4)
        return exposition.generate_latest(self.context.registry)


def _wants_openmetrics(accept: str) -> bool:
    """
    Whether an ``Accept`` wants OpenMetrics 1.0.0 no less than plain text.

    `prometheus_client.exposition.choose_encoder` raises for odd versions, and copies others into the answer.
    """
    ranges = accept.replace(" ", "").replace("\t", "").lower().split(",")
    wanted = _quality(_OPENMETRICS, ranges)
    return wanted > 0 and wanted >= _quality(_TEXT, ranges)


def _quality(media: re.Pattern[str], ranges: list[str]) -> float:
    """Give the highest weight that media ranges of a pattern have; 0 where none matches."""
    best = 0.0
    for match in filter(None, map(media.fullmatch, ranges)):
        weight = _QUALITY.search(match[1])
        best = max(best, float(weight[1]) if weight else 1.0)
    return best


class _Healthy(_Page):
    """``/healthz``: the reactor turns."""

    def page(self, request: AdminRequest) -> bytes:
        """Say so."""
        return self.text(request, http.OK, "ok\n")


class _Ready(_Page):
    """``/readyz``: 200 when records are being taken, else 503 with one reason a line."""

    def page(self, request: AdminRequest) -> bytes:
        """Ask, answer."""
        reasons = self.survey.reasons()
        if reasons:
            return self.text(request, http.SERVICE_UNAVAILABLE, "\n".join(reasons) + "\n")
        return self.text(request, http.OK, "ready\n")


class _Status(_Page):
    """``/status``: everything about the process, as JSON."""

    def page(self, request: AdminRequest) -> bytes:
        """Render the document."""
        request.setHeader("Content-Type", "application/json")
        return json.dumps(self.survey.status(), indent=2).encode() + b"\n"


class _Connections(_Page):
    """``/connections``: a JSON array, one row per connection and line."""

    def page(self, request: AdminRequest) -> Any:
        """Begin to write; the rows follow as the client reads them."""
        request.setHeader("Content-Type", "application/json")
        if request.method == b"HEAD":
            return b""
        request.stream(_pieces(self.survey.connections()))
        return NOT_DONE_YET


def _pieces(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """Write rows as a JSON array, some at a time: ten thousand would hold up the reactor."""
    before = "["
    while some := list(islice(rows, ROWS_PER_PIECE)):
        yield (before + ",\n ".join(map(json.dumps, some))).encode()
        before = ",\n "
    yield b"[]\n" if before == "[" else b"]\n"


_PAGES: dict[str, tuple[type[_Page], str]] = {
    "/": (_Index, "this list"),
    "/metrics": (_Metrics, "metrics, for Prometheus"),
    "/healthz": (_Healthy, "200 while the process turns"),
    "/readyz": (_Ready, "200 when records are being taken, else 503 with the reasons"),
    "/status": (_Status, "everything about the process, as JSON"),
    "/connections": (_Connections, "a row per connection, as JSON"),
}

_MISDIRECTED = (
    "this name is not one that the admin endpoint answers to: ask by address, or give the name with --admin-host NAME "
    "or [admin] hosts\n"
)
