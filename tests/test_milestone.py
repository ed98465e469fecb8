"""What has happened once, for whoever waits for it."""

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.process.milestone import Milestone


class MilestoneTests(SynchronousTestCase):
    def test_everybody_is_told(self) -> None:
        """Those who waited and those who ask later get the first outcome, each their own."""
        milestone: Milestone[int] = Milestone()
        early = [milestone.wait(), milestone.wait()]
        early[0] = early[0].addCallback(lambda value: value * 10)
        milestone.reach(1)
        milestone.reach(2)
        self.assertEqual([self.successResultOf(told) for told in (*early, milestone.wait())], [10, 1, 1])

    def test_failure(self) -> None:
        """A failure is told as one, and is nobody's unhandled error where nobody asked."""
        milestone: Milestone[int] = Milestone()
        early = milestone.wait()
        milestone.reach(Failure(ZeroDivisionError()))
        for told in (early, milestone.wait()):
            self.failureResultOf(told, ZeroDivisionError)

    def test_who_waits_no_more(self) -> None:
        """One who has cancelled is not told, and is in nobody's way."""
        milestone: Milestone[int] = Milestone()
        gone, stays = milestone.wait(), milestone.wait()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        milestone.reach(1)
        self.assertEqual(self.successResultOf(stays), 1)
