"""
What a lab tells: the figures it measured, and the tables, diagrams and sentences that are made of them.

A report is made from figures alone, so the page can be built again from the JSON files. `labs.showing` shows it.
"""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

Figures = dict[str, Any]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Table:
    """What was measured; ``note`` says what the columns do not."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """
    One diagram: ``lines`` over ``x``, or ``bars`` by name.

    ``steps`` draws a line that holds its value until the next point. ``marks`` are moments worth a vertical line.
    ``top`` is where the y axis ends, for panels that are to be compared (0: where the lines do).
    ``endless`` names bars that are drawn as far as was watched, and go on.
    """

    title: str
    x: str
    y: str
    lines: dict[str, list[list[float]]] = field(default_factory=dict)
    bars: dict[str, float] = field(default_factory=dict)
    marks: dict[str, float] = field(default_factory=dict)
    logarithmic: bool = False
    steps: bool = False
    top: float = 0.0
    endless: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Finding:
    """
    One sentence of the conclusion.

    ``holds`` is whether the figures show what the server is built on; ``text`` is written for the case that they do
    or do not.
    """

    name: str
    holds: bool
    text: str


def finding(name: str, holds: bool, yes: str, no: str) -> Finding:
    """Choose the sentence that the figures allow."""
    return Finding(name, holds, yes if holds else no)


@dataclass(frozen=True)
class Report:
    """All that is said about one run."""

    findings: list[Finding]
    tables: list[Table]
    panels: list[Panel]


@dataclass(frozen=True)
class Lab:
    """
    One experiment.

    ``measure`` takes sizes (``full`` or ``quick``) and says how it gets on; it may raise `CannotRunError`.
    ``describe`` makes the report of its figures and measures nothing.
    """

    name: str
    title: str
    question: str
    setting: str
    """How it was done, in a paragraph."""
    server: str
    """What our server does on that account, and where to read it."""
    full: dict[str, Any]
    quick: dict[str, Any]
    measure: Callable[..., Figures]
    describe: Callable[[Figures], Report]


def machine() -> dict[str, str]:
    """Say what was measured on, as far as it matters for the figures."""
    return {
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "processors": str(os.cpu_count()),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "twisted": version("twisted"),
    }


def save(folder: str, lab: Lab, figures: Figures, report: Report) -> str:
    """Write ``NAME.json``; gives its path."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{lab.name}.json")
    conclusion = [{"finding": f.name, "holds": f.holds, "text": f.text} for f in report.findings]
    document = {"lab": lab.name, "machine": machine(), "conclusion": conclusion, "figures": figures}
    with open(path, "w") as stream:
        json.dump(document, stream, separators=(",", ":"))
        stream.write("\n")
    return path
