"""
The file that a configuration is read from: its bytes within bounds, its tables, and where each key stands.
"""

import os
import re
import select
import time
import tomllib

from twisted_ingest.config.draft import Draft
from twisted_ingest.config.meant import quotes_meant
from twisted_ingest.config.positions import key_lines
from twisted_ingest.limits import KIB, MIB

LARGEST_CONFIGURATION = 4 * MIB
"""Bytes of a TOML file; against a path that is wrong (a log, a disk's image), which would be read into memory whole.
A network of an `allow` takes some 20: two hundred thousand find room."""

PIPE_SECONDS = 10.0
"""Seconds for a pipe to be written and closed; against one that nobody writes to. What fetches a secret or fills in a
template needs one or two, and service managers wait for a start for 90."""

_READ_BYTES = 64 * KIB
"""Bytes of one read: what a pipe holds."""


def read_file(draft: Draft, file: str) -> None:
    """
    Read a configuration into a draft, its mistakes too.

    A pipe will do (``<(…)``, ``/dev/stdin``, a FIFO) that ends within `PIPE_SECONDS`; until then the caller waits.
    """
    try:
        data = _read(file)
        text = data.decode("utf-8-sig")
    except TimeoutError:
        draft.complain(
            f"--config {file}",
            f"nobody has written it to its end within {PIPE_SECONDS:.0f} s (is it a pipe? its writer must close it)",
        )
    except OSError as error:
        draft.complain(f"--config {file}", f"cannot read the file: {error.strerror}")
    except UnicodeDecodeError as error:
        draft.complain(file, f"the file is not UTF-8 (byte {error.start})")
    else:
        if len(data) > LARGEST_CONFIGURATION:
            draft.complain(
                f"--config {file}", f"the file has more than {LARGEST_CONFIGURATION // MIB} MiB: is it TOML?"
            )
        else:
            _parse(draft, file, text)


def _read(file: str) -> bytes:
    """Read to the end, or one read further than may be. Raises ``TimeoutError`` where the end does not come."""
    deadline = time.monotonic() + PIPE_SECONDS
    # Opening a FIFO would wait for its writer, without a limit.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        data = bytearray()
        while len(data) <= LARGEST_CONFIGURATION:
            _await_bytes(descriptor, deadline)
            chunk = os.read(descriptor, _READ_BYTES)
            if not chunk:
                break
            data += chunk
        return bytes(data)
    finally:
        os.close(descriptor)


def _await_bytes(descriptor: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError


def _parse(draft: Draft, file: str, text: str) -> None:
    try:
        draft.raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        draft.complain(*_syntax_problem(file, text, str(error)))
    except (ValueError, RecursionError) as error:
        # Numbers of thousands of digits, thousands of brackets: tomllib lets through what Python says.
        draft.complain(file, f"the file cannot be read as TOML: {error}")
    else:
        draft.origins.update({path: f"{file}:{line}" for path, line in key_lines(text).items()})
        draft.origins.setdefault((), file)


_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def _syntax_problem(file: str, text: str, message: str) -> tuple[str, str]:
    """Turn tomllib's message into where and what; without a line it means the end of the file."""
    position = _POSITION.search(message)
    line = position[1] if position and position[1] else text.rstrip().count("\n") + 1
    lines = text.split("\n")
    meant = quotes_meant(lines[int(line) - 1]) if int(line) <= len(lines) else None
    hint = "" if meant is None else f"; text stands in quotes, did you mean: {meant}"
    return f"{file}:{line}", _POSITION.sub("", message) + hint
