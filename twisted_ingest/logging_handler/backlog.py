"""Records that wait to be sent or answered: bounded, and never waiting for anybody."""

import threading
from collections import deque
from itertools import islice

MAX_RECORDS = 10_000
"""Records that may wait. Bounds what an application takes when the server is away: with `MAX_BYTES`, whichever comes
first. About a minute of a busy service."""

MAX_BYTES = 8 * 1024 * 1024
"""Bytes of the records that may wait."""

ROOM = 0.75
"""Share of the bounds up to which there is room to tell of what was dropped: once, not at every record that leaves."""


class Backlog:
    """
    First in, first out. A record leaves it once it is settled: sent, or answered where the protocol answers.

    ``dropped`` counts the records that found no room, ``settled`` those that have left. The lock is one that its own
    thread may take again, because a signal's function or a finalizer may log while the same thread is logging.
    """

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._records: deque[bytes] = deque()
        self._bytes = 0
        self._put = 0
        self.settled = 0
        self._told = 0
        self._changed = threading.Condition(threading.RLock())
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._records)

    def put(self, record: bytes) -> bool:
        """Take a record at the end; without room it is dropped, counted, and False is given."""
        with self._changed:
            if len(self._records) >= self._max_records or self._bytes + len(record) > self._max_bytes:
                self.dropped += 1
                return False
            self._append(record)
            return True

    @property
    def untold(self) -> int:
        """How many records were dropped that nobody was told of; 0 until there is room to tell it."""
        has_room = len(self._records) <= self._max_records * ROOM and self._bytes <= self._max_bytes * ROOM
        return self.dropped - self._told if has_room else 0

    def tell(self, count: int, record: bytes) -> None:
        """Take a record that tells of ``count`` dropped ones."""
        with self._changed:
            self._told += count
            self._append(record)

    def _append(self, record: bytes) -> None:
        self._records.append(record)
        self._bytes += len(record)
        self._put += 1

    def look(self, start: int, count: int, size: int) -> list[bytes]:
        """Give records from ``start`` on: at most ``count``, and none after ``size`` bytes are reached."""
        found = []
        with self._changed:
            for record in islice(self._records, start, start + count):
                found.append(record)
                size -= len(record)
                if size <= 0:
                    break
        return found

    def settle(self, count: int) -> None:
        """Let go of the first ``count`` records, as far as they were not given up."""
        if not count:
            return
        with self._changed:
            count = min(count, len(self._records))
            for _ in range(count):
                self._bytes -= len(self._records.popleft())
            if not self._records:
                # Anew from 0: a record put by a signal handler in the middle of another `put` may have been miscounted.
                self._bytes = 0
            self.settled += count
            self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Wait until all records put so far are settled, at most ``timeout`` seconds; tells whether they are."""
        with self._changed:
            target = self._put
            return self._changed.wait_for(lambda: self.settled >= target, timeout)

    def give_up(self) -> int:
        """Drop all that wait; gives how many."""
        with self._changed:
            left = len(self._records)
            self.dropped += left
            self.settle(left)
            return left
