"""
Trying again with back-off: how long the next wait is.
"""

import random


class Backoff:
    """
    Waits that double from ``first`` up to ``longest``, in the unit these are given in.

    ``last`` is the wait given last, 0 when nothing has failed since the beginning or since `reset`. With ``jitter``
    each is cut by chance to between half and all of it, so that many who wait for one server do not come back to it at
    once.
    """

    __slots__ = ("_first", "_jitter", "_longest", "_whole", "last")

    def __init__(self, first: float, longest: float, *, jitter: bool = False) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self._whole = 0.0
        """The last wait before chance has cut it."""
        self.last = 0.0

    def lengthen(self) -> float:
        """Give the next wait."""
        self._whole = min(self._whole * 2 or self._first, self._longest)
        self.last = self._whole * random.uniform(0.5, 1) if self._jitter else self._whole  # noqa: S311 - no secret
        return self.last

    def reset(self) -> None:
        """Begin with the first wait again."""
        self._whole = self.last = 0.0
