"""The Nagle lab, in small: what small messages become."""

from tests.labs import LabTestCase


class NagleTests(LabTestCase):
    lab = "nagle"

    def test_every_message_arrived(self) -> None:
        """Whichever way they were sent, all messages came."""
        runs = [r for ways in self.figures["streams"].values() for by in ways.values() for r in by.values()]
        self.assertEqual({run["messages"] for run in runs}, {self.figures["messages"]})

    def test_two_delays_wait_for_each_other(self) -> None:
        """With Nagle and delayed acks messages wait tens of milliseconds; without either of the two they do not."""
        self.assert_holds("Nagle and delayed acks hold messages back")

    def test_write_write_read(self) -> None:
        """A question of two writes waits for a delayed ack; as one write, or without delay, it does not."""
        self.assert_holds("write, write, read is the classic")

    def test_packets(self) -> None:
        """No delay sends more packets than gathering for two milliseconds; a cork sends fewer, and later."""
        self.assert_holds("no delay costs a packet a message")
        self.assert_holds("a cork is for what is pulled")

    def test_one_write(self) -> None:
        """One ``writev`` of a burst needs no more packets than any socket option makes of it."""
        self.assert_holds("one write beats every option")
