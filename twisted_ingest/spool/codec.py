"""
What lies on the disk: the header of a segment, and a frame for each batch.

Pure. A frame's head has a checksum of its own, over length, sequence number and the body's checksum: a length that was
damaged is noticed before anything is read by it. Every frame begins with its segment's marker, eight random bytes that
no sender can know, so that a frame forged inside a log line is never taken for one of ours when a damaged region is
searched for the next frame.
"""

import struct
from dataclasses import dataclass
from zlib import crc32

from twisted_ingest.batch import Batch, ConnectionInfo

MAGIC = b"INGSPOOL"
VERSION = 1

MARKER_SIZE = 8

MAX_BODY = 256 * 1024 * 1024
"""Bytes. Far above any batch (a connection's share of memory bounds it): a longer length is damage, and not read by."""

MAX_SEQUENCE = 1 << 62
"""Far above any number that a frame is ever given: a higher one is damage, and those that follow it fit the format."""

MAX_NUMBER = 10**18
"""The same for the numbers of segments."""

_SEGMENT = struct.Struct(">8sHxxQQ8s")
_HEAD = struct.Struct(">8sIQII")
_CHECK = struct.Struct(">I")
_META = struct.Struct(">dIBcQHHH")

SEGMENT_SIZE = _SEGMENT.size + _CHECK.size
HEAD_SIZE = _HEAD.size + _CHECK.size

_PARTIAL, _TRUNCATED = 1, 2
_NO_HOST = 0xFFFF


class DamagedError(Exception):
    """The bytes are not what was written."""


class ForeignError(Exception):
    """The bytes are whole, and in a format this version does not read."""


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
    """The beginning of a frame: the body's ``length`` in bytes, its number, and how many records it holds."""

    length: int
    sequence: int
    count: int
    check: int


def encode_header(header: Header) -> bytes:
    """Write a segment's header."""
    data = _SEGMENT.pack(MAGIC, VERSION, header.number, header.first, header.marker)
    return data + _CHECK.pack(crc32(data))


def decode_header(data: bytes) -> Header:
    """Read a segment's header; raises `DamagedError`, or `ForeignError` for a version that is not ours."""
    if len(data) < SEGMENT_SIZE or crc32(data[: _SEGMENT.size]) != _CHECK.unpack_from(data, _SEGMENT.size)[0]:
        raise DamagedError
    magic, version, number, first, marker = _SEGMENT.unpack_from(data)
    if magic != MAGIC:
        raise DamagedError
    if version != VERSION:
        raise ForeignError(f"format {version}; this version reads format {VERSION}")
    if number > MAX_NUMBER or first > MAX_SEQUENCE:
        raise DamagedError
    return Header(number, first, marker)


def encode_frame(marker: bytes, sequence: int, batch: Batch) -> bytes:
    """Write a batch as a frame."""
    meta = _encode_meta(batch)
    body_check = crc32(batch.wire, crc32(meta))
    head = _HEAD.pack(marker, len(meta) + batch.size, sequence, batch.count, body_check)
    # Joined: one buffer is one frame for whoever writes it, and a copy costs less than two buffers do.
    return b"".join((head, _CHECK.pack(crc32(head)), meta, batch.wire))


def _encode_meta(batch: Batch) -> bytes:
    info = batch.info
    # A lone surrogate, as in a name the operating system gave us, has to come back as it was.
    listener, peer, host = (
        (text or "").encode("utf-8", "surrogatepass") for text in (info.listener, info.peer, info.host)
    )
    flags = _PARTIAL * batch.partial | _TRUNCATED * batch.truncated
    host_length = _NO_HOST if info.host is None else len(host)
    sizes = (len(listener), len(peer), host_length)
    fixed = _META.pack(batch.received_at, batch.count, flags, batch.delimiter, info.id, *sizes)
    return fixed + listener + peer + host


def decode_head(data: bytes | memoryview, marker: bytes) -> Head:
    """Read a frame's head; raises `DamagedError`."""
    if len(data) < HEAD_SIZE or crc32(data[: _HEAD.size]) != _CHECK.unpack_from(data, _HEAD.size)[0]:
        raise DamagedError
    found, length, sequence, count, check = _HEAD.unpack_from(data)
    if found != marker or length > MAX_BODY or sequence > MAX_SEQUENCE:
        raise DamagedError
    return Head(length, sequence, count, check)


def sequence_of(frame: bytes | memoryview) -> int:
    """Give the sequence number of a frame that was made by `encode_frame`."""
    return int(_HEAD.unpack_from(frame)[2])


def count_of(frame: bytes | memoryview) -> int:
    """Give the number of records of a frame that was made by `encode_frame`."""
    return int(_HEAD.unpack_from(frame)[3])


def is_whole(head: Head, body: bytes) -> bool:
    """Whether a frame's body is what was written."""
    return len(body) == head.length and crc32(body) == head.check


def decode_body(body: bytes) -> Batch:
    """Read the batch of a whole body; raises `DamagedError` for one that we could not have written."""
    try:
        return _decode_batch(body)
    except (struct.error, UnicodeDecodeError) as error:
        raise DamagedError from error


def _decode_batch(body: bytes) -> Batch:
    received_at, count, flags, delimiter, number, *sizes = _META.unpack_from(body)
    texts: list[str | None] = []
    at = _META.size
    for size in sizes:
        if size == _NO_HOST:
            texts.append(None)
        else:
            texts.append(body[at : at + size].decode("utf-8", "surrogatepass"))
            at += size
    listener, peer, host = texts
    if listener is None or peer is None:
        raise DamagedError
    info = ConnectionInfo(number, listener, peer, host)
    partial, truncated = bool(flags & _PARTIAL), bool(flags & _TRUNCATED)
    return Batch(body[at:], count, info, received_at, delimiter, partial=partial, truncated=truncated)
