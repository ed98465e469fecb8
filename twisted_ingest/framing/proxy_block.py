"""
Version 2 of the PROXY header: a block of bytes, with elements behind the addresses, one of which may be its checksum.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from functools import cache

from twisted_ingest.framing.proxy_said import Endpoint, ProxyHeader, ProxyHeaderError

HEADER_BYTES = 2048
"""Bytes of a header of version 2 at most. A proxy that adds all there is, a unique id (128 bytes) and the names of a
certificate (255 bytes each) among them, stays below half of that; the format would let it be 64 KiB."""

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""How version 2 begins: eight bytes that end anything in HTTP, SMTP or SSH, and a NUL among them."""

_FIXED = struct.Struct("!12sBBH")
_PORTS = struct.Struct("!HH")
_TLV = struct.Struct("!BH")
_CHECK = struct.Struct("!I")
_CHECKSUM = 0x03
"""The type of the element that holds the CRC32c of a whole header (2.2.3)."""

_LOCAL, _PROXY = 0x20, 0x21
"""Version 2, and what it asks for: that the proxy itself is meant, or somebody whom it passes on."""

_UNIX_BYTES = 108


class _Family(Enum):
    """Kinds of addresses in version 2: how the byte that says so reads, and what each of the two takes."""

    UNSPEC = (0x00, 0, 0)
    TCP4 = (0x11, 4, 2)
    TCP6 = (0x21, 16, 2)
    UNIX = (0x31, _UNIX_BYTES, 0)

    def __init__(self, code: int, address: int, port: int) -> None:
        self.code = code
        self.address = address
        self.port = port

    @property
    def size(self) -> int:
        """Bytes of both ends."""
        return 2 * (self.address + self.port)


_FAMILIES = {family.code: family for family in _Family}


def block_size(head: bytes) -> int | None:
    """Say how long the header is that begins here; ``None``: it is not whole. Raises `ProxyHeaderError`."""
    if len(head) < _FIXED.size:
        return None
    _, command, family, length = _FIXED.unpack_from(head)
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError("a PROXY header of a version or with a command that there is not")
    size: int = _FIXED.size + length
    if size > HEADER_BYTES:
        raise ProxyHeaderError(f"a PROXY header of {size} bytes, and {HEADER_BYTES} are the most that is taken")
    if command == _PROXY:  # of the other the family does not count
        known = _FAMILIES.get(family)
        if known is None:
            raise ProxyHeaderError("a PROXY header with addresses that are none of TCP4, TCP6, a UNIX stream or UNSPEC")
        if length < known.size:
            raise ProxyHeaderError("a PROXY header too short for its addresses")
    return size if len(head) >= size else None


def read_block(header: bytes) -> ProxyHeader:
    """Read a whole header. Raises `ProxyHeaderError`."""
    _, command, code, _ = _FIXED.unpack_from(header)
    family = _FAMILIES.get(code, _Family.UNSPEC)
    begin = _FIXED.size
    if command == _PROXY:
        _check(header, begin + family.size)
    elif code in _FAMILIES:
        with suppress(_MisshapenError):  # its block is to be skipped, whatever it is (2.2)
            _check(header, begin + family.size)
    if command == _LOCAL or family is _Family.UNSPEC:
        return ProxyHeader()
    middle, end = begin + family.address, begin + 2 * family.address
    addresses = header[begin:middle], header[middle:end]
    if family is _Family.UNIX:
        return ProxyHeader(*map(_path, addresses))
    kind = socket.AF_INET if family is _Family.TCP4 else socket.AF_INET6
    hosts = [socket.inet_ntop(kind, address) for address in addresses]
    return ProxyHeader(*map(Endpoint, hosts, _PORTS.unpack_from(header, end)))


def _path(address: bytes) -> Endpoint:
    """Read the address of a UNIX socket: a path, or a name behind a NUL, which is written as ``@``."""
    name = b"@" + address[1:] if address[:1] == b"\0" and address.strip(b"\0") else address
    return Endpoint(name.partition(b"\0")[0].decode("utf-8", "replace"), None)


class _MisshapenError(ProxyHeaderError):
    """The elements behind the addresses cannot be told apart."""


def _check(header: bytes, begin: int) -> None:
    """Go through the elements behind the addresses, and verify the checksum where one of them is that."""
    checks = [value for kind, value in _elements(header, begin) if kind == _CHECKSUM]
    if not checks:
        return
    if len(checks) > 1 or len(checks[0]) != _CHECK.size:
        raise _MisshapenError("a PROXY header with a checksum of another length, or two")
    at = checks[0].start
    blank = header[:at] + bytes(_CHECK.size) + header[at + _CHECK.size :]
    if crc32c(blank) != _CHECK.unpack_from(header, at)[0]:
        raise ProxyHeaderError("a PROXY header whose checksum is wrong")


def _elements(header: bytes, at: int) -> Iterator[tuple[int, range]]:
    """Give the type of each element, and where its value stands."""
    while at < len(header):
        if at + _TLV.size > len(header):
            raise _MisshapenError("a PROXY header that ends inside an element")
        kind, length = _TLV.unpack_from(header, at)
        value = range(at + _TLV.size, at + _TLV.size + length)
        at = value.stop
        if at > len(header):
            raise _MisshapenError("a PROXY header that ends inside an element")
        yield kind, value


@cache
def _table() -> tuple[int, ...]:
    return tuple(map(_step, range(256)))


def _step(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


def crc32c(data: bytes) -> int:
    """Give the CRC of Castagnoli (RFC 3720, appendix B.4): of 2 KiB at most, once for each connection."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
