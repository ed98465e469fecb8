"""
One poll: a request, the redirects it is sent on, and the body that goes as lines into a lane.
"""

from collections.abc import Mapping
from typing import Protocol

from twisted.internet.defer import Deferred

from twisted_ingest import __version__
from twisted_ingest.batch import Batch
from twisted_ingest.errors import DiscardReason, PollResult
from twisted_ingest.flow.lane import Lane
from twisted_ingest.framing.base import Framer
from twisted_ingest.ledger import PollLedger
from twisted_ingest.sources.outcome import PollError, classified
from twisted_ingest.sources.plan import PollPlan
from twisted_ingest.sources.target import Target
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


class PollOwner(Protocol):
    """What a poll needs of its poller."""

    plan: PollPlan
    ledger: PollLedger
    lane: Lane
    validator: Validator
    """Which version of the body was read last."""
    authorization: Mapping[bytes, bytes]

    def open(self) -> Exchange:
        """Make an exchange with a server."""

    def make_framer(self) -> Framer:
        """Make the framer of a body."""

    def now(self) -> float:
        """Give the time in reactor seconds."""

    def wall_time(self) -> float:
        """Give Unix time."""

    def heard(self, framer: Framer) -> None:
        """Report what the framer found odd."""

    def fail(self, where: str) -> None:
        """End the poll on account of a bug; called inside the ``except`` block."""


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
        self._size = 0
        self._line_since = 0.0
        self.framer: Framer | None = None
        self.status: int | None = None
        """Of the answer, once it is here; the last one of several."""
        self.records = 0

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
        return self.framer is not None and not self._is_over

    # The request.

    async def _get(self) -> PollResult:
        target = self._owner.plan.target
        for _ in range(MOST_REDIRECTS + 1):
            exchange = self._exchange = self._owner.open()
            await exchange.get(target, self._headers(target))
            self.status = exchange.status
            if exchange.status not in _REDIRECTED:
                return await self._take(exchange)
            target = self._follow(target, exchange)
            exchange.drop()
        raise PollError(PollResult.REDIRECT, f"it redirects more than {MOST_REDIRECTS} times")

    def _headers(self, target: Target) -> dict[bytes, bytes]:
        plan = self._owner.plan
        found = {**_OWN_HEADERS, **self._owner.validator.headers()}
        if plan.target.trusts(target):
            found |= {**plan.headers, **self._owner.authorization}
        return found

    def _follow(self, target: Target, exchange: Exchange) -> Target:
        location = exchange.first(b"Location")
        if location is None:
            raise PollError(PollResult.REDIRECT, "it redirects to nowhere")
        try:
            return target.follow(location.decode("latin-1"), self._owner.plan.redirects)
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
        self.framer = framer = self._owner.make_framer()
        try:
            is_certain = await exchange.read(self._feed, self._hold_back)
        except Exception:
            self._is_over = True
            if framer.closed is None:
                framer.discard(DiscardReason.UNFINISHED)
            raise
        self._finish(framer, is_certain=is_certain)
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

    # The body.

    def _feed(self, data: bytes) -> None:
        """Frame what one read has brought. No exception leaves: a bug costs this poll only, and is counted."""
        framer, owner = self.framer, self._owner
        if self._is_over or framer is None:
            return
        try:
            owner.ledger.bytes_received += len(data)
            self._size += len(data)
            excess = max(0, self._size - owner.plan.max_body_bytes)
            owner.ledger.bytes_discarded[DiscardReason.UNFINISHED] += excess
            self._pass_on(framer, framer.feed(data[: len(data) - excess], owner.wall_time()))
            if excess:
                self.end(PollResult.TOO_LONG, f"its body is longer than {owner.plan.max_body_bytes} bytes (max_bytes)")
            elif framer.closed is not None:
                self.end(PollResult.OVERSIZE, "a line is too long (max_length, oversize = 'close')")
        except Exception:  # noqa: BLE001 - whatever it is, it must end here
            owner.fail("a poll")

    def _pass_on(self, framer: Framer, batches: list[Batch]) -> None:
        lane = self._owner.lane
        for batch in batches:
            self.records += batch.count
            lane.write(batch)
        if batches or not self._line_since:
            self._line_since = self._owner.now()
        lane.hold(framer.memory, self._line_since)
        self._owner.heard(framer)

    def _finish(self, framer: Framer, *, is_certain: bool) -> None:
        """Deliver a last line that no LF ends: where the body's own end is certain, so is the line's."""
        last = framer.finish(self._owner.wall_time())
        if is_certain:
            for batch in last:
                batch.partial = False
                self._owner.ledger.records_partial -= batch.count
        self._pass_on(framer, last)

    def evict(self) -> bytes:
        """Give up the unfinished line; gives what there was of it."""
        framer = self.framer
        if framer is None or self._is_over:
            return b""
        start = bytes(framer.partial)
        batches = framer.evict(self._owner.wall_time())
        framer.oversized.clear()  # it is told of under its own cause
        self._pass_on(framer, batches)
        if framer.closed is not None:
            self.end(PollResult.OVERSIZE, "unfinished lines take too much memory (oversize = 'close')")
        return start

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
