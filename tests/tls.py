"""Certificates made at test time, and a client of TLS without sockets for the virtual transport."""

import contextlib
import functools
import pathlib
import shutil
import ssl
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from twisted_ingest.server.certificates import Files
from twisted_ingest.server.tls import TLS
from twisted_ingest.server.tls_names import PeerNames
from twisted_ingest.server.tls_renewal import Renewal
from twisted_ingest.testing import PumpTransport, Rig

NAME = "ingest.example.com"
"""What the server's certificates are for."""

DAY = timedelta(days=1)


@functools.cache
def authority(name: str) -> trustme.CA:
    """Give a certificate authority; each name is another one."""
    return trustme.CA(organization_name=name)


class Certificate:
    """A certificate with its key: in PEM, and as clients of the standard library load it."""

    def __init__(self, chain: bytes, key: bytes) -> None:
        self.chain = chain
        self.key = key

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate itself."""
        return x509.load_pem_x509_certificate(self.chain)

    def use(self, context: ssl.SSLContext) -> None:
        """Have a client show it."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.chain + self.key)
            file.flush()
            context.load_cert_chain(file.name)

    def write(self, folder: pathlib.Path, name: str) -> tuple[str, str]:
        """Put it into a folder; gives the paths of certificate and key."""
        paths = folder / f"{name}.pem", folder / f"{name}.key"
        for path, data in zip(paths, (self.chain, self.key), strict=True):
            path.write_bytes(data)
            path.chmod(0o600)
        return str(paths[0]), str(paths[1])


def issue(
    *names: str | x509.GeneralName,
    by: str | None = "ours",
    begins: timedelta = -DAY,
    ends: timedelta = 365 * DAY,
    now: datetime | None = None,
    common_name: str = "a peer",
    purposes: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
    padding: int = 0,
) -> Certificate:
    """
    Make a certificate, of whatever an attacker could have in one; ``by=None``: self-signed.

    Names are DNS names where they are text, and may hold anything. ``padding`` makes it so many bytes longer.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    moment = now or datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment + begins)
        .not_valid_after(moment + ends)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    )
    found = [name if isinstance(name, x509.GeneralName) else x509.DNSName(name) for name in names]
    if found:
        builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
    if padding:
        oid = x509.ObjectIdentifier("1.3.6.1.4.1.55738.1")
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, b"\x04\x00" + bytes(padding)), critical=False)
    issuer, signer = subject, key
    if by is not None:
        issuer = x509.load_pem_x509_certificate(authority(by).cert_pem.bytes()).subject
        signer = serialization.load_pem_private_key(authority(by).private_key_pem.bytes(), None)  # type: ignore[assignment]
    made = builder.issuer_name(issuer).sign(signer, hashes.SHA256())
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Certificate(made.public_bytes(encoding), private)


@functools.cache
def issued(*names: str, by: str | None = "ours") -> Certificate:
    """Give a good certificate, the same each time."""
    return issue(*names, by=by)


class Folder:
    """A folder of files for a server: its certificate and key, and the authority of its clients."""

    def __init__(self, **options: Any) -> None:
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="ingest-tls-"))
        self.certificate, self.key = issue(NAME, x509.IPAddress(ip_address("127.0.0.1")), **options).write(
            self.path, "server"
        )
        self.client_ca = str(self.path / "clients.pem")
        pathlib.Path(self.client_ca).write_bytes(authority("ours").cert_pem.bytes())

    def renew(self, certificate: Certificate) -> None:
        """Replace certificate and key, each at once."""
        for path, data in ((self.key, certificate.key), (self.certificate, certificate.chain)):
            fresh = pathlib.Path(f"{path}.new")
            fresh.write_bytes(data)
            fresh.chmod(0o600)
            fresh.replace(path)

    def remove(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)


def client_context(shown: Certificate | None = None, *, trusts: str | None = "ours") -> ssl.SSLContext:
    """Make the settings of a client; ``trusts=None``: it takes any server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if trusts is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=authority(trusts).cert_pem.bytes().decode())
    if shown is not None:
        shown.use(context)
    return context


def now_and_here(work: Any, done: Any) -> None:
    """Do at once what a thread would do."""
    done(work())


def speak_tls(rig: Rig, files: Files, *peers: str) -> TLS:
    """Have the listener of a rig speak TLS; the wall clock is the real one, for certificates know no other."""
    renewal = Renewal(
        "test", files, events=rig.events, wall_time=lambda: datetime.now(UTC).timestamp(), run=now_and_here
    )
    names = PeerNames(peers) if peers else None
    tls = TLS(renewal, names, events=rig.events, intake=rig.intake, clock=rig.clock)
    rig.listener.tls, rig.factory.ledger.tls = tls, tls.ledger
    rig.factory.stages = (tls,)
    return tls


class Client:
    """
    A peer that speaks TLS over a virtual connection.

    What it sends is read by the server at once, ``size`` bytes a time, as far as that reads. ``heard`` is what the
    server has said to it, decrypted; ``problem`` is the alert that ended it.
    """

    def __init__(self, rig: Rig, context: ssl.SSLContext, *, port: int = 40000, size: int = 1 << 17) -> None:
        self.rig = rig
        self.size = size
        self.wire: PumpTransport = rig.connect(port=port)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_hostname=NAME)
        self.heard = b""
        self.problem: ssl.SSLError | None = None
        self.said_goodbye = False
        """Whether the server has."""
        self._listened = 0

    def shake_hands(self, *, then: bytes = b"") -> None:
        """Do the handshake; with ``then`` behind it in the same flight."""
        for _ in range(4):
            try:
                self.object.do_handshake()
            except ssl.SSLWantReadError:
                self.deliver()
                self.listen()
            except ssl.SSLError as problem:
                self.problem = problem
                self.deliver()
                return
            else:
                break
        if then:
            self.object.write(then)
        self.deliver()
        self.hear()

    def deliver(self, *, pump: bool = True) -> None:
        """Have what was encrypted arrive, and the server read it."""
        self.wire.peer_sends(self.outgoing.read())
        if pump:
            self.wire.pump(self.size)
        self.rig.turn()

    def send(self, data: bytes, *, pump: bool = True) -> None:
        """Send; in records of 16 KiB at most, as everybody."""
        self.object.write(data)
        self.deliver(pump=pump)

    def listen(self) -> None:
        """Take what the server has written so far."""
        self.incoming.write(bytes(self.wire.written[self._listened :]))
        self._listened = len(self.wire.written)

    def hear(self) -> bytes:
        """Decrypt what the server has written so far; gives all that was heard."""
        self.listen()
        try:
            while data := self.object.read(1 << 16):
                self.heard += data
            self.said_goodbye = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.said_goodbye = True
        except ssl.SSLError as problem:
            self.problem = problem
        return self.heard

    def say_goodbye(self) -> None:
        """Say that it sends no more, and close as a sender does."""
        with contextlib.suppress(ssl.SSLError):
            self.object.unwrap()
        self.deliver()

    def close(self) -> None:
        """Send FIN, with no goodbye before it."""
        self.wire.peer_closes()
        self.wire.pump(self.size)
        self.rig.turn()
