"""
Run labs: ``python -m labs NAME…``, or ``all``.

Exit status: 0, or 1 when a finding did not hold, 69 when none of the labs can run on this machine, 130 after Ctrl-C.
"""

import argparse
import json
import os
import signal
import sys
from typing import Any

from labs import backpressure, halfopen, leak, lifecycle, nagle
from labs.report import Lab, save
from labs.running import ROOT, CannotRunError, LabError
from labs.showing import EXTRA, draw, page, show, telling

LABS: dict[str, Lab] = {module.LAB.name: module.LAB for module in (backpressure, halfopen, nagle, lifecycle, leak)}
RESULTS = os.path.join(ROOT, "labs", "results")

EX_UNAVAILABLE = 69
INTERRUPTED = 130


def options(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m labs", description="See what TCP really does.")
    about = "; ".join(f"{lab.name}: {lab.title}" for lab in LABS.values())
    parser.add_argument("names", nargs="+", metavar="NAME", choices=[*LABS, "all"], help=f"all, or: {about}")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work")
    parser.add_argument("--into", default=RESULTS, metavar="FOLDER", help="for pictures and figures (labs/results)")
    parser.add_argument("--page", action="store_true", help="build README.md there from all figures in the folder")
    return parser.parse_args(arguments)


def run(lab: Lab, folder: str, *, quick: bool) -> bool:
    """Carry one lab out, show and keep what it found; true when every finding held."""
    with telling() as tell:
        figures = lab.measure(tell=tell, **(lab.quick if quick else lab.full))
    report = lab.describe(figures)
    show(lab, report)
    kept = [save(folder, lab, figures, report)]
    picture = os.path.join(folder, f"{lab.name}.png")
    try:
        draw(lab, report, picture)
        kept.append(picture)
    except ImportError:
        print(f"no picture: matplotlib is not installed ({EXTRA})", file=sys.stderr)
    print(f"kept: {', '.join(kept)}\n")
    return all(item.holds for item in report.findings)


def build_page(folder: str) -> None:
    """Write README.md from the figures that lie in a folder."""
    sections: list[Any] = []
    for lab in LABS.values():
        path = os.path.join(folder, f"{lab.name}.json")
        if os.path.exists(path):
            with open(path) as stream:
                document = json.load(stream)
            sections.append((lab, lab.describe(document["figures"]), document["machine"]))
    with open(os.path.join(folder, "README.md"), "w") as stream:
        stream.write(page(sections))


def main(arguments: list[str]) -> int:
    """Run what was asked for, one after the other."""
    chosen = options(arguments)
    names = list(LABS) if "all" in chosen.names else chosen.names
    outcomes = []
    for name in names:
        try:
            outcomes.append(run(LABS[name], chosen.into, quick=chosen.quick))
        except CannotRunError as reason:
            print(f"{name} skipped: {reason}\n", file=sys.stderr)
    if chosen.page:
        build_page(chosen.into)
    if not outcomes:
        return EX_UNAVAILABLE
    return 0 if all(outcomes) else 1


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # A supervisor's stop is as orderly as Ctrl-C: children end with the `with` blocks that hold them.
    signal.signal(signal.SIGTERM, _stop)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nstopped; every child has ended", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except LabError as failure:
        sys.exit(f"the lab failed: {failure}")
