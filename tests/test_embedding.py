"""What docs/embedding.md shows, run as it stands; and what the service says of parts that cannot work together."""

import contextlib
import importlib.util
import os
import pathlib
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from functools import partial
from types import ModuleType
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.clients import free_port
from tests.server import PATIENCE, wait_until
from tests.test_service_start import ANY, StartCase
from twisted_ingest.config.load import load
from twisted_ingest.errors import ConfigurationError, Durability, IngestError
from twisted_ingest.server.protocol import IngestProtocol
from twisted_ingest.service import IngestService
from twisted_ingest.sources.registry import source_types
from twisted_ingest.testing import MemorySink

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLES = ROOT / "examples" / "embedding"
INCLUDED = re.compile(
    r"^\[`(examples/embedding/\S+)`\]\(\.\./\1\), .*:\n\n```python\n((?:(?!```).*\n)*)```$", re.MULTILINE
)
"""An example on the page: the link to it, then what it holds."""


def example(name: str) -> ModuleType:
    """Import an example as a reader would run it."""
    spec = importlib.util.spec_from_file_location(f"embedding_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class PageTests(SynchronousTestCase):
    def test_page_shows_what_is_tested(self) -> None:
        """Every example is on the page, with exactly what its file holds."""
        files = {str(path.relative_to(ROOT)) for path in EXAMPLES.iterdir() if path.is_file()}
        shown = dict(INCLUDED.findall((ROOT / "docs" / "embedding.md").read_text()))
        self.assertEqual(set(shown), files)
        for name, text in shown.items():
            self.assertEqual(text, (ROOT / name).read_text(), name)


class Client(Protocol):
    """Collects what it is told."""

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received += data

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Say so."""
        self.lost.callback(None)


class ExampleCase(StartCase):
    async def client(self, service: IngestService) -> Client:
        """Connect to the only listener."""
        port = service.listeners[0].port.getHost().port
        client: Client = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Client())
        return client

    def started(self, service: IngestService) -> IngestService:
        """Start, and stop with the test."""
        self.addCleanup(lambda: maybeDeferred(service.stopService))
        service.startService()
        return service


class OwnProtocolTests(ExampleCase):
    async def test_it_talks(self) -> None:
        """The example answers in order, waits for its work, and hangs up; the file has every line."""
        service = self.started(example("own_protocol").make_service(reactor, ANY, self.path))
        client = await self.client(service)
        client.transport.write(b"ping\nwait\nping\nquit\nlate\n")
        await client.lost
        self.assertEqual(client.received, b"pong\ndone\npong\n")
        await self.until(lambda: service.intake.is_idle)
        with open(self.path, "rb") as stream:
            self.assertEqual(stream.read(), b"ping\nwait\nping\nquit\nlate\n")

    async def test_again(self) -> None:
        """A class that was set holds in every start."""
        service = example("own_protocol").make_service(reactor, ANY, self.path)
        for _ in range(2):
            self.started(service)
            client = await self.client(service)
            client.transport.write(b"ping\nquit\n")
            await client.lost
            self.assertEqual(client.received, b"pong\n")
            await service.stopService()


class OwnSinkTests(ExampleCase):
    def setUp(self) -> None:
        super().setUp()
        self.table = os.path.join(self.folder, "records.db")

    def rows(self) -> list[bytes]:
        with contextlib.closing(sqlite3.connect(self.table)) as database:
            return [record for (record,) in database.execute("SELECT record FROM records ORDER BY rowid")]

    async def open(self, service: IngestService) -> Client:
        client = await self.client(service)
        offers = b"relp_version=0\ncommands=syslog"
        client.transport.write(b"1 open %d %s\n" % (len(offers), offers))
        await self.until(lambda: b"200 OK" in client.received)
        return client

    async def test_answers_wait_for_the_table(self) -> None:
        """A record is answered once it is committed, not while the database is locked, which ``trouble`` names."""
        module: Any = example("own_sink")
        module.RETRY_SECONDS = 0.05
        service = self.started(module.make_service(reactor, ANY, self.table))
        client = await self.open(service)
        client.transport.write(b"2 syslog 5 first\n")
        await self.until(lambda: b"2 rsp 6 200 OK" in client.received)
        self.assertEqual(self.rows(), [b"first"])
        with contextlib.closing(sqlite3.connect(self.table)) as other:
            other.execute("BEGIN EXCLUSIVE")
            client.transport.write(b"3 syslog 6 second\n")
            # Python's own patience with a locked database is five seconds.
            await self.until(lambda: service.sinks[0].trouble is not None)
            self.assertNotIn(b"3 rsp", client.received)
            self.assertIn("locked", str(service.sinks[0].trouble))
        await self.until(lambda: b"3 rsp 6 200 OK" in client.received)
        self.assertEqual((self.rows(), service.sinks[0].details()), ([b"first", b"second"], {"rows": 2}))
        await service.stopService()
        await client.lost
        self.assertEqual((await service.when_stopped()).delivered, {"sqlite": 2})

    async def test_start_that_fails(self) -> None:
        """A table that cannot be opened ends the start and leaves nothing; later it works."""
        self.table = os.path.join(self.folder, "none", "records.db")
        service = example("own_sink").make_service(reactor, ANY, self.table)
        await deferLater(reactor, 0)
        before = self.held()
        with self.assertRaisesRegex(IngestError, "cannot open .*records.db"):
            service.startService()
        await self.until(lambda: self.holds_no_more_than(before))
        os.mkdir(os.path.dirname(self.table))
        self.started(service)
        client = await self.open(service)
        client.transport.write(b"2 syslog 1 a\n")
        await self.until(lambda: b"2 rsp 6 200 OK" in client.received)
        await service.stopService()
        await client.lost
        self.assertEqual(self.rows(), [b"a"])


class PartsTests(StartCase):
    """What the service says of parts of one's own."""

    def own(self, *sinks: str, **options: Any) -> IngestService:
        loaded = load(None, {"admin": "off"}, [], list(sinks), [], has_own_sinks=True, **options)
        service = IngestService(loaded, reactor)
        self.addCleanup(lambda: maybeDeferred(service.stopService))
        return service

    def sink(self, name: str, durability: Durability) -> MemorySink:
        made = MemorySink(name)
        made.durability = durability
        return made

    def test_durability(self) -> None:
        """A required sink that gives less than a listener promises is refused, with what to do; others are not."""
        for durability, required, is_good in (
            (Durability.MEMORY, True, False),
            (Durability.WRITTEN, True, False),
            (Durability.FSYNC, True, True),
            (Durability.MEMORY, False, True),
        ):
            with self.subTest(durability=durability, required=required):
                service = self.own(f"file:{self.path}", relp=[ANY])
                service.add_sink(partial(self.sink, "own", durability), required=required)
                if is_good:
                    service.privilegedStartService()
                else:
                    with self.assertRaisesRegex(ConfigurationError, "'own' gives .*required=False, or set durability"):
                        service.privilegedStartService()

    def test_of_plain_lines(self) -> None:
        """A listener that promises nothing takes any sink."""
        service = IngestService(load(None, {"admin": "off"}, [ANY], [], [], has_own_sinks=True), reactor)
        self.addCleanup(lambda: maybeDeferred(service.stopService))
        service.add_sink(lambda: MemorySink("own"))
        service.privilegedStartService()

    def test_no_sink_required(self) -> None:
        """Without a required sink there is no start; nor with two of one name."""
        service = self.own(relp=[ANY])
        self.assertEqual(service.sinks, [])
        with self.assertRaisesRegex(ConfigurationError, "add one with required=True"):
            service.startService()
        for _ in range(2):
            service.add_sink(lambda: self.sink("own", Durability.FSYNC))
        with self.assertRaisesRegex(ConfigurationError, "sink 'own': error: another sink has the same name"):
            service.startService()

    def test_sources_of_every_kind_name_a_sink_that_is_added(self) -> None:
        """Whatever kind of source names a sink, it may be added after the service is made; at the start it must be."""
        tables = {
            "lines": f'[listeners.NAME]\nprotocol = "lines"\nendpoint = "{ANY}"',
            "relp": f'[listeners.NAME]\nprotocol = "relp"\nendpoint = "{ANY}"',
            "http-poll": '[sources.NAME]\ntype = "http-poll"\nurl = "http://127.0.0.1:9/"',
        }
        self.assertEqual({*tables}, {*source_types()})
        for kind, table in tables.items():
            path = os.path.join(self.folder, "ingest.toml")
            with open(path, "w") as stream:
                stream.write(table.replace("NAME", "x") + '\nsinks = ["own"]\n')
            with self.subTest(kind=kind):
                service = IngestService(load(path, {"admin": "off"}, [], [], [], has_own_sinks=True), reactor)
                self.addCleanup(maybeDeferred, service.stopService)
                service.survey.view()
                service.add_sink(lambda: MemorySink("other"))
                with self.assertRaisesRegex(ConfigurationError, "source 'x': error: it names a sink 'own'"):
                    service.privilegedStartService()
                service.add_sink(lambda: self.sink("own", Durability.FSYNC))
                service.privilegedStartService()
                (source,) = service.sources
                self.assertEqual([outlet.sink.name for outlet in source.route.outlets], ["own"])

    def test_optional_sinks_share(self) -> None:
        """Sinks that are not required share what the budget has for them, whoever adds them."""
        service = self.own("null:", "stdout:?required=false", relp=())
        (before,) = [outlet.limit for outlet in service.intake.outlets if not outlet.required]
        service.add_sink(lambda: MemorySink("own"), required=False)
        after = [outlet.limit for outlet in service.intake.outlets if not outlet.required]
        self.assertEqual(after, [before // 2] * 2 if before is not None else None)

    def test_unknown_listener(self) -> None:
        """A listener that there is not is named, with those there are; so is a protocol it cannot have."""
        service = self.own(f"file:{self.path}", relp=["tcp:20514"])
        with self.assertRaisesRegex(ValueError, "no listener 'tcp-1' .known: relp-20514."):
            service.set_protocol("tcp-1", IngestProtocol)
        with self.assertRaisesRegex(TypeError, "needs a subclass of RelpProtocol"):
            service.set_protocol("relp-20514", IngestProtocol)

    async def test_too_late(self) -> None:
        """Parts of a service that was started cannot be changed; once it is stopped, they can."""
        service = self.own("null:", relp=())
        service.privilegedStartService()
        for change in (
            lambda: service.add_sink(lambda: MemorySink("own")),
            lambda: service.set_protocol(service.listeners[0].name, IngestProtocol),
        ):
            with self.assertRaisesRegex(IngestError, "started already"):
                change()
        service.startService()
        await service.when_ready()
        await service.stopService()
        service.add_sink(lambda: MemorySink("own"))
        service.startService()
        self.assertEqual([sink.name for sink in service.sinks], ["null", "own"])

    def test_what_our_own_sinks_give(self) -> None:
        """The checks go by what a kind of sink gives."""
        for spec, given in (("stdout:", "written"), ("null:", "memory")):
            with self.assertRaisesRegex(ConfigurationError, f"can give '{given}' at most"):
                load(None, {}, [], [spec], relp=[ANY])


class HostTests(TestCase):
    """The examples that are programs of their own."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.addCleanup(shutil.rmtree, self.folder)

    def start(self, *command: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def lines(self) -> bytes:
        path = os.path.join(self.folder, "lines.log")
        if not os.path.exists(path):
            return b""
        with open(path, "rb") as stream:
            return stream.read()

    def send(self, port: int) -> None:
        def connected() -> bool:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)) as peer:
                peer.sendall(b"one\ntwo\n")
                return True
            return False

        wait_until(connected, "the port")
        wait_until(lambda: self.lines() == b"one\ntwo\n", "the lines")

    def test_asyncio(self) -> None:
        """The loop of the application is there before the service and after it."""
        process = self.start(str(EXAMPLES / "asyncio_host.py"), ANY, "lines.log")
        assert process.stdout is not None
        first = process.stdout.readline()
        self.assertTrue(first.startswith("listening at 127.0.0.1:"), first)
        self.send(int(first.rpartition(":")[2]))
        out, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual((out, process.returncode), ("received 2 records, lost 0\n", 0))

    def test_tac(self) -> None:
        """``twistd`` runs the example, and waits for the drain when it is told to stop."""
        shutil.copy(EXAMPLES / "ingest.tac", self.folder)
        port = free_port()
        with open(os.path.join(self.folder, "ingest.toml"), "w") as stream:
            stream.write(
                f'[listeners.apps]\nendpoint = "tcp:{port}:interface=127.0.0.1"\n'
                '[sinks.main]\ntype = "file"\npath = "lines.log"\n[admin]\nendpoint = "off"\n'
            )
        process = self.start("-c", "from twisted.scripts.twistd import run; run()", "--pidfile=", "-ny", "ingest.tac")
        self.send(port)
        process.terminate()
        out, _ = process.communicate(timeout=PATIENCE)
        self.assertIn("2 records in, 2 by main delivered", out)
        self.assertIn("conservation error 0", out)
