"""
How records begin, and how counted frames follow each other: the evidence that `auto` decides by.

Pure. Decided by prefixes: whatever more bytes follow, an answer once given stays, so that no cut of the stream
changes it.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

LF = b"\n"
BOM = b"\xef\xbb\xbf"

_HEADER = rb"([1-9][0-9]{0,6}) (?=(?:\xef\xbb\xbf)?<[0-9]{1,3}>)"

COUNTED = re.compile(_HEADER)
"""Evidence for a counted frame (RFC 6587 section 3.4.1) among lines: a count without leading zero, and a priority
behind it. A line that begins with a date or a status code has none."""

ANY_COUNTED = re.compile(rb"\n?([1-9][0-9]{0,6}) ")
"""The same where nothing but counted frames may come: the count alone, behind one LF at most."""

PADDING = re.compile(rb"\0+| {1,8}(?=<[0-9]{1,3}>)|\xef\xbb\xbf(?=<[0-9]{1,3}>)")
"""What stands before a record and belongs to none: NUL behind LF (Log4j), blanks (Cisco) or a BOM before a priority."""

NUL_ENDED = re.compile(rb"<[0-9]{1,3}>|\{")
"""How records begin that some clients end with NUL: Python's `SysLogHandler`, GELF."""

NUL_END = re.compile(rb"\0(?=<[0-9]{1,3}>|\{)")
"""A NUL that ends a record of any kind: another one begins behind it."""

LINE_END = {b"<": re.compile(rb"\n(?=<[0-9]{1,3}>)"), b"{": re.compile(rb"\n(?=\{)")}
"""An LF that ends a record which NUL was expected to end, by how it began: another one of its kind begins behind it."""

PADDED = re.compile(rb"(?:^|\n)(?: {1,8}|\xef\xbb\xbf)<")
"""Where padding may stand before a record in a block of lines."""

# The beginnings of all of the above that could still go on either way.
_UNDECIDED = re.compile(
    rb" {1,8}(?:<[0-9]{0,3})?|\xef(?:\xbb(?:\xbf(?:<[0-9]{0,3})?)?)?|<[0-9]{0,3}"
    rb"|[1-9][0-9]{0,6}(?: (?:\xef(?:\xbb\xbf?)?)?(?:<[0-9]{0,3})?)?"
)
_UNDECIDED_COUNT = re.compile(rb"\n?(?:[1-9][0-9]{0,6})?")
UNDECIDED_BYTES = 16
"""The longest of them: seven digits, a blank, a BOM, ``<`` and three digits."""

_LINK = re.compile(rb"\n?" + _HEADER)
_NO_LINK_YET = re.compile(rb"\n?(?:[1-9][0-9]{0,6}(?: (?:\xef(?:\xbb\xbf?)?)?(?:<[0-9]{0,3})?)?)?")
_PRIORITY = re.compile(rb" (?:\xef\xbb\xbf)?<[0-9]{1,3}>")
_MARKED = b" " + BOM + b"<"
_DIGITS = re.compile(rb"[0-9]{1,7}\Z")
_BREAKS = re.compile(rb"[\n\0]")

MOST_CLAIMS = 64
"""Headers weighed against each other at a time. An honest stream has two unlinked frames at hand, of up to seven each
(every ending of a run of digits counts); the rest is for what damage may look like."""

FEW_CLAIMS = 8
"""Headers after which it is looked whether one is confirmed already; then after twice as many each time. Dense frames
would cost `MOST_CLAIMS` each otherwise."""


def is_undecided(tail: bytes | bytearray) -> bool:
    """Whether the beginning of a record does not show yet what kind of record it is."""
    return len(tail) < UNDECIDED_BYTES and _UNDECIDED.fullmatch(tail) is not None


def counted_is_undecided(tail: bytes | bytearray) -> bool:
    """Whether the beginning of a counted frame does not show yet how long it is."""
    return _UNDECIDED_COUNT.fullmatch(tail) is not None


class Claim(NamedTuple):
    """A header of a counted frame, and what it says: the frame begins at ``start`` and the next thing at ``end``."""

    begin: int
    start: int
    end: int
    known_at: int
    """How many bytes it takes to see the header."""


class Link(NamedTuple):
    """A claim whose frame ends where another header begins; ordered by when that was seen, then by where it began."""

    known_at: int
    begin: int
    start: int
    end: int


def headers(data: bytes, begin: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Find headers of counted frames between two places; gives of each where digits, blank and record begin and end."""
    blank = begin - 1
    plain = marked = begin - 1
    while True:
        # Each is looked for again only once it is passed, and not at all where there is none: linear in all.
        if plain == blank:
            plain = _or_stop(data.find(b" <", blank + 1, stop), stop)
        if marked == blank:
            marked = _or_stop(data.find(_MARKED, blank + 1, stop), stop)
        blank = min(plain, marked)
        if blank == stop:
            return
        found = _PRIORITY.match(data, blank, stop)
        digits = _DIGITS.search(data, max(begin, blank - 7), blank) if found is not None else None
        if found is not None and digits is not None:
            yield digits.start(), blank, found.end()


def _or_stop(found: int, stop: int) -> int:
    return found if found >= 0 else stop


def claims(data: bytes, begin: int, stop: int, longest: int, weighed_to: int = 0) -> list[Claim]:
    """
    Give what the headers between two places claim, `MOST_CLAIMS` and one at most; none is longer than ``longest``.

    Every ending of a run of digits counts, since digits may stand before a count: ``pid=71`` and ``30 <13>``. With
    ``weighed_to``, where the data ends by which they will be weighed, those may be left out that come too late to be
    confirmed first.
    """
    found: list[Claim] = []
    look_at = FEW_CLAIMS if weighed_to else MOST_CLAIMS + 1
    for first, blank, end in headers(data, begin, stop):
        for at in range(first, blank):
            count = int(data[at:blank]) if data[at : at + 1] != b"0" else 0
            if 0 < count <= longest:
                found.append(Claim(at, blank + 1, blank + 1 + count, end))
        if len(found) > MOST_CLAIMS:
            break
        if len(found) >= look_at:
            link = first_link(data, (claim for claim in found if claim.end < end), weighed_to)
            if link is not None and link.known_at <= end:
                break
            look_at *= 2
    return found[: MOST_CLAIMS + 1]


class Fate(NamedTuple):
    """How many bytes it takes to see that a frame leads to another, and to see that it does not; 0 for never."""

    linked_at: int
    dead_at: int


OPEN = Fate(0, 0)
"""Both may come yet."""


def link_at(data: bytes, end: int, stop: int) -> Fate:
    """Look whether another header begins where a frame ends, one LF between them at most."""
    if end >= stop:
        return OPEN
    found = _LINK.match(data, end, stop)
    if found is not None:
        return Fate(data.index(b">", found.end(), stop) + 1, 0)
    reached = _NO_LINK_YET.match(data, end, stop)
    open_to = reached.end() if reached is not None else end
    return Fate(0, open_to + 1) if open_to < stop else OPEN


def chain_at(data: bytes, claim: Claim, stop: int) -> Fate:
    """
    Do the same for a frame that was not expected where it is.

    What begins or leads into the middle of a run of digits, or over an LF, may do so by chance: the header there must
    lead to another one in its turn.
    """
    fate = link_at(data, claim.end, stop)
    is_plain = data[claim.end : claim.end + 1] != LF and not data[claim.end - 1 : claim.end].isdigit()
    if not fate.linked_at or (is_plain and not data[claim.begin - 1 : claim.begin].isdigit()):
        return fate
    found = _LINK.match(data, claim.end, stop)
    return link_at(data, found.end() + int(found[1]), stop) if found is not None else fate


def open_until(data: bytes, claim: Claim, stop: int) -> int:
    """Give from how many bytes on more may be known of a claim; 0 where all is."""
    if chain_at(data, claim, stop) != OPEN:
        return 0
    found = _LINK.match(data, claim.end, stop) if link_at(data, claim.end, stop).linked_at else None
    end = claim.end if found is None else found.end() + int(found[1])
    return max(end, stop + 1)


def first_link(data: bytes, of: Iterable[Claim], stop: int) -> Link | None:
    """Give the claim, of those that were not expected, that is confirmed first, if one is."""
    first: Link | None = None
    for claim in of:
        # They come in the order they are seen in, and none is confirmed before it is seen.
        if first is not None and claim.known_at >= first.known_at:
            break
        at = chain_at(data, claim, stop).linked_at
        if at:
            link = Link(at, claim.begin, claim.start, claim.end)
            first = link if first is None else min(first, link)
    return first


def breaks_at(data: bytes, start: int, end: int, seen: int) -> int:
    """Find the first LF or NUL in a frame that is not its trailer, or -1; ``seen`` is how far it has come."""
    found = _BREAKS.search(data, start, min(seen, end - 1))
    return found.start() if found is not None else -1
