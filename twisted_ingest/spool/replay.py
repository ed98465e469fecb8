"""
The thread that takes what is durable to the sink behind: in order, one window at a time, with the next one read ahead.

It holds two windows at most, however much is waiting. The reactor answers for each; a window that was refused for a
passing reason is handed over again, later and later.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from twisted_ingest.backoff import Backoff
from twisted_ingest.limits import MIB
from twisted_ingest.rejected import Rejected
from twisted_ingest.spool.checkpoint import Checkpoint
from twisted_ingest.spool.cursor import Cursor, Window
from twisted_ingest.spool.segments import Shelf

WINDOW_BYTES = MIB
"""Bytes of batches handed over at once; two windows, each longer by one batch at most, are all that is in memory."""

RETRY_SECONDS = (0.5, 60.0)
"""First and longest wait before a window is handed over again; doubled each time, and cut by chance to between
half and all of it, so that many spools do not come back to one server at once."""


class ReplayOwner(Protocol):
    """Who hands windows to the sink, in the reactor's thread: each call is made through ``hear``."""

    def hear(self, call: Callable[..., None], *arguments: object) -> None:
        """Make one of the calls below; what it raises must not be raised into the reactor."""

    def on_window(self, window: Window) -> None:
        """Deliver a window, then call `Replay.answer`."""

    def on_replay_trouble(self, trouble: str | None) -> None:
        """Note why nothing is being replayed, or that it goes on."""

    def on_replay_ended(self) -> None:
        """Note that the thread is over; the last call."""


class _StopError(Exception):
    """There is nothing more to do."""


class Replay:
    """
    Feeds one sink from one cursor, and has the checkpoint follow.

    ``records``, ``bytes``, ``rejected`` (records) and ``retries`` only grow. ``oldest`` is the receive time, in Unix
    seconds, of the first batch that was handed over and not answered for; ``None`` when there is none.
    """

    def __init__(self, shelf: Shelf, cursor: Cursor, checkpoint: Checkpoint, reactor: Any, owner: ReplayOwner) -> None:
        self._shelf = shelf
        self._cursor = cursor
        self._checkpoint = checkpoint
        self._reactor = reactor
        self._owner = owner
        self._ahead: Window | None = None
        self._answer: list[BaseException | Rejected | None] = []
        self._is_finishing = False
        self._is_stopping = False
        self._is_abandoned = False
        self._backoff = Backoff(*RETRY_SECONDS, jitter=True)
        self.is_final = False
        """The sink has failed for good: what is in the spool stays there."""
        self._replay_trouble: str | None = None
        self._told: str | None = None
        """The trouble that the owner was told of last."""
        self.oldest: float | None = None
        self.records = 0
        self.bytes = 0
        self.rejected = 0
        self.retries = 0

    # Called in any thread.

    def start(self, name: str) -> None:
        """Start the thread. Raises ``RuntimeError`` where there can be no more."""
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def answer(self, error: BaseException | None, rejected: Rejected | None = None, *, is_final: bool = False) -> None:
        """Say what became of the window; where ``error`` is ``None`` the sink has taken it but for what it rejected."""
        with self._shelf.changed:
            self.is_final = self.is_final or is_final
            self._answer.append(error or rejected)
            self._shelf.changed.notify_all()

    def finish(self) -> None:
        """End once nothing durable is left."""
        self._tell_thread("_is_finishing")

    def stop(self) -> None:
        """End once the window that is out is answered for."""
        self._tell_thread("_is_stopping")

    def abandon(self) -> None:
        """End now. What is out and not answered for will be delivered again by the next start."""
        self._tell_thread("_is_abandoned")

    def _tell_thread(self, flag: str) -> None:
        with self._shelf.changed:
            setattr(self, flag, True)
            self._shelf.changed.notify_all()

    # Called in the thread.

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        self._reactor.callFromThread(self._owner.hear, function, *arguments)

    def _run(self) -> None:
        try:
            while True:
                self._deliver(self._next_window())
        except _StopError:
            pass
        except Exception as failure:  # noqa: BLE001 - a dead reader must be visible, whatever killed it
            self._set_trouble(f"replaying {self._shelf.directory} has ended, {type(failure).__name__}: {failure}")
        finally:
            self._end()

    def _end(self) -> None:
        try:
            self._checkpoint.keep()
            if self._is_finishing:
                self._checkpoint.remove_rest()
            self._cursor.close()
        finally:
            # Whatever happens: a stop waits for it.
            self._tell(self._owner.on_replay_ended)

    def _next_window(self) -> Window:
        while True:
            window, self._ahead = self._ahead or self._read(), None
            if self._is_stopping or self._is_abandoned or (window is None and self._is_finishing):
                raise _StopError
            if window is not None:
                return window
            self._wait(self._has_news)

    def _has_news(self) -> bool:
        """Whether there is a reason to look again."""
        return self._cursor.has_more or self._is_finishing or self._is_stopping

    def _read(self) -> Window | None:
        """Read the next window; a disk that cannot be read is tried again."""
        while True:
            try:
                window = self._cursor.read(WINDOW_BYTES)
            except OSError as failure:
                self._back_off(f"cannot read the spool {self._shelf.directory}: {failure.strerror or failure}")
            else:
                if window is not None:
                    self._note_progress()
                return window

    def _deliver(self, window: Window) -> None:
        rejected = self._bring(window) if window.batches else None
        if rejected is not None:
            self._reject(window, rejected)
        self._confirm(window)

    def _bring(self, window: Window) -> Rejected | None:
        """Hand a window over until the sink has taken it, but for what it rejects."""
        while True:
            self._hand_over(window)
            if self._ahead is None and not self.retries_now:
                self._ahead = self._read()
            self._wait(lambda: self._answer)
            error = self._pop_answer()
            if error is None or isinstance(error, Rejected):
                return error
            if self.is_final:
                self._stop_for_good(error)
            self._back_off(f"the sink behind refuses: {error}")

    def _reject(self, window: Window, rejected: Rejected) -> None:
        """Count as given up what the sink will never take."""
        lost = rejected.lost(window.batches)
        records = sum(number for _, number, _ in lost)
        self.rejected += records
        window.records -= records
        window.size -= sum(size for _, _, size in lost)

    @property
    def retries_now(self) -> bool:
        """Whether the last thing tried has failed."""
        return self._backoff.last > 0

    def _hand_over(self, window: Window) -> None:
        with self._shelf.changed:
            self._answer.clear()
        self.oldest = window.batches[0].received_at
        self._tell(self._owner.on_window, window)

    def _pop_answer(self) -> BaseException | Rejected | None:
        with self._shelf.changed:
            if not self._answer:
                raise _StopError
            return self._answer.pop()

    def _confirm(self, window: Window) -> None:
        self._note_progress()
        self.oldest = None
        self.records += window.records
        self.bytes += window.size
        self._checkpoint.confirm(window.last)
        self._do_chores()

    # Waiting, and what is done meanwhile.

    def _wait(self, ready: Callable[[], object], until: float | None = None) -> None:
        """Wait until something holds, or for a time, and meanwhile keep the position and make room."""
        while True:
            with self._shelf.changed:
                if ready() or self._is_abandoned or (until is not None and time.monotonic() >= until):
                    return
                if not self._has_chores():
                    self._shelf.changed.wait(self._patience(until))
            self._do_chores()

    def _patience(self, until: float | None) -> float | None:
        ends = [end for end in (until, self._checkpoint.due) if end is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _has_chores(self) -> bool:
        due = self._checkpoint.due
        return self._shelf.room_wanted or (due is not None and time.monotonic() >= due)

    def _do_chores(self) -> None:
        if not self._has_chores():
            return
        segments = len(self._shelf.segments)
        self._checkpoint.keep()
        if self._shelf.room_wanted and self._shelf.drops_oldest and len(self._shelf.segments) == segments:
            self._checkpoint.drop_oldest()
        with self._shelf.changed:
            self._shelf.room_wanted = False
        self._tell_trouble()

    # Trouble.

    def _back_off(self, trouble: str) -> None:
        self.retries += 1
        self._set_trouble(f"{trouble}; trying again")
        self._wait(lambda: self._is_stopping, time.monotonic() + self._backoff.lengthen())
        if self._is_abandoned or self._is_stopping:
            raise _StopError

    def _stop_for_good(self, error: BaseException) -> None:
        """Keep what is left for another start, and make room as long as that is wanted."""
        self._ahead = None
        self.oldest = None
        self._cursor.rewind()
        if not self._is_finishing:
            self._set_trouble(f"replaying has stopped, the sink behind has failed for good ({error}): restart to go on")
        self._wait(lambda: self._is_stopping or self._is_finishing)
        raise _StopError

    def _note_progress(self) -> None:
        self._backoff.reset()
        self._set_trouble(None)

    def _set_trouble(self, trouble: str | None) -> None:
        self._replay_trouble = trouble
        self._tell_trouble()

    def _tell_trouble(self) -> None:
        trouble = self.trouble
        if trouble != self._told:
            self._told = trouble
            self._tell(self._owner.on_replay_trouble, trouble)

    @property
    def trouble(self) -> str | None:
        """Why what is in the spool is not replayed, or stays on the disk; ``None`` when all is well."""
        return self._replay_trouble or self._checkpoint.trouble
