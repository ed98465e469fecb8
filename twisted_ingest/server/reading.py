"""
What the connections of a port are read with: a buffer, who watches them, and how much is read at a time.
"""

from collections.abc import Callable
from typing import Any

from twisted_ingest.limits import READ_SIZE
from twisted_ingest.server.pace import Pace
from twisted_ingest.server.readiness import HAS_EPOLL, Readiness


class PortReading:
    """
    Reads the connections of one port, or whichever are read together: it knows no port, and they need none.

    Whoever makes it calls `retire` once no connection will be added; what it holds is let go of with the last one.
    ``answers`` says whether the peers wait for what we say: then small reads never wait for more. ``on_bug`` is called
    with where, inside the ``except`` block.
    """

    __slots__ = ("buffer", "pace", "readiness")

    def __init__(self, reactor: Any, on_bug: Callable[[str], None], *, answers: bool = False) -> None:
        self.buffer = memoryview(bytearray(READ_SIZE))
        """What the connections read into, one after the other."""
        self.pace = Pace()
        self.readiness = Readiness(reactor, on_bug, rests=not answers) if HAS_EPOLL else None
        """Who reads from the connections; ``None`` where that is the reactor itself."""

    def retire(self) -> None:
        """Let go of the descriptor as soon as all connections have left."""
        if self.readiness is not None:
            self.readiness.retire()
