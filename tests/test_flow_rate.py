"""Rates: what a peer may send, how long it rests, and that resting loses nothing."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.errors import PauseReason, RefuseReason
from twisted_ingest.flow.rate import PEERS_REMEMBERED, PeerBuckets, TokenBucket
from twisted_ingest.testing import Rig
from twisted_ingest.units import Rate, parse_rate

LINE = b"ten bytes\n"


class ParseTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """Records come plain or in thousands, bytes with a unit of bytes, by the second, minute or hour."""
        for text, per_second, is_of_bytes in (
            ("500/s", 500, False),
            ("10k/s", 10_000, False),
            ("2 M/s", 2_000_000, False),
            ("600/m", 10, False),
            ("1MiB/s", 1 << 20, True),
            ("36kB/h", 10, True),
        ):
            self.assertEqual(parse_rate(text), Rate(per_second, is_of_bytes), text)

    def test_mistakes(self) -> None:
        """What is no rate is answered with one that is."""
        for text in ("10k", "fast", "10K/s", "-1/s", "1/d", "1e9/s", "٣/s", "", 5):
            with self.assertRaisesRegex(ValueError, "10k/s"):
                parse_rate(text)
        with self.assertRaisesRegex(ValueError, "nothing would ever be read"):
            parse_rate("0/s")

    @given(st.integers(1, 10**9), st.sampled_from(["", "k", "M", "B", "KiB", "MB"]))
    def test_written(self, number: int, unit: str) -> None:
        """A rate a second is written so that it is read back."""
        rate = parse_rate(f"{number}{unit}/s")
        self.assertEqual(parse_rate(str(rate)), rate)


class TokenBucketTests(SynchronousTestCase):
    @given(st.floats(0.5, 1000), st.lists(st.integers(1, 5000), min_size=1, max_size=30))
    def test_average(self, rate: float, amounts: list[int]) -> None:
        """Who waits as told never has more than the rate and one burst, and is never made to wait for longer."""
        bucket, now, taken = TokenBucket(rate, 0.0), 0.0, 0
        burst = max(1.0, rate)
        for amount in amounts:
            taken += amount
            now += bucket.take(amount, now)
            self.assertLessEqual(taken, rate * now + burst + 1e-6)
        if now:
            self.assertAlmostEqual(now, (taken - burst) / rate, delta=1e-6 * taken)

    def test_allows(self) -> None:
        """Of things that cannot be taken on credit there are no more than the rate and one burst."""
        bucket = TokenBucket(5.0, 0.0)
        self.assertEqual([bucket.take_one(0.0) for _ in range(7)], [True] * 5 + [False] * 2)
        self.assertEqual([bucket.take_one(0.2) for _ in range(2)], [True, False])

    def test_peers_are_forgotten(self) -> None:
        """A flood of addresses fills the table and no more; who is heard of stays in it."""
        buckets = PeerBuckets(1.0)
        known = buckets.of("known", 0.0)
        for number in range(PEERS_REMEMBERED + 10):
            buckets.of(str(number), 0.0)
            if number % 1000 == 0:
                self.assertIs(buckets.of("known", 0.0), known)
        self.assertEqual(len(buckets), PEERS_REMEMBERED)


class RateTests(SynchronousTestCase):
    def test_rests(self) -> None:
        """A connection over its rate is not read from until its debt is paid; then all of it arrives, in order."""
        rig = Rig(rate=Rate(100.0, False))
        lines = [b"%09d\n" % number for number in range(500)]
        peer = rig.connect()
        peer.peer_sends(b"".join(lines))
        peer.pump(chunk_size=1500)
        self.assertEqual(
            (len(rig.sink.records), rig.survey.status()["connections"]["paused_by_reason"]["rate"]), (0, 1)
        )
        (row,) = rig.survey.connections()
        self.assertEqual(row["paused"], "rate")
        for _ in range(40):
            rig.turn(0.1)
            peer.pump(chunk_size=1500)
        self.assertEqual(rig.sink.records, [line[:-1] for line in lines])
        self.assertEqual(rig.intake.pauses.begun[PauseReason.RATE], 4)
        self.assertAlmostEqual(rig.intake.pauses.seconds()[PauseReason.RATE], 4.0, delta=0.5)
        self.assertEqual(rig.survey.conservation_error(), 0)

    def test_bytes(self) -> None:
        """A rate of bytes counts what came, records or not."""
        rig = Rig(rate=Rate(1000.0, True))
        peer = rig.send(b"x" * 3000)
        self.assertFalse(peer.reading)
        rig.turn(1.9)
        self.assertFalse(peer.reading)
        rig.turn(0.2)
        self.assertTrue(peer.reading)

    def test_of_a_peer(self) -> None:
        """Connections of one host share its rate; those of another do not notice."""
        rig = Rig(rate_per_peer=Rate(10.0, False))
        one, two, other = rig.connect("192.0.2.1", 1), rig.connect("192.0.2.1", 2), rig.connect("192.0.2.2", 1)
        for peer in (one, two, other):
            peer.peer_sends(LINE * 8)
            peer.pump()
        self.assertEqual([peer.reading for peer in (one, two, other)], [True, False, True])
        rig.turn(0.7)
        self.assertTrue(two.reading)

    def test_another_rate(self) -> None:
        """Limits that are replaced hold for connections to come, also of a peer that is known already."""
        rig = Rig(rate_per_peer=Rate(10.0, False))
        rig.connect("192.0.2.1", 1)
        rig.factory.limits = replace(rig.factory.limits, rate_per_peer=Rate(1000.0, False))
        peer = rig.connect("192.0.2.1", 2)
        peer.peer_sends(LINE * 500)
        peer.pump()
        self.assertTrue(peer.reading)

    def test_leaves_while_resting(self) -> None:
        """A connection that ends while it rests leaves no timer behind."""
        rig = Rig(rate=Rate(1.0, False))
        peer = rig.send(LINE * 100)
        self.assertFalse(peer.reading)
        peer.abortConnection()
        rig.turn()
        self.assertEqual(rig.clock.getDelayedCalls(), [])
        self.assertEqual(rig.intake.pauses.total, 0)

    def test_rest_does_not_count_as_silence(self) -> None:
        """Time at rest is neither idleness nor part of a frame's time."""
        rig = Rig(
            rate=Rate(1.0, True), idle_timeout_seconds=5.0, idle_until_first_record=False, frame_timeout_seconds=5.0
        )
        peer = rig.send(b"half a line")
        rig.turn(9)
        self.assertTrue(peer.connected)
        peer.peer_sends(b" and the rest\n")
        rig.turn(3)
        peer.pump()
        rig.turn()
        self.assertEqual(rig.sink.records, [b"half a line and the rest"])

    def test_the_budget_comes_first(self) -> None:
        """A pause has one reason at a time, the hardest to mend, and lasts until none is left."""
        rig = Rig(rate=Rate(100.0, False))
        peer = rig.send(LINE * 200)
        lane = next(iter(rig.intake.lanes))
        lane.waiting = True
        lane.update()
        self.assertEqual(lane.pause_reason, PauseReason.BUDGET)
        rig.turn(2)
        self.assertFalse(peer.reading)
        lane.waiting = False
        lane.update()
        self.assertTrue(peer.reading)
        self.assertEqual(rig.intake.pauses.total, 0)


class ArrivalTests(SynchronousTestCase):
    def test_connection_rate(self) -> None:
        """A peer that connects too often is refused until its time has come; another is not."""
        rig = Rig(arrivals=PeerBuckets(2.0))
        for port in (1, 2):
            rig.connect("192.0.2.1", port).abortConnection()
        self.assertRaises(ConnectionRefusedError, rig.connect, "192.0.2.1", 3)
        rig.connect("192.0.2.2", 1)
        rig.turn(0.5)
        rig.connect("192.0.2.1", 4)
        self.assertEqual(rig.factory.ledger.connections_refused[RefuseReason.CONNECTION_RATE], 1)
