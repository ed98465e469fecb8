"""The back-pressure lab, in small: who holds the bytes that a slow reader has not read."""

from labs.conclusions.backpressure import ALLOWANCE
from tests.labs import LabTestCase


class OutwardTests(LabTestCase):
    lab = "backpressure"

    def test_bare_writes_pile_up(self) -> None:
        """Bare writes to a slow reader grow the sender by at least half of what was written."""
        bare = self.figures["outward"]["bare"]
        self.assertGreaterEqual(bare["growth"], bare["total"] / 2)
        self.assert_holds("bare writes pile up")

    def test_the_contract_bounds_memory(self) -> None:
        """A registered producer grows it by less than the watermark and 4 MiB, and is paused for that."""
        contract = self.figures["outward"]["contract"]
        self.assertLess(contract["growth"], contract["watermark"] + ALLOWANCE)
        self.assertGreater(contract["pauses"], 0)
        self.assert_holds("the contract bounds memory")

    def test_the_kernel_holds_little(self) -> None:
        """While the reader stands still the kernel holds less of a bare sender's bytes than the application does."""
        self.assert_holds("the kernel holds megabytes, the application the rest")
        self.assertGreater(self.figures["outward"]["bare"]["waiting"]["outq"], 0)

    def test_watermark(self) -> None:
        """A higher watermark means fewer pauses and more memory."""
        self.assert_holds("a high watermark costs memory")

    def test_requested_buffers(self) -> None:
        """The kernel doubles a requested buffer, up to twice its maximum."""
        self.assert_holds("the kernel doubles and caps")


class InwardTests(LabTestCase):
    lab = "backpressure"

    def test_the_budget_bounds_the_intake(self) -> None:
        """With a stalled sink the server grows by its budget and 4 MiB at most, pauses peers, and keeps its sums."""
        kept = self.figures["inward"]["budget"]
        self.assertLess(kept["growth"], kept["budget"] + ALLOWANCE)
        self.assertEqual(kept["conservation_error"], 0)
        self.assertGreater(kept["paused"], 0)
        self.assert_holds("the budget bounds intake")

    def test_without_a_budget(self) -> None:
        """Without one it reads on, and grows by at least half of what it is sent."""
        grown = self.figures["inward"]["none"]
        self.assertGreaterEqual(grown["growth"], grown["offered"] / 2)
        self.assertEqual(grown["paused"], 0)
        self.assert_holds("without it everything is read")
