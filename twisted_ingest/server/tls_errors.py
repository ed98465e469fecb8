"""
What OpenSSL says of a handshake that failed, in the words of a closed set and of whoever has to mend it.
"""

import re
import ssl

from twisted_ingest.errors import HandshakeResult

_NOT_YET_VALID, _EXPIRED = 9, 10
"""``X509_V_ERR_CERT_NOT_YET_VALID`` and ``X509_V_ERR_CERT_HAS_EXPIRED`` (x509_vfy.h)."""

_NO_CERTIFICATE = (
    "it showed no certificate: give it one that the client CA of this listener vouches for (--tls-client-ca)"
)

_TOO_OLD = "it offers no version of TLS that is allowed here: let it speak TLS 1.2 or 1.3 (min_version)"

_NO_CIPHER = (
    "it has no cipher suite in common with this server, which takes ECDHE with AES-GCM or ChaCha20 only: "
    "renew its TLS library, or its settings"
)

_KNOWN = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": _NO_CERTIFICATE,
    "UNSUPPORTED_PROTOCOL": _TOO_OLD,
    "VERSION_TOO_LOW": _TOO_OLD,
    "UNKNOWN_PROTOCOL": _TOO_OLD,
    "NO_SHARED_CIPHER": _NO_CIPHER,
    "EXCESSIVE_MESSAGE_SIZE": "its chain of certificates is longer than 100 KiB: nobody needs so many",
}
"""By OpenSSL's word for it."""

_NOT_TRUSTED = frozenset({"unknown ca", "bad certificate", "certificate unknown", "unsupported certificate"})

_ALERT = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_ALERT_(\w+)")


def explain(error: ssl.SSLError) -> tuple[HandshakeResult, str]:
    """Say what a failed handshake counts as, and why it failed, in our words and OpenSSL's, none of the peer's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_certificate(error)
    reason = error.reason or ""
    alert = _ALERT.fullmatch(reason)
    if alert is not None:
        return HandshakeResult.PROTOCOL, _of_alert(alert[1].lower().replace("_", " "))
    missing = reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    result = HandshakeResult.NO_CERTIFICATE if missing else HandshakeResult.PROTOCOL
    return result, _KNOWN.get(reason, f"its TLS handshake failed ({_words(reason)})")


def _of_certificate(error: ssl.SSLCertVerificationError) -> tuple[HandshakeResult, str]:
    if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
        return HandshakeResult.EXPIRED, f"its certificate is not valid now ({error.verify_message}): renew it"
    return (
        HandshakeResult.UNTRUSTED,
        f"the client CA of this listener does not vouch for its certificate ({error.verify_message}): "
        "give it one of that CA, or add the CA that issued it (--tls-client-ca)",
    )


def _of_alert(alert: str) -> str:
    """Explain what the peer has refused us with."""
    if alert in _NOT_TRUSTED or "certificate" in alert:
        return (
            f"it does not accept our certificate (alert: {alert}): let it trust the CA that issued it, and connect by "
            "a name that the certificate holds"
        )
    return f"it gave up the handshake (alert: {alert})"


def what_broke(error: ssl.SSLError) -> str:
    """Say what ended a connection behind its handshake."""
    return _words(error.reason or type(error).__name__)


def _words(reason: str) -> str:
    return reason.lower().replace("_", " ") or "no reason given"
