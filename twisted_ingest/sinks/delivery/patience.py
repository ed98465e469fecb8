"""
Whether a connection gets on, and for how long it has not. Pure.
"""

STALL_SECONDS = 5.0
"""Seconds without progress after which a target is said to be in trouble: above a round trip, and the sync of a busy
disk behind it."""


class Patience:
    """
    Looked at once a second with what has moved so far, anything that compares.

    ``waited`` is for how many seconds nothing has moved although something should.
    """

    __slots__ = ("_is_suspect", "_progress", "_since", "waited")

    def __init__(self, now: float) -> None:
        self._progress: object = None
        self._since = now
        self._is_suspect = False
        self.waited = 0.0

    def begin(self, now: float) -> None:
        """Note that something is waited for from now on."""
        self._since, self.waited, self._is_suspect = now, 0.0, False

    def look(self, now: float, progress: object, *, is_idle: bool) -> None:
        """Note how far it has come; one that ``is_idle`` waits for nothing."""
        if progress != self._progress or is_idle:
            self._progress = progress
            self.begin(now)
        self.waited = now - self._since

    @property
    def is_stalled(self) -> bool:
        """Whether it has waited for long enough to say so."""
        return self.waited >= STALL_SECONDS

    def suspect(self, timeout: float) -> bool:
        """
        Suspect who has waited for so many seconds; give whether he was suspected at the look before as well.

        Once may be ourselves, who were stopped: what came meanwhile is read before the next look.
        """
        was_suspect, self._is_suspect = self._is_suspect, self.waited >= timeout
        return was_suspect and self._is_suspect
