"""The pace: dear connections are read in smaller pieces, share a turn's work, and recover."""

from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.limits import READ_SIZE
from twisted_ingest.server.pace import FIRST_READ, SMALLEST_READ, WORK_SECONDS, Pace


class Read:
    """A connection whose bytes cost ``cost`` seconds each."""

    def __init__(self, cost: float) -> None:
        self.cost = cost
        self.read_size = FIRST_READ
        self.cheap_reads = 0
        self.is_dear = False

    def turn(self, pace: Pace) -> float:
        """Read once; give the seconds it took."""
        seconds = self.read_size * self.cost
        pace.adjust(self, self.read_size, seconds)
        return seconds


class PaceTests(SynchronousTestCase):
    DEAR: ClassVar = 0.55e-6
    """Seconds a byte: the dearest stream measured."""

    def test_cheap_stays_whole(self) -> None:
        """What costs little of a turn's work is read whole soon, and stays so."""
        pace, read = Pace(), Read(WORK_SECONDS / READ_SIZE / 2.1)
        for _ in range(130):
            read.turn(pace)
        self.assertEqual((read.read_size, pace.dear), (READ_SIZE, 0))
        read.cost *= 2
        read.turn(pace)
        self.assertEqual((read.read_size, pace.dear), (READ_SIZE, 0))

    def test_new_ones_are_read_little_of(self) -> None:
        """However dear the bytes, the first read of a new connection takes a seventh of a turn's work."""
        self.assertLess(Read(self.DEAR).turn(Pace()), WORK_SECONDS / 7)

    @given(st.integers(1, 60))
    def test_shared(self, number: int) -> None:
        """However many are dear, after a few turns all of them together take a turn's work at most, and each reads."""
        pace, reads = Pace(), [Read(self.DEAR) for _ in range(number)]
        for _ in range(20):
            for read in reads:
                read.turn(pace)
        total = sum(read.turn(pace) for read in reads)
        self.assertLessEqual(total, max(1.01 * WORK_SECONDS, 1.01 * number * SMALLEST_READ * self.DEAR))
        self.assertEqual(pace.dear, sum(read.is_dear for read in reads))
        self.assertTrue(all(read.read_size >= SMALLEST_READ for read in reads))

    def test_trust_is_earned(self) -> None:
        """The larger the reads that a peer is trusted with, the more bytes of it have been cheap: the square of it."""
        pace, read, cheap = Pace(), Read(1e-9), 0
        while read.read_size * self.DEAR < WORK_SECONDS / 2:
            cheap += read.read_size
            read.turn(pace)
        self.assertGreater(cheap, read.read_size)
        while read.read_size < READ_SIZE:
            cheap += read.read_size
            read.turn(pace)
        self.assertGreater(cheap, 40 * READ_SIZE)

    def test_recovers(self) -> None:
        """A peer whose bytes have become cheap is read whole again, a hundred reads later."""
        pace, read = Pace(), Read(self.DEAR)
        for _ in range(8):
            read.turn(pace)
        self.assertEqual((read.is_dear, pace.dear), (True, 1))
        self.assertLess(read.read_size, READ_SIZE)
        read.cost = 1e-9
        for _ in range(130):
            read.turn(pace)
        self.assertEqual((read.read_size, pace.dear), (READ_SIZE, 0))

    def test_forget(self) -> None:
        """A connection that is gone no longer takes a share."""
        pace, read = Pace(), Read(self.DEAR)
        for _ in range(8):
            read.turn(pace)
        self.assertEqual(pace.dear, 1)
        pace.forget(read)
        pace.forget(read)
        self.assertEqual(pace.dear, 0)

    @given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1)), max_size=60))
    def test_count(self, reads: list[tuple[int, float]]) -> None:
        """The count of dear connections is that of those marked so, whatever the costs; they are read in pieces."""
        pace, connections = Pace(), [Read(0.0) for _ in range(5)]
        for index, seconds in reads:
            connection = connections[index]
            pace.adjust(connection, connection.read_size, seconds)
            self.assertEqual(pace.dear, sum(c.is_dear for c in connections))
            self.assertTrue(SMALLEST_READ <= connection.read_size <= READ_SIZE)
            self.assertFalse(connection.is_dear and connection.read_size == READ_SIZE)
