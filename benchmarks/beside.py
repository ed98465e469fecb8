"""
What RELP sessions and a flood of lines cost each other on one file: each alone, then both at once.

    python benchmarks/beside.py [--quick] [--trees FOLDER,FOLDER] [--sessions 10] [--rates 0,50000] [--place FOLDER]

Every session has ``--in-flight`` records under way; the lines come over ``--connections``, at ``--rates`` lines a
second (0: as fast as they are taken). ``--trees`` compares checkouts, whose C scanner must be built: each round runs
all. The file is held against what was answered; ``--place`` must be on the disk in question.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from measure import Running, free_port, running_command, wait_listening
from relp import Session
from report import markdown
from servers import HERE, Setting
from tools import Tools, prepare

ENDLESS = 4_000_000_000
"""Lines of a flood, over all connections: more than anything takes while it is measured."""
WARM_SECONDS = 0.2
CASES = ("answers alone", "lines alone", "both")


class Numbers(NamedTuple):
    """What was measured once; ``missing`` is answered and not in the file. Delays are in seconds."""

    answers: float
    p50: float
    p99: float
    line_bytes: float
    cpu: float
    missing: int


class NamedSession(Session):
    """A session whose records no other one sends."""

    def __init__(self, name: int, port: int, size: int) -> None:
        self._name = name
        super().__init__(port, size)

    def record(self, number: int) -> bytes:
        """Make a record."""
        return (b"<13>session %03d record %09d " % (self._name, number)).ljust(self._size, b".")

    @property
    def answered(self) -> set[bytes]:
        """The records that were."""
        return {self.record(number) for number in range(2, self._answered + 1)}


def ours(tree: str, relp_port: int) -> Callable[[Setting], list[str]]:
    """Make the command of a checkout's server, which takes lines on one port and RELP on the other."""

    def command(setting: Setting) -> list[str]:
        listen = ("--listen", f"tcp:{setting.port}:interface=127.0.0.1")
        relp = ("--relp", f"tcp:{relp_port}:interface=127.0.0.1")
        server = (sys.executable, "-m", "twisted_ingest", *listen, *relp, "--admin", "off")
        return ["env", f"PYTHONPATH={tree}", *server, "--sink", f"file:{setting.output}"]

    return command


@contextlib.contextmanager
def flood(tools: Tools, port: int, rate: int, connections: int) -> Iterator[None]:
    """Send lines meanwhile."""
    command = [*tools.load, "-p", port, "-c", connections, "-n", ENDLESS // connections, "-s", 200, "-f", tools.filler]
    paced = ["-r", rate] if rate else []
    process = subprocess.Popen(list(map(str, command + paced)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def drive(sessions: list[NamedSession], ahead: int, seconds: float) -> None:
    """Have all sessions send for some seconds. Raises what ended one of them."""
    failures: list[Exception] = []

    def run(session: NamedSession) -> None:
        try:
            session.run(ahead, seconds)
        except Exception as failure:  # noqa: BLE001 - raised below
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    if not threads:
        time.sleep(seconds)
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def missing(path: str, sessions: list[NamedSession]) -> int:
    """Count the records that were answered and are not in a file."""
    wanted: set[bytes] = set().union(*(session.answered for session in sessions))
    with open(path, "rb") as stream:
        for line in stream:
            if line.startswith(b"<13>session "):
                wanted.discard(line[:-1])
    return len(wanted)


def once(case: str, tree: str, rate: int, tools: Tools, chosen: argparse.Namespace) -> Numbers:
    """Run one server through one case."""
    relp_port = free_port()
    with running_command("ours", ours(tree, relp_port), chosen.place) as server, contextlib.ExitStack() as stack:
        wait_listening(server.process, relp_port, os.devnull)
        wants_answers, wants_lines = case != CASES[1], case != CASES[0]
        number = chosen.sessions if wants_answers else 0
        sessions = [NamedSession(name, relp_port, chosen.size) for name in range(number)]
        if wants_lines:
            stack.enter_context(flood(tools, server.port, rate, chosen.connections))
            time.sleep(WARM_SECONDS)
        return measured(server, sessions, chosen)


def measured(server: Running, sessions: list[NamedSession], chosen: argparse.Namespace) -> Numbers:
    """Measure while the sessions run; what they wrote is taken off what the file grew by."""
    size, cpu, began = server.written(), server.cpu(), time.monotonic()
    drive(sessions, chosen.in_flight, chosen.seconds)
    seconds = time.monotonic() - began
    grown, cpu = server.written() - size, server.cpu() - cpu
    delays = sorted(delay for session in sessions for delay in session.delays)
    for session in sessions:
        session.close()
    p50, p99 = (delays[int(len(delays) * share)] if delays else 0.0 for share in (0.5, 0.99))
    lines = grown - len(delays) * (chosen.size + 1)
    return Numbers(len(delays) / seconds, p50, p99, lines / seconds, cpu / seconds, missing(server.output, sessions))


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure RELP beside a flood of lines.")
    parser.add_argument("--trees", default=os.path.dirname(HERE), help="checkouts to compare (this one)")
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--size", type=int, default=200, help="bytes of a RELP record")
    parser.add_argument("--connections", type=int, default=4, help="that lines come over")
    parser.add_argument("--rates", default="0,50000")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--place", default=tempfile.gettempdir(), help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help="does it work, not how fast is it")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.seconds, chosen.rounds, chosen.rates = 0.3, 1, "20000"
    return chosen


def row(case: str, tree: str, rate: int, runs: list[Numbers]) -> list[object]:
    """Write the medians of one case."""
    answers, p50, p99, line_bytes, cpu = (statistics.median(run[field] for run in runs) for field in range(5))
    asked = "" if case == CASES[0] else f"{rate:,}/s" if rate else "all it takes"
    timing = (f"{answers:,.0f}", f"{p50 * 1000:,.2f}", f"{p99 * 1000:,.2f}") if answers else ("", "", "")
    return [case, asked, tree, *timing, f"{line_bytes / 1e6:,.1f}", f"{cpu:.2f}", sum(run.missing for run in runs)]


def main() -> int:
    """Print the table; the exit status is 1 when a record was answered and is not there."""
    chosen = options()
    trees = [os.path.abspath(tree) for tree in chosen.trees.split(",")]
    rows, lost = [], 0
    with tempfile.TemporaryDirectory() as folder:
        tools = prepare(folder)
        print(tools.note)
        for number, rate in enumerate(map(int, chosen.rates.split(","))):
            for case in CASES[bool(number) :]:
                runs: dict[str, list[Numbers]] = {tree: [] for tree in trees}
                for _ in range(chosen.rounds):
                    for tree in trees:
                        runs[tree].append(once(case, tree, rate, tools, chosen))
                rows += [row(case, tree, rate, runs[tree]) for tree in trees]
                lost += sum(run.missing for found in runs.values() for run in found)
    head = ["case", "lines sent", "tree", "answers/s", "p50 ms", "p99 ms", "lines MB/s", "CPU s/s"]
    print(markdown([*head, "answered, not in the file"], rows))
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
