"""
How far a sequence of lines is written, whatever sizes the writes had.
"""

from collections.abc import Sequence

from twisted_ingest.batch import LF
from twisted_ingest.storage.target import IOV_MAX


class Progress:
    """
    A position in buffers that each hold whole lines.

    ``written`` counts the bytes passed since the mark, those included that `step_back` goes over again.
    """

    __slots__ = ("_buffers", "_index", "_mark", "_offset", "written")

    def __init__(self, buffers: Sequence[bytes | memoryview]) -> None:
        self._buffers = buffers
        self._mark = (0, 0)
        self.restart()

    def mark(self) -> None:
        """Let this be where `restart` goes back to, the beginning until then."""
        self._mark = (self._index, self._offset)
        self.written = 0

    def restart(self) -> None:
        """Go back to the mark."""
        self._index, self._offset = self._mark
        self.written = 0
        self._skip_finished()

    @property
    def is_done(self) -> bool:
        """Whether nothing is left."""
        return self._index == len(self._buffers)

    def window(self) -> list[bytes | memoryview]:
        """Give what is next to be written, as much as one ``writev`` takes."""
        window: list[bytes | memoryview] = [*self._buffers[self._index : self._index + IOV_MAX]]
        if self._offset:
            window[0] = memoryview(window[0])[self._offset :]
        return window

    def advance(self, number: int) -> None:
        """Pass ``number`` bytes."""
        self.written += number
        self._offset += number
        self._skip_finished()

    def _skip_finished(self) -> None:
        while not self.is_done and self._offset >= len(self._buffers[self._index]):
            self._offset -= len(self._buffers[self._index])
            self._index += 1

    def step_back(self, number: int = 0) -> bool:
        """
        Go back ``number`` bytes, but not past the mark, and from there to the beginning of the line.

        Gives whether that was in the middle of a line, which is now to be written once more.
        """
        while number > self._offset and self._index > self._mark[0]:
            number -= self._offset
            self._index -= 1
            self._offset = len(self._buffers[self._index])
        least = self._mark[1] if self._index == self._mark[0] else 0
        self._offset = max(self._offset - number, least)
        if not self._offset:
            return False
        boundary = bytes(self._buffers[self._index][: self._offset]).rfind(LF) + 1
        was_inside = boundary != self._offset
        self._offset = boundary
        return was_inside
