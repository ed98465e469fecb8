"""The lifecycle lab, in small: how connections end and what is left of them."""

from tests.labs import LabTestCase


class LifecycleTests(LabTestCase):
    lab = "lifecycle"

    def test_forgotten_connections(self) -> None:
        """A server that forgets its connections runs out of descriptors, and then refuses clients."""
        leak = self.figures["visits"]["forgetful"]
        self.assertGreater(leak["left"]["server CLOSE_WAIT"], 0)
        self.assertGreater(leak["seen"]["reset"], 0)
        self.assert_holds("a forgotten connection is never given back")

    def test_ours_forgets_none(self) -> None:
        """Ours serves the same clients and gives every descriptor back."""
        ours = self.figures["visits"]["ours"]
        self.assertEqual(ours["seen"].get("reset", 0), 0)
        self.assert_holds("ours gives every descriptor back")

    def test_time_wait(self) -> None:
        """TIME_WAIT is kept by the side that closed first; after a reset by none."""
        self.assert_holds("TIME_WAIT is where the first FIN came from")
        self.assert_holds("a reset takes the answer with it")

    def test_why_an_idle_peer_is_reset(self) -> None:
        """After a FIN a sender's next write succeeds and is lost; after our reset it fails and is sent again."""
        polite, ours = (self.figures["idle_close"][kind] for kind in ("closes-idle", "ours"))
        senders = polite["senders"]
        self.assertEqual((polite["writes_that_succeeded"], polite["second_lines_received"]), (senders, 0))
        self.assertEqual((ours["writes_that_succeeded"], ours["second_lines_received"]), (0, senders))
        self.assert_holds("after a FIN the next line is lost, after a reset it is kept")

    def test_flood(self) -> None:
        """Under a flood a cap keeps an honest client whole, and a cap for each peer has it served meanwhile."""
        self.assert_holds("a cap keeps the others whole")
        self.assert_holds("a cap for each peer keeps them served")

    def test_connection_per_line(self) -> None:
        """A connection for each line is slower than one kept open, and leaves a port in TIME_WAIT each time."""
        self.assert_holds("a connection a line costs ports and time")
