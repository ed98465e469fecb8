"""What is said to a peer goes out at once, in order, and never raises."""

import socket
from typing import Any

from twisted.internet import main
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from tests.test_server_readiness import Bugs, Watcher
from twisted_ingest.server.reading import PortReading
from twisted_ingest.server.transports import UNIXTransport


class Writers(Watcher):
    """A reactor as far as watching goes, for what is written too."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: list[Any] = []

    def addWriter(self, writer: object) -> None:
        if writer not in self.writers:
            self.writers.append(writer)

    def removeWriter(self, writer: object) -> None:
        if writer in self.writers:
            self.writers.remove(writer)


class WriteTests(SynchronousTestCase):
    def setUp(self) -> None:
        ours, self.peer = socket.socketpair()
        self.addCleanup(self.peer.close)
        self.addCleanup(ours.close)
        ours.setblocking(False)
        self.reactor = Writers()
        reading = PortReading(self.reactor, Bugs())
        if reading.readiness is not None:
            self.addCleanup(reading.readiness.connectionLost, None)  # type: ignore[arg-type]
        self.transport = UNIXTransport(ours, Protocol(), "", reading, self.reactor)

    def test_at_once(self) -> None:
        """What the kernel takes goes out before the call returns, and the reactor hears nothing of it."""
        self.transport.write(b"one")
        self.transport.write(b"")
        self.transport.write(b"two")
        self.assertEqual(self.peer.recv(100), b"onetwo")
        self.assertEqual(self.reactor.writers, [])

    def test_in_order(self) -> None:
        """What the kernel does not take is sent by the reactor, and nothing before it that was written behind it."""
        expected = bytes(range(256)) * 16384
        self.transport.write(expected)
        self.assertEqual(self.reactor.writers, [self.transport])
        got = self.peer.recv(1 << 16)
        self.transport.write(b"behind")
        while self.reactor.writers:
            self.assertIsNone(self.transport.doWrite())
            got += self.peer.recv(1 << 20)
        self.peer.setblocking(False)
        while len(got) < len(expected) + 6:
            got += self.peer.recv(1 << 20)
        self.assertEqual(got, expected + b"behind")

    def test_a_peer_that_is_gone(self) -> None:
        """A broken socket raises nothing here: the reactor finds it broken, and ends the connection as ever."""
        self.peer.close()
        self.transport.write(b"to nobody")
        self.assertEqual(self.reactor.writers, [self.transport])
        self.assertIs(self.transport.doWrite(), main.CONNECTION_LOST)
