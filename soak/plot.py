"""The plot of a soak."""

from collections.abc import Sequence
from itertools import pairwise

from soak.samples import MIB, Sample


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
        "resident memory and budget used, MiB": (
            [sample.rss / MIB for sample in samples],
            [sample.budget_used / MIB for sample in samples],
        ),
        "descriptors and connections": (
            [float(sample.descriptors) for sample in samples],
            [sample.connections for sample in samples],
        ),
        "connections paused": ([sample.paused for sample in samples],),
        "records a second": (rates,),
        "conservation error": ([sample.conservation_error for sample in samples],),
    }
    figure, places = plt.subplots(len(panels), 1, figsize=(10, 11), sharex=True, layout="constrained")
    for place, (title, lines) in zip(places, panels.items(), strict=True):
        for line in lines:
            place.plot(minutes, line, linewidth=0.8)
        place.set_title(title, fontsize=9)
        place.set_ylim(bottom=0)
        place.grid(alpha=0.3)
    places[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return f"plot: {path}"
