"""
What is polled: a URL in its parts, what may be shown of it, and where a redirect may lead.

Pure.
"""

import ipaddress
import re
from typing import NamedTuple, Self
from urllib.parse import urljoin, urlsplit

from twisted_ingest.errors import Redirects

LONGEST_URL = 8192
"""Characters of a URL, a redirect's included: what common servers take (RFC 9110 asks for 8000)."""

HIGHEST_PORT = 65535

_PORTS = {"http": 80, "https": 443}

_PRINTABLE = re.compile(r"[!-~]+")

_HOST = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?")


class Url(NamedTuple):
    """A URL that is polled, in its parts."""

    scheme: str
    host: str
    """A name, or an address without brackets."""
    port: int
    path: str
    """With the query, as it is asked for."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Take a URL apart. Raises ``ValueError``, which says what would do; what it holds of the URL is no secret."""
        if len(url) > LONGEST_URL:
            raise ValueError(f"it is longer than {LONGEST_URL} characters")
        if not _PRINTABLE.fullmatch(url):
            raise ValueError("it holds what a URL cannot: write blanks and other than ASCII as %XX")
        parts = urlsplit(url)
        if parts.scheme not in _PORTS:
            raise ValueError("it must begin with http:// or https://")
        if parts.username is not None or parts.password is not None:
            raise ValueError("credentials do not belong in it: use username and password_file, or authorization_file")
        if parts.fragment:
            raise ValueError("what follows its # is never sent: leave it out")
        host = (parts.hostname or "").rstrip(".")
        if not _is_host(host):
            raise ValueError("it needs the name or the address of a host behind its //")
        port = _PORTS[parts.scheme] if parts.port is None else parts.port
        if not 0 < port <= HIGHEST_PORT:
            raise ValueError(f"its port is not between 1 and {HIGHEST_PORT}")
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        return cls(parts.scheme, host, port, path)

    @property
    def authority(self) -> str:
        """Host and port, the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def text(self) -> str:
        """The whole URL: not for logs, its query may hold a secret."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def shown(self) -> str:
        """What may be shown of it: no query."""
        path, mark, _ = self.path.partition("?")
        return f"{self.scheme}://{self.authority}{path}{'?...' if mark else ''}"

    def follow(self, location: str, allowed: Redirects) -> Self:
        """
        Give where a redirect leads.

        Raises ``ValueError`` where it may not lead there: never from https to http, and to another host only where the
        operator said so, because a server could otherwise have us ask whom only we can reach.
        """
        try:
            found = type(self).parse(urljoin(self.text, location.partition("#")[0]))
        except ValueError as error:
            raise ValueError(f"it leads nowhere we go: {error}") from error
        if allowed is Redirects.OFF:
            raise ValueError("redirects = 'off'")
        if self.scheme == "https" and found.scheme == "http":
            raise ValueError("it leads from https to http")
        if found.host != self.host and allowed is not Redirects.ANY:
            raise ValueError(f"it leads to another host, {found.host} (redirects = 'any' would follow it)")
        return found

    def trusts(self, other: Self) -> bool:
        """Whether what is secret for this one may be sent to another: the same server, or its own https."""
        if other.host != self.host:
            return False
        upgraded = (self.scheme, self.port, other.scheme, other.port) == ("http", 80, "https", 443)
        return upgraded or (other.scheme, other.port) == (self.scheme, self.port)


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return False
        return True
    return _HOST.fullmatch(host) is not None
