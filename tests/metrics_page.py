"""
Writes the tables of `docs/metrics.md`: every metric with its type, its labels and its text, as the code gives them.

``python -m tests.metrics_page`` writes them. What stands outside the markers of the page is left alone.
"""

import pathlib
from collections.abc import Iterator

from prometheus_client.core import Metric

from tests.reliability import insert
from twisted_ingest.errors import DropReason, Durability, PauseReason, ReloadResult
from twisted_ingest.ledger import PollLedger, RelpLedger, TLSLedger
from twisted_ingest.observe.details import DETAILS
from twisted_ingest.observe.lag import LoopLag
from twisted_ingest.observe.metrics import families
from twisted_ingest.observe.steps import StepDirection
from twisted_ingest.observe.view import ListenerView, SinkView, View
from twisted_ingest.sinks.delivery.account import Account

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "metrics.md"

SECTIONS = {"process": "Of the process", "listener": "Of each listener", "sink": "Of each sink"}
"""The tables, by the label that all of a table have."""


def everything() -> View:
    """Make a view in which every metric shows."""
    relp = RelpLedger()
    relp.tls = TLSLedger()
    counts = {**relp.snapshot(), **PollLedger().snapshot()}
    listener = ListenerView(
        counts=counts,
        is_up=True,
        durability=Durability.WRITTEN,
        answers=True,
        certificate_not_after=0.0,
        tls_reloads=dict.fromkeys(ReloadResult, 0),
    )
    own = {
        **dict.fromkeys((name for name, detail in DETAILS.items() if not detail.has_parts), 0),
        **Account().details(),
    }
    sink = SinkView(is_up=True, dropped_records=dict.fromkeys(DropReason, 0), details=own)
    return View(
        builds=("version scanner",),
        listeners={"x": listener},
        sinks={"x": sink},
        paused_by_reason=dict.fromkeys(PauseReason, 0),
        pauses=dict.fromkeys(PauseReason, 0),
        pause_seconds=dict.fromkeys(PauseReason, 0),
        clock_steps=dict.fromkeys(StepDirection, 0),
        admin_requests={"/ 200": 0},
        loop_lag=LoopLag().view(),
    )


def labels(family: Metric) -> list[str]:
    """Give the labels of a family, but for the bounds of a histogram."""
    return [name for name in family.samples[0].labels if name != "le"]


def name(family: Metric) -> str:
    """Give the name that stands in a query."""
    return family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")


def rows(section: str) -> Iterator[str]:
    """Lay out the metrics of a section."""
    for family in families(everything()):
        found = labels(family)
        if section in found or (section == "process" and not {"listener", "sink"} & set(found)):
            rest = ", ".join(f"`{label}`" for label in found if label != section)
            yield f"| `{name(family)}` | {family.type} | {rest} | {family.documentation} |"


def tables() -> str:
    """Lay out all of them."""
    head = "| metric | type | labels | what it says |\n|---|---|---|---|"
    return "\n\n".join("\n".join((f"### {title}\n", head, *rows(word))) for word, title in SECTIONS.items())


if __name__ == "__main__":
    PAGE.write_text(insert(PAGE.read_text(), "metrics", tables()))
