"""
Who is not read from at the moment, and for how long we have kept whom waiting: by reason.
"""

from collections.abc import Callable

from twisted_ingest.errors import PauseReason


class Pauses:
    """
    Counts paused lanes and the seconds they spend so.

    ``lanes`` are those paused now, ``begun`` the pauses since start, a change of reason included. ``clock`` gives
    reactor seconds.
    """

    __slots__ = ("_at", "_clock", "_seconds", "begun", "lanes")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = clock()
        self._seconds = dict.fromkeys(PauseReason, 0.0)
        self.lanes = dict.fromkeys(PauseReason, 0)
        self.begun = dict.fromkeys(PauseReason, 0)

    @property
    def total(self) -> int:
        """How many lanes are paused now."""
        return sum(self.lanes.values())

    def change(self, before: PauseReason | None, after: PauseReason | None) -> None:
        """Note that a lane is paused for another reason than before; ``None`` is being read."""
        self._integrate()
        if before is not None:
            self.lanes[before] -= 1
        if after is not None:
            self.lanes[after] += 1
            self.begun[after] += 1

    def seconds(self) -> dict[PauseReason, float]:
        """Give the seconds that all lanes together were paused, pauses that last included."""
        self._integrate()
        return dict(self._seconds)

    def _integrate(self) -> None:
        # The sum over lanes, without a time stamp in each of them.
        now = self._clock()
        elapsed, self._at = now - self._at, now
        for reason, count in self.lanes.items():
            self._seconds[reason] += count * elapsed
