"""Under pytest too, `mktemp` of trial's test cases must not litter the checkout: trial itself has `_trial_temp`."""

import os
import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # In a shell's background it is ignored, by our children too; some tests send it to them.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("scratch"))
    yield
    os.chdir(before)
