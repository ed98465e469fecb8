"""The half-open lab, in small: who notices that a host has vanished. Skipped where there are no namespaces."""

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from labs.conclusions.halfopen import keepalive_seconds, retries_seconds
from labs.halfopen import PROGRAMS, namespace_command
from labs.running import CannotRunError
from tests.labs import LabTestCase
from tests.test_real_clients import program


class HalfOpenTests(LabTestCase):
    lab = "halfopen"

    def setUp(self) -> None:
        for name, package in PROGRAMS.items():
            program(name, package)
        try:
            namespace_command()
        except CannotRunError as reason:
            raise SkipTest(str(reason)) from reason
        super().setUp()

    def seconds(self, case: str) -> float | None:
        found: float | None = self.figures["results"][case]["seconds"]
        return found

    def test_nothing_notices_nothing(self) -> None:
        """Without any setting a vanished host stays connected."""
        self.assertIsNone(self.seconds("nothing"))
        self.assert_holds("without any setting nobody notices")

    def test_keepalive(self) -> None:
        """Keepalive finds it after its idle time and its probes, not before."""
        case = next(name for name, settings in self.figures["cases"].items() if set(settings) == {"keepalive"})
        self.assertGreaterEqual(self.seconds(case) or 0.0, keepalive_seconds(1, 1, 1) - 0.5)
        self.assert_holds("keepalive takes idle time and probes")

    def test_write(self) -> None:
        """A write succeeds and fails only when retransmission is given up."""
        self.assert_holds("a write waits for retransmission")

    def test_user_timeout(self) -> None:
        """``TCP_USER_TIMEOUT`` ends a connection that has something to send, and no other."""
        self.assert_holds("TCP_USER_TIMEOUT bounds a write, and nothing else")

    def test_own_timers(self) -> None:
        """The idle timer and the frame deadline need no help of the kernel."""
        reasons = {self.figures["results"][name]["reason"] for name in self.figures["cases"] if "1 s" in name}
        self.assertLessEqual({"idle", "frame_deadline"}, reasons)
        self.assert_holds("the server's own timers need no kernel")

    def test_a_stopped_process_is_no_substitute(self) -> None:
        """A stopped process answers keepalive; a killed one is known at once."""
        self.assert_holds("keepalive says nothing about the process")
        self.assert_holds("a killed process is another matter")


class RuleTests(SynchronousTestCase):
    def test_retransmission(self) -> None:
        """The rule gives what the kernel documents for its default: 924.6 seconds at least (ip-sysctl)."""
        self.assertAlmostEqual(retries_seconds(15), 924.6)

    def test_keepalive(self) -> None:
        """Linux's own defaults take two hours and eleven minutes."""
        self.assertEqual(keepalive_seconds(7200, 75, 9), 7875)
