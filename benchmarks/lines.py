"""
The lines that are sent and expected, each a function of its connection and number alone.

The same as ``line.h``, for a machine without a compiler; the filler itself is made here for both.
"""

import random

HEAD = b"<14>1 - - load - - - "
CONNECTION_AT = len(HEAD)
NUMBER_AT = CONNECTION_AT + 6
FILLER_AT = NUMBER_AT + 10
STARTS = LONGEST = 65536
MIXTURE = (96, 104, 112, 120, 128, 136, 144, 152, 160, 176, 192, 208, 240, 288, 400, 864)
MIXED_MEAN = 220
"""Octets of a mixed line on average, its LF included."""

_TEXT = r"""GET POST PUT /orders /orders/1771 /login /assets/site.css 200 201 301 404 500 "timed out" "checked out"
    user=maria user=chen job=nightly queue=mail C:\spool 10.1.4.20 fe80::1 took=12ms took=4031ms ok retry="3" [pid 77]
    accepted refused disk=/dev/sda1 kernel: usb 1-2 error warning notice"""


def make_filler() -> bytes:
    """Make text that looks like logs, quotes and backslashes included; always the same."""
    source = random.Random(1)  # noqa: S311 - no secret
    words, text = _TEXT.encode().split(), bytearray()
    while len(text) < STARTS + LONGEST:
        text += source.choice(words) + b" "
    return bytes(text[: STARTS + LONGEST])


def line(filler: bytes, connection: int, number: int, size: int) -> bytes:
    """Make a line without its LF; ``size`` counts it, and 0 means mixed lengths."""
    spread = (connection * 2654435761 + number * 2246822519) & 0xFFFFFFFF
    spread = ((spread ^ spread >> 15) * 739982445) & 0xFFFFFFFF
    spread ^= spread >> 12
    length = size or MIXTURE[spread & 15] + (spread >> 4) % 17 - 8
    start = spread >> 16
    return b"%b%05d %09d %b." % (HEAD, connection, number, filler[start : start + length - FILLER_AT - 2])
