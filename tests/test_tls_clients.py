"""Real clients that speak TLS against a real process: who is let in, every record compared, certificates swapped."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from typing import Any

from cryptography.hazmat.primitives import serialization
from twisted.trial.unittest import SynchronousTestCase

from tests.clients import absent, free_port
from tests.relp_client import RelpClient
from tests.server import PATIENCE, Server, numbered, wait_until
from tests.test_clients import syslog_ng
from tests.test_real_clients import Rsyslog, program
from tests.test_relp_clients import Omrelp, omrelp
from tests.tls import NAME, Certificate, Folder, client_context, issue, issued

ANY = "tcp:0:interface=127.0.0.1"


class TLSServerCase(SynchronousTestCase):
    """A server that speaks lines and RELP over TLS and nothing else, to certificates of ``*.example.com``."""

    peers: tuple[str, ...] = ("*.example.com",)
    flags: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.folder = Folder()
        self.addCleanup(self.folder.remove)
        files = ("--tls-certificate", self.folder.certificate, "--tls-key", self.folder.key)
        asks = ("--tls-client-ca", self.folder.client_ca) if self.peers else ()
        peers = [word for peer in self.peers for word in ("--tls-peer", peer)]
        self.server = Server("--listen-tls", ANY, "--relp-tls", ANY, *files, *asks, *peers, *self.flags)
        self.addCleanup(self.server.kill)
        self.server.wait_ready()
        self.lines, self.relp = self.server.ports
        self.certificate, self.key = issued("web1.example.com").write(self.folder.path, "client")
        self.ca = self.folder.client_ca

    def connect(
        self, shown: Certificate | None = None, *, port: int | None = None, context: ssl.SSLContext | None = None
    ) -> ssl.SSLSocket:
        """Connect as a client of the standard library does; with the certificate of ``web1`` by default."""
        settings = context or client_context(shown or issued("web1.example.com"))
        plain = socket.create_connection(("127.0.0.1", port or self.lines), PATIENCE)
        try:
            return settings.wrap_socket(plain, server_hostname=NAME)
        except BaseException:
            plain.close()
            raise

    def send(self, data: bytes, **options: Any) -> None:
        """Send on a connection of its own, say goodbye and wait for the server's."""
        with self.connect(**options) as peer:
            peer.sendall(data)
            with contextlib.suppress(OSError):
                peer.unwrap().close()

    def wait_lines(self, count: int) -> list[bytes]:
        wait_until(lambda: self.server.output().count(b"\n") >= count, f"{count} lines", 60)
        self.assertEqual(self.server.metrics()["ingest_conservation_error"], 0)
        return self.server.output().splitlines()

    def handshakes(self, listener: str = "tls-0") -> dict[str, int]:
        """Give what became of handshakes, from the page of metrics."""
        found = {}
        for line in self.server.get("metrics").splitlines():
            head, _, value = line.partition("} ")
            if head.startswith(f'ingest_tls_handshakes_total{{listener="{listener}",result="') and float(value):
                found[head.split('"')[3]] = int(float(value))
        return found


class PythonTests(TLSServerCase):
    flags = ("--sink", "file:out.log?format=json")

    def test_records_and_who_sent_them(self) -> None:
        """Every record arrives once and in order, with the name of who sent it beside it."""
        lines = numbered("over tls", 20_000)
        self.send(b"".join(line + b"\n" for line in lines))
        path = pathlib.Path(self.server.folder) / "out.log"
        wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= len(lines), "all lines")
        found = [json.loads(line) for line in path.read_bytes().splitlines()]
        self.assertEqual([record["message"].encode() for record in found], lines)
        self.assertEqual({record["peer_identity"] for record in found}, {"web1.example.com"})
        self.assertTrue(any("connected as web1.example.com" in line for line in self.server.log))

    def test_connections_page(self) -> None:
        """The page of connections says who each is."""
        with self.connect() as peer:
            peer.sendall(b"one\n")
            wait_until(lambda: "web1.example.com" in self.server.get("connections"), "the connection is shown")
            (row,) = json.loads(self.server.get("connections"))
            self.assertEqual(row["identity"], "web1.example.com")
            self.assertTrue(row["fingerprint"].startswith("SHA256:"))

    def test_no_plain_listener(self) -> None:
        """Where TLS listeners are given and no other, there is none in plain text; plain text is named."""
        self.assertEqual([row["tls"] is not None for row in self.server.status()["listeners"]], [True, True])
        with socket.create_connection(("127.0.0.1", self.lines), PATIENCE) as peer:
            peer.sendall(b"<13>plain\n")
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(peer.recv(1), b"")
        self.assertEqual(self.handshakes(), {"protocol": 1})
        wait_until(
            lambda: any("sent plain text where TLS has to begin" in line for line in self.server.log), "its line"
        )

    def test_relp(self) -> None:
        """A RELP client over TLS is answered; the goodbye reaches it."""
        context = client_context(issued("web1.example.com"))
        with RelpClient(self.relp, wrap=lambda plain: context.wrap_socket(plain, server_hostname=NAME)) as client:
            client.open()
            for number in range(100):
                client.send(b"record %d" % number)
            client.close()
        wait_until(lambda: self.server.metrics()["ingest_relp_acks_total[relp-tls-0]"] == 100, "all are answered")


class OpenSSLTests(TLSServerCase):
    def client(self, *options: str, data: bytes = b"one\ntwo\n") -> "subprocess.CompletedProcess[bytes]":
        path = program("openssl", "openssl")
        command = [path, "s_client", "-connect", f"127.0.0.1:{self.lines}", "-no_ign_eof", "-CAfile", self.ca, *options]
        return subprocess.run(command, input=data, capture_output=True, timeout=PATIENCE, check=False)

    def test_versions(self) -> None:
        """It gets through with TLS 1.2 and 1.3 (s_client); nothing is compressed, resumed or kept as a ticket."""
        shown = ("-cert", self.certificate, "-key", self.key)
        for version in ("-tls1_2", "-tls1_3"):
            said = self.client(version, *shown)
            self.assertEqual(said.returncode, 0, said.stderr)
            self.assertNotIn(b"TLS session ticket:", said.stdout)
            self.assertIn(b"Compression: NONE", said.stdout)
        self.assertEqual(self.wait_lines(4), [b"one", b"two"] * 2)

    def test_refused(self) -> None:
        """Without a certificate, with renegotiation, with old versions nothing gets in."""
        self.client("-tls1_3")
        self.client("-tls1_2")
        self.assertEqual(self.handshakes(), {"no_certificate": 2})
        shown = ("-cert", self.certificate, "-key", self.key)
        self.client("-tls1_1", "-cipher", "ALL:@SECLEVEL=0", *shown)
        self.assertEqual(self.handshakes(), {"no_certificate": 2, "protocol": 1})
        said = self.client("-tls1_2", *shown, data=b"R\n")
        self.assertIn(b"no renegotiation", said.stderr)
        self.assertEqual(self.server.output(), b"")


def drivers(*names: str) -> None:
    """See that rsyslog's drivers are there."""
    for name in names:
        found = [
            folder for folder in pathlib.Path("/usr/lib").glob("*/rsyslog") if (folder / f"lmnsd_{name}.so").exists()
        ]
        if not found:
            absent(f"needs rsyslog's driver {name} (Debian packages rsyslog-gnutls, rsyslog-openssl)")


class SecureRsyslog(Rsyslog):
    """An rsyslog that forwards over TLS."""

    def __init__(self, path: str, target: int, case: TLSServerCase, driver: str) -> None:
        self.settings = (
            f'defaultNetstreamDriverCAFile="{case.ca}" defaultNetstreamDriverCertFile="{case.certificate}" '
            f'defaultNetstreamDriverKeyFile="{case.key}"'
        )
        options = (
            f'streamDriver="{driver}" streamDriverMode="1" streamDriverAuthMode="x509/name" '
            f'streamDriverPermittedPeers="{NAME}"'
        )
        super().__init__(path, target, options)


class RsyslogTests(TLSServerCase):
    def omfwd(self, driver: str) -> None:
        sender = SecureRsyslog(program("rsyslogd", "rsyslog"), self.lines, self, driver)
        self.addCleanup(sender.stop)
        lines = [b"<13>" + line for line in numbered(f"via {driver}", 3_000)]
        with socket.create_connection(("127.0.0.1", sender.port), PATIENCE) as peer:
            peer.sendall(b"\n".join(lines) + b"\n")
        self.assertEqual(self.wait_lines(3_000), lines)
        self.assertEqual(self.handshakes(), {"ok": 1})

    def test_omfwd_gtls(self) -> None:
        """Forwarding (omfwd) with the GnuTLS driver, which speaks TLS 1.2 by default."""
        drivers("gtls")
        self.omfwd("gtls")

    def test_omfwd_ossl(self) -> None:
        """Forwarding (omfwd) with the OpenSSL driver."""
        drivers("ossl")
        self.omfwd("ossl")

    def omrelp(self, library: str) -> None:
        sender = SecureOmrelp(omrelp(), self.relp, self, library)
        self.addCleanup(sender.stop)
        records = numbered(f"relp via {library}", 1_000)
        sender.feed(records)
        self.assertEqual(self.wait_lines(1_000), records)
        self.assertEqual(self.handshakes("relp-tls-0"), {"ok": 1})
        wait_until(lambda: self.server.metrics()["ingest_relp_acks_total[relp-tls-0]"] == 1_000, "all are answered")

    def test_omrelp_gnutls(self) -> None:
        """RELP (omrelp) with GnuTLS."""
        self.omrelp("gnutls")

    def test_omrelp_openssl(self) -> None:
        """RELP (omrelp) with OpenSSL."""
        self.omrelp("openssl")

    def test_omrelp_anonymous(self) -> None:
        """RELP (omrelp) without certificates on either side is refused: nobody would know who is who."""
        sender = SecureOmrelp(omrelp(), self.relp, self, "gnutls", is_anonymous=True)
        self.addCleanup(sender.stop)
        sender.feed([b"secret"])
        wait_until(lambda: self.handshakes("relp-tls-0"), "a handshake ends")
        self.assertLessEqual(set(self.handshakes("relp-tls-0")), {"protocol", "no_certificate"})
        self.assertEqual(self.server.output(), b"")


class SecureOmrelp(Omrelp):
    """An rsyslog that forwards over RELP and TLS."""

    def __init__(
        self, path: str, target: int, case: TLSServerCase, library: str, *, is_anonymous: bool = False
    ) -> None:
        self.library = library
        shown = (
            ""
            if is_anonymous
            else (
                f'tls.caCert="{case.ca}" tls.myCert="{case.certificate}" tls.myPrivKey="{case.key}" '
                f'tls.authMode="name" tls.permittedPeer=["{NAME}"]'
            )
        )
        super().__init__(path, target, f'tls="on" {shown}')

    def action(self, target: int, options: str) -> str:
        """See `Rsyslog`."""
        loaded = f'module(load="omrelp" tls.tlslib="{self.library}")'
        return super().action(target, options).replace('module(load="omrelp")', loaded)


class OtherClientTests(TLSServerCase):
    def test_logger_through_stunnel(self) -> None:
        """util-linux `logger` through stunnel."""
        stunnel, logger = program("stunnel4", "stunnel4"), program("logger", "bsdutils")
        port = free_port()
        config = self.folder.path / "stunnel.conf"
        config.write_text(
            f"foreground = yes\npid =\n[logs]\nclient = yes\naccept = 127.0.0.1:{port}\n"
            f"connect = 127.0.0.1:{self.lines}\ncert = {self.certificate}\nkey = {self.key}\n"
            f"CAfile = {self.ca}\nverifyChain = yes\ncheckHost = {NAME}\nsni = {NAME}\n"
        )
        self.start(stunnel, str(config))
        wait_until(lambda: self.accepts(port), "stunnel accepts")
        for number in range(3):
            command = [logger, "-T", "-n", "127.0.0.1", "-P", str(port), "-t", "app", f"message {number}"]
            subprocess.run(command, check=True, timeout=PATIENCE)
        lines = self.wait_lines(3)
        self.assertEqual(sorted(line[-9:] for line in lines), [b"message 0", b"message 1", b"message 2"])

    def syslog_ng(self, destination: str) -> list[bytes]:
        port = free_port()
        tls = f'tls(ca-file("{self.ca}") cert-file("{self.certificate}") key-file("{self.key}") peer-verify(yes))'
        config = self.folder.path / "syslog-ng.conf"
        config.write_text(
            "@version: 3.38\n"
            f'source s {{ network(ip("127.0.0.1") port({port})); }};\n'
            f'destination d {{ {destination}("127.0.0.1" port({self.lines}) transport("tls") {tls}); }};\n'
            "log { source(s); destination(d); };\n"
        )
        places = [f"--{key}={self.folder.path}/{key}" for key in ("persist-file", "control", "pidfile")]
        self.start(*syslog_ng(), "--foreground", f"--cfgfile={config}", *places)
        wait_until(lambda: self.accepts(port), "syslog-ng accepts")
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as peer:
            peer.sendall(b"<14>Nov 21 00:00:00 host shop[7]: one\n<11>Nov 21 00:00:01 host shop[7]: two\n")
            return self.wait_lines(2)

    def test_syslog_ng(self) -> None:
        """syslog-ng's ``network()`` and ``syslog()``: lines, and counted frames."""
        lines = self.syslog_ng("network")
        self.assertEqual([line[-3:] for line in lines], [b"one", b"two"])

    def test_syslog_ng_frames(self) -> None:
        """syslog-ng's ``syslog()``: counted frames (RFC 5425)."""
        lines = self.syslog_ng("syslog")
        self.assertEqual([(line[:4], line[-3:]) for line in lines], [(b"<14>", b"one"), (b"<11>", b"two")])

    def accepts(self, port: int) -> bool:
        """Whether somebody listens."""
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return True
        except OSError:
            return False

    def start(self, *command: str) -> None:
        """Start a client, ended with the test."""
        client = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

        def end() -> None:
            client.kill()
            client.wait()

        self.addCleanup(end)


class SwapTests(TLSServerCase):
    def test_under_load(self) -> None:
        """Certificates swapped while twenty clients reconnect: nothing lost or doubled, the new one is shown."""
        rounds, each = 10, 200
        failed: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for turn in range(rounds):
                    lines = [b"%d %d %d" % (number, turn, line) for line in range(each)]
                    self.send(b"".join(line + b"\n" for line in lines))
            except BaseException as problem:  # noqa: BLE001 - told by the test
                failed.append(problem)

        lasting = self.connect()
        self.addCleanup(lasting.close)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        swaps = 0
        while any(thread.is_alive() for thread in threads) or swaps < 2:
            fresh = issue(NAME)
            self.folder.renew(fresh)
            self.server.send_signal(signal.SIGHUP)
            swaps += 1
            wait_until(lambda: self.reloads()[0] >= swaps, "the certificate is read anew")  # noqa: B023 - at once
            with self.connect() as newcomer:
                shown = newcomer.getpeercert(binary_form=True)
                self.assertEqual(shown, fresh.certificate.public_bytes(serialization.Encoding.DER))
            time.sleep(0.1)
        for thread in threads:
            thread.join(PATIENCE)
        lasting.sendall(b"lasting\n")
        self.assertEqual(failed, [])
        wanted = [b"%d %d %d" % (n, t, i) for n in range(20) for t in range(rounds) for i in range(each)]
        self.assertEqual(sorted(self.wait_lines(len(wanted) + 1)), sorted([*wanted, b"lasting"]))
        self.assertEqual(self.reloads()[1], 0)

    def reloads(self) -> tuple[int, int]:
        """Give how often certificates were read anew, well and not: by both listeners."""
        page = self.server.get("metrics")
        counts = {
            line.split('"')[1]: int(float(line.split()[-1]))
            for line in page.splitlines()
            if line.startswith("ingest_tls_reloads_total{")
        }
        return counts["ok"] // 2, counts["error"]

    def test_garbage(self) -> None:
        """Garbage in place of the certificate is noticed by itself, told, and changes nothing."""
        shutil.copy(self.folder.certificate, self.folder.path / "kept.pem")
        pathlib.Path(self.folder.certificate).write_bytes(b"garbage")
        wait_until(lambda: self.reloads()[1] == 2, "the garbage is noticed")
        self.send(b"still here\n")
        self.assertEqual(self.wait_lines(1), [b"still here"])
        self.assertTrue(any("could not be read anew, the old one stays" in line for line in self.server.log))
        os.replace(self.folder.path / "kept.pem", self.folder.certificate)
        wait_until(lambda: self.reloads()[0] == 1, "the good one is read")
