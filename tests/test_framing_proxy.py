"""The PROXY header: what is one, wherever it is cut, and everything that is none."""

import socket
import struct

from hypothesis import assume, example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.framing.proxy import LINE_BYTES, ProxyReader
from twisted_ingest.framing.proxy_block import HEADER_BYTES, SIGNATURE, crc32c
from twisted_ingest.framing.proxy_said import Endpoint, ProxyHeader, ProxyHeaderError

PROXY, LOCAL = 0x21, 0x20
UNSPEC, TCP4, TCP6, UNIX = 0x00, 0x11, 0x21, 0x31


def block(command: int, family: int, body: bytes) -> bytes:
    """Write a header of version 2."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def element(kind: int, value: bytes) -> bytes:
    """Write an element that stands behind the addresses."""
    return struct.pack("!BH", kind, len(value)) + value


def checked(command: int, family: int, addresses: bytes, elements: bytes = b"") -> bytes:
    """Write a header of version 2 with its checksum as the last element."""
    header = block(command, family, addresses + elements + element(3, bytes(4)))
    return header[:-4] + struct.pack("!I", crc32c(header))


def ends4(source: str, destination: str, ports: tuple[int, int]) -> bytes:
    """Write two addresses of TCP over IPv4."""
    return b"".join(map(socket.inet_aton, (source, destination))) + struct.pack("!HH", *ports)


def read(data: bytes, cuts: int = 0) -> tuple[ProxyHeader | None, bytes | None]:
    """Read a stream, cut into pieces of so many bytes; gives the header, and what is left."""
    reader, rest = ProxyReader(), None
    for begin in range(0, len(data), cuts or len(data)):
        piece = data[begin : begin + (cuts or len(data))]
        if rest is not None:
            rest += piece
        else:
            rest = reader.feed(piece)
    return reader.header, rest


HOSTS4 = st.ip_addresses(v=4).map(str)
HOSTS6 = st.ip_addresses(v=6).map(lambda host: socket.inet_ntop(socket.AF_INET6, host.packed))
PORTS = st.integers(0, 0xFFFF)
ELEMENTS = st.lists(st.builds(element, st.integers(4, 255), st.binary(max_size=40)), max_size=4).map(b"".join)


@st.composite
def headers(draw: st.DrawFn, *, is_checked: bool = False) -> tuple[bytes, ProxyHeader]:
    """Draw a header and what it says."""
    family = draw(st.sampled_from([4, 6]))
    hosts = HOSTS4 if family == 4 else HOSTS6
    source, destination = Endpoint(draw(hosts), draw(PORTS)), Endpoint(draw(hosts), draw(PORTS))
    said = ProxyHeader(source, destination)
    if not is_checked and draw(st.booleans()):
        ends = (source.host, destination.host, str(source.port), str(destination.port))
        return f"PROXY TCP{family} {' '.join(ends)}\r\n".encode(), said
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    addresses = b"".join(socket.inet_pton(kind, end.host) for end in (source, destination))
    addresses += struct.pack("!HH", source.port, destination.port)
    code = TCP4 if family == 4 else TCP6
    if is_checked or draw(st.booleans()):
        return checked(PROXY, code, addresses, draw(ELEMENTS)), said
    return block(PROXY, code, addresses + draw(ELEMENTS)), said


class GoodTests(SynchronousTestCase):
    @given(headers(), st.binary(max_size=30), st.integers(1, 60))
    def test_round_trip(self, drawn: tuple[bytes, ProxyHeader], rest: bytes, size: int) -> None:
        """What is written is read, wherever it is cut, and what stands behind it is left alone."""
        header, said = drawn
        self.assertEqual(read(header + rest), (said, rest))
        self.assertEqual(read(header + rest, size), (said, rest))

    @given(headers())
    def test_not_before_it_is_whole(self, drawn: tuple[bytes, ProxyHeader]) -> None:
        """No beginning of a header is one, and none is refused."""
        header, _ = drawn
        for end in range(len(header)):
            reader = ProxyReader()
            self.assertIsNone(reader.feed(header[:end]))
            self.assertEqual((reader.header, reader.kept), (None, end))

    def test_for_itself(self) -> None:
        """A proxy that speaks for itself, or does not know, names nobody; what it adds is skipped."""
        ends = ends4("192.0.2.1", "192.0.2.2", (1, 2))
        cases = [
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN ffff::ffff ffff::ffff 65535 65535\r\n",
            b"PROXY UNKNOWN whatever it likes to say\r\n",
            b"PROXY UNKNOWN ".ljust(LINE_BYTES - 2, b"x") + b"\r\n",
            block(LOCAL, UNSPEC, b""),
            block(LOCAL, TCP4, ends),
            block(LOCAL, 0xFF, b"\x03\x00"),
            block(LOCAL, TCP4, b"short"),
            block(LOCAL, UNSPEC, bytes(HEADER_BYTES - 16)),
            block(PROXY, UNSPEC, b""),
            block(PROXY, UNSPEC, element(4, bytes(20))),
            checked(LOCAL, TCP4, ends),
            checked(PROXY, UNSPEC, b""),
        ]
        for header in cases:
            self.assertEqual(read(header + b"rest", 5), (ProxyHeader(), b"rest"), header)

    def test_unix(self) -> None:
        """Ends of a UNIX connection are paths; one without is anonymous, an abstract name begins with @."""
        cases = [(b"/run/a", "/run/a"), (b"\0name", "@name"), (b"", ""), (b"x" * 108, "x" * 108), (b"\xff\xfe", "��")]
        for raw, path in cases:
            header, rest = read(block(PROXY, UNIX, raw.ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")))
            self.assertEqual((header, rest), (ProxyHeader(Endpoint(path, None), Endpoint("/run/b", None)), b""))
        self.assertEqual(str(Endpoint("", None)), "unix:anonymous")
        self.assertEqual(str(Endpoint("/run/a", None)), "unix:/run/a")

    def test_as_written(self) -> None:
        """Addresses are shown as those of sockets are, however the proxy wrote them."""
        header, _ = read(b"PROXY TCP6 2001:0DB8:0::1 ::FFFF:192.0.2.9 1 65535\r\n")
        assert header is not None
        self.assertEqual((str(header.source), str(header.destination)), ("[2001:db8::1]:1", "[::ffff:192.0.2.9]:65535"))

    def test_known_checksum(self) -> None:
        """The checksum is that of Castagnoli, by the vectors of RFC 3720, B.4."""
        self.assertEqual(crc32c(bytes(32)), 0x8A9136AA)
        self.assertEqual(crc32c(b"\xff" * 32), 0x62A8AB43)
        self.assertEqual(crc32c(bytes(range(32))), 0x46DD794E)


class BadTests(SynchronousTestCase):
    def refused(self, data: bytes, *, is_missing: bool) -> None:
        """See that a stream is refused, however it is cut, and whether it counts as none or as a bad one."""
        for size in (0, 1, 7):
            error = self.assertRaises(ProxyHeaderError, read, data, size)
            self.assertEqual(error.is_missing, is_missing, data)

    def test_bad(self) -> None:
        """What is not as it must be is refused, in both versions, and is not called missing."""
        ends = ends4("192.0.2.1", "192.0.2.2", (1, 2))
        good = checked(PROXY, TCP4, ends)
        cases = [
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n",
            b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 x 2\r\n",
            b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
            b"PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
            b"PROXY TCP4 3221225985 192.0.2.2 1 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            b"PROXY TCP6 ::1::2 ::1 1 2\r\n",
            b"PROXY TCP6 12345::1 ::1 1 2\r\n",
            b"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY UNKNOWNS\r\n",
            b"PROXY \r\n",
            b"PROXY TCP4 \x1b[31mEVIL 192.0.2.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1\0 192.0.2.2 1 2\r\n",
            "PROXY TCP4 \u066192.0.2.1 192.0.2.2 1 2\r\n".encode(),
            b"PROXY UNKNOWN ".ljust(LINE_BYTES - 1, b"x") + b"\r\n",
            b"PROXY UNKNOWN " + b"x" * 5000 + b"\r\n",
            block(0x11, TCP4, ends),
            block(0x22, TCP4, ends),
            block(0x31, TCP4, ends),
            block(PROXY, 0x12, ends),
            block(PROXY, 0x10, ends),
            block(PROXY, 0x32, bytes(216)),
            block(PROXY, 0x41, ends),
            block(PROXY, TCP6, ends),
            block(PROXY, TCP4, ends[:-1]),
            block(PROXY, UNIX, bytes(215)),
            block(PROXY, TCP4, ends + b"\x04"),
            block(PROXY, TCP4, ends + element(4, b"1234")[:-1]),
            block(PROXY, TCP4, ends + element(3, b"123")),
            block(PROXY, TCP4, ends + element(3, bytes(4)) * 2),
            block(PROXY, UNSPEC, b"\x01"),
            block(PROXY, TCP4, ends + bytes(HEADER_BYTES - 16 - 12 + 1)),
            block(LOCAL, UNSPEC, bytes(0xFFFF)),
            SIGNATURE + b"\x21\x11\xff\xff",
            good[:-1] + bytes((good[-1] ^ 1,)),
            good[:16] + b"\xc1" + good[17:],
        ]
        for data in cases:
            self.refused(data, is_missing=False)

    def test_bounds(self) -> None:
        """The longest of each version is taken, and one byte more is not."""
        longest = b"PROXY UNKNOWN ".ljust(LINE_BYTES - 2, b"x") + b"\r\n"
        self.assertEqual((LINE_BYTES, read(longest)), (107, (ProxyHeader(), b"")))
        self.refused(longest[:-2] + b"x\r\n", is_missing=False)
        self.assertEqual(read(block(LOCAL, UNSPEC, bytes(2048 - 16)))[1], b"")
        self.refused(block(LOCAL, UNSPEC, bytes(2048 - 15)), is_missing=False)

    def test_missing(self) -> None:
        """What does not even begin like a header is known as such at the first byte that is wrong."""
        for data in (
            b"<13>a line\n",
            b"PROXX",
            b"proxy ",
            b"\r\n\r\nline",
            b"\n",
            b"\x16\x03\x01",
            SIGNATURE[:-1] + b"\r",
        ):
            self.refused(data, is_missing=True)
            self.refused(data + b"x" * 5000, is_missing=True)

    @given(headers(is_checked=True), st.data())
    @example((checked(PROXY, TCP4, ends4("1.2.3.4", "5.6.7.8", (9, 10))), ProxyHeader()), None)
    def test_a_checksum_protects(self, drawn: tuple[bytes, ProxyHeader], data: st.DataObject | None) -> None:
        """With a checksum, no change of one bit makes another header of it: it is refused, not whole, or the same."""
        header, said = drawn
        flips = range(len(header) * 8) if data is None else [data.draw(st.integers(0, len(header) * 8 - 1))]
        said = read(header)[0] or said
        for bit in flips:
            changed = bytearray(header)
            changed[bit // 8] ^= 1 << bit % 8
            try:
                found, rest = read(bytes(changed))
            except ProxyHeaderError:
                continue
            if found is not None:
                # The one change that is not seen: the element is no checksum any more.
                self.assertEqual((found, rest), (said, b""), bit)

    @given(headers(), st.data())
    def test_mutations(self, drawn: tuple[bytes, ProxyHeader], data: st.DataObject) -> None:
        """Whatever is put in place of bytes of it, a header is refused, unfinished, or says what is written in it."""
        header, _ = drawn
        begin = data.draw(st.integers(0, len(header)))
        end = data.draw(st.integers(begin, len(header)))
        changed = header[:begin] + data.draw(st.binary(max_size=8)) + header[end:]
        assume(changed)
        try:
            found, rest = read(changed)
        except ProxyHeaderError:
            return
        self.assertEqual(read(changed, 1), (found, rest))
        if found is not None and found.source is not None and changed.startswith(b"PROXY"):
            assert rest is not None
            line = changed[: len(changed) - len(rest)]
            self.assertEqual(line.count(b" "), 5)
            self.assertEqual(line.decode().split()[4:], [str(end.port) for end in found if end is not None])

    @given(st.binary(max_size=300), st.integers(1, 20))
    def test_anything(self, data: bytes, size: int) -> None:
        """Any bytes, cut anywhere, are refused or wait, or are a header; nothing else happens, and little is kept."""
        outcomes: list[object] = []
        for cut in (0, size):
            try:
                outcomes.append(read(data, cut) if data else (None, None))
            except ProxyHeaderError as error:
                outcomes.append(error.is_missing)
        self.assertEqual(*outcomes)
