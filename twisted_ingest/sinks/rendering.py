r"""
The two forms of a record on a sink's line: the bytes as they came, or one JSON object.

Pure. JSON is made of a whole block at a time: what stands around the messages of a batch is the same for all of them,
so that the delimiters are replaced by it, and what must be escaped is replaced in all messages at once. Strings
are written as Python's ``json`` does without ``ensure_ascii``: ``\"``, ``\\``, ``\b \f \n \r \t``, ``\u00xx`` for the
other control characters, everything else as it is, U+007F, U+2028 and U+2029 included.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from twisted_ingest.batch import LF, Batch, ConnectionInfo
from twisted_ingest.errors import Format
from twisted_ingest.framing.scan import holds_control

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_ESCAPES = {code: _encode(chr(code))[1:-1].encode() for code in range(0x20)}
"""What stands for each control character inside a JSON string."""

_UNCONTROLLED = bytes(range(0x20, 0x100))

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def render_raw(batch: Batch) -> bytes | memoryview:
    """Give the records as they came; see `Batch.block` for the LF inside a record."""
    return batch.block()


def render_json(batch: Batch) -> bytes:
    """Give a line with a JSON object per record, byte for byte as `render_json_slowly` does."""
    before, after = _envelope(batch)
    # A single record may hold its own delimiter; of several, none does.
    delimiter = batch.delimiter if batch.count > 1 else b""
    messages = _escaped(_valid(bytes(batch.wire[:-1])), delimiter)
    if delimiter:
        messages = messages.replace(delimiter, after + before)
    # Joined, because `+` would copy the messages twice.
    return b"".join((before, messages, after))


def render_json_slowly(batch: Batch) -> bytes:
    """Give a line with a JSON object per record, record by record: what `render_json` is held against."""
    common = {"time": _rfc3339(batch.received_at), "listener": batch.info.listener, "peer": batch.info.peer}
    common |= _besides(batch.info)
    marks = {name: True for name in ("partial", "truncated") if getattr(batch, name)}
    objects = ({**common, "message": record.decode("utf-8", "replace"), **marks} for record in batch.records())
    return b"".join(_bytes(_encode(line)) + LF for line in objects)


RENDERERS: Mapping[Format, Callable[[Batch], bytes | memoryview]] = {Format.RAW: render_raw, Format.JSON: render_json}


_BESIDES = {"peer_identity": "identity", "proxy": "proxy", "local": "local"}
"""What else may be known of a connection: the key, and the attribute of `ConnectionInfo`."""


def _besides(info: ConnectionInfo) -> dict[str, str]:
    """Give what is known of a connection besides its peer: mostly nothing."""
    return {key: text for key, name in _BESIDES.items() if (text := getattr(info, name)) is not None}


def _envelope(batch: Batch) -> tuple[bytes, bytes]:
    """Give what stands before and after each message of a batch, its quotes and the LF included."""
    info = batch.info
    besides = "".join(f',"{key}":{_encode(text)}' for key, text in _besides(info).items())
    who = f'"listener":{_encode(info.listener)},"peer":{_encode(info.peer)}{besides}'
    before = f'{{"time":"{_rfc3339(batch.received_at)}",{who},"message":"'
    partial = b',"partial":true' if batch.partial else b""
    truncated = b',"truncated":true' if batch.truncated else b""
    return _bytes(before), b'"%b%b}\n' % (partial, truncated)


def _rfc3339(seconds: float) -> str:
    """Write Unix seconds in UTC, rounded to the nearest microsecond, all six digits of it always there."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _bytes(text: str) -> bytes:
    """Encode; a lone surrogate, as in a name the operating system gave us, has no UTF-8 and becomes ``?``."""
    return text.encode("utf-8", "replace")


def _valid(data: bytes) -> bytes:
    """
    Make it UTF-8: each maximal part that is not becomes U+FFFD.

    No delimiter is ever swallowed, because none can continue a sequence: a block gives what its records would.
    """
    if data.isascii():
        return data
    text = data.decode("utf-8", "replace")
    return text.encode() if _REPLACEMENT in text else data


def _escaped(data: bytes, delimiter: bytes) -> bytes:
    """Escape what a JSON string cannot hold, the delimiter alone excepted."""
    data = data.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    if holds_control(data, delimiter):
        for code in set(data.translate(None, _UNCONTROLLED + delimiter)):
            data = data.replace(bytes((code,)), _ESCAPES[code])
    return data
