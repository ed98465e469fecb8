"""
Whom a listener admits: networks as operators write them.

Pure text and numbers; no name is ever looked up.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network


def parse_network(text: str) -> Network:
    """
    Read a network such as ``"192.0.2.0/24"`` or ``"2001:db8::/32"``, or a single address.

    Raises ``ValueError`` whose message names a form that works.
    """
    try:
        return ip_network(text.strip())
    except (ValueError, AttributeError):
        pass
    try:
        meant = ip_network(text.strip(), strict=False)
    except (ValueError, AttributeError):
        raise ValueError(
            f'{text!r} is not a network (try "192.0.2.0/24" or "2001:db8::/32"; names are not looked up)'
        ) from None
    raise ValueError(f'{text!r} is an address within a network: the network is "{meant}"')


class AllowList:
    """Networks whose peers may connect. A peer without an address, on a UNIX socket, always may."""

    __slots__ = ("networks",)

    def __init__(self, networks: Iterable[Network]) -> None:
        self.networks = tuple(networks)

    def admits(self, host: str | None) -> bool:
        """Tell whether an address, as text, is in one of the networks."""
        if host is None:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        if isinstance(address, IPv6Address):
            # A dual-stack socket shows IPv4 peers so.
            address = address.ipv4_mapped or address
        return any(address in network for network in self.networks if network.version == address.version)

    def __str__(self) -> str:
        return ", ".join(map(str, self.networks))
