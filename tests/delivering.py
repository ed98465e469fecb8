"""Cases of sinks across a network, on a clock and a receiver of ours."""

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.batch import Batch, ConnectionInfo, Group
from twisted_ingest.observe.events import Events
from twisted_ingest.sinks.delivery.sink import StreamSink
from twisted_ingest.sinks.registry import SinkContext
from twisted_ingest.testing import ScriptedReceiver


def batch(*records: bytes, connection: int = 1, delimiter: bytes = b"\n") -> Batch:
    """Make a batch of one connection."""
    info = ConnectionInfo(connection, "lines", "192.0.2.1:40000", "192.0.2.1")
    return Batch(b"".join(record + delimiter for record in records), len(records), info, 0.0, delimiter)


def group(*batches: Batch) -> Group:
    """Make a group."""
    return Group(batches, sum(each.size for each in batches))


class SinkCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.events = Events(self.clock.seconds)
        self.facts: list[str] = []
        self.addCleanup(self.events.subscribe(lambda fact: self.facts.append(fact.message)))
        self.receiver = ScriptedReceiver(self.clock)
        self.charged = 0

    def charge(self, size: int) -> None:
        """Note what is kept."""
        self.charged += size

    table: Any
    """The settings of the kind."""

    def make(self, address: Any = "a:1", **keys: Any) -> StreamSink:
        """Make a sink and start it."""
        self.sink = self.make_sink(self.table(address=address, **keys))
        self.sink.start()
        self.addCleanup(self.finish)
        return self.sink

    @property
    def context(self) -> SinkContext:
        """What a sink is made with."""
        return SinkContext(
            self.clock, self.events, self.clock.seconds, sync_for=None, is_patient=False, charge=self.charge
        )

    def make_sink(self, table: Any) -> StreamSink:
        """Make a sink of the kind, connected to the receiver."""
        raise NotImplementedError

    def finish(self) -> None:
        """Whatever a test has done, nothing is left behind: no timer, no charge."""
        self.sink.abandon()
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.charged, 0)

    def deliver(self, *batches: Batch) -> list[Any]:
        """Deliver a group; gives what comes of it, once it has."""
        outcome: list[Any] = []
        _ = self.sink.deliver(group(*batches)).addBoth(outcome.append)
        return outcome

    def wait(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass."""
        while seconds > 0:
            self.clock.advance(step)
            seconds -= step
