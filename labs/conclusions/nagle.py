"""
What the figures of the Nagle lab mean.
"""

from labs.report import Figures, Finding, Panel, Report, Table, finding

NAGLE, NO_DELAY, CORK, COALESCED = "default (Nagle)", "no delay", "cork", "coalesced"
DELAYED, QUICK = "delayed acks", "quick acks"
KINDS = {
    "burst": "as fast as they can be written",
    "paced": "one at a time",
    "answered": "one at a time, every tenth answered",
}

STALL_MS = 20.0
"""Milliseconds from which a delay is a delayed acknowledgement: Linux waits 40 ms, half of it for a message on "
"average."""

PROMPT_MS = 5.0
"""Milliseconds up to which a message counts as sent at once: a busy machine's scheduling."""


def _run(figures: Figures, kind: str, way: str, acks: str = DELAYED) -> Figures:
    found: Figures = figures["streams"][kind][way][acks]
    return found


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms" if value >= 0.1 else f"{value * 1000:.0f} µs"


def _delay_findings(figures: Figures) -> list[Finding]:
    held, quick = (_run(figures, "answered", NAGLE, acks) for acks in (DELAYED, QUICK))
    free = _run(figures, "answered", NO_DELAY)
    alone = _run(figures, "paced", NAGLE)
    return [
        finding(
            "Nagle and delayed acks hold messages back",
            held["p99_ms"] > STALL_MS > PROMPT_MS > free["median_ms"] and quick["median_ms"] < PROMPT_MS,
            "The trouble is two delays that wait for each other. Where answers come back, the receiver's kernel "
            "hopes to send its acknowledgement along with one, and Nagle's algorithm holds every small message "
            f"until that comes: median {_ms(held['median_ms'])}, p99 {_ms(held['p99_ms'])}. With either of the two "
            f"off it is {_ms(free['median_ms'])} (no delay) and {_ms(quick['median_ms'])} (quick acks).",
            f"Not as expected: with Nagle and delayed acks p99 was {_ms(held['p99_ms'])}, with no delay the median "
            f"{_ms(free['median_ms'])}, with quick acks {_ms(quick['median_ms'])}.",
        ),
        finding(
            "without answers Nagle costs nothing here",
            alone["median_ms"] < PROMPT_MS,
            f"Where nothing comes back, the same sender's median is {_ms(alone['median_ms'])}: Linux acknowledges "
            "at once when a one-way receiver has read everything. Over a longer way each message would wait for "
            "one round trip.",
            f"Not as expected: on a one-way connection Nagle's median is {_ms(alone['median_ms'])}.",
        ),
    ]


def _question_finding(figures: Figures) -> Finding:
    asked = figures["questions"]
    slow, free, joined = (asked[way][DELAYED]["median_ms"] for way in (NAGLE, NO_DELAY, COALESCED))
    return finding(
        "write, write, read is the classic",
        slow > STALL_MS > PROMPT_MS > max(free, joined),
        f"A question of two writes took {_ms(slow)}: the second write waits for the acknowledgement of the first. "
        f"As one write it took {_ms(joined)}, without delay {_ms(free)}.",
        f"Not as expected: a question of two writes took {_ms(slow)}, as one write {_ms(joined)}, without delay "
        f"{_ms(free)}.",
    )


def _packet_findings(figures: Figures) -> list[Finding]:
    sent = figures["messages"]
    paced = {way: _run(figures, "paced", way) for way in (NO_DELAY, CORK, COALESCED)}
    free, cork, joined = (paced[way]["data_segs_out"] for way in (NO_DELAY, CORK, COALESCED))
    burst = {way: _run(figures, "burst", way)["data_segs_out"] for way in (NAGLE, NO_DELAY, COALESCED)}
    joining = " (the kernel joins what it could not send yet)" if burst[NO_DELAY] < sent / 2 else ""
    return [
        finding(
            "no delay costs a packet a message",
            joined < free / 1.5,
            f"No delay pays with packets: {free:,} for {sent:,} messages. Gathering for at most 2 ms and writing at "
            f"once, as our sinks do, made {joined:,} of them, and 99 of 100 messages took at most "
            f"{_ms(paced[COALESCED]['p99_ms'])}.",
            f"Not as expected: no delay sent {free:,} packets for {sent:,} messages, coalescing {joined:,}.",
        ),
        finding(
            "a cork is for what is pulled",
            cork < joined and paced[CORK]["p99_ms"] > STALL_MS,
            f"A cork that nobody pulls sends the fewest, {cork:,}, and the latest: p99 "
            f"{_ms(paced[CORK]['p99_ms'])}, when the kernel pulls it. It is for a sender that knows where its "
            "message ends.",
            f"Not as expected: a cork sent {cork:,} packets, p99 {_ms(paced[CORK]['p99_ms'])}.",
        ),
        finding(
            "one write beats every option",
            burst[COALESCED] <= min(burst[NAGLE], burst[NO_DELAY]),
            f"Of a burst, Nagle made {burst[NAGLE]:,} packets, no delay {burst[NO_DELAY]:,}{joining}, one `writev` "
            f"{burst[COALESCED]:,}. So: no delay for whoever waits for answers, with the writes joined in the "
            "application; Nagle only for a program that writes in crumbs and cannot be changed.",
            f"Not as expected: of a burst one `writev` made {burst[COALESCED]:,} packets, Nagle {burst[NAGLE]:,}, "
            f"no delay {burst[NO_DELAY]:,}.",
        ),
    ]


def describe(figures: Figures) -> Report:
    """Make the report."""
    findings = [*_delay_findings(figures), _question_finding(figures), *_packet_findings(figures)]
    tables = [_stream_table(figures, kind) for kind in KINDS]
    tables.append(
        Table(
            "Questions of two writes, each waiting for its answer",
            ["way", *(f"median, {acks}" for acks in (DELAYED, QUICK))],
            [
                [way, *(_ms(by[acks]["median_ms"]) for acks in (DELAYED, QUICK))]
                for way, by in figures["questions"].items()
            ],
        )
    )
    return Report(findings, tables, _panels(figures))


def _stream_table(figures: Figures, kind: str) -> Table:
    rows = [
        [
            way,
            acks,
            f"{r['data_segs_out']:,}",
            f"{r['segs_in']:,}",
            *(_ms(r[key]) for key in ("median_ms", "p99_ms", "most_ms")),
            f"{r['seconds'] * 1000:,.0f} ms",
        ]
        for way, by in figures["streams"][kind].items()
        for acks, r in by.items()
    ]
    return Table(
        f"{figures['messages']:,} messages, {KINDS[kind]}",
        ["way", "receiver", "packets with data", "packets back", "median", "p99", "longest", "in all"],
        rows,
    )


def _panels(figures: Figures) -> list[Panel]:
    percent = list(range(1, 100))
    panels = [
        Panel(
            f"How long a message takes: {KINDS[kind]} ({acks})",
            "percent of messages that took no longer",
            "milliseconds, logarithmic",
            {
                way: [[float(p), ms] for p, ms in zip(percent, by[acks]["percentiles_ms"], strict=True)]
                for way, by in figures["streams"][kind].items()
            },
            logarithmic=True,
        )
        for kind, acks in (("answered", DELAYED), ("answered", QUICK), ("paced", DELAYED))
    ]
    packets = {way: float(by[DELAYED]["data_segs_out"]) for way, by in figures["streams"]["paced"].items()}
    packets |= {f"{way}, burst": float(by[DELAYED]["data_segs_out"]) for way, by in figures["streams"]["burst"].items()}
    title = f"Packets for {figures['messages']:,} messages: one at a time, and in a burst"
    return [*panels, Panel(title, "packets with data", "", bars=packets)]
