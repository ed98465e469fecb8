"""
The end of a process that cannot wait for its reactor, or whose exit status must tell of a failure.
"""

import contextlib
import os
import threading

from twisted_ingest.observe.log import LogWriter


def remove_pid_file(path: str | None) -> None:
    """Remove the file that twistd has written our number to, and leaves there at an end that it does not see."""
    if path:
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as stream:
            if int(stream.read()) == os.getpid():
                os.unlink(path)


def last_resort(seconds: float, pid_file: str | None = None) -> threading.Timer:
    """Start a thread that ends the process after ``seconds`` unless it is cancelled: a stop is a stop."""
    timer = threading.Timer(seconds, _give_up, (seconds, pid_file))
    timer.daemon = True
    timer.start()
    return timer


# Both are tested by processes of their own, which end here without a chance to save their coverage.


def _give_up(seconds: float, pid_file: str | None) -> None:  # pragma: no cover
    os.write(2, f"still stopping after {seconds:g} s: ending now\n".encode())
    remove_pid_file(pid_file)
    os._exit(1)


def exit_failed(log: LogWriter, pid_file: str | None) -> None:  # pragma: no cover
    """End the process with status 1, its last log lines written."""
    log.stop()
    remove_pid_file(pid_file)
    os._exit(1)
