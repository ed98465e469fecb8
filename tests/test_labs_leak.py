"""The replayed leak, in small: three omissions, three abuses."""

from twisted.trial.unittest import SynchronousTestCase

from labs.conclusions.leak import AGAIN, ENDLESS, HANGING
from tests.labs import measured


class LeakTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.figures, self.report = measured("leak")

    def test_no_limit(self) -> None:
        """A line without an end grows the old receiver by half of it and more, ours by its budget at most."""
        self.assertTrue(self.report.holds(ENDLESS))

    def test_no_tracking(self) -> None:
        """So does half a line from each client that came and went."""
        self.assertTrue(self.report.holds(AGAIN))

    def test_no_timeout(self) -> None:
        """So does half a line from each client that stayed; ours ends them, the old receiver never."""
        self.assertTrue(self.report.holds(HANGING))
        self.assertTrue(self.report.holds("hanging connections are ended"))

    def test_nothing_is_left_behind(self) -> None:
        """When everybody has gone, the old receiver still holds what they sent."""
        self.assertTrue(self.report.holds("nothing is left behind"))
