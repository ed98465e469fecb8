"""The page docs/metrics.md, the code it is made from, and what a server exports say the same."""

import re

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.metrics_page import PAGE, everything, tables
from tests.reliability import insert
from tests.test_observe_metrics import Exposed
from twisted_ingest.limits import MIB
from twisted_ingest.observe.adding import rules
from twisted_ingest.observe.details import DETAILS
from twisted_ingest.observe.events import Events
from twisted_ingest.sinks.delivery.account import Account
from twisted_ingest.sinks.file import FileSink
from twisted_ingest.spool.sink import SpoolSink
from twisted_ingest.testing import Rig

TEXT = PAGE.read_text()


class PageTests(SynchronousTestCase):
    def test_up_to_date(self) -> None:
        """The tables are those the code gives (``python -m tests.metrics_page`` writes them)."""
        self.assertEqual(TEXT, insert(TEXT, "metrics", tables()), "run: python -m tests.metrics_page")

    def test_all_that_a_server_exports(self) -> None:
        """No metric of a live server is missing from the page, nor does it have labels that the page does not name."""
        for wire in ("lines", "relp"):
            for family in Exposed(Rig(wire=wire)).families():
                if family.name.startswith("ingest_"):
                    (row,) = re.findall(rf"^\| `{family.name}(?:_total|_info)?` .*$", TEXT, re.MULTILINE)
                    for sample in family.samples:
                        for label in set(sample.labels) - {"le", "listener", "sink"}:
                            self.assertIn(f"`{label}`", row)

    def test_nothing_is_left_out(self) -> None:
        """What the tables are made of has something in every field that could be empty, but for what goes wrong."""
        parts = (everything(), *everything().listeners.values(), *everything().sinks.values())
        empty = {field for part in parts for field in rules(type(part)) if getattr(part, field) in ({}, (), None)}
        self.assertEqual(empty, {"reasons", "missing", "surplus", "troubles", "descriptions"})

    def test_every_detail_says_something(self) -> None:
        """Each counter of a sink of ours is described, and no other."""
        self.assertEqual(self.details(), set(DETAILS))

    def details(self) -> set[str]:
        """Give the counters that our sinks have."""
        clock = Clock()
        events = Events(clock.seconds)
        file = FileSink("file", "nowhere", reactor=clock, events=events)
        spool = SpoolSink(file, "nowhere", reactor=clock, events=events, wall_time=clock.seconds, max_bytes=MIB)
        account = {name.partition("/")[0] for name in Account().details()}
        return {*spool.details(), *account, "in_flight_requests", "connected", "dead_letter_records"}
