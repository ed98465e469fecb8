"""
Showing reports: progress and tables on the terminal, the page, the pictures.

matplotlib and rich (the extra ``labs``) are imported where they are used: without them there is plain text and no
picture.
"""

import sys
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from labs.report import Lab, Panel, Report, Table, Tell

EXTRA = "pip install 'twisted-ingest[labs]'"


# On the terminal.


@contextmanager
def _telling_with_rich() -> Iterator[Tell]:
    from rich.console import Console  # noqa: PLC0415 - an extra
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting")
        yield lambda text: progress.update(task, description=text)


@contextmanager
def _telling_plainly() -> Iterator[Tell]:
    yield lambda text: print(f"  {text}", file=sys.stderr, flush=True)


def telling() -> AbstractContextManager[Tell]:
    """Give what shows progress on standard error: a spinner where rich and a terminal are there."""
    try:
        import rich  # noqa: F401, PLC0415 - an extra
    except ImportError:
        return _telling_plainly()
    return _telling_with_rich() if sys.stderr.isatty() else _telling_plainly()


def show(lab: Lab, report: Report) -> None:
    """Print tables and conclusion."""
    try:
        _show_with_rich(lab, report)
    except ImportError:
        print(markdown(lab, report, picture=False))


def _show_with_rich(lab: Lab, report: Report) -> None:
    from rich.console import Console  # noqa: PLC0415 - an extra
    from rich.table import Table as Grid  # noqa: PLC0415

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.rule(f"{lab.name}: {lab.title}")
    for table in report.tables:
        grid = Grid(title=table.title, caption=table.note or None, title_justify="left", caption_justify="left")
        for number, column in enumerate(table.columns):
            grid.add_column(column, justify="right" if number else "left")
        for row in table.rows:
            grid.add_row(*row)
        console.print(grid, markup=False)
    console.print("\nConclusion, from these figures:")
    for item in report.findings:
        console.print(f"  {'•' if item.holds else '✗'} {item.text}", markup=False)


# On paper.


def markdown(lab: Lab, report: Report, *, picture: bool = True) -> str:
    """Lay a report out as a section of the page."""
    parts = [f"## {lab.title}", lab.question, *[f"- {item.text}" for item in report.findings]]
    text = "\n\n".join(parts[:2]) + "\n\n" + "\n".join(parts[2:])
    if picture:
        text += f"\n\n![{lab.title}]({lab.name}.png)"
    text += f"\n\n**In the server.** {lab.server}\n\n**How it was measured.** {lab.setting}\n"
    for table in report.tables:
        text += f"\n**{table.title}**\n\n{_grid(table)}\n"
        if table.note:
            text += f"\n{table.note}\n"
    return text


def _grid(table: Table) -> str:
    head = [table.columns, ["---"] + ["--:"] * (len(table.columns) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*head, *table.rows])


def page(sections: Iterable[tuple[Lab, Report, dict[str, str]]]) -> str:
    """Build the page of all labs from their reports and the machines they ran on."""
    found = list(sections)
    machines = {
        f"{m['system']}, {m['processors']} processors, {m['python']}, Twisted {m['twisted']}" for *_, m in found
    }
    contents = "\n".join(f"- [{lab.title}](#{_anchor(lab.title)}): `python -m labs {lab.name}`" for lab, *_ in found)
    body = "\n".join(markdown(lab, report) for lab, report, _ in found)
    return _PAGE.format(machine="; ".join(sorted(machines)), contents=contents, body=body)


def _anchor(title: str) -> str:
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")


_PAGE = """\
# The labs

Five experiments that show why the server is built as it is. Each runs with this server and without, on the machine it
is started on, and draws its conclusion from what it has just measured: other figures give another text. An item that
begins with "Not as expected" is one that the figures do not bear out.

```
make labs                       # all of them, in under five minutes; writes this page
python -m labs NAME             # one; writes NAME.png and NAME.json into labs/results/
python -m labs NAME --quick     # small sizes: does it work
```

They need the extra `labs` (`pip install -e '.[labs]'`) for pictures and progress, and Linux. Nothing leaves loopback or
network namespaces of their own, and nothing is left behind.

Measured on {machine}. Speeds differ from machine to machine; the findings should not.

{contents}

{body}"""


def draw(lab: Lab, report: Report, path: str) -> None:
    """Draw the panels, one below the other. Raises ``ImportError`` without matplotlib."""
    import matplotlib as mpl  # noqa: PLC0415 - an extra

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    rows = -(-len(report.panels) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(13, 4.2 * rows), layout="constrained", squeeze=False)
    figure.suptitle(lab.title, fontsize=15)
    for place, panel in zip(axes.flat, report.panels, strict=False):
        _draw_panel(place, panel)
    for place in list(axes.flat)[len(report.panels) :]:
        place.set_axis_off()
    # Without the date and version that matplotlib would add, the same figures make the same file.
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def _draw_panel(place: Any, panel: Panel) -> None:
    for number, (name, points) in enumerate(panel.lines.items()):
        style = {"drawstyle": "steps-post"} if panel.steps else {}
        x, y = [point[0] for point in points], [point[1] for point in points]
        place.plot(x, y, label=name, linestyle=("-", "--", "-.", ":")[number % 4], **style)
    if panel.bars:
        _draw_bars(place, panel)
    for name, moment in panel.marks.items():
        place.axvline(moment, color="grey", linewidth=0.8)
        place.text(moment, 0.98, f" {name}", transform=place.get_xaxis_transform(), fontsize=8, va="top", rotation=90)
    if panel.lines:
        place.legend(fontsize=9)
        place.set_yscale("log" if panel.logarithmic else "linear")
        if panel.top:
            place.set_ylim(-panel.top / 50, panel.top)
    elif panel.logarithmic:
        place.set_xscale("log")
        place.set_xlim(left=1)
    place.set_title(textwrap.fill(panel.title, 62), fontsize=11)
    place.set_xlabel(panel.x)
    place.set_ylabel(panel.y)
    place.grid(alpha=0.3)


def _draw_bars(place: Any, panel: Panel) -> None:
    names = list(reversed(panel.bars))
    colours = ["lightgrey" if name in panel.endless else "tab:blue" for name in names]
    drawn = place.barh(names, [panel.bars[name] for name in names], color=colours)
    labels = ["never" if name in panel.endless else f"{panel.bars[name]:,.4g}" for name in names]
    place.bar_label(drawn, labels=labels, padding=3, fontsize=9)
    place.margins(x=0.15)
