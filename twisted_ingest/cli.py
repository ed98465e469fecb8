"""
The ``twisted-ingest`` command: what ``twistd -n --pidfile= ingest`` does, for installers that expose only our own.
"""

import sys

from twisted_ingest.process import signals, standard


def main() -> None:
    """Run in the foreground, without a pid file, with the flags of ``ingest``."""
    standard.open_missing()
    signals.ignore_early()
    # Imported with all three descriptors open: whatever it opens becomes none of them.
    from twisted.scripts.twistd import run  # noqa: PLC0415

    sys.argv[1:] = ["-n", "--pidfile=", "ingest", *sys.argv[1:]]
    run()
