"""
The spool on a disk that loses whatever it may: what was acknowledged is there, nothing else is, in order.

`SpoolMachine` tries histories by chance, `FaultPointTests` every single disk operation of a fixed one.
INGEST_TEST_SPOOL_EXAMPLES and INGEST_TEST_SPOOL_SEEDS make both longer (`make slow`).
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from tests.disk import Choose, Crash, SimDisk, keep_everything, keep_nothing, seeded
from tests.spooling import DIRECTORY, Spool, make_batch, same
from twisted_ingest.batch import Batch
from twisted_ingest.spool.position import Position, read_position, write_position
from twisted_ingest.spool.segments import POSITION
from twisted_ingest.storage import trouble

EXAMPLES = int(os.environ.get("INGEST_TEST_SPOOL_EXAMPLES", "150"))
SEEDS = int(os.environ.get("INGEST_TEST_SPOOL_SEEDS", "2"))

ERRORS = (errno.EIO, errno.ENOSPC)


class World:
    """
    A disk, the runs of a spool on it, and what everybody was told.

    ``sent`` holds every batch ever submitted, ``acked`` those reported, ``delivered`` those that the sink behind has
    taken (a batch may be in it once per run), all by their numbers.
    """

    def __init__(self, sector: int = 512) -> None:
        self.disk = SimDisk(sector)
        self.sent: dict[int, Batch] = {}
        self.acked: set[int] = set()
        self.delivered: set[int] = set()
        self.out: list[int] = []
        """What this run has read and not had confirmed."""
        self.left: list[int] = []
        """What the last end of a run has left to be delivered."""
        self._last = 0
        self._read = 0
        self.spool: Spool | None = None
        self.start()

    def number(self, batch: Batch) -> int:
        """Tell which one it is; fails for one that nobody sent."""
        number = int(bytes(batch.wire).partition(b".")[0])
        assert number in self.sent, "a batch was invented"
        assert same(batch, self.sent[number]), "a batch was changed"
        return number

    def start(self) -> None:
        """Run a spool on what the disk holds; a machine that goes off meanwhile is started again."""
        while self.spool is None:
            try:
                self.spool = Spool(self.disk, segment_bytes=700)
            except Crash:
                self.disk.crash(keep_everything)
        self._read = 0
        self.out = []

    def append(self, *sizes: int) -> None:
        """Submit a group of batches and have the writer take it."""
        assert self.spool is not None
        batches = []
        for size in sizes:
            self._last += 1
            self.sent[self._last] = make_batch(self._last, size)
            batches.append(self.sent[self._last])
        try:
            self.spool.append(*batches)
        finally:
            self.acked |= {self.number(batch) for batch in self.spool.acked}

    def read(self, limit: int) -> None:
        """Read a window and hand it to the sink."""
        assert self.spool is not None
        window = self.spool.window(limit)
        for batch in window.batches if window is not None else ():
            number = self.number(batch)
            assert number > self._read, "out of order, or twice"
            self._read = number
            self.out.append(number)
        if window is not None:
            self._window_last = window.last

    def confirm(self) -> None:
        """Have the sink take what is out."""
        assert self.spool is not None
        self.delivered |= set(self.out)
        self.out = []
        self.spool.checkpoint.confirm(self._window_last)

    def commit(self) -> None:
        """Keep the position, as the replay does: one that fails is tried again later."""
        assert self.spool is not None
        with contextlib.suppress(OSError):
            self.spool.checkpoint.commit()

    def stop(self) -> None:
        """Stop in good order: nothing is written any more, and what is all confirmed goes."""
        assert self.spool is not None
        self.spool.target.close()
        self.spool.checkpoint.keep()
        self.spool.checkpoint.remove_rest()

    def end(self, how: Callable[[], None]) -> None:
        """End the run, and look at what a new one finds."""
        self.spool = None
        how()
        self.check()
        self.start()

    def spoil_position(self, ahead: int | None) -> None:
        """Have the process killed, and the position gone, or so far ahead of everything that was ever written."""
        assert self.spool is not None
        position = Position(self.spool.target.sequence + (ahead or 0), self.spool.target.number)

        def how() -> None:
            self.disk.kill()
            if ahead is None:
                self.disk.remove(f"{DIRECTORY}/{POSITION}")
            else:
                write_position(self.disk, DIRECTORY, position)

        self.end(how)

    def check(self) -> None:
        """Fail unless what counts is found, in order, however often one looks."""
        disk = self.disk
        position = read_position(disk, DIRECTORY)
        first = self.left = self.look()
        assert self.look() == first, "looking changed what is found"
        lost = self.acked - self.delivered - set(first)
        assert not lost, f"{sorted(lost)} were acknowledged, and are gone (position {position})"

    def look(self) -> list[int]:
        """Give what a run would deliver, and leave everything as it is."""
        spool = Spool(self.disk, segment_bytes=700)
        found = [self.number(batch) for batch in spool.read()]
        assert found == sorted(set(found)), "out of order, or twice"
        self.disk.kill()
        return found


class SpoolMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order."""

    world: World

    @initialize(sector=st.sampled_from([512, 4096]))
    def begin(self, sector: int) -> None:
        """Have an empty disk."""
        self.world = World(sector)

    @rule(sizes=st.lists(st.sampled_from([0, 10, 300, 600, 5000]), min_size=1, max_size=4))
    def append(self, sizes: list[int]) -> None:
        """Something comes in."""
        self.guarded(lambda: self.world.append(*sizes))

    @rule(limit=st.sampled_from([1, 500, 1 << 20]))
    def read(self, limit: int) -> None:
        """Have a window go out."""
        if not self.world.out:
            self.guarded(lambda: self.world.read(limit))

    @precondition(lambda self: self.world.out)
    @rule(commits=st.booleans())
    def confirm(self, commits: bool) -> None:
        """Have the sink behind take it."""
        self.world.confirm()
        if commits:
            self.guarded(self.world.commit)

    @rule()
    def commit(self) -> None:
        """Have the position kept."""
        self.guarded(self.world.commit)

    @rule(offset=st.integers(1, 12), error=st.sampled_from([*ERRORS, None]))
    def plan_fault(self, offset: int, error: int | None) -> None:
        """Have an operation to come fail, or be the last."""
        self.world.disk.plan[self.world.disk.operations + offset] = error

    @rule(take=st.integers(1, 700))
    def plan_short_write(self, take: int) -> None:
        """Have the next write take less than it is given."""
        self.world.disk.take = take

    @rule(data=st.data(), kind=st.sampled_from(["nothing", "everything", "some"]))
    def crash(self, data: st.DataObject, kind: str) -> None:
        """Have the machine go off."""
        self.world.end(lambda: self.world.disk.crash(self.choose(data, kind)))

    @rule()
    def kill(self) -> None:
        """Have the process killed."""
        self.world.end(self.world.disk.kill)

    @rule(crashes=st.booleans())
    def stop(self, crashes: bool) -> None:
        """Have the process stop in good order, and the machine go off afterwards."""
        self.guarded(self.world.stop)
        disk = self.world.disk
        self.world.end((lambda: disk.crash(keep_nothing)) if crashes else disk.kill)

    @rule(ahead=st.one_of(st.none(), st.integers(1, 5), st.just(2**40)))
    def spoil_position(self, ahead: int | None) -> None:
        """Somebody spoils the position while the process is down."""
        self.world.spoil_position(ahead)

    def choose(self, data: st.DataObject, kind: str) -> Choose:
        """Say what the disk keeps."""
        if kind == "some":
            return seeded(data.draw(st.integers(0, 1 << 16), "seed"))
        return keep_nothing if kind == "nothing" else keep_everything

    def guarded(self, step: Callable[[], None]) -> None:
        """Do something in which the machine may go off."""
        try:
            step()
        except Crash:
            self.world.end(lambda: self.world.disk.crash(seeded(self.world.disk.operations)))

    def teardown(self) -> None:
        """In the end too everything is there."""
        if hasattr(self, "world"):
            self.world.end(lambda: self.world.disk.crash(keep_nothing))


class CrashCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(trouble, "RETRY_SECONDS", (0.0, 0.0))


class MachineTests(CrashCase):
    def test_any_history(self) -> None:
        """Any history of writes, reads, faults and crashes keeps what was acknowledged, and invents nothing."""
        run_state_machine_as_test(
            SpoolMachine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            ),
        )


def workload(world: World) -> Iterator[Callable[[], None]]:
    """Give the steps of a run that does everything once: several segments, reads, positions, removals."""
    yield lambda: world.append(10, 300)
    yield lambda: world.append(600)
    yield lambda: world.read(1)
    yield world.confirm
    yield world.commit
    yield lambda: world.append(10, 10, 10)
    # From one segment into the next, and something after it before anything is delivered.
    yield lambda: world.append(700, 700)
    yield lambda: world.append(20)
    yield lambda: world.read(1 << 20)
    yield world.confirm
    yield world.commit
    yield lambda: world.append(20)
    yield lambda: world.append(700, 700)
    yield lambda: world.read(1 << 20)
    yield world.confirm
    yield world.stop


def faults(first: int | None, later: int = 0, second: int | None = None) -> Callable[[int], dict[int, int | None]]:
    """Plan a fault at an operation, and another so much later; an error number, or ``None`` for the machine's end."""
    return lambda point: {point: first, point + later: second} if later else {point: first}


class FaultPointTests(CrashCase):
    def run_with(self, plan: dict[int, int | None], choose: Choose, sector: int) -> int:
        """
        Run the workload with faults, then have the machine go off, and look.

        Gives the number of operations that the workload took without a fault, or 0 where there was one.
        """
        world = World(sector)
        world.disk.plan.update(plan)
        try:
            for step in workload(world):
                step()
        except Crash:
            pass
        hit = len(world.disk.plan) < len(plan)
        operations = world.disk.operations
        world.end(lambda: world.disk.crash(choose))
        # What is left goes out, and comes no second time.
        assert world.spool is not None
        self.assertEqual([world.number(batch) for batch in world.spool.deliver()], world.left)
        world.disk.crash(keep_nothing)
        self.assertEqual(world.look(), [])
        return 0 if hit else operations

    def every_point(self, plan: Callable[[int], dict[int, int | None]]) -> int:
        """Run with a fault at operation 1, 2, 3, … until a run meets none; gives how many did."""
        point = 0
        while True:
            point += 1
            outcomes = [keep_nothing, keep_everything, *map(seeded, range(SEEDS))]
            results = [self.run_with(plan(point), choose, sector) for choose in outcomes for sector in (512, 4096)]
            if all(results):
                return point - 1

    def test_dying_at_every_operation(self) -> None:
        """The machine goes off after any one disk operation."""
        self.assertGreater(self.every_point(faults(None)), 30)

    def test_failing_at_every_operation(self) -> None:
        """Any one disk operation fails, with either error, and the machine goes off at the end."""
        for error in ERRORS:
            self.assertGreater(self.every_point(faults(error)), 30)

    def test_failing_and_then_dying(self) -> None:
        """Any one operation fails, and the machine goes off after any of the six that follow."""
        for later in range(1, 7):
            self.assertGreater(self.every_point(faults(errno.EIO, later, None)), 30)

    def test_failing_twice(self) -> None:
        """Two operations fail, the second while the first is being dealt with."""
        for later in range(1, 7):
            self.assertGreater(self.every_point(faults(errno.EIO, later, errno.EIO)), 30)
