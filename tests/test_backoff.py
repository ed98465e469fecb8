"""Back-off: waits double to their longest and stay, begin anew, and are cut by chance where that is wanted."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.backoff import Backoff


class BackoffTests(SynchronousTestCase):
    def test_doubles_up_to_the_longest(self) -> None:
        """Waits double, and stay at the longest, which need be no multiple of the first."""
        backoff = Backoff(1, 60)
        self.assertEqual([backoff.lengthen() for _ in range(9)], [1, 2, 4, 8, 16, 32, 60, 60, 60])

    def test_begins_anew(self) -> None:
        """After a reset the first wait comes again; ``last`` tells whether anything has failed since."""
        backoff = Backoff(0.5, 4)
        self.assertEqual(backoff.last, 0)
        self.assertEqual([backoff.lengthen(), backoff.lengthen(), backoff.last], [0.5, 1, 1])
        backoff.reset()
        self.assertEqual(backoff.last, 0)
        self.assertEqual(backoff.lengthen(), 0.5)

    def test_longest_before_first(self) -> None:
        """No wait is longer than the longest, the first one included."""
        self.assertEqual(Backoff(5, 2).lengthen(), 2)

    @given(st.floats(0.001, 10), st.floats(10, 1000), st.integers(1, 80))
    def test_cut_by_chance(self, first: float, longest: float, number: int) -> None:
        """With jitter each wait is between half and all of what it would be without; it grows on all the same."""
        plain, cut = Backoff(first, longest), Backoff(first, longest, jitter=True)
        waits = [(plain.lengthen(), cut.lengthen()) for _ in range(number)]
        self.assertTrue(all(whole / 2 <= wait <= whole for whole, wait in waits), waits)
        self.assertEqual(cut.last, waits[-1][1])

    def test_chance_differs(self) -> None:
        """Many who failed at one moment do not come back at one moment."""
        self.assertGreater(len({Backoff(1, 60, jitter=True).lengthen() for _ in range(20)}), 1)
