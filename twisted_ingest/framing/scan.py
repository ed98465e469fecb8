"""
How far a chunk is ordinary: found in C where that was built (``_scan.c``), left to the framers where it was not.

Pure. A framer is complete without: these functions may stop wherever they like, and what they find is what the framer
would.
"""

import os
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

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


def no_lines(
    _partial: bytes | bytearray, _data: Chunk, position: int, _limit: int, _evidence: bool, /
) -> tuple[bytes, int, int]:
    """Find nothing; see `LinesIn`."""
    return b"", 0, position


def no_frames(_data: bytes, position: int, _limit: int, _evidence: bool, /) -> tuple[bytes, int, int]:
    """Find nothing; see `FramesIn`."""
    return b"", 0, position


_UNCONTROLLED = bytes(range(0x20, 0x100))


def look_for_control(data: bytes, exception: bytes, /) -> bool:
    """Whether there is a control character (below 0x20) but ``exception``, which is one byte or none."""
    # Deleting all others tells 15 times faster than a regular expression would.
    return bool(data.translate(None, _UNCONTROLLED + exception))


def _chosen() -> tuple[LinesIn, FramesIn, Callable[[bytes, bytes], bool], bool]:
    if os.environ.get(PURE):
        return no_lines, no_frames, look_for_control, False
    try:
        from twisted_ingest.framing import _scan  # noqa: PLC0415 - it may not be there
    except ImportError:
        return no_lines, no_frames, look_for_control, False
    return _scan.lines, _scan.frames, _scan.holds_control, True


lines_in, frames_in, holds_control, IS_COMPILED = _chosen()

SCANNER = "c" if IS_COMPILED else "python"
"""What is in use, as metrics and ``--version`` call it."""
