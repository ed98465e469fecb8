"""
Whom a listener admits: networks as operators write them.

Pure text and numbers; no name is ever looked up.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from twisted_ingest.units import quote

Network = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")
"""How a dual-stack socket shows IPv4 peers (RFC 4291, section 2.5.5.2)."""


def parse_network(text: str) -> Network:
    """
    Read a network such as ``"192.0.2.0/24"`` or ``"2001:db8::/32"``, or a single address.

    IPv4 written as IPv6 (``"::ffff:192.0.2.1"``) is IPv4. Raises ``ValueError`` whose message names a form that works.
    """
    try:
        return _unmapped(ip_network(text.strip()))
    except (ValueError, AttributeError):
        pass
    try:
        meant = ip_network(text.strip(), strict=False)
    except (ValueError, AttributeError):
        raise ValueError(
            f'{quote(text)} is not a network (try "192.0.2.0/24" or "2001:db8::/32"; names are not looked up)'
        ) from None
    raise ValueError(f'{text!r} is an address within a network: the network is "{meant}"')


def _unmapped(network: Network) -> Network:
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = int(network.network_address) - int(_MAPPED.network_address)
        return IPv4Network((mapped, network.prefixlen - _MAPPED.prefixlen))
    return network


def peer_of(host: str, prefix_ipv6: int) -> str:
    """
    Say whom an address belongs to, for limits per peer: IPv4 itself, also written as IPv6; of IPv6 the network.

    A host has a whole network of IPv6 addresses at its disposal. What is no address stands for itself.
    """
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((address, prefix_ipv6), strict=False))


class AllowList:
    """Networks whose peers may connect. A peer without an address, on a UNIX socket, always may."""

    __slots__ = ("networks",)

    def __init__(self, networks: Iterable[Network]) -> None:
        self.networks = tuple(networks)

    @property
    def is_everybody(self) -> bool:
        """Whether all addresses of a family are in it."""
        return any(network.prefixlen == 0 for network in self.networks)

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

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AllowList) and self.networks == other.networks

    def __hash__(self) -> int:
        return hash(self.networks)

    def __str__(self) -> str:
        return ", ".join(map(str, self.networks))
