"""
Half-open: a client whose host vanishes without a word, and what it takes for the server to notice.
"""

import os
import shutil
import subprocess
from typing import Any

from labs.conclusions.halfopen import describe, rule
from labs.report import Figures, Lab, Tell
from labs.running import PATIENCE, CannotRunError, Child

PROGRAMS = {"ip": "iproute2", "unshare": "util-linux"}
"""What makes namespaces, and the Debian package of each."""


def namespace_command() -> list[str]:
    """
    Find the command that runs a program in a network namespace of its own.

    Raises `CannotRunError` with the reason where there is none.
    """
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            raise CannotRunError(f"needs the program {program} (Debian package {package})")
    attempts = [["unshare", "-n"]] if os.geteuid() == 0 else []
    said = ""
    for command in (*attempts, ["unshare", "-Urn"]):
        words = [*command, "ip", "link", "add", "name", "lab0", "type", "veth", "peer", "name", "lab1"]
        tried = subprocess.run(words, capture_output=True, text=True, check=False)
        if not tried.returncode:
            return command
        said = tried.stderr.strip()
    raise CannotRunError(f"this machine lets us make no network namespaces: {said}")


def measure(tell: Tell, *, cases: dict[str, dict[str, Any]], watch: float, retries: int) -> Figures:
    """Carry the lab out: every case at the same time, watched for at most ``watch`` seconds."""
    tell(f"{len(cases)} connections; their hosts vanish; at most {watch:g} s of waiting")
    prefix = namespace_command()
    ends = {name: settings | {"ends": rule(settings, retries) is not None} for name, settings in cases.items()}
    orders = {"cases": ends, "watch": watch, "retries": retries}
    with Child("labs.programs.hosts", "server_host", prefix, **orders) as host:
        tell(host.hear()["progress"])
        outcome = host.hear(3 * watch + PATIENCE)
    return orders | {"cases": cases, "watched": outcome["watched"], "results": outcome["results"]}


LAB = Lab(
    name="halfopen",
    title="Half-open: how long until the server knows that a host has vanished",
    question="A client's host loses its network. No FIN is sent, no reset, nothing. When does the server know?",
    setting="Two network namespaces joined by a veth pair; the client's end is taken down. Every case has a "
    "listener of our server with socket options and timers of its own, short ones, so that it can be "
    "waited for. Two clients sit on the server's own host for comparison: one is killed (SIGKILL), one "
    "stopped (SIGSTOP).",
    server="Keepalive, `TCP_USER_TIMEOUT`, an idle timer and a deadline for each record are all on by default "
    "(`server/sockets.py`, `server/connection.py`, `limits.py`): the first two find dead hosts, the others "
    "peers that are there and do nothing.",
    full={
        "cases": {
            "nothing": {},
            "keepalive 1 s + 2 × 1 s": {"keepalive": [1, 1, 2]},
            "keepalive 2 s + 5 × 1 s": {"keepalive": [2, 1, 5]},
            "keepalive 3 s + 3 × 2 s": {"keepalive": [3, 2, 3]},
            "TCP_USER_TIMEOUT 3 s, nothing to send": {"user_timeout": 3},
            "TCP_USER_TIMEOUT 3 s, keepalive 2 s + 5 × 1 s": {"user_timeout": 3, "keepalive": [2, 1, 5]},
            "TCP_USER_TIMEOUT 3 s, a write": {"user_timeout": 3, "write": True},
            "a write alone": {"write": True},
            "idle timer 4 s": {"idle": 4},
            "frame deadline 4 s, half a line sent": {"frame": 4, "sends": "half"},
            "killed process": {"fate": "killed"},
            "stopped process, keepalive 1 s + 2 × 1 s": {"fate": "stopped", "keepalive": [1, 1, 2]},
            "stopped process, idle timer 4 s": {"fate": "stopped", "idle": 4},
        },
        "watch": 20.0,
        "retries": 5,
    },
    quick={
        "cases": {
            "nothing": {},
            "keepalive 1 s + 1 × 1 s": {"keepalive": [1, 1, 1]},
            "TCP_USER_TIMEOUT 0.5 s, nothing to send": {"user_timeout": 0.5},
            "TCP_USER_TIMEOUT 0.5 s, a write": {"user_timeout": 0.5, "write": True},
            "a write alone": {"write": True},
            "idle timer 1 s": {"idle": 1},
            "frame deadline 1 s, half a line sent": {"frame": 1, "sends": "half"},
            "killed process": {"fate": "killed"},
            "stopped process, keepalive 1 s + 1 × 1 s": {"fate": "stopped", "keepalive": [1, 1, 1]},
        },
        "watch": 2.5,
        "retries": 2,
    },
    measure=measure,
    describe=describe,
)
