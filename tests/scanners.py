"""Framers as they are where no C scanner was built, and what the scanner ought to find, said in Python."""

import re
from typing import Any, TypeVar, cast

from twisted_ingest.batch import LF
from twisted_ingest.framing.base import Framer
from twisted_ingest.framing.octets import payload
from twisted_ingest.framing.scan import Chunk, no_frames, no_lines, no_records

F = TypeVar("F", bound=Framer)

BOM = b"\xef\xbb\xbf"
ODD = re.compile(rb" {1,8}<|\xef\xbb\xbf<|[1-9][0-9]{0,6} (?:\xef\xbb\xbf)?<[0-9]{1,3}>")
COUNT = {
    True: re.compile(rb"([1-9][0-9]{0,6}) (?=<[0-9]{1,3}>)"),
    False: re.compile(rb"\n?([1-9][0-9]{0,6}) (?!\xef)"),
}
RELP = re.compile(rb"([0-9]{1,9}) syslog ([0-9]{1,9}) ")
SUSPECT = re.compile(rb"(?s)^..*[ \xbf]<")
"""What looks like the header of another frame, behind a record's own beginning."""


def without_scanner(kind: type[F]) -> type[F]:
    """Give a framer that looks at everything itself."""
    nothing = {"_lines_in": no_lines, "_frames_in": no_frames, "_records_in": no_records}
    found = {name: staticmethod(cast("Any", find)) for name, find in nothing.items()}
    return type(f"Plain{kind.__name__}", (kind,), {"__slots__": (), **found})


def both(kind: type[F]) -> tuple[type[F], type[F]]:
    """Give a framer with the scanner and without."""
    return kind, without_scanner(kind)


def lines(partial: bytes | bytearray, data: Chunk, position: int, limit: int, evidence: bool) -> tuple[bytes, int, int]:
    """Find ordinary lines, one at a time."""
    found: list[bytes] = []
    data, begin = bytes(data), position
    while (end := data.find(LF, position)) >= 0:
        line = (b"" if found else bytes(partial)) + data[position:end]
        odd = not line or len(line) > limit or line.endswith(b"\r")
        if odd or (evidence and (b"\0" in line or ODD.match(line))):
            break
        found.append(line + LF)
        position = end + 1
    return b"".join(found), len(found), position if found else begin


def frames(data: bytes, position: int, limit: int, evidence: bool) -> tuple[bytes, int, int]:
    """Find ordinary frames, one at a time."""
    found = []
    while header := COUNT[evidence].match(data, position):
        end = header.end() + int(header[1])
        record = payload(data[header.end() : end])
        if int(header[1]) > limit or end > len(data) or not record or LF in record:
            break
        if evidence and (b"\0" in record or SUSPECT.search(record)):
            break
        found.append(record + LF)
        position = end
    return b"".join(found), len(found), position


def records(data: bytes, position: int, expected: int, last: int, limit: int) -> tuple[bytes, int, int]:
    """Find ordinary frames of RELP, one at a time."""
    found = []
    while expected < last and (header := RELP.match(data, position)):
        end = header.end() + int(header[2])
        record = payload(data[header.end() : end])
        is_odd = int(header[1]) != expected or int(header[2]) > limit or not record or LF in record
        if is_odd or data[end : end + 1] != LF or data[header.end()] == BOM[0]:
            break
        found.append(record + LF)
        position = end + 1
        expected += 1
    return b"".join(found), len(found), position
