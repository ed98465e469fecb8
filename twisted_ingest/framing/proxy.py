"""
The PROXY header, versions 1 and 2: who has connected, in the words of the proxy that passes the connection on.

Strict, as its specification asks of a receiver (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt): what is
no header is never guessed to be one, and nothing behind it is looked at before it is whole.
"""

import re
import socket

from twisted_ingest.framing.proxy_block import HEADER_BYTES, SIGNATURE, block_size, read_block
from twisted_ingest.framing.proxy_said import Endpoint, ProxyHeader, ProxyHeaderError

LINE_BYTES = 107
"""Bytes of a header of version 1 at most, CR LF included (the specification, 2.1)."""

PREFIX = b"PROXY "
"""How version 1 begins."""

_TEXT = bytes(range(0x20, 0x7F))
_PORT = r"(0|[1-9][0-9]{0,4})"
_LINE = re.compile(rf"PROXY TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) {_PORT} {_PORT}")
_HIGHEST_PORT = 0xFFFF


class ProxyReader:
    """
    Reads the one header at the beginning of a stream, wherever that is cut.

    ``header`` is what it says, once it is whole.
    """

    __slots__ = ("_held", "header")

    def __init__(self) -> None:
        self._held = b""
        self.header: ProxyHeader | None = None

    @property
    def kept(self) -> int:
        """How many bytes have come of a header that is not whole."""
        return len(self._held)

    def feed(self, data: bytes) -> bytes | None:
        """
        Take what has come; ``None``: the header is not whole. Else it is, and this is what stands behind it.

        Keeps `HEADER_BYTES` at most. Raises `ProxyHeaderError` as soon as no header can come of it.
        """
        seen = len(self._held)
        # No more than a header can be is joined; what stands behind it is not copied for that.
        head = self._held + data[: HEADER_BYTES - seen]
        size = read_size(head)
        if size is None:
            self._held = head
            return None
        self.header = _read(head[:size])
        self._held = b""
        return data[size - seen :]


def read_size(head: bytes) -> int | None:
    """
    Say how long the header is that begins here; ``None``: it is not whole.

    ``head`` is as much of the stream as has come, or its first `HEADER_BYTES`. Raises `ProxyHeaderError`.
    """
    if head.startswith(PREFIX) or PREFIX.startswith(head):
        return _line_size(head)
    if head.startswith(SIGNATURE) or SIGNATURE.startswith(head):
        return block_size(head)
    raise ProxyHeaderError("no PROXY header", is_missing=True)


def _read(header: bytes) -> ProxyHeader:
    return _read_line(header) if header.startswith(PREFIX) else read_block(header)


# Version 1: a line.


def _line_size(head: bytes) -> int | None:
    end = head.find(b"\r\n", 0, LINE_BYTES)
    line = head[:LINE_BYTES] if end < 0 else head[:end]
    # A CR may be the first half of an end that is cut.
    text = line[:-1] if end < 0 and line.endswith(b"\r") and len(line) < LINE_BYTES else line
    if text.translate(None, _TEXT):
        raise ProxyHeaderError(
            "a PROXY header of version 1 with something in it that is no text, or no CR LF behind it"
        )
    if end < 0:
        if len(line) == LINE_BYTES:
            raise ProxyHeaderError(f"a PROXY header of version 1 that does not end within {LINE_BYTES} bytes")
        return None
    return end + 2


def _read_line(header: bytes) -> ProxyHeader:
    line = header[:-2].decode("ascii")
    if line == "PROXY UNKNOWN" or line.startswith("PROXY UNKNOWN "):
        return ProxyHeader()  # what follows is not to be looked at (2.1)
    found = _LINE.fullmatch(line)
    if found is None:
        raise ProxyHeaderError("a PROXY header of version 1 that says something else than TCP4, TCP6 or UNKNOWN says")
    family = socket.AF_INET if found[1] == "4" else socket.AF_INET6
    hosts = [_canonical(family, text) for text in found.group(2, 3)]
    ports = [int(text) for text in found.group(4, 5)]
    if max(ports) > _HIGHEST_PORT:
        raise ProxyHeaderError("a PROXY header with a port that there is not")
    return ProxyHeader(*map(Endpoint, hosts, ports))


def _canonical(family: int, text: str) -> str:
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text))
    except OSError:
        raise ProxyHeaderError("a PROXY header with what is no address of its family") from None
