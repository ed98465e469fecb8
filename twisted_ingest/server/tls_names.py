"""
Who a certificate says its holder is, and who of those may send.

Names are matched by the library service-identity, the operator's name as the pattern and the certificate's as the one
to be found in it: so a certificate has to name one host, and a wildcard in it matches nothing. Only subject
alternative names count, never the common name.
"""

import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import (
    DNS_ID,
    CertificatePattern,
    DNSPattern,
    IPAddress_ID,
    IPAddressPattern,
    ServiceID,
    verify_service_identity,
)

from twisted_ingest.batch import PeerCertificate

MOST_NAMES = 64
"""Names of one certificate that are looked at: each is held against all that may send, in the reactor. Hosts have a
handful."""

LONGEST_NAME = 253
"""Characters of a DNS name (RFC 1035)."""

LONGEST_SUBJECT = 256
"""Characters of a subject that are kept of a peer's certificate, which may have as many as it likes."""

_FINGERPRINT = re.compile(r"(?i:sha-?256):((?:[0-9a-fA-F]{2}:?){32})")

_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?")

_WILDCARD_ELSEWHERE = re.compile(r"[^*]\*|\*[^.]|\*.*\*")


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Write the SHA-256 of a certificate's DER as operators write it: ``SHA256:`` and capital hexadecimal digits."""
    return f"SHA256:{certificate.fingerprint(SHA256()).hex().upper()}"


class PeerNames:
    """
    Those who may send: DNS names, whose left-most label may be ``*``, IP addresses, fingerprints of certificates.

    Raises ``ValueError`` for what is none of these, and where there is none: that would be nobody.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(dict.fromkeys(texts))
        if not self.texts:
            raise ValueError('it needs names of those who may send (try "*.example.com"); with none nobody may')
        self._fingerprints: set[str] = set()
        self._patterns: list[CertificatePattern] = []
        for text in self.texts:
            found = _FINGERPRINT.fullmatch(text)
            if found is not None:
                self._fingerprints.add(f"SHA256:{found[1].replace(':', '').upper()}")
            else:
                self._patterns.append(_pattern(text))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PeerNames) and self.texts == other.texts

    def __hash__(self) -> int:
        return hash(self.texts)

    def __str__(self) -> str:
        return ", ".join(self.texts)

    def find(self, certificate: x509.Certificate) -> str | None:
        """Give the name in the certificate that lets its holder in, or its fingerprint; ``None``: nothing does."""
        for name, identity in names_of(certificate):
            if self._admits(identity):
                return name
        fingerprint = fingerprint_of(certificate)
        return fingerprint if fingerprint in self._fingerprints else None

    def _admits(self, identity: ServiceID) -> bool:
        try:
            return bool(verify_service_identity(self._patterns, [identity], []))
        except (VerificationError, CertificateError):
            return False


def names_of(certificate: x509.Certificate) -> Iterator[tuple[str, ServiceID]]:
    """Give the names that a certificate has, each one host or address; what names no single one is left out."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = names.get_values_for_type(x509.DNSName)
        addresses = names.get_values_for_type(x509.IPAddress)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return
    for host in hosts[:MOST_NAMES]:
        # The library takes blanks around a name off: this is another name than it says.
        if host == host.strip() and len(host) <= LONGEST_NAME:
            try:
                identity = DNS_ID(host)
            except ValueError:
                continue
            yield identity.hostname.decode("ascii", "replace"), identity
    for address in addresses[:MOST_NAMES]:
        try:
            yield str(address), IPAddress_ID(str(address))
        except ValueError:
            continue


def describe(certificate: x509.Certificate) -> PeerCertificate:
    """Give what is kept of a peer's certificate."""
    try:
        subject = certificate.subject.rfc4514_string()
    except ValueError:
        subject = "?"
    return PeerCertificate(fingerprint_of(certificate), subject[:LONGEST_SUBJECT])


def identity_of(certificate: x509.Certificate) -> str:
    """Say who a certificate's holder is, where everybody may send that its issuer vouches for."""
    return next((name for name, _ in names_of(certificate)), fingerprint_of(certificate))


def _pattern(text: str) -> CertificatePattern:
    try:
        return IPAddressPattern(ip_address(text))
    except ValueError:
        pass
    wrong = f'{text!r} is not the name of a peer (try "*.example.com", an IP address or "SHA256:..."): '
    if re.match(r"(?i)sha-?256", text):
        raise ValueError(wrong + "a SHA-256 fingerprint has 64 hexadecimal digits")
    if text.lower().startswith("sha1"):
        raise ValueError(wrong + "SHA-1 proves nothing any more")
    if _WILDCARD_ELSEWHERE.search(text):
        raise ValueError(wrong + "a * stands for the whole first label and nowhere else")
    pattern = _host_pattern(text)
    if pattern is None:
        raise ValueError(wrong + "behind a * there have to be two labels, and letters, digits and '-' in each")
    return pattern


def _host_pattern(text: str) -> DNSPattern | None:
    try:
        return DNSPattern.from_bytes(text.encode("ascii")) if _HOST.fullmatch(text) else None
    except CertificateError:
        return None
