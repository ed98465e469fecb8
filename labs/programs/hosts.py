"""
Two hosts for the half-open lab, each a network namespace, joined by a veth pair: a wire that can be cut.

The namespaces belong to these processes alone, so both are gone when these end.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from twisted.internet import defer
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from labs.running import Child, LabError, role, speak, the_reactor
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.intake import Intake
from twisted_ingest.limits import CONNECTION_MEMORY, MEMORY, SWEEP_SECONDS, ListenerLimits
from twisted_ingest.observe.events import Events
from twisted_ingest.server.admission import Admission
from twisted_ingest.server.lines import IngestFactory
from twisted_ingest.server.protocol import IngestProtocol
from twisted_ingest.sinks.null import NullSink
from twisted_ingest.sources.listener import Listener

SERVER, CLIENT = "10.77.0.1", "10.77.0.2"
"""Addresses within the two namespaces; they mean nothing outside."""

MACS = "02:00:00:00:00:01", "02:00:00:00:00:02"

LONGEST_SECONDS = 120.0
"""After this a host ends by itself, whatever it was told."""


def ip(*words: str) -> None:
    """Configure this namespace; raises `LabError` with what ``ip`` said."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)  # noqa: S607
    if done.returncode:
        raise LabError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def client_host() -> None:
    """Be the host that vanishes: connect to what we are told, send what we are told, and cut the wire."""
    signal.alarm(int(LONGEST_SECONDS))
    speak(pid=os.getpid())
    sys.stdin.readline()
    ip("address", "add", f"{CLIENT}/30", "dev", "lab1")
    ip("link", "set", "lab1", "up")
    speak(up=True)
    peers = connect(SERVER)
    speak(connected=len(peers))
    sys.stdin.readline()
    ip("link", "set", "lab1", "down")
    speak(gone_at=time.monotonic())
    sys.stdin.readline()


def sitter() -> None:
    """Be a client on the server's own host: connect and sit there."""
    peers = connect("127.0.0.1")
    speak(connected=len(peers))
    sys.stdin.readline()


def connect(host: str) -> list[socket.socket]:
    """Read ``port text`` lines up to an empty one; connect to each, and send the text with its ``;`` as LF."""
    peers = []
    while words := sys.stdin.readline().split():
        peer = socket.create_connection((host, int(words[0])), 10)
        peer.sendall(words[1].replace(";", "\n").encode())
        peers.append(peer)
    return peers


class Watched(IngestProtocol):
    """Our protocol, which also notes when it learned of its end, and how."""

    ended_at: float | None = None

    def connectionLost(self, reason: Failure = Failure(defer.CancelledError())) -> None:  # noqa: B008
        """See the base class."""
        super().connectionLost(reason)
        self.ended_at = time.monotonic()


class Case:
    """One way to notice: a listener with its settings, and the one connection it gets."""

    def __init__(self, name: str, settings: dict[str, Any], intake: Intake, events: Events) -> None:
        self.name = name
        self.settings = settings
        self.connection: Watched | None = None
        self._admission = Admission(10)
        self._events = events
        reactor = the_reactor()
        limits = ListenerLimits(
            idle_timeout_seconds=settings.get("idle"),
            idle_until_first_record=False,
            frame_timeout_seconds=settings.get("frame"),
        )
        self.factory = IngestFactory(
            "lab",
            limits,
            intake=intake,
            admission=self._admission,
            events=events,
            clock=reactor,
            wall_time=time.time,
        )
        self.factory.protocol = Watched
        self.listener = Listener("tcp:0", self.factory, reactor, self._admission)

    async def listen(self) -> int:
        """Listen as the server does, then replace the socket options it sets by the case's; gives the port."""
        self.listener.bind()
        listening = self.listener.port.socket
        keepalive = self.settings.get("keepalive")
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(keepalive is not None))
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        for option, value in zip(names, keepalive or (), strict=False):
            listening.setsockopt(socket.IPPROTO_TCP, option, value)
        user_timeout = int(self.settings.get("user_timeout", 0) * 1000)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout)
        port: int = self.listener.port.getHost().port
        return port

    def find(self) -> bool:
        """Note the connection once it is there and has said what it was told to say."""
        for connection in self.factory.connections.values():
            if isinstance(connection, Watched) and connection.bytes_received:
                self.connection = connection
        return self.connection is not None

    def result(self, gone_at: float) -> dict[str, Any]:
        """Say after how many seconds the server knew (``None``: it does not), and what it took it for."""
        assert self.connection is not None  # noqa: S101 - `find` has found it
        ended, reason = self.connection.ended_at, self.connection.close_reason
        return {"seconds": None if ended is None else ended - gone_at, "reason": reason and reason.value}


class World:
    """The server's host, the wire, and the order of events."""

    def __init__(self, cases: dict[str, dict[str, Any]], watch: float) -> None:
        reactor = the_reactor()
        events, intake = Events(reactor.seconds), Intake(reactor, Budget(MEMORY), CONNECTION_MEMORY)
        intake.add_sink(NullSink("null"), required=True)
        self.cases = {name: Case(name, settings, intake, events) for name, settings in cases.items()}
        self.watch = watch
        self.ports: dict[str, int] = {}

    async def run(self) -> None:
        """Have everybody connect, cut the wire, and watch who notices."""
        for name, case in self.cases.items():
            self.ports[name] = await case.listen()
        sweeper = LoopingCall(self.sweep)
        _ = sweeper.start(SWEEP_SECONDS)
        with Child("labs.programs.hosts", "client_host", ["unshare", "-n"]) as client:
            join(client)
            killed, stopped = (self.sitting(fate) for fate in ("killed", "stopped"))
            with killed, stopped:
                self.send_orders(client, None)
                while not all(case.find() for case in self.cases.values()):
                    await self.pause(0.01)
                speak(progress="all connected; the wire is cut")
                await self.watch_them(client, killed, stopped)
        sweeper.stop()

    def sitting(self, fate: str) -> Child:
        """Start a client on this host, which shall come to this end."""
        child = Child("labs.programs.hosts", "sitter")
        self.send_orders(child, fate)
        return child

    def send_orders(self, child: Child, fate: str | None) -> None:
        """Tell a client which ports are for it; waits until it has connected."""
        for name, case in self.cases.items():
            if case.settings.get("fate") == fate:
                child.say(f"{self.ports[name]} {case.settings.get('sends', 'line;')}")
        child.say("")
        child.hear()

    async def watch_them(self, client: Child, killed: Child, stopped: Child) -> None:
        """Let them vanish, each in its way; speaks the results."""
        client.say("vanish")
        gone_at = client.hear()["gone_at"]
        killed.process.kill()
        stopped.process.send_signal(signal.SIGSTOP)
        for case in self.cases.values():
            if case.settings.get("write") and case.connection is not None:
                case.connection.transport.write(b"are you there?\n")
        while (passed := time.monotonic() - gone_at) < self.watch or (passed < 3 * self.watch and self.awaited()):
            await self.pause(0.05)
        watched = time.monotonic() - gone_at
        speak(watched=watched, results={name: case.result(gone_at) for name, case in self.cases.items()})

    def awaited(self) -> bool:
        """Whether a connection is still there that should not be: on a busy machine it gets more time."""
        return any(case.factory.connections for case in self.cases.values() if case.settings.get("ends", True))

    def sweep(self) -> None:
        """Look at deadlines, as the server's own sweep does."""
        for case in self.cases.values():
            case.factory.sweep(the_reactor().seconds())

    def pause(self, seconds: float) -> "defer.Deferred[None]":
        """Let the reactor run."""
        return deferLater(the_reactor(), seconds)


def join(client: Child) -> None:
    """Lay the wire between this namespace and the client's."""
    ip("link", "set", "lo", "up")
    ends = "lab0", "lab1"
    peer = ("peer", "name", ends[1], "address", MACS[1], "netns", str(client.hear()["pid"]))
    ip("link", "add", "name", ends[0], "address", MACS[0], "type", "veth", *peer)
    ip("address", "add", f"{SERVER}/30", "dev", ends[0])
    ip("link", "set", ends[0], "up")
    # Known for good: a router between two hosts would not tell us either that the other one is gone.
    ip("neighbour", "add", CLIENT, "lladdr", MACS[1], "dev", ends[0], "nud", "permanent")
    client.say("configure")
    client.hear()


def server_host(cases: dict[str, dict[str, Any]], watch: float, retries: int) -> None:
    """Be the server's host: a reactor in a namespace of its own, whose ``tcp_retries2`` is set to ``retries``."""
    signal.alarm(int(LONGEST_SECONDS))
    with open("/proc/sys/net/ipv4/tcp_retries2", "w") as stream:
        stream.write(str(retries))
    reactor, failures = the_reactor(), list[Failure]()
    world = defer.ensureDeferred(World(cases, watch).run())
    _ = world.addErrback(failures.append)
    _ = world.addBoth(lambda _: reactor.callLater(0, reactor.stop))
    reactor.run()
    if failures:
        failures[0].raiseException()


if __name__ == "__main__":
    role({"server_host": server_host, "client_host": client_host, "sitter": sitter})
