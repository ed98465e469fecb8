"""
Who is connected to the admin endpoint: the cap on them, who has to go for a newcomer, and what they were answered.

Pure counting; the site asks before it builds a channel.
"""

from typing import Protocol

from twisted.web import http

ROUTES = ("/", "/metrics", "/healthz", "/readyz", "/status", "/connections")

PROBES = frozenset({"/healthz", "/readyz"})
"""Routes that never ask for whom a request was meant, and that do not wait behind pages."""

OTHER = "other"
"""The route of whatever is no page, as a metric label."""

MISDIRECTED_REQUEST = 421
"""Meant for somebody else (RFC 9110, 15.5.20); Twisted has no name for it."""

_REFUSALS = (http.BAD_REQUEST, MISDIRECTED_REQUEST)


def _known() -> dict[tuple[str, int], int]:
    """Make the counts of everything that can be answered."""
    codes: dict[str, tuple[int, ...]] = {
        route: (http.OK, http.NOT_ALLOWED, http.INTERNAL_SERVER_ERROR, *(() if route in PROBES else _REFUSALS))
        for route in ROUTES
    }
    codes["/readyz"] += (http.SERVICE_UNAVAILABLE,)
    codes[OTHER] = (http.NOT_FOUND, http.INTERNAL_SERVER_ERROR, *_REFUSALS)
    return {(route, code): 0 for route, those in codes.items() for code in those}


class Client(Protocol):
    """A connection, as its place among the others depends on it."""

    since: float
    """Reactor seconds since which it is waited for, or idle."""
    answers: int
    """What it has been answered so far."""

    @property
    def waits_for_us(self) -> bool:
        """Whether its request is whole, and we have yet to answer."""

    def evict(self) -> None:
        """Reset it; it is struck off in a later turn."""


class Clients:
    """
    The live connections of the admin endpoint, ``limit`` of them at most (inclusive).

    At the cap a newcomer takes the place of another. To let newcomers wait, or to refuse them, would let whoever
    holds all places idle lock the scraper out; and an idle scraper that has to go connects again and gets in.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._live: dict[Client, None] = {}
        self._leaving: set[Client] = set()
        self.answered = _known()
        """Answers, by route and status code."""

    def __len__(self) -> int:
        """Count those whose descriptor is open, on their way out or not."""
        return len(self._live) + len(self._leaving)

    def make_room(self) -> bool:
        """Evict one where the cap is reached; false where nobody can be, so that the newcomer has to be refused."""
        if len(self._live) < self.limit:
            return True
        # Those on their way out hold a descriptor each; a flood within one turn must not take any number of them.
        victim = None if len(self._leaving) >= self.limit else self._victim()
        if victim is None:
            return False
        del self._live[victim]
        self._leaving.add(victim)
        victim.evict()
        return True

    def _victim(self) -> Client | None:
        """Choose who was idle or slow the longest; where all wait for us, who has been answered the most."""
        idle = [client for client in self._live if not client.waits_for_us]
        if idle:
            return min(idle, key=lambda client: client.since)
        served = max(self._live, key=lambda client: client.answers, default=None)
        return served if served is not None and served.answers else None

    def enter(self, client: Client) -> None:
        """Count one in."""
        self._live[client] = None

    def leave(self, client: Client) -> None:
        """Count one out. Safe to call for one that was never in."""
        self._live.pop(client, None)
        self._leaving.discard(client)

    def evict_all(self) -> None:
        """Reset whoever is left."""
        for client in list(self._live):
            client.evict()

    def count(self, route: str, code: int) -> None:
        """Count an answer."""
        self.answered[route, code] = self.answered.get((route, code), 0) + 1
