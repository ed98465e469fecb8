"""
What became of a poll that did not go well, in the words of the metrics and of the log.
"""

import os

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.web.client import RequestTransmissionFailed, ResponseFailed, ResponseNeverReceived

from twisted_ingest.errors import PollResult


class PollError(Exception):
    """A poll did not go well. ``retry_after`` is when the server wants to be asked again, in seconds."""

    def __init__(self, result: PollResult, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.result = result
        self.detail = detail
        self.retry_after = retry_after


def classified(failure: Exception) -> PollError | None:
    """Say what an error of the connection or of the parser means; ``None``: it is a bug of ours."""
    match failure:
        case PollError():
            return failure
        case ResponseNeverReceived() | ResponseFailed() | RequestTransmissionFailed():
            return _of_connection(failure.reasons)
        case error.DNSLookupError():
            return PollError(PollResult.CONNECT, "its host has no address")
        case error.TimeoutError():
            return PollError(PollResult.TIMEOUT, "nobody has answered in time")
        case error.ConnectError() | OSError():
            return PollError(PollResult.CONNECT, _words(failure))
        case error.ConnectionClosed() | CancelledError():
            return PollError(PollResult.UNFINISHED, "the connection ended without an answer")
        case SSL.Error() | VerificationError():
            return PollError(PollResult.TLS, _of_tls(failure))
        case _:
            return None


def _of_connection(reasons: list[Failure]) -> PollError:
    """Say why no whole answer came. What is not about the connection is what the parser met."""
    for reason in reasons:
        if reason.check(SSL.Error, VerificationError):
            return PollError(PollResult.TLS, _of_tls(reason.value))
    for reason in reasons:
        if not reason.check(error.ConnectionClosed, CancelledError):
            return PollError(PollResult.PROTOCOL, "what it answers is not HTTP")
    return PollError(PollResult.UNFINISHED, "the connection ended without an answer")


def _of_tls(failure: BaseException | None) -> str:
    if isinstance(failure, VerificationError):
        return "its certificate is of another name"
    words = [
        str(part)
        for queued in getattr(failure, "args", ())
        if isinstance(queued, list)
        for each in queued
        for part in each
    ]
    return "no secure connection: " + ("; ".join(word for word in words if word) or "the server hung up")


def _words(failure: Exception) -> str:
    """Give the kernel's words."""
    number = getattr(failure, "errno", None) or getattr(failure, "osError", None)
    return os.strerror(number) if isinstance(number, int) else "no connection"
