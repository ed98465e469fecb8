"""
What reads are received into: slabs of memory that batches are views of, bounded, and charged to the budget.

Pure bookkeeping. A slab is pinned for as long as a batch is a view of it; then it is received into again.
"""

from collections.abc import Callable

from twisted_ingest.flow.budget import Budget
from twisted_ingest.limits import BACKLOGS_SHARE, READ_SIZE, SLAB_SIZE, SLABS_SHARE

LEAST_ROOM = READ_SIZE
"""Bytes. A slab with less room behind an unfinished record is full: smaller reads would cost more than what is left."""


class Slab:
    """
    A piece of memory: what lies before ``position`` is lent, ``leases`` batches have it, ``lent`` bytes in all.

    ``view`` is what batches are given slices of. Whoever keeps a slice of a slice keeps the slab from being written
    over, and is found out by `rewind`.
    """

    __slots__ = ("leases", "lent", "memory", "position", "view")

    def __init__(self, size: int = SLAB_SIZE) -> None:
        self.memory = bytearray(size)
        self.view = memoryview(self.memory)
        self.position = 0
        self.leases = 0
        self.lent = 0

    def rewind(self) -> bool:
        """Begin anew, once no batch has any of it; false where somebody looks at it still: it is theirs now."""
        try:
            self.view.release()
            # A bytearray that somebody looks at refuses to change its size; this much changes nothing else of it.
            self.memory.pop()
        except BufferError:
            return False
        self.memory.append(0)
        self.view = memoryview(self.memory)
        self.position = 0
        return True


class Lease:
    """What a batch gives back: a part of a slab."""

    __slots__ = ("_size", "_slab", "_slabs")

    def __init__(self, slabs: "Slabs", slab: Slab, size: int) -> None:
        self._slabs = slabs
        self._slab = slab
        self._size = size

    def let_go(self) -> None:
        """See `twisted_ingest.batch.Lease`."""
        self._slabs.take_back(self._slab, self._size)


class Slabs:
    """
    The slabs of a process, and what else reads keep beside batches, as ``budget`` has room for them.

    ``charge`` is called with changes of what slabs take: of one that is pinned, all that no batch is charged for
    already. Once made a slab is kept for the next read. ``given_up`` counts those of which somebody has kept a view for
    longer than the batch was his: they go to the garbage collector.

    ``held_back`` are bytes that were received and are yet to be brought. They are not charged, as those in the kernel
    are not: only reading on relieves us of them, which it could not while they kept everybody paused.
    """

    __slots__ = ("_backlogs_limit", "_charge", "_current", "_free", "_most", "given_up", "held_back", "made")

    def __init__(self, budget: Budget, charge: Callable[[int], None]) -> None:
        self._charge = charge
        self._backlogs_limit = int(budget.limit * BACKLOGS_SHARE)
        self._most = int(budget.limit * SLABS_SHARE) // SLAB_SIZE
        self._current: Slab | None = None
        self._free: list[Slab] = []
        """Of those that were full, the ones that no batch has any of, last used last: what is warm is used first."""
        self.made = 0
        """Slabs that there are, but for those given up."""
        self.given_up = 0
        self.held_back = 0

    @property
    def has_room(self) -> bool:
        """Whether more may be received than is brought at once; what one call receives may pass the bound."""
        return self.held_back < self._backlogs_limit

    def writable(self, least: int) -> Slab | None:
        """Give the slab to receive into, with room for ``least`` bytes; ``None`` where all are taken."""
        current = self._current
        if current is not None and not current.leases and current.position and not self._renew(current):
            current = None
        if current is None or SLAB_SIZE - current.position < least:
            current = self._current = self._next()
        return current

    def lend(self, slab: Slab, size: int, position: int) -> Lease:
        """Lend ``size`` bytes of a slab that end at ``position`` at the latest."""
        slab.position = position
        self._charge(-size if slab.leases else SLAB_SIZE - size)
        slab.leases += 1
        slab.lent += size
        return Lease(self, slab, size)

    def take_back(self, slab: Slab, size: int) -> None:
        """Take back what was lent; the last one lets the slab be used again."""
        slab.leases -= 1
        slab.lent -= size
        self._charge(size if slab.leases else size - SLAB_SIZE)
        if not slab.leases and slab is not self._current:
            self._free.append(slab)

    def _next(self) -> Slab | None:
        while self._free:
            slab = self._free.pop()
            if self._renew(slab):
                return slab
        if self.made >= self._most:
            return None
        self.made += 1
        return Slab()

    def _renew(self, slab: Slab) -> bool:
        if slab.rewind():
            return True
        self.made -= 1
        self.given_up += 1
        return False
