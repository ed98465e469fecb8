"""Names of hosts: what requests say, what operators write, and whom the admin endpoint answers to."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.admin.hosts import HostList, host_of, parse_host_name

LABELS = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?\Z")
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PORTS = st.one_of(st.just(""), st.just(":"), st.integers(0, 99999).map(":{}".format))


class AdmissionTests(SynchronousTestCase):
    @given(st.ip_addresses(), PORTS)
    def test_any_address(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: str) -> None:
        """An address, with any port, is always admitted: it cannot be made to mean another machine."""
        host = f"[{address}]" if address.version == 6 else str(address)
        self.assertTrue(HostList().admits(host + port))
        self.assertTrue(HostList().admits(host.upper() + port))

    @given(NAMES, PORTS)
    def test_any_name(self, name: str, port: str) -> None:
        """A name is admitted exactly where it was given, in any case, with or without its dot and port."""
        written = {name, name.upper(), f"{name}."}
        is_known = name == "localhost" or name.replace(".", "").isdigit()
        for text in written:
            self.assertTrue(HostList([parse_host_name(name)]).admits(text + port))
            if not is_known:
                self.assertFalse(HostList(["other.example"]).admits(text + port))
                self.assertFalse(HostList([f"x{name}", f"{name}.x", f"x.{name}"]).admits(text + port))

    def test_localhost(self) -> None:
        """Localhost is always admitted, names below it and around it are not."""
        for authority in ("localhost", "LocalHost:9108", "localhost.", "localhost.:1"):
            self.assertTrue(HostList().admits(authority), authority)
        for authority in ("a.localhost", "localhost.example.com", "xlocalhost", "localhost..", "localhost@example.com"):
            self.assertFalse(HostList().admits(authority), authority)

    def test_no_addresses(self) -> None:
        """What only resembles an address is a name, and not one that is known."""
        for authority in (
            "127.1",
            "2130706433",
            "0x7f000001",
            "1.2.3.4:x",
            "::1",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "[]",
        ):
            self.assertFalse(HostList().admits(authority), authority)
        for authority in ("", ":9108", ".", "a:1:2", "[::1]:1:2", "\xff"):
            self.assertFalse(HostList(["a"]).admits(authority), authority)

    @given(st.text(max_size=300))
    def test_any_text(self, authority: str) -> None:
        """Whatever stands there is a host or is none."""
        host_of(authority)
        HostList(["x"]).admits(authority)


class WrittenTests(SynchronousTestCase):
    def test_good(self) -> None:
        """Names are kept as they are compared; an address is taken, though it need not be given."""
        for written, name in {
            "Ingest.Example.COM.": "ingest.example.com",
            " ingest ": "ingest",
            "my_service-1": "my_service-1",
            "192.0.2.1": "192.0.2.1",
            "::1": "::1",
        }.items():
            self.assertEqual(parse_host_name(written), name)

    def test_mistakes(self) -> None:
        """Whatever is no name is refused with what to write instead."""
        addresses = "addresses need not be given, they are always accepted"
        for written, fix in {
            "http://Ingest.example:9108/metrics": 'the name alone is compared (try "ingest.example")',
            "ingest:9108": 'the name alone is compared (try "ingest")',
            "user@ingest": 'the name alone is compared (try "ingest")',
            "ingest/metrics": 'the name alone is compared (try "ingest")',
            "bücher.example": 'the name alone is compared (try "xn--bcher-kva.example")',
            "192.0.2.1:9108": f"{addresses}, with any port",
            "[2001:db8::1]:9108": f"{addresses}, with any port",
            "http://192.0.2.1/": f"{addresses}, with any port",
            "192.0.2.0/24": addresses,
            "*.example.com": "there are no patterns; give each name",
            "a.example, b.example": "give each name by itself",
            "-a": "letters, digits, '-', '_' and '.' only (try \"ingest.example.com\")",
            "a" * 64: "letters, digits, '-', '_' and '.' only (try \"ingest.example.com\")",
        }.items():
            error = self.assertRaises(ValueError, parse_host_name, written)
            self.assertEqual(str(error), f"{written!r} is not the name of a host: {fix}")
        for nothing in ("", " ", 5, None, ["a"]):
            self.assertIn('try "ingest.example.com"', str(self.assertRaises(ValueError, parse_host_name, nothing)))

    @given(st.text(max_size=300))
    def test_any_text(self, text: str) -> None:
        """Whatever is written is a name that is admitted, or a ``ValueError``."""
        try:
            name = parse_host_name(text)
        except ValueError:
            return
        self.assertTrue(HostList([name]).admits(f"[{name}]" if ":" in name else name), name)
