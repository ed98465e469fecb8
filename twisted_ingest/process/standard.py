"""
Descriptors 0, 1 and 2: there, and worth writing to.
"""

import os
import sys


def open_missing() -> None:
    """
    Open ``/dev/null`` in place of those that are closed.

    To be called first: otherwise the next file or socket becomes one of them, and takes what is meant for another.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one: those below are open.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        # Python has none where it found the descriptor closed.
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - until the end
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def is_null(number: int) -> bool:
    """Whether a descriptor is ``/dev/null``, and so keeps nothing."""
    return os.path.samestat(os.fstat(number), os.stat(os.devnull))


def make_null() -> None:
    """Make all three ``/dev/null``: a daemon has no terminal."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    if null > 2:  # noqa: PLR2004
        os.close(null)
