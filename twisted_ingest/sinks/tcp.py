r"""
The sink that sends lines onward over plain TCP.

There is no answer. A record counts as taken once the peer's kernel has acknowledged all its bytes: it is in the memory
of the peer's machine, and no more is known of it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

from twisted_ingest.batch import ESCAPED_LF, LF, NUL, Batch
from twisted_ingest.config.fields import About
from twisted_ingest.errors import Durability, Framing
from twisted_ingest.sinks.delivery.session import Answer
from twisted_ingest.sinks.delivery.sink import StreamSettings, StreamSink
from twisted_ingest.sinks.delivery.wire import Buffer
from twisted_ingest.sinks.registry import SinkContext, SinkType

ESCAPED_NUL = b"\\0"

PLENTY = 1 << 30
"""Records that may be sent ahead: there is no window but the kernel's."""


class Frames:
    """How records are told apart: the bytes of some of a batch, and how many records a beginning of those has whole."""

    def of_all(self, batch: Batch) -> Buffer:
        """Give the frames of a whole batch."""
        return self.of(batch.records())

    def of(self, records: Sequence[bytes]) -> bytes:
        """Give the frames of records."""
        raise NotImplementedError

    def size(self, record: bytes) -> int:
        """Give the bytes of one frame."""
        return len(self.of([record]))


class LineFrames(Frames):
    r"""Each record is followed by LF; an LF inside one becomes the two characters ``\n``."""

    def of_all(self, batch: Batch) -> Buffer:
        """See `Frames`: the block as it came, where it came as lines."""
        return batch.block()

    def of(self, records: Sequence[bytes]) -> bytes:
        """See `Frames`."""
        return b"".join([record.replace(LF, ESCAPED_LF) + LF for record in records])


class NulFrames(Frames):
    r"""Each record is followed by NUL; a NUL inside one becomes the two characters ``\0``."""

    def of(self, records: Sequence[bytes]) -> bytes:
        """See `Frames`."""
        return b"".join([record.replace(NUL, ESCAPED_NUL) + NUL for record in records])


class CountedFrames(Frames):
    """The length and a blank stand before each record (RFC 6587, 3.4.1); a record may hold anything."""

    def of(self, records: Sequence[bytes]) -> bytes:
        """See `Frames`."""
        parts: list[object] = [None] * (2 * len(records))
        parts[0::2] = map(len, records)
        parts[1::2] = records
        return (b"%d %b" * len(records)) % tuple(parts)


class PlainSession:
    """See `Session`: there is nothing to be said."""

    is_answered = False
    is_open = True
    is_over = False
    is_spent = False
    room = PLENTY

    def __init__(self, frames: Frames) -> None:
        self._frames = frames

    def begin(self) -> bytes:
        """See `Session`."""
        return b""

    def frame(self, batch: Batch, first: int, count: int) -> Buffer:
        """See `Session`."""
        if count == batch.count:
            return self._frames.of_all(batch)
        return self._frames.of(batch.records()[first : first + count])

    def whole(self, batch: Batch, first: int, size: int) -> int:
        """See `Session`."""
        number = 0
        for record in batch.records()[first:]:
            size -= self._frames.size(record)
            if size < 0:
                break
            number += 1
        return number

    def received(self, data: bytes) -> Sequence[Answer]:
        """See `Session`: whatever a receiver of lines says, it means nothing."""
        return ()

    def end(self) -> bytes:
        """See `Session`."""
        return b""


FRAMES: Mapping[str, Callable[[], Frames]] = {
    Framing.NEWLINE: LineFrames,
    Framing.OCTET_COUNTED: CountedFrames,
    Framing.NUL: NulFrames,
}


class TcpSettings(StreamSettings):
    """``[sinks.NAME]`` with ``type = "tcp"``."""

    type: Literal["tcp"]
    framing: Annotated[
        Literal["newline", "octet-counted", "nul"],
        About("newline|octet-counted|nul:", "how the receiver tells records apart"),
    ] = "newline"


def make_tcp(name: str, table: TcpSettings, context: SinkContext) -> StreamSink:
    """Make the sink."""
    frames = FRAMES[table.framing]()
    return StreamSink(name, table, context, lambda: PlainSession(frames), durability=Durability.MEMORY)


KINDS = (
    SinkType(
        table=TcpSettings,
        make=make_tcp,
        durability=Durability.MEMORY,
        summary="sent onward over TCP, as lines",
        page="docs/sinks.md",
        address="address",
    ),
)
