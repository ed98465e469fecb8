"""
Two marks and one flag: when to pause, when to resume.

Pure: it decides, others act.
"""


class Watermark:
    """
    Hysteresis over a level.

    ``is_high`` turns true strictly above ``high`` and false at or below ``low``.
    Raises ``ValueError`` unless ``0 <= low <= high``.
    """

    __slots__ = ("high", "is_high", "low")

    def __init__(self, high: int, low: int) -> None:
        if not 0 <= low <= high:
            raise ValueError(f"watermarks out of order: low {low}, high {high}")
        self.high = high
        self.low = low
        self.is_high = False

    def update(self, level: int) -> bool:
        """Take a new level; true when ``is_high`` changed by it."""
        if self.is_high:
            if level <= self.low:
                self.is_high = False
                return True
        elif level > self.high:
            self.is_high = True
            return True
        return False
