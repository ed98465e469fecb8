"""
Who may come in: the cap on all connections, the cap and the rate per peer.

Pure counting; listeners ask before they accept, the factory before it builds a protocol.
"""

from collections import Counter
from collections.abc import Callable

from twisted_ingest.errors import RefuseReason
from twisted_ingest.flow.rate import PeerBuckets
from twisted_ingest.limits import PEER_PREFIX_IPV6
from twisted_ingest.networks import peer_of


class Admission:
    """
    The connections of the process, counted in total and by peer (`twisted_ingest.networks.peer_of`).

    ``limit`` and ``limit_per_peer`` are inclusive; ``None`` per peer means no such limit. A departed connection is out
    of the first, and counts towards the second until its bytes are read: one peer must not fill the server with them.
    ``descriptors`` bounds live and departed ones together. ``on_room`` is called when there is room again after there
    was none.
    """

    def __init__(
        self,
        limit: int,
        limit_per_peer: int | None = None,
        *,
        descriptors: int | None = None,
        arrivals: PeerBuckets | None = None,
        peer_prefix_ipv6: int = PEER_PREFIX_IPV6,
    ) -> None:
        self.limit = limit
        self.limit_per_peer = limit_per_peer
        self._descriptors = descriptors or limit * 2
        self._arrivals = arrivals
        self._peer_prefix_ipv6 = peer_prefix_ipv6
        self.open = 0
        self.departed = 0
        """Connections whose peer is gone and whose last bytes we have yet to read."""
        self.by_peer: Counter[str] = Counter()
        self.draining = False
        self.on_room: Callable[[], None] = lambda: None

    @property
    def room(self) -> int:
        """How many more connections may be accepted now."""
        return max(0, min(self.limit - self.open, self._descriptors - self.open - self.departed))

    @property
    def fullness(self) -> str:
        """Say what fills the room that there is."""
        gone = f", and those of {self.departed} peers that are gone have yet to be read" if self.departed else ""
        if self.open >= self.limit:
            return f"{self.open} connections are open, the most allowed (--max-connections){gone}"
        return f"{self.open} connections are open{gone}: there are no more descriptors (ulimit -Hn, LimitNOFILE=)"

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
        if self._arrivals is not None and not self._arrivals.of(peer, now).allows(now):
            return RefuseReason.CONNECTION_RATE
        return None

    def enter(self, host: str | None) -> None:
        """Count a connection in."""
        self.open += 1
        if host is not None:
            self.by_peer[self.peer(host)] += 1

    def leave(self, host: str | None) -> None:
        """Count a connection out."""
        was_full = self.room == 0
        self.open -= 1
        self._let_go(host)
        self._call_for_more(was_full)

    def depart(self) -> None:
        """Count out one whose peer is gone; it holds on to its descriptor, and to its peer's share, until `bury`."""
        was_full = self.room == 0
        self.open -= 1
        self.departed += 1
        self._call_for_more(was_full)

    def bury(self, host: str | None) -> None:
        """Let go of a departed connection."""
        was_full = self.room == 0
        self.departed -= 1
        self._let_go(host)
        self._call_for_more(was_full)

    def _let_go(self, host: str | None) -> None:
        if host is None:
            return
        peer = self.peer(host)
        self.by_peer[peer] -= 1
        if not self.by_peer[peer]:
            del self.by_peer[peer]

    def _call_for_more(self, was_full: bool) -> None:
        if was_full and self.room:
            self.on_room()
