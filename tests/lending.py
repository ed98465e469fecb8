"""
Has every batch that is made lent its bytes: a plug-in of pytest (``-p tests.lending``).

Whatever uses a batch after its group was settled, or takes its bytes to be `bytes`, then fails in whichever suite it is
used. What is kept by those who may is a copy.
"""

from typing import Any

from twisted_ingest.batch import Batch
from twisted_ingest.testing import Lender

LENDER = Lender()

_make = Batch.__init__


def _make_lent(self: Batch, wire: bytes | memoryview, *arguments: Any, **options: Any) -> None:
    _make(self, wire, *arguments, **options)
    LENDER.lend(self)


def _copy(self: Batch) -> Batch:
    """Copy as ever; a copy has bytes of its own."""
    copy = _make_copy(self)
    if copy is not self:
        copy.wire, copy.lease = bytes(copy.wire), None
    return copy


_make_copy = Batch.copy


def pytest_configure() -> None:
    """Begin to lend."""
    Batch.__init__ = _make_lent  # type: ignore[method-assign]
    Batch.copy = _copy  # type: ignore[method-assign]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say whether somebody has kept a view of what was given back."""
    kept = LENDER.kept or "none"
    terminalreporter.write_line(f"{LENDER.returned} buffers came back from the sinks, {kept} of them looked at")
