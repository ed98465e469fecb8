"""
What the first bytes of a connection are evidence of.

Pure, and decided by prefixes: whatever more bytes follow, a verdict once given stays, so that no cut of the stream
changes it.
"""

import re

from twisted_ingest.framing.prefixes import Prefix
from twisted_ingest.framing.signatures import HEAD_BYTES, PLAIN, SIGNATURES, Signature

RELP_HEADER = re.compile(rb"([0-9]{1,9}) ([A-Za-z]{1,32}) ([0-9]{1,9})([ \n])")
"""How a RELP frame begins: number, command, length; LF right behind the length where it is zero."""

_UNDECIDED_RELP = re.compile(rb"[0-9]{1,9}(?: (?:[A-Za-z]{1,32}(?: (?:[0-9]{1,9})?)?)?)?")


def relp_is_undecided(tail: bytes | bytearray) -> bool:
    """Whether the beginning of a RELP frame may become a header yet."""
    return _UNDECIDED_RELP.fullmatch(tail) is not None


def _possible(first: int) -> tuple[tuple[Signature, Prefix], ...]:
    """Give what a stream may turn out to be that begins with this byte."""
    head = bytes((first,))
    return tuple(
        (signature, begins) for signature in SIGNATURES for begins in signature.prefixes if begins(head) is not False
    )


_BY_FIRST = tuple(_possible(first) for first in range(0x100))


def diagnose(data: bytes) -> tuple[Signature | None, bool]:
    """
    Say which protocol that is not ours a connection begins with, if any, and whether that is certain.

    ``(None, False)`` asks for more bytes; it is never asked past ``HEAD_BYTES``.
    """
    if not data:
        return None, False
    head = data[:HEAD_BYTES]
    for signature, begins in _BY_FIRST[head[0]]:
        verdict = begins(head)
        if verdict is not False:
            # While an earlier one may still match, a later one that does must wait, or cuts would show.
            return (signature, True) if verdict else (None, False)
    return None, True


def diagnose_relp(data: bytes) -> tuple[Signature | None, bool]:
    """Do the same for a connection that ought to begin with a RELP frame: whatever does not is named something."""
    if RELP_HEADER.match(data) is not None:
        return None, True
    if relp_is_undecided(data):
        return None, False
    found, is_certain = diagnose(data)
    return (found or PLAIN, True) if is_certain else (None, False)


# A control character after three others at most. What is held until then is a whole record in no framing, because none
# of those ends a record or a count.
_NO_TEXT = re.compile(rb"\0{0,7}[!-\x7e\x80-\xff]{0,3}[\x01-\x06\x0e-\x1a\x1c-\x1f\x7f]")
_MAYBE_TEXT = re.compile(rb"\0{0,7}[!-\x7e\x80-\xff]{0,3}")

_ENDED = re.compile(rb"[\r\n\0]*[^\r\n\0][^\n\0]*[\n\0]")

# A priority behind a record that began with one; an object behind one (log4js writes a word of its own between them).
_RUN_TOGETHER = re.compile(rb"(?s)<[0-9]{1,3}>.*?<[0-9]{1,3}>|\{.*?\}(?:\s*|__LOG4JS__)\{")


def no_text_begins(data: bytes) -> bool | None:
    """Say whether the first bytes of a connection belong to no text; ``None`` asks for more."""
    if _NO_TEXT.match(data):
        return True
    return None if _MAYBE_TEXT.fullmatch(data) else False


def may_hold_record(head: bytes) -> bool:
    """Whether the first bytes of a connection may hold a whole record that is not empty."""
    return _ENDED.match(head) is not None


def is_run_together(partial: bytes | bytearray) -> bool:
    """Whether a record without an end looks like several, whose sender ends them with nothing."""
    return _RUN_TOGETHER.match(partial) is not None
