"""An HTTP server that says what a test tells it to, byte for byte, and a poller that asks it."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from twisted_ingest.errors import PollResult
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.intake import Intake
from twisted_ingest.ledger import Balance
from twisted_ingest.limits import MIB
from twisted_ingest.observe.events import Events
from twisted_ingest.sources.plan import PollPlan
from twisted_ingest.sources.poller import HttpPoller
from twisted_ingest.sources.url import Url
from twisted_ingest.testing import MemorySink

reactor: Any = the_reactor

TURNS = 2000
"""Looks at a condition at most, 5 ms apart."""

Answer = Callable[["Talker"], None]


class Talker(Protocol):
    """One connection: hears a request, and lets the script answer it."""

    factory: "Script"
    transport: Any

    def connectionMade(self) -> None:
        """Count it."""
        self.factory.open.append(self)
        self._heard = b""

    def dataReceived(self, data: bytes) -> None:
        """Answer a whole request."""
        self._heard += data
        if self.factory.is_eager:
            self.factory.next_answer()(self)
        elif self._heard.endswith(b"\r\n\r\n"):
            self.factory.requests.append(self._heard)
            self._heard = b""
            self.factory.next_answer()(self)

    def connectionLost(self, reason: Any = None) -> None:
        """Count it."""
        self.factory.open.remove(self)
        self.factory.closed += 1


class Script(Factory):
    """Answers requests in turn with what it was given, the last one again and again."""

    protocol: Any = Talker
    noisy = False

    def __init__(self, *answers: "bytes | Answer") -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.open: list[Talker] = []
        self.port = 0
        self.closed = 0
        self.is_eager = False
        """Whether the first bytes are answered, whatever they are."""

    def next_answer(self) -> Answer:
        """Give what answers the next request."""
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, bytes):
            data = answer
            return lambda talker: talker.transport.write(data)
        return answer


def answer(body: bytes = b"", status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    """Write an answer; ``length`` is what it says of its body, where that is not so."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def header(request: bytes, name: str) -> str | None:
    """Give a header of a request."""
    for line in request.decode().split("\r\n")[1:]:
        key, _, value = line.partition(": ")
        if key.lower() == name.lower():
            return value
    return None


class PollingTestCase(TestCase):
    """Pollers on a virtual clock that ask real servers on loopback."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sink: Any = self.make_sink()
        self.events = Events(self.clock.seconds)
        self.intake = Intake(self.clock, Budget(64 * MIB), 2 * MIB)
        self.intake.on_bug = self.events.bug
        self.outlet = self.intake.add_sink(self.sink, required=True)
        self.ids = count(1)
        self.pollers: list[HttpPoller] = []
        self.addCleanup(self.end)

    def make_sink(self) -> MemorySink:
        """Make the sink."""
        return MemorySink()

    async def turn(self) -> None:
        """Let the reactor turn."""
        await deferLater(reactor, 0.001)

    async def _end(self) -> None:
        for poller in self.pollers:
            await poller.stop()
            poller.end_drain()
            self.check(poller)
        await self.until(lambda: all(poller.is_drained for poller in self.pollers))
        self.clock.advance(1)  # the intake gathers
        # Nothing that was begun may outlast its poller.
        self.assertEqual((self.intake.lanes, self.clock.getDelayedCalls()), (set(), []))
        await self.until(lambda: not any(script.open for script in self.scripts))

    def end(self) -> "Deferred[None]":
        """Stop the pollers, and see that nothing is left."""
        return Deferred.fromCoroutine(self._end())

    @property
    def scripts(self) -> Sequence[Script]:
        """All servers of the test."""
        return self._scripts

    _scripts: Sequence[Script] = ()

    def serve(self, *answers: "bytes | Answer") -> Script:
        """Start a server that follows a script."""
        script = Script(*answers)
        port: Any = reactor.listenTCP(0, script, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        script.port = port.getHost().port
        self._scripts = [*self._scripts, script]
        return script

    def url(self, script: Script, path: str = "/log") -> str:
        """Give where a server answers."""
        return f"http://127.0.0.1:{script.port}{path}"

    def poller(self, url: str, **plan: Any) -> HttpPoller:
        """Start a poller; its first poll begins when the clock moves."""
        poller = HttpPoller(
            f"poll-{len(self.pollers)}",
            PollPlan(url=Url.parse(url), **plan),
            intake=self.intake,
            events=self.events,
            clock=self.clock,
            reactor=reactor,
            wall_time=self.clock.seconds,
            ids=self.ids,
            chance=lambda: 0.5,
        )
        poller.bind()
        poller.start()
        self.pollers.append(poller)
        return poller

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for something to come true."""
        for _ in range(TURNS):
            if true():
                return
            await deferLater(reactor, 0.005)
        self.fail("it never came true")

    async def done(self, poller: HttpPoller, polls: int = 1) -> list[PollResult]:
        """Wait until so many polls have ended; gives how all of them did."""
        await self.until(lambda: sum(poller.ledger.polls.values()) >= polls)
        self.clock.advance(0.01)  # the intake gathers
        self.check(poller)
        return [result for result, number in poller.ledger.polls.items() for _ in range(number)]

    async def once(self, url: str, **plan: Any) -> HttpPoller:
        """Poll once."""
        poller = self.poller(url, **plan)
        self.clock.advance(1)
        await self.done(poller)
        return poller

    def check(self, poller: HttpPoller) -> None:
        """See that every byte and every record is accounted for."""
        held = poller.balance().buffered_bytes
        self.assertEqual(Balance.of_bytes(poller.ledger, held).error, 0)
        in_flight = self.intake.in_flight(self.outlet)[poller.name]
        self.assertEqual(Balance.of_records(poller.ledger, self.outlet.tally(poller.name), in_flight).error, 0)
