"""Lent bytes in what uses batches: the lines of subclasses, the sinks we ship, the doubles."""

from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.batch import Batch, Group
from twisted_ingest.flow import route
from twisted_ingest.server.lines import IngestProtocol
from twisted_ingest.testing import Lender, MemorySink, Rig, StalledSink
from twisted_ingest.testing.lending import FILLING


class Following(IngestProtocol):
    """Is given each line."""

    lines: list[bytes]

    def connectionMade(self) -> None:
        super().connectionMade()
        self.lines = []

    def lineReceived(self, line: bytes) -> None:
        self.lines.append(line)


LENDER = Lender()


class Lending:
    """A framer whose batches are lent, in place of the connection's own."""

    def __init__(self, framer: object) -> None:
        self._framer = framer

    def __getattr__(self, name: str) -> object:
        return getattr(self._framer, name)

    def feed(self, chunk: bytes, now: float) -> list[Batch]:
        batches: list[Batch] = self._framer.feed(chunk, now)  # type: ignore[attr-defined]
        for batch in batches:
            LENDER.lend(batch)
        return batches


class LenderTests(SynchronousTestCase):
    """The double with which it shows when a sink keeps bytes for too long."""

    def test_what_is_kept(self) -> None:
        """A view that somebody made of a batch's is counted, and reads nobody's bytes any more; a copy is not."""
        lender = Lender()
        group = lender.group(b"one\n", b"two\n")
        kept, copied = group.batches[0].wire[1:], group.batches[1].copy()
        lender.settle(group)
        self.assertEqual((bytes(kept), copied.wire), (FILLING * 3, b"two\n"))
        self.assertEqual((lender.lent, lender.returned, lender.kept), (2, 2, 1))
        self.assertRaises(ValueError, group.batches[1].records)

    def test_rig(self) -> None:
        """A rig lends the batches of its listener, answered or not; they come back when the last sink has answered."""
        for wire, data in (("lines", b"one\ntwo\n"), ("relp", b"1 open 0\n2 syslog 3 one\n3 syslog 3 two\n")):
            slow = StalledSink()
            rig = Rig(Keeping(), slow, wire=wire)
            rig.send(data)
            lender = rig.lender
            self.assertEqual((lender.lent, lender.returned), (1, 0))
            slow.release()
            self.assertEqual((lender.returned, lender.kept, slow.records), (1, 0, [b"one", b"two"]))
            self.assertRaises(ValueError, lambda kept: kept[0].records(), rig.sink.kept)


class Keeping(MemorySink):
    """Keeps what it may not."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Batch] = []

    def keep(self, group: Group) -> None:
        self.kept += group.batches


class ContractTests(SynchronousTestCase):
    def test_lines_outlive_their_batch(self) -> None:
        """A sink that answers at once, inside the call or later, has the bytes let go of before the lines are given."""
        for enough in (1, 1000):
            self.patch(route, "GATHER_BYTES", enough)
            self.give_lines()

    def give_lines(self) -> None:
        rig = Rig(protocol=Following)
        transport = rig.connect()
        protocol = transport.protocol
        protocol.framer = Lending(protocol.framer)
        for _ in range(3):
            transport.peer_sends(b"one\ntwo\nthree\n")
            protocol.pauseProducing()
            protocol.dataReceived(bytes(transport.unread))
            transport.unread.clear()
            rig.turn(1)
            protocol.resumeProducing()
        self.assertEqual(protocol.lines, [b"one", b"two", b"three"] * 3)
        self.assertEqual(rig.sink.records, protocol.lines)
