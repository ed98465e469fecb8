"""Server processes under strace: only the tracer is our child, and signals are for the traced."""

import contextlib
import os
import signal
import subprocess

from twisted.trial.unittest import SkipTest

from tests.server import PATIENCE, Server, wait_until
from tests.test_real_clients import program


def strace() -> str:
    """Find strace where it may trace, or skip (or fail, for want of the program) with the reason."""
    path = program("strace", "strace")
    answer = subprocess.run([path, "-f", "-o", "/dev/null", "true"], capture_output=True, check=False)
    if answer.returncode:
        raise SkipTest(f"strace may not trace here: {answer.stderr.decode(errors='replace').strip()}")
    return path


def traced(server: Server) -> int:
    """Give the number of the process that is traced."""
    with open(f"/proc/{server.process.pid}/task/{server.process.pid}/children") as stream:
        return int(stream.read().split()[0])


def stop(server: Server) -> None:
    """Stop the traced process, and its tracer with it."""
    if server.process.poll() is None:
        with contextlib.suppress(OSError, IndexError):
            os.kill(traced(server), signal.SIGTERM)
        wait_until(lambda: server.process.poll() is not None, "the traced server ends", PATIENCE)


def end(server: Server) -> None:
    """Stop both, and remove what they leave."""
    stop(server)
    server.kill()
