"""
Where a sink sends to: host and port, or a client endpoint of Twisted's.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from twisted.internet.endpoints import HostnameEndpoint, clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint

HIGHEST_PORT = 65535

_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.%a-z]+)\]|([A-Za-z0-9_.-]+)):([0-9]{1,5})", re.ASCII)

_SCHEMES = ("tcp", "unix")


class Target(NamedTuple):
    """One place that can be connected to."""

    text: str
    """As it was given, which is how it is shown."""
    host: str | None
    """A name or an address; ``None`` where ``text`` is an endpoint string."""
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read ``HOST:PORT``, ``[IPV6]:PORT`` or a client endpoint string.

        Raises ``ValueError``, which says what would do.
        """
        match = _HOST_AND_PORT.fullmatch(text)
        if match is not None:
            port = int(match[3])
            if not 0 < port <= HIGHEST_PORT:
                raise ValueError(f"{text!r}: port {port} is not between 1 and {HIGHEST_PORT}")
            return cls(text, match[1] or match[2], port)
        scheme, _, rest = text.partition(":")
        if scheme in _SCHEMES and rest:
            try:
                clientFromString(None, text)
            except Exception as error:
                raise ValueError(f"{text!r} is no client endpoint: {error} (try 'HOST:PORT')") from error
            return cls(text, None, 0)
        raise ValueError(f"{text!r} is not a target: write HOST:PORT, [IPV6]:PORT or a client endpoint of Twisted's")

    def endpoint(self, reactor: Any, timeout: float) -> IStreamClientEndpoint:
        """Make what connects; names are looked up each time it does."""
        if self.host is None:
            made: IStreamClientEndpoint = clientFromString(reactor, self.text)
            return made
        return HostnameEndpoint(reactor, self.host, self.port, timeout)


def parse_targets(value: object) -> tuple[Target, ...]:
    """Read one target, several with commas between, or a list. Raises ``ValueError``."""
    texts = value.split(",") if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise ValueError("it needs a target or more: HOST:PORT")
    found = tuple(Target.parse(text.strip()) for text in texts)
    twice = [target.text for number, target in enumerate(found) if target in found[:number]]
    if twice:
        raise ValueError(f"{twice[0]!r} is there twice")
    return found


EndpointMaker = Callable[[Target, float], IStreamClientEndpoint]
"""Makes what connects to a target, within so many seconds."""
