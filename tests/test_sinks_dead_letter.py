"""Dead letters: what a sink will never take is written down before anybody is answered, and can be sent again."""

import io
import json
import os
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.delivering import batch, group
from twisted_ingest.batch import Group
from twisted_ingest.errors import DropReason, MisconfiguredError, SinkError
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.intake import Intake
from twisted_ingest.observe.events import Events
from twisted_ingest.rejected import Refusal, Rejected
from twisted_ingest.sinks import dead_letter
from twisted_ingest.sinks.dead_letter import DeadLetters, letters, main, records
from twisted_ingest.testing import MemorySink


class PickySink(MemorySink):
    """Rejects every record that begins with ``bad``."""

    def deliver(self, group: Group) -> "Deferred[Any]":
        """See `ISink`."""
        self.keep(group)
        bad = [
            Refusal(each, [index for index, record in enumerate(each.records()) if record.startswith(b"bad")], "no")
            for each in group.batches
        ]
        return succeed(Rejected(refusal for refusal in bad if refusal.records))


class DeadLettersTests(TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(os.path.abspath(self.mktemp()), "rejected.json")

    def make(self, limit: int = 1 << 20) -> DeadLetters:
        events = Events(reactor.seconds)
        sink = DeadLetters(
            PickySink("picky"), self.path, reactor=reactor, events=events, wall_time=lambda: 1.5, limit=limit
        )
        sink.start()
        self.addCleanup(sink.close)
        return sink

    def read(self, suffix: str = "") -> list[dict[str, Any]]:
        with open(self.path + suffix, "rb") as stream:
            return [json.loads(line) for line in stream]

    async def test_written_before_it_is_answered(self) -> None:
        """Each rejected record is in the file by the time its group is answered; all others are not."""
        sink = self.make()
        answer = await sink.deliver(group(batch(b"one", b"bad two"), batch(b"bad \xff\n three", delimiter=b"\0")))
        self.assertIsInstance(answer, Rejected)
        text, other = self.read()
        self.assertEqual(
            text,
            {
                "time": "1970-01-01T00:00:01.500000Z",
                "sink": "picky",
                "reason": "no",
                "listener": "lines",
                "peer": "192.0.2.1:40000",
                "received": "1970-01-01T00:00:00.000000Z",
                "record": "bad two",
            },
        )
        self.assertEqual(other["record_base64"], "YmFkIP8KIHRocmVl")
        self.assertEqual(sink.details()["dead_letter_records"], 2)
        self.assertIsNone(sink.trouble)

    async def test_behind_an_intake(self) -> None:
        """What is in front hears what was rejected, and counts it, as of any other sink."""
        sink, heard = self.make(), []
        intake = Intake(reactor, Budget(1 << 20), 1 << 20)
        intake.on_rejected = lambda *what: heard.append(what)
        intake.add_sink(sink, required=True)
        lane = intake.open_lane(intake.route())
        lane.write(batch(b"one", b"bad"))
        await intake.when_idle()
        self.assertEqual([(name, rejected.count) for name, rejected in heard], [("picky", 1)])
        self.assertEqual(len(self.read()), 1)
        tally = intake.outlets[0].tally("lines")
        self.assertEqual((tally.records_delivered, tally.records_dropped[DropReason.REJECTED]), (1, 1))

    async def test_nothing_rejected(self) -> None:
        """What is all taken costs nothing."""
        sink = self.make()
        answer = await sink.deliver(group(batch(b"one")))
        self.assertIsNone(answer)
        self.assertEqual(self.read(), [])

    async def test_rotation(self) -> None:
        """A file that is long enough is renamed, and so many are kept."""
        self.patch(dead_letter, "LETTERS_KEPT", 2)
        sink = self.make(limit=1)
        for number in range(5):
            await sink.deliver(group(batch(b"bad %d" % number)))
        found = [[letter["record"] for letter in self.read(suffix)] for suffix in (".2", ".1", "")]
        self.assertEqual(found, [["bad 2"], ["bad 3"], ["bad 4"]])
        self.assertEqual(len(os.listdir(os.path.dirname(self.path))), 3)

    async def test_full_disk(self) -> None:
        """A file that cannot be written to holds back the group, and is told as what it is; others go on."""
        self.path = "/dev/full"
        sink = self.make()
        outcome: list[Any] = []
        held = sink.deliver(group(batch(b"bad"))).addBoth(outcome.append)
        await sink.deliver(group(batch(b"good")))
        while sink.trouble is None:
            await deferLater(reactor, 0.01)
        self.assertIn("dead letters: /dev/full: cannot write: No space left", sink.trouble)
        self.assertEqual(outcome, [])
        sink.abandon()
        await held
        self.assertIs(outcome[0].type, SinkError)

    def test_path_that_is_none(self) -> None:
        """A directory in its place ends the start."""
        os.makedirs(self.path)
        with self.assertRaises(MisconfiguredError):
            self.make()


RECORDS = st.lists(st.binary(min_size=1).map(lambda data: data.replace(b"\0", b"x")), min_size=1)


class AgainTests(SynchronousTestCase):
    @given(RECORDS)
    def test_round_trip(self, some: list[bytes]) -> None:
        """Whatever a record holds, it comes back to the byte; a torn last line is passed over."""
        rejected = Rejected.whole(group(batch(*some, delimiter=b"\0")), "no")
        lines = list(letters("s", rejected, 0.0))
        self.assertEqual(list(records([*lines, b'{"torn'])), some)
        self.assertTrue(all(line.count(b"\n") == 1 for line in lines))

    def test_command(self) -> None:
        """The command writes lines, or counted frames; what is no dead letter is named."""
        path = self.mktemp()
        lines = list(letters("s", Rejected.whole(group(batch(b"one\ntwo", b"three", delimiter=b"\0")), "no"), 0.0))
        with open(path, "wb") as stream:
            stream.writelines(lines)
        for arguments, expected in (([path], b"one\\ntwo\nthree\n"), (["--counted", path], b"7 one\ntwo5 three")):
            output = io.BytesIO()
            self.assertEqual((main(arguments, output), output.getvalue()), (0, expected))
        with open(path, "ab") as stream:
            stream.write(b"{}\n{}\n")
        errors = io.StringIO()
        self.patch(sys, "stderr", errors)
        self.assertEqual(main([path], io.BytesIO()), 1)
        self.assertIn(f"{path}: error: line 3 is no dead letter", errors.getvalue())
