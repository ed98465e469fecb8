"""
From an endpoint string to what listens: Twisted's parsers, and our own where theirs would surprise.
"""

import os
import socket as sockets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet import endpoints
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString

UNIX_MODE = 0o660
"""Mode of a UNIX socket unless ``mode=`` says otherwise: owner and group. Twisted's own lets everybody on the machine
write, and nothing else guards such a socket."""

FAMILIES = ("INET", "INET6", "UNIX")

_FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)


@dataclass(frozen=True, slots=True)
class PassedSockets:
    """Descriptors of the sockets that the service manager has passed, and their names: fewer where it gave none."""

    descriptors: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def read(cls, environment: Mapping[str, str], process: int) -> "PassedSockets":
        """Read ``LISTEN_FDS`` and ``LISTEN_FDNAMES`` if they are meant for a process of this number."""
        count = environment.get("LISTEN_FDS", "")
        if environment.get("LISTEN_PID") != str(process) or not (count.isascii() and count.isdigit()):
            return cls()
        names = environment.get("LISTEN_FDNAMES", "")
        descriptors = range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count))
        return cls(tuple(descriptors), tuple(names.split(":")) if names else ())

    def find(self, index: str | None, name: str | None) -> int:
        """Give the descriptor of one. Raises ``LookupError`` where there is none, ``ValueError`` unless by one."""
        if (index is None) == (name is None):
            raise ValueError("it needs either the index or the name")
        if name is not None:
            return dict(zip(self.names, self.descriptors, strict=False))[name]
        number = int(index or "")
        if number < 0:
            raise IndexError(number)
        return self.descriptors[number]


def _first_environment() -> dict[str, str]:
    """Give what the process was started with: Twisted removes the variables from its own as it is imported."""
    try:
        with open("/proc/self/environ", "rb") as stream:
            entries = os.fsdecode(stream.read()).split("\0")
    except OSError:
        return dict(os.environ)
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


PASSED = PassedSockets.read(_first_environment(), os.getpid())
"""What was passed to this process; read before twistd becomes a daemon, whose number is another."""


def server_endpoint(reactor: Any, description: str, passed: PassedSockets = PASSED) -> Any:
    """
    Parse an endpoint string.

    Raises ``LookupError`` for a passed socket that is not there, else what Twisted's parsers raise: ``ValueError``,
    ``TypeError`` and others. Besides `serverFromString`: a UNIX socket is for owner and group unless ``mode=`` is
    given, and sockets that were passed without names are found by index.
    """
    scheme = description.partition(":")[0]
    if scheme == "systemd":
        words, options = endpoints._parse(description)  # noqa: SLF001
        return _passed_endpoint(reactor, passed, *words[1:], **options)
    parsed = serverFromString(reactor, description)
    if scheme == "unix":
        words, options = endpoints._parse(description)  # noqa: SLF001
        if "mode" not in options and len(words) < 3:  # noqa: PLR2004 - the scheme, the address, the mode
            parsed._mode = UNIX_MODE  # noqa: SLF001
    return parsed


def _passed_endpoint(
    reactor: Any, passed: PassedSockets, domain: str, index: str | None = None, name: str | None = None
) -> AdoptedStreamServerEndpoint:
    if domain not in FAMILIES:
        raise ValueError(f"unknown domain {domain!r} (known: {', '.join(FAMILIES)})")
    return AdoptedStreamServerEndpoint(reactor, passed.find(index, name), getattr(sockets, f"AF_{domain}"))
