"""Allow-lists: networks as operators write them, and whom they admit."""

import ipaddress

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.errors import RefuseReason
from twisted_ingest.networks import AllowList, parse_network, peer_of
from twisted_ingest.testing import Rig

MAPPED_BITS = 96
"""Bits before the IPv4 address in one that is written as IPv6."""


def allowing(*networks: str) -> AllowList:
    """Make an allow-list."""
    return AllowList(map(parse_network, networks))


class AllowListTests(SynchronousTestCase):
    @example(ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("::ffff:192.0.2.1"), 128)
    @example(ipaddress.ip_address("::ffff:192.0.2.1"), ipaddress.ip_address("::ffff:0:0"), 96)
    @example(ipaddress.ip_address("::ffff:192.0.2.1"), ipaddress.ip_address("::ffff:0:0"), 95)
    @given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 128))
    def test_any_network(
        self,
        address: ipaddress.IPv4Address | ipaddress.IPv6Address,
        base: ipaddress.IPv4Address | ipaddress.IPv6Address,
        length: int,
    ) -> None:
        """
        An address is admitted exactly when its first bits are the network's, and it is of the same version.

        Both are IPv4 where they are IPv4 written as IPv6.
        """
        length = min(length, base.max_prefixlen)
        network = ipaddress.ip_network(f"{base}/{length}", strict=False)
        if isinstance(base, ipaddress.IPv6Address) and base.ipv4_mapped and length >= MAPPED_BITS:
            base, length = base.ipv4_mapped, length - MAPPED_BITS
        shift = base.max_prefixlen - length
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        meant = mapped or address
        expected = meant.version == base.version and int(meant) >> shift == int(base) >> shift
        self.assertEqual(allowing(str(network)).admits(str(address)), expected)

    def test_mapped_and_scoped(self) -> None:
        """IPv4 peers of a dual-stack socket count as IPv4, a scope does not hide a link-local address."""
        self.assertTrue(allowing("192.0.2.0/24").admits("::ffff:192.0.2.9"))
        self.assertFalse(allowing("192.0.2.0/24").admits("::ffff:198.51.100.9"))
        self.assertTrue(allowing("fe80::/10").admits("fe80::1%eth0"))

    def test_mapped_network(self) -> None:
        """IPv4 written as IPv6 means the IPv4 peers, however they come in."""
        for written, meant in (("::ffff:192.0.2.1", "192.0.2.1/32"), ("::ffff:192.0.2.0/120", "192.0.2.0/24")):
            self.assertEqual(str(parse_network(written)), meant)
        self.assertEqual(str(parse_network("::ffff:0:0/96")), "0.0.0.0/0")
        for host in ("192.0.2.1", "::ffff:192.0.2.1"):
            self.assertTrue(allowing("::ffff:192.0.2.1").admits(host))
        self.assertFalse(allowing("::ffff:192.0.2.1").admits("192.0.2.2"))
        self.assertEqual(str(parse_network("2001:db8::/32")), "2001:db8::/32")

    def test_others(self) -> None:
        """A UNIX socket has no address to judge; what is no address is not admitted; several networks add up."""
        self.assertTrue(allowing("192.0.2.0/24").admits(None))
        self.assertFalse(allowing("0.0.0.0/0").admits("localhost"))
        self.assertTrue(allowing("192.0.2.1", "2001:db8::/32").admits("2001:db8::5"))

    def test_mistakes(self) -> None:
        """A name is refused, and an address within a network is answered with the network."""
        with self.assertRaisesRegex(ValueError, r"names are not looked up"):
            parse_network("example.org")
        with self.assertRaisesRegex(ValueError, r'the network is "10.0.0.0/8"'):
            parse_network("10.1.2.3/8")

    @given(st.text(max_size=30))
    def test_any_text(self, text: str) -> None:
        """Any text is a network or a complaint."""
        try:
            parse_network(text)
        except ValueError as error:
            self.assertIn("network", str(error))


class DeniedTests(SynchronousTestCase):
    def test_denied(self) -> None:
        """A peer that is not allowed is counted under its reason and never gets a protocol; others come in."""
        rig = Rig(allow=allowing("192.0.2.0/24"))
        self.assertRaises(ConnectionRefusedError, rig.connect, "198.51.100.1")
        rig.connect("192.0.2.7")
        self.assertEqual(rig.factory.ledger.connections_refused[RefuseReason.NOT_ALLOWED], 1)
        self.assertEqual(rig.factory.ledger.connections_opened, 1)


class PeerTests(SynchronousTestCase):
    def test_whose(self) -> None:
        """IPv4 is one peer however it is written, IPv6 a network of the length that was set."""
        self.assertEqual(peer_of("192.0.2.1", 64), "192.0.2.1")
        self.assertEqual(peer_of("::ffff:192.0.2.1", 64), "192.0.2.1")
        self.assertEqual(peer_of("2001:db8::1", 64), peer_of("2001:db8::ffff:1", 64))
        self.assertNotEqual(peer_of("2001:db8::1", 64), peer_of("2001:db8:0:1::1", 64))
        self.assertNotEqual(peer_of("2001:db8::1", 128), peer_of("2001:db8::2", 128))
        self.assertEqual(peer_of("2001:db8::1", 32), peer_of("2001:db8:5::1", 32))
        self.assertEqual(peer_of("fe80::1%eth0", 64), peer_of("fe80::2", 64))
        self.assertEqual((peer_of("localhost", 64), peer_of("no:address", 64)), ("localhost", "no:address"))

    def test_caps(self) -> None:
        """The cap per peer and its connection rate take a network of IPv6 for one peer."""
        rig = Rig(per_peer=2)
        rig.connect("2001:db8::1")
        rig.connect("2001:db8::2")
        self.assertRaises(ConnectionRefusedError, rig.connect, "2001:db8::3")
        rig.connect("2001:db8:0:1::1")
        rig.connect("192.0.2.1")
        rig.connect("::ffff:192.0.2.1")
        self.assertRaises(ConnectionRefusedError, rig.connect, "192.0.2.1")
        self.assertEqual(rig.factory.ledger.connections_refused[RefuseReason.PER_PEER], 2)
