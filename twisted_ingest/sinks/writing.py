"""
The sinks that write lines: a file, and standard output.
"""

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_ingest.batch import Batch, Group, Refusal, Rejected
from twisted_ingest.config.fields import FilePath, GroupId, Mode, UserId
from twisted_ingest.config.owners import gift_problem
from twisted_ingest.errors import Durability, Format, Fsync, MisconfiguredError, SinkError
from twisted_ingest.interfaces import ISink
from twisted_ingest.limits import FILE_MODE
from twisted_ingest.observe.events import Events
from twisted_ingest.sinks.registry import STANDARD_OUTPUT, Place, SinkContext, SinkTable, SinkType
from twisted_ingest.sinks.rendering import RENDERERS
from twisted_ingest.storage.access import OURS, FileAccess
from twisted_ingest.storage.appender import Appender
from twisted_ingest.storage.file import FileTarget, IrregularError
from twisted_ingest.storage.stream import StreamTarget
from twisted_ingest.storage.trouble import HELD_BACK

# At the start neither is waited for; anything else is tried again.
_MISTAKES = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST})
"""The path cannot name a file, and no waiting mends that."""

_DENIED = frozenset({errno.EACCES, errno.EPERM})
"""The path can name one that we may not have; what is mounted there later may be another's."""


KEPT = "its spool keeps records meanwhile"


class _Lines:
    """
    The lines of one group, made while they are iterated over: in the thread that writes them.

    A batch that cannot be rendered is passed over, and stays in ``unmade`` with what was raised.
    """

    __slots__ = ("_batches", "_render", "unmade")

    def __init__(self, render: Callable[[Batch], bytes], batches: list[Batch]) -> None:
        self._render = render
        self._batches = batches
        self.unmade: list[tuple[Batch, Exception]] = []

    def __iter__(self) -> Iterator[bytes]:
        render = self._render
        for batch in self._batches:
            try:
                yield render(batch)
            except Exception as failure:  # noqa: BLE001 - a bug of ours, which must cost this batch alone
                self.unmade.append((batch, failure))


class _WritingSink:
    """What both share: everything but the opening."""

    wants_groups = True

    def __init__(self, name: str, appender: Appender, format: Format, events: Events) -> None:  # noqa: A002
        self.name = name
        self._events = events
        self.format = format
        self._appender = appender
        self._render = RENDERERS[format]

    @property
    def trouble(self) -> str | None:
        """See `ISink`."""
        return self._appender.writer.trouble

    def deliver(self, group: Group) -> "Deferred[Rejected | None]":
        """See `ISink`."""
        # Rendered when it is written and not before: JSON may be many times what the budget was charged for.
        lines = _Lines(self._render, group.batches)
        return self._appender.submit(lines, sync=group.needs_sync).addCallback(self._written, lines)

    def _written(self, _: None, lines: _Lines) -> Rejected | None:
        for _batch, failure in lines.unmade:
            self._events.internal_error(f"what sink {self.name} makes of records", failure=Failure(failure))
        if not lines.unmade:
            return None
        reason = "they cannot be written: {}: {}"
        return Rejected(Refusal(b, None, reason.format(type(error).__name__, error)) for b, error in lines.unmade)

    def close(self) -> "Deferred[None]":
        """See `ISink`."""
        return self._appender.close()

    def abandon(self) -> None:
        """See `ISink`."""
        self._appender.abandon()


@implementer(ISink)
class FileSink(_WritingSink):
    """
    Appends lines to one file. A group that needs it is synced, whatever ``fsync`` says of the others.

    ``sync_for`` names who relies on that, for a message: then the path must be a regular file, at the start and
    whenever it is opened anew. With an ``fsync`` of its own it must be one anyway. One that ``is_patient``, because
    something in front keeps what it cannot take, waits at the start for whatever waiting may mend.
    """

    durability = Durability.FSYNC

    def __init__(
        self,
        name: str,
        path: str,
        *,
        reactor: Any,
        events: Events,
        fsync: Fsync = Fsync.NEVER,
        format: Format = Format.RAW,  # noqa: A002
        access: FileAccess = OURS,
        sync_for: str | None = None,
        is_patient: bool = False,
    ) -> None:
        self.path = os.path.abspath(path)
        self.fsync = fsync
        self._is_patient = is_patient
        self._target = FileTarget(self.path, access, sync_for if fsync is Fsync.NEVER else f"fsync={fsync.value}")

        def tell(event: Callable[[str, str], None]) -> None:
            reactor.callFromThread(events.guard, f"sink {name}", event, name, self.path)

        self._target.on_repair = partial(tell, events.sink_repaired)
        self._target.on_truncation = partial(tell, events.sink_truncated)
        meanwhile = KEPT if is_patient else HELD_BACK
        super().__init__(
            name, Appender(name, self._target, reactor, events, fsync, meanwhile=meanwhile), format, events
        )

    def describe(self) -> str:
        """See `ISink`."""
        form = "" if self.format is Format.RAW else f", {self.format.value}"
        return f"file {self.path} (fsync {self.fsync.value}{form})"

    def start(self) -> None:
        """See `ISink`: a path that can never be used is refused, a full disk is waited for."""
        is_open = self._is_open()
        try:
            self._appender.start(is_open=is_open)
        except SinkError:
            self._target.close()
            raise

    def _is_open(self) -> bool:
        """Open the file; false where that may work later."""
        try:
            self._target.open()
        except IrregularError as failure:
            raise MisconfiguredError(f"sink {self.name}: {failure.strerror}") from failure
        except OSError as failure:
            self._target.close()
            reason = f"sink {self.name}: cannot open {self.path}: {failure.strerror}"
            if failure.errno in _MISTAKES:
                raise MisconfiguredError(reason) from failure
            if failure.errno in _DENIED and not self._is_patient:
                raise SinkError(reason) from failure
            return False
        return True

    def reopen(self) -> None:
        """See `ISink`."""
        self._appender.reopen()

    def details(self) -> Mapping[str, float]:
        """See `ISink`."""
        writer = self._appender.writer
        return {
            "retries": writer.retries,
            "syncs": writer.counts.syncs,
            "sync_seconds": writer.counts.sync_seconds,
            "sync_failures": writer.counts.sync_failures,
            "rewritten_bytes": writer.counts.rewritten_bytes,
            "torn_records": writer.counts.torn_records,
            "moved_files": writer.counts.moved_files,
            "rescued_bytes": writer.counts.rescued_bytes,
            "truncations": self._target.truncations,
            "repaired_lines": self._target.repaired,
        }


@implementer(ISink)
class StdoutSink(_WritingSink):
    """Writes lines to standard output; a reader that stalls holds the senders back."""

    durability = Durability.WRITTEN

    def __init__(
        self,
        name: str,
        *,
        reactor: Any,
        events: Events,
        format: Format = Format.RAW,  # noqa: A002
        descriptor: int = 1,
    ) -> None:
        super().__init__(
            name, Appender(name, StreamTarget(descriptor, "standard output"), reactor, events), format, events
        )

    def describe(self) -> str:
        """See `ISink`."""
        return "standard output" if self.format is Format.RAW else f"standard output ({self.format.value})"

    def start(self) -> None:
        """See `ISink`."""
        self._appender.start(is_open=True)

    def reopen(self) -> None:
        """See `ISink`: nothing was rotated."""

    def details(self) -> Mapping[str, float]:
        """See `ISink`."""
        return {"retries": self._appender.writer.retries}


class FileSettings(SinkTable):
    """``[sinks.NAME]`` with ``type = "file"``."""

    type: Literal["file"]
    path: FilePath
    fsync: Fsync = Fsync.NEVER
    format: Format = Format.RAW
    mode: Mode = FILE_MODE
    owner: UserId | None = None
    group: GroupId | None = None


class StdoutSettings(SinkTable):
    """``[sinks.NAME]`` with ``type = "stdout"``."""

    type: Literal["stdout"]
    format: Format = Format.RAW


def _make_file(name: str, table: FileSettings, context: SinkContext) -> FileSink:
    return FileSink(
        name,
        table.path,
        reactor=context.reactor,
        events=context.events,
        fsync=table.fsync,
        format=table.format,
        access=FileAccess(table.mode, table.owner, table.group),
        sync_for=context.sync_for,
        is_patient=context.is_patient,
    )


def _make_stdout(name: str, table: StdoutSettings, context: SinkContext) -> StdoutSink:
    return StdoutSink(name, reactor=context.reactor, events=context.events, format=table.format)


def _file_problems(table: FileSettings) -> Iterator[tuple[str, str]]:
    problem = gift_problem(table.owner, table.group)
    if problem is not None:
        yield "owner" if "owner" in problem else "group", problem


KINDS = (
    SinkType(
        table=FileSettings,
        make=_make_file,
        durability=FileSink.durability,
        summary="appended to a file",
        address="path",
        places=lambda table: [Place(table.path, "path")],
        problems=_file_problems,
    ),
    SinkType(
        table=StdoutSettings,
        make=_make_stdout,
        durability=StdoutSink.durability,
        summary="written to standard output",
        places=lambda _: [STANDARD_OUTPUT],
    ),
)
