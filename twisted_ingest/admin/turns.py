"""
Whose page is made when: one at a time, and all of them within a share of the reactor's time.

A page costs the reactor milliseconds, and asking for one costs a client nothing: without turns a few clients that ask
as fast as they are answered would leave little to those whose lines we are here for.
"""

from collections import deque
from collections.abc import Callable
from time import perf_counter

from twisted.internet.interfaces import IDelayedCall, IReactorTime

SHARE = 0.25
"""Part of the reactor's time that pages may take while lines wait: after one that took 10 ms none is made for 30 ms.
A scrape every few seconds never notices."""

Make = Callable[[], None]


class Turns:
    """
    Calls those who ask one after the other; probes and the others in turn, so that neither keeps the other waiting.

    ``spent`` gives the seconds by which the cost of a call is measured.
    """

    def __init__(self, clock: IReactorTime, spent: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._spent = spent
        self._waiting: tuple[deque[Make], deque[Make]] = (deque(), deque())
        """Probes second."""
        self._free_at = float("-inf")
        self._call: IDelayedCall | None = None
        self._probes_next = True

    def ask(self, make: Make, *, is_probe: bool = False) -> None:
        """Call ``make``, which must not raise, when its turn has come: at once where nobody is before it."""
        self._waiting[is_probe].append(make)
        if self._call is None:
            self._go_on()

    def forget(self, make: Make) -> None:
        """Call this one no more: its client has gone. Safe for one that is not waiting."""
        for waiting in self._waiting:
            if make in waiting:
                waiting.remove(make)

    def stop(self) -> None:
        """Call nobody any more."""
        for waiting in self._waiting:
            waiting.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _go_on(self) -> None:
        self._call = None
        if any(self._waiting) and self._clock.seconds() >= self._free_at:
            self._call_next()
        if any(self._waiting):
            self._call = self._clock.callLater(max(0.0, self._free_at - self._clock.seconds()), self._go_on)

    def _call_next(self) -> None:
        make = self._pick()
        begun = self._spent()
        make()
        cost = self._spent() - begun
        self._free_at = self._clock.seconds() + cost / SHARE - cost

    def _pick(self) -> Make:
        others, probes = self._waiting
        takes_probe = bool(probes) and (self._probes_next or not others)
        self._probes_next = not takes_probe
        return (probes if takes_probe else others).popleft()
