"""Batches whose bytes are lent: they are given back once, whatever becomes of the group, after the last answer."""

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.batch import NUL, Batch, ConnectionInfo, Group
from twisted_ingest.errors import SinkError
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.intake import Intake
from twisted_ingest.limits import GATHER_SECONDS, MIB
from twisted_ingest.rejected import Refusal, Rejected
from twisted_ingest.testing import MemorySink

INFO = ConnectionInfo(1, "test", "192.0.2.1:1", "192.0.2.1")


class Buffer:
    """Lends its bytes to one batch, and overwrites them once it has them back; one that ``fails`` raises then."""

    def __init__(self, content: bytes, *, fails: bool = False) -> None:
        self.memory = bytearray(content)
        self.times_back = 0
        self.is_looked_at = False
        self._fails = fails

    def lend(self, count: int = 1, delimiter: bytes = b"\n", **marks: bool) -> Batch:
        return Batch(memoryview(self.memory), count, INFO, 7.0, delimiter, lease=self, **marks)

    def let_go(self) -> None:
        self.times_back += 1
        self.memory[:] = b"#" * len(self.memory)
        try:
            self.memory.append(0)
        except BufferError:
            self.is_looked_at = True
        if self._fails:
            raise RuntimeError("a lease that fails")


class BatchTests(SynchronousTestCase):
    """What a batch gives does not depend on whose bytes it has."""

    @given(
        st.lists(st.binary(min_size=1, max_size=9).map(lambda data: data.replace(NUL, b"-")), min_size=1, max_size=5),
        st.sampled_from([b"\n", NUL]),
    )
    def test_as_with_bytes(self, records: list[bytes], delimiter: bytes) -> None:
        records = [record.replace(b"\n", b"+") if delimiter == b"\n" else record for record in records]
        wire = b"".join(record + delimiter for record in records)
        own, lent = Batch(wire, len(records), INFO, 7.0, delimiter), Buffer(wire).lend(len(records), delimiter)
        self.assertEqual((lent.size, lent.count), (own.size, own.count))
        self.assertEqual((lent.block(), lent.records()), (own.block(), own.records()))
        self.assertEqual(own.records(), records)

    def test_no_copy(self) -> None:
        """Lines are given as the view they are, and bytes as they are."""
        lent, own = Buffer(b"a\nb\n").lend(2), Batch(b"a\nb\n", 2, INFO, 7.0)
        self.assertIs(lent.block(), lent.wire)
        self.assertIs(own.block(), own.wire)
        self.assertIs(own.copy(), own)

    def test_copy(self) -> None:
        """A copy is the same in all but whose bytes it has, and outlives them."""
        buffer = Buffer(b"a\nb\0")
        lent = buffer.lend(1, NUL, partial=True, truncated=True)
        copy, records, block = lent.copy(), lent.records(), lent.block()
        lent.let_go()
        self.assertEqual((copy.wire, copy.lease, records, block), (b"a\nb\0", None, [b"a\nb"], b"a\\nb\n"))
        self.assertEqual(
            (copy.count, copy.size, copy.info, copy.received_at, copy.delimiter, copy.partial, copy.truncated),
            (1, 4, INFO, 7.0, NUL, True, True),
        )

    def test_lent_bytes(self) -> None:
        """Bytes that nobody overwrites may have a lease too: it is told, and they stay."""
        buffer = Buffer(b"")
        batch = Batch(b"a\n", 1, INFO, 7.0, lease=buffer)
        copy = batch.copy()
        batch.let_go()
        batch.let_go()
        self.assertEqual((copy.wire, copy.lease, batch.wire, buffer.times_back), (b"a\n", None, b"a\n", 1))

    def test_use_after_the_end(self) -> None:
        """Whoever uses a batch whose bytes were given back is told so: it gives no other bytes, and not none either."""
        lent = Buffer(b"a\nb\n").lend(2)
        lent.let_go()
        uses: tuple[Callable[[Batch], Any], ...] = (
            Batch.records,
            Batch.copy,
            lambda batch: bytes(batch.wire),
            lambda batch: bytes(batch.block()),
            lambda batch: batch.wire[0],
        )
        for use in uses:
            self.assertRaises(ValueError, use, lent)

    def test_somebody_looks_still(self) -> None:
        """A view that somebody has made of a batch's is seen by the buffer's owner; the batch's own is no such."""
        buffer = Buffer(b"a\n")
        buffer.lend().let_go()
        self.assertFalse(buffer.is_looked_at)
        for look in (memoryview, lambda wire: wire[1:], lambda wire: memoryview(wire).cast("c")):
            buffer = Buffer(b"a\n")
            lent = buffer.lend()
            kept = look(lent.wire)
            lent.let_go()
            self.assertTrue(buffer.is_looked_at)
            self.assertEqual(bytes(kept[:1])[:1], b"#"[: len(kept[:1])])


class Sink(MemorySink):
    """Answers each group when the test says so, and may raise instead of giving a Deferred."""

    def __init__(self, name: str, *, at_once: str | None = None) -> None:
        super().__init__(name)
        self._at_once = at_once
        self.group: Group | None = None
        self.done: Deferred[Any] = Deferred()

    def deliver(self, group: Group) -> "Deferred[Any]":
        self.group = group
        if self._at_once == "raise":
            raise RuntimeError("a sink that raises")
        if self._at_once is not None:
            self.answer(self._at_once)
        return self.done

    def answer(self, how: str) -> None:
        """Answer, and see that the bytes are there until then."""
        assert self.group is not None
        self.keep(self.group)
        first = self.group.batches[0]
        if how == "fail":
            self.done.errback(SinkError("it has failed"))
        elif how == "bug":
            self.done.errback(RuntimeError("a bug"))
        else:
            answers = {
                "take": None,
                "reject": Rejected.whole(self.group, "never"),
                "reject one": Rejected([Refusal(first, [0], "never")]),
                "reject what is not there": Rejected([Refusal(first, [99], "never")]),
            }
            self.done.callback(answers[how])


ANSWERS = st.sampled_from(["take", "reject", "reject one", "reject what is not there", "fail", "bug"])
SINKS = st.lists(
    st.tuples(st.booleans(), st.one_of(st.none(), ANSWERS, st.just("raise")), ANSWERS, st.booleans()), max_size=4
)
"""Of each whether it is required, how it answers at once, how it does otherwise, and whether it is too full."""


class RouteTests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(SINKS, st.data())
    def test_given_back_once(self, plans: list[Any], data: st.DataObject) -> None:
        """
        Whatever the sinks answer, in whatever order, given up in between or not, taken or overflown.

        The bytes are there until the last sink has answered, be it required or not, and are given back then, once; a
        lease that raises costs the others nothing.
        """
        clock = Clock()
        intake = Intake(clock, Budget(MIB), MIB)
        bugs: list[Failure] = []
        intake.on_bug = lambda _, failure: bugs.append(failure)
        sinks = []
        for number, (required, at_once, _later, is_full) in enumerate(plans):
            sink = Sink(f"s{number}", at_once=at_once)
            outlet = intake.add_sink(sink, required=required)
            if is_full and not required:
                outlet.limit = 0
            else:
                sinks.append((sink, plans[number]))
        buffers = [Buffer(b"a\nb\n"), Buffer(b"c\nd\n", fails=data.draw(st.booleans())), Buffer(b"e\n")]
        lane = intake.open_lane(intake.route())
        for buffer in buffers:
            lane.write(buffer.lend(buffer.memory.count(b"\n")))
        self.assertEqual([buffer.times_back for buffer in buffers], [0, 0, 0])
        clock.advance(GATHER_SECONDS)
        waiting = [(sink, plan) for sink, plan in sinks if plan[1] is None]
        given_up_after = data.draw(st.integers(0, len(waiting) + 1))
        for number, (sink, plan) in enumerate(data.draw(st.permutations(waiting))):
            self.assertEqual([buffer.times_back for buffer in buffers], [0, 0, 0])
            if number == given_up_after:
                intake.abandon()
            sink.answer(plan[2])
        self.assertEqual([buffer.times_back for buffer in buffers], [1, 1, 1])
        self.assertFalse(any(buffer.is_looked_at for buffer in buffers))
        self.assertTrue(
            all(sink.records == [b"a", b"b", b"c", b"d", b"e"] for sink, plan in sinks if plan[1] != "raise")
        )
        self.assertEqual((intake.budget.used, lane.in_flight, intake.is_idle), (0, 0, True))
        leases = [bug for bug in bugs if "a lease that fails" in str(bug.value)]
        self.assertEqual(len(leases), int(buffers[1]._fails))
        intake.abandon()
        self.assertEqual([buffer.times_back for buffer in buffers], [1, 1, 1])

    def test_a_sink_that_is_given_up(self) -> None:
        """It may read what it has until it answers, although nobody counts on that."""
        sink = Sink("slow")
        intake = Intake(Clock(), Budget(MIB), MIB)
        intake.add_sink(sink, required=True)
        buffer = Buffer(b"a\n")
        intake.open_lane(intake.route()).write(buffer.lend())
        intake.abandon()
        self.assertEqual((intake.budget.used, buffer.times_back), (0, 0))
        sink.answer("fail")
        self.assertEqual((sink.records, buffer.times_back), ([b"a"], 1))
