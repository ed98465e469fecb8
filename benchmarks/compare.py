"""
Run our server and others under the same loads, verify every line, and compare.

    python benchmarks/compare.py [--quick] [--workloads a,b] [--servers ours,rsyslog] [--rounds 3]

benchmarks/README.md says what the workloads are and how to read the tables.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, NoReturn

import workloads
from report import Run, plot, tables
from servers import LIMITS, SERVERS, UnavailableError
from tools import Tools, prepare
from workloads import MEGABYTE, Scale

RESULTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results")
KINDS = (*workloads.WORKLOADS, "idle", "endless")
FULL = Scale(400, 5000, 5.0, 10.0, 2000, 120)
QUICK = Scale(8, 200, 0.6, 0.4, 64, 30)


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare line receivers under the same loads.")
    parser.add_argument("--workloads", default=",".join(KINDS), help="some of %(default)s")
    parser.add_argument("--servers", default=",".join(SERVERS), help="some of %(default)s")
    parser.add_argument("--rounds", type=int, help="(3; quick: 1)")
    parser.add_argument("--megabytes", type=int, help=f"of lines in a run ({FULL.megabytes}; quick: {QUICK.megabytes})")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work, not how fast is it")
    parser.add_argument("--no-compiler", action="store_true", help="as on a machine without one")
    parser.add_argument("--place", help="folder that servers write to (in memory, where there is room)")
    parser.add_argument("--results", default=RESULTS, help="folder for compare.json and compare.png")
    chosen = parser.parse_args()
    for given, known in ((chosen.workloads, KINDS), (chosen.servers, SERVERS)):
        if unknown := set(given.split(",")) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return chosen


def scale_of(chosen: argparse.Namespace) -> Scale:
    """Give the sizes that were asked for."""
    scale = QUICK if chosen.quick else FULL
    if chosen.megabytes:
        return Scale(**{**vars(scale), "megabytes": chosen.megabytes})
    return scale


def output_place(scale: Scale) -> str:
    """Choose where servers write: in memory where that has room, so that no disk is measured."""
    needed = 3 * MEGABYTE * max(scale.megabytes, scale.endless_megabytes)
    memory = "/dev/shm"  # noqa: S108 - a folder of our own is made in it
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > needed:
        print(f"servers write to {memory}: this is memory, no disk is measured")
        return memory
    place = tempfile.gettempdir()
    print(f"servers write to {place}, for want of room in {memory}: its disk is part of what is measured")
    return place


def run_one(name: str, kind: str, scale: Scale, tools: Tools, place: str) -> Run:
    """Run one server under one workload."""
    if kind == "idle":
        return workloads.idle(name, scale, tools, place)
    if kind == "endless":
        return workloads.endless(name, scale, tools, place)
    return workloads.throughput(name, kind, scale, tools, place)


class Comparison:
    """The runs so far."""

    def __init__(self, scale: Scale, tools: Tools, place: str) -> None:
        self.scale, self.tools, self.place = scale, tools, place
        self.runs: list[Run] = []
        self.skipped: dict[str, dict[str, list[str]]] = {}
        self._unable: set[tuple[str, str]] = set()

    def round(self, number: int, kinds: list[str], names: list[str]) -> None:
        """Run every server under every workload once; each round begins with another server."""
        for kind in kinds:
            turned = [*names[number % len(names) :], *names[: number % len(names)]]
            for name in turned:
                if (name, kind) not in self._unable and not (name in LIMITS and kind == "endless"):
                    self._add(number, kind, name)

    def _add(self, number: int, kind: str, name: str) -> None:
        try:
            figures = run_one(name, kind, self.scale, self.tools, self.place)
        except (UnavailableError, RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            self._unable.add((name, kind))
            self.skipped.setdefault(str(error), {}).setdefault(name, []).append(kind)
            return
        self.runs.append({"round": number, "workload": kind, "server": name, **figures})
        shown = figures.get("megabytes_per_second")
        print(f"round {number + 1}, {kind}, {name}" + (f": {shown:,.0f} MB/s" if shown else ""), file=sys.stderr)


def save(comparison: Comparison, folder: str) -> str:
    """Write what was measured, and say on what."""
    path = os.path.join(folder, "compare.json")
    machine: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "tools": comparison.tools.note,
        "scale": vars(comparison.scale),
    }
    with open(path, "w", encoding="utf-8") as stream:
        json.dump({"machine": machine, "runs": comparison.runs, "left_out": comparison.skipped}, stream, indent=1)
    return path


def losses(runs: list[Run]) -> list[str]:
    """Name the runs of our server in which a line was not exactly as sent."""
    words = ("missing", "doubled", "torn", "reordered")
    return [
        f"{run['server']}, {run['workload']}: " + ", ".join(f"{run[word]} {word}" for word in words)
        for run in runs
        if run["server"].startswith("ours") and any(run.get(word) for word in words)
    ]


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Compare; the exit status is 1 when our server lost, doubled, tore or reordered a line."""
    chosen = options()
    signal.signal(signal.SIGTERM, _interrupt)
    scale = scale_of(chosen)
    with tempfile.TemporaryDirectory(prefix="ingest-bench-") as folder:
        tools = prepare(folder, compile_them=not chosen.no_compiler)
        print(tools.note)
        comparison = Comparison(scale, tools, chosen.place or output_place(scale))
        interrupted = False
        try:
            for number in range(chosen.rounds or (1 if chosen.quick else 3)):
                comparison.round(number, chosen.workloads.split(","), chosen.servers.split(","))
        except KeyboardInterrupt:
            interrupted = True
            print("interrupted: what follows is what there was until then")
    if interrupted and not comparison.runs:
        return 130
    print(f"\n{tables(comparison.runs, comparison.skipped)}\n")
    os.makedirs(chosen.results, exist_ok=True)
    print(plot(comparison.runs, os.path.join(chosen.results, "compare.png")))
    print(f"figures: {save(comparison, chosen.results)}")
    for loss in losses(comparison.runs):
        print(f"LOSS: {loss}")
    return 130 if interrupted else int(bool(losses(comparison.runs)))


if __name__ == "__main__":
    raise SystemExit(main())
