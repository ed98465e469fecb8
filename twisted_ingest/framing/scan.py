"""
How far a chunk is ordinary: found in C where that was built (``_scan.c``, ``_relp.c``), else left to the framers.

Pure. A framer is complete without: these functions may stop wherever they like, and what they find is what the framer
would.
"""

import os
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import NamedTuple, Protocol

PURE = "TWISTED_INGEST_PURE_PYTHON"
"""The environment variable that keeps C from being used where it is set and not empty, and from being built."""


Chunk = bytes | memoryview
"""What one read brought; a view is of a buffer that the next read overwrites."""


class Look(IntEnum):
    """
    How a framer's unfinished record and what comes next, joined, may be looked through before the framer sees them.

    What is found is given to `twisted_ingest.framing.base.Framer.take`.
    """

    NOTHING = 0
    """Not at all: the framer wants to see every byte."""
    LINES = 1
    """For ordinary lines; see `LinesIn`."""
    LINES_OF_MIXED = 2
    """The same with evidence."""
    FRAMES = 3
    """For ordinary counted frames; see `FramesIn`."""
    FRAMES_OF_MIXED = 4
    """The same with evidence."""


class LinesIn(Protocol):
    """Finds ordinary lines."""

    def __call__(
        self, partial: bytes | bytearray, data: Chunk, position: int, limit: int, evidence: bool, /
    ) -> tuple[bytes, int, int]:
        """
        Give the lines from ``position`` on up to the first odd one, their number, and where that begins.

        The first line begins with ``partial``. Odd are lines that are empty, longer than ``limit``, or end in CR; with
        ``evidence`` also those that hold NUL or begin as no plain line does (`twisted_ingest.framing.detect`). Where
        the number is 0, ``partial`` is still unfinished.
        """


class FramesIn(Protocol):
    """Finds ordinary counted frames."""

    def __call__(self, data: bytes, position: int, limit: int, evidence: bool, /) -> tuple[bytes, int, int]:
        """
        Give the contents of the frames from ``position`` on, LF behind each, their number, and where the next begins.

        It ends at a frame that is not whole, longer than ``limit``, empty, holds an LF, or begins with a BOM; with
        ``evidence`` also at one without a priority, or that holds NUL or what looks like the header of another.
        """


class RecordsIn(Protocol):
    """Finds ordinary frames of RELP."""

    def __call__(self, data: Chunk, position: int, expected: int, last: int, limit: int, /) -> tuple[bytes, int, int]:
        """
        Give the records of the frames from ``position`` on, LF behind each, their number, and where the next begins.

        The first is numbered ``expected``; none is ``last`` or beyond. It ends at a frame that is not whole, is longer
        than ``limit``, has another number or command, is empty, holds an LF, or begins with what may be a BOM.
        """


def no_lines(
    _partial: bytes | bytearray, _data: Chunk, position: int, _limit: int, _evidence: bool, /
) -> tuple[bytes, int, int]:
    """Find nothing; see `LinesIn`."""
    return b"", 0, position


def no_frames(_data: bytes, position: int, _limit: int, _evidence: bool, /) -> tuple[bytes, int, int]:
    """Find nothing; see `FramesIn`."""
    return b"", 0, position


def no_records(_data: Chunk, position: int, _expected: int, _last: int, _limit: int, /) -> tuple[bytes, int, int]:
    """Find nothing; see `RecordsIn`."""
    return b"", 0, position


HIGHEST_NUMBER = 999_999_999
"""The number of a RELP frame after which 1 follows."""


def write_answers(number: int, frames: int, /) -> bytes:
    """Write for each of so many RELP frames that its record is safe; the first of them is ``number``."""
    last = number + frames - 1
    numbers: Iterable[int] = range(number, last + 1)
    if last > HIGHEST_NUMBER:
        numbers = (1 + (each - 1) % HIGHEST_NUMBER for each in numbers)
    return b"".join([b"%d rsp 6 200 OK\n" % each for each in numbers])


_UNCONTROLLED = bytes(range(0x20, 0x100))


def look_for_control(data: bytes, exception: bytes, /) -> bool:
    """Whether there is a control character (below 0x20) but ``exception``, which is one byte or none."""
    # Deleting all others tells 15 times faster than a regular expression would.
    return bool(data.translate(None, _UNCONTROLLED + exception))


class Chosen(NamedTuple):
    """What is in use."""

    lines_in: LinesIn = no_lines
    frames_in: FramesIn = no_frames
    records_in: RecordsIn = no_records
    write_answers: Callable[[int, int], bytes] = write_answers
    holds_control: Callable[[bytes, bytes], bool] = look_for_control
    is_compiled: bool = False


def _chosen() -> Chosen:
    if os.environ.get(PURE):
        return Chosen()
    try:
        from twisted_ingest.framing import _relp, _scan  # noqa: PLC0415 - they may not be there
    except ImportError:
        return Chosen()
    return Chosen(_scan.lines, _scan.frames, _relp.records, _relp.answers, _scan.holds_control, True)


lines_in, frames_in, records_in, answers_to, holds_control, IS_COMPILED = _chosen()

SCANNER = "c" if IS_COMPILED else "python"
"""What is in use, as metrics and ``--version`` call it."""
