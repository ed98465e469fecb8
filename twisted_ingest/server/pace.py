"""
How much is framed in Python at a time: less where a peer's bytes are dear, so that nobody holds up a turn.

Almost all bytes are cheap, because cost follows chunks. Where it follows records (one-byte records ended by NUL,
counted frames and lines by turns) a whole read may take the reactor tens of milliseconds. What is found to be ordinary
before it is framed (`twisted_ingest.server.whole`) needs no pace.
"""

from typing import Protocol

from twisted_ingest.limits import READ_SIZE

WORK_SECONDS = 0.004
"""Seconds that reading from all dear connections of a listener may take of one turn; other peers wait as long.
A tenth of the 50 ms that another peer's line may be late, with room for what else a turn does."""

SMALLEST_READ = 512
"""Bytes. Smaller reads cost more in turns than they save: one costs as much as framing a hundred bytes dearly."""

FIRST_READ = 1024
"""Bytes of a connection that are framed first. Pieces double after as many cheap ones as they are times this long, so
that one of ``n`` dear bytes costs a flooder n²/3072 cheap ones first, on each connection anew: 5 MB for the largest. Of
a peer that stays, and whose bytes are odd but cheap, 127 pieces are smaller than they might be."""

TIMED_SIZE = 4096
"""Bytes. A shorter read cannot hold up a turn (0.6 µs/B at most was measured): it is not worth timing."""


class Paced(Protocol):
    """A transport as far as its pace goes."""

    read_size: int
    cheap_reads: int
    is_dear: bool


class Pace:
    """
    Sets ``read_size`` of the connections of one listener.

    ``dear`` counts those whose bytes have been found dear; they share `WORK_SECONDS` equally, so that none starves.
    """

    __slots__ = ("dear",)

    def __init__(self) -> None:
        self.dear = 0

    def adjust(self, transport: Paced, size: int, seconds: float) -> None:
        """Set the size of a connection's next piece by what the last one of ``size`` bytes has cost."""
        share = WORK_SECONDS / max(1, self.dear)
        if seconds > share:
            transport.read_size = max(SMALLEST_READ, min(READ_SIZE // 2, int(size * share / seconds)))
            transport.cheap_reads = 0
            self._mark(transport, is_dear=True)
        elif transport.read_size == READ_SIZE:
            return
        elif seconds > share / 2:
            self._mark(transport, is_dear=True)  # it has grown as far as it may
        else:
            self._trust(transport)

    def _trust(self, transport: Paced) -> None:
        """Note a cheap read; after enough of them, read more at a time."""
        transport.cheap_reads += 1
        if transport.cheap_reads >= transport.read_size // FIRST_READ:
            transport.cheap_reads = 0
            transport.read_size = min(READ_SIZE, transport.read_size * 2)
            self._mark(transport, is_dear=transport.is_dear and transport.read_size < READ_SIZE)

    def forget(self, transport: Paced) -> None:
        """Count a connection out that is gone."""
        self._mark(transport, is_dear=False)

    def _mark(self, transport: Paced, *, is_dear: bool) -> None:
        self.dear += is_dear - transport.is_dear
        transport.is_dear = is_dear
