"""TLS on a virtual transport and clock: who is let in, and what is promised of every connection."""

import ssl
import warnings
from datetime import timedelta
from ipaddress import ip_address
from typing import Any, ClassVar

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.tls import DAY, Certificate, Client, Folder, client_context, issue, issued, speak_tls
from twisted_ingest.errors import CloseReason, RefuseReason
from twisted_ingest.limits import (
    BUDGET_HIGH,
    CLOSE_TIMEOUT,
    DOORWAY_TIMEOUT,
    DRAIN_QUIET,
    DRAIN_TIMEOUT,
    IDLE_TIMEOUT,
    KIB,
    READ_SIZE,
)
from twisted_ingest.networks import AllowList, parse_network
from twisted_ingest.server.certificates import Files
from twisted_ingest.server.connection import Connection
from twisted_ingest.server.tls import CONNECTION_BYTES, HANDSHAKE_BYTES
from twisted_ingest.server.tls_session import SLICE_SIZE
from twisted_ingest.testing import Rig, StalledSink

OPENING = b"relp_version=0\ncommands=syslog"
OPEN = b"1 open %d %s\n" % (len(OPENING), OPENING)


class TLSCase(SynchronousTestCase):
    folder: ClassVar[Folder]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Folder()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.folder.remove()

    def files(self, *, asks: bool = True, **options: Any) -> Files:
        folder = self.folder
        return Files(folder.certificate, folder.key, folder.client_ca if asks else None, **options)

    def rig(self, *sinks: Any, peers: tuple[str, ...] = (), asks: bool = False, **options: Any) -> Rig:
        rig = Rig(*sinks, **options)
        self.tls = speak_tls(rig, self.files(asks=asks or bool(peers)), *peers)
        self.addCleanup(lambda: self.assertEqual(rig.survey.conservation_error(), 0))
        return rig

    def client(self, rig: Rig, shown: Certificate | None = None, *, then: bytes = b"", **options: Any) -> Client:
        client = Client(rig, client_context(shown), **options)
        client.shake_hands(then=then)
        return client

    def connection(self, rig: Rig) -> Connection:
        (connection,) = rig.factory.connections.values()
        return connection

    def let_through(self, rig: Rig, sink: StalledSink) -> None:
        """Have a sink take what comes, until nothing comes any more."""
        for _ in range(20):
            sink.release()
            rig.turn(0.01)

    def ended(self) -> dict[str, int]:
        return {result.value: count for result, count in self.tls.ledger.handshakes.items() if count}

    def refused(self, rig: Rig) -> dict[str, int]:
        return {reason.value: count for reason, count in rig.factory.ledger.connections_refused.items() if count}

    def closed(self, rig: Rig) -> dict[str, int]:
        return {reason.value: count for reason, count in rig.factory.ledger.connections_closed.items() if count}


class HandshakeTests(TLSCase):
    @settings(deadline=None)
    @given(st.integers(1, 700), st.sampled_from(["lines", "relp"]), st.sampled_from(["1.2", "1.3"]), st.booleans())
    def test_any_cut(self, size: int, wire: str, version: str, in_one_flight: bool) -> None:
        """However the bytes are cut, the peer is the same, and so are its records; nothing is charged at the end."""
        rig = self.rig(wire=wire, peers=("*.example.com",))
        context = client_context(issued("web1.example.com"))
        context.maximum_version = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
        client = Client(rig, context, size=size)
        said = OPEN + b"2 syslog 3 one\n3 syslog 3 two\n" if wire == "relp" else b"one\ntwo\n"
        client.shake_hands(then=said if in_one_flight else b"")
        if not in_one_flight:
            client.send(said)
        self.assertEqual((client.object.version(), self.ended()), (f"TLSv{version}", {"ok": 1}))
        self.assertEqual(rig.sink.records, [b"one", b"two"])
        info = self.connection(rig).info
        self.assertEqual((info.identity, rig.sink.batches[0].info), ("web1.example.com", info))
        self.assertEqual(self.connection(rig).bytes_received, len(said))
        self.assertEqual(b"3 rsp 6 200 OK\n" in client.hear(), wire == "relp")
        client.say_goodbye()
        client.close()
        self.assertEqual((rig.factory.connections, rig.intake.budget.used, rig.intake.budget.standing), ({}, 0, 0))
        self.assertEqual((self.closed(rig), self.tls.ledger.truncated), ({"eof": 1}, 0))

    def test_who_it_is(self) -> None:
        """The name of the certificate that let it in, not the pattern; fingerprint and subject with it."""
        rig = self.rig(peers=("*.example.com", "198.51.100.7"))
        shown = issue("other.test", "web1.example.com", common_name="web\n1")
        self.client(rig, shown, then=b"a line\n")
        row = self.connection(rig).status(0.0)
        self.assertEqual((row["identity"], row["subject"]), ("web1.example.com", "CN=web\\n1"))
        self.assertRegex(row["fingerprint"], "^SHA256:[0-9A-F]{64}$")
        self.assertEqual(self.tls.status()["peers"], ["*.example.com", "198.51.100.7"])

    def test_everybody_the_authority_vouches_for(self) -> None:
        """Without names all that the authority has issued may send, under the first name of each."""
        rig = self.rig(asks=True)
        self.client(rig, issue(x509.RFC822Name("who@example.com"), "web2.example.com"))
        self.assertEqual(self.connection(rig).info.identity, "web2.example.com")

    def test_nobody_asked(self) -> None:
        """Without an authority nobody is asked for a certificate, and nobody is anybody."""
        rig = self.rig()
        client = self.client(rig, issued("web1.example.com"), then=b"a line\n")
        info = self.connection(rig).info
        self.assertEqual((info.identity, info.certificate, rig.sink.records), (None, None, [b"a line"]))
        self.assertNotIn("identity", self.connection(rig).status(0.0))
        self.assertEqual(client.object.compression(), None)

    def test_by_fingerprint(self) -> None:
        """A fingerprint lets in that one certificate, whatever its names, however it is written."""
        shown = issued("unknown.test")
        digest = shown.certificate.fingerprint(SHA256())
        for text in (f"sha256:{digest.hex()}", "SHA256:" + ":".join(f"{byte:02X}" for byte in digest)):
            rig = self.rig(peers=(text,))
            self.client(rig, shown)
            self.assertEqual(self.connection(rig).info.identity, f"SHA256:{digest.hex().upper()}")
            self.client(rig, issued("unknown2.test"), port=2)
            self.assertEqual(self.ended(), {"ok": 1, "wrong_name": 1})

    def test_by_address(self) -> None:
        """An address is matched as one, never as a name that looks like it."""
        address = x509.IPAddress(ip_address("198.51.100.7"))
        rig = self.rig(peers=("198.51.100.7",))
        self.client(rig, issue("198.51.100.7"))
        self.assertEqual(self.ended(), {"wrong_name": 1})
        self.client(rig, issue(address), port=2)
        self.assertEqual(self.connection(rig).info.identity, "198.51.100.7")

    def test_behind_a_proxy(self) -> None:
        """A PROXY header comes before TLS: the peer is whom it names, and the identity what its certificate does."""
        rig = self.rig(peers=("*.example.com",), proxies=AllowList([parse_network("192.0.2.0/24")]))
        client = Client(rig, client_context(issued("web1.example.com")), size=7)
        client.wire.peer_sends(b"PROXY TCP4 198.51.100.7 203.0.113.1 5 6\r\n")
        client.shake_hands(then=b"a line\n")
        info = self.connection(rig).info
        self.assertEqual((info.peer, info.identity), ("198.51.100.7:5", "web1.example.com"))
        self.assertEqual((rig.sink.records, self.ended()), ([b"a line"], {"ok": 1}))

    def test_no_sessions_to_resume(self) -> None:
        """There are no tickets, and a TLS 1.3 session cannot be resumed."""
        rig = self.rig()
        client = self.client(rig)
        session = client.object.session
        self.assertFalse(session is not None and session.has_ticket)
        self.assertEqual(client.object.version(), "TLSv1.3")


REFUSED: dict[str, tuple[Any, str]] = {
    "none": (lambda: None, "no_certificate"),
    "expired": (lambda: issue("web1.example.com", ends=timedelta(seconds=-1)), "expired"),
    "not yet valid": (lambda: issue("web1.example.com", begins=DAY), "expired"),
    "another authority": (lambda: issue("web1.example.com", by="theirs"), "untrusted"),
    "self-signed": (lambda: issue("web1.example.com", by=None), "untrusted"),
    "a server's purpose": (
        lambda: issue("web1.example.com", purposes=[ExtendedKeyUsageOID.SERVER_AUTH]),
        "untrusted",
    ),
    "another name": (lambda: issue("web1.example.org"), "wrong_name"),
    "no name but the common one": (lambda: issue(common_name="web1.example.com"), "wrong_name"),
    "a deeper name": (lambda: issue("a.b.example.com"), "wrong_name"),
    "the bare domain": (lambda: issue("example.com"), "wrong_name"),
    "a wildcard": (lambda: issue("*.example.com"), "wrong_name"),
    "a wildcard for all": (lambda: issue("*", "*.com", "*.*.com"), "wrong_name"),
    "part of a wildcard": (lambda: issue("w*.example.com", "web*.example.com"), "wrong_name"),
    "a NUL": (lambda: issue("web1.example.com\0.evil.test"), "wrong_name"),
    "a NUL in front": (lambda: issue("evil.test\0.example.com"), "wrong_name"),
    "blanks": (lambda: issue(" web1.example.com", "web1.example.com\n"), "wrong_name"),
    "an international name": (lambda: issue("xn--web1-.example.com"), "wrong_name"),
    "an address for a name": (lambda: issue("198.51.100.7.example"), "wrong_name"),
    "a name as a mail address": (lambda: issue(x509.RFC822Name("web1.example.com")), "wrong_name"),
    "a name as a URI": (lambda: issue(x509.UniformResourceIdentifier("web1.example.com")), "wrong_name"),
    "a hundred kilobytes": (lambda: issue("web1.example.com", padding=110 * KIB), "protocol"),
}


class RefusalTests(TLSCase):
    def test_certificates(self) -> None:
        """Whoever shows none, or the wrong one, is told so and gets no record in, not in the same flight either."""
        for what, (make, result) in REFUSED.items():
            rig = self.rig(peers=("*.example.com",))
            client = self.client(rig, make(), then=b"a record\n")
            self.assertEqual((self.ended(), self.refused(rig)), ({result: 1}, {"tls_peer": 1}), what)
            self.assertEqual((rig.factory.ledger.records_framed, rig.factory.connections), (0, {}), what)
            self.assertTrue(client.problem is not None or client.said_goodbye, what)
            rig.turn(CLOSE_TIMEOUT + 1)
            self.assertEqual((len(rig.factory.doorways), self.tls.active), (0, 0), what)
            self.assertEqual((rig.intake.budget.used, rig.intake.budget.standing), (0, 0), what)

    def test_log(self) -> None:
        """A refusal is one line, which says why and what to do, and a flood of them is folded."""
        rig = self.rig(peers=("*.example.com",))
        found: list[Any] = []
        rig.events.subscribe(found.append)
        shown = issue("web1.example.org", common_name="\x1b[31mEVIL\n")
        for port in range(20):
            self.client(rig, shown, port=port)
        refusals = [fact for fact in found if fact.kind == "connection_refused_tls_peer"]
        self.assertEqual(len(refusals), 20)
        text = refusals[0].message
        self.assertIn("tls_peer, wrong_name: no name in its certificate is one of those that may send (*.exa", text)
        self.assertNotIn("\x1b", text)
        self.assertNotIn("\n", text)
        self.assertGreater(rig.events.log.suppressed, 0)

    def test_no_tls(self) -> None:
        """What is no TLS is named, with its fix, and reset: a sender that never reads learns so."""
        for said, reason in (
            (b"<13>a line\n", RefuseReason.PLAIN),
            (OPEN, RefuseReason.RELP),
            (b"GET / HTTP/1.1\r\n", RefuseReason.HTTP),
            (b"\x80\x2e\x01\x00\x02", RefuseReason.PLAIN),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", RefuseReason.PROXY),
        ):
            rig = self.rig()
            found: list[Any] = []
            rig.events.subscribe(found.append)
            wire = rig.send(said)
            rig.turn()
            self.assertTrue(wire.was_reset)
            self.assertEqual((self.refused(rig), self.ended()), ({reason.value: 1}, {"protocol": 1}))
            self.assertIn("where TLS has to begin: turn TLS on at the sender", found[-1].message)

    def test_versions_and_ciphers(self) -> None:
        """Old versions and weak ciphers are refused; so is TLS 1.2 where 1.3 is the lowest."""
        rig = self.rig()
        old = client_context()
        old.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        weak = client_context()
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("AES256-SHA:ECDHE-ECDSA-AES128-SHA:DHE-RSA-AES128-GCM-SHA256")
        for context in (old, weak):
            client = Client(rig, context)
            client.shake_hands()
            self.assertIsNotNone(client.problem)
        self.assertEqual((self.ended(), self.refused(rig)), ({"protocol": 2}, {"tls_peer": 2}))
        rig = Rig()
        self.tls = speak_tls(rig, self.files(asks=False, min_version="1.3"))
        modern = client_context()
        modern.maximum_version = ssl.TLSVersion.TLSv1_2
        Client(rig, modern).shake_hands()
        self.assertEqual(self.ended(), {"protocol": 1})

    def test_it_refuses_us(self) -> None:
        """A client that does not trust our certificate is told of as such: the fix is at its side."""
        rig = self.rig()
        found: list[Any] = []
        rig.events.subscribe(found.append)
        Client(rig, client_context(trusts="theirs")).shake_hands()
        self.assertEqual(self.ended(), {"protocol": 1})
        self.assertIn("it does not accept our certificate (alert: unknown ca)", found[-1].message)

    def test_deadline(self) -> None:
        """Who says nothing, and who drips, is ended at the deadline; who hangs up is counted as such."""
        rig = self.rig()
        rig.connect(port=1)
        slow = Client(rig, client_context(), port=2)
        left = Client(rig, client_context(), port=3)
        for client in (slow, left):
            with self.assertRaises(ssl.SSLWantReadError):
                client.object.do_handshake()
            client.deliver()
        self.assertEqual((self.tls.active, rig.listener.balance().handshakes), (3, 3))
        left.close()
        self.assertEqual(self.ended(), {"reset": 1})
        rig.turn(DOORWAY_TIMEOUT)
        self.assertEqual((self.ended(), self.tls.active), ({"reset": 1, "timeout": 2}, 0))
        self.assertEqual(self.refused(rig), {"doorway_left": 1, "doorway_timeout": 2})

    def test_stop(self) -> None:
        """At a stop handshakes are ended at once."""
        rig = self.rig()
        rig.connect()
        _ = rig.drain()
        self.assertEqual((self.ended(), self.tls.active), ({"reset": 1}, 0))

    def test_share_of_memory(self) -> None:
        """Connections are charged by being there, up to a quarter of the memory; who leaves gives its part back."""
        rig = self.rig(memory=4 * 3 * CONNECTION_BYTES)
        clients = [self.client(rig, port=port) for port in range(4)]
        self.assertEqual((len(rig.factory.connections), self.refused(rig)), (3, {"full": 1}))
        self.assertEqual(rig.intake.budget.standing, 3 * CONNECTION_BYTES)
        self.assertEqual(rig.intake.budget.mark.high, int(12 * CONNECTION_BYTES * BUDGET_HIGH) - 3 * CONNECTION_BYTES)
        clients[0].say_goodbye()
        self.client(rig, port=9)
        self.assertEqual(len(rig.factory.connections), 3)

    def test_judged_after(self) -> None:
        """Caps hold for those who are through, and nothing stays charged for those they turn away."""
        rig = self.rig(max_connections=1, descriptors=100)
        coming = [Client(rig, client_context(), port=port) for port in (1, 2)]
        for client in coming:
            client.shake_hands()
        self.assertEqual((self.refused(rig), self.ended()), ({"full": 1}, {"ok": 2}))
        self.assertEqual(rig.intake.budget.standing, CONNECTION_BYTES)

    def test_charged(self) -> None:
        """A handshake is charged with what it takes, and one that has said nothing with less."""
        rig = self.rig()
        rig.connect(port=1)
        silent = rig.intake.budget.used
        coming = Client(rig, client_context(), port=2)
        self.assertRaises(ssl.SSLWantReadError, coming.object.do_handshake)
        coming.deliver()
        self.assertGreater(rig.intake.budget.used, 2 * silent + HANDSHAKE_BYTES)


class EndTests(TLSCase):
    def test_goodbye(self) -> None:
        """The goodbye ends a connection as a FIN does: what came of a record is delivered, and it is answered."""
        rig = self.rig()
        client = self.client(rig, then=b"whole\npartial")
        client.say_goodbye()
        client.hear()
        self.assertEqual((rig.sink.records, self.closed(rig)), ([b"whole", b"partial"], {"eof": 1}))
        self.assertTrue(client.said_goodbye)
        self.assertEqual((self.tls.ledger.truncated, rig.factory.ledger.records_partial), (0, 1))
        self.assertFalse(client.wire.was_reset)

    def test_behind_the_goodbye(self) -> None:
        """What follows a goodbye is nobody's."""
        rig = self.rig()
        client = self.client(rig)
        with self.assertRaises(ssl.SSLWantReadError):
            client.object.unwrap()
        client.wire.peer_sends(client.outgoing.read() + b"\x17\x03\x03\x00\x05abcde" + b"junk\n" * 10)
        client.wire.pump()
        rig.turn()
        self.assertEqual((rig.sink.records, self.closed(rig)), ([], {"eof": 1}))

    def test_cut(self) -> None:
        """A FIN without a goodbye is counted; lines are delivered as after any FIN."""
        rig = self.rig()
        self.client(rig, then=b"whole\npartial").close()
        self.assertEqual((rig.sink.records, self.closed(rig)), ([b"whole", b"partial"], {"eof": 1}))
        self.assertEqual((self.tls.ledger.truncated, rig.factory.ledger.records_partial), (1, 1))

    def test_cut_in_a_record_of_tls(self) -> None:
        """Half a record of TLS is nothing."""
        rig = self.rig()
        client = self.client(rig, then=b"whole\n")
        client.object.write(b"lost\n")
        client.wire.peer_sends(client.outgoing.read()[:-1])
        client.close()
        self.assertEqual((rig.sink.records, self.tls.ledger.truncated), ([b"whole"], 1))

    def test_reset(self) -> None:
        """A reset is no truncation, and counts what was unfinished as lost to it."""
        rig = self.rig()
        client = self.client(rig, then=b"whole\npartial")
        client.wire.peer_resets()
        client.wire.pump()
        self.assertEqual((rig.sink.records, self.closed(rig)), ([b"whole"], {"reset": 1}))
        self.assertEqual(self.tls.ledger.truncated, 0)

    def test_damaged(self) -> None:
        """A damaged record of TLS ends the connection with an alert; what came before it is delivered."""
        rig = self.rig()
        client = self.client(rig)
        client.object.write(b"good\nhalf")
        client.object.write(b"bad\n")
        said = bytearray(client.outgoing.read())
        said[-1] ^= 1
        client.wire.peer_sends(bytes(said))
        client.wire.pump()
        client.hear()
        self.assertIn("ALERT_BAD_RECORD_MAC", str(client.problem))
        rig.turn()
        self.assertEqual((rig.sink.records, self.closed(rig)), ([b"good", b"half"], {"tls": 1}))
        self.assertEqual(rig.intake.budget.used, 0)

    def test_relp(self) -> None:
        """A RELP session is answered behind its peer's goodbye or FIN; a frame that was cut is not."""
        for says_goodbye in (True, False):
            sink = StalledSink()
            rig = self.rig(sink, wire="relp")
            client = self.client(rig, then=OPEN + b"2 syslog 3 one\n3 syslog 300 tw")
            if says_goodbye:
                client.say_goodbye()
            client.close()
            sink.release()
            rig.turn()
            self.assertIn(b"2 rsp 6 200 OK\n", client.hear())
            self.assertEqual((sink.records, self.closed(rig)), ([b"one"], {"eof": 1}))
            self.assertEqual(self.tls.ledger.truncated, int(not says_goodbye))
            self.assertTrue(client.said_goodbye)
            self.assertEqual(rig.factory.connections, {})

    def test_relp_closes(self) -> None:
        """A session that ends itself is told goodbye, and a FIN after that is no truncation to speak of."""
        rig = self.rig(wire="relp")
        client = self.client(rig, then=OPEN + b"2 close 0\n")
        self.assertIn(b"2 rsp 0\n0 serverclose 0\n", client.hear())
        self.assertTrue(client.said_goodbye and client.wire.write_closed)
        client.say_goodbye()
        client.close()
        self.assertEqual((self.closed(rig), rig.factory.connections, self.tls.ledger.truncated), ({"eof": 1}, {}, 0))

    def test_answers_nobody_reads(self) -> None:
        """While answers pile up nothing is read, and then it goes on."""
        rig = self.rig(wire="relp")
        client = self.client(rig, then=OPEN)
        client.wire.producer.pauseProducing()
        self.assertFalse(client.wire.reading)
        client.send(b"2 syslog 3 one\n")
        self.assertEqual(rig.sink.records, [])
        client.wire.producer.resumeProducing()
        client.wire.pump()
        rig.turn()
        self.assertEqual((rig.sink.records, client.wire.reading), ([b"one"], True))

    def test_nobody_reads_what_tls_itself_says(self) -> None:
        """Of a peer that has TLS answer (key updates) and does not read that nothing is read, lines neither."""
        rig = self.rig()
        client = self.client(rig)
        client.wire.producer.pauseProducing()
        client.send(b"one\n")
        self.assertEqual((rig.sink.records, client.wire.reading), ([], False))
        self.connection(rig).pauseProducing()
        self.connection(rig).resumeProducing()
        self.assertFalse(client.wire.reading)
        client.wire.producer.resumeProducing()
        client.wire.pump()
        rig.turn()
        self.assertEqual(rig.sink.records, [b"one"])

    def test_drain(self) -> None:
        """At a stop a peer is told goodbye and half-closed, and read on; who goes on is reset."""
        rig = self.rig()
        polite, deaf = self.client(rig, port=1), self.client(rig, port=2)
        _ = rig.drain()
        for client in (polite, deaf):
            client.hear()
            self.assertTrue(client.said_goodbye and client.wire.write_closed)
            client.send(b"late\n")
        polite.say_goodbye()
        polite.close()
        rig.turn(DRAIN_QUIET + 1)
        self.assertEqual((rig.sink.records, rig.factory.connections), ([b"late"] * 2, {}))
        self.assertEqual((polite.wire.was_reset, deaf.wire.was_reset), (False, True))
        rig.turn(DRAIN_TIMEOUT)

    def test_drain_with_bytes_inside(self) -> None:
        """The goodbye of a stop throws nothing away that was held for a paused connection."""
        sink = StalledSink()
        rig = self.rig(sink, connection_memory=READ_SIZE + 1000)
        client = self.client(rig, then=b"x" * 900 + b"\n")
        self.assertTrue(self.connection(rig).paused)
        client.send(b"held\n", pump=False)
        connection: Any = self.connection(rig)
        connection.transport.dataReceived(bytes(client.wire.unread))  # as from the doorway
        client.wire.unread.clear()
        connection.transport.loseWriteConnection()
        self.let_through(rig, sink)
        self.assertEqual(sink.records[-1], b"held")


class PauseTests(TLSCase):
    def held(self, sink: StalledSink, size: int = 5000) -> tuple[Rig, Client, Any, bytes]:
        """Bring so many lines of a hundred bytes in one read, in whose midst their connection is paused."""
        rig = self.rig(sink, connection_memory=2 * READ_SIZE)
        client = self.client(rig)
        said = b"".join(b"%099d\n" % number for number in range(size))
        client.object.write(said)
        client.wire.peer_sends(client.outgoing.read())
        client.wire.pump(1 << 20, reads=1)
        return rig, client, self.connection(rig), said

    @given(st.integers(1600, 6000))
    @settings(deadline=None)
    def test_held(self, size: int) -> None:
        """What a read brought and is not wanted yet is held, charged and unread, and comes in order when it is."""
        sink = StalledSink()
        rig, client, connection, said = self.held(sink, size)
        self.assertTrue(connection.paused)
        held = connection.transport.unread_bytes()
        self.assertEqual(held > 0, rig.factory.ledger.records_framed < size)
        self.assertEqual(rig.intake.budget.used, connection.lane.in_flight + connection.lane.held + held)
        client.send(b"behind it\n")
        self.assertGreater(connection.transport.unread_bytes(), held)
        self.let_through(rig, sink)
        client.wire.pump()
        self.let_through(rig, sink)
        self.assertEqual(b"".join(record + b"\n" for record in sink.records), said + b"behind it\n")
        self.assertEqual((rig.intake.budget.used, connection.transport.unread_bytes()), (0, 0))

    def test_lost_while_held(self) -> None:
        """A connection lost with bytes held counts them as unread, and nothing stays charged for them."""
        sink = StalledSink()
        rig, client, connection, _ = self.held(sink)
        held = connection.transport.unread_bytes()
        self.assertGreater(held, 0)
        connection.close(CloseReason.IDLE, reset=True)
        rig.turn()
        self.assertEqual(rig.factory.ledger.bytes_unread, held)
        self.let_through(rig, sink)
        self.assertEqual((rig.intake.budget.used, rig.intake.budget.standing), (0, 0))
        self.assertTrue(client.wire.was_reset)

    def test_admitted_while_nobody_is_read(self) -> None:
        """What stood behind the handshake of one admitted while nobody may be read waits, and comes when they may."""
        rig = self.rig()
        rig.intake.charge(rig.intake.budget.mark.high + 1)
        client = self.client(rig, then=b"waits\n")
        connection = self.connection(rig)
        self.assertTrue(connection.paused and connection.transport.unread_bytes())
        self.assertEqual(rig.sink.records, [])
        rig.intake.charge(-rig.intake.budget.used)
        rig.turn()
        client.wire.pump()
        rig.turn()
        self.assertEqual(rig.sink.records, [b"waits"])

    def test_resumes_in_a_turn_of_its_own(self) -> None:
        """Two connections never decrypt inside each other's calls: they share what they decrypt into."""
        sink = StalledSink()
        rig, client, connection, said = self.held(sink)
        framed = rig.factory.ledger.records_framed
        connection.transport.resumeProducing()
        self.assertEqual(rig.factory.ledger.records_framed, framed)
        self.let_through(rig, sink)
        self.assertEqual(b"".join(record + b"\n" for record in sink.records), said)
        self.assertIsNone(client.problem)

    def test_hang_up_while_paused(self) -> None:
        """A peer that leaves while it is not read from is noticed; its bytes are read when they may be."""
        sink = StalledSink()
        rig = self.rig(sink, connection_memory=READ_SIZE + 1000)
        client = self.client(rig, then=b"x" * 900 + b"\n")
        client.send(b"last\n")
        client.say_goodbye()
        client.wire.peer_closes()
        rig.turn(1)
        self.assertEqual((rig.admission.open, rig.admission.departed), (0, 1))
        self.let_through(rig, sink)
        client.wire.pump()
        self.let_through(rig, sink)
        self.assertEqual((sink.records[-1], rig.admission.departed, rig.factory.connections), (b"last", 0, {}))


class Slices:
    """The incoming side of a session, which notes how much it was given at once, and held at most."""

    def __init__(self, incoming: ssl.MemoryBIO) -> None:
        self.incoming = incoming
        self.most = 0

    @property
    def pending(self) -> int:
        """Bytes that wait."""
        return self.incoming.pending

    def write(self, data: bytes) -> None:
        """Note it."""
        self.incoming.write(data)
        self.most = max(self.most, self.incoming.pending)

    def read(self) -> bytes:
        """Give what waits."""
        return self.incoming.read()


class SliceTests(TLSCase):
    def test_little_at_once(self) -> None:
        """Of a large read a session never holds more than a few records: OpenSSL gives no room back."""
        rig = self.rig()
        client = self.client(rig)
        layer: Any = self.connection(rig).transport
        slices = Slices(layer._session.incoming)
        layer._session = layer._session._replace(incoming=slices)
        said = b"".join(b"%099d\n" % number for number in range(4000))
        client.object.write(said)
        client.wire.peer_sends(client.outgoing.read())
        client.wire.pump(1 << 20)
        rig.turn()
        self.assertEqual(b"".join(record + b"\n" for record in rig.sink.records), said)
        self.assertLessEqual(slices.most, 2 * SLICE_SIZE)


class TimerTests(TLSCase):
    def test_idle(self) -> None:
        """A silent peer is reset, also one that has begun a record of TLS and does not end it."""
        rig = self.rig()
        silent, half = self.client(rig, port=1), self.client(rig, port=2)
        half.object.write(b"line\n")
        half.wire.peer_sends(half.outgoing.read()[:-1])
        half.wire.pump()
        rig.turn(IDLE_TIMEOUT + 2)
        self.assertEqual((silent.wire.was_reset, half.wire.was_reset), (True, True))
        self.assertEqual((self.closed(rig), rig.intake.budget.used), ({"idle": 2}, 0))

    def test_close_deadline(self) -> None:
        """A close in good order waits for no goodbye of the peer's."""
        rig = self.rig()
        client = self.client(rig)
        self.connection(rig).transport.loseConnection()
        rig.turn()
        client.hear()
        self.assertTrue(client.said_goodbye)
        self.assertEqual((rig.factory.connections, self.closed(rig)), ({}, {"local": 1}))

    def test_a_bug_costs_its_connection(self) -> None:
        """What goes wrong on going on after a pause ends that connection, counted."""
        sink = StalledSink()
        rig, _, connection, _ = PauseTests.held(self, sink)  # type: ignore[arg-type]
        self.patch(connection, "dataReceived", lambda data: 1 / 0)
        self.let_through(rig, sink)
        self.assertEqual((self.closed(rig), rig.events.internal_errors), ({"internal_error": 1}, 1))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
