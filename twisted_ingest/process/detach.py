"""
Becoming a daemon whose start is watched by the command that was called.

twistd's own way answers for neither: it ends its command before the service runs, shows a hundred bytes of an error in
Python's words, and waits for ever where a start ends with an exit status.
"""

import contextlib
import os
import sys
from typing import NoReturn

from twisted_ingest.process import standard

_READY, _TOLD = b"r", b"t"


class Detached:
    """The daemon's side. One of its methods is to be called when it is known what became of the start."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def ready(self) -> None:
        """Let go of the terminal, and have the command end with 0."""
        try:
            standard.make_null()
        finally:
            self._say(_READY)

    def told(self) -> None:
        """Have the command end as this process is about to, and say no more: the reason is on standard error."""
        self._say(_TOLD)

    def _say(self, word: bytes) -> None:
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            with contextlib.suppress(OSError):  # the command was killed: nobody waits
                os.write(pipe, word)
            os.close(pipe)


def detach(log: str) -> Detached:
    """
    Go on in a process in a session of its own, which keeps standard error until it is ready.

    Returns there only. The process that called waits, and ends with 0 once the new one is ready, or with its exit
    status; where that has ended without a word, ``log`` is named as the place to look.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    first = os.fork()
    if first:
        os._exit(_status(first))
    os.setsid()
    reading, writing = os.pipe()
    # Once more, so that it leads no session and no terminal it opens becomes its own.
    second = os.fork()
    if second:
        os.close(writing)
        _watch(second, reading, log)
    os.close(reading)
    return Detached(writing)


def _watch(daemon: int, pipe: int, log: str) -> NoReturn:
    word = os.read(pipe, 1)
    if word == _READY:
        os._exit(0)
    status = _status(daemon)
    if not word:
        os.write(2, f"error: the daemon ended with status {status} before it was ready: see {log}\n".encode())
    os._exit(status or 1)


def _status(process: int) -> int:
    """Wait for a process; gives its exit status as a shell does."""
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return code if code >= 0 else 128 - code
