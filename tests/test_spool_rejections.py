"""Records that the sink behind a spool rejects: exactly those are given up, the rest is delivered, whatever happens."""

import os
import shutil
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed

from tests.spooling import make_batch
from tests.test_spool_flow import SpoolCase
from twisted_ingest.batch import Group
from twisted_ingest.rejected import Refusal, Rejected
from twisted_ingest.spool import replay
from twisted_ingest.testing import MemorySink

Record = tuple[int, int]
"""The number of a batch, and of a record in it."""

RECORDS = 3
"""In each batch."""


class Picky(MemorySink):
    """Rejects some records and takes the others, until it has answered so often; then it answers no more."""

    def __init__(self, bad: set[Record], answers: int) -> None:
        super().__init__("picky")
        self.bad = bad
        self.answers = answers
        self.is_stuck = False
        self.taken: list[Record] = []
        self.rejected: list[Record] = []

    def deliver(self, group: Group) -> "Deferred[Any]":
        if not self.answers:
            self.is_stuck = True
            return Deferred()
        self.answers -= 1
        refusals = []
        for batch in group.batches:
            number = int(bytes(batch.wire).partition(b".")[0])
            bad = [index for index in range(batch.count) if (number, index) in self.bad]
            self.rejected += [(number, index) for index in bad]
            self.taken += [(number, index) for index in range(batch.count) if (number, index) not in self.bad]
            if bad:
                refusals.append(Refusal(batch, None if len(bad) == batch.count else bad, "bad"))
        return succeed(Rejected(refusals) if refusals else None)


RECORD = st.tuples(st.integers(1, 6), st.integers(0, RECORDS - 1))


class RejectionTests(SpoolCase):
    @settings(max_examples=40, deadline=None)
    @given(st.sets(RECORD), st.lists(st.integers(0, 4), max_size=2), st.sampled_from([1, 60, 1 << 20]))
    def test_any_subset(self, bad: set[Record], lives: list[int], window: int) -> None:
        """
        Of any windows any records are rejected, and the process is killed after any answers.

        In each life every record is brought once, and the counts are those of the sink behind; over all lives each is
        taken or rejected, as the sink has it, and none is both.
        """
        self.patch(replay, "WINDOW_BYTES", window)
        shutil.rmtree(os.path.join(self.directory, "spool"), ignore_errors=True)
        taken: set[Record] = set()
        rejected: set[Record] = set()
        everything = {(number, index) for number in range(1, 7) for index in range(RECORDS)}
        for life, answers in enumerate([*lives, 1000]):
            inner = Picky(bad, answers)
            sink = self.make(inner)
            if not life:
                self.take(sink, *(make_batch(number, records=RECORDS) for number in (1, 2, 3)))
                self.take(sink, *(make_batch(number, records=RECORDS) for number in (4, 5, 6)))
            # Once a window is handed over the one before it is counted; at a stop, all that are taken.
            self.reactor.run_until(partial(_is_over, inner, RECORDS * 6 - len(taken | rejected)))
            if inner.is_stuck:
                self.end(sink)
            else:
                self.close(sink)
            details = sink.details()
            self.assertEqual(len(set(inner.taken + inner.rejected)), len(inner.taken + inner.rejected))
            self.assertEqual(sorted(inner.taken), inner.taken)
            self.assertEqual(
                (details["replayed_records"], details["spool_rejected_records"]),
                (len(inner.taken), len(inner.rejected)),
            )
            taken |= set(inner.taken)
            rejected |= set(inner.rejected)
        self.assertEqual((taken, rejected), (everything - bad, everything & bad))


def _is_over(inner: Picky, left: int) -> bool:
    return inner.is_stuck or len(inner.taken) + len(inner.rejected) >= left
