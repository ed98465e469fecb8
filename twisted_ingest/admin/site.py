"""
The admin endpoint: fixed routes, GET and HEAD only, no bodies, nothing from the request echoed.
"""

import io
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.openmetrics import exposition as openmetrics
from twisted.internet.interfaces import IPullProducer
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from twisted_ingest.admin.watch import Watch
from twisted_ingest.observe.events import Events

ROWS_PER_WRITE = 200
"""Connections rendered between two turns of the reactor: about a millisecond of work."""

REQUEST_TIMEOUT_SECONDS = 15
"""How long a client of the admin endpoint may take to send its request, or to take the next piece of an answer."""

# Media ranges without blanks, in lower case. Any version of OpenMetrics but ours is not wanted from us.
_OPENMETRICS = re.compile(r"application/openmetrics-text(?!.*;version=(?!1\.0\.0(?:;|$)))((?:;[^;]*)*)")
_TEXT = re.compile(r"text/(?:plain|\*)((?:;[^;]*)*)")
_QUALITY = re.compile(r";q=([01](?:\.[0-9]{0,3})?)(?:;|$)")


class _Page(Resource):
    """A leaf that cannot be cached."""

    isLeaf = True

    def __init__(self, events: Events) -> None:
        super().__init__()
        self.events = events

    def render(self, request: Request) -> Any:
        """Answer; to HEAD without the body, which Twisted would cut off with a log line that quotes the request."""
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("X-Content-Type-Options", "nosniff")
        try:
            body = self._answer(request)
        except Exception:  # noqa: BLE001 - Twisted would log each, and scrapes come every few seconds
            self.events.internal_error("an admin page")
            body = self.text(request, http.INTERNAL_SERVER_ERROR, "internal error: see the log\n")
        if request.method != b"HEAD" or not body:
            return body
        request.setHeader("Content-Length", str(len(body)))
        return b""

    def _answer(self, request: Request) -> Any:
        """Refuse whatever follows the route, and what is not a read."""
        if request.postpath:
            return self.missing(request)
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader("Allow", "GET, HEAD")
            return self.text(request, http.NOT_ALLOWED, "only GET and HEAD\n")
        return self.page(request)

    def missing(self, request: Request) -> bytes:
        """Say that there is no such page."""
        return self.text(request, http.NOT_FOUND, "not found\n")

    def page(self, request: Request) -> Any:
        """Render; overridden."""
        raise NotImplementedError

    def text(self, request: Request, code: int, text: str) -> bytes:
        """Answer in plain text."""
        request.setResponseCode(code)
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        # A path that is not UTF-8 may stand in a sink's trouble.
        return text.encode(errors="backslashreplace")


class _Missing(_Page):
    """Whatever is not a page, for every method."""

    def _answer(self, request: Request) -> bytes:
        return self.missing(request)


class _Root(Resource):
    """The routes; not a page itself."""

    def __init__(self, events: Events) -> None:
        super().__init__()
        self._events = events

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Give the page of an unknown path: Twisted's own is HTML, and may be cached."""
        return _Missing(self._events)


class _Metrics(_Page):
    """``/metrics``: Prometheus text, or OpenMetrics where ``Accept`` prefers it."""

    def __init__(self, events: Events, registry: CollectorRegistry) -> None:
        super().__init__(events)
        self._registry = registry

    def page(self, request: Request) -> bytes:
        """Collect and encode."""
        accept = b",".join(request.requestHeaders.getRawHeaders(b"Accept", [])).decode("latin-1")
        if _wants_openmetrics(accept):
            request.setHeader("Content-Type", openmetrics.CONTENT_TYPE_LATEST)
            page: bytes = openmetrics.generate_latest(self._registry)
            return page
        request.setHeader("Content-Type", exposition.CONTENT_TYPE_PLAIN_0_0_4)
        return exposition.generate_latest(self._registry)


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

    def page(self, request: Request) -> bytes:
        """Say so."""
        return self.text(request, http.OK, "ok\n")


class _Ready(_Page):
    """``/readyz``: 200 when records are being taken, else 503 with one reason a line."""

    def __init__(self, events: Events, watch: Watch) -> None:
        super().__init__(events)
        self._watch = watch

    def page(self, request: Request) -> bytes:
        """Ask, answer."""
        reasons = self._watch.reasons()
        if reasons:
            return self.text(request, http.SERVICE_UNAVAILABLE, "\n".join(reasons) + "\n")
        return self.text(request, http.OK, "ready\n")


class _Status(_Page):
    """``/status``: everything about the process, as JSON."""

    def __init__(self, events: Events, watch: Watch) -> None:
        super().__init__(events)
        self._watch = watch

    def page(self, request: Request) -> bytes:
        """Render the document."""
        request.setHeader("Content-Type", "application/json")
        return json.dumps(self._watch.status(), indent=2).encode() + b"\n"


class _Connections(_Page):
    """``/connections``: a JSON array, one row per connection and line."""

    def __init__(self, events: Events, watch: Watch) -> None:
        super().__init__(events)
        self._watch = watch

    def page(self, request: Request) -> Any:
        """Begin to write; the rows follow as the client reads them."""
        request.setHeader("Content-Type", "application/json")
        if request.method == b"HEAD":
            return b""
        request.registerProducer(_Rows(request, self._watch.connections(), self.events), False)
        return NOT_DONE_YET


@implementer(IPullProducer)
class _Rows:
    """Writes rows as fast as the client takes them, a few per turn: ten thousand would hold up the reactor."""

    def __init__(self, request: Request, rows: Iterator[dict[str, Any]], events: Events) -> None:
        self._request = request
        self._rows = rows
        self._before = "["
        self._events = events

    def resumeProducing(self) -> None:
        """Write some more, or the end."""
        # Twisted's own timeout ends with the request: a client that takes nothing would stay for ever.
        self._request.channel.setTimeout(REQUEST_TIMEOUT_SECONDS)
        try:
            some = list(islice(self._rows, ROWS_PER_WRITE))
        except Exception:  # noqa: BLE001 - the answer has begun: cut off, it cannot be taken for whole
            self._events.internal_error("an admin page")
            self._request.unregisterProducer()
            self._request.channel.forceAbortClient()
            return
        if some:
            text = ",\n ".join(json.dumps(row) for row in some)
            self._request.write(f"{self._before}{text}".encode())
            self._before = ",\n "
            return
        self._request.write(b"[]\n" if self._before == "[" else b"]\n")
        self._request.unregisterProducer()
        self._request.finish()

    def stopProducing(self) -> None:
        """Stop: the client has gone."""
        self._rows = iter(())


class _BodilessRequest(Request):
    """A request whose body is let fall, not kept: Twisted would store any amount of it."""

    def gotLength(self, length: int | None) -> None:
        """Make room for nothing."""
        self.content = io.BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Let it fall."""


class _QuietSite(Site):
    """A site without an access log: scrapes would fill it, and request lines are a stranger's text."""

    noisy = False
    displayTracebacks = False

    def log(self, request: http.Request) -> None:
        """Log nothing."""


def build_site(watch: Watch, registry: CollectorRegistry, events: Events) -> Site:
    """Put the pages where they belong."""
    root = _Root(events)
    root.putChild(b"metrics", _Metrics(events, registry))
    root.putChild(b"healthz", _Healthy(events))
    root.putChild(b"readyz", _Ready(events, watch))
    root.putChild(b"status", _Status(events, watch))
    root.putChild(b"connections", _Connections(events, watch))
    return _QuietSite(root, requestFactory=_BodilessRequest, timeout=REQUEST_TIMEOUT_SECONDS)
