"""
What signals do: nothing before the reactor runs, and then what docs/operations.md says.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

REOPENING = (signal.SIGHUP, signal.SIGUSR1)
"""Signals that have files opened anew: what logrotate sends to most daemons, and what it sends to nginx."""

IGNORED = (*REOPENING, signal.SIGUSR2)
"""Signals that would end a process by themselves, and do nothing before its reactor runs."""

STOPPING = (signal.SIGTERM, signal.SIGINT)


def ignore_early() -> None:
    """
    Have signals that are not meant to end a process not do so until `install`.

    Nothing is lost by that: a file renamed between its opening and then is found to have moved a second later. Ctrl-C
    ends the process at once, without a traceback. Handlers that somebody has set stay.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in IGNORED:
        if signal.getsignal(number) is signal.SIG_DFL:
            # No SIG_IGN: that would be inherited by whatever a process starts.
            signal.signal(number, _do_nothing)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def end_early() -> None:
    """Give Ctrl-C back to Python: only then does the reactor, which is about to run, take it."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def install(reactor: Any, reopen: Callable[[str], None], on_second: Callable[[], None]) -> None:
    """
    Take the signals that have files opened anew, and let a second one of those that stop the process end it.

    ``reopen`` is given the signal's name; ``on_second`` is called right before that end. To be called once the reactor
    runs: as it starts it overwrites handlers set before. Where it was told to leave signals alone, so do we.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if not getattr(reactor, "_installSignalHandlers", True):
        return
    for number in REOPENING:
        signal.signal(number, lambda number, _: reactor.callFromThread(reopen, signal.Signals(number).name))
    twice = _Twice(on_second)
    for number in STOPPING:
        first = signal.getsignal(number)
        # Where the process was started with it ignored (a job in a shell's background), it stays ignored.
        if callable(first):
            twice.take(number, first)


def _do_nothing(_: int, __: FrameType | None) -> None:
    """Be a handler."""


class _Twice:
    """A signal handler that passes the first signal on and ends the process at the second, whichever of them it is."""

    def __init__(self, on_second: Callable[[], None]) -> None:
        self._on_second = on_second
        self._first: dict[int, Callable[[int, FrameType | None], object]] = {}
        self._seen = False

    def take(self, number: int, first: Callable[[int, FrameType | None], object]) -> None:
        """Handle a signal; ``first`` is what it does the first time."""
        self._first[number] = first
        signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self._seen:
            # Tested by a process of its own, which ends here without a chance to save its coverage.
            os.write(2, b"second signal: ending now\n")  # pragma: no cover
            self._on_second()  # pragma: no cover
            signal.signal(number, signal.SIG_DFL)  # pragma: no cover
            os.kill(os.getpid(), number)  # pragma: no cover
        self._seen = True
        self._first[number](number, frame)
