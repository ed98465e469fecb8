"""
Who may come in: the cap on all connections, the cap and the rate per peer.

Pure counting; listeners ask before they accept, the factory before it builds a protocol.
"""

from collections import Counter
from collections.abc import Callable

from twisted_ingest.errors import RefuseReason
from twisted_ingest.flow.rate import PeerBuckets
from twisted_ingest.limits import (
    DOORWAY_DESCRIPTORS,
    DOORWAY_LEAST,
    DOORWAY_MEMORY,
    DOORWAY_SHARE,
    MEMORY,
    PEER_PREFIX_IPV6,
)
from twisted_ingest.networks import peer_of


class Admission:
    """
    The connections of the process, counted in total and by peer (`twisted_ingest.networks.peer_of`).

    ``limit`` and ``limit_per_peer`` are inclusive; ``None`` per peer means no such limit. A departed connection is out
    of the first, and counts towards the second until its bytes are read: one peer must not fill the server with them.
    Those in doorways count towards neither, have limits of their own (``doorway_memory`` is in bytes), and make room
    for each other.
    ``descriptors`` bounds them and the live and departed ones together. ``on_room`` is called when there is room again
    after there was none.
    """

    def __init__(
        self,
        limit: int,
        limit_per_peer: int | None = None,
        *,
        descriptors: int | None = None,
        arrivals: PeerBuckets | None = None,
        peer_prefix_ipv6: int = PEER_PREFIX_IPV6,
        doorway_memory: int = int(MEMORY * DOORWAY_MEMORY),
    ) -> None:
        self.limit = limit
        self.limit_per_peer = limit_per_peer
        self._descriptors = descriptors or limit * 2
        self._arrivals = arrivals
        self._peer_prefix_ipv6 = peer_prefix_ipv6
        self.open = 0
        self.departed = 0
        """Connections whose peer is gone and whose last bytes we have yet to read."""
        self.doorway_limit = min(
            max(DOORWAY_LEAST, int(limit * DOORWAY_SHARE)), max(1, int(self._descriptors * DOORWAY_DESCRIPTORS))
        )
        self._doorways: dict[int, Callable[[], None]] = {}
        """How to turn away each who stands in a doorway, by its number, the oldest first."""
        self.doorway_memory = doorway_memory
        self.doorway_bytes = 0
        """What those in doorways take."""
        self.kept_bytes = 0
        """What those have sent ahead who came through while nobody was read from."""
        self.by_peer: Counter[str] = Counter()
        self.by_proxy: Counter[str] = Counter()
        """Connections, departed ones included, by the host of the proxy that they came by."""
        self.draining = False
        self.on_room: Callable[[], None] = lambda: None

    @property
    def room(self) -> int:
        """How many more connections may be accepted now."""
        held = self.open + self.departed + len(self._doorways)
        return max(0, min(self.limit - self.open, self._descriptors - held))

    @property
    def fullness(self) -> str:
        """Say what fills the room that there is."""
        newcomers = f", {len(self._doorways)} have yet to say who they are" if self._doorways else ""
        gone = f", and those of {self.departed} peers that are gone have yet to be read" if self.departed else ""
        if self.open >= self.limit:
            return f"{self.open} connections are open, the most allowed (--max-connections){gone}"
        taken = f"{self.open} connections are open{newcomers}{gone}"
        return f"{taken}: there are no more descriptors (ulimit -Hn, LimitNOFILE=)"

    def peer(self, host: str) -> str:
        """Say whom an address belongs to, for limits per peer."""
        return peer_of(host, self._peer_prefix_ipv6)

    def refusal(self, host: str | None, now: float) -> RefuseReason | None:
        """Say why a peer may not come in at ``now`` (reactor seconds), or ``None`` when it may."""
        if self.draining:
            return RefuseReason.DRAINING
        if host is None:
            return None
        peer = self.peer(host)
        if self.limit_per_peer is not None and self.by_peer[peer] >= self.limit_per_peer:
            return RefuseReason.PER_PEER
        if self._arrivals is not None and not self._arrivals.of(peer, now).take_one(now):
            return RefuseReason.CONNECTION_RATE
        return None

    def last_refusal(self, host: str | None, proxy: str | None) -> RefuseReason | None:
        """
        Say why one may not come in after all that has been in the doorway since it was let in so far.

        The rate is not asked again: it has been charged. A ``proxy`` has the limit on all for its own, as a peer has
        its own, those included whose last bytes are yet to be read.
        """
        if self.draining:
            return RefuseReason.DRAINING
        if self.open >= self.limit or (proxy is not None and self.by_proxy[proxy_of(proxy)] >= self.limit):
            return RefuseReason.FULL
        if host is not None and self.limit_per_peer is not None:
            return RefuseReason.PER_PEER if self.by_peer[self.peer(host)] >= self.limit_per_peer else None
        return None

    def enter_doorway(self, number: int, turn_away: Callable[[], None]) -> None:
        """Count in one that stands in a doorway; the oldest makes room where there are too many: it is turned away."""
        while len(self._doorways) >= self.doorway_limit:
            self._turn_oldest_away()
        self._doorways[number] = turn_away

    def weigh_doorways(self, delta: int) -> None:
        """Count a change in the bytes that all doorways take; the oldest make room where they take too many."""
        self.doorway_bytes += delta
        while delta > 0 and self.doorway_bytes > self.doorway_memory and self._doorways:
            self._turn_oldest_away()

    def has_room_for_rest(self, size: int) -> bool:
        """Whether so many bytes may be kept of one that is admitted while nobody is read from: half of the share."""
        return self.kept_bytes + size <= self.doorway_memory // 2

    def keep_rest(self, delta: int) -> None:
        """Count a change in what is kept of those admitted while nobody was read from."""
        self.kept_bytes += delta

    def _turn_oldest_away(self) -> None:
        self._doorways.pop(next(iter(self._doorways)))()

    def leave_doorway(self, number: int) -> None:
        """Count out one that stood in a doorway; safe for one that does no more."""
        was_full = self.room == 0
        if self._doorways.pop(number, None) is not None:
            self._call_for_more(was_full)

    def enter(self, host: str | None, proxy: str | None = None) -> None:
        """Count a connection in."""
        self.open += 1
        if host is not None:
            self.by_peer[self.peer(host)] += 1
        if proxy is not None:
            self.by_proxy[proxy_of(proxy)] += 1

    def leave(self, host: str | None, proxy: str | None = None) -> None:
        """Count a connection out."""
        was_full = self.room == 0
        self.open -= 1
        self._let_go(host, proxy)
        self._call_for_more(was_full)

    def depart(self) -> None:
        """Count out one whose peer is gone; it holds on to its descriptor, and to its peer's share, until `bury`."""
        was_full = self.room == 0
        self.open -= 1
        self.departed += 1
        self._call_for_more(was_full)

    def bury(self, host: str | None, proxy: str | None = None) -> None:
        """Let go of a departed connection."""
        was_full = self.room == 0
        self.departed -= 1
        self._let_go(host, proxy)
        self._call_for_more(was_full)

    def _let_go(self, host: str | None, proxy: str | None) -> None:
        if host is not None:
            _count_out(self.by_peer, self.peer(host))
        if proxy is not None:
            _count_out(self.by_proxy, proxy_of(proxy))

    def _call_for_more(self, was_full: bool) -> None:
        if was_full and self.room:
            self.on_room()


def _count_out(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def proxy_of(address: str) -> str:
    """Say which proxy an address is of: all connections that come from one host, or by UNIX sockets."""
    return address.rpartition(":")[0]
