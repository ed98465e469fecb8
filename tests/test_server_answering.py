"""Another protocol that answers: a pure session and a few lines around it, and everything else holds as for RELP."""

from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.batch import LF, Batch, ConnectionInfo
from twisted_ingest.errors import CloseReason, DiscardReason, Durability
from twisted_ingest.framing.base import Framer
from twisted_ingest.framing.scan import Chunk
from twisted_ingest.framing.session import Session
from twisted_ingest.server.answering import AnsweringConnection
from twisted_ingest.server.answering_factory import AnsweringFactory
from twisted_ingest.testing import Rig, StalledSink


class Taken(NamedTuple):
    """So many lines are safe."""

    records: int

    def encode(self) -> bytes:
        """Write it as the wire wants it."""
        return b"%d\n" % self.records


class CountingSession(Session[Taken]):
    """Lines, of which each chunk's are answered by their number; ``quit`` is the end."""

    __slots__ = ("has_quit",)

    goodbye = b"bye\n"

    @property
    def ending(self) -> CloseReason | None:
        """See `Session`."""
        return CloseReason.EOF if self.closed is DiscardReason.PROTOCOL else None

    def finish(self, now: float) -> list[Batch]:
        """Deliver nothing that is unfinished: nobody was told that it is safe."""
        if self.closed is None:
            self.discard(DiscardReason.UNANSWERED)
        return []

    def _feed(self, chunk: Chunk, now: float, batches: list[Batch]) -> None:
        *lines, self.partial = self._take_partial(chunk).split(LF)
        records = [line for line in lines if line != b"quit"]
        if lines:
            self.crossed = True
            size = sum(map(len, lines)) + len(lines)
            self._emit_records(records, size, now, batches)
            self.replies.append(Taken(len(records)))
        if len(records) != len(lines):
            self.discard(DiscardReason.PROTOCOL)


class CountingConnection(AnsweringConnection):
    """What is the protocol's own: bounds, and what is counted."""

    most_unanswered = 10
    unread_timeout = 60.0
    ended_timeout = 90.0
    drain_quiet = 0.2
    answered = lost = 0

    def note_answered(self, records: int, seconds: float) -> None:
        """See `AnsweringConnection`."""
        type(self).answered += records

    def note_unanswered(self, records: int) -> None:
        """See `AnsweringConnection`."""
        type(self).lost += records


class CountingFactory(AnsweringFactory):
    """Makes its sessions."""

    base = CountingConnection

    def make_framer(self, info: ConnectionInfo, delimiter: bytes | None, max_length: int | None) -> Framer:
        """See `ConnectionFactory`."""
        return CountingSession(info, self.ledger, self.limits.max_record_bytes, sniff=False)


class SeamTests(SynchronousTestCase):
    def setUp(self) -> None:
        CountingConnection.answered = CountingConnection.lost = 0
        rig = self.rig = Rig(StalledSink(), durability=Durability.WRITTEN)
        rig.factory = rig.listener.factory = CountingFactory(
            "test",
            rig.factory.limits,
            intake=rig.intake,
            admission=rig.admission,
            events=rig.events,
            clock=rig.clock,
            wall_time=rig.clock.seconds,
        )
        self.addCleanup(lambda: self.assertEqual(rig.survey.conservation_error(), 0))
        self.peer = rig.connect()

    def say(self, data: bytes) -> None:
        self.peer.peer_sends(data)
        self.peer.pump()
        self.rig.turn()

    def heard(self) -> bytes:
        return bytes(self.peer.written)

    def test_answers(self) -> None:
        """Nothing is answered before it is safe; then all is, in order."""
        self.say(b"one\ntwo\n")
        self.say(b"three\n")
        self.assertEqual((self.heard(), self.rig.factory.unanswered()[0]), (b"", 3))
        self.rig.sink.release()
        self.rig.turn()
        self.rig.sink.release()
        self.assertEqual((self.heard(), CountingConnection.answered), (b"2\n1\n", 3))
        self.assertEqual(self.rig.sink.records, [b"one", b"two", b"three"])

    def test_goodbye(self) -> None:
        """A session that is over is answered to its end, told so, and half-closed."""
        self.say(b"one\nquit\nlate")
        self.assertEqual(self.heard(), b"")
        self.rig.sink.release()
        self.rig.turn()
        self.assertEqual((self.heard(), self.peer.write_closed), (b"1\nbye\n", True))
        self.peer.peer_closes()
        self.peer.pump()
        self.rig.turn()
        self.assertEqual(self.rig.factory.connections, {})

    def test_withheld(self) -> None:
        """A peer that is too far ahead of its answers is not read until it has half of them."""
        self.say(b"line\n" * 11)
        self.say(b"more\n")
        self.assertFalse(self.peer.reading)
        self.rig.sink.release()
        self.rig.turn()
        self.assertTrue(self.peer.reading)

    def test_refused(self) -> None:
        """What the sink will never take is not answered: the peer is reset, and counts what it lost."""
        self.say(b"one\ntwo\n")
        self.rig.sink.fail()
        self.rig.turn()
        self.assertEqual((self.heard(), self.peer.was_reset, CountingConnection.lost), (b"", True, 2))

    def test_drain(self) -> None:
        """A stop answers what has come, and says goodbye."""
        self.say(b"one\n")
        done = self.rig.drain()
        self.rig.clock.pump([0.05] * 10)
        self.rig.sink.release()
        self.rig.clock.pump([0.05] * 10)
        self.assertEqual(self.heard(), b"1\nbye\n")
        self.peer.peer_closes()
        self.peer.pump()
        self.rig.clock.pump([0.05] * 60)
        self.successResultOf(done)
