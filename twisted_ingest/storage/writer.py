"""
The thread behind an appender: it gathers what waits, has it written, and tells what became of it.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from twisted_ingest.errors import Fsync
from twisted_ingest.storage.commit import Commit, Job
from twisted_ingest.storage.output import Output
from twisted_ingest.storage.target import Target
from twisted_ingest.storage.trouble import HELD_BACK, AbandonedError, Trouble

COMMIT_BYTES = 4 * 1024 * 1024
"""Bytes written before the groups they belong to are reported; bounds how late the first of a long queue is, and what
is kept beyond the budget while others wait for a sync."""


class WriterOwner(Protocol):
    """Who hears of a writer's doings, in the reactor's thread: each call is made through ``hear``."""

    def hear(self, call: Callable[..., None], *arguments: object) -> None:
        """Make one of the calls below; what it raises must not be raised into the reactor."""

    def on_written(self, numbers: Sequence[int]) -> None:
        """Note that these jobs count as delivered. Those that ask for the same come in the order they were given in."""

    def on_unmade(self, number: int, failure: Exception) -> None:
        """Note that the buffers of a job could not be made: it was passed over."""

    def on_stalled(self, trouble: str) -> None:
        """Note that nothing is being written until something is mended."""

    def on_recovered(self) -> None:
        """Note that it is mended."""

    def on_moved(self, rewritten: int | None) -> None:
        """Note a file found renamed (``None``), or removed with so many bytes that are written again."""

    def on_failed(self, reason: str) -> None:
        """Note that nothing will be written any more."""

    def on_ended(self) -> None:
        """Note that the thread is over; the last call."""


class _Order:
    """A message to the thread that is not a job."""


_WAKE = _Order()
_STOP = _Order()


class Writer:
    """
    Writes jobs (buffers that end in LF each) to one target, in order, and reports each once it has what it asks for.

    ``fsync`` is what every job gets; a job may ask to be synced besides. ``reactor`` gives the time too. ``meanwhile``
    says, for messages, what becomes of records during a trouble. ``counts`` may be read from any thread.
    """

    def __init__(
        self, target: Target, fsync: Fsync, reactor: Any, owner: WriterOwner, meanwhile: str = HELD_BACK
    ) -> None:
        self._target = target
        self._reactor = reactor
        self._owner = owner
        self._queue: SimpleQueue[Job | _Order] = SimpleQueue()
        self._last_number = 0
        self._abandoned = threading.Event()
        self._unmade: tuple[int, Exception] | None = None
        """What making the buffers of the job behind those at hand has raised."""
        on_error = partial(self._notify, owner.on_stalled)
        self._trouble = Trouble(target, reactor.seconds, self._abandoned, on_error, meanwhile)
        self._output = Output(target, fsync, self._trouble, reactor.seconds, self)
        self.counts = self._output.counts

    # Called in any thread.

    def start(self, name: str) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, buffers: Iterable[bytes], *, sync: bool = False) -> int:
        """
        Queue a job, to be synced before it is reported where ``sync`` says so; gives its number.

        Called in one thread alone.
        """
        number = self._last_number = self._last_number + 1
        self._queue.put(Job(number, buffers, wants_sync=sync))
        return number

    def reopen(self) -> None:
        """Open the target anew before the next record that is written."""
        self._output.reopen_wanted = True
        self._queue.put(_WAKE)

    def stop(self) -> None:
        """End once everything queued is written; nothing may be queued after this."""
        self._queue.put(_STOP)

    def abandon(self) -> None:
        """End at the next opportunity, whatever is queued."""
        self._abandoned.set()
        self._queue.put(_STOP)

    @property
    def trouble(self) -> str | None:
        """Why nothing is being written at the moment, or ``None``."""
        return self._trouble.now

    @property
    def stall(self) -> str | None:
        """What the target has not done for too long, or ``None``; see `Trouble.stall`."""
        return self._trouble.stall

    @property
    def retries(self) -> int:
        """How often something was tried again after an error."""
        return self._trouble.retries

    # Called in the thread.

    def _notify(self, function: Callable[..., None], *arguments: object) -> None:
        """Have the reactor call something of the owner's; lost when the reactor has ended, as it should be."""
        self._reactor.callFromThread(self._owner.hear, function, *arguments)

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except AbandonedError:
            pass
        except Exception as failure:  # noqa: BLE001 - a dead writer must be visible, whatever killed it
            self._notify(self._owner.on_failed, self._trouble.end_for_good(failure))
        finally:
            self._trouble.end()
            self._target.close()
            self._notify(self._owner.on_ended)

    def _step(self) -> bool:
        """Take what waits, write it, report it. False at the end."""
        commit, go_on = self._gather()
        self._output.bring(commit, is_last=not go_on)
        if self._unmade is not None:
            unmade, self._unmade = self._unmade, None
            self._notify(self._owner.on_unmade, *unmade)
        if go_on:
            self._output.look_for_reader()
        return go_on

    def _gather(self) -> tuple[Commit, bool]:
        """
        Wait for a job, then take all that wait behind it, up to `COMMIT_BYTES`; false when none can follow.

        One whose buffers cannot be made is passed over, and ends the gathering: those before it are reported first.
        """
        jobs: list[Job] = []
        size = 0
        try:
            item = self._queue.get(timeout=self._output.patience())
            while item is not _STOP:
                if isinstance(item, Job):
                    try:
                        size += item.make()
                    except Exception as failure:  # noqa: BLE001 - what cannot be written must not keep the rest from it
                        self._unmade = item.number, failure
                        return Commit(jobs), True
                    jobs.append(item)
                if size >= COMMIT_BYTES:
                    return Commit(jobs), True
                item = self._queue.get_nowait()
        except Empty:
            return Commit(jobs), True
        return Commit(jobs), False

    # Called by the output.

    def on_done(self, numbers: list[int]) -> None:
        """See `OutputOwner`."""
        self._notify(self._owner.on_written, numbers)

    def on_moved(self, rewritten: int | None) -> None:
        """See `OutputOwner`."""
        self._notify(self._owner.on_moved, rewritten)

    def on_recovered(self) -> None:
        """See `OutputOwner`."""
        self._notify(self._owner.on_recovered)
