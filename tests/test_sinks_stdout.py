"""The sink on standard output: a reader that stalls holds deliveries back and never the reactor."""

import fcntl
import os

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from twisted_ingest.batch import Batch, ConnectionInfo, Group
from twisted_ingest.errors import SinkError
from twisted_ingest.interfaces import ISink
from twisted_ingest.limits import KIB, MIB
from twisted_ingest.observe.events import Events
from twisted_ingest.sinks.stdout import StdoutSink
from twisted_ingest.storage import trouble

INFO = ConnectionInfo(1, "test", "192.0.2.1:1", "192.0.2.1")


def group(wire: bytes) -> Group:
    """Make a group of one batch."""
    return Group([Batch(wire, wire.count(b"\n"), INFO, 0.0)], len(wire))


def read_exactly(descriptor: int, size: int) -> bytes:
    """Read so many bytes."""
    data = b""
    while len(data) < size:
        data += os.read(descriptor, size - len(data))
    return data


class StdoutTests(TestCase):
    timeout = 10

    def setUp(self) -> None:
        self.patch(trouble, "RETRY_SECONDS", (0.001, 0.002))
        self.reader, self.descriptor = os.pipe()
        fcntl.fcntl(self.descriptor, fcntl.F_SETPIPE_SZ, 4 * KIB)
        self.addCleanup(os.close, self.descriptor)
        self.addCleanup(self.close_reader)

    def close_reader(self) -> None:
        """Be the reader that goes away."""
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1

    def started(self) -> StdoutSink:
        """Start a sink that ends with the test, before the pipe does: its reader goes first, so no thread stays."""
        events = Events(reactor.seconds)
        sink = StdoutSink("stdout", reactor=reactor, events=events, descriptor=self.descriptor)
        self.addCleanup(sink.close)
        self.addCleanup(self.close_reader)
        sink.start()
        return sink

    async def stall(self, sink: StdoutSink) -> None:
        """See that deliveries wait for the reader, the reactor does not, and every line comes."""
        lines = [b"%05d\n" % number for number in range(MIB // 24)]
        blocks = [b"".join(lines[start : start + 10_000]) for start in range(0, len(lines), 10_000)]
        deliveries = [sink.deliver(group(block)) for block in blocks]
        got = await deferToThread(read_exactly, self.reader, 100)
        # The pipe holds 4 KiB: nothing can have been taken whole.
        for delivered in deliveries:
            self.assertNoResult(delivered)
        size = sum(map(len, blocks))
        got += await deferToThread(read_exactly, self.reader, size - len(got))
        for delivered in deliveries:
            await delivered
        self.assertEqual(got, b"".join(lines))
        self.assertIsNone(sink.trouble)

    def test_is_a_sink(self) -> None:
        """The sink keeps the contract of sinks."""
        self.assertTrue(verifyObject(ISink, self.started()))

    async def test_stalled_reader(self) -> None:
        """A full pipe holds deliveries back until its reader reads on; the reactor runs meanwhile."""
        await self.stall(self.started())

    async def test_stalled_reader_of_a_non_blocking_pipe(self) -> None:
        """A pipe that somebody left non-blocking is waited for in the same way, without an error."""
        os.set_blocking(self.descriptor, False)
        sink = self.started()
        await self.stall(sink)
        self.assertEqual(sink.details()["retries"], 0)

    async def test_reader_gone(self) -> None:
        """When the reader is gone everything outstanding and everything after it fails, and the sink says why."""
        self.close_reader()
        sink = self.started()
        deliveries = [sink.deliver(group(b"one\n")), sink.deliver(group(b"two\n"))]
        for delivered in deliveries:
            with self.assertRaisesRegex(SinkError, "Broken pipe"):
                await delivered
        self.assertEqual(sink.trouble, "standard output: Broken pipe")
        await self.assertFailure(sink.deliver(group(b"three\n")), SinkError)
        await sink.close()

    async def test_reader_goes_while_it_stalls(self) -> None:
        """A reader that goes away with the pipe full ends the wait of a blocking and of a non-blocking pipe."""
        for blocking in (True, False):
            if not blocking:
                self.reader, descriptor = os.pipe()
                os.dup2(descriptor, self.descriptor)
                os.close(descriptor)
            os.set_blocking(self.descriptor, blocking)
            sink = self.started()
            delivered = sink.deliver(group(b"x\n" * MIB))
            await deferToThread(read_exactly, self.reader, 10)
            self.close_reader()
            await self.assertFailure(delivered, SinkError)

    async def test_abandon_a_stalled_reader(self) -> None:
        """Abandoning fails what waits for a stalled reader at once, and lets a close that waits for it go."""
        for blocking in (True, False):
            os.set_blocking(self.descriptor, blocking)
            sink = self.started()
            delivered = sink.deliver(group(b"x\n" * MIB))
            await deferToThread(read_exactly, self.reader, 10)
            closed = sink.close()
            self.assertNoResult(closed)
            sink.abandon()
            await self.assertFailure(delivered, SinkError)
            self.successResultOf(closed)
            # Whatever the left-behind thread waits in ends with its reader.
            self.close_reader()
            self.reader, descriptor = os.pipe()
            os.dup2(descriptor, self.descriptor)
            os.close(descriptor)

    async def test_descriptor_stays_open(self) -> None:
        """Closing the sink writes what it has, and leaves the stream to its owner."""
        sink = self.started()
        delivered = sink.deliver(group(b"one\n"))
        await sink.close()
        self.successResultOf(delivered)
        os.write(self.descriptor, b"two\n")
        self.assertEqual(os.read(self.reader, KIB), b"one\ntwo\n")

    async def test_reopen_changes_nothing(self) -> None:
        """There is nothing to rotate about a stream."""
        sink = self.started()
        sink.reopen()
        await sink.deliver(group(b"one\n"))
        self.assertEqual(os.read(self.reader, KIB), b"one\n")
