"""
Addresses that cannot be bound beside each other.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint, UNIXServerEndpoint

from twisted_ingest.config.positions import Path
from twisted_ingest.server.endpoints import server_endpoint

Address = tuple[str, int, str]
"""Family (4, 6 or unix), port, and interface or path."""

_BINDV6ONLY = "/proc/sys/net/ipv6/bindv6only"

_WILDCARDS = {"4": ("", "0.0.0.0"), "6": ("", "::")}


def overlaps(places: Mapping[Path, tuple[str, str]]) -> Iterator[tuple[Path, str]]:
    """
    Give the path of each endpoint that an earlier one leaves no room for, and the message.

    ``places`` maps paths to endpoints, which are good by themselves, and whose they are, in words.
    """
    taken: list[tuple[Address, str, str]] = []
    for path, (endpoint, user) in places.items():
        address = _address(endpoint)
        if address is None:
            continue
        for other, where, owner in taken:
            reason = _conflict(address, other)
            if reason is not None:
                what = (
                    "is already the endpoint" if endpoint == where else f"cannot be bound beside {where}, the endpoint"
                )
                yield path, f"{endpoint} {what} of {owner}{reason}"
                break
        taken.append((address, endpoint, user))


def _address(endpoint: str) -> Address | None:
    parsed: Any = server_endpoint(object(), endpoint)
    match parsed:
        case TCP4ServerEndpoint() | TCP6ServerEndpoint():
            family = "6" if isinstance(parsed, TCP6ServerEndpoint) or ":" in parsed._interface else "4"  # noqa: SLF001
            # Port 0 is a different port each time.
            return (family, parsed._port, parsed._interface) if parsed._port else None  # noqa: SLF001
        case UNIXServerEndpoint():
            return "unix", 0, parsed._address  # noqa: SLF001
        case _:
            # A socket of the service manager's: by index or name, each another one.
            return endpoint, 0, ""


def _conflict(one: Address, other: Address) -> str | None:
    """Say why not both can be bound, as a clause (nothing where that is plain); ``None`` where they can."""
    if one == other:
        return ""
    if one[1] != other[1] or not one[1]:
        return None
    wide = [family for family, _, interface in (one, other) if interface in _WILDCARDS[family]]
    if one[0] == other[0]:
        return ": every interface includes that one" if wide else None
    if "6" not in wide or not takes_both():
        return None
    fix = "leave the tcp one out, or give tcp6 one address (interface=)"
    return f": tcp6 on every interface takes IPv4 too (dual stack): {fix}"


def takes_both() -> bool:
    """Whether an IPv6 socket on every interface takes IPv4 too: yes, unless the machine says otherwise (ipv6(7))."""
    try:
        with open(_BINDV6ONLY) as stream:
            return stream.read().strip() == "0"
    except OSError:
        return True
