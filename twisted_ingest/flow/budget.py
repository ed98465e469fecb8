"""
The byte budget of the process: one number that everything which can pile up is charged to.

Pure bookkeeping and two decisions (pause? too many partials?); the intake acts on them.
"""

from twisted_ingest.flow.watermark import Watermark
from twisted_ingest.limits import (
    BUDGET_HIGH,
    BUDGET_LOW,
    CROWD_SHARE,
    PARTIALS_KEEP,
    PARTIALS_SHARE,
    STANDING_SHARE,
)


class Budget:
    """
    ``used`` of ``limit`` bytes are charged, ``partials`` of them to unfinished records.

    ``standing`` are those kept free for connections that are dear by being there: they lower the high mark.
    ``used`` may pass the high mark by what was read already; the distance between the mark
    and the limit is there for it.
    """

    __slots__ = (
        "_high",
        "crowd",
        "limit",
        "mark",
        "partials",
        "partials_keep",
        "partials_limit",
        "standing",
        "standing_limit",
        "used",
    )

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.crowd = int(limit * CROWD_SHARE)
        """Above it connections crowd."""
        self.mark = Watermark(int(limit * BUDGET_HIGH), int(limit * BUDGET_LOW))
        self._high = self.mark.high
        self.partials_limit = int(limit * PARTIALS_SHARE)
        self.partials_keep = int(self.partials_limit * PARTIALS_KEEP)
        self.standing_limit = int(limit * STANDING_SHARE)
        self.used = 0
        self.partials = 0
        self.standing = 0

    def charge(self, size: int) -> bool:
        """Charge ``size`` bytes, or release them where negative; true when that crossed a mark."""
        self.used += size
        mark = self.mark
        return (mark.is_high or self.used > mark.high) and mark.update(self.used)

    def charge_partial(self, size: int) -> bool:
        """Do the same for a change in unfinished records."""
        self.partials += size
        return self.charge(size)

    def charge_standing(self, size: int) -> bool:
        """Keep so many bytes more free for what connections take by being there; true when that crossed a mark."""
        self.standing += size
        self.mark.high = max(self.mark.low, self._high - self.standing)
        return self.mark.update(self.used)
