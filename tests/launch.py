"""
Run the server so that its coverage survives.

At the end of a stop twistd ends its process with the signal that stopped it, which leaves coverage no chance
to save its data.
"""

import runpy

import coverage
from twisted.application import app

_exit_with_signal = app._exitWithSignal


def _save_and_exit(number: int) -> None:
    measuring = coverage.Coverage.current()
    if measuring is not None:
        measuring.stop()
        measuring.save()
    _exit_with_signal(number)


app._exitWithSignal = _save_and_exit
runpy.run_module("twisted_ingest", run_name="__main__")
