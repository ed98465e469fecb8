"""
TLS before a connection: the handshake as a stage of the doorway, and who is let in by it.

A newcomer is authorised once, when its handshake is complete, before a byte of what it sent is framed: what came in the
same flight is still encrypted then.
"""

import ssl
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from twisted.internet.interfaces import IProtocol, IReactorTime

from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import HandshakeResult, RefuseReason
from twisted_ingest.flow.intake import Intake
from twisted_ingest.framing.detect import diagnose
from twisted_ingest.ledger import TLSLedger
from twisted_ingest.limits import KIB, READ_SIZE
from twisted_ingest.observe.events import Events
from twisted_ingest.server.stages import IStage, TurnedAwayError
from twisted_ingest.server.tls_errors import explain
from twisted_ingest.server.tls_layer import make_layer
from twisted_ingest.server.tls_names import PeerNames, describe, identity_of
from twisted_ingest.server.tls_renewal import Renewal
from twisted_ingest.server.tls_session import RECORD_SIZE, Session
from twisted_ingest.server.transports import IngestTransport

CONNECTION_BYTES = 17 * KIB
"""Bytes kept free for an admitted connection that speaks TLS, idle or not: OpenSSL's state, its buffers, our objects.
Measured with OpenSSL 3.0: 15 to 17 KiB."""

CERTIFIED_BYTES = 28 * KIB
"""The same where the peer has shown a certificate, which OpenSSL keeps with its chain. Measured 27 to 28 KiB."""

HANDSHAKE_BYTES = 46 * KIB
"""Bytes charged for a handshake that has begun. Measured 42 to 46 KiB."""

PLAIN_SIZE = READ_SIZE + RECORD_SIZE
"""Bytes that are decrypted before a framer is called: all of one read, and room for a whole record behind it."""

HANDSHAKE_BYTE: Final = 0x16
"""What every TLS record begins with that may come first (RFC 8446, 5.1)."""

_ENDED_EARLY = {
    RefuseReason.DOORWAY_TIMEOUT: HandshakeResult.TIMEOUT,
    RefuseReason.DOORWAY_FULL: HandshakeResult.TIMEOUT,
    RefuseReason.DOORWAY_BYTES: HandshakeResult.PROTOCOL,
}
"""What a handshake counts as that was ended from without; whatever is not here is a reset."""


class TLS:
    """
    What the TLS of a listener is made of; called, it makes the stage of a newcomer.

    ``peers`` are those who may send of all that the client CA vouches for; ``None``: everybody.
    """

    def __init__(
        self, renewal: Renewal, peers: PeerNames | None, *, events: Events, intake: Intake, clock: IReactorTime
    ) -> None:
        self.renewal = renewal
        self.peers = peers
        self.events = events
        self.intake = intake
        self.clock = clock
        self.ledger = TLSLedger()
        self.plain = memoryview(bytearray(PLAIN_SIZE))
        """What the connections decrypt into, one after the other: whoever is given it is done with it on return."""
        self.active = 0
        """Handshakes under way."""
        self.size = CERTIFIED_BYTES if renewal.asks else CONNECTION_BYTES
        """Bytes that a connection takes by being there."""

    def __call__(self) -> IStage:
        """Make the stage of a newcomer."""
        return Handshake(self)

    def occupy(self) -> None:
        """Keep free what a connection takes. Raises `TurnedAwayError` where those that speak TLS have their share."""
        if not self.intake.occupy(self.size):
            raise TurnedAwayError(
                RefuseReason.FULL,
                "connections that speak TLS take as much of the memory as they may, a quarter (--memory)",
            )

    def vacate(self) -> None:
        """Give that back."""
        self.intake.vacate(self.size)

    def status(self) -> dict[str, Any]:
        """Give its part of ``/status``: plain values, no secret among them."""
        files, current = self.renewal.files, self.renewal.current
        return {
            "certificate": files.certificate,
            "fingerprint": current.fingerprint,
            "not_after": datetime.fromtimestamp(current.not_after, UTC).isoformat(),
            "client_ca": files.client_ca,
            "peers": None if self.peers is None else list(self.peers.texts),
            "min_version": files.min_version,
            "handshakes_active": self.active,
        }


class Handshake(IStage):
    """
    The handshake of one newcomer, and its authorisation.

    One that says nothing costs nothing of TLS: the objects are made with its first bytes.
    """

    def __init__(self, tls: TLS) -> None:
        self._tls = tls
        self._session: Session | None = None
        self.cost = 0
        self._is_active = False
        self._holds_room = False
        self._info: ConnectionInfo
        self._transport: IngestTransport

    def begin(self, info: ConnectionInfo, transport: IngestTransport) -> None:
        """See `IStage`."""
        self._info, self._transport = info, transport
        self._is_active = True
        self._tls.active += 1

    def feed(self, data: bytes) -> bytes | None:
        """See `IStage`: what stands behind the handshake is encrypted, and for the layer to read."""
        if not data:
            return None
        if self._session is None:
            if data[0] != HANDSHAKE_BYTE:
                raise self._misdirected(data)
            self._session = Session.accept(self._tls.renewal.current.context)
            self.cost = HANDSHAKE_BYTES
        session = self._session
        session.incoming.write(data)
        try:
            session.object.do_handshake()
        except ssl.SSLWantReadError:
            session.flush(self._transport)
            return None
        except ssl.SSLError as error:
            result, why = explain(error)
            raise self._refused(result, why, session.outgoing.read()) from error
        self._authorise(session)
        self._tls.occupy()
        self._holds_room = True
        self._end(HandshakeResult.OK)
        session.flush(self._transport)
        return session.incoming.read()

    def wrap(self, protocol: IProtocol) -> IProtocol:
        """See `IStage`."""
        if self._session is None:
            raise RuntimeError("the handshake is not complete")
        self._holds_room = False  # the layer's now
        made: IProtocol = make_layer(protocol, self._session, self._tls)
        return made

    def close(self, reason: RefuseReason) -> None:
        """See `IStage`."""
        self._end(_ENDED_EARLY.get(reason, HandshakeResult.RESET))
        self._session = None
        if self._holds_room:
            self._holds_room = False
            self._tls.vacate()

    def _end(self, result: HandshakeResult) -> None:
        """Count the handshake as over, once."""
        if self._is_active:
            self._is_active = False
            self._tls.active -= 1
            self._tls.ledger.handshakes[result] += 1

    def _refused(self, result: HandshakeResult, why: str, farewell: bytes) -> TurnedAwayError:
        self._end(result)
        return TurnedAwayError(RefuseReason.TLS_PEER, f"{result}: {why}", farewell=farewell)

    def _misdirected(self, data: bytes) -> TurnedAwayError:
        """Name what was sent in place of a handshake."""
        self._end(HandshakeResult.PROTOCOL)
        found = diagnose(data)[0]
        what = "plain text" if found is None else found.what
        return TurnedAwayError(
            RefuseReason.PLAIN if found is None else found.reason,
            f"it sent {what} where TLS has to begin: turn TLS on at the sender, or have it send to a port without TLS "
            "(--listen, --relp)",
        )

    def _authorise(self, session: Session) -> None:
        """Say who the newcomer is; turn it away where it may not send."""
        shown = session.object.getpeercert(binary_form=True)
        if shown is None:
            return  # nobody asked for one, or OpenSSL would have refused it
        try:
            certificate = x509.load_der_x509_certificate(shown)
            self._info.certificate = describe(certificate)
            identity = self._identify(certificate)
        except ValueError as error:
            raise self._unwanted(session, "its certificate cannot be read") from error
        if identity is None:
            raise self._unwanted(
                session, f"no name in its certificate is one of those that may send ({self._tls.peers}): --tls-peer"
            )
        self._info.identity = identity

    def _identify(self, certificate: x509.Certificate) -> str | None:
        peers = self._tls.peers
        return identity_of(certificate) if peers is None else peers.find(certificate)

    def _unwanted(self, session: Session, why: str) -> TurnedAwayError:
        """Refuse one whose handshake is complete: the only alert that is left to say is the goodbye."""
        kept = self._info.certificate
        shown = "" if kept is None else f"; it is {kept.subject}, {kept.fingerprint}"
        session.say_goodbye()
        return self._refused(HandshakeResult.WRONG_NAME, why + shown, session.outgoing.read())
