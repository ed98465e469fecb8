"""What the budget charges is at least what things take: measured on live objects."""

import tracemalloc
from collections.abc import Callable

import pytest
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.limits import GIB, KIB, MIB
from twisted_ingest.networks import AllowList, parse_network
from twisted_ingest.testing import Rig, StalledSink

COUNT = 4000


def grown(action: Callable[[int], None], count: int = COUNT) -> int:
    """Give the bytes that ``count`` calls leave allocated."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(count):
            action(number)
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


class ChargeTests(SynchronousTestCase):
    def rig(self) -> Rig:
        return Rig(
            StalledSink(),
            memory=GIB,
            connection_memory=GIB // 2,
            max_connections=COUNT,
            frame_timeout_seconds=None,
            lends=False,
        )

    def test_batches(self) -> None:
        """One-byte lines, one per chunk, take less than they are charged."""
        rig = self.rig()
        peers = [rig.connect(port=port + 1)._protocol for port in range(100)]

        def send(number: int) -> None:
            peers[number % 100].dataReceived(bytes([120, 10]))
            if number % 100 == 99:
                rig.turn()

        self.assertLess(grown(send), rig.intake.budget.used)

    def test_groups(self) -> None:
        """So do groups of a single batch, as a trickle into a stalled sink makes them."""
        rig = self.rig()
        peer = rig.connect()._protocol

        def send(_: int) -> None:
            peer.dataReceived(bytes([120, 10]))
            rig.turn()

        self.assertLess(grown(send), rig.intake.budget.used)

    @pytest.mark.slow
    def test_partials(self) -> None:
        """So do unfinished records, whether they come whole or byte by byte."""
        for pieces in ([b"x" * 300], [b"x" * 100] * 3, [b"x"] * 30):
            rig = self.rig()
            peers = [rig.connect(port=port + 1)._protocol for port in range(COUNT)]

            def send(number: int, pieces: list[bytes] = pieces, peers: list[object] = peers) -> None:
                for piece in pieces:
                    peers[number].dataReceived(bytes(bytearray(piece)))  # type: ignore[attr-defined]

            self.assertLess(grown(send), rig.intake.budget.used)

    def test_idle_connection(self) -> None:
        """An idle connection takes less than 4 KiB of our objects."""
        rig = self.rig()
        kept = []
        self.assertLess(grown(lambda number: kept.append(rig.connect(port=number + 1)), 1000), 1000 * 4 * KIB)

    def test_doorways(self) -> None:
        """One that has begun a PROXY header takes less than it is charged."""
        rig = Rig(max_connections=20_000, proxies=AllowList([parse_network("192.0.2.0/24")]))
        kept = []

        def begin(number: int) -> None:
            peer = rig.connect(port=number + 1)
            peer.peer_sends(b"PROXY TCP4 198.51.100.7 ")
            peer.pump()
            kept.append(peer)

        self.assertLess(grown(begin, 1000), rig.intake.budget.used)
        self.assertEqual(len(rig.factory.doorways), 1000)

    def test_names_are_shared(self) -> None:
        """No connection has more attributes than instances of a class share a table of names for (CPython: thirty)."""
        for wire in ("lines", "relp"):
            peer = Rig(wire=wire).send(b"1 x")
            self.assertLessEqual(len(vars(peer.protocol)), 30, wire)

    def test_a_read_is_not_pinned(self) -> None:
        """The few bytes of an unfinished record do not keep the read they came with alive."""
        rig = self.rig()
        peers = [rig.connect(port=port + 1)._protocol for port in range(20)]
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before = tracemalloc.get_traced_memory()[0]
        for peer in peers:
            peer.dataReceived(b"\n" * 60_000 + b"few")
        self.assertLess(tracemalloc.get_traced_memory()[0] - before, MIB // 4)
