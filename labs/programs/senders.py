"""
The senders of the back-pressure lab: one that writes whatever its source has, one that keeps to the contract.
"""

import os
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, ServerFactory
from zope.interface import implementer

from labs.measure import Timeline, rss, send_queue, tcp_info, unsent
from labs.running import role, speak, the_reactor
from twisted_ingest.limits import KIB

PIECE = 64 * KIB
"""Bytes of one write."""

PIECES_PER_TURN = 16
"""Writes of the bare sender in one reactor turn: its source is fast, but the reactor still turns."""


class Bare(Protocol):
    """Writes what its source has, and never looks back."""

    pauses = 0

    def __init__(self, total: int, watermark: int) -> None:
        self.left = total
        self.watermark = watermark

    def connectionMade(self) -> None:
        """Begin at once."""
        self.begin()

    def begin(self) -> None:
        """Write some pieces, and go on in the next turn."""
        for _ in range(PIECES_PER_TURN):
            self.write_piece()
        if self.left:
            the_reactor().callLater(0, self.begin)
        else:
            self.transport.loseConnection()  # type: ignore[union-attr]

    def write_piece(self) -> None:
        """Write one piece, each with memory of its own, as a real source's would be."""
        size = min(PIECE, self.left)
        self.left -= size
        self.transport.write(b"x" * size)  # type: ignore[union-attr]

    def connectionLost(self, reason: object = None) -> None:
        """End the process: there was one connection."""
        the_reactor().stop()


@implementer(IPushProducer)
class Contract(Bare):
    """Registers as the transport's producer, and writes only while it is not paused."""

    paused = False

    def begin(self) -> None:
        """Register, and write until told to pause."""
        self.transport.bufferSize = self.watermark  # type: ignore[union-attr]
        self.transport.registerProducer(self, True)  # type: ignore[union-attr]
        self.resumeProducing()

    def resumeProducing(self) -> None:
        """Write until paused, or until there is nothing left."""
        self.paused = False
        while not self.paused and self.left:
            self.write_piece()
        if not self.left:
            self.transport.unregisterProducer()  # type: ignore[union-attr]
            self.transport.loseConnection()  # type: ignore[union-attr]

    def pauseProducing(self) -> None:
        """Stop writing: the transport's buffer is above its watermark."""
        self.paused = True
        self.pauses += 1

    def stopProducing(self) -> None:
        """Stop for good: the connection is gone."""
        self.paused = True


def send(mode: str, total: int, watermark: int) -> None:
    """Be a server that sends ``total`` bytes to the one client it waits for."""
    reactor = the_reactor()
    sender = (Contract if mode == "contract" else Bare)(total, watermark)
    factory = ServerFactory.forProtocol(lambda: sender)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")

    def look() -> dict[str, float]:
        transport: Any = sender.transport
        held = {"rss": float(rss(os.getpid()))}
        if transport is not None and transport.connected:
            # What Twisted keeps because the kernel did not take it: the joined part and the pieces behind it.
            held["queued"] = len(transport.dataBuffer) - transport.offset + transport._tempDataLen  # noqa: SLF001
            held |= {"outq": send_queue(transport.socket), "unsent": unsent(transport.socket)}
            held |= {key: value for key, value in tcp_info(transport.socket).items() if key.endswith("limited_us")}
        return held

    speak(port=port.getHost().port)
    with Timeline(look) as timeline:
        reactor.run()
    speak(began=timeline.began, samples=timeline.samples, pauses=sender.pauses)


if __name__ == "__main__":
    role({"send": send})
