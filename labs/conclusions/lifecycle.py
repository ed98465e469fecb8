"""
What the figures of the lifecycle lab mean.
"""

from labs.report import Figures, Finding, Panel, Report, Table, finding

TIME_WAIT_SECONDS = 60
"""How long Linux keeps a closed connection's port from being used again (``TCP_TIMEWAIT_LEN``)."""

SLACK = 4
"""Descriptors, or sockets, by which a server that forgets nothing may differ from before: those of the moment."""

SERVERS = {
    "graceful": "closes in good order",
    "forceful": "resets",
    "forgetful": "pauses and forgets",
    "ours": "ours",
}


def _left(figures: Figures, kind: str, state: str) -> int:
    return int(figures["visits"][kind]["left"].get(state, 0))


def _visit_findings(figures: Figures) -> list[Finding]:
    runs = figures["visits"]
    leak, ours, graceful = runs["forgetful"], runs["ours"], runs["graceful"]
    harmed = leak["clients"] - leak["seen"].get("nothing", 0)
    waiting = _left(figures, "graceful", "server TIME_WAIT")
    theirs, at_us = _left(figures, "ours", "client TIME_WAIT"), _left(figures, "ours", "server TIME_WAIT")
    lost = runs["forceful"]["seen"].get("reset", 0)
    return [
        finding(
            "a forgotten connection is never given back",
            leak["most_descriptors"] >= leak["limit"] - SLACK and _left(figures, "forgetful", "server CLOSE_WAIT") > 0,
            f"A server that forgets its connections kept {leak['descriptors_left']:.0f} descriptors, its limit of "
            f"{leak['limit']}, for clients that had all gone: {_left(figures, 'forgetful', 'server CLOSE_WAIT')} in "
            f"CLOSE_WAIT. From then on it reset whoever came, {harmed} of {leak['clients']} clients.",
            f"Not as expected: the forgetful server used {leak['most_descriptors']:.0f} of {leak['limit']} "
            "descriptors.",
        ),
        finding(
            "ours gives every descriptor back",
            ours["descriptors_left"] <= SLACK and not _left(figures, "ours", "server CLOSE_WAIT"),
            f"Ours served the same {ours['clients']} clients with at most "
            f"{ours['most_descriptors'] - ours['resting']:.0f} descriptors more than at rest at any look, and kept "
            f"{max(0.0, ours['descriptors_left']):.0f}.",
            f"Not as expected: ours kept {ours['descriptors_left']:.0f} descriptors.",
        ),
        finding(
            "TIME_WAIT is where the first FIN came from",
            waiting > graceful["clients"] / 2 and theirs > ours["clients"] / 2 > at_us,
            f"Whoever closes first keeps the port in TIME_WAIT for {TIME_WAIT_SECONDS} s, so that late packets meet "
            f"nobody else: the server that closes, {waiting} times; the clients of ours, which lets them finish, "
            f"{theirs} times, ours {at_us}. It costs a port, no descriptor.",
            f"Not as expected: TIME_WAIT {waiting} times at the server that closes, {theirs} times at our clients, "
            f"{at_us} at ours.",
        ),
        finding(
            "a reset takes the answer with it",
            lost > runs["forceful"]["clients"] / 2 and not _left(figures, "forceful", "server TIME_WAIT"),
            f"A reset leaves nothing behind, and loses what was on its way: {lost} of {runs['forceful']['clients']} "
            "clients never saw the answer that was written before it.",
            f"Not as expected: {lost} of {runs['forceful']['clients']} clients saw a reset without the answer.",
        ),
    ]


def _idle_finding(figures: Figures) -> Finding:
    polite, ours = figures["idle_close"]["closes-idle"], figures["idle_close"]["ours"]
    senders = polite["senders"]
    half = polite["states"]["server"].get("FIN_WAIT2", 0)
    fin = polite["writes_that_succeeded"] == senders and polite["second_lines_received"] == 0
    return finding(
        "after a FIN the next line is lost, after a reset it is kept",
        fin and ours["writes_that_succeeded"] == 0 and ours["second_lines_received"] == senders,
        f"Idle peers closed with FIN: {polite['writes_that_succeeded']} of {senders} next writes succeeded, and "
        f"{polite['second_lines_received']} lines arrived (a FIN says only that nothing more will be *sent*; {half} "
        f"connections stood in FIN_WAIT2). Closed with a reset, as ours does: {ours['writes_that_succeeded']} "
        f"writes succeeded, the senders connected again, and {ours['second_lines_received']} of {senders} lines "
        "arrived.",
        f"Not as expected: after a FIN {polite['writes_that_succeeded']} writes succeeded and "
        f"{polite['second_lines_received']} lines arrived; after a reset {ours['writes_that_succeeded']} and "
        f"{ours['second_lines_received']}, of {senders}.",
    )


def _flood_findings(figures: Figures) -> list[Finding]:
    none, cap, each = figures["flood"].values()
    return [
        finding(
            "a cap keeps the others whole",
            not none["served_after"] and cap["served_after"] == 1,
            f"Under a flood of {none['clients']} connections a server without a limit took all its {none['limit']} "
            f"descriptors and reset the honest client. Ours, capped, stopped accepting at {cap['descriptors']} "
            "descriptors: the honest client waited in the backlog "
            f"{'and was served once the flood had gone' if cap['served_after'] else ''}, unharmed.",
            f"Not as expected: after the flood the honest line was received {none['served_after']} times without a "
            f"limit, {cap['served_after']} times with a cap.",
        ),
        finding(
            "a cap for each peer keeps them served",
            each["served_during"] == 1,
            "With a cap for each peer the honest client was served in the middle of the flood.",
            "Not as expected: with a cap for each peer the honest client was not served during the flood.",
        ),
    ]


def _pooling_finding(figures: Figures) -> Finding:
    one, each = figures["pooling"].values()
    faster = _rate(one) / _rate(each)
    most = figures["ports"] / TIME_WAIT_SECONDS
    return finding(
        "a connection a line costs ports and time",
        faster > 1 and each["time_wait"] > each["lines"] / 2,
        f"A connection kept open carried {_rate(one):,.0f} lines/s, a connection for each line {_rate(each):,.0f}: "
        f"{faster:.0f} times fewer, and {each['time_wait']:,} ports in TIME_WAIT instead of {one['time_wait']}. "
        f"With the {figures['ports']:,} ports of this machine that would end at {most:,.0f} connections/s between "
        "two hosts (computed).",
        f"Not as expected: {_rate(one):,.0f} lines/s on one connection, {_rate(each):,.0f} with one each, "
        f"{each['time_wait']:,} in TIME_WAIT.",
    )


def _rate(run: Figures) -> float:
    return float(run["lines"] / run["seconds"])


def describe(figures: Figures) -> Report:
    """Make the report."""
    findings = [*_visit_findings(figures), _idle_finding(figures), *_flood_findings(figures), _pooling_finding(figures)]
    return Report(findings, [*_end_tables(figures), *_load_tables(figures)], _panels(figures))


def _end_tables(figures: Figures) -> list[Table]:
    visits = [
        [
            SERVERS[kind],
            ", ".join(f"{word}: {count}" for word, count in run["seen"].items()),
            f"{run['most_descriptors']:.0f} of {run['limit']}",
            f"{max(0, run['descriptors_left']):.0f}",
            ", ".join(f"{key}: {value:.0f}" for key, value in run["left"].items() if key != "descriptors") or "none",
        ]
        for kind, run in figures["visits"].items()
    ]
    clients = figures["visits"]["ours"]["clients"]
    return [
        Table(
            f"{clients} clients, one line each",
            ["server", "what the client saw", "most descriptors", "kept", "sockets left"],
            visits,
        ),
        Table(
            "Idle peers closed: the sender's next line",
            ["close with", "senders", "writes that succeeded", "lines received", "states meanwhile"],
            [
                _idle_row(name, figures["idle_close"][kind])
                for name, kind in (("FIN", "closes-idle"), ("reset (ours)", "ours"))
            ],
        ),
    ]


def _load_tables(figures: Figures) -> list[Table]:
    return [
        Table(
            "A flood, and one honest client",
            ["server", "flood", "descriptors", "served during it", "after it"],
            [
                [
                    name,
                    f"{f['clients']}",
                    f"{f['descriptors']} of {f['limit']}",
                    *("yes" if f[w] else "no" for w in ("served_during", "served_after")),
                ]
                for name, f in figures["flood"].items()
            ],
        ),
        Table(
            "Lines of 100 bytes to our server",
            ["", "lines/s", "server CPU, µs a line", "sender CPU, µs a line", "ports in TIME_WAIT"],
            [
                [
                    name,
                    f"{_rate(p):,.0f}",
                    *(f"{p[key] / p['lines'] * 1e6:,.0f}" for key in ("server_cpu", "sender_cpu")),
                    f"{p['time_wait']:,}",
                ]
                for name, p in figures["pooling"].items()
            ],
        ),
    ]


def _idle_row(name: str, run: Figures) -> list[str]:
    states = [
        f"{side} {state}: {n}" for side, by in run["states"].items() for state, n in by.items() if state != "LISTEN"
    ]
    return [
        name,
        f"{run['senders']}",
        f"{run['writes_that_succeeded']}",
        f"{run['second_lines_received']}",
        ", ".join(states) or "none",
    ]


def _panels(figures: Figures) -> list[Panel]:
    visits = figures["visits"]
    lines = {SERVERS[kind]: run["descriptors"] for kind, run in visits.items()}
    panels = [Panel(f"Descriptors of the server (limit {visits['ours']['limit']})", "seconds", "descriptors", lines)]
    for kind in ("forgetful", "graceful", "ours"):
        states = {key: line for key, line in visits[kind]["states"].items() if max(y for _, y in line) > SLACK}
        panels.append(Panel(f"Sockets by end and state: {SERVERS[kind]}", "seconds", "sockets", states))
    return panels
