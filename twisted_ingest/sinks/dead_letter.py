"""
Where records go that a sink will never take: a file of JSON lines, from which they can be sent again.

``python -m twisted_ingest.sinks.dead_letter FILE`` writes the records of such files to standard output, as lines, or as
counted frames with ``--counted``.
"""

import base64
import errno
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_ingest.batch import ESCAPED_LF, LF, Group
from twisted_ingest.errors import Durability, MisconfiguredError, SinkError
from twisted_ingest.flow.delivery import OnBug, OnRejected, deliver
from twisted_ingest.interfaces import ISink
from twisted_ingest.limits import MIB
from twisted_ingest.observe.events import Events
from twisted_ingest.rejected import Rejected
from twisted_ingest.sinks.file import MISTAKES
from twisted_ingest.storage.appender import Appender
from twisted_ingest.storage.file import FileTarget
from twisted_ingest.storage.target import Place

LETTER_BYTES = 64 * MIB
"""Bytes after which a file of dead letters is renamed: what an editor opens still."""

LETTERS_KEPT = 9
"""Renamed files that are kept, ``PATH.1`` the latest; the oldest makes room. A stream of rejected records must not
fill the disk: with these and the one being written it takes ten times the above at most."""


class LetterFile(FileTarget):
    """A file that is given another name once it is long enough."""

    def __init__(self, path: str, limit: int = LETTER_BYTES) -> None:
        super().__init__(path)
        self._limit = limit

    def rename_if_full(self) -> bool:
        """Give it another name where it is; says so. Called in the writer's thread, which looks at the name next."""
        if self._spot.least < self._limit or self.place() is not Place.HERE:
            return False
        with suppress(OSError):  # it goes on growing, which is better than to lose a record
            for number in range(LETTERS_KEPT, 1, -1):
                with suppress(FileNotFoundError):
                    os.replace(f"{self.path}.{number - 1}", f"{self.path}.{number}")
            os.replace(self.path, f"{self.path}.1")
        return True


@implementer(ISink)
class DeadLetters:
    """
    A sink before another, which writes down what that one rejects; the group waits for that, and nothing else does.

    Of a group that ``needs_sync`` it is synced. A file that cannot be written to is in ``trouble``, and holds those
    groups back of which something was rejected.
    """

    def __init__(
        self,
        sink: ISink,
        path: str,
        *,
        reactor: Any,
        events: Events,
        wall_time: Callable[[], float],
        limit: int = LETTER_BYTES,
    ) -> None:
        self._sink = sink
        self._events = events
        self._wall_time = wall_time
        self.name: str = sink.name
        self.durability: Durability = sink.durability
        self.wants_groups: bool = sink.wants_groups
        self.path = os.path.abspath(path)
        self._target = LetterFile(self.path, limit)
        self._appender = Appender(sink.name, self._target, reactor, events)
        self.on_rejected: OnRejected = lambda *_: None  # told by who delivers to us, once it is written down
        self.on_bug: OnBug = events.bug
        self.written = 0
        """Records."""

    @property
    def trouble(self) -> str | None:
        """See `ISink`."""
        own = self._appender.writer.trouble
        return self._sink.trouble if own is None else f"dead letters: {own}"

    def describe(self) -> str:
        """See `ISink`."""
        return f"{self._sink.describe()}, what it rejects to {self.path}"

    def start(self) -> None:
        """See `ISink`."""
        is_open = self._open()
        try:
            self._sink.start()
            self._appender.start(is_open=is_open)
        except BaseException:
            self._target.close()
            raise

    def _open(self) -> bool:
        """Open the file; false where that may work later."""
        try:
            self._target.open()
        except OSError as failure:
            self._target.close()
            if failure.errno in MISTAKES or failure.errno in (errno.EACCES, errno.EPERM):
                reason = f"cannot open {self.path} for its dead letters: {failure.strerror}"
                raise MisconfiguredError(f"sink {self.name}: {reason}") from failure
            return False
        return True

    def deliver(self, group: Group) -> "Deferred[Rejected | None]":
        """See `ISink`."""
        # One of our own, because the sink's has been given for a group already.
        done: Deferred[Rejected | None] = Deferred()
        _ = deliver(self._sink, group, self).addCallback(self._answered, group).chainDeferred(done)
        return done

    def _answered(self, rejected: Rejected | None, group: Group) -> "Rejected | Deferred[Any] | None":
        if rejected is None:
            return None
        # Made in the writer's thread: of a whole group they may be many.
        kept = self._appender.submit(self._letters(rejected, self._wall_time()), sync=group.needs_sync)
        return kept.addCallbacks(self._kept, self._unkept, callbackArgs=(rejected,), errbackArgs=(rejected,))

    def _letters(self, rejected: Rejected, now: float) -> Iterator[bytes]:
        if self._target.rename_if_full():
            self._appender.reopen()
        yield from letters(self.name, rejected, now)

    def _kept(self, _: None, rejected: Rejected) -> Rejected:
        self.written += rejected.count
        return rejected

    def _unkept(self, failure: Failure, rejected: Rejected) -> Rejected | Failure:
        if failure.check(SinkError):
            return failure  # given up at a stop: whoever brings them again may be luckier
        self._events.internal_error(f"dead letters of sink {self.name}", failure=failure)
        return rejected

    def reopen(self) -> None:
        """See `ISink`."""
        self._appender.reopen()
        self._sink.reopen()

    def close(self) -> "Deferred[None]":
        """See `ISink`: what the sink behind finishes may be rejected still."""
        closed = self._sink.close()
        return closed.addBoth(self._close)

    def _close(self, outcome: object) -> "Deferred[Any]":
        return self._appender.close().addCallback(lambda _: outcome)

    def abandon(self) -> None:
        """See `ISink`."""
        self._sink.abandon()
        self._appender.abandon()

    def details(self) -> Mapping[str, float]:
        """See `ISink`."""
        return {**self._sink.details(), "dead_letter_records": self.written}


def letters(sink: str, rejected: Rejected, now: float) -> Iterator[bytes]:
    """Give a line for each record that was rejected; the batches must be there still."""
    for record, info, received_at, reason in rejected.records():
        about = {"time": _stamp(now), "sink": sink, "reason": reason, "listener": info.listener, "peer": info.peer}
        yield json.dumps({**about, "received": _stamp(received_at), **_written(record)}).encode() + LF


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _written(record: bytes) -> dict[str, str]:
    """Write a record so that it can be read back to the byte."""
    try:
        return {"record": record.decode()}
    except UnicodeDecodeError:
        return {"record_base64": base64.b64encode(record).decode()}


def records(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Read records back. Raises ``ValueError`` for a line that is none of ours, but for the last: it may be torn."""
    held: ValueError | None = None
    for number, line in enumerate(lines, 1):
        if held is not None:
            raise held
        try:
            letter = json.loads(line)
            yield letter["record"].encode() if "record" in letter else base64.b64decode(letter["record_base64"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            held = ValueError(f"line {number} is no dead letter: {error}")


def main(arguments: Sequence[str], output: Any) -> int:
    """Write the records of files, in their order; gives the exit status."""
    path = ""
    is_counted, paths = "--counted" in arguments, [each for each in arguments if each != "--counted"]
    try:
        for path in paths:
            with open(path, "rb") as stream:
                for record in records(stream):
                    frame = b"%d %b" % (len(record), record) if is_counted else record.replace(LF, ESCAPED_LF) + LF
                    output.write(frame)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{path}: error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdout.buffer))
