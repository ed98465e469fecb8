"""
What a poller is told: whom to ask, how often, and how much it may take.
"""

import os
import re
import stat
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import ssl
from twisted.web.client import BrowserLikePolicyForHTTPS

from twisted_ingest.errors import Oversize, Redirects, SourceError
from twisted_ingest.limits import KIB, MAX_LENGTH, MIB
from twisted_ingest.sources.url import Url

POLL_INTERVAL = 60.0
"""Seconds from the beginning of a poll to that of the next. What is polled changes seldom, or belongs into a sender."""

LEAST_INTERVAL = 1.0
"""Seconds. A server that is asked more often is not polled but loaded."""

POLL_TIMEOUT = 30.0
"""Seconds that a poll may take, from looking up the name to the last byte, those left out in which we hold it back."""

POLL_BYTES = 64 * MIB
"""Bytes of one body. It is streamed, and never held: this bounds what a server that never ends brings by then."""

SECRET_BYTES = 8 * KIB
"""Bytes of a file with a secret: what a server takes as one header."""

CA_BYTES = MIB
"""Bytes of a file with certificates; the bundles of distributions have some 250 KiB."""

_SECRET = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class PollPlan:
    """The settings of one poller."""

    url: Url
    interval_seconds: float = POLL_INTERVAL
    timeout_seconds: float = POLL_TIMEOUT
    max_body_bytes: int = POLL_BYTES
    max_record_bytes: int = MAX_LENGTH
    oversize: Oversize = Oversize.TRUNCATE
    redirects: Redirects = Redirects.SAME_HOST
    headers: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    """Sent besides our own, to the server that is named and to no other: one may be a secret."""
    username: str | None = None
    password_file: str | None = None
    authorization_file: str | None = None
    """Holds the whole value of the header."""
    ca: str | None = None
    """A file of the certificates that are trusted instead of the system's."""

    def authorization(self) -> dict[bytes, bytes]:
        """Read the credentials. Raises `SourceError`, which names the file and nothing of what it holds."""
        if self.authorization_file is not None:
            return {b"Authorization": _read_secret(self.authorization_file)}
        if self.password_file is not None:
            pair = f"{self.username}:".encode() + _read_secret(self.password_file)
            return {b"Authorization": b"Basic " + b64encode(pair)}
        return {}

    def policy(self) -> BrowserLikePolicyForHTTPS:
        """Say which certificates are trusted. Raises `SourceError` where the file of ``ca`` holds none."""
        if self.ca is None:
            return BrowserLikePolicyForHTTPS()
        found = _CERTIFICATE.findall(_read(self.ca, CA_BYTES))
        if not found:
            raise SourceError(f"{self.ca} holds no certificate (PEM)")
        try:
            trusted = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(each) for each in found])
        except Exception as failure:
            raise SourceError(f"{self.ca} holds a certificate that cannot be read") from failure
        return BrowserLikePolicyForHTTPS(trusted)


def _read_secret(path: str) -> bytes:
    secret = _read(path, SECRET_BYTES).rstrip(b"\r\n")
    if not _SECRET.fullmatch(secret):
        raise SourceError(f"{path} must hold one line of printable ASCII")
    return secret


def _read(path: str, most: int) -> bytes:
    """Read a file that is one: a pipe could keep the whole process waiting."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SourceError(f"{path} is no file")
            data = file.read(most + 1)
    except OSError as failure:
        raise SourceError(f"cannot read {path}: {failure.strerror}") from failure
    if len(data) > most:
        raise SourceError(f"{path} is longer than {most} bytes")
    return data


def redacted(plan: PollPlan) -> dict[str, Any]:
    """Give what may be shown of a plan."""
    return {
        "url": plan.url.shown,
        "interval_seconds": plan.interval_seconds,
        "timeout_seconds": plan.timeout_seconds,
        "max_bytes": plan.max_body_bytes,
        "max_length": plan.max_record_bytes,
        "oversize": plan.oversize.value,
        "redirects": plan.redirects.value,
    }
