"""
What only pytest needs: a scratch folder, and ``--quick``.

Under pytest too, `mktemp` of trial's test cases must not litter the checkout: trial itself has `_trial_temp`.
"""

import os
import pathlib
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

SLOW = frozenset(
    {
        "test_benchmarks",
        "test_clients",
        "test_clients_integration",
        "test_daemon",
        "test_embedding",
        "test_labs_backpressure",
        "test_labs_conclusions",
        "test_labs_halfopen",
        "test_labs_leak",
        "test_labs_lifecycle",
        "test_labs_nagle",
        "test_lent_suites",
        "test_logging_handler",
        "test_packaging",
        "test_plugin_sink",
        "test_proxy_clients",
        "test_real_clients",
        "test_relp_clients",
        "test_relp_order",
        "test_server_claims",
        "test_service",
        "test_shutdown",
        "test_sinks_receivers",
        "test_spool_crash",
        "test_spool_server",
        "test_stock_clients",
        "test_stateful",
        "test_tls_clients",
        "test_wrong_clients",
    }
)
"""Modules that start real processes or real clients, or go through thousands of schedules; and all attacks."""

QUICK_EXAMPLES = 40
"""How many examples ``--quick`` tries a property with that does not say itself how many it needs."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know ``--quick``."""
    parser.addoption("--quick", action="store_true", help="leave out real processes, attacks and long schedules")


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    """Leave out what is slow, where that is asked."""
    is_slow = collection_path.stem in SLOW or collection_path.name == "attacks"
    return True if config.getoption("--quick") and is_slow else None


def pytest_configure(config: pytest.Config) -> None:
    """Know what is slow in modules that are quick, and try fewer examples, where that is asked."""
    config.addinivalue_line("markers", "slow: left out by --quick")
    if config.getoption("--quick"):
        settings.register_profile("quick", max_examples=QUICK_EXAMPLES)
        settings.load_profile("quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out single tests that are marked as slow, where that is asked."""
    if config.getoption("--quick"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.fixture(autouse=True, scope="session")
def _scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # In a shell's background it is ignored, by our children too; some tests send it to them.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("scratch"))
    yield
    os.chdir(before)
