"""
The sink that appends lines to a file.
"""

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Literal

from zope.interface import implementer

from twisted_ingest.config.fields import About, FilePath, GroupId, Mode, UserId
from twisted_ingest.config.owners import gift_problem
from twisted_ingest.errors import Durability, Format, Fsync, MisconfiguredError, SinkError
from twisted_ingest.interfaces import ISink
from twisted_ingest.limits import FILE_MODE
from twisted_ingest.observe.events import Events
from twisted_ingest.sinks.lines import LinesSink
from twisted_ingest.sinks.registry import Place, SinkContext, SinkTable, SinkType
from twisted_ingest.storage.access import OURS, FileAccess
from twisted_ingest.storage.appender import Appender
from twisted_ingest.storage.courier import make_queue
from twisted_ingest.storage.file import FileTarget, IrregularError
from twisted_ingest.storage.trouble import HELD_BACK

# At the start neither is waited for; anything else is tried again.
MISTAKES = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST})
"""The path cannot name a file, and no waiting mends that."""

_DENIED = frozenset({errno.EACCES, errno.EPERM})
"""The path can name one that we may not have; what is mounted there later may be another's."""

KEPT = "its spool keeps records meanwhile"


@implementer(ISink)
class FileSink(LinesSink):
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

        def notify(event: Callable[[str, str], None]) -> None:
            reactor.callFromThread(events.guard, f"sink {name}", event, name, self.path)

        self._target.on_repair = partial(notify, events.sink_repaired)
        self._target.on_truncation = partial(notify, events.sink_truncated)
        meanwhile = KEPT if is_patient else HELD_BACK
        is_plain = format is Format.RAW and fsync is Fsync.NEVER
        queue = make_queue(reactor) if is_plain else None
        super().__init__(
            name, Appender(name, self._target, reactor, events, fsync, meanwhile=meanwhile, queue=queue), format, events
        )

    def describe(self) -> str:
        """See `ISink`."""
        form = "" if self.format is Format.RAW else f", {self.format.value}"
        return f"file {self.path} (fsync {self.fsync.value}{form})"

    def start(self) -> None:
        """See `ISink`: a path that can never be used is refused, a full disk is waited for."""
        is_open = self._open()
        try:
            self._appender.start(is_open=is_open)
        except SinkError:
            self._target.close()
            raise

    def _open(self) -> bool:
        """Open the file; false where that may work later."""
        try:
            self._target.open()
        except IrregularError as failure:
            raise MisconfiguredError(f"sink {self.name}: {failure.strerror}") from failure
        except OSError as failure:
            self._target.close()
            reason = f"sink {self.name}: cannot open {self.path}: {failure.strerror}"
            if failure.errno in MISTAKES:
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
            **vars(writer.counts),
            "truncations": self._target.truncations,
            "repaired_lines": self._target.repaired,
        }


class FileSettings(SinkTable):
    """``[sinks.NAME]`` with ``type = "file"``."""

    type: Literal["file"]
    path: Annotated[FilePath, About("PATH", "of the file; directories are made")]
    fsync: Annotated[Fsync, About("never|1s|always:", "when written lines are flushed to the device")] = Fsync.NEVER
    format: Annotated[Format, About("raw|json:", "the bytes as they came, or an object a line")] = Format.RAW
    mode: Annotated[Mode, About("MODE", "of a file that is made", default=f"{FILE_MODE:04o}")] = FILE_MODE
    owner: Annotated[UserId | None, About("USER", "whom a file that is made is given to", default="ours")] = None
    group: Annotated[GroupId | None, About("GROUP", "whom a file that is made is given to", default="ours")] = None


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
)
