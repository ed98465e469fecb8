"""
The thread behind an appender: it gathers what waits, has it written, and tells what became of it.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

from twisted_ingest.errors import Fsync
from twisted_ingest.storage.commit import Job
from twisted_ingest.storage.output import Output
from twisted_ingest.storage.queue import JobQueue
from twisted_ingest.storage.target import Target
from twisted_ingest.storage.trouble import HELD_BACK, AbandonedError, Trouble


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


class Writer:
    """
    Writes jobs (buffers that end in LF each) to one target, and reports each once it has what it asks for.

    Those that ask for a sync are written and reported in order, and so are those that do not; under `Fsync.ALWAYS` all
    ask. ``reactor`` gives the time too. ``meanwhile`` says, for messages, what becomes of records during a trouble.
    ``counts`` may be read from any thread.
    """

    def __init__(
        self,
        target: Target,
        fsync: Fsync,
        reactor: Any,
        owner: WriterOwner,
        meanwhile: str = HELD_BACK,
        *,
        queue: JobQueue | None = None,
    ) -> None:
        self._target = target
        self._reactor = reactor
        self._owner = owner
        self._all_ask = fsync is Fsync.ALWAYS
        self._queue = queue or JobQueue()
        self._last_number = 0
        self._abandoned = threading.Event()
        on_error = partial(self._notify, owner.on_stalled)
        outside = self._queue.under_way
        self._trouble = Trouble(target, reactor.seconds, self._abandoned, on_error, meanwhile, outside=outside)
        self._output = Output(target, fsync, self._trouble, reactor.seconds, self)
        self.counts = self._output.counts

    # Called in the reactor's thread.

    def start(self, name: str) -> None:
        """Start the thread; in the reactor's."""
        self._queue.attach(self._reactor, self._reap)
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def detach(self) -> None:
        """Have no more to do with the reactor; whoever started it calls this at the end."""
        self._queue.detach()

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        self._reap()  # what was written before is told of before
        self._owner.hear(function, *arguments)

    def _end(self) -> None:
        self._tell(self._owner.on_ended)
        self._queue.end()

    def _reap(self) -> None:
        numbers = self._queue.reap()
        if numbers:
            self._owner.hear(self._owner.on_written, numbers)

    # Called in any thread.

    def put(self, buffers: Iterable[bytes | memoryview], *, sync: bool = False) -> int:
        """
        Queue a job, to be synced before it is reported where ``sync`` says so; gives its number.

        Called in one thread alone.
        """
        number = self._last_number = self._last_number + 1
        self._queue.put(Job(number, buffers, wants_sync=sync or self._all_ask))
        return number

    def reopen(self) -> None:
        """Open the target anew before the next record that is written."""
        self._output.reopen_wanted = True
        self._queue.wake()

    def stop(self) -> None:
        """End once everything queued is written; nothing may be queued after this."""
        self._queue.close()

    def abandon(self) -> None:
        """End at the next opportunity, whatever is queued."""
        self._abandoned.set()
        self._queue.abandon()

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
        self._reactor.callFromThread(self._tell, function, *arguments)

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except AbandonedError:
            pass
        except Exception as failure:  # noqa: BLE001 - a dead writer must be visible, whatever killed it
            # Of one that was abandoned the buffers may have been taken back, and nobody hears of it any more.
            if not self._abandoned.is_set():
                self._notify(self._owner.on_failed, self._trouble.end_for_good(failure))
        finally:
            self._trouble.end()
            self._target.close()
            self._reactor.callFromThread(self._end)

    def _step(self) -> bool:
        """Take what waits, write it, report it. False at the end."""
        spot = self._output.spot()
        written = spot.written if spot else 0
        commit = self._queue.gather(self._output.patience(), spot)
        if spot and spot.written > written:
            self._output.note_outside()
        self._output.bring(commit)
        if commit.unmade is not None:
            self._notify(self._owner.on_unmade, *commit.unmade)
        if not commit.is_last:
            self._output.look_for_reader()
        return not commit.is_last

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
