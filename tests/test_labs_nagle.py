"""
The Nagle lab, in small: what small messages become.

Packets are counted, and times only bounded from below, by what the kernel waits for: a busy machine makes them longer.
"""

from labs.conclusions.nagle import DELAYED, NAGLE, NO_DELAY, STALL_MS
from tests.labs import LabTestCase


class NagleTests(LabTestCase):
    lab = "nagle"

    def test_every_message_arrived(self) -> None:
        """Whichever way they were sent, all messages came."""
        runs = [r for ways in self.figures["streams"].values() for by in ways.values() for r in by.values()]
        self.assertEqual({run["messages"] for run in runs}, {self.figures["messages"]})

    def test_two_delays_wait_for_each_other(self) -> None:
        """With Nagle and delayed acks messages wait, and what waits is joined; without Nagle each is a packet."""
        held, free = (self.figures["streams"]["answered"][way][DELAYED] for way in (NAGLE, NO_DELAY))
        self.assertGreater(held["p99_ms"], STALL_MS)
        self.assertLess(held["data_segs_out"], free["data_segs_out"])

    def test_write_write_read(self) -> None:
        """A question of two writes waits for a delayed ack."""
        self.assertGreater(self.figures["questions"][NAGLE][DELAYED]["median_ms"], STALL_MS)

    def test_packets(self) -> None:
        """No delay sends more packets than gathering for two milliseconds; a cork sends fewer, and later."""
        self.assert_holds("no delay costs a packet a message")
        self.assert_holds("a cork is for what is pulled")

    def test_one_write(self) -> None:
        """One ``writev`` of a burst needs no more packets than any socket option makes of it."""
        self.assert_holds("one write beats every option")
