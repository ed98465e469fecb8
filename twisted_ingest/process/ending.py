"""
The end of a process that cannot wait for its reactor, or whose exit status must tell of a failure.
"""

import os
import threading

from twisted_ingest.observe.log import LogWriter


def last_resort(seconds: float) -> threading.Timer:
    """Start a thread that ends the process after ``seconds`` unless it is cancelled: a stop is a stop."""
    timer = threading.Timer(seconds, _give_up, (seconds,))
    timer.daemon = True
    timer.start()
    return timer


# Both are tested by processes of their own, which end here without a chance to save their coverage.


def _give_up(seconds: float) -> None:  # pragma: no cover
    os.write(2, f"still stopping after {seconds:g} s: ending now\n".encode())
    os._exit(1)


def exit_failed(log: LogWriter) -> None:  # pragma: no cover
    """End the process with status 1, its last log lines written."""
    log.stop()
    os._exit(1)
