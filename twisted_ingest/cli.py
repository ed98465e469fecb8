"""
The ``twisted-ingest`` command: what ``twistd -n --pidfile= ingest`` does, for installers that expose only our own.
"""

import sys

from twisted.scripts.twistd import run

from twisted_ingest.process import signals


def main() -> None:
    """Run in the foreground, without a pid file, with the flags of ``ingest``."""
    signals.ignore_early()
    sys.argv[1:] = ["-n", "--pidfile=", "ingest", *sys.argv[1:]]
    run()
