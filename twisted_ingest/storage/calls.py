"""
Appending, and the look where the file is then: in one call (``_write.c``) where that was built, in three where not.
"""

import os
from collections.abc import Sequence
from typing import Protocol

from twisted_ingest.framing.scan import PURE

Buffers = Sequence[bytes | memoryview]

Sight = tuple[int, int, bool]
"""Of an open file, beside the path it was opened by: its size in bytes, -1 where none is open any more; the number of
its names; and whether the path names it, which counts as true where the path cannot be looked at for the moment."""


class Append(Protocol):
    """Appends to an open file."""

    def __call__(self, descriptor: int, buffers: Buffers, path: bytes, /) -> tuple[int, Sight | None]:
        """
        Write at most `IOV_MAX` buffers; give the number of bytes taken and, where that is all, what a look shows then.

        Nothing is kept of the buffers. Raises ``OSError`` where nothing could be written.
        """


class Look(Protocol):
    """Looks at an open file, and at its path."""

    def __call__(self, descriptor: int, path: bytes, /) -> Sight:
        """See what there is. Never raises."""


def append_in_python(descriptor: int, buffers: Buffers, path: bytes, /) -> tuple[int, Sight | None]:
    """Append in a call of each kind; see `Append`."""
    taken = os.writev(descriptor, buffers)
    is_all = taken == sum(map(len, buffers))
    return taken, look_in_python(descriptor, path) if is_all else None


def look_in_python(descriptor: int, path: bytes, /) -> Sight:
    """Look in a call of each kind; see `Look`."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        # A stale handle of a network file system, whose server has removed the file; or none is open.
        return -1, 0, False
    try:
        is_here = os.path.samestat(status, os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        is_here = False
    except OSError:
        # The path cannot be looked at for the moment; nor could it be opened.
        is_here = True
    return status.st_size, status.st_nlink, is_here


def _chosen() -> tuple[Append, Look, bool]:
    if not os.environ.get(PURE):
        try:
            from twisted_ingest.storage import _write  # noqa: PLC0415 - it may not be there
        except ImportError:
            pass
        else:
            return _write.append, _write.look, True
    return append_in_python, look_in_python, False


append, look, IS_COMPILED = _chosen()
