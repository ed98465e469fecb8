"""
Who may come in: the cap on all connections, and the cap per peer.

Pure counting; listeners ask before they accept, the factory before it builds a protocol.
"""

from collections import Counter
from collections.abc import Callable

from twisted_ingest.errors import RefuseReason


class Admission:
    """
    The live connections of the process, counted in total and by peer host.

    ``limit`` and ``limit_per_peer`` are inclusive; ``None`` per peer means no such limit. ``on_room``
    is called when one closes while the process was full.
    """

    def __init__(self, limit: int, limit_per_peer: int | None = None) -> None:
        self.limit = limit
        self.limit_per_peer = limit_per_peer
        self.open = 0
        self.by_host: Counter[str] = Counter()
        self.draining = False
        self.on_room: Callable[[], None] = lambda: None

    @property
    def room(self) -> int:
        """How many more connections may be accepted now."""
        return max(0, self.limit - self.open)

    def judge(self, host: str | None) -> RefuseReason | None:
        """Say why a peer may not come in, or ``None`` when it may."""
        if self.draining:
            return RefuseReason.DRAINING
        if self.limit_per_peer is not None and host is not None and self.by_host[host] >= self.limit_per_peer:
            return RefuseReason.PER_PEER
        return None

    def enter(self, host: str | None) -> None:
        """Count a connection in."""
        self.open += 1
        if host is not None:
            self.by_host[host] += 1

    def leave(self, host: str | None) -> None:
        """Count a connection out."""
        was_full = self.room == 0
        self.open -= 1
        if host is not None:
            self.by_host[host] -= 1
            if not self.by_host[host]:
                del self.by_host[host]
        if was_full and self.room:
            self.on_room()
