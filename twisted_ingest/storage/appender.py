"""
Appending without waiting: what the reactor sees of a writer thread.

The reactor hands over groups of buffers and gets a message when some are done: one per gathered write, and one more
where some of that had to be synced and some had not. Nothing here is allowed to block the reactor; a full disk is
back-pressure by not answering.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from twisted_ingest.errors import Fsync, SinkError
from twisted_ingest.observe.events import Events
from twisted_ingest.storage.queue import JobQueue
from twisted_ingest.storage.target import Target
from twisted_ingest.storage.trouble import HELD_BACK
from twisted_ingest.storage.writer import Writer

LOOK_SECONDS = 1.0
"""How often the thread is looked after while anything is outstanding: how late a stall may be in the log."""


class Appender:
    """
    Appends to one target from a thread of its own.

    ``writer`` has the counters, and says in ``trouble`` why nothing is being written at the moment. A thread that
    hangs in a system call cannot say so: while anything is outstanding the reactor looks after it.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        reactor: Any,
        events: Events,
        fsync: Fsync = Fsync.NEVER,
        *,
        meanwhile: str = HELD_BACK,
        queue: JobQueue | None = None,
    ) -> None:
        self._name = name
        self._path = target.name
        self._reactor = reactor
        self._events = events
        self._outstanding: dict[int, Deferred[None]] = {}
        """By the numbers the writer has given them, in order."""
        self._is_started = False
        self._stopped: Deferred[None] | None = None
        self._failure: SinkError | None = None
        self._look: Any = None
        """The call that will see whether the thread hangs, while anything is outstanding."""
        self._hangs = False
        self.writer = Writer(target, fsync, reactor, self, meanwhile, queue=queue)

    def start(self, *, is_open: bool) -> None:
        """
        Start the thread; with ``is_open`` false it opens the target itself, for as long as that takes.

        Raises `SinkError` where there can be no more threads.
        """
        if not is_open:
            self.writer.reopen()
        try:
            self.writer.start(f"ingest-sink-{self._name}")
        except RuntimeError as failure:
            raise SinkError(f"sink {self._name}: no thread for it can be started ({failure})") from failure
        self._is_started = True

    def submit(self, buffers: Iterable[bytes | memoryview], *, sync: bool = False) -> "Deferred[None]":
        """
        Append buffers that end in LF each, after everything submitted before.

        The Deferred fires with ``None`` when they are written (and synced, with ``sync`` or under `Fsync.ALWAYS`); it
        fails with `SinkError` once that will never be. The buffers are kept until then, and not read
        afterwards: after `abandon` a thread that hangs in a write has hold of what it writes until that returns.

        An iterator is run by the writer's thread when their turn has come, so that buffers larger than what they are
        made from take no memory while they wait. Where it raises, nothing of it is written, and the Deferred fails with
        what was raised.
        """
        done: Deferred[None] = Deferred()
        if self._failure is not None or self._stopped is not None:
            done.errback(self._failure or SinkError(f"sink {self._name} is closed"))
        else:
            self._outstanding[self.writer.put(buffers, sync=sync)] = done
            if self._look is None:
                self._look = self._reactor.callLater(LOOK_SECONDS, self._look_after_thread)
        return done

    def reopen(self) -> None:
        """Open the target anew before the next record that is written."""
        self.writer.reopen()

    def close(self) -> "Deferred[None]":
        """
        Write what was submitted, then close.

        The Deferred fires with ``None`` at the end of the thread, or once the appender has failed or was abandoned.
        """
        if self._stopped is None:
            self._stopped = Deferred()
            if self._outstanding:
                self.writer.stop()
            else:
                # With nothing to write there is nothing to wait for: not for a file that cannot be opened either.
                self.writer.abandon()
            if not self._is_started or self._failure is not None:
                self.on_ended()
        return self._stopped

    def abandon(self) -> None:
        """Stop trying: whatever is not written fails now. A thread stuck in a system call is left behind."""
        self.writer.abandon()
        self._give_up(SinkError(f"sink {self._name} was abandoned at shutdown"))
        self.on_ended()

    def _look_after_thread(self) -> None:
        """Tell when the thread has hung for too long, and when it does so no more."""
        stall = self.writer.stall
        if stall is not None and not self._hangs:
            self._events.sink_stalled(self._name, stall)
        elif stall is None and self._hangs:
            self._events.sink_recovered(self._name, self._path)
        self._hangs = stall is not None
        more = bool(self._outstanding) or self._hangs
        self._look = self._reactor.callLater(LOOK_SECONDS, self._look_after_thread) if more else None

    def _give_up(self, failure: SinkError) -> None:
        self._failure = self._failure or failure
        if self._look is not None:
            self._look.cancel()
            self._look = None
        outstanding, self._outstanding = self._outstanding, {}
        for done in outstanding.values():
            done.errback(failure)

    # Called by the writer, in the reactor's thread.

    def hear(self, call: Callable[..., None], *arguments: object) -> None:
        """See `WriterOwner`."""
        self._events.guard(f"sink {self._name}", call, *arguments)

    def on_written(self, numbers: Sequence[int]) -> None:
        """See `WriterOwner`."""
        for number in numbers:
            done = self._outstanding.pop(number, None)
            # Whoever hears of one job may abandon the rest.
            if done is not None:
                done.callback(None)

    def on_unmade(self, number: int, failure: Exception) -> None:
        """See `WriterOwner`."""
        done = self._outstanding.pop(number, None)
        if done is not None:
            done.errback(failure)

    def on_stalled(self, trouble: str) -> None:
        """See `WriterOwner`."""
        self._events.sink_stalled(self._name, trouble)

    def on_recovered(self) -> None:
        """See `WriterOwner`."""
        self._events.sink_recovered(self._name, self._path)

    def on_moved(self, rewritten: int | None) -> None:
        """See `WriterOwner`."""
        self._events.sink_file_moved(self._name, self._path, rewritten)

    def on_failed(self, reason: str) -> None:
        """See `WriterOwner`."""
        self._events.sink_failed(self._name, reason)
        self._give_up(SinkError(f"sink {self._name}: {reason}"))

    def on_ended(self) -> None:
        """See `WriterOwner`."""
        self.writer.detach()
        self._give_up(SinkError(f"sink {self._name} is closed"))
        if self._stopped is not None and not self._stopped.called:
            self._stopped.callback(None)
