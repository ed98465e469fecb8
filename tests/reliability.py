"""
Writes the tables of `docs/reliability.md`: scenarios from the attack modules, figures from a run of their tests.

`make reliability` runs the attacks and then this. What stands outside the markers of the page is left alone.
"""

import importlib
import json
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator

from tests.attacks.report import Group, Scenario

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reliability.md"
SOAK = ROOT / "docs" / "img" / "soak.json"


def modules() -> list[str]:
    """Name the attack modules."""
    return sorted(path.stem for path in (ROOT / "tests" / "attacks").glob("test_*.py"))


def scenarios() -> Iterator[tuple[str, Scenario]]:
    """Give every scenario with the module that describes it."""
    for module in modules():
        described = vars(importlib.import_module(f"tests.attacks.{module}")).values()
        yield from ((module, value) for value in described if isinstance(value, Scenario))


def results(lines: Iterable[str]) -> dict[str, str]:
    """Join what was measured, by scenario."""
    found: dict[str, list[str]] = {}
    for line in lines:
        entry = json.loads(line)
        found.setdefault(entry["scenario"], []).append(entry["measured"])
    return {name: "; ".join(dict.fromkeys(texts)) for name, texts in found.items()}


def tables(measured: dict[str, str]) -> str:
    """Lay out all scenarios. Raises ``KeyError`` with the name of one that nothing was measured for."""
    parts = []
    for group in Group:
        rows = [row(module, each, measured[each.name]) for module, each in scenarios() if each.group is group]
        if rows:
            head = "| scenario | trigger | behaviour | metric | test | measured |\n|---|---|---|---|---|---|"
            parts.append("\n".join((f"### {group.value}\n", head, *rows)))
    return "\n\n".join(parts)


def row(module: str, scenario: Scenario, measured: str) -> str:
    """Lay out one scenario."""
    metrics = ", ".join(f"`{metric}`" for metric in scenario.metrics)
    test = f"[{module.removeprefix('test_')}](../tests/attacks/{module}.py)"
    cells = (scenario.name, scenario.trigger, scenario.behaviour, metrics, test, measured)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def soak_table(summary: dict[str, object]) -> str:
    """Lay out what a soak found; its file is written by `make soak`."""
    return "\n".join(("| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in summary.items())))


def insert(page: str, marker: str, text: str) -> str:
    """Replace what stands between a marker and its end. Raises ``ValueError`` where the page has no such place."""
    begin, end = f"<!-- {marker} -->", f"<!-- end of {marker} -->"
    found = re.search(f"{begin}.*?{end}", page, re.DOTALL)
    if found is None:
        raise ValueError(f"the page has no {begin} … {end}")
    return f"{page[: found.start()]}{begin}\n\n{text}\n\n{end}{page[found.end() :]}"


def main(report: str) -> str:
    """Write the page anew from the results in the file ``report``; gives what to say if that cannot be."""
    with open(report) as lines:
        measured = results(lines)
    missing = [scenario.name for _, scenario in scenarios() if scenario.name not in measured]
    if missing:
        return f"nothing was measured for: {', '.join(missing)}; the page is unchanged"
    page = insert(PAGE.read_text(), "scenarios", tables(measured))
    if SOAK.exists():
        page = insert(page, "soak", soak_table(json.loads(SOAK.read_text())["summary"]))
    PAGE.write_text(page)
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) or None)
