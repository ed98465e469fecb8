"""The suites of all that uses batches, once more, with every batch lent its bytes (`tests.lending`)."""

import glob
import os
import pathlib
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

HERE = pathlib.Path(__file__).parent

SUITES = ("test_flow*", "test_sinks*", "test_spool_[!cs]*", "test_spool_codec", "test_storage*", "test_server_[acr]*")
"""Of what writes, keeps, counts, answers for or gives on what is in batches."""

OF_BYTES = ("test_no_copy", "test_take_keeps_the_wire")
"""Tests of what is done with a batch that has its own bytes."""


class LentSuites(SynchronousTestCase):
    def test_all(self) -> None:
        """None of them uses a batch after its group was settled, and none keeps a view of one."""
        suites = sorted(path for suite in SUITES for path in glob.glob(f"{HERE}/{suite}.py"))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.lending", "-p", "no:cacheprovider"]
        leave_out = ["-k", " and ".join(f"not {name}" for name in OF_BYTES)]
        done = subprocess.run(
            [*command, *leave_out, *suites],
            cwd=HERE.parent,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
            env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        )
        self.assertEqual(done.returncode, 0, done.stdout[-4000:] + done.stderr[-2000:])
        self.assertIn(" came back from the sinks, none of them looked at", done.stdout)
