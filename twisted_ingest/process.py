"""
What concerns the process as a whole: descriptors, signals, and the last resort of a stop.
"""

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.python import runtime

from twisted_ingest.limits import MIB
from twisted_ingest.observe.log import LogWriter


def raise_descriptor_limit() -> None:
    """Raise the soft limit on descriptors to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


SWITCH_SECONDS = 0.001
"""How long a thread may keep the interpreter when another one wants it. Python's own 5 ms add up: a sink's thread asks
for it after each system call, so that beside a busy reactor a line took 47 to 90 ms into the file (p99), now 17 ms."""


def share_interpreter() -> None:
    """Let the threads of sinks have the interpreter soon when the reactor is busy."""
    sys.setswitchinterval(SWITCH_SECONDS)


KEPT_BYTES = 16 * MIB
"""Freed memory that the allocator keeps at the end of its heap. By its own 128 KiB it gives back what a group took as
soon as that is written, and takes it again a millisecond later: 100,000 page faults a GB, a fifth of the throughput."""

MAPPED_BYTES = 4 * MIB
"""Blocks from this size on are mapped for themselves, and given back at once: more than a sink makes of a read."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Have the allocator keep some of what is freed, where it can be told so (glibc)."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_TRIM_THRESHOLD, KEPT_BYTES)
        set_option(_M_MMAP_THRESHOLD, MAPPED_BYTES)


def take_steady_time(reactor: Any) -> None:
    """
    Give a reactor a clock that cannot jump.

    Twisted's own is the wall clock (`twisted.python.runtime.seconds`): set back by an hour, it would stop every timer
    for that hour, and the batches that wait for one to be handed over. What is scheduled already moves with it.
    """
    if reactor.seconds is not runtime.seconds:
        return
    shift = time.monotonic() - reactor.seconds()
    reactor.seconds = time.monotonic
    for call in reactor.getDelayedCalls():
        call.time += shift
        call.seconds = time.monotonic


def ignore_hangups() -> None:
    """
    Have SIGHUP do nothing until `install_signals`, where it would end the process.

    Nothing is lost by that: a file renamed between its opening and then is found to have moved a second later.
    """
    is_ours = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    )
    if is_ours:
        # No SIG_IGN: that would be inherited by whatever a process starts.
        signal.signal(signal.SIGHUP, lambda *_: None)


def install_signals(reactor: Any, reopen: Callable[[], None]) -> None:
    """
    Take SIGHUP for ``reopen``, and let a second SIGTERM or SIGINT end the process.

    To be called once the reactor runs: as it starts it overwrites handlers set before. Where it left signals alone
    they are the embedding application's business, and stay so.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if not getattr(reactor, "_installSignalHandlers", True):
        return
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(reopen))
    for number in (signal.SIGTERM, signal.SIGINT):
        first = signal.getsignal(number)
        # Ignored from birth (a job in a shell's background) it stays ignored, the second time too.
        if callable(first):
            signal.signal(number, _Twice(first))


class _Twice:
    """A signal handler that passes the first signal on and ends the process at the second."""

    def __init__(self, first: Callable[[int, FrameType | None], object]) -> None:
        self._first = first
        self._seen = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self._seen:
            # Tested by a process of its own, which ends here without a chance to save its coverage.
            os.write(2, b"second signal: ending now\n")  # pragma: no cover
            signal.signal(number, signal.SIG_DFL)  # pragma: no cover
            os.kill(os.getpid(), number)  # pragma: no cover
        self._seen = True
        self._first(number, frame)


def last_resort(seconds: float) -> threading.Timer:
    """Start a thread that ends the process after ``seconds`` unless it is cancelled: a stop is a stop."""
    timer = threading.Timer(seconds, _give_up, (seconds,))
    timer.daemon = True
    timer.start()
    return timer


def _give_up(seconds: float) -> None:  # pragma: no cover - as above
    os.write(2, f"still stopping after {seconds:g} s: ending now\n".encode())
    os._exit(1)


def exit_failed(log: LogWriter) -> None:  # pragma: no cover - as above
    """End the process with status 1, its last log lines written."""
    log.stop()
    os._exit(1)
