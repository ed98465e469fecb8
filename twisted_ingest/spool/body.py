"""
The body of a frame: one batch, in a shape that outlives versions.

Pure. A fixed part and the connection's names are followed by fields, each a tag, a length and bytes, and then by the
records. What a later version has to say of a batch is a field more: a reader that does not know it passes it by, unless
the tag says that the batch would be misread without it. Format 1 had no fields; it is read, and not written any more.
"""

import contextlib
import struct
from functools import lru_cache
from typing import Self

from twisted_ingest.batch import Batch, ConnectionInfo

FORMAT = 2
"""What is written; what is read is this one and every one before it."""

REQUIRED = 0x8000
"""The bit of a tag that says: whoever does not know this field must not read the batch."""

_FIXED_1 = struct.Struct(">dIBcQHHH")
_FIXED = struct.Struct(">dIBcQHHHI")
_FIELD = struct.Struct(">HI")

CONNECTIONS_KEPT = 256
"""Connections whose names are kept as they were last written, and read: the batches of one have the same."""

MAX_KEPT = 1024
"""Bytes of names and fields that are kept for a connection; of such as have more none are."""

_PARTIAL, _TRUNCATED = 1, 2
_NO_HOST = 0xFFFF

_TEXTS = {1: "local", 2: "proxy", 3: "identity"}
"""What each tag holds: an attribute of the connection, as text."""


class DamagedError(Exception):
    """The bytes are not what was written."""


class ForeignError(Exception):
    """The bytes are whole, and a later version has written them: this one would misread them."""

    @classmethod
    def of(cls, segment: str, error: "ForeignError") -> Self:
        """Say in which segment that was, and what to do."""
        return cls(f"{segment} has {error}: start the version that wrote it, and let that one deliver what waits")


def encode_meta(batch: Batch) -> bytes:
    """Write everything of a body that stands before the records."""
    number, sizes, names = _encode_connection(batch.info)
    flags = _PARTIAL * batch.partial | _TRUNCATED * batch.truncated
    return _FIXED.pack(batch.received_at, batch.count, flags, batch.delimiter, number, *sizes) + names


@lru_cache(CONNECTIONS_KEPT)
def _encode_connection(info: ConnectionInfo) -> tuple[int, tuple[int, int, int, int], bytes]:
    """Write what is the same for all batches of a connection: its number, the sizes of what follows, and that."""
    listener, peer, host = (_encode_text(text or "") for text in (info.listener, info.peer, info.host))
    texts = {tag: getattr(info, name) for tag, name in _TEXTS.items()}
    encoded = {tag: _encode_text(text) for tag, text in texts.items() if text is not None}
    fields = b"".join(_FIELD.pack(tag, len(data)) + data for tag, data in encoded.items())
    sizes = (len(listener), len(peer), _NO_HOST if info.host is None else len(host), len(fields))
    return info.id, sizes, listener + peer + host + fields


def _encode_text(text: str) -> bytes:
    # A lone surrogate, as in a name the operating system gave us, has to come back as it was.
    return text.encode("utf-8", "surrogatepass")


def decode_body(body: bytes, format: int) -> Batch:  # noqa: A002
    """
    Read the batch of a whole body. Fields that this version does not know, and may pass by, are lost.

    Raises `DamagedError` for a body that nobody could have written, and `ForeignError` as `refuse_unknown` does.
    """
    try:
        return _decode_1(body) if format == 1 else _decode(body)
    except (struct.error, UnicodeDecodeError) as error:
        raise DamagedError from error


def refuse_unknown(body: bytes, format: int) -> None:  # noqa: A002
    """Raise `ForeignError` where a whole body has a field that must be known, and is not."""
    if format == 1:
        return
    with contextlib.suppress(struct.error, DamagedError):  # whoever wants the batch will be told
        *_, listener, peer, host, fields = _FIXED.unpack_from(body)
        if fields:
            start = _names_end(_FIXED.size, listener, peer, host)
            _known_fields(body[start : start + fields])


def _decode_1(body: bytes) -> Batch:
    received_at, count, flags, delimiter, number, listener, peer, host = _FIXED_1.unpack_from(body)
    end = _names_end(_FIXED_1.size, listener, peer, host)
    if end > len(body):
        raise DamagedError
    info = _connection(number, listener, peer, host, 0, body[_FIXED_1.size : end])
    partial, truncated = bool(flags & _PARTIAL), bool(flags & _TRUNCATED)
    return Batch(body[end:], count, info, received_at, delimiter, partial=partial, truncated=truncated)


def _decode(body: bytes) -> Batch:
    received_at, count, flags, delimiter, number, listener, peer, host, fields = _FIXED.unpack_from(body)
    end = _names_end(_FIXED.size, listener, peer, host) + fields
    if end > len(body):
        raise DamagedError
    info = _connection(number, listener, peer, host, fields, body[_FIXED.size : end])
    partial, truncated = bool(flags & _PARTIAL), bool(flags & _TRUNCATED)
    return Batch(body[end:], count, info, received_at, delimiter, partial=partial, truncated=truncated)


def _names_end(at: int, listener: int, peer: int, host: int) -> int:
    return at + listener + peer + (0 if host == _NO_HOST else host)


def _connection(number: int, listener: int, peer: int, host: int, fields: int, data: bytes) -> ConnectionInfo:  # noqa: PLR0917
    decode = _decode_connection if len(data) <= MAX_KEPT else _decode_connection.__wrapped__
    return decode(number, listener, peer, host, fields, data)


@lru_cache(CONNECTIONS_KEPT)
def _decode_connection(  # noqa: PLR0917
    number: int, listener: int, peer: int, host: int, fields: int, data: bytes
) -> ConnectionInfo:
    """Read what `_encode_connection` wrote, by its sizes."""
    at_host = listener + peer
    at_fields = len(data) - fields
    name = None if host == _NO_HOST else _decode_text(data[at_host:at_fields])
    texts = {_TEXTS[tag]: _decode_text(value) for tag, value in _known_fields(data[at_fields:]).items()}
    return ConnectionInfo(number, _decode_text(data[:listener]), _decode_text(data[listener:at_host]), name, **texts)


def _decode_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _known_fields(data: bytes) -> dict[int, bytes]:
    """Read the fields that this version knows, by their tags."""
    fields: dict[int, bytes] = {}
    tags = set()
    at = 0
    while at < len(data):
        tag, length = _FIELD.unpack_from(data, at)
        start, at = at + _FIELD.size, at + _FIELD.size + length
        if at > len(data) or tag in tags:
            raise DamagedError
        tags.add(tag)
        if tag in _TEXTS:
            fields[tag] = data[start:at]
        elif tag & REQUIRED:
            raise ForeignError(f"a field {tag:#06x} that must not be passed by, and this version does not know it")
    return fields
