"""The plot of a soak."""

import json
import pathlib
import sys
from collections.abc import Sequence
from itertools import pairwise

from soak.samples import MIB, Sample, from_columns


def draw(samples: Sequence[Sample], path: str) -> str:
    """Draw what was sampled; says what became of it."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra

        mpl.use("Agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415
    except ImportError:
        return "no plot: matplotlib is not installed (pip install 'twisted-ingest[bench]')"
    minutes = [sample.seconds / 60 for sample in samples]
    rates = [0.0] + [
        (after.records - before.records) / max(0.1, after.seconds - before.seconds)
        for before, after in pairwise(samples)
    ]
    panels = {
        "memory, MiB": {
            "resident": [sample.rss / MIB for sample in samples],
            "used of the budget": [sample.budget_used / MIB for sample in samples],
        },
        "open descriptors and connections": {
            "descriptors": [float(sample.descriptors) for sample in samples],
            "connections": [sample.connections for sample in samples],
        },
        "connections paused": {"": [sample.paused for sample in samples]},
        "records a second": {"": rates},
        "conservation error": {"": [sample.conservation_error for sample in samples]},
    }
    figure, places = plt.subplots(len(panels), 1, figsize=(10, 11), sharex=True, layout="constrained")
    for place, (title, lines) in zip(places, panels.items(), strict=True):
        for name, line in lines.items():
            place.plot(minutes, line, linewidth=0.8, label=name)
        place.set_title(title, fontsize=9)
        # A line that is 0 throughout must not lie on the frame.
        place.set_ylim(bottom=0 if any(map(any, lines.values())) else None)
        place.grid(alpha=0.3)
        if len(lines) > 1:
            # Beside the title, where it covers nothing.
            place.legend(
                loc="lower right", bbox_to_anchor=(1, 1), ncols=len(lines), frameon=False, borderaxespad=0, fontsize=8
            )
    places[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return f"plot: {path}"


if __name__ == "__main__":
    # Anew from the figures of an earlier soak: python -m soak.plot docs/img/soak.json
    report = pathlib.Path(sys.argv[1])
    columns = json.loads(report.read_text())["samples"]
    print(draw(from_columns(columns), str(report.with_suffix(".png"))))
