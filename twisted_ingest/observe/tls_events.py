"""
What becomes of certificates, and of connections on account of TLS.
"""

from datetime import UTC, datetime

from twisted.logger import LogLevel

from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.escaping import escape
from twisted_ingest.observe.facts import Facts, who_of


class TLSEvents(Facts):
    """Facts of TLS. Newcomers that it turns away are told of as all others are."""

    def tls_broken(self, info: ConnectionInfo, what: str) -> None:
        """Note that a connection ends because what came on it is no TLS any more."""
        self._limited(
            "tls_broken",
            LogLevel.warn,
            "{listener}: {peer} (#{conn}) broke the rules of TLS, or what it sent was damaged on its way ({what}): the "
            "connection ends",
            **who_of(info),
            what=escape(what),
        )

    def certificate_renewed(self, listener: str, not_after: float, fingerprint: str) -> None:
        """Note that newcomers are shown another certificate."""
        self._always(
            "certificate_renewed",
            LogLevel.info,
            "{listener}: the certificate was read anew: {fingerprint}, valid until {until}; connections that are open "
            "go on with theirs",
            listener=listener,
            until=_date(not_after),
            fingerprint=fingerprint,
        )

    def certificate_not_renewed(self, listener: str, problem: str) -> None:
        """Note that a certificate could not be read anew, and why."""
        self._limited(
            f"certificate_not_renewed:{listener}",
            LogLevel.critical,
            "{listener}: the certificate could not be read anew, the old one stays: {problem}",
            listener=listener,
            problem=escape(problem),
        )

    def certificate_ends(self, listener: str, path: str, not_after: float, left: float) -> None:
        """Note that a certificate is about to expire, or has; ``left`` in seconds."""
        self._limited(
            f"certificate_ends:{listener}",
            LogLevel.warn if left > 0 else LogLevel.critical,
            "{listener}: the certificate {path} {what} {until}: renew it, it is read anew by itself",
            listener=listener,
            path=path,
            what="expires on" if left > 0 else "has expired, and senders refuse it, on",
            until=_date(not_after),
        )


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
