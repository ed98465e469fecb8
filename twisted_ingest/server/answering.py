"""
A connection whose peer is answered: records go the way of lines, and each is answered once it is safe.

Thin: what there is to answer, a pure session says; what is safe, the lane tells. Nothing is ever answered with a
refusal for a passing condition: senders delete what is refused. The answer is withheld instead.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_ingest.batch import Batch, ConnectionInfo
from twisted_ingest.errors import CloseReason, DiscardReason, Durability
from twisted_ingest.flow.answers import AnsweringLane
from twisted_ingest.flow.watermark import Watermark
from twisted_ingest.framing.base import Framer
from twisted_ingest.framing.session import Session
from twisted_ingest.interfaces import IAnsweringProducer
from twisted_ingest.limits import CLOSE_TIMEOUT, DRAIN_QUIET
from twisted_ingest.server.connection import Connection, ConnectionOwner
from twisted_ingest.server.due import DueAnswers


@implementer(IPushProducer)
class _AnswerFlow:
    """What the transport pauses when our answers are not read."""

    def __init__(self, session: "AnsweringConnection") -> None:
        self._session = session

    def pauseProducing(self) -> None:
        """Note that answers pile up."""
        self._hear(self._session.answers_stalled)

    def resumeProducing(self) -> None:
        """Note that they flow again."""
        self._hear(self._session.answers_flow)

    def stopProducing(self) -> None:
        """Do nothing: ``connectionLost`` says the same."""

    def _hear(self, news: Callable[[], None]) -> None:
        try:
            news()
        except Exception:  # noqa: BLE001 - the reactor would log it without a limit
            self._session.fail("pausing or resuming answers")


@implementer(IAnsweringProducer, IHalfCloseableProtocol)
class AnsweringConnection(Connection):
    """
    Frames, passes batches to its lane, and answers what the lane says is safe.

    A session that is over, for whatever reason, is
    answered to its end, told so (``goodbye``), and half-closed; what still comes is discarded unanswered, for
    closing with unread bytes would reset the connection and destroy answers on their way. Subclasses say what bounds
    their protocol, and count what is answered.
    """

    framer: Session[Any]
    lane: AnsweringLane

    most_unanswered: int
    """Records that may wait for their answer; from half of that on, after more did, reading goes on."""
    unread_timeout: float
    """Seconds that a peer may leave our answers unread, once the kernel and we have buffered what we may."""
    ended_timeout: float
    """Seconds that a peer which has ended its side is kept for the answers it may still read."""
    drain_quiet: float
    """Seconds without a byte after which a session is ended at a stop."""

    # Of the class until they are something else; see `Connection`.
    _unread_since: float | None = None
    """Since when the transport has had as many answers as it takes."""
    _drain_by: float = 0.0
    _is_over: bool = False
    """Nothing more is taken; what was is answered yet."""
    _is_closing: bool = False
    """Nothing more is said."""
    _has_peer_ended: bool = False

    def __init__(self, info: ConnectionInfo, owner: ConnectionOwner, framer: Session[Any], lane: AnsweringLane) -> None:
        super().__init__(info, owner, framer, lane)
        self._due = DueAnswers(self.note_answered)
        # As the lane was made, whatever becomes of the listener's limits.
        self._answers_at_once = owner.limits.durability is Durability.MEMORY
        self._mark = Watermark(self.most_unanswered, self.most_unanswered // 2)

    @property
    def unanswered(self) -> int:
        """How many records wait for their answer."""
        return self._due.records

    # Subclasses count.

    def note_answered(self, records: int, seconds: float) -> None:
        """Count records that are answered now, ``seconds`` after their last byte came."""
        raise NotImplementedError

    def note_unanswered(self, records: int) -> None:
        """Count records that go without their answer; none, mostly."""
        raise NotImplementedError

    # Twisted calls these.

    def connectionMade(self) -> None:
        """Join the flow, and ask to be told when answers are not read."""
        super().connectionMade()
        self.transport.registerProducer(_AnswerFlow(self), True)

    def readConnectionLost(self) -> None:
        """End the session of a peer that has ended its side, and may wait for answers yet."""
        # Called again whenever reading is resumed.
        try:
            self._pass_on(self.framer.finish(self._wall_time()))
            self._has_peer_ended = True
            self._end(CloseReason.EOF)
            self._await_answers()
        except Exception:  # noqa: BLE001 - Twisted would log it without a limit, and take it for a reset
            self.fail("readConnectionLost")

    def writeConnectionLost(self) -> None:
        """Do nothing: we have ended our side."""

    def connectionLost(self, reason: Failure = error.ConnectionDone) -> None:  # type: ignore[assignment]
        """Count what goes without its answer."""
        self._is_over = self._is_closing = True
        self.note_unanswered(self.unanswered)
        super().connectionLost(reason)
        self._due.clear()

    # The transport, the lane and the factory call these.

    def answers_stalled(self) -> None:
        """Stop reading until the peer reads: it would only add to what it leaves lying."""
        self._unread_since = self._clock.seconds()
        self._hold_back()

    def answers_flow(self) -> None:
        """Read again."""
        self._unread_since = None
        self._hold_back()

    def settled(self, count: int) -> None:
        """See `IAnsweringProducer`: answer what waited for these batches."""
        if not self._answers_at_once:
            self._due.note_safe(count)
            self._answer()

    def refused(self) -> None:
        """See `IAnsweringProducer`: without its answer the peer sends again, to whoever can take it."""
        self._is_over = self._is_closing = True
        self.close(CloseReason.SINK_FAILED, reset=True)

    def close(self, reason: CloseReason, *, reset: bool) -> None:
        """See `Connection`; no answer is written afterwards."""
        self._is_over = self._is_closing = True
        # Twisted would tell a producer to stop, and not wait for what is written (twisted #6461).
        self.transport.unregisterProducer()
        super().close(reason, reset=reset)

    def sweep(self, now: float) -> None:
        """Look at the deadlines; see `Connection`."""
        if self._unread_since is not None and now - self._unread_since > self.unread_timeout:
            self._unread_since = None
            self._owner.events.timed_out(self.info, CloseReason.ACKS_UNREAD, self.unread_timeout)
            self.close(CloseReason.ACKS_UNREAD, reset=True)
            return
        super().sweep(now)

    def forgive(self, seconds: float) -> None:
        """See `Connection`."""
        super().forgive(seconds)
        if self._unread_since is not None:
            self._unread_since += seconds

    def hang_up(self) -> None:
        """Note that the peer has ended its side while we do not read; it may wait for answers yet."""
        if not self._due:
            super().hang_up()
        elif not self._has_peer_ended:
            self._has_peer_ended = True
            self._close_by = self._clock.seconds() + self.ended_timeout

    def begin_drain(self) -> None:
        """Read what has arrived, answer it, and end the session; a half-close first would forbid the answers."""
        if self._enter_drain():
            self._drain_by = self._clock.seconds() + DRAIN_QUIET

    def drain(self, now: float) -> None:
        """
        End the session once what had been sent is read; a peer that never stops has had its second.

        In good order: a reset would destroy answers on their way.
        """
        if self.is_quiet(now, DRAIN_QUIET):
            self.close(CloseReason.DRAIN, reset=False)
            return
        if self._is_over or self.paused or self.quiet_since is None:
            return
        is_read = now - self.quiet_since >= self.drain_quiet and not self.transport.unread_bytes()
        if is_read or now >= self._drain_by:
            self._pass_on(self.framer.finish(self._wall_time()))
            self._end(CloseReason.DRAIN)

    def is_quiet(self, now: float, seconds: float) -> bool:
        """See `Connection`: nor may an answer be due."""
        return not self._due and super().is_quiet(now, seconds)

    # What follows is ours.

    def _pass_on(self, batches: list[Batch]) -> None:
        """Do as for lines, and answer what may be answered."""
        due, (replies, self.framer.replies) = self._due, (self.framer.replies, [])
        due.note_written(len(batches))
        if replies:
            # Before the batches are written: the sinks may have taken them when that returns.
            due.add(replies, self._clock.seconds())
        super()._pass_on(batches)
        if self._answers_at_once:
            due.note_safe()
        if due.is_ready or self._is_over:
            self._answer()
        else:
            self._hold_back()

    def _answer(self) -> None:
        """Write all answers that are due, in one piece; end the session once it is over and all is answered."""
        if self._due.is_ready and not self._is_closing:
            self.transport.write(self._due.take(self._clock.seconds()))
        self._hold_back()
        if self._is_over and not self._due and not self._is_closing:
            self._say_goodbye()

    def _hold_back(self) -> None:
        """Stop reading while too much waits for its answer, or answers wait to be read."""
        self._mark.update(self.unanswered)
        self.lane.withhold(not self._is_over and (self._mark.is_high or self._unread_since is not None))

    def _end_stream(self, framer: Framer) -> None:
        reason = self.framer.ending
        if reason is not None:
            self._end(reason)
        elif framer.closed is not DiscardReason.UNANSWERED:
            super()._end_stream(framer)

    def _end(self, reason: CloseReason) -> None:
        """Take nothing more; what was taken is answered yet."""
        if self._is_over:
            return
        self._is_over = True
        self.close_reason = self.close_reason or reason
        self._end_timeout()
        self.frame_since = None
        self._answer()

    def _say_goodbye(self) -> None:
        """Tell the peer that the session is over, and wait for it to close, but not for ever."""
        self._is_closing = True
        self.transport.unregisterProducer()
        self.transport.write(self.framer.goodbye)
        if self._has_peer_ended:
            self._end_transport(reset=False)
        else:
            self.transport.loseWriteConnection()
        self._close_by = self._clock.seconds() + CLOSE_TIMEOUT

    def _await_answers(self) -> None:
        """Of a peer that has ended its side: close, or keep it for as long as it may wait for its answers."""
        if self._is_closing:
            self._end_transport(reset=False)
        elif self._close_by is None:
            self._close_by = self._clock.seconds() + self.ended_timeout
