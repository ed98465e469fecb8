"""
Attack: what comes over TLS, and before it: stalled handshakes, certificates of others, tricks with names, cut endings.

Cost to a careless receiver: records of strangers, memory for handshakes that never end, or the connections of those who
are in. Bound proven: nobody is let in whose certificate does not name a sender, and who is in notices nothing.
"""

import contextlib
import os
import signal
import socket
import ssl
import struct
import threading
import time
from datetime import timedelta

from tests.attacks.report import Group, Scenario
from tests.server import PATIENCE, wait_until
from tests.test_server_tls import REFUSED
from tests.test_tls_clients import TLSServerCase
from tests.tls import NAME, Certificate, client_context, issue, issued
from twisted_ingest.limits import DOORWAY_TIMEOUT, KIB, MIB

STALLED = Scenario(
    Group.TLS,
    "A thousand stalled handshakes",
    "five hundred peers connect and say nothing, five hundred send their hello and stop, over and over",
    "handshakes have a limit of their own and make room for each other; each ends at its deadline; who is in sends on",
    ("ingest_tls_handshakes_active", 'ingest_connections_refused_total{reason="doorway_timeout"}'),
)
STRANGERS = Scenario(
    Group.TLS,
    "Certificates of others",
    "none, expired, not yet valid, of another authority, self-signed, for servers only, of another name, wildcards, "
    "NUL and blanks in names, 110 KiB, each with records in the same flight",
    "refused by an alert before any record is accepted, each counted by why; one line of the log, folded",
    ('ingest_tls_handshakes_total{result="wrong_name"}', 'ingest_connections_refused_total{reason="tls_peer"}'),
)
LARGE = Scenario(
    Group.TLS,
    "Certificates of a hundred kilobytes",
    "two hundred handshakes with a certificate of 60 KiB, which OpenSSL takes, and with one of 110 KiB",
    "memory stays; the larger is refused unread",
    ('ingest_tls_handshakes_total{result="protocol"}',),
)
WRONG = Scenario(
    Group.TLS,
    "Anything but TLS on a TLS port",
    "lines, RELP, HTTP, random bytes, a record of TLS with nonsense in it",
    "named in the log with the fix, counted, reset; nothing is delivered",
    ('ingest_connections_refused_total{reason="plain"}', 'ingest_tls_handshakes_total{result="protocol"}'),
)
WEAK = Scenario(
    Group.TLS,
    "Old and weak TLS",
    "TLS 1.0 and 1.1, ciphers without forward secrecy or authenticated encryption",
    "refused; nothing can be set that lets them in",
    ('ingest_tls_handshakes_total{result="protocol"}',),
)
MUTE = Scenario(
    Group.TLS,
    "A peer that never answers the goodbye",
    "connections that are open at a stop, whose peers neither read nor close",
    "told goodbye and FIN, read on until quiet, then reset: the stop is in time, and what was sent is delivered",
    ('ingest_connections_closed_total{reason="drain"}',),
)
CUT = Scenario(
    Group.TLS,
    "A FIN without a goodbye",
    "connections cut in the middle of a line, and of a RELP frame",
    "counted; the line is delivered as far as it came, the frame is not answered",
    ("ingest_tls_truncated_total", "ingest_relp_unanswered_records_total"),
)
DRIP = Scenario(
    Group.TLS,
    "A record of TLS that never ends",
    "half a record, its rest a byte every two seconds, beside a peer that sends",
    "held as it came; it keeps no deadline from passing, and the other peer notices nothing",
    ('ingest_connections_closed_total{reason="idle"}',),
)
SPOILED = Scenario(
    Group.TLS,
    "A certificate replaced by garbage",
    "garbage, a key that does not fit, an expired certificate, each followed by SIGHUP",
    "the old one stays and is shown, the error is in the log and counted; a good one is taken over",
    ('ingest_tls_reloads_total{result="error"}', "ingest_tls_certificate_not_after_timestamp_seconds"),
)

_HOUR = timedelta(hours=1)

_RESET = struct.pack("ii", 1, 0)


def hello() -> bytes:
    """Give what a client of TLS begins with."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(incoming, outgoing, server_hostname=NAME)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


class StallTests(TLSServerCase):
    def test_stalled_handshakes(self) -> None:
        """Memory is flat over rounds of a thousand stalled handshakes, and a peer that is in sends on."""
        said, levels, sent = hello(), [], 0
        with self.connect() as peer:
            for _ in range(3):
                stalled = []
                for number in range(1000):
                    one = socket.create_connection(("127.0.0.1", self.lines), PATIENCE)
                    stalled.append(one)
                    if number % 2:
                        with contextlib.suppress(OSError):
                            one.sendall(said)
                    if number % 100 == 0:
                        peer.sendall(b"in %d\n" % sent)
                        sent += 1
                wait_until(lambda: len(self.server.output().splitlines()) == sent, "the peer that is in is read")  # noqa: B023
                active = self.server.metrics()["ingest_tls_handshakes_active"]
                self.assertLessEqual(active, 1000)
                self.assertGreater(active, 200)
                levels.append(self.server.rss())
                for one in stalled:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    one.close()
                wait_until(lambda: self.server.metrics()["ingest_tls_handshakes_active"] == 0, "all are gone")
        self.assertLess(levels[-1] - levels[0], 16 * MIB)
        grown = f"{(levels[-1] - levels[0]) / MIB:.1f} MiB"
        STALLED.measured(
            f"3 rounds of 1,000: memory grew by {grown} from the first to the last; {sent} lines of the other"
        )

    def test_deadline(self) -> None:
        """Who stalls is reset at the deadline, and one whose certificate is good comes in meanwhile."""
        with socket.create_connection(("127.0.0.1", self.lines), PATIENCE) as silent:
            begun = time.monotonic()
            self.send(b"in\n")
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(silent.recv(1), b"")
            self.assertGreater(time.monotonic() - begun, DOORWAY_TIMEOUT - 1)
        self.assertEqual(self.handshakes(), {"ok": 1, "timeout": 1})
        STALLED.measured("a silent peer reset after 10 s")


class StrangerTests(TLSServerCase):
    def attempt(self, shown: Certificate | None, data: bytes = b"a record\n") -> None:
        """Try to send with a certificate; whatever ends that."""
        context = client_context(shown)
        with contextlib.suppress(OSError), self.connect(context=context) as peer:
            peer.sendall(data)
            peer.recv(1)

    def test_certificates(self) -> None:
        """Not one record of those who may not send is accepted; each is counted by why."""
        wanted: dict[str, int] = {}
        for make, result in REFUSED.values():
            self.attempt(make())
            wanted[result] = wanted.get(result, 0) + 1
        wait_until(lambda: sum(self.handshakes().values()) == len(REFUSED), "all are counted")
        self.assertEqual(self.handshakes(), wanted)
        self.assertEqual((self.server.metrics()["ingest_records_total"], self.server.output()), (0, b""))
        lines = [line for line in self.server.log if "refused 127.0.0.1" in line]
        self.assertLessEqual(len(lines), len(REFUSED))
        self.assertFalse([line for line in lines if "\0" in line])
        self.send(b"mine\n")
        self.assertEqual(self.wait_lines(1), [b"mine"])
        STRANGERS.measured(f"{len(REFUSED)} kinds refused, no record of theirs accepted")

    def test_large(self) -> None:
        """Certificates near and above what OpenSSL takes leave no memory behind."""
        near, above = issue("web1.example.org", padding=60 * KIB), issue("web1.example.com", padding=110 * KIB)
        for shown in (near, above):
            self.attempt(shown)
        before = self.server.rss()
        peak = self.server.peak_rss()
        for _ in range(100):
            self.attempt(near)
            self.attempt(above)
        grown = self.server.rss() - before
        self.assertLess(grown, 16 * MIB)
        self.assertLess(self.server.peak_rss() - peak, 64 * MIB)
        self.assertEqual(self.server.output(), b"")
        LARGE.measured(f"200 handshakes: memory grew by {grown / MIB:.1f} MiB")


class ProtocolTests(TLSServerCase):
    def test_no_tls(self) -> None:
        """What is no TLS is reset, and named."""
        said = (
            b"<13>a line\n",
            b"1 open 30 relp_version=0\ncommands=syslog\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            os.urandom(300).replace(b"\x16", b"\x17"),
            b"\x16\x03\x01\x00\x10" + bytes(16),
            b"\x16\x03\x01\xff\xff" + bytes(70_000),
        )
        for data in said:
            peer = socket.create_connection(("127.0.0.1", self.lines), PATIENCE)
            with peer, contextlib.suppress(OSError):
                peer.sendall(data)
                while peer.recv(4096):
                    pass
        wait_until(lambda: self.handshakes().get("protocol") == len(said), "all are counted")
        self.assertEqual(self.server.output(), b"")
        WRONG.measured(f"{len(said)} kinds refused, nothing delivered")

    def test_weak(self) -> None:
        """Old versions and weak ciphers get nowhere."""
        tried = 0
        for version in (ssl.TLSVersion.TLSv1_2,):
            for ciphers in (
                "AES128-SHA",
                "ECDHE-ECDSA-AES256-SHA",
                "ECDHE-ECDSA-AES256-SHA384",
                "PSK-AES128-GCM-SHA256",
            ):
                context = client_context(issued("web1.example.com"))
                context.maximum_version = version
                context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
                with self.assertRaises(OSError):
                    self.connect(context=context).close()
                tried += 1
        self.assertEqual(self.handshakes(), {"protocol": tried})
        WEAK.measured(f"{tried} suites refused; TLS 1.1 by openssl s_client in test_tls_clients")


class EndTests(TLSServerCase):
    def test_stop(self) -> None:
        """A stop is in time although nobody answers its goodbye, and loses nothing of what was sent."""
        peers = [self.connect() for _ in range(10)]
        for number, peer in enumerate(peers):
            peer.sendall(b"line %d\n" % number)
        self.wait_lines(10)
        begun = time.monotonic()
        self.server.stop(signal.SIGTERM)
        seconds = time.monotonic() - begun
        for peer in peers:
            peer.close()
        self.assertLess(seconds, 9)
        self.assertEqual(self.server.output().count(b"\n"), 10)
        MUTE.measured("10 mute peers: the stop ended inside its deadline, 10 of 10 lines delivered")

    def test_cut(self) -> None:
        """A line that a FIN cuts is delivered, a frame is not answered, and both are counted."""
        opening = b"relp_version=0\ncommands=syslog"
        for port, data in (
            (self.lines, b"whole\npart"),
            (self.relp, b"1 open %d %s\n2 syslog 100 part" % (len(opening), opening)),
        ):
            peer = self.connect(port=port)
            peer.sendall(data)
            raw = socket.socket(fileno=peer.detach())
            raw.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while raw.recv(4096):
                    pass
            raw.close()
        wait_until(lambda: self.server.metrics()["ingest_connections_open"] == 0, "both are closed")
        values = self.server.metrics()
        self.assertEqual(values["ingest_tls_truncated_total[tls-0]"], 1)
        self.assertEqual(values["ingest_tls_truncated_total[relp-tls-0]"], 1)
        self.assertEqual(self.wait_lines(2), [b"whole", b"part"])
        CUT.measured("2 of 2 counted; the line delivered as far as it came, the frame not")


class DripTests(TLSServerCase):
    flags = ("--idle-timeout", "4s")

    def test_drip(self) -> None:
        """A record of TLS that is dripped does not keep its peer from being idle."""
        peer = self.connect()
        incoming = peer.detach()
        raw = socket.socket(fileno=incoming)
        self.addCleanup(raw.close)
        raw.sendall(b"\x17\x03\x03\x10\x00")
        ended = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not ended.wait(1):
                    raw.sendall(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            wait_until(lambda: self.server.metrics()["ingest_connections_closed_total[idle]"] == 1, "it is idle", 20)
        finally:
            ended.set()
            dripping.join(PATIENCE)
        DRIP.measured("reset after the idle timeout")


class ReloadTests(TLSServerCase):
    def errors(self) -> int:
        page = self.server.get("metrics")
        (line,) = [line for line in page.splitlines() if line.startswith('ingest_tls_reloads_total{result="error"}')]
        return int(float(line.split()[-1]))

    def test_spoiled(self) -> None:
        """Whatever is put in place of the certificate, the old one is shown until a good one is there."""
        good = issued("web1.example.com")
        spoiled = (
            Certificate(b"garbage", b"garbage"),
            Certificate(issue(NAME).chain, issue(NAME).key),
            issue(NAME, ends=-_HOUR),
            issue(NAME, begins=_HOUR),
        )
        for number, each in enumerate(spoiled, 1):
            self.folder.renew(each)
            self.server.send_signal(signal.SIGHUP)
            # Both listeners have it; a look of their own may have seen it too.
            wait_until(lambda: self.errors() >= 2 * number, "the error is counted")  # noqa: B023
            self.send(b"round %d\n" % number, shown=good)
        self.assertEqual(len(self.wait_lines(len(spoiled))), len(spoiled))
        self.assertTrue(any("could not be read anew, the old one stays" in line for line in self.server.log))
        SPOILED.measured(f"{len(spoiled)} kinds: the old one stayed, a record came in after each")
