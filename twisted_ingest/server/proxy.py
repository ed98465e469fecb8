"""
The stage that takes a PROXY header off the beginning of a connection: who has connected is whom the proxy names.
"""

from typing import Protocol

from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import RefuseReason
from twisted_ingest.framing.proxy import ProxyReader
from twisted_ingest.framing.proxy_said import Endpoint, ProxyHeader, ProxyHeaderError
from twisted_ingest.limits import PROXY_TIMEOUT
from twisted_ingest.server.stages import IStage, TurnedAwayError
from twisted_ingest.server.transports import IngestTransport, address_text


class ProxyOwner(Protocol):
    """What the stage needs of whoever made it."""

    def judge(self, info: ConnectionInfo) -> None:
        """Raise `TurnedAwayError` where whom the header names may not come in."""


class ProxyStage(IStage):
    """
    Reads the header, corrects who it is by it, and has that judged before anything else is done for it.

    A proxy that speaks for itself stays who it is; it counts towards no peer's limits.
    """

    timeout = PROXY_TIMEOUT

    def __init__(self, owner: ProxyOwner) -> None:
        self._owner = owner
        self._reader = ProxyReader()

    def begin(self, info: ConnectionInfo, transport: IngestTransport) -> None:
        """See `IStage`."""
        self._info = info
        self._transport = transport

    def feed(self, data: bytes) -> bytes | None:
        """See `IStage`."""
        try:
            rest = self._reader.feed(data)
        except ProxyHeaderError as error:
            raise _refusal(error) from error
        if rest is not None and self._reader.header is not None:
            self._correct(self._reader.header)
            self._owner.judge(self._info)
        return rest

    def close(self, reason: RefuseReason) -> None:
        """See `IStage`: it holds nothing but memory."""

    def overdue(self) -> TurnedAwayError:
        """See `IStage`."""
        what = "no PROXY header" if not self._reader.kept else "a PROXY header without its end"
        return TurnedAwayError(
            RefuseReason.PROXY_MISSING,
            f"it has sent {what} within {PROXY_TIMEOUT:g} s, which has to come first here (--proxy-protocol-from)",
        )

    def _correct(self, header: ProxyHeader) -> None:
        info = self._info
        info.proxy = info.peer
        if header.source is None or _same(header.source, info.peer):
            info.host = None
            info.local = address_text(self._transport.getHost())[0]
            return
        info.peer, info.host = str(header.source), _host(header.source)
        info.local = None if header.destination is None else str(header.destination)


def _same(end: Endpoint, peer: str) -> bool:
    """Whether a header names the proxy's own end of the connection, as HAProxy's checks do in version 1."""
    return peer in (str(end), f"[::ffff:{end.host}]:{end.port}")


def _host(end: Endpoint) -> str | None:
    return None if end.port is None else end.host


def _refusal(error: ProxyHeaderError) -> TurnedAwayError:
    if error.is_missing:
        return TurnedAwayError(RefuseReason.PROXY_MISSING)
    return TurnedAwayError(
        RefuseReason.PROXY_BAD,
        f"it sent {error} (--proxy-protocol-from): mend the proxy, which may send one header of version 1 or 2",
    )
