"""
A certificate with its key and chain, loaded and checked whole before it is used.

Files are read once and in full: what was checked is what is used, whatever becomes of the files meanwhile. The
settings of TLS are here too; there is nothing to choose that would weaken it.
"""

import os
import ssl
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from twisted_ingest.limits import KIB, MIB
from twisted_ingest.server.tls_names import fingerprint_of

LARGEST_PEM = 4 * MIB
"""Bytes of a file of certificates or of a key; against a path that is wrong. All public authorities take 250 KiB."""

CIPHERS = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2 (RFC 9662): forward secrecy and authenticated encryption, nothing else. Those of TLS 1.3 are all so."""

OPTIONS = ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET

EVERYBODY = stat.S_IROTH | stat.S_IWOTH
"""What nobody but owner and group should be allowed of a key."""

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

MinVersion = Literal["1.2", "1.3"]


class CertificateError(Exception):
    """What is wrong with a file, and the fix; ``key`` is the word of the setting that names it."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class Files(NamedTuple):
    """Where certificate, key and authorities are, and what is asked of peers."""

    certificate: str
    key: str
    client_ca: str | None = None
    min_version: MinVersion = "1.2"

    @property
    def paths(self) -> tuple[str, ...]:
        """All files."""
        return (self.certificate, self.key, *([] if self.client_ca is None else [self.client_ca]))


class Credentials(NamedTuple):
    """What a listener shows and asks for, whole and checked."""

    context: ssl.SSLContext
    not_after: float
    """Unix seconds at which the first certificate of the chain expires."""
    fingerprint: str


def load_credentials(files: Files, now: float) -> Credentials:
    """Read and check everything at ``now``, Unix seconds. Raises `CertificateError`; blocks while it reads."""
    moment = datetime.fromtimestamp(now, UTC)
    chain = _certificates(files.certificate, "certificate")
    _check_chain(chain, files.certificate, moment)
    key = _private_key(files.key)
    if key.public_key() != chain[0].public_key():
        raise CertificateError(
            "key",
            f"{files.key} is not the key of the first certificate in {files.certificate}: give the two that belong "
            "together, the server's own certificate first in its file",
        )
    context = _context(files.min_version)
    _use(context, chain, key, files)
    if files.client_ca is not None:
        _trust(context, files.client_ca, moment)
    not_after = min(each.not_valid_after_utc for each in chain).timestamp()
    return Credentials(context, not_after, fingerprint_of(chain[0]))


def key_caution(path: str) -> str | None:
    """Say who may read or change a key that should not, or nothing."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return None
    if not mode & EVERYBODY:
        return None
    return f"{path} may be read or changed by everybody on this machine ({stat.filemode(mode)}): chmod o= {path}"


def _read(path: str, key: str) -> bytes:
    try:
        # Not to wait for the other end of a FIFO.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CertificateError(key, f"{path} is no file")
            data = stream.read(LARGEST_PEM + 1)
    except OSError as error:
        raise CertificateError(key, f"cannot read {path}: {error.strerror}") from error
    if len(data) > LARGEST_PEM:
        raise CertificateError(key, f"{path} has more than {LARGEST_PEM // KIB} KiB: is it PEM?")
    return data


def _certificates(path: str, key: str) -> list[x509.Certificate]:
    data = _read(path, key)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise CertificateError(
            key, f"{path} holds no certificate in PEM (-----BEGIN CERTIFICATE-----), or one that is damaged"
        ) from error


def _check_chain(chain: Sequence[x509.Certificate], path: str, now: datetime) -> None:
    """See that each certificate is valid now, and issued by the next."""
    for number, each in enumerate(chain, 1):
        which = "the certificate" if number == 1 else f"certificate {number} of the chain"
        if each.not_valid_after_utc < now:
            when = f"{each.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
            raise CertificateError("certificate", f"{path}: {which} has expired on {when}: renew it")
        if each.not_valid_before_utc > now:
            when = f"{each.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
            raise CertificateError(
                "certificate", f"{path}: {which} is not valid before {when}: is the clock of this machine right?"
            )
    for number, (each, issuer) in enumerate(pairwise(chain), 1):
        if not _is_issued_by(each, issuer):
            raise CertificateError(
                "certificate",
                f"{path}: certificate {number + 1} is not the issuer of certificate {number}: the server's own comes "
                "first, and behind each the one that issued it (cat server.pem intermediate.pem)",
            )


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _private_key(path: str) -> Any:
    data = _read(path, "key")
    try:
        return serialization.load_pem_private_key(data, None)
    except TypeError as error:
        raise CertificateError(
            "key", f"{path} is encrypted, and nobody is there to ask: decrypt it (openssl pkey -in {path} -out ...)"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(
            "key", f"{path} holds no private key in PEM (-----BEGIN PRIVATE KEY-----), or one that is damaged"
        ) from error


def _context(min_version: MinVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[min_version]
    context.options |= OPTIONS
    context.num_tickets = 0
    context.set_ciphers(CIPHERS)
    return context


def _use(context: ssl.SSLContext, chain: Sequence[x509.Certificate], key: Any, files: Files) -> None:
    """Have the context show a chain; OpenSSL takes it from a file only, which is one in memory."""
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    data = b"".join((*(each.public_bytes(encoding) for each in chain), private))
    descriptor = os.memfd_create("certificate")
    try:
        with open(descriptor, "wb", closefd=False) as stream:
            stream.write(data)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except (OSError, ValueError) as error:
        # Of `ssl` too: keys that are too short, algorithms that are too old.
        reason = getattr(error, "reason", None) or error
        raise CertificateError("certificate", f"{files.certificate} cannot be used: {reason}") from error
    finally:
        os.close(descriptor)


def _trust(context: ssl.SSLContext, path: str, now: datetime) -> None:
    """Have peers show a certificate that one of these vouches for; an intermediate one may be all there is."""
    authorities = _certificates(path, "client_ca")
    valid = [each for each in authorities if each.not_valid_after_utc >= now]
    if not valid:
        raise CertificateError("client_ca", f"{path}: every certificate in it has expired: nobody could connect")
    data = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in valid)
    try:
        context.load_verify_locations(cadata=data.decode())
    except ssl.SSLError as error:
        raise CertificateError("client_ca", f"{path} cannot be used: {error.reason}") from error
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.verify_mode = ssl.CERT_REQUIRED
