"""
What a process of ours asks of the kernel, the interpreter, the allocator and the reactor.
"""

import ctypes
import resource
import sys
import time
from typing import Any

from twisted.python import runtime

from twisted_ingest.limits import MIB


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
