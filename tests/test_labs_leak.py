"""The replayed leak, in small: three omissions, three abuses."""

from labs.conclusions.leak import AGAIN, ENDLESS, HANGING
from tests.labs import LabTestCase


class LeakTests(LabTestCase):
    lab = "leak"

    def test_no_limit(self) -> None:
        """A line without an end grows the old receiver by half of it and more, ours by its budget at most."""
        self.assert_holds(ENDLESS)

    def test_no_tracking(self) -> None:
        """So does half a line from each client that came and went."""
        self.assert_holds(AGAIN)

    def test_no_timeout(self) -> None:
        """So does half a line from each client that stayed; ours ends them, the old receiver never."""
        self.assert_holds(HANGING)
        self.assert_holds("hanging connections are ended")

    def test_nothing_is_left_behind(self) -> None:
        """When everybody has gone, the old receiver still holds what they sent."""
        self.assert_holds("nothing is left behind")
