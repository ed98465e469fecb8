"""
What stands before a connection: it takes a newcomer through stages, one after the other, each by a deadline.

Nobody is admitted before the last stage is through; until then a newcomer has no framer, no lane and no number among
the connections. Where there is no stage no doorway is made.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from twisted.internet import error
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure

from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import DiscardReason, RefuseReason
from twisted_ingest.ledger import ListenerLedger
from twisted_ingest.limits import CLOSE_TIMEOUT, DOORWAY_BYTES, DOORWAY_OVERHEAD, DOORWAY_TIMEOUT
from twisted_ingest.observe.events import Events
from twisted_ingest.server.stages import IStage, TurnedAwayError
from twisted_ingest.server.transports import IngestTransport


class DoorwayOwner(Protocol):
    """What a doorway needs of whoever made it."""

    @property
    def ledger(self) -> ListenerLedger:
        """Where bytes and refusals are counted."""

    @property
    def events(self) -> Events:
        """Who is told of what happens."""

    @property
    def clock(self) -> IReactorTime:
        """What its deadline goes by."""

    def doorway_made(self, doorway: "Doorway") -> None:
        """Enter it in the registry; may turn away the oldest."""

    def doorway_weighs(self, doorway: "Doorway", delta: int) -> None:
        """Charge a change in the bytes that it takes; may turn away the oldest, this one included."""

    def doorway_left(self, doorway: "Doorway") -> None:
        """Strike it from the registry. Safe to call again."""

    def admit(self, info: ConnectionInfo, waiting: int) -> Any:
        """Make the connection, behind which so many bytes wait, or raise `TurnedAwayError`."""

    def keep(self, delta: int) -> None:
        """Charge a change in the bytes of those admitted that have to wait because nothing is read."""


class Doorway(TwistedProtocol):
    """
    Takes a newcomer through its stages; then admits it, and hands its transport to the connection.

    ``size`` are the bytes that have come, of which nobody knows yet what they are. Bytes behind the last stage are the
    connection's. It ends in one of three ways: admitted, turned away, or left by the newcomer.
    """

    transport: IngestTransport  # type: ignore[assignment]

    takes_views = False
    """Whether ``dataReceived`` may be given a view: stages keep what they are given."""

    def __init__(self, info: ConnectionInfo, owner: DoorwayOwner, makers: Sequence[Callable[[], IStage]]) -> None:
        self.info = info
        self.size = 0
        self.is_over = False
        """Turned away, and still there: its descriptor is let go of soon."""
        self._owner = owner
        self._makers: Iterator[Callable[[], IStage]] = iter(makers)
        self._stages: list[IStage] = []
        """Those that have begun; the last is the one whose turn it is."""
        self._is_passing = False
        self._charged = 0
        self._passed = 0
        """Bytes that came before those of the stage whose turn it is."""
        self._end_by = owner.clock.seconds() + DOORWAY_TIMEOUT
        self._has_waited = False
        """Whether its stage was given the time to read what had come when its own was up."""

    # Twisted calls these. No exception leaves: a bug costs this newcomer only.

    def connectionMade(self) -> None:
        """Begin the first stage."""
        try:
            self._owner.doorway_made(self)
            self._pass(b"", is_begun=False)
            self._weigh()
        except Exception as problem:  # noqa: BLE001 - whatever it is, it must end here
            self._give_up(problem, "the beginning of a stage")

    def dataReceived(self, data: bytes) -> None:
        """Feed the stage whose turn it is."""
        if self.is_over:
            return
        self._owner.ledger.bytes_received += len(data)
        self.size += len(data)
        try:
            self._pass(data, is_begun=True)
            self._weigh()
        except Exception as problem:  # noqa: BLE001 - as above
            self._give_up(problem, "a stage")

    def connectionLost(self, reason: Failure = error.ConnectionDone) -> None:  # type: ignore[assignment]
        """Count a newcomer that has left by itself."""
        if not self.is_over:
            self._end(RefuseReason.DOORWAY_LEFT, None)
        self._owner.ledger.bytes_unread += getattr(self.transport, "unread_at_close", 0)
        self._leave()

    def end_badly(self) -> None:
        """Leave the registry although ``connectionLost`` raised."""
        self._owner.events.internal_error("connectionLost", self.info)
        self._leave()

    # The owner calls these.

    def turn_away(self, reason: RefuseReason, why: str | None = None) -> None:
        """End by a reset; a sender that writes without reading learns so."""
        if not self.is_over:
            self._end(reason, why)
            self.transport.abortConnection()

    def sweep(self, now: float) -> None:
        """Look at the deadline, once a second; ``now`` in reactor seconds."""
        if now < self._end_by:
            return
        if self.is_over:
            self.transport.abortConnection()
        elif self.transport.unread_bytes() and not self._has_waited:
            self._has_waited = True  # it may be we who were slow; it is read before the next look
        else:
            overdue = self._stages[-1].overdue() if self._stages else TurnedAwayError(RefuseReason.DOORWAY_TIMEOUT)
            self.turn_away(overdue.reason, overdue.why)

    def forgive(self, seconds: float) -> None:
        """Let time that the whole process slept not count towards the deadline."""
        self._end_by += seconds

    # What follows is ours.

    def _pass(self, data: bytes, *, is_begun: bool) -> None:
        """Go on from the stage whose turn it is, as far as what has come goes."""
        if self._is_passing:
            raise RuntimeError("bytes were brought from inside a stage")
        self._is_passing = True
        try:
            rest = self._stages[-1].feed(data) if is_begun else data
            while rest is not None:
                maker = next(self._makers, None)
                if maker is None:
                    self._go_through(rest)
                    return
                self._passed = self.size - len(rest)
                rest = self._begin(maker()).feed(rest)
        finally:
            self._is_passing = False
        if self.size > DOORWAY_BYTES:
            raise TurnedAwayError(RefuseReason.DOORWAY_BYTES)

    def _begin(self, stage: IStage) -> IStage:
        self._stages.append(stage)
        self._end_by = self._owner.clock.seconds() + stage.timeout
        self._has_waited = False
        stage.begin(self.info, self.transport)
        return stage

    def _weigh(self) -> None:
        """Charge what it holds, which is no more than all that has come."""
        if not self.is_over:
            self._charge(DOORWAY_OVERHEAD + self.size + sum(stage.cost for stage in self._stages))

    def _charge(self, size: int) -> None:
        delta, self._charged = size - self._charged, size
        if delta:
            self._owner.doorway_weighs(self, delta)

    def _leave(self) -> None:
        self._charge(0)
        self._owner.doorway_left(self)

    def _go_through(self, rest: bytes) -> None:
        """Admit the newcomer, let the connection have its transport, and ``rest``."""
        connection = self._owner.admit(self.info, len(rest))
        protocol: Any = connection
        for stage in reversed(self._stages):
            protocol = stage.wrap(protocol)
        ledger, transport = self._owner.ledger, self.transport
        self.is_over = True
        ledger.bytes_framing += self.size - len(rest)
        self._leave()
        transport.protocol = protocol
        try:
            protocol.makeConnection(transport)
        except Exception:  # noqa: BLE001 - as where there is no doorway
            self._owner.events.internal_error("makeConnection", self.info)
            ledger.bytes_discarded[DiscardReason.INTERNAL_ERROR] += len(rest)
            transport.abortConnection()
            return
        if rest:
            ledger.bytes_received -= len(rest)  # the connection counts what it is given
            if connection.paused:
                self._owner.keep(len(rest))
                transport.put_back(rest, partial(self._owner.keep, -len(rest)))
            else:
                protocol.dataReceived(rest)

    def _give_up(self, problem: Exception, where: str) -> None:
        """Turn the newcomer away for what a stage, or admission, has raised. Called inside the ``except`` block."""
        if self.is_over:
            # It was turned away, or is a connection, meanwhile.
            self._owner.events.internal_error(where, self.info)
            self.transport.abortConnection()
        elif not isinstance(problem, TurnedAwayError):
            self._owner.events.internal_error(where, self.info)
            self.turn_away(RefuseReason.INTERNAL_ERROR)
        elif problem.farewell:
            self._end(problem.reason, problem.why)
            self._end_by = self._owner.clock.seconds() + CLOSE_TIMEOUT
            self.transport.write(problem.farewell)
            self.transport.loseConnection()
        else:
            self.turn_away(problem.reason, problem.why)

    def _end(self, reason: RefuseReason, why: str | None) -> None:
        """Account for one that does not come through; its bytes were read for nothing."""
        self.is_over = True
        ledger, info = self._owner.ledger, self.info
        ledger.bytes_discarded[DiscardReason.DOORWAY] += self.size
        self._charge(0)
        if reason is RefuseReason.DOORWAY_LEFT and self.size == self._passed:
            # Whoever looks whether the port is open does so for ever; a proxy's header says no more than that.
            ledger.connections_refused[reason] += 1
        else:
            self._owner.events.connection_refused(ledger, info.listener, info.peer, reason, why)
        for stage in self._stages:
            try:
                stage.close(reason)
            except Exception:  # noqa: BLE001 - the others hold something too
                self._owner.events.internal_error("closing a stage", info)
