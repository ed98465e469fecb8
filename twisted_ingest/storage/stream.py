"""
A stream that we were given, such as standard output.
"""

import errno
import os
import select
from collections.abc import Sequence

from twisted_ingest.storage.fifo import Fifo
from twisted_ingest.storage.target import Place, Spot

POLL_MILLISECONDS = 100
"""How long a full stream is waited for at a time, so that the writer can look whether it was told to stop."""


class StreamTarget:
    """A stream we did not open and do not close, such as standard output."""

    # Its reader is gone for good.
    final_errors = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EBADF})
    fifo: Fifo | None = None
    sight: Place | None = None
    spot: Spot | None = None

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self.name = name

    def open(self) -> None:
        """See `Target`: it is open already."""

    def write(self, buffers: Sequence[bytes | memoryview]) -> int:
        """See `Target`: takes nothing where a stream that was left non-blocking stays full."""
        try:
            return os.writev(self._descriptor, buffers)
        except BlockingIOError:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll(POLL_MILLISECONDS)
            return 0

    def sync(self) -> None:
        """See `Target`: a stream cannot be synced."""

    def place(self) -> Place:
        """See `Target`: it has no path it could be missing from."""
        return Place.HERE

    def retire(self, *, worthless: bool) -> None:
        """See `Target`."""

    def close(self) -> None:
        """See `Target`: it is not ours to close."""
