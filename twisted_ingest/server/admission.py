"""
Who may come in: the cap on all connections, the cap and the rate per peer.

Pure counting; listeners ask before they accept, the factory before it builds a protocol.
"""

from collections import Counter
from collections.abc import Callable

from twisted_ingest.errors import RefuseReason
from twisted_ingest.flow.rate import PeerBuckets


class Admission:
    """
    The live connections of the process, counted in total and by peer host.

    ``limit`` and ``limit_per_peer`` are inclusive; ``None`` per peer means no such limit. ``descriptors`` bounds
    live and departed connections together. ``on_room`` is called when there is room again after there was none.
    """

    def __init__(
        self,
        limit: int,
        limit_per_peer: int | None = None,
        *,
        descriptors: int | None = None,
        arrivals: PeerBuckets | None = None,
    ) -> None:
        self.limit = limit
        self.limit_per_peer = limit_per_peer
        self._descriptors = descriptors or limit * 2
        self._arrivals = arrivals
        self.open = 0
        self.departed = 0
        """Connections whose peer is gone and whose last bytes we have yet to read."""
        self.by_host: Counter[str] = Counter()
        self.draining = False
        self.on_room: Callable[[], None] = lambda: None

    @property
    def room(self) -> int:
        """How many more connections may be accepted now."""
        return max(0, min(self.limit - self.open, self._descriptors - self.open - self.departed))

    def judge(self, host: str | None, now: float) -> RefuseReason | None:
        """Say why a peer may not come in at ``now`` (reactor seconds), or ``None`` when it may."""
        if self.draining:
            return RefuseReason.DRAINING
        if host is None:
            return None
        if self.limit_per_peer is not None and self.by_host[host] >= self.limit_per_peer:
            return RefuseReason.PER_PEER
        if self._arrivals is not None and not self._arrivals.of(host, now).allows(now):
            return RefuseReason.CONNECTION_RATE
        return None

    def enter(self, host: str | None) -> None:
        """Count a connection in."""
        self.open += 1
        if host is not None:
            self.by_host[host] += 1

    def leave(self, host: str | None) -> None:
        """Count a connection out."""
        self._change(host, 0)

    def depart(self, host: str | None) -> None:
        """Count out one whose peer is gone; it holds on to its descriptor until `bury`."""
        self._change(host, 1)

    def bury(self) -> None:
        """Let go of a departed connection's descriptor."""
        was_full = self.room == 0
        self.departed -= 1
        self._tell(was_full)

    def _change(self, host: str | None, departed: int) -> None:
        was_full = self.room == 0
        self.open -= 1
        self.departed += departed
        if host is not None:
            self.by_host[host] -= 1
            if not self.by_host[host]:
                del self.by_host[host]
        self._tell(was_full)

    def _tell(self, was_full: bool) -> None:
        if was_full and self.room:
            self.on_room()
