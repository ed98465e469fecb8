"""The end of the flow on a virtual transport and clock: who is read on, how each is closed, sinks that do not close."""

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.errors import CloseReason
from twisted_ingest.flow.drain import DRAIN_TICK, drain_sources
from twisted_ingest.limits import DRAIN_QUIET, DRAIN_TIMEOUT, FLUSH_GRACE
from twisted_ingest.server.protocol import IngestProtocol
from twisted_ingest.testing import MemorySink, PumpTransport, Rig
from twisted_ingest.units import Rate


class DrainCase(SynchronousTestCase):
    def rig(self, *sinks: Any, **settings: Any) -> Rig:
        rig = Rig(*sinks, **settings)
        self.addCleanup(lambda: self.assertEqual(rig.survey.conservation_error(), 0))
        return rig

    def drain(self, rig: Rig, *peers: PumpTransport, seconds: float = DRAIN_TIMEOUT + FLUSH_GRACE + 1) -> None:
        """Drain to the end, each peer being read from whenever it may be."""
        done = rig.drain()
        for _ in range(int(seconds / DRAIN_TICK)):
            for peer in peers:
                peer.pump()
            rig.clock.advance(DRAIN_TICK)
        self.successResultOf(done)


class ConnectionTests(DrainCase):
    def test_rates_are_lifted(self) -> None:
        """What a resting peer had sent is read to its end, even where the peer has reset."""
        for end in ("peer_closes", "peer_resets", "is_silent"):
            rig = self.rig(rate=Rate(1.0, False))
            peer = rig.connect()
            peer.peer_sends(b"line\n" * 30)
            peer.pump()
            peer.peer_sends(b"line\n" * 50)
            self.assertFalse(peer.reading)
            getattr(peer, end, lambda: None)()
            self.drain(rig, peer)
            self.assertEqual(len(rig.sink.records), 80)
            self.assertEqual(rig.factory.ledger.bytes_unread, 0)

    def test_what_comes_while_draining_has_no_rate(self) -> None:
        """A peer that goes on sending while we drain is held to no rate either."""
        rig = self.rig(rate=Rate(1.0, False))
        peer = rig.connect()
        done = rig.drain()
        for _ in range(5):
            peer.peer_sends(b"line\n" * 10)
            peer.pump()
            rig.clock.advance(DRAIN_TICK)
        self.assertEqual(len(rig.sink.records), 50)
        rig.clock.pump([DRAIN_TICK] * 200)
        self.successResultOf(done)

    def test_quiet_peer_is_reset(self) -> None:
        """A peer that has not closed by itself is reset once it is quiet; one that has closed is not."""
        rig = self.rig()
        stays, leaves = rig.connect(port=1), rig.connect(port=2)
        done = rig.drain()
        leaves.peer_closes()
        for peer in (stays, leaves):
            self.assertTrue(peer.write_closed)
            peer.pump()
        rig.clock.pump([DRAIN_TICK] * (int(DRAIN_QUIET / DRAIN_TICK) - 2))
        self.assertFalse(stays.was_reset)
        rig.clock.pump([DRAIN_TICK] * 20)
        self.assertEqual((stays.was_reset, leaves.was_reset), (True, False))
        self.successResultOf(done)

    def test_quiet_session_is_not(self) -> None:
        """A RELP session is closed in good order: its last answers may be on their way."""
        rig = self.rig(wire="relp")
        peer = rig.send(b"1 open 30 relp_version=0\ncommands=syslog\n2 syslog 1 x\n")
        self.drain(rig, peer)
        self.assertFalse(peer.was_reset or peer.connected)
        self.assertIn(b"2 rsp 6 200 OK\n0 serverclose 0\n", bytes(peer.written))

    def test_records_cut_off(self) -> None:
        """A line that we cut off is delivered and counted as such; one that its peer ended is only partial."""
        rig = self.rig()
        stays, leaves = rig.connect(port=1), rig.connect(port=2)
        for peer in (stays, leaves):
            peer.peer_sends(b"whole\nhalf")
            peer.pump()
        leaves.peer_closes()
        self.drain(rig, stays, leaves)
        self.assertEqual(rig.sink.records.count(b"half"), 2)
        self.assertEqual((rig.factory.ledger.records_partial, rig.factory.ledger.records_cut), (2, 1))

    def test_unread_bytes_are_counted(self) -> None:
        """What waits in the kernel when a connection is closed is counted, whoever closes it, and outside the sums."""
        rig = self.rig()
        ours, theirs = rig.connect(port=1), rig.connect(port=2)
        ours.peer_sends(b"x" * 7)
        theirs.peer_sends(b"y" * 5)
        theirs._protocol.close(CloseReason.LOCAL, reset=True)
        rig.turn()
        self.assertEqual(rig.factory.ledger.bytes_unread, 5)
        self.drain(rig)
        self.assertEqual(rig.factory.ledger.bytes_unread, 12)
        self.assertEqual(rig.factory.ledger.bytes_received, 0)

    def test_one_that_fails(self) -> None:
        """A connection whose part in a drain raises is ended and counted; the others are read to their end."""
        for broken in ("begin_drain", "drain", "close"):

            class Broken(IngestProtocol):
                """Raises once."""

            def bang(self: Broken, *args: Any, name: str = broken, **kwargs: Any) -> None:
                delattr(Broken, name)
                raise ZeroDivisionError

            setattr(Broken, broken, bang)
            rig = self.rig(protocol=Broken)
            first, second = rig.connect(port=1), rig.connect(port=2)
            second.peer_sends(b"heard\n")
            self.drain(rig, second, first)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.assertEqual((rig.sink.records, rig.events.internal_errors), ([b"heard"], 1))
            self.assertEqual(rig.factory.connections, {})

    def test_deadline(self) -> None:
        """A peer that never stops sending is reset at the deadline, and what it has sent by then is counted."""
        rig = self.rig()
        peer = rig.connect()
        done = drain_sources(rig.clock, [rig.listener], 2.0, rig.events.bug)
        result: Deferred[None] = Deferred.fromCoroutine(done)
        for _ in range(50):
            peer.peer_sends(b"more\n")
            rig.clock.advance(DRAIN_TICK)
        self.successResultOf(result)
        self.assertTrue(peer.was_reset)
        self.assertGreater(rig.factory.ledger.bytes_unread, 0)


class _Bad(MemorySink):
    """Does not close."""

    def __init__(self, how: str) -> None:
        super().__init__(f"bad-{how}")
        self.how = how
        self.abandoned = False

    def close(self) -> "Deferred[None]":
        if self.how == "raises":
            raise ZeroDivisionError
        if self.how == "fails":
            return fail(ZeroDivisionError())
        return Deferred()

    def abandon(self) -> None:
        self.abandoned = True
        if self.how == "raises":
            raise ZeroDivisionError


class _Good(MemorySink):
    closed = False

    def close(self) -> "Deferred[None]":
        self.closed = True
        return super().close()


class SinkTests(DrainCase):
    def test_sinks_that_do_not_close(self) -> None:
        """A sink whose close raises, fails or hangs is abandoned; a failure is counted, and the others are closed."""
        bad, good = [_Bad("raises"), _Bad("fails"), _Bad("hangs")], _Good()
        rig = self.rig(*bad, good)
        self.drain(rig)
        self.assertTrue(good.closed)
        self.assertEqual([sink.abandoned for sink in bad], [True, True, True])
        # One raised twice: when it was closed, and when it was abandoned.
        self.assertEqual(rig.events.internal_errors, 3)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
