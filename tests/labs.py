"""What the tests of the labs share: each lab is measured once in small sizes, and its report read by many tests."""

import functools
import json
import pathlib

from twisted.trial.unittest import SynchronousTestCase

from labs.__main__ import LABS
from labs.report import Figures, Report

ROOT = pathlib.Path(__file__).parent.parent


class LabTestCase(SynchronousTestCase):
    """Reads one lab's report: ``lab`` names it."""

    lab = ""

    def setUp(self) -> None:
        self.figures, self.report = measured(self.lab)

    def assert_holds(self, name: str) -> None:
        """Assert that the figures bear a finding out."""
        (found,) = [item for item in self.report.findings if item.name == name]
        self.assertTrue(found.holds, found.text)


def stored(figures: Figures) -> Figures:
    """Give figures as they come out of their file."""
    read: Figures = json.loads(json.dumps(figures))
    return read


@functools.cache
def measured(name: str) -> tuple[Figures, Report]:
    """Carry a lab out, the first time it is asked for; raises `labs.running.CannotRunError`."""
    lab = LABS[name]
    figures = stored(lab.measure(tell=lambda _: None, **lab.quick))
    return figures, lab.describe(figures)


def published(name: str) -> Figures:
    """Give the figures that docs/labs/ shows."""
    document: Figures = json.loads((ROOT / "docs" / "labs" / f"{name}.json").read_text())
    return document
