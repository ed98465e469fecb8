"""
Networks for tests: one of the test's own, with nothing in it but a loopback interface as slow and narrow as wanted.

What a machine does not allow is a skip with its reason.
"""

import ctypes
import os
import subprocess

from twisted.trial.unittest import SkipTest

from tests.attacks.disks import DiskCase
from tests.test_real_clients import program

CLONE_NEWNET = 0x40000000
"""From ``linux/sched.h``; `os.unshare` came with Python 3.12."""


class NetworkCase(DiskCase):
    """Comes back to the machine's own network afterwards."""

    def network(self, *, mtu: int, rate: str | None = None) -> None:
        """
        Move this thread, with the threads and processes that it starts, to a network of its own, or skip.

        ``mtu`` in bytes, ``rate`` as tc takes it (``1mbit``), for both directions together: all that passes waits in
        one queue, which loses nothing: without a fair queue, loss would throw out whom chance picks.
        """
        ip = program("ip", "iproute2")
        tc = program("tc", "iproute2")
        self._leave()
        subprocess.run([ip, "link", "set", "lo", "mtu", str(mtu), "up"], check=True)
        if rate is not None:
            shape = ["tbf", "rate", rate, "burst", "16kb", "limit", "4mb"]
            done = subprocess.run([tc, "qdisc", "add", "dev", "lo", "root", *shape], capture_output=True, check=False)
            if done.returncode:
                raise SkipTest(f"needs a kernel that can slow down an interface (sch_tbf): {done.stderr.decode()}")

    def _leave(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if libc.unshare(CLONE_NEWNET):
            os.close(home)
            raise SkipTest(f"needs a network namespace (root): {os.strerror(ctypes.get_errno())}")
        self.addCleanup(self._return, libc, home)

    def _return(self, libc: ctypes.CDLL, home: int) -> None:
        outcome = libc.setns(home, CLONE_NEWNET)
        os.close(home)
        self.assertEqual(outcome, 0)
