"""Certificates read and checked, and renewed while a server runs."""

import os
import pathlib
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.tls import DAY, NAME, Certificate, Client, Folder, authority, client_context, issue, now_and_here, speak_tls
from twisted_ingest.errors import ReloadResult
from twisted_ingest.observe.events import Events
from twisted_ingest.server.certificates import (
    LARGEST_PEM,
    CertificateError,
    Credentials,
    Files,
    key_caution,
    load_credentials,
)
from twisted_ingest.server.tls_names import PeerNames, fingerprint_of
from twisted_ingest.server.tls_renewal import (
    LOOK_SECONDS,
    RETRY_SECONDS,
    WARN_AGAIN_SECONDS,
    WARNING_SECONDS,
    Renewal,
    in_thread,
)
from twisted_ingest.testing import Rig


def now() -> float:
    """Give Unix time."""
    return datetime.now(UTC).timestamp()


class FolderCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Folder()
        self.addCleanup(self.folder.remove)

    @property
    def files(self) -> Files:
        return Files(self.folder.certificate, self.folder.key, self.folder.client_ca)

    def write(self, name: str, data: bytes) -> str:
        path = self.folder.path / name
        path.write_bytes(data)
        return str(path)

    def refusal(self, files: Files) -> tuple[str, str]:
        error = self.assertRaises(CertificateError, load_credentials, files, now())
        return error.key, str(error)


class LoadTests(FolderCase):
    def test_good(self) -> None:
        """What is whole is loaded: strict settings, no tickets, clients asked for a certificate where there is a CA."""
        found = load_credentials(self.files, now())
        context = found.context
        self.assertEqual(context.minimum_version, ssl.TLSVersion.TLSv1_2)
        self.assertEqual((context.num_tickets, context.verify_mode), (0, ssl.CERT_REQUIRED))
        for option in (ssl.OP_NO_TICKET, ssl.OP_NO_COMPRESSION, ssl.OP_NO_RENEGOTIATION):
            self.assertTrue(context.options & option)
        for cipher in context.get_ciphers():
            self.assertTrue(cipher["aead"], cipher)
            self.assertIn(cipher["kea"], ("kx-ecdhe", "kx-any"))
        self.assertLess(abs(found.not_after - now() - 365 * 86400), 60)
        plain = load_credentials(self.files._replace(client_ca=None, min_version="1.3"), now())
        self.assertEqual(
            (plain.context.verify_mode, plain.context.minimum_version), (ssl.CERT_NONE, ssl.TLSVersion.TLSv1_3)
        )

    def test_one_file_for_both(self) -> None:
        """Certificate and key may stand in one file."""
        shown = issue(NAME)
        both = self.write("both.pem", shown.key + shown.chain)
        self.assertIsInstance(load_credentials(Files(both, both), now()), Credentials)

    def test_mistakes(self) -> None:
        """What cannot be used is refused with the setting that names it, and the fix."""
        folder, other = self.folder, issue(NAME)
        good = self.files
        key = serialization.load_pem_private_key(other.key, None)
        locked = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
        small = rsa.generate_private_key(65537, 1024)
        weak = small.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        cases: list[tuple[Files, str, str]] = [
            (good._replace(certificate=self.write("e", b"")), "certificate", "holds no certificate in PEM"),
            (good._replace(certificate=str(folder.path)), "certificate", "Is a directory"),
            (good._replace(certificate="/nowhere"), "certificate", "cannot read /nowhere: No such file"),
            (good._replace(certificate=self.write("l", bytes(LARGEST_PEM + 1))), "certificate", "is it PEM?"),
            (good._replace(key=self.write("k", other.key)), "key", "is not the key of the first certificate"),
            (good._replace(key=self.write("w", weak)), "key", "is not the key of the first certificate"),
            (good._replace(key=self.write("x", locked)), "key", "is encrypted"),
            (good._replace(key=self.write("g", b"garbage")), "key", "holds no private key in PEM"),
            (good._replace(client_ca=self.write("c", b"garbage")), "client_ca", "holds no certificate in PEM"),
            (
                good._replace(client_ca=self.write("o", issue("x", by=None, ends=-DAY / 2).chain)),
                "client_ca",
                "every certificate in it has expired",
            ),
        ]
        for files, key_word, text in cases:
            found, message = self.refusal(files)
            self.assertEqual(found, key_word)
            self.assertIn(text, message)

    def test_times(self) -> None:
        """An expired certificate is refused, and one that is not valid yet."""
        expired, early = issue(NAME, ends=timedelta(seconds=-5)), issue(NAME, begins=DAY)
        for shown, text in ((expired, "has expired on"), (early, "is not valid before")):
            files = Files(*shown.write(self.folder.path, "odd"))
            self.assertIn(text, self.refusal(files)[1])

    def test_chain(self) -> None:
        """Behind each certificate of a chain stands the one that issued it, or the file is refused."""
        child = authority("ours").create_child_ca()
        leaf = child.issue_cert(NAME)
        chain = [pem.bytes() for pem in leaf.cert_chain_pems]
        self.assertGreater(len(chain), 1)
        key = self.write("leaf.key", leaf.private_key_pem.bytes())
        good = self.write("chain.pem", b"".join(chain))
        self.assertIsInstance(load_credentials(Files(good, key), now()), Credentials)
        wrong = self.write("wrong.pem", chain[0] + issue("x", by=None).chain)
        self.assertIn("certificate 2 is not the issuer of certificate 1", self.refusal(Files(wrong, key))[1])
        swapped = self.write("swapped.pem", b"".join(reversed(chain)))
        self.assertIn("the server's own", self.refusal(Files(swapped, key))[1])

    def test_intermediate_authority(self) -> None:
        """An intermediate authority may be all that vouches for clients."""
        child = authority("ours").create_child_ca()
        leaf = child.issue_cert("web1.example.com")
        ca = self.write("child.pem", child.cert_pem.bytes())
        rig = Rig()
        tls = speak_tls(rig, self.files._replace(client_ca=ca), "web1.example.com")
        chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
        client = Client(rig, client_context(Certificate(chain, leaf.private_key_pem.bytes())))
        client.shake_hands()
        self.assertIsNone(client.problem)
        Client(rig, client_context(issue("web1.example.com")), port=2).shake_hands()
        self.assertEqual(
            {str(key): count for key, count in tls.ledger.handshakes.items() if count}, {"ok": 1, "untrusted": 1}
        )

    def test_caution(self) -> None:
        """A key that everybody may read is warned of, and a group's is not."""
        os.chmod(self.folder.key, 0o640)
        self.assertIsNone(key_caution(self.folder.key))
        os.chmod(self.folder.key, 0o644)
        self.assertIn("chmod o= ", key_caution(self.folder.key) or "")
        self.assertIsNone(key_caution("/nowhere"))


class PeerNameTests(SynchronousTestCase):
    def test_refused(self) -> None:
        """What is no name of a peer is refused, and so is none at all: that would be nobody."""
        for text in (
            "*",
            "*.com",
            "w*.example.com",
            "a.*.example.com",
            "*.*.example.com",
            "",
            "a b",
            "a\0b",
            "SHA256:12",
            "SHA256:" + "0" * 63,
            "sha1:" + "0" * 40,
            "https://a.example",
            "*example.com",
        ):
            error = self.assertRaises(ValueError, PeerNames, [text])
            self.assertIn("is not the name of a peer", str(error))
        self.assertIn("it needs names", str(self.assertRaises(ValueError, PeerNames, [])))

    def test_taken(self) -> None:
        """Names, wildcards, addresses and fingerprints are taken, and compared by what was written."""
        texts = ["a.example.com", "*.example.com", "2001:db8::1", "SHA256:" + "0a" * 32]
        self.assertEqual(str(PeerNames(texts)), ", ".join(texts))
        self.assertEqual(PeerNames(texts), PeerNames(texts))
        self.assertNotEqual(PeerNames(texts), PeerNames(texts[:1]))
        self.assertEqual(len({PeerNames(texts), PeerNames(texts)}), 1)

    def test_names_are_few(self) -> None:
        """Of a certificate with hundreds of names only so many are looked at."""
        names = [f"x{number}.example.org" for number in range(300)]
        peers = PeerNames(["*.example.com"])
        self.assertEqual(peers.find(issue("web.example.com", *names).certificate), "web.example.com")
        self.assertIsNone(peers.find(issue(*names, "web.example.com").certificate))


class RenewalTests(FolderCase):
    def setUp(self) -> None:
        super().setUp()
        self.wall = now()
        self.facts: list[Any] = []
        self.events = Events(lambda: 0.0)
        self.events.subscribe(self.facts.append)
        self.seconds = 0.0

    def renewal(self, run: Any = now_and_here) -> Renewal:
        return Renewal("tls", self.files, events=self.events, wall_time=lambda: self.wall, run=run)

    def sweep(self, renewal: Renewal, seconds: float = LOOK_SECONDS) -> None:
        self.seconds += seconds
        renewal.sweep(self.seconds)

    def told(self) -> list[str]:
        kinds = [fact.kind.partition(":")[0] for fact in self.facts]
        self.facts.clear()
        return kinds

    def counts(self, renewal: Renewal) -> tuple[int, int]:
        return renewal.reloads[ReloadResult.OK], renewal.reloads[ReloadResult.ERROR]

    def test_changed_files(self) -> None:
        """Files that changed are loaded once they are the same for two looks, and then no more."""
        renewal = self.renewal()
        before, fresh = renewal.current, issue(NAME)
        self.sweep(renewal)
        self.folder.renew(fresh)
        self.sweep(renewal)
        self.assertIs(renewal.current, before)
        for _ in range(3):
            self.sweep(renewal)
        self.assertEqual(renewal.current.fingerprint, fingerprint_of(fresh.certificate))
        self.assertEqual((self.counts(renewal), self.told()), ((1, 0), ["certificate_renewed"]))

    def test_one_after_the_other(self) -> None:
        """Who replaces certificate and key one after the other is given time: no error is told."""
        renewal, fresh = self.renewal(), issue(NAME)
        pathlib.Path(self.folder.certificate).write_bytes(fresh.chain)
        self.sweep(renewal)
        pathlib.Path(self.folder.key).write_bytes(fresh.key)
        self.sweep(renewal)
        self.sweep(renewal)
        self.assertEqual((self.counts(renewal), self.told()), ((1, 0), ["certificate_renewed"]))

    def test_no_good(self) -> None:
        """Garbage, a key that does not fit, an expired pair: the old one stays, and the error is loud, once."""
        for spoil in (
            lambda: pathlib.Path(self.folder.certificate).write_bytes(b"garbage"),
            lambda: pathlib.Path(self.folder.key).write_bytes(issue(NAME).key),
            lambda: self.folder.renew(issue(NAME, ends=timedelta(seconds=-1))),
            lambda: os.remove(self.folder.certificate),
        ):
            self.folder.renew(issue(NAME))
            renewal = self.renewal()
            before = renewal.current
            spoil()
            for _ in range(4):
                self.sweep(renewal)
            self.assertIs(renewal.current, before)
            self.assertEqual((self.counts(renewal), self.told()), ((0, 1), ["certificate_not_renewed"]))
            self.folder.renew(issue(NAME))
            for _ in range(2):
                self.sweep(renewal)
            self.assertEqual((self.counts(renewal), self.told()), ((1, 1), ["certificate_renewed"]))

    def test_tried_again(self) -> None:
        """What was no good is tried again after a while, although the files are the same: it may be valid by then."""
        renewal = self.renewal()
        self.folder.renew(issue(NAME, begins=timedelta(seconds=50)))
        for _ in range(3):
            self.sweep(renewal)
        self.assertEqual(self.counts(renewal), (0, 1))
        self.wall += 100
        self.sweep(renewal, RETRY_SECONDS + LOOK_SECONDS)
        self.assertEqual(self.counts(renewal), (1, 1))

    def test_told_to(self) -> None:
        """A signal has the files read at once, whether or not they changed; two during one look make one more."""
        renewal = self.renewal()
        renewal.renew()
        self.assertEqual(self.counts(renewal), (1, 0))
        waiting: list[Any] = []
        renewal = self.renewal(lambda work, done: waiting.append((work, done)))
        for _ in range(3):
            renewal.renew()
        self.sweep(renewal)
        for _ in range(2):
            ((work, done),) = waiting
            waiting.clear()
            done(work())
        self.assertEqual((waiting, self.counts(renewal)), ([], (2, 0)))

    def test_a_bug(self) -> None:
        """A bug in reading costs that look, counted."""
        renewal = self.renewal()
        self.patch(renewal, "_wall_time", lambda: "no time")
        renewal.renew()
        self.assertEqual((self.counts(renewal), self.events.internal_errors), ((0, 1), 1))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_end_is_near(self) -> None:
        """Two weeks before its end a certificate is warned of, daily; once expired it is a reason not to be ready."""
        renewal = self.renewal()
        self.sweep(renewal)
        self.assertEqual(self.told(), [])
        self.wall = renewal.current.not_after - WARNING_SECONDS + 1
        self.sweep(renewal)
        self.sweep(renewal)
        self.assertEqual((self.told(), renewal.state().trouble), (["certificate_ends"], None))
        self.wall = renewal.current.not_after
        self.sweep(renewal, WARN_AGAIN_SECONDS)
        self.assertIn("has expired", self.facts[-1].message)
        self.assertIn("its certificate has expired: renew ", renewal.state().trouble or "")

    def test_ready(self) -> None:
        """The page of readiness says so, and the time of the end is a metric."""
        rig = Rig()
        rig.survey.state = "ready"
        tls = speak_tls(rig, self.files)
        self.assertEqual(rig.survey.reasons(), [])
        view = rig.survey.view().listeners["test"]
        self.assertEqual(view.certificate_not_after, tls.renewal.current.not_after)
        tls.renewal.current = tls.renewal.current._replace(not_after=1.0)
        self.assertIn("listener test: its certificate has expired", rig.survey.reasons()[0])

    def test_swap_under_way(self) -> None:
        """Newcomers see the new certificate; who is in goes on with the old, and so does a handshake under way."""
        rig, fresh = Rig(), issue(NAME)
        tls = speak_tls(rig, self.files._replace(client_ca=None))
        old, coming = Client(rig, client_context(), port=1), Client(rig, client_context(), port=2)
        old.shake_hands()
        self.assertRaises(ssl.SSLWantReadError, coming.object.do_handshake)
        coming.deliver()
        self.folder.renew(fresh)
        rig.listener.renew()
        coming.listen()
        coming.shake_hands(then=b"two\n")
        old.send(b"one\n")
        new = Client(rig, client_context(), port=3)
        new.shake_hands(then=b"three\n")
        self.assertEqual(sorted(rig.sink.records), [b"one", b"three", b"two"])
        shown = fresh.certificate.public_bytes(serialization.Encoding.DER)
        self.assertEqual(
            [client.object.getpeercert(True) == shown for client in (old, coming, new)], [False, False, True]
        )
        self.assertEqual(tls.renewal.reloads[ReloadResult.OK], 1)


class ThreadTests(TestCase):
    def test_in_a_thread(self) -> Deferred[Any]:
        """Work is done elsewhere, and told in the reactor."""
        done: Deferred[Any] = Deferred()
        in_thread(reactor)(lambda: 7, done.callback)
        return done.addCallback(self.assertEqual, 7)
