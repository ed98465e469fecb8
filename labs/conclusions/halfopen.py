"""
What the figures of the half-open lab mean, and what the rules behind them give for settings nobody waits for.
"""

import math
from typing import Any

from labs.report import Figures, Finding, Panel, Report, Table, finding
from twisted_ingest.limits import (
    FRAME_TIMEOUT,
    IDLE_TIMEOUT,
    KEEPALIVE_COUNT,
    KEEPALIVE_IDLE,
    KEEPALIVE_INTERVAL,
    SWEEP_SECONDS,
    USER_TIMEOUT_MS,
)

LATE = 1.5
"""Seconds beyond its rule that a case may take: timers, and a machine that is busy."""

KERNEL_KEEPALIVE = (7200, 75, 9)
"""Seconds, seconds, probes: Linux's defaults where keepalive is switched on and nothing else is set (tcp(7))."""

KERNEL_RETRIES = 15
"""Linux's default ``tcp_retries2``."""

FIRST_RTO, LONGEST_RTO = 0.2, 120.0
"""Seconds between a segment and its first repetition at least, and between two repetitions at most."""


def keepalive_seconds(idle: float, interval: float, count: int) -> float:
    """Give the silence after which the kernel gives a peer up."""
    return idle + interval * count


def retries_seconds(retries: int) -> float:
    """Give the time for which the kernel repeats a segment at least: each wait twice the last, up to a longest one."""
    return sum(min(FIRST_RTO * float(1 << number), LONGEST_RTO) for number in range(retries + 1))


def rule(settings: dict[str, Any], retries: int) -> float | None:
    """
    Give the seconds after which a case's settings say that the server knows; ``None``: never.

    A stopped process is not gone for the kernel, whose answers only an application's timer can tell from life.
    """
    if settings.get("fate") == "killed":
        return 0.0
    by: list[float] = [settings[key] for key in ("idle", "frame") if key in settings]
    if settings.get("fate") != "stopped":
        user = settings.get("user_timeout")
        if "keepalive" in settings:
            by.append(user or keepalive_seconds(*settings["keepalive"]))
        if settings.get("write"):
            by.append(user or retries_seconds(retries))
    return min(by, default=None)


def agrees(settings: dict[str, Any], seconds: float | None, retries: int) -> bool:
    """Whether what was measured is what the settings say."""
    expected = rule(settings, retries)
    if seconds is None or expected is None:
        return seconds is expected
    # A timer that runs from the peer's last byte began a moment before the wire was cut. A repeated segment is
    # given up when the next one would be due, and the waits double.
    slack = SWEEP_SECONDS if "frame" in settings else 2 * expected + SWEEP_SECONDS if settings.get("write") else 0.0
    return expected - LATE <= seconds <= expected + slack + LATE


def _known(figures: Figures, name: str) -> float | None:
    seconds: float | None = figures["results"][name]["seconds"]
    return seconds


def _such(figures: Figures, **wanted: bool) -> list[str]:
    """Find the cases that have exactly the settings named true, among the vanished ones."""
    return [
        name for name, case in figures["cases"].items() if set(case) - {"sends"} == {k for k, v in wanted.items() if v}
    ]


def _times(figures: Figures, names: list[str]) -> str:
    return ", ".join(f"{_seconds(_known(figures, name))} ({name})" for name in names)


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds * 1000:.0f} ms" if seconds < 0.1 else f"{seconds:.1f} s"


def _silent_findings(figures: Figures) -> list[Finding]:
    nothing = _such(figures)[0]
    watched = figures["watched"]
    killed = next(name for name, case in figures["cases"].items() if case.get("fate") == "killed")
    return [
        finding(
            "without any setting nobody notices",
            _known(figures, nothing) is None,
            f"With nothing set the server had not noticed when the lab ended, after {watched:.0f} s, and never "
            "would have: a TCP connection without traffic needs no peer. It keeps its descriptor and its place "
            "under the cap on connections.",
            f"Not as expected: with nothing set the server knew after {_seconds(_known(figures, nothing))}.",
        ),
        finding(
            "a killed process is another matter",
            (_known(figures, killed) or 0.0) < LATE and figures["results"][killed]["reason"] is not None,
            "A process that is killed is no half-open connection: its kernel closes for it, and the server knew "
            f"after {_seconds(_known(figures, killed))}. Only a host that is gone says nothing.",
            f"Not as expected: of a killed process the server knew after {_seconds(_known(figures, killed))}.",
        ),
    ]


def _timer_findings(figures: Figures) -> list[Finding]:
    cases = figures["cases"]
    keepalive = _such(figures, keepalive=True)
    own = [name for name, case in cases.items() if ("idle" in case or "frame" in case) and "fate" not in case]
    kept = all(agrees(cases[n], _known(figures, n), figures["retries"]) for n in keepalive)
    timed = all(agrees(cases[n], _known(figures, n), figures["retries"]) for n in own)
    stopped = [name for name, case in cases.items() if case.get("fate") == "stopped" and "keepalive" in case]
    return [
        finding(
            "keepalive takes idle time and probes",
            kept,
            f"Keepalive took its idle time and one interval for each probe: {_times(figures, keepalive)}.",
            f"Not as expected: keepalive took {_times(figures, keepalive)}.",
        ),
        finding(
            "the server's own timers need no kernel",
            timed,
            f"The server's own timers ended it as set, the frame deadline up to {SWEEP_SECONDS:g} s later (that is "
            f"how often it is looked at): {_times(figures, own)}.",
            f"Not as expected: the server's own timers took {_times(figures, own)}.",
        ),
        finding(
            "keepalive says nothing about the process",
            all(_known(figures, name) is None for name in stopped),
            "A stopped process answers keepalive for ever: its kernel does. Keepalive asks whether the host is "
            "there, an idle timer whether anybody sends.",
            f"Not as expected: a stopped process was given up by keepalive: {_times(figures, stopped)}.",
        ),
    ]


def _write_findings(figures: Figures) -> list[Finding]:
    alone, bounded = _such(figures, write=True)[0], _such(figures, write=True, user_timeout=True)[0]
    idle = _such(figures, user_timeout=True)[0]
    retries, cases = figures["retries"], figures["cases"]
    least = retries_seconds(retries)
    return [
        finding(
            "a write waits for retransmission",
            agrees(cases[alone], _known(figures, alone), retries),
            f"A write succeeds at once, into the kernel. The error came after {_seconds(_known(figures, alone))}, "
            f"with `tcp_retries2` at {retries} (by the rule {least:.1f} s, and on until the next repetition is "
            f"due). At Linux's default of {KERNEL_RETRIES} the same rule gives "
            f"{retries_seconds(KERNEL_RETRIES) / 60:.1f} minutes (computed).",
            f"Not as expected: a write failed after {_seconds(_known(figures, alone))}, where the rule says "
            f"{least:.1f} s.",
        ),
        finding(
            "TCP_USER_TIMEOUT bounds a write, and nothing else",
            (_known(figures, bounded) or math.inf) < (_known(figures, alone) or math.inf)
            and _known(figures, idle) is None,
            f"`TCP_USER_TIMEOUT` brought that down to {_seconds(_known(figures, bounded))}. Without something to "
            "send or keepalive it does nothing at all.",
            f"Not as expected: with `TCP_USER_TIMEOUT` a write failed after {_seconds(_known(figures, bounded))}, "
            f"and silence ended after {_seconds(_known(figures, idle))}.",
        ),
    ]


def computed() -> dict[str, float | None]:
    """Give what the same rules make of settings that a lab cannot wait for, in seconds."""
    return {
        "nothing set": None,
        "Linux's keepalive as it comes (7200 s + 9 × 75 s)": keepalive_seconds(*KERNEL_KEEPALIVE),
        f"a write, tcp_retries2 = {KERNEL_RETRIES} (at least)": retries_seconds(KERNEL_RETRIES),
        f"our keepalive ({KEEPALIVE_IDLE} s + {KEEPALIVE_COUNT} × {KEEPALIVE_INTERVAL} s)": float(
            keepalive_seconds(KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT)
        ),
        "a write, our TCP_USER_TIMEOUT": USER_TIMEOUT_MS / 1000,
        "our idle timer, until the first record": IDLE_TIMEOUT,
        "our frame deadline, half a record sent": FRAME_TIMEOUT,
    }


def describe(figures: Figures) -> Report:
    """Make the report."""
    results, cases = figures["results"], figures["cases"]
    expected = {name: rule(case, figures["retries"]) for name, case in cases.items()}
    measured = Table(
        "Measured",
        ["case", "the server knew after", "by the rule", "what it took it for"],
        [
            [name, _seconds(result["seconds"]), _seconds(expected[name]), result["reason"] or "alive"]
            for name, result in results.items()
        ],
        f'"Never" is: not while the lab watched, {figures["watched"]:.0f} s. A write is given up when its next '
        "repetition is due, so later than the rule's least time.",
    )
    known = {name: seconds for name, seconds in computed().items() if seconds is not None}
    defaults = Table(
        "Computed by the same rules, not measured",
        ["setting", "the server knows after"],
        [[name, "never" if seconds is None else f"{seconds:,.0f} s"] for name, seconds in computed().items()],
    )
    findings = [*_silent_findings(figures), *_timer_findings(figures), *_write_findings(figures)]
    return Report(
        findings,
        [measured, defaults],
        [
            _bars(figures),
            _believed(figures),
            Panel("Computed, not measured: real settings", "seconds, logarithmic", "", bars=known, logarithmic=True),
        ],
    )


def _bars(figures: Figures) -> Panel:
    watched, results = figures["watched"], figures["results"]
    bars = {name: round(result["seconds"] or watched, 3) for name, result in results.items()}
    never = frozenset(name for name, result in results.items() if result["seconds"] is None)
    return Panel(
        "Measured: until the server knows", f"seconds (watched for {watched:.0f})", "", bars=bars, endless=never
    )


def _believed(figures: Figures) -> Panel:
    """Draw how many connections the server counted as alive, against how many were."""
    ends = sorted(r["seconds"] for r in figures["results"].values() if r["seconds"] is not None)
    total, watched = len(figures["results"]), figures["watched"]
    believed = [[0.0, total], *([end, total - gone] for gone, end in enumerate(ends, 1)), [watched, total - len(ends)]]
    lines = {"the server's count": believed, "clients that still send": [[0.0, 0], [watched, 0]]}
    return Panel("Connections after the cut", "seconds", "connections", lines, steps=True)
