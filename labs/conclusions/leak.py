"""
What the figures of the replayed leak mean.
"""

from labs.measure import mib
from labs.report import Figures, Finding, Panel, Report, Table, finding
from twisted_ingest.limits import MIB

BEFORE, OURS = "before its fixes", "ours"
ENDLESS, AGAIN, HANGING = "an endless line", "reconnects", "hanging connections"

BUDGET = 8 * MIB
"""Bytes of our server's budget in this lab."""

ALLOWANCE = 4 * MIB
"""Bytes beyond it: connections themselves, the allocator, code that runs for the first time."""


def _grew(figures: Figures, who: str, abuse: str) -> float:
    """Give what one abuse added to what was there before it, at its worst."""
    growth = figures["receivers"][who]["growth"]
    names = list(growth)
    before = names[names.index(abuse) - 1] if names.index(abuse) else None
    return float(growth[abuse]["most"] - (growth[before]["kept"] if before else 0))


def _abuse_findings(figures: Figures) -> list[Finding]:
    many = figures["connections"] * figures["half"]
    limit = BUDGET + ALLOWANCE
    causes = {
        ENDLESS: (
            figures["size"],
            "No limit: one line without an end",
            "cut it at `max_length` and read on without keeping it",
        ),
        AGAIN: (
            many,
            "No tracking: half a line from each client that came and went",
            "let go of each with its connection",
        ),
        HANGING: (
            many,
            "No timeout: half a line from each client that stayed",
            "ended them and kept within its budget",
        ),
    }
    found = []
    for abuse, (size, cause, answer) in causes.items():
        theirs, ours = _grew(figures, BEFORE, abuse), _grew(figures, OURS, abuse)
        found.append(
            finding(
                abuse,
                theirs >= size / 2 and ours < limit,
                f"{cause}, {mib(size):g} MiB in all, and the receiver grew by {mib(theirs):g} MiB. Ours {answer}, "
                f"and grew by {mib(max(ours, 0)):g} MiB.",
                f"Not as expected: {abuse} of {mib(size):g} MiB grew the old receiver by {mib(theirs):g} MiB, ours "
                f"by {mib(ours):g} MiB.",
            )
        )
    return found


def _end_findings(figures: Figures) -> list[Finding]:
    before, ours = (figures["receivers"][who] for who in (BEFORE, OURS))
    return [
        finding(
            "hanging connections are ended",
            ours["hanging_left"] == 0 and before["hanging_left"] == figures["connections"],
            f"Of {figures['connections']} hanging connections it still had {before['hanging_left']} when the "
            f"clients gave up; ours had {ours['hanging_left']}, {figures['timeout']:g} s and a sweep after they "
            "fell silent.",
            f"Not as expected: {before['hanging_left']} hanging connections were left at the old receiver, "
            f"{ours['hanging_left']} at ours.",
        ),
        finding(
            "nothing is left behind",
            ours["left"] < BUDGET + ALLOWANCE < before["left"],
            f"When everybody had gone, it held {mib(before['left']):g} MiB more than at rest, for nobody, and would "
            f"hold them until its end. Ours held {mib(ours['left']):g} MiB more: what the allocator keeps for the "
            "next one.",
            f"Not as expected: in the end the old receiver held {mib(before['left']):g} MiB, ours "
            f"{mib(ours['left']):g} MiB.",
        ),
    ]


def describe(figures: Figures) -> Report:
    """Make the report."""
    receivers = figures["receivers"]
    rows = [
        [abuse, *(f"{mib(max(0.0, _grew(figures, who, abuse))):g}" for who in (BEFORE, OURS))]
        for abuse in (ENDLESS, AGAIN, HANGING)
    ]
    rows.append(["held when everybody had gone", *(f"{mib(receivers[who]['left']):g}" for who in (BEFORE, OURS))])
    note = "Grown since the abuse before it, at its worst."
    table = Table("Memory above rest (MiB)", ["abuse", BEFORE, OURS], rows, note)
    panels = [
        _panel(figures, f"{title}: {who}", who, key, unit)
        for title, key, unit in (("Memory above rest", "rss", "MiB"), ("Connections", "connections", "established"))
        for who in (BEFORE, OURS)
    ]
    return Report([*_abuse_findings(figures), *_end_findings(figures)], [table], panels)


def _panel(figures: Figures, title: str, who: str, key: str, unit: str) -> Panel:
    """Draw one receiver, on the scale of both."""
    receivers = figures["receivers"]
    top = 1.05 * max(y for run in receivers.values() for _, y in run[key])
    return Panel(title, "seconds", unit, {who: receivers[who][key]}, marks=receivers[who]["marks"], top=top)
