"""Steps of the wall clock: told from its drift, by direction."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.observe.steps import STEP_SECONDS, ClockSteps, StepDirection


class ClockStepsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.steady = Clock()
        self.offset = 1e9
        self.steps = ClockSteps(lambda: self.steady.seconds() + self.offset, self.steady.seconds)

    def test_time_passes(self) -> None:
        """Time that passes is no step, however much of it; nor is a clock that is corrected in small doses."""
        for seconds in (0.0, 1.0, 86_400.0):
            self.steady.advance(seconds)
            self.offset += STEP_SECONDS / 2
            self.assertEqual(self.steps.look(), 0.0)
        self.assertEqual(self.steps.counts, {StepDirection.FORWARD: 0, StepDirection.BACKWARD: 0})

    def test_steps(self) -> None:
        """Each step is counted once, by its direction, and told with its size."""
        for step in (3600.0, -3600.0, STEP_SECONDS * 2):
            self.offset += step
            self.steady.advance(1)
            self.assertAlmostEqual(self.steps.look(), step, 3)
            self.steady.advance(1)
            self.assertEqual(self.steps.look(), 0.0)
        self.assertEqual(self.steps.counts, {StepDirection.FORWARD: 2, StepDirection.BACKWARD: 1})

    def test_one_clock(self) -> None:
        """Where timers go by the wall clock too, nothing can be told."""
        steps = ClockSteps(self.steady.seconds, self.steady.seconds)
        self.steady.advance(1e6)
        self.assertEqual(steps.look(), 0.0)
