"""Framers as they are where no C scanner was built."""

from typing import TypeVar

from twisted_ingest.framing.base import Framer
from twisted_ingest.framing.scan import no_frames, no_lines

F = TypeVar("F", bound=Framer)


def without_scanner(kind: type[F]) -> type[F]:
    """Give a framer that looks at everything itself."""
    found = {"__slots__": (), "_lines_in": staticmethod(no_lines), "_frames_in": staticmethod(no_frames)}
    return type(f"Plain{kind.__name__}", (kind,), found)


def both(kind: type[F]) -> tuple[type[F], type[F]]:
    """Give a framer with the scanner and without."""
    return kind, without_scanner(kind)
