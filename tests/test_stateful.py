"""
The whole server on a virtual transport and clock, under schedules that Hypothesis makes up.

After each step everything is accounted for and memory is within its bound; in the end every record of every
connection was delivered once and in order, or is counted under a reason. INGEST_TEST_EXAMPLES sets how many schedules.

The bound on memory: no read begins above the budget's high mark. On top of the mark come, at most, what one read
brings (its bytes; the charge of a batch for each batch it makes; that of one group) and, for each unfinished record
that a deadline, an eviction or a stop ends meanwhile, the charges of a batch and of a group. A read makes a batch or
two as a rule, and one every five bytes at worst: counted frames of three bytes that hold both LF and NUL.
"""

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.batch import Batch, ConnectionInfo
from twisted_ingest.errors import CloseReason, DiscardReason, DropReason, Framing, Oversize
from twisted_ingest.flow.intake import Intake
from twisted_ingest.ledger import ListenerLedger
from twisted_ingest.limits import BATCH_OVERHEAD, DRAIN_TIMEOUT, FLUSH_GRACE, GROUP_OVERHEAD, KIB, READ_SIZE
from twisted_ingest.server.lines import FRAMERS
from twisted_ingest.server.protocol import IngestProtocol
from twisted_ingest.testing import Mode, PumpTransport, Rig, ScriptedSink
from twisted_ingest.units import Rate

EXAMPLES = int(os.environ.get("INGEST_TEST_EXAMPLES", "200"))
STEPS = 60
MAX_RECORD = 60
CONNECTION = READ_SIZE + 4 * KIB
"""A lane reserves one read of its limit: it pauses at the rest."""
CHUNK = 400
LEAST_RECORD = 5
"""Bytes on the wire of the shortest record that needs a batch of its own: ``3 `` and LF, NUL, a letter."""
ENDING = BATCH_OVERHEAD + GROUP_OVERHEAD

WORDS = st.sampled_from(
    [
        *(b"\n", b"\r\n", b"\0", b"\r", b" ", b"<13>", b"a", b"{", b"}", b"\xef\xbb\xbf", b"0"),
        *(b"a line\n", b"\n\n\n", b"<13>Oct 11 host: text\n", b"<1>nul\0", b'{"a": 1}\0', b"404 <html>\n"),
        *(b"5 <1>ab", b"9 <13>text\n", b"7 <2>a\nb\0", b"3 \n\0a", b"1 a", b"80 <3>", b"9999999 ", b"12345678 <1>"),
        *(b"x" * 59 + b"\n", b"x" * 60 + b"\n", b"x" * 61 + b"\n", b"x" * 60 + b"\r\n", b"x" * 150),
    ]
)
ODD = st.sampled_from([b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00", b"SSH-2.0-x\r\n", b"PROXY TCP4 ", b"1 open 5 "])
"""What another protocol begins with."""
TEXT = st.lists(WORDS | st.binary(min_size=1, max_size=3), min_size=1, max_size=12).map(b"".join)
BULK = st.sampled_from(
    [
        b"a plain line\n" * 60,
        b"20 <13>a counted frame" * 40,
        b"<13>nul-ended\0" * 50,
        b"3 \n\0a" * 60,  # a batch each
        *(b"y" * 50, b"a line and a half\n" + b"y" * 40),
        b"z" * 200,
    ]
)
SELDOM = st.sampled_from([False] * 5 + [True])


class Watched(IngestProtocol):
    """Fails when it is read from while it should not be."""

    def dataReceived(self, data: bytes) -> None:
        """Look at the pressure, then go on."""
        intake = self.lane._owner
        assert isinstance(intake, Intake)
        assert not intake.budget.mark.is_high, "read above the high mark"
        assert not self.lane.is_paused, "a paused producer read"
        super().dataReceived(data)


class Peer:
    """One connection, and everything its peer has sent."""

    def __init__(self, transport: PumpTransport) -> None:
        self.transport = transport
        self.protocol: Watched = transport._protocol
        self.sent = bytearray()
        self.waited = False
        """Whether time passed while a record of its was in doubt: what comes of it then depends on that."""

    @property
    def read(self) -> bytes:
        """What the server has read of it."""
        return bytes(self.sent[: len(self.sent) - len(self.transport.unread)])


class ServerMachine(RuleBasedStateMachine):
    """Peers, sinks, time and a stop, in any order."""

    rig: Rig
    peers: list[Peer]

    @initialize(
        framing=st.sampled_from(Framing),
        oversize=st.sampled_from(Oversize),
        memory=st.sampled_from([2 * KIB, 16 * KIB, 64 * KIB, 512 * KIB]),
        connection=st.sampled_from([16 * KIB, CONNECTION, 512 * KIB]),
        gathers=st.booleans(),
        second=st.sampled_from([None, "required", "optional"]),
        hosts=st.lists(st.sampled_from("abc"), min_size=1, max_size=6),
        rate=st.sampled_from([None, None, Rate(20.0, is_of_bytes=False), Rate(500.0, is_of_bytes=True)]),
        rate_per_peer=st.sampled_from([None, None, Rate(50.0, is_of_bytes=False)]),
    )
    def begin(
        self,
        *,
        framing: Framing = Framing.AUTO,
        oversize: Oversize = Oversize.TRUNCATE,
        memory: int = 64 * KIB,
        connection: int = CONNECTION,
        gathers: bool = False,
        second: str | None = None,
        hosts: Sequence[str] = "",
        **rates: Any,
    ) -> None:
        """Start a server."""
        self.sinks = [ScriptedSink("first")]
        self.sinks[0].wants_groups = gathers
        self.rig = Rig(
            self.sinks[0],
            memory=memory,
            connection_memory=connection,
            max_connections=8,
            per_peer=4,
            protocol=Watched,
            framing=framing,
            oversize=oversize,
            max_record_bytes=MAX_RECORD,
            **rates,
        )
        if second is not None:
            self.sinks.append(ScriptedSink("second"))
            self.rig.intake.add_sink(self.sinks[1], required=second == "required")
        self.peers = []
        self.stopped: Deferred[None] | None = None
        self.over: list[object] = []
        """What came of the stop, once it is over; afterwards no sink is asked any more."""
        for host in hosts:
            self.connect(host)

    # Peers.

    @rule(host=st.sampled_from("abc"))
    def connect(self, host: str = "a") -> None:
        """Connect a peer, which may be turned away; that is counted."""
        if not self.rig.admission.room:
            return  # the port would not accept
        before = sum(self.rig.factory.ledger.connections_refused.values())
        try:
            self.peers.append(Peer(self.rig.connect(f"192.0.2.{ord(host)}")))
        except ConnectionRefusedError:
            assert sum(self.rig.factory.ledger.connections_refused.values()) == before + 1
            assert self.stopped is not None or self.rig.admission.by_peer[f"192.0.2.{ord(host)}"] == 4

    def peer(self, which: int) -> Peer:
        """Give one of the peers."""
        return self.peers[which % len(self.peers)]

    @precondition(lambda self: self.peers)
    @rule(which=st.integers(0, 7), data=TEXT | BULK, chunk=st.integers(1, CHUNK))
    def send(self, which: int, data: bytes, chunk: int = CHUNK) -> None:
        """Send, and read of it what may be read."""
        self.only_send(which, data)
        self.pump(which, chunk)

    @precondition(lambda self: self.peers)
    @rule(which=st.integers(0, 7), data=TEXT)
    def only_send(self, which: int, data: bytes) -> None:
        """Let bytes arrive in the kernel, unless the peer has closed or was closed."""
        peer = self.peer(which)
        if peer.transport.connected and peer.transport._ending is None:
            peer.sent += data
            peer.transport.peer_sends(data)

    @precondition(lambda self: self.peers)
    @rule(which=st.integers(0, 7), chunk=st.integers(1, CHUNK), reads=st.integers(1, 3))
    def pump(self, which: int, chunk: int = CHUNK, reads: int | None = None) -> None:
        """Read from a peer, as the reactor does."""
        self.peer(which).transport.pump(chunk, reads)

    @precondition(lambda self: self.peers)
    @rule(data=TEXT | BULK, rounds=st.integers(1, 5))
    def flood(self, data: bytes, rounds: int = 1) -> None:
        """Have everybody send, some turns long."""
        for _ in range(rounds):
            for which in range(len(self.peers)):
                self.send(which, data)
            self.tick(0.002)

    @rule(data=ODD)
    def wrong_protocol(self, data: bytes) -> None:
        """Connect a peer that is none of ours."""
        before = len(self.peers)
        self.connect("c")
        if len(self.peers) > before:
            self.send(before, data)

    @precondition(lambda self: self.peers)
    @rule(which=st.integers(0, 7), seldom=SELDOM)
    def fin(self, which: int, *, seldom: bool = True) -> None:
        """Close from the peer's side, in good order."""
        if not seldom:
            return
        self.peer(which).transport.peer_closes()
        self.pump(which, CHUNK)

    @precondition(lambda self: self.peers)
    @rule(which=st.integers(0, 7), seldom=SELDOM)
    def rst(self, which: int, *, seldom: bool = True) -> None:
        """Reset from the peer's side."""
        if not seldom:
            return
        self.peer(which).transport.peer_resets()
        self.pump(which, CHUNK)

    # Sinks.

    @rule(which=st.integers(0, 1), mode=st.sampled_from([Mode.TAKE, Mode.REFUSE, Mode.STALL, Mode.STALL]))
    def answer(self, which: int, mode: Mode) -> None:
        """Change what a sink does from now on; one that takes catches up."""
        sink = self.sinks[which % len(self.sinks)]
        sink.mode = mode
        if mode is Mode.TAKE:
            self.release(which)

    @rule(which=st.integers(0, 1), number=st.integers(1, 3))
    def release(self, which: int = 0, number: int | None = None) -> None:
        """Let a stalled sink take some of what waits."""
        if not self.over:
            self.sinks[which % len(self.sinks)].release(number)

    @rule(which=st.integers(0, 1))
    def refuse(self, which: int = 0) -> None:
        """Let a sink give up on the oldest group."""
        sink = self.sinks[which % len(self.sinks)]
        if sink.waiting and not self.over:
            sink.fail()

    # Time.

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.0, 0.002, 0.002, 0.3, 0.3, 1.0, 7.0, 40.0]))
    def tick(self, seconds: float = 0.0) -> None:
        """Let time pass."""
        self.turn(seconds)

    @precondition(lambda self: self.stopped is None)
    @rule(seldom=SELDOM, once=SELDOM)
    def sigterm(self, *, seldom: bool = True, once: bool = True) -> None:
        """Tell the server to stop; most schedules are about its life."""
        if seldom and once:
            self.stopped = self.rig.drain()
            _ = self.stopped.addBoth(self.over.append)

    # What holds at all times.

    @invariant()
    def balanced(self) -> None:
        """Every byte is in one bucket, every record has one outcome, each charge belongs to something live."""
        assert self.rig.survey.conservation() == dict.fromkeys(self.rig.survey.conservation(), 0)
        assert self.rig.intake.budget.used == self.recount()
        live = self.rig.factory.connections
        admission = self.rig.admission
        assert admission.open + admission.departed == len(live) == len(self.rig.intake.lanes)
        assert admission.departed == sum(each.departed for each in live.values())
        assert self.rig.intake.pauses.total == sum(each.lane.is_paused for each in live.values())

    def recount(self) -> int:
        """Weigh what is held, from the live objects."""
        intake = self.rig.intake
        groups = {id(group): group for outlet in intake.outlets for group in outlet.outstanding}
        batches = [batch for group in groups.values() for batch in group.batches]
        batches += [batch for route in intake.routes for batch in route.pending]
        partials = sum(each.framer.memory for each in self.rig.factory.connections.values())
        assert partials == intake.budget.partials
        return sum(batch.size + BATCH_OVERHEAD for batch in batches) + len(groups) * GROUP_OVERHEAD + partials

    @invariant()
    def bounded(self) -> None:
        """Memory is within its bound, unfinished records within their share; see the module."""
        budget = self.rig.intake.budget
        read = CHUNK + MAX_RECORD + (1 + CHUNK // LEAST_RECORD) * BATCH_OVERHEAD + GROUP_OVERHEAD
        assert budget.used <= budget.mark.high + read + self.rig.admission.limit * ENDING
        assert budget.partials <= budget.partials_limit

    @invariant()
    def paused(self) -> None:
        """Above the mark nobody reads, a paused lane's transport does not either, and nobody else is held up."""
        for each in self.rig.factory.connections.values():
            reading = each.transport.reading  # type: ignore[attr-defined]
            assert each.lane.is_paused or not self.rig.intake.budget.mark.is_high
            assert not (each.lane.is_paused and reading)
            ours = each.close_reason in (None, CloseReason.DRAIN) and not each.transport.disconnecting
            assert reading or each.lane.is_paused or not ours or each.transport.was_reset  # type: ignore[attr-defined]

    # The end.

    def teardown(self) -> None:
        """Let everything come to its end, and settle the accounts."""
        if not hasattr(self, "rig"):
            return
        if self.stopped is not None:
            self.finish_stop()
        else:
            self.finish()
        rig = self.rig
        assert (rig.factory.connections, rig.intake.budget.used, rig.intake.pauses.total) == ({}, 0, 0)
        assert rig.clock.getDelayedCalls() == []
        assert rig.events.internal_errors == 0
        self.balanced()
        for sink in self.sinks:
            self.check_outcomes(sink)
        for peer in self.peers:
            self.check_records(peer)

    def finish(self) -> None:
        """Let the sinks take everything and the peers leave."""
        for sink in self.sinks:
            sink.mode = Mode.TAKE
        for peer in self.peers:
            peer.transport.peer_closes()
        # A wedge shows as a connection that is never read to its end, whatever its rate.
        for _ in range(3000):
            for sink in self.sinks:
                sink.release()
            for peer in self.peers:
                peer.transport.pump(CHUNK)
            self.turn(0.3)
            if self.rig.intake.is_idle and not self.rig.factory.connections:
                break

    def finish_stop(self) -> None:
        """See that a stop ends in time, whatever the sinks and peers do."""
        for _ in range(1 + int(DRAIN_TIMEOUT + FLUSH_GRACE + 1) * 20):
            self.turn(0.05)
        assert self.over == [None]

    def check_outcomes(self, sink: ScriptedSink) -> None:
        """Each batch has one outcome at a sink, and the counts say which."""
        outlet = next(each for each in self.rig.intake.outlets if each.sink is sink)
        tally = outlet.tally("test")
        left = sum(batch.count for group, _ in sink.waiting for batch in group.batches)
        assert tally.records_delivered == _count(sink.batches)
        assert tally.records_dropped[DropReason.SINK_FAILED] == _count(sink.refused)
        assert tally.records_dropped[DropReason.SHUTDOWN] == left
        answered = Counter(map(id, sink.batches + sink.refused))
        assert set(answered.values()) <= {1}
        offered = _count(sink.offered) + tally.records_dropped[DropReason.OVERFLOW]
        assert offered + sum(self.rig.factory.ledger.records_dropped.values()) == self.rig.factory.ledger.records_framed

    def turn(self, seconds: float) -> None:
        """Let time pass, and note whose records are in doubt meanwhile."""
        for peer in self.peers:
            peer.waited = peer.waited or peer.protocol.framer.in_doubt
        self.rig.turn(seconds)

    def check_records(self, peer: Peer) -> None:
        """See that what a peer sent was handed to the first sink whole, once and in order."""
        if peer.waited:
            return
        mine = [batch for batch in self.sinks[0].offered if batch.info is peer.protocol.info]
        records = [record for batch in mine for record in batch.records()]
        limits, ledger = self.rig.factory.limits, self.rig.factory.ledger
        is_cut = any(batch.truncated and batch.size <= limits.max_record_bytes for batch in self.sinks[0].offered)
        if is_cut or ledger.bytes_discarded[DiscardReason.MEMORY]:
            return  # an eviction cuts a record at a place that depends on everybody
        assert records == self.expected(peer)

    def expected(self, peer: Peer) -> list[bytes]:
        """Frame what was read of a peer once more, by itself and in one piece."""
        limits, reason = self.rig.factory.limits, peer.protocol.close_reason
        framer = FRAMERS[limits.framing or Framing.AUTO](
            ConnectionInfo(1, "again", "", None), ListenerLedger(), limits.max_record_bytes, limits.oversize
        )
        batches = framer.feed(peer.read, 0.0)
        if reason is not CloseReason.RESET:
            batches += framer.finish(0.0)
        return [record for batch in batches for record in batch.records()]


def _count(batches: list[Batch]) -> int:
    return sum(batch.count for batch in batches)


class StatefulTests(SynchronousTestCase):
    def test_any_schedule(self) -> None:
        """Whatever peers, sinks, time and a stop do, nothing is lost unseen and memory is bounded."""
        run_state_machine_as_test(
            ServerMachine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


class RegressionTests(SynchronousTestCase):
    """Schedules that failed once, or that show a fault which random ones find seldom."""

    def machine(self, **options: Any) -> ServerMachine:
        """Start a server as the machine does; every step's invariants are the caller's to check."""
        machine = ServerMachine()
        machine.begin(**options)
        return machine

    def check(self, machine: ServerMachine) -> None:
        """Check what holds at all times."""
        machine.balanced()
        machine.bounded()
        machine.paused()

    def test_charges_stay_until_delivery(self) -> None:
        """What a sink has yet to take is charged, and no longer."""
        machine = self.machine()
        machine.connect()
        machine.sinks[0].mode = Mode.STALL
        machine.send(0, b"a line\n" * 10)
        machine.tick()
        self.assertGreater(machine.rig.intake.budget.used, 0)
        self.check(machine)
        machine.release()
        self.assertEqual(machine.rig.intake.budget.used, 0)
        machine.teardown()

    def test_newcomer_waits_too(self) -> None:
        """A peer that connects while the budget is used up is not read from before it is relieved."""
        machine = self.machine(memory=16 * KIB, hosts="aaaabb", connection=512 * KIB)
        machine.sinks[0].mode = Mode.STALL
        machine.flood(b"a plain line\n" * 30, rounds=2)
        self.assertTrue(machine.rig.intake.budget.mark.is_high)
        machine.connect("c")
        machine.send(6, b"late\n")
        self.assertEqual(machine.peers[6].read, b"")
        self.check(machine)
        machine.teardown()
        self.assertEqual(machine.peers[6].read, b"late\n")

    def test_evictions(self) -> None:
        """Unfinished records past their share of the budget are cut, and all stays accounted for."""
        machine = self.machine(memory=2 * KIB, hosts="aaabbb")
        machine.flood(b"y" * 50)
        self.check(machine)
        machine.flood(b"the rest\nnext\n")
        machine.teardown()
        ledger = machine.rig.factory.ledger
        self.assertGreater(ledger.records_truncated, 0)
        self.assertGreater(ledger.bytes_discarded[DiscardReason.MEMORY], 0)

    def test_many_batches_of_one_read(self) -> None:
        """Counted frames of three bytes that hold both delimiters, a batch each, stay within the stated bound."""
        machine = self.machine(memory=16 * KIB, hosts="aa")
        machine.sinks[0].mode = Mode.STALL
        machine.flood(b"3 \n\0a" * 80)
        self.check(machine)
        machine.teardown()

    def test_stop_with_everything_stuck(self) -> None:
        """A stop with a stalled sink, paused peers and half records ends in time, and counts what is left."""
        machine = self.machine(memory=16 * KIB, hosts="aabbcc", second="required")
        for sink in machine.sinks:
            sink.mode = Mode.STALL
        machine.flood(b"a plain line\n" * 60 + b"half", rounds=3)
        machine.sigterm()
        self.check(machine)
        machine.teardown()
        tally = machine.rig.intake.outlets[0].tally("test")
        self.assertGreater(tally.records_dropped[DropReason.SHUTDOWN], 0)

    def test_aborted_at_the_drain_deadline(self) -> None:
        """Peers aborted at the end of a stop ended for it: their unfinished records are handed over, not discarded."""
        machine = self.machine(memory=2 * KIB, hosts="aaa")
        machine.sinks[0].mode = Mode.STALL
        machine.sigterm()
        machine.flood(b"y" * 50)
        machine.teardown()
        ledger = machine.rig.factory.ledger
        self.assertEqual(ledger.connections_closed[CloseReason.DRAIN], 3)
        self.assertEqual(ledger.bytes_discarded[DiscardReason.RESET], 0)

    def test_leaves_while_paused(self) -> None:
        """A peer that leaves while paused is out of the cap at once, and read to its end afterwards."""
        machine = self.machine(memory=16 * KIB, hosts="aabb")
        machine.sinks[0].mode = Mode.STALL
        machine.flood(b"a plain line\n" * 60, rounds=5)
        machine.fin(0)
        machine.rst(2)
        machine.tick(1)
        self.assertEqual(machine.rig.admission.departed, 2)
        self.check(machine)
        machine.teardown()
