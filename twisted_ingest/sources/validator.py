"""
What of an answer says which version of a document it was, and when to come again.

Pure. All of it is a server's word: what is sent back to it is held against the grammar first.
"""

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import NamedTuple, Self

LONGEST_ETAG = 1024
"""Bytes of an entity tag that is kept; those of real servers take some sixty."""

_ETAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')  # RFC 9110, 8.8.3

_DATE = re.compile(rb"[A-Za-z0-9,: +-]{1,64}")

_SECONDS = re.compile(rb"[0-9]{1,9}")

First = Callable[[bytes], bytes | None]
"""Gives the first value of a header by its name."""


class Validator(NamedTuple):
    """Which version of a document we have: what is asked for is another."""

    etag: bytes | None = None
    modified: bytes | None = None
    """As the server wrote it: RFC 9110, 13.1.3, has it sent back so."""

    @classmethod
    def read(cls, first: First) -> Self:
        """Take it from an answer; what no server that keeps to the rules sends is left out."""
        etag, modified = first(b"ETag"), first(b"Last-Modified")
        if etag is not None and (len(etag) > LONGEST_ETAG or not _ETAG.fullmatch(etag)):
            etag = None
        if modified is not None and not _DATE.fullmatch(modified):
            modified = None
        return cls(etag, modified)

    def headers(self) -> dict[bytes, bytes]:
        """Give what makes a request conditional."""
        found = {b"If-None-Match": self.etag, b"If-Modified-Since": self.modified}
        return {name: value for name, value in found.items() if value is not None}


def retry_after(value: bytes | None, now: float) -> float | None:
    """Read ``Retry-After``, in seconds or as a date, ``now`` in Unix seconds; ``None`` where it says nothing."""
    if value is None:
        return None
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value.decode("ascii")).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
