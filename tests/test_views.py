"""Lent bytes in what uses batches: the lines of subclasses, the sinks we ship, the doubles."""

from twisted.trial.unittest import SynchronousTestCase

from tests.test_flow_leases import Buffer
from twisted_ingest.batch import Batch
from twisted_ingest.flow import route
from twisted_ingest.server.lines import IngestProtocol
from twisted_ingest.testing import Rig


class Following(IngestProtocol):
    """Is given each line."""

    lines: list[bytes]

    def connectionMade(self) -> None:
        super().connectionMade()
        self.lines = []

    def lineReceived(self, line: bytes) -> None:
        self.lines.append(line)


class Lending:
    """A framer whose batches are lent, in place of the connection's own."""

    def __init__(self, framer: object) -> None:
        self._framer = framer

    def __getattr__(self, name: str) -> object:
        return getattr(self._framer, name)

    def feed(self, chunk: bytes, now: float) -> list[Batch]:
        batches: list[Batch] = self._framer.feed(chunk, now)  # type: ignore[attr-defined]
        for batch in batches:
            buffer = Buffer(bytes(batch.wire))
            batch.wire, batch.lease = memoryview(buffer.memory), buffer
        return batches


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
