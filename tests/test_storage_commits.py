"""
What is reported, when, and where it is then: every small history of jobs of both kinds, with a fault at every call.

The writer is stepped by hand, on the simulated file of `tests.test_sinks_appender`, whose failed sync loses for good
whatever was not durable.
"""

import errno
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from tests.test_sinks_appender import Medium
from twisted_ingest.errors import Fsync
from twisted_ingest.storage import output, trouble
from twisted_ingest.storage.target import Place
from twisted_ingest.storage.writer import Writer

FAULTS = {
    "write": ("short", "error", "rename", "remove"),
    "sync": ("error", "rename", "remove"),
    "place": ("rename", "remove"),
    "open": ("error",),
    "retire": ("error",),
}
"""What may go wrong at each call: a file is renamed or removed by somebody else just before it."""

PLACES = {"rename": Place.ELSEWHERE, "remove": Place.NOWHERE}


class History(NamedTuple):
    """Jobs, each of which asks for a sync or does not, and before which of them the writer takes those before."""

    asks: tuple[bool, ...]
    cuts: tuple[bool, ...]


class Report(NamedTuple):
    """Jobs that were reported at once, and what could be read, what was durable and what had been called then."""

    numbers: tuple[int, ...]
    is_on_trial: bool
    """Whether the last sync until then had failed."""
    readable: bytes
    durable: bytes
    calls: tuple[str, ...]


def histories(number: int) -> Iterator[History]:
    """Give all histories of so many jobs."""
    for asks in itertools.product((False, True), repeat=number):
        for cuts in itertools.product((False, True), repeat=number - 1):
            yield History(asks, (False, *cuts))


class Disk(Medium):
    """A medium some of whose calls, by their number from 0 on over all kinds, meet a fault; ``met`` tells which did."""

    def __init__(self, faults: dict[int, str], *, looks: bool) -> None:
        super().__init__()
        self.looks = looks
        self._faults = faults
        self.met: list[tuple[int, str]] = []
        """The number of the call, what it met, and at what."""
        self.has_failed = False
        """Whether the last sync did."""

    def _call(self, name: str) -> int | None:
        number = len(self.calls)
        fault = self._faults.get(number)
        self.calls.append(name)
        if name == "sync":
            self.has_failed = fault == "error"
        if fault not in FAULTS[name]:
            return None
        self.met.append((number, f"{fault} at {name}"))
        if fault == "short":
            return 1
        if fault == "error":
            raise OSError(errno.EIO, "EIO")
        self.move(PLACES[fault])
        return None

    def place(self) -> Place:
        """Say where it is."""
        self._call("place")
        return super().place()


class Run:
    """One history on one disk, from its first job to its end. It is the writer's owner, and its reactor."""

    def __init__(
        self, history: History, fsync: Fsync, faults: dict[int, str] | None = None, *, looks: bool = False
    ) -> None:
        self.history = history
        self.disk = Disk(faults or {}, looks=looks)
        self.reports: list[Report] = []
        self.writer = Writer(self.disk, fsync, self, self)
        self._lent = [memoryview(line(number)) for number in range(len(history.asks))]
        """What the jobs are made of; taken back when they are reported: none of them may be written again then."""
        for number, asks in enumerate(history.asks):
            if history.cuts[number]:
                self.writer._step()
            self.writer.put([self._lent[number]], sync=asks)
        self.writer.stop()
        while self.writer._step():
            pass

    @property
    def order(self) -> list[int]:
        """The jobs in the order of their reports."""
        return [number for report in self.reports for number in report.numbers]

    @property
    def lines(self) -> list[bytes]:
        """What is in all files at the end."""
        return [line for file in self.disk.files for line in bytes(file).splitlines(keepends=True)]

    def seconds(self) -> float:
        """Give the time, which stands still."""
        return 0.0

    def callFromThread(self, call: Callable[..., None], *arguments: object) -> None:
        """Make a call."""
        call(*arguments)

    # What the writer says.

    def hear(self, call: Callable[..., None], *arguments: object) -> None:
        """See `WriterOwner`."""
        call(*arguments)

    def on_written(self, numbers: Sequence[int]) -> None:
        """See `WriterOwner`; the first job is number 0 here."""
        disk = self.disk
        named = tuple(number - 1 for number in numbers)
        for number in named:
            self._lent[number].release()
        self.reports.append(
            Report(named, disk.has_failed, disk.readable_bytes(), disk.durable_bytes(), tuple(disk.calls))
        )

    def on_unmade(self, number: int, failure: Exception) -> None:
        """See `WriterOwner`."""
        raise failure

    def on_failed(self, reason: str) -> None:
        """See `WriterOwner`."""
        raise AssertionError(reason)

    def on_stalled(self, trouble: str) -> None:
        """See `WriterOwner`."""

    def on_recovered(self) -> None:
        """See `WriterOwner`."""

    def on_moved(self, rewritten: int | None) -> None:
        """See `WriterOwner`."""

    def on_ended(self) -> None:
        """See `WriterOwner`."""


def line(number: int) -> bytes:
    """Give the bytes of a job."""
    return b"%d:%b\n" % (number, b"x" * number)


class CommitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(trouble, "RETRY_SECONDS", (0.0, 0.0))
        self.patch(output, "MOVE_SECONDS", 0.0)

    def check(self, run: Run, fsync: Fsync) -> None:
        """See that each job is reported once, when that is true, and in order among its kind."""
        asks = run.history.asks
        self.assertEqual(sorted(run.order), list(range(len(asks))))
        for kind in (False, True):
            same = [number for number in run.order if asks[number] is kind]
            self.assertEqual(same, sorted(same))
        for report in run.reports:
            self.assertFalse(report.is_on_trial)
            for number in report.numbers:
                self.assertIn(line(number), report.readable)
                if asks[number] or fsync is Fsync.ALWAYS:
                    self.assertIn(line(number), report.durable)

    def check_end(self, run: Run) -> None:
        """See that nothing is lost that was at hand when a fault came, and nothing doubled that is not counted."""
        lines = run.lines
        doubled = 0
        for number, asks in enumerate(run.history.asks):
            times = lines.count(line(number))
            doubled += max(0, times - 1) * len(line(number))
            if not times:
                # Removed by somebody later, or given to the kernel alone and forgotten by a disk that failed later.
                reported = next(len(report.calls) for report in run.reports if number in report.numbers)
                later = [met for call, met in run.disk.met if call >= reported]
                self.assertTrue([met for met in later if "remove" in met or (not asks and met == "error at sync")])
        self.assertLessEqual(doubled, run.writer.counts.rewritten_bytes + run.writer.counts.rescued_bytes)

    def run_all(self, jobs: int, faults: int, fsync: Fsync) -> int:
        """Run all histories with so many faults each, at every set of calls that all meet theirs; gives how many."""
        runs = 0
        for history, looks in itertools.product(histories(jobs), (False, True)):
            pending: list[dict[int, str]] = [{}]
            while pending:
                planned = pending.pop()
                run = Run(history, fsync, planned, looks=looks)
                runs += 1
                self.check(run, fsync)
                self.check_end(run)
                if len(planned) < faults:
                    first = max(planned, default=-1) + 1
                    calls = list(enumerate(run.disk.calls))[first:]
                    pending += [{**planned, number: fault} for number, name in calls for fault in FAULTS[name]]
        return runs

    def test_one_fault(self) -> None:
        """Up to three jobs of any kind, taken together or not, under any fsync, with any fault at any call."""
        for fsync in Fsync:
            for jobs in (1, 2, 3):
                self.assertGreater(self.run_all(jobs, 1, fsync), 10 * 4 ** (jobs - 1))

    def test_two_faults(self) -> None:
        """Up to two jobs, with any two faults at any calls."""
        for fsync in Fsync:
            for jobs in (1, 2):
                self.assertGreater(self.run_all(jobs, 2, fsync), 100 * 4 ** (jobs - 1))

    def test_nobody_waits_for_others(self) -> None:
        """Without faults: a commit is of one kind, and synced where that asks; the kinds take turns, those first."""
        for history in (history for number in (1, 2, 3, 4) for history in histories(number)):
            run = Run(history, Fsync.NEVER)
            before: tuple[str, ...] = ()
            kinds: list[bool] = []
            for report in run.reports:
                calls, before = report.calls[len(before) :], report.calls
                asks = {history.asks[number] for number in report.numbers}
                kinds += asks
                self.assertEqual(len(asks), 1)
                self.assertEqual(calls, ("write", "sync", "place") if asks == {True} else ("write", "place"))
            seeing = Run(history, Fsync.NEVER, looks=True)
            self.assertEqual([report.numbers for report in seeing.reports], [report.numbers for report in run.reports])
            self.assertEqual(seeing.disk.calls.count("place"), seeing.disk.calls.count("sync"))
            if not any(history.cuts):
                self.assertEqual(kinds, sorted(set(history.asks), reverse=True))

    def test_one_order_where_all_ask(self) -> None:
        """Under fsync always all are of one kind, whatever they ask for besides: nobody overtakes anybody."""
        for history in histories(4):
            run = Run(history, Fsync.ALWAYS)
            self.assertEqual(run.order, sorted(run.order))
            self.assertEqual(len(run.reports), sum(history.cuts) + 1)
