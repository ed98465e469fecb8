"""
Names of hosts, as requests and operators write them, and whom the admin endpoint answers to.

Against DNS rebinding: a page in a browser may have its own name resolve to our address, and read what we answer. The
request still carries that name; an address written out in its place cannot have been rebound. Pure text: no name is
ever looked up.
"""

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from twisted_ingest.units import quote

LOCALHOST = "localhost"
"""Resolvers keep it on this machine (RFC 6761)."""

_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]*))?")
_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://)?(?:[^/?#@]*@)?([^/?#]*)[/?#]?.*", re.DOTALL)
_NAME = re.compile(r"(?=.{1,253}$)(?:(?!-)[a-z0-9_-]{1,63}(?<!-)\.)*(?!-)[a-z0-9_-]{1,63}(?<!-)")


def host_of(authority: str) -> str | None:
    """Give the host of ``host``, ``host:port`` or ``[address]:port``, in lower case; ``None`` where it is neither."""
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return None
    host = match[1].lower()
    if host.startswith("["):
        return host[1:-1] if _is_address(host[1:-1], 6) else None
    return host.removesuffix(".") or None


def _is_address(text: str, version: int = 0) -> bool:
    try:
        return ip_address(text).version == version or not version
    except ValueError:
        return False


def parse_host_name(text: object) -> str:
    """
    Read the name of a host, such as ``"ingest.example.com"``, in any case, with or without a dot at its end.

    An address is taken too, though it need not be given.

    Raises ``ValueError`` whose message names a form that works.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'{quote(text)} is not the name of a host (try "ingest.example.com")')
    written = text.strip()
    name = written.lower().removesuffix(".")
    if _NAME.fullmatch(name) or _is_address(written):
        return name
    raise ValueError(f"{text!r} is not the name of a host: {_mistake(written)}")


def _mistake(name: str) -> str:
    """Say what was written instead of a name, and what to write."""
    if "*" in name:
        return "there are no patterns; give each name"
    if "," in name or len(name.split()) > 1:
        return "give each name by itself"
    if _is_network(name):
        return "addresses need not be given, they are always accepted"
    found = _URL.fullmatch(name)
    host = host_of(found[1]) if found else None
    if host is not None and _is_address(host):
        return "addresses need not be given, they are always accepted, with any port"
    if host is not None and not host.isascii():
        host = _punycode(host)
    if host is not None and host != name and _NAME.fullmatch(host):
        return f'the name alone is compared (try "{host}")'
    return "letters, digits, '-', '_' and '.' only (try \"ingest.example.com\")"


def _is_network(text: str) -> bool:
    try:
        return bool(ip_network(text, strict=False))
    except ValueError:
        return False


def _punycode(host: str) -> str | None:
    """Write a name as requests do."""
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return None


class HostList:
    """The names, besides any address and ``localhost``, that requests may be meant for."""

    __slots__ = ("names",)

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = frozenset(names)

    def admits(self, authority: str) -> bool:
        """Tell whether the host of an authority, whatever its port, is one of them."""
        host = host_of(authority)
        return host is not None and (host == LOCALHOST or host in self.names or _is_address(host))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HostList) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)

    def __str__(self) -> str:
        return ", ".join(sorted(self.names))
