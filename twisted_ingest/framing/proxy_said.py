"""
What a PROXY header says, in either version, or why it says nothing that can be believed.
"""

from typing import NamedTuple


class ProxyHeaderError(ValueError):
    """
    What has come is no header that can be believed. Completes "sent …".

    ``is_missing``: it does not even begin like one.
    """

    def __init__(self, what: str, *, is_missing: bool = False) -> None:
        super().__init__(what)
        self.is_missing = is_missing


class Endpoint(NamedTuple):
    """One end of the connection that is passed on; of a UNIX socket ``host`` is its path, and ``port`` is ``None``."""

    host: str
    port: int | None

    def __str__(self) -> str:
        if self.port is None:
            return f"unix:{self.host or 'anonymous'}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ProxyHeader(NamedTuple):
    """
    What a header says: who has connected, and to where.

    Both are ``None`` where the proxy speaks for itself (``LOCAL``, as for health checks) or does not know (``UNKNOWN``,
    ``UNSPEC``): then the addresses of the socket are the ones that count.
    """

    source: Endpoint | None = None
    destination: Endpoint | None = None
