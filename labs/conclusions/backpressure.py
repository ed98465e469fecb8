"""
What the figures of the back-pressure lab mean.
"""

from labs.measure import mib
from labs.report import Figures, Finding, Panel, Report, Table, finding
from twisted_ingest.limits import KIB, MIB

ALLOWANCE = 4 * MIB
"""Bytes a bounded process may grow beyond its bound: the allocator's, and code that runs for the first time."""

SAME_TIME = 0.9
"""Share of the contract's time from which bare writes count as no faster."""


def _outward_findings(figures: Figures) -> list[Finding]:
    bare, contract = figures["outward"]["bare"], figures["outward"]["contract"]
    joined = bare["growth"] > bare["queued_most"] + ALLOWANCE
    bound = contract["watermark"] + ALLOWANCE
    ratio = bare["seconds"] / contract["seconds"]
    return [
        finding(
            "bare writes pile up",
            bare["growth"] >= bare["total"] / 2,
            f"Out, without the contract: of {mib(bare['total'])} MiB written, {mib(bare['queued_most'])} MiB lay in "
            f"the sender's own buffer at once, and its resident memory grew by {mib(bare['growth'])} MiB. "
            "`transport.write` never refuses: it queues."
            + (
                " Before it sends, Twisted joins the queue into one piece: for a moment there are two."
                if joined
                else ""
            ),
            f"Not as expected: bare writes of {mib(bare['total'])} MiB grew the sender by {mib(bare['growth'])} MiB "
            "only.",
        ),
        finding(
            "the contract bounds memory",
            contract["growth"] < bound,
            f"With `registerProducer` the same transfer grew it by {mib(contract['growth'])} MiB: the producer was "
            f"paused {contract['pauses']:,} times, at {_size(contract['watermark'])}. It took "
            f"{contract['seconds']:.2f} s, bare writes {bare['seconds']:.2f} s: "
            + ("what was queued bought no time." if ratio > SAME_TIME else "here the queue did buy time."),
            f"Not as expected: with the contract the sender grew by {mib(contract['growth'])} MiB, more than its "
            f"watermark and {mib(ALLOWANCE)} MiB.",
        ),
    ]


def _where(figures: Figures) -> Finding:
    waiting, limited = figures["outward"]["bare"]["waiting"], figures["outward"]["bare"]["limited_us"]
    kernel = waiting["outq"] + waiting["inq"]
    slow = limited["rwnd_limited_us"] >= limited["sndbuf_limited_us"]
    who = "the receiver's window" if slow else "the sender's own buffer"
    return finding(
        "the kernel holds megabytes, the application the rest",
        waiting["queued"] > kernel,
        f"While the reader stood still, the kernel held {mib(waiting['outq'])} MiB for the sender (`SIOCOUTQ`) and "
        f"{mib(waiting['inq'])} MiB for the reader (`SIOCINQ`); everything else, {mib(waiting['queued'])} MiB, was "
        f"the application's. `TCP_INFO` names {who} as what the transfer waited for.",
        f"Not as expected: the kernel held {mib(kernel)} MiB, more than the application's {mib(waiting['queued'])} "
        "MiB.",
    )


def _inward_findings(figures: Figures) -> list[Finding]:
    kept, grown = figures["inward"]["budget"], figures["inward"]["none"]
    return [
        finding(
            "the budget bounds intake",
            kept["growth"] < kept["budget"] + ALLOWANCE and kept["received"] < kept["offered"],
            f"In, with a budget of {mib(kept['budget'])} MiB and a sink that takes nothing: the server read "
            f"{mib(kept['received'])} MiB, grew by {mib(kept['growth'])} MiB and paused {kept['paused']} "
            f"connections. {mib(kept['sender_queues'])} MiB waited in the senders' kernels, and "
            f"{mib(kept['offered'] - kept['taken_by_kernel'])} MiB with the senders themselves, who could see it.",
            f"Not as expected: with a budget of {mib(kept['budget'])} MiB the server grew by {mib(kept['growth'])} "
            "MiB.",
        ),
        finding(
            "without it everything is read",
            grown["growth"] >= grown["offered"] / 2,
            f"Without a budget that mattered it read all {mib(grown['received'])} MiB, paused nobody, and grew by "
            f"{mib(grown['growth'])} MiB: as long as the sink stands still, so it goes on.",
            f"Not as expected: without a budget the server grew by {mib(grown['growth'])} MiB only, for "
            f"{mib(grown['offered'])} MiB offered.",
        ),
    ]


def _watermark_finding(figures: Figures) -> Finding:
    runs = figures["watermarks"]
    low, high, best = runs[0], runs[-1], min(runs, key=lambda run: run["seconds"])
    return finding(
        "a high watermark costs memory",
        high["growth"] > low["growth"] and high["pauses"] < low["pauses"],
        f"A watermark of {_size(high['watermark'])} instead of {_size(low['watermark'])} meant {high['pauses']:,.0f} "
        f"pauses instead of {low['pauses']:,.0f}, and {mib(high['growth'])} MiB of memory instead of "
        f"{mib(low['growth'])}. The fastest was {_size(best['watermark'])} ({_speed(best)} MiB/s"
        + (
            "): fewer pauses did not make it faster, because what waits in a large buffer is copied again."
            if best is not high
            else f", against {_speed(low)} at {_size(low['watermark'])})."
        ),
        f"Not as expected: {_size(high['watermark'])} cost {mib(high['growth'])} MiB and {high['pauses']:,.0f} "
        f"pauses, {_size(low['watermark'])} {mib(low['growth'])} MiB and {low['pauses']:,.0f}.",
    )


def _buffers_finding(figures: Figures) -> Finding:
    asked = [row for row in figures["kernel_buffers"] if row["asked"]]
    doubled = [row for row in asked if row["received"] == 2 * row["asked"]]
    most = asked[-1]
    return finding(
        "the kernel doubles and caps",
        bool(doubled) and most["received"] < 2 * most["asked"],
        f"Asked for a receive buffer of {_size(doubled[0]['asked'] if doubled else 0)} the kernel says "
        f"{_size(2 * doubled[0]['asked'] if doubled else 0)}: it doubles, for its own bookkeeping. Asked for "
        f"{_size(most['asked'])} it says {_size(most['received'])}, twice `net.core.rmem_max`, without an error.",
        "Not as expected: the kernel took the sizes as they were asked for.",
    )


def _size(size: float) -> str:
    return f"{size / MIB:.4g} MiB" if size >= MIB else f"{size / KIB:.4g} KiB"


def _speed(run: Figures) -> str:
    return f"{run['total'] / MIB / run['seconds']:,.0f}"


def describe(figures: Figures) -> Report:
    """Make the report."""
    out, come = figures["outward"], figures["inward"]
    sides = {"without the contract": out["bare"], "with it": out["contract"]}
    flows = {"without a budget": come["none"], "with it": come["budget"]}
    findings = [
        *_outward_findings(figures),
        _where(figures),
        *_inward_findings(figures),
        _watermark_finding(figures),
        _buffers_finding(figures),
    ]
    return Report(findings, [*_flow_tables(sides, flows), *_setting_tables(figures)], _panels(figures, sides, flows))


def _flow_tables(sides: dict[str, Figures], flows: dict[str, Figures]) -> list[Table]:
    return [
        Table(
            "Out: a fast sender, a slow reader (MiB)",
            ["", "sent", "most queued", "memory grew by", "pauses", "seconds"],
            [
                [
                    name,
                    f"{mib(s['total'])}",
                    f"{mib(s['queued_most'])}",
                    f"{mib(s['growth'])}",
                    f"{s['pauses']:,}",
                    f"{s['seconds']:.2f}",
                ]
                for name, s in sides.items()
            ],
        ),
        Table(
            "Where the bytes were while the reader stood still (MiB)",
            ["", "sender's application", "sender's kernel", "of these not sent once", "reader's kernel"],
            [
                [name, *(f"{mib(s['waiting'][key])}" for key in ("queued", "outq", "unsent", "inq"))]
                for name, s in sides.items()
            ],
        ),
        Table(
            "In: a flood for our server, whose sink takes nothing (MiB)",
            ["", "offered", "read", "memory grew by", "in senders' kernels", "connections paused"],
            [
                [
                    name,
                    *(f"{mib(f[key])}" for key in ("offered", "received", "growth", "sender_queues")),
                    f"{f['paused']}",
                ]
                for name, f in flows.items()
            ],
        ),
    ]


def _setting_tables(figures: Figures) -> list[Table]:
    return [
        Table(
            "The watermark, with a reader at full speed",
            ["watermark", "MiB/s", "pauses", "most queued", "memory grew by"],
            [
                [_size(r["watermark"]), _speed(r), f"{r['pauses']:,.0f}", _size(r["queued_most"]), _size(r["growth"])]
                for r in figures["watermarks"]
            ],
            f"A piece is {_size(figures['piece'])}, so a lower watermark cannot queue less than one. Memory can "
            "grow by twice the watermark: Twisted joins the pieces into one before it sends.",
        ),
        Table(
            "What the kernel makes of a requested size",
            ["asked for", "SO_SNDBUF says", "SO_RCVBUF says"],
            [
                [_size(row["asked"]) if row["asked"] else "nothing", _size(row["sent"]), _size(row["received"])]
                for row in figures["kernel_buffers"]
            ],
            "Asked for nothing, the kernel tunes the size itself while the connection lives; a request ends that.",
        ),
    ]


def _panels(figures: Figures, sides: dict[str, Figures], flows: dict[str, Figures]) -> list[Panel]:
    seconds, size = "seconds", "MiB"
    marks = {"the reader begins": figures["stall_seconds"]}
    return [
        Panel(
            "Out: memory of the sender, above rest", seconds, size, {k: s["rss"] for k, s in sides.items()}, marks=marks
        ),
        Panel(
            "Out: where the sender's bytes wait",
            seconds,
            size,
            {
                f"{place}, {k}": s[key]
                for k, s in sides.items()
                for place, key in (("application", "queued"), ("kernel", "kernel"))
            },
            marks=marks,
        ),
        Panel(
            "In: memory of the server, above rest, sink stalled", seconds, size, {k: f["rss"] for k, f in flows.items()}
        ),
        Panel(
            "The watermark: memory it costs, and what that buys",
            size,
            "",
            bars={
                f"{_size(r['watermark'])}\n{_speed(r)} MiB/s, {r['pauses']:,.0f} pauses": mib(r["growth"])
                for r in figures["watermarks"]
            },
        ),
    ]
