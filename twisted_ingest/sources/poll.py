"""
One poll: a request, the redirects it is sent on, and what is taken of the answer.
"""

from collections.abc import Mapping
from typing import Protocol

from twisted.internet.defer import Deferred

from twisted_ingest import __version__
from twisted_ingest.errors import DiscardReason, PollResult
from twisted_ingest.sources.body import Body, BodyOwner
from twisted_ingest.sources.outcome import PollError, classified
from twisted_ingest.sources.url import Url
from twisted_ingest.sources.validator import Validator, retry_after
from twisted_ingest.sources.wire import Exchange

MOST_REDIRECTS = 5
"""Redirects of one poll; browsers follow twenty, for people."""

_OWN_HEADERS = {
    b"User-Agent": f"twisted-ingest/{__version__}".encode(),
    b"Accept": b"*/*",
    # What is compressed could be a thousand times what was read.
    b"Accept-Encoding": b"identity",
}

_REDIRECTED = frozenset({301, 302, 303, 307, 308})
_WITH_BODY = frozenset({200, 203})
_THROTTLED = 429


class PollOwner(BodyOwner, Protocol):
    """What a poll needs of its poller."""

    validator: Validator
    """Which version of the body was read last."""
    authorization: Mapping[bytes, bytes]

    def open(self) -> Exchange:
        """Make an exchange with a server."""


class Poll:
    """
    One poll under way.

    ``run`` once; ``end`` ends it early. The bodies of redirects and of errors are never read. Of a body that does not
    come whole the whole lines are delivered, and its validator is not kept, so that it is asked for again.
    """

    def __init__(self, owner: PollOwner) -> None:
        self._owner = owner
        self._exchange: Exchange | None = None
        self._running: Deferred[PollResult] | None = None
        self._verdict: PollError | None = None
        """Why we ended it ourselves."""
        self._is_over = False
        self._began_at = owner.now()
        self._deadline = self._began_at + owner.plan.timeout_seconds
        self._paused_at: float | None = None
        self._body: Body | None = None
        self.status: int | None = None
        """Of the answer, once it is here; the last one of several."""

    def run(self) -> "Deferred[PollResult]":
        """Do it. The Deferred fires with how it went, and fails with `PollError`, or on account of a bug."""
        self._running = Deferred.fromCoroutine(self._run())
        return self._running

    async def _run(self) -> PollResult:
        try:
            return await self._get()
        except Exception as failure:
            known = self._verdict or classified(failure)
            if known is None:
                raise
            raise known from failure
        finally:
            self._is_over = True
            self._drop()
            self._owner.lane.hold(0, 0.0)

    def end(self, result: PollResult, detail: str) -> None:
        """End it now: what was read so far is delivered as far as it is whole."""
        if self._verdict is None and not self._is_over:
            self._verdict = PollError(result, detail)
            if self._running is not None:
                self._running.cancel()

    @property
    def is_reading(self) -> bool:
        """Whether a body is under way."""
        return self._body is not None and not self._is_over

    @property
    def buffered(self) -> int:
        """The bytes of a line that is unfinished."""
        return 0 if self._body is None else self._body.framer.buffered

    def evict(self) -> bytes:
        """Give up the unfinished line for want of memory; gives what there was of it."""
        return b"" if self._body is None else self._body.evict()

    def fail(self) -> None:
        """End it on account of a bug; the unfinished line is counted as lost to that."""
        if self._body is not None:
            self._body.framer.discard(DiscardReason.INTERNAL_ERROR)
        self.end(PollResult.INTERNAL_ERROR, "internal error: see the log")

    # The request.

    async def _get(self) -> PollResult:
        url = self._owner.plan.url
        for _ in range(MOST_REDIRECTS + 1):
            exchange = self._exchange = self._owner.open()
            await exchange.get(url, self._headers(url))
            self.status = exchange.status
            if exchange.status not in _REDIRECTED:
                return await self._take(exchange)
            url = self._follow(url, exchange)
            exchange.drop()
        raise PollError(PollResult.REDIRECT, f"it redirects more than {MOST_REDIRECTS} times")

    def _headers(self, url: Url) -> dict[bytes, bytes]:
        plan = self._owner.plan
        found = {**_OWN_HEADERS, **self._owner.validator.headers()}
        if plan.url.trusts(url):
            found |= {**plan.headers, **self._owner.authorization}
        return found

    def _follow(self, url: Url, exchange: Exchange) -> Url:
        location = exchange.first(b"Location")
        if location is None:
            raise PollError(PollResult.REDIRECT, "it redirects to nowhere")
        try:
            return url.follow(location.decode("latin-1"), self._owner.plan.redirects)
        except ValueError as error:
            raise PollError(PollResult.REDIRECT, f"a redirect is not followed: {error}") from error

    # The answer.

    async def _take(self, exchange: Exchange) -> PollResult:
        match exchange.status:
            case 304:
                return PollResult.NOT_MODIFIED
            case 204:
                return PollResult.OK
            case status if status not in _WITH_BODY:
                raise self._refusal(exchange)
        self._check(exchange)
        validator = Validator.read(exchange.first)
        body = self._body = Body(self._owner, self.end)
        try:
            is_certain = await exchange.read(body.feed, self._hold_back)
        except Exception:
            body.give_up()
            raise
        body.finish(is_certain=is_certain)
        self._owner.validator = validator
        return PollResult.OK

    def _refusal(self, exchange: Exchange) -> PollError:
        status, detail = exchange.status, f"it answers with status {exchange.status}"
        after = retry_after(exchange.first(b"Retry-After"), self._owner.wall_time())
        match status // 100:
            case 4 if status == _THROTTLED:
                return PollError(PollResult.THROTTLED, detail, after)
            case 4:
                return PollError(PollResult.CLIENT_ERROR, detail)
            case 5:
                return PollError(PollResult.SERVER_ERROR, detail, after)
            case _:
                return PollError(PollResult.STATUS, detail)

    def _check(self, exchange: Exchange) -> None:
        """Refuse a body that need not be read to be known as one we do not take."""
        encoding = exchange.first(b"Content-Encoding")
        if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
            raise PollError(PollResult.ENCODING, "its body is compressed, which was not asked for")
        most = self._owner.plan.max_body_bytes
        if exchange.length is not None and exchange.length > most:
            raise PollError(PollResult.TOO_LONG, f"its body is longer than {most} bytes (max_bytes)")

    # Time.

    def _hold_back(self) -> None:
        """Read nothing of a body that begins while the lane is paused."""
        if self._owner.lane.is_paused:
            self.pause()

    def pause(self) -> None:
        """Read no more for now; such time counts towards no limit."""
        if self._paused_at is None:
            self._paused_at = self._owner.now()
        if self._exchange is not None:
            self._exchange.pause()

    def resume(self) -> None:
        """Read on."""
        if self._paused_at is not None:
            self._deadline += self._owner.now() - self._paused_at
            self._paused_at = None
        if self._exchange is not None:
            self._exchange.resume()

    def sweep(self, now: float, overslept: float) -> None:
        """Look at the time limit."""
        self._deadline += overslept
        if self._paused_at is None and now >= self._deadline:
            limit = self._owner.plan.timeout_seconds
            self.end(PollResult.TIMEOUT, f"it has taken longer than {limit:g} s (timeout)")

    def _drop(self) -> None:
        if self._exchange is not None:
            self._exchange.drop()
