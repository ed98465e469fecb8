"""Tables and the plot. Ratios are taken inside a round, then their median: rounds differ, neighbours in one do not."""

import statistics
import textwrap
from collections.abc import Iterable
from typing import Any

from servers import LIMITS
from workloads import WORKLOADS

Run = dict[str, Any]

_CHECKED = ("missing", "doubled", "torn", "reordered")
_COLUMNS = (
    "server",
    "MB/s",
    "lines/s",
    "of limit",
    "CPU s/GB",
    "of limit",
    "peak RSS MB",
    *_CHECKED,
    "rounds",
)


def median(runs: Iterable[Run], key: str) -> float:
    """Give the median over rounds."""
    return statistics.median(run[key] for run in runs)


def names_of(runs: list[Run]) -> list[str]:
    """Give the servers, in the order in which they were asked for."""
    return sorted({run["server"] for run in runs}, key=[run["server"] for run in runs if run["round"] == 0].index)


def ratio(runs: list[Run], name: str, key: str) -> str:
    """Give a figure as a part of that of the loop in C in the same round."""
    limits = {run["round"]: run[key] for run in runs if run["server"] in LIMITS}
    ratios = [run[key] / limits[run["round"]] for run in runs if run["server"] == name and limits.get(run["round"])]
    return f"{statistics.median(ratios):.2f}" if ratios else ""


def markdown(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Lay out a table."""
    head = list(columns)
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def throughput_table(key: str, runs: list[Run]) -> str:
    """Give one workload's table."""
    rows = []
    for name in names_of(runs):
        mine = [run for run in runs if run["server"] == name]
        figures = [
            f"{median(mine, 'megabytes_per_second'):,.0f}",
            f"{median(mine, 'lines_per_second'):,.0f}",
            ratio(runs, name, "megabytes_per_second"),
            f"{median(mine, 'cpu_seconds_per_gigabyte'):.2f}",
            ratio(runs, name, "cpu_seconds_per_gigabyte"),
            f"{median(mine, 'peak_rss_megabytes'):.0f}",
        ]
        rows.append([name, *figures, *(max(run[word] for run in mine) for word in _CHECKED), len(mine)])
    return f"### {key}: {WORKLOADS[key].title}\n\n{markdown(_COLUMNS, rows)}\n"


def idle_table(runs: list[Run]) -> str:
    """Give the table of idle connections."""
    columns = ("server", "resting RSS MB", "KiB each, open", "KiB each, after a line", "idle CPU %")
    keys = ("resting_megabytes", "open_kib_each", "used_kib_each", "idle_cpu_percent")
    rows = [
        [name, *(f"{median([run for run in runs if run['server'] == name], key):.1f}" for key in keys)]
        for name in names_of(runs)
    ]
    return f"### idle: {runs[0]['connections']:,} silent connections\n\n{markdown(columns, rows)}\n"


def endless_table(runs: list[Run]) -> str:
    """Give the table of the endless line."""
    rows = []
    for name in names_of(runs):
        mine = [run for run in runs if run["server"] == name]
        grown = [run["growth_megabytes"] for run in mine if run["growth_megabytes"] is not None]
        worst = f"{max(grown):.1f}" if grown else ""
        rows.append([name, max(run["megabytes_taken"] for run in mine), worst, mine[-1]["ended"]])
    columns = ("server", "MB taken", "peak RSS growth MB", "how it ended")
    return f"### endless: one line without an end\n\n{markdown(columns, rows)}\n"


def tables(runs: list[Run], skipped: dict[str, dict[str, list[str]]]) -> str:
    """Give all tables, and what was left out and why."""
    parts = []
    for key in dict.fromkeys(run["workload"] for run in runs):
        here = [run for run in runs if run["workload"] == key]
        special = {"idle": idle_table, "endless": endless_table}.get(key)
        parts.append(special(here) if special else throughput_table(key, here))
    for why, servers in skipped.items():
        whom = "; ".join(f"{name} ({', '.join(kinds)})" for name, kinds in servers.items())
        parts.append(f"Left out, {why}: {whom}.")
    return "\n".join(parts)


def plot(runs: list[Run], path: str) -> str:
    """Draw throughput, CPU and memory by workload; says what became of it."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra

        mpl.use("Agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415
    except ImportError:
        return "no plot: matplotlib is not installed (pip install 'twisted-ingest[bench]')"
    measured = [run for run in runs if run["workload"] in WORKLOADS]
    if not measured:
        return "no plot: no throughput was measured"
    figure, panels = plt.subplots(3, 1, figsize=(11, 11), layout="constrained")
    for panel, (key, title) in zip(panels, _PANELS.items(), strict=True):
        _bars(panel, measured, key, title)
    panels[0].legend(ncols=4, fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return f"plot: {path}"


_PANELS = {
    "megabytes_per_second": "throughput, MB/s, logarithmic (more is better)",
    "cpu_seconds_per_gigabyte": "CPU seconds per GB, logarithmic (less is better)",
    "peak_rss_megabytes": "peak resident memory, MB (less is better)",
}


def _bars(panel: Any, runs: list[Run], key: str, title: str) -> None:
    names, loads = names_of(runs), list(dict.fromkeys(run["workload"] for run in runs))
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        points = {
            at: median(mine, key)
            for at, load in enumerate(loads)
            if (mine := [run for run in runs if run["server"] == name and run["workload"] == load])
        }
        panel.bar([at - 0.4 + (place + 0.5) * width for at in points], list(points.values()), width, label=name)
    labels = [textwrap.fill(f"{load}: {WORKLOADS[load].title}", 26) for load in loads]
    panel.set_xticks(range(len(loads)), labels, fontsize=7)
    if key != "peak_rss_megabytes":
        panel.set_yscale("log")  # workloads are far apart
    panel.set_title(title)
    panel.grid(axis="y", alpha=0.3)
