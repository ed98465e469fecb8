"""
How the beginning of a stream is recognised, byte by byte.

A `Prefix` says whether a stream begins so: ``True``, ``False``, or ``None`` while it may. Having said one of the
first two it says the same however many bytes follow, so that no cut of the stream matters.
"""

import re
from collections.abc import Callable

Prefix = Callable[[bytes], bool | None]

# What no text holds: bell, white space, backspace and escape are not among it.
_CONTROL = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")
_END = re.compile(rb"[\n\0]")


def positions(*allowed: bytes) -> Prefix:
    """Recognise for each position one of the bytes that may stand there."""

    def matches(head: bytes) -> bool | None:
        for code, some in zip(head, allowed, strict=False):
            if code not in some:
                return False
        return True if len(head) >= len(allowed) else None

    return matches


def text(wanted: bytes, *more: bytes) -> Prefix:
    """Recognise a text, and for each position behind it one of the bytes that may stand there."""
    return positions(*(wanted[at : at + 1] for at in range(len(wanted))), *more)


def line(whole: re.Pattern[bytes], begun: re.Pattern[bytes], most_bytes: int) -> Prefix:
    """
    Recognise a whole line, its LF included.

    ``begun`` must match, to the end, every beginning of such a line. A longer one than ``most_bytes`` is none.
    """

    def matches(head: bytes) -> bool | None:
        if b"\n" in head:
            return whole.match(head) is not None
        return None if len(head) < most_bytes and begun.fullmatch(head) else False

    return matches


def no_text(wanted: bytes, most_bytes: int) -> Prefix:
    """Recognise a text followed, within ``most_bytes`` of its record, by what is not UTF-8 or no text at all."""
    begins = text(wanted)

    def matches(head: bytes) -> bool | None:
        found = begins(head)
        if not found:
            return found
        rest = head[:most_bytes]
        end = _END.search(rest)
        if _is_broken(rest[: end.start()] if end else rest, is_whole=end is not None):
            return True
        return None if end is None and len(head) < most_bytes else False

    return matches


def _is_broken(data: bytes, *, is_whole: bool) -> bool:
    """Whether bytes are certain to be no UTF-8 text; a character cut off at the end counts only if all have come."""
    if _CONTROL.search(data):
        return True
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return is_whole or error.reason != "unexpected end of data"
    return False
