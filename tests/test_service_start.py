"""The service inside somebody else's process: it starts, fails, stops and starts again, and leaves its host alone."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from twisted_ingest.config.load import load
from twisted_ingest.errors import IngestError, ListenError, SinkError
from twisted_ingest.process.announce import Summary
from twisted_ingest.service import IngestService
from twisted_ingest.testing import Mode, ScriptedSink

ANY = "tcp:0:interface=127.0.0.1"


class StartCase(TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="ingest-test-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "lines.log")

    def service(self, *sinks: str, listen: str = ANY, **flags: str) -> IngestService:
        """Make a service; its sinks are a file unless they are named."""
        loaded = load(None, {"admin": "off", **flags}, [listen], list(sinks) or [f"file:{self.path}"], [])
        service = IngestService(loaded, reactor)
        self.addCleanup(lambda: maybeDeferred(service.stopService))
        return service

    async def send(self, service: IngestService, data: bytes) -> None:
        """Send what the kernel takes at once; wait until it was received and delivered."""
        received = service.listeners[0].ledger.bytes_received
        with socket.create_connection(("127.0.0.1", service.listeners[0].port.getHost().port)) as peer:
            peer.sendall(data)
        await self.until(
            lambda: service.listeners[0].ledger.bytes_received == received + len(data) and service.intake.is_idle
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(1000):
            if condition():
                return
            await deferLater(reactor, 0.01)
        self.fail("not within ten seconds")

    def held(self) -> tuple[int, set[str]]:
        """Count what the process holds: descriptors, and the names of our threads."""
        threads = {thread.name for thread in threading.enumerate() if thread.name.startswith("ingest")}
        descriptors = 0
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the one by which we look
                # Twisted keeps one of these, from its first port on.
                descriptors += os.readlink(f"/proc/self/fd/{number}") != os.devnull
        return descriptors, threads

    def holds_no_more_than(self, before: tuple[int, set[str]]) -> bool:
        # What other tests have left to the garbage collector may go meanwhile.
        descriptors, threads = self.held()
        return descriptors <= before[0] and threads <= before[1]


class StartTests(StartCase):
    async def test_start_and_stop(self) -> None:
        """Binding is part of a start; ready is told, and the end with a summary."""
        service = self.service()
        ready, stopped = service.when_ready(), service.when_stopped()
        service.startService()
        await ready
        await self.send(service, b"one\ntwo\n")
        await service.stopService()
        summary = await stopped
        self.assertEqual((summary.records, summary.delivered, summary.is_whole), (2, {"file": 2}, True))
        await service.when_ready()

    async def test_twice(self) -> None:
        """A second start says why not, and changes nothing."""
        service = self.service()
        service.startService()
        port = service.listeners[0].port
        with self.assertRaisesRegex(IngestError, "running already"):
            service.startService()
        self.assertIs(service.listeners[0].port, port)
        await service.when_ready()
        await self.send(service, b"one\n")
        first, second = service.stopService(), service.stopService()
        with self.assertRaisesRegex(IngestError, "still stopping"):
            service.startService()
        await first
        await second
        await service.stopService()

    async def test_again_after_a_stop(self) -> None:
        """A service that was stopped can be started again, with counts that begin anew."""
        service = self.service()
        for _ in range(2):
            service.startService()
            await service.when_ready()
            await self.send(service, b"one\n")
            await service.stopService()
            self.assertEqual((await service.when_stopped()).records, 1)
        with open(self.path, "rb") as stream:
            self.assertEqual(stream.read(), b"one\none\n")

    async def test_again_after_a_stop_of_what_was_not_started(self) -> None:
        """A stop before the start, bound or not, takes nothing from the start that follows."""
        for was_bound in (False, True):
            service = self.service()
            ready = service.when_ready()
            if was_bound:
                service.privilegedStartService()
            await service.stopService()
            service.startService()
            await ready
            await self.send(service, b"one\n")
            await service.stopService()
            self.assertEqual((await service.when_stopped()).records, 1)

    async def test_second_sink_fails(self) -> None:
        """A start whose second sink fails leaves nothing behind; the next one works once the reason is gone."""
        second = os.path.join(self.folder, "second")
        os.mkdir(second)
        await deferLater(reactor, 0)  # the reactor has its own descriptors by then
        before = self.held()
        service = self.service(f"file:{self.path}", f"file:{second}")
        ready, stopped = service.when_ready(), service.when_stopped()
        with self.assertRaisesRegex(SinkError, "Is a directory"):
            service.startService()
        for told in (ready, service.when_ready()):
            await self.assertFailure(told, SinkError)
        await self.assertFailure(stopped, SinkError)
        self.assertFalse(service.running)
        await self.until(lambda: self.holds_no_more_than(before))
        os.rmdir(second)
        service.startService()
        await service.when_ready()
        await self.send(service, b"one\n")
        await service.stopService()
        self.assertEqual((await service.when_stopped()).delivered, {"file": 1, "file-2": 1})
        await self.until(lambda: self.holds_no_more_than(before))

    async def test_second_spool_fails(self) -> None:
        """The same where the first sink has a spool: its directory is free again for the next start."""
        second = os.path.join(self.folder, "second")
        os.mkdir(second)
        config = os.path.join(self.folder, "ingest.toml")
        with open(config, "w") as stream:
            stream.write(
                f'[listeners.a]\nendpoint = "{ANY}"\n[spool]\ndirectory = "{self.folder}/spool"\n'
                f'[sinks.a]\ntype = "file"\npath = "{self.path}"\nspool = true\n'
                f'[sinks.b]\ntype = "file"\npath = "{second}"\n'
            )
        await deferLater(reactor, 0)  # the reactor has its own descriptors by then
        before = self.held()
        service = IngestService(load(config, {"admin": "off"}, [], [], []), reactor)
        with self.assertRaises(SinkError):
            service.startService()
        await self.until(lambda: self.holds_no_more_than(before))
        os.rmdir(second)
        service.startService()
        await self.send(service, b"one\n")
        await service.stopService()
        await self.until(lambda: self.holds_no_more_than(before))

    async def test_address_in_use(self) -> None:
        """An address that cannot be bound fails the start, and nobody else's reactor ends."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            service = self.service(listen=f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1")
            for start in (service.privilegedStartService, service.startService):
                with self.assertRaises(ListenError):
                    start()
                await self.assertFailure(service.when_ready(), ListenError)
        service.startService()
        await service.when_ready()

    async def test_bound_and_not_started(self) -> None:
        """A service that was bound and never started lets go of its port when it is stopped."""
        service = self.service()
        service.privilegedStartService()
        port = service.listeners[0].port.getHost().port
        await service.stopService()
        await deferLater(reactor, 0)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))

    async def test_host_stays_its_own(self) -> None:
        """Signals, limits and the interpreter are as they were, while it runs and afterwards."""
        service = self.service()
        await deferLater(reactor, 0)  # the reactor has taken its signals by then
        before = self.host()
        service.startService()
        await service.when_ready()
        self.assertEqual(self.host(), before)
        await service.stopService()
        self.assertEqual(self.host(), before)

    def host(self) -> tuple[object, ...]:
        handlers = [signal.getsignal(number) for number in sorted(signal.valid_signals())]
        return handlers, resource.getrlimit(resource.RLIMIT_NOFILE), sys.getswitchinterval(), reactor.seconds

    async def test_sink_that_fails_for_good(self) -> None:
        """A required sink that fails for good stops the service, which says so, and not the reactor."""
        service = self.service("null:")
        service.startService()
        await service.when_ready()
        outlet = service.intake.outlets[0]
        outlet.sink = sink = ScriptedSink()
        sink.mode = Mode.REFUSE
        stopped: Deferred[Summary] = service.when_stopped()
        with socket.create_connection(("127.0.0.1", service.listeners[0].port.getHost().port)) as peer:
            peer.sendall(b"lost\n")
        await self.assertFailure(stopped, SinkError)
        self.assertFalse(service.running)
        self.flushLoggedErrors()
