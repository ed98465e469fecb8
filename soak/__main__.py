"""
Runs the real server under everything at once, at low intensity, for as long as asked: `make soak MINUTES=20`.

Exits with 1 when a line of a good sender is missing, doubled or out of order, when anything was ever unaccounted for,
or when descriptors are left behind.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable

from soak.peers import Peers
from soak.plot import draw
from soak.samples import Sample, as_columns, summary
from soak.written import Disk, Verifier
from tests.server import Server

FLAGS = (
    "--memory",
    "8MiB",
    "--connection-memory",
    "1MiB",
    "--max-connections",
    "150",
    "--idle-timeout",
    "20s",
    "--frame-timeout",
    "10s",
)
PATIENCE = 30.0


class Soak:
    """One soak. ``failures`` says why it has failed."""

    def __init__(self, minutes: float, disk: Disk) -> None:
        self.minutes = minutes
        self.disk = disk
        self.server = Server("--sink", f"file:{disk.path}", *FLAGS)
        self.verifier = Verifier()
        self.samples: list[Sample] = []
        self.metrics: dict[str, float] = {}
        self.failures: list[str] = []
        self.descriptors = (0, 0)
        self._writing = asyncio.Lock()
        """Held by whoever meddles with the disk."""

    async def run(self) -> None:
        """Run everything, then let it come to its end and settle the accounts."""
        self.server.wait_ready()
        await asyncio.to_thread(self.server.metrics)
        before = self.server.descriptors()
        over = asyncio.Event()
        peers = Peers(self.server.port, over, seed=4)
        self._begun = time.monotonic()
        asyncio.get_running_loop().call_later(self.minutes * 60, over.set)
        ours: list[Callable[[], Awaitable[None]]] = [self.rotations, self.stalls, self.freezes, self.pages]
        jobs = [asyncio.ensure_future(job()) for job in [*peers.all(), *(self.until(over, each) for each in ours)]]
        while not over.is_set() and not any(job.done() for job in jobs):
            await asyncio.to_thread(self.sample)
            await peers.pause(1)
        if not over.is_set():
            self.failures.append("somebody ended before the soak did")
            over.set()
        await asyncio.wait_for(asyncio.gather(*jobs), PATIENCE)
        self.failures += peers.problems
        await self.settle(before)
        self.stop(peers.sent)

    def until(self, over: asyncio.Event, what: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """Make one of our own interventions a loop that ends with the soak."""

        async def loop() -> None:
            while not over.is_set():
                await what()

        return loop

    # What we do to it.

    async def rotations(self) -> None:
        """Rotate every five seconds."""
        await asyncio.sleep(5)
        async with self._writing:
            await asyncio.to_thread(self.disk.rotate, self.server, self.verifier)

    async def stalls(self) -> None:
        """Fill the disk for three seconds, four times a minute at most."""
        await asyncio.sleep(15)
        if self.disk.is_small:
            async with self._writing:
                await asyncio.to_thread(self.disk.fill, 3)

    async def freezes(self) -> None:
        """Stop the process for a second, three times a minute at most."""
        await asyncio.sleep(20)
        self.server.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1)
        self.server.send_signal(signal.SIGCONT)

    async def pages(self) -> None:
        """Read the larger admin pages."""
        await asyncio.sleep(3)
        for page in ("status", "connections", "readyz"):
            await asyncio.to_thread(self.server.get, page)

    # What we see.

    def sample(self) -> None:
        """Take one look."""
        metrics = self.metrics = self.server.metrics()
        self.samples.append(
            Sample(
                seconds=time.monotonic() - self._begun,
                rss=self.server.rss(),
                descriptors=self.server.descriptors(),
                connections=metrics["ingest_connections_open"],
                paused=metrics["ingest_paused_connections"],
                conservation_error=metrics["ingest_conservation_error"],
                records=metrics["ingest_records_total"],
                budget_used=metrics["ingest_budget_used_bytes"],
            )
        )

    async def settle(self, before: int) -> None:
        """Wait until everybody is gone and their descriptors with them."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            await asyncio.to_thread(self.sample)
            self.descriptors = (before, self.server.descriptors())
            if self.samples[-1].connections == 0 and self.descriptors[1] <= before:
                return
            await asyncio.sleep(0.2)
        self.failures.append(f"descriptors: {before} before, {self.descriptors[1]} after")

    def stop(self, sent: dict[str, int]) -> None:
        """Stop the server, verify what is left and judge."""
        status = self.server.stop()
        if status not in (0, -signal.SIGTERM):
            self.failures.append(f"exit status {status}: {self.server.log[-3:]}")
        self.disk.verify(self.disk.path, self.verifier)
        self.verifier.finish(sent)
        self.failures += self.verifier.wrong
        if any(sample.conservation_error for sample in self.samples):
            self.failures.append("a conservation error")
        if self.metrics["ingest_internal_errors_total"]:
            self.failures.append("internal errors")

    def table(self) -> dict[str, str]:
        """Give everything that was found, for a table."""
        before, after = self.descriptors
        return {
            **summary(self.minutes, self.samples, self.metrics),
            "descriptors before and after": f"{before}, {after}",
            "lines verified": f"{sum(self.verifier.seen.values()):,}",
            "torn where a rotation met a full disk (whole in the next file)": f"{self.verifier.torn:,}",
            "missing, doubled or out of order": f"{self.verifier.mistakes:,}",
            "disk filled up now and then": "yes" if self.disk.is_small else "no: a small disk could not be mounted",
        }


def main(minutes: float, out: str) -> int:
    """Run a soak and write what it found; gives the exit status."""
    os.makedirs(out, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="ingest-soak-")
    disk = Disk(folder)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        cleanup.callback(disk.close)
        soak = Soak(minutes, disk)
        cleanup.callback(soak.server.kill)
        asyncio.run(soak.run())
    found = soak.table()
    with open(os.path.join(out, "soak.json"), "w") as report:
        json.dump({"summary": found, "samples": as_columns(soak.samples)}, report, separators=(",", ":"))
    print("\n".join(("| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in found.items()))))
    print(draw(soak.samples, os.path.join(out, "soak.png")))
    for failure in soak.failures:
        print(f"FAILED: {failure}")
    return 1 if soak.failures else 0


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Everything at once, at low intensity.")
    arguments.add_argument("--minutes", type=float, default=20.0)
    arguments.add_argument("--out", default="soak-results", help="folder for soak.json and soak.png")
    given = arguments.parse_args()
    sys.exit(main(given.minutes, given.out))
