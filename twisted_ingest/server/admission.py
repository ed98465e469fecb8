"""
Who may come in: the cap on all connections, the cap and the rate per peer.

Pure counting; listeners ask before they accept, the factory before it builds a protocol.
"""

from collections import Counter
from collections.abc import Callable

from twisted_ingest.errors import RefuseReason
from twisted_ingest.flow.rate import PeerBuckets
from twisted_ingest.limits import DOORWAY_DESCRIPTORS, DOORWAY_LEAST, DOORWAY_SHARE, PEER_PREFIX_IPV6
from twisted_ingest.networks import peer_of


class Admission:
    """
    The connections of the process, counted in total and by peer (`twisted_ingest.networks.peer_of`).

    ``limit`` and ``limit_per_peer`` are inclusive; ``None`` per peer means no such limit. A departed connection is out
    of the first, and counts towards the second until its bytes are read: one peer must not fill the server with them.
    Those in doorways count towards neither, have a limit of their own, and make room for each other.
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
        self.by_peer: Counter[str] = Counter()
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

    def enter_doorway(self, number: int, turn_away: Callable[[], None]) -> None:
        """Count in one that stands in a doorway; the oldest makes room where there are too many: it is turned away."""
        while len(self._doorways) >= self.doorway_limit:
            self._doorways.pop(next(iter(self._doorways)))()
        self._doorways[number] = turn_away

    def leave_doorway(self, number: int) -> None:
        """Count out one that stood in a doorway; safe for one that does no more."""
        was_full = self.room == 0
        if self._doorways.pop(number, None) is not None:
            self._call_for_more(was_full)

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
