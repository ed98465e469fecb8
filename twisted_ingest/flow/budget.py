"""
The byte budget of the process: one number that everything which can pile up is charged to.

Pure bookkeeping and two decisions (pause? too many partials?); the intake acts on them.
"""

from twisted_ingest.flow.watermark import Watermark
from twisted_ingest.limits import BUDGET_HIGH, BUDGET_LOW, PARTIALS_KEEP, PARTIALS_SHARE, STANDING_SHARE


class Budget:
    """
    ``used`` of ``limit`` bytes are charged, ``partials`` of them to unfinished records.

    ``standing`` are those charged to connections that are dear by being there.
    ``used`` may pass the high mark by what was read already; the distance between the mark
    and the limit is there for it.
    """

    __slots__ = ("limit", "mark", "partials", "partials_keep", "partials_limit", "standing", "standing_limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.mark = Watermark(int(limit * BUDGET_HIGH), int(limit * BUDGET_LOW))
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
        """Do the same for what connections take by being there."""
        self.standing += size
        return self.charge(size)
