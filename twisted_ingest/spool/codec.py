"""
What lies on the disk: the header of a segment, and a frame for each batch.

Pure. A frame's head has a checksum of its own, over format, length, sequence number and the body's checksum: a length
that was damaged is noticed before anything is read by it. Every frame begins with its segment's marker, eight random
bytes that no sender can know, so that a frame forged inside a log line is never taken for one of ours when a damaged
region is searched for the next frame.
"""

import struct
from dataclasses import dataclass
from zlib import crc32

from twisted_ingest.batch import Batch
from twisted_ingest.spool.body import FORMAT, DamagedError, ForeignError, encode_meta

MAGIC = b"INGSPOOL"

_READ = f"this version reads formats 1 to {FORMAT}"

MARKER_SIZE = 8

_LENGTH_BITS = 28
"""Of the four bytes that hold a frame's format and the length of its body; the bits above are the format."""

MAX_BODY = (1 << _LENGTH_BITS) - 1
"""Bytes. Far above any batch, for a connection's share of memory bounds it."""

MAX_SEQUENCE = 1 << 62
"""Far above any number that a frame is ever given: a higher one is damage, and those that follow it fit the format."""

MAX_NUMBER = 10**18
"""The same for the numbers of segments."""

_SEGMENT = struct.Struct(">8sHxxQQ8s")
_HEAD = struct.Struct(">8sIQII")
_CHECK = struct.Struct(">I")

SEGMENT_SIZE = _SEGMENT.size + _CHECK.size
HEAD_SIZE = _HEAD.size + _CHECK.size


@dataclass(frozen=True, slots=True)
class Header:
    """
    The beginning of a segment.

    ``number`` orders segments. ``first`` is the sequence number of the first frame: frames of earlier segments with
    that number or a higher one are copies whose sync failed, and this segment has the ones that count.
    """

    number: int
    first: int
    marker: bytes


@dataclass(slots=True)
class Head:
    """The beginning of a frame: its format, its body's ``length`` in bytes, its number, how many records it holds."""

    format: int
    length: int
    sequence: int
    count: int
    check: int


def encode_header(header: Header) -> bytes:
    """Write a segment's header."""
    data = _SEGMENT.pack(MAGIC, FORMAT, header.number, header.first, header.marker)
    return data + _CHECK.pack(crc32(data))


def decode_header(data: bytes) -> Header:
    """Read a segment's header; raises `DamagedError`, or `ForeignError` for a format that we do not read."""
    if len(data) < SEGMENT_SIZE or crc32(data[: _SEGMENT.size]) != _CHECK.unpack_from(data, _SEGMENT.size)[0]:
        raise DamagedError
    magic, version, number, first, marker = _SEGMENT.unpack_from(data)
    if magic != MAGIC:
        raise DamagedError
    if not 1 <= version <= FORMAT:
        raise ForeignError(f"format {version}, and {_READ}")
    if number > MAX_NUMBER or first > MAX_SEQUENCE:
        raise DamagedError
    return Header(number, first, marker)


def encode_frame(marker: bytes, sequence: int, batch: Batch) -> bytes:
    """Write a batch as a frame."""
    meta = encode_meta(batch)
    length = len(meta) + batch.size
    if length > MAX_BODY:
        raise OverflowError(f"a batch of {length} B fits in no frame")
    body_check = crc32(batch.wire, crc32(meta))
    head = _HEAD.pack(marker, FORMAT << _LENGTH_BITS | length, sequence, batch.count, body_check)
    # Joined: one buffer is one frame for whoever writes it, and a copy costs less than two buffers do.
    return b"".join((head, _CHECK.pack(crc32(head)), meta, batch.wire))


def decode_head(data: bytes | memoryview, marker: bytes) -> Head:
    """Read a frame's head; raises `DamagedError`, or `ForeignError` for a format that we do not read."""
    if len(data) < HEAD_SIZE or crc32(data[: _HEAD.size]) != _CHECK.unpack_from(data, _HEAD.size)[0]:
        raise DamagedError
    found, length, sequence, count, check = _HEAD.unpack_from(data)
    if found != marker or sequence > MAX_SEQUENCE:
        raise DamagedError
    format_ = length >> _LENGTH_BITS
    if format_ > FORMAT:
        raise ForeignError(f"frames of format {format_}, and {_READ}")
    if format_ == 1:
        raise DamagedError
    # Frames of format 1 had no place for it.
    return Head(format_ or 1, length & MAX_BODY, sequence, count, check)


def sequence_of(frame: bytes | memoryview) -> int:
    """Give the sequence number of a frame that was made by `encode_frame`."""
    return int(_HEAD.unpack_from(frame)[2])


def count_of(frame: bytes | memoryview) -> int:
    """Give the number of records of a frame that was made by `encode_frame`."""
    return int(_HEAD.unpack_from(frame)[3])


def is_whole(head: Head, body: bytes) -> bool:
    """Whether a frame's body is what was written."""
    return len(body) == head.length and crc32(body) == head.check
