"""Real clients of other protocols, against a real process: each is named in the log, and nothing of it delivered."""

import contextlib
import logging
import logging.handlers
import pickle
import struct
import subprocess
from collections.abc import Callable
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from tests.server import PATIENCE, Server, wait_until
from tests.test_real_clients import program
from twisted_ingest.errors import RefuseReason
from twisted_ingest.framing.signatures import SIGNATURES

FIXES = {signature.reason: signature.fix for signature in SIGNATURES}


class Pickling(logging.handlers.SocketHandler):
    """A `SocketHandler` whose pickles are of another protocol than its own."""

    def __init__(self, host: str, port: int, version: int) -> None:
        super().__init__(host, port)
        self.version = version

    def makePickle(self, record: logging.LogRecord) -> bytes:
        """See `SocketHandler`."""
        data = pickle.dumps(record.__dict__, self.version)
        return struct.pack(">L", len(data)) + data


class WrongClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.addCleanup(self.server.kill)
        self.server.wait_ready()

    def refused(self, reason: RefuseReason, *clients: Callable[[], None]) -> None:
        """Let each run, and see that it was refused as that, with the fix in the log."""
        metric = f"ingest_connections_refused_total[{reason}]"
        for number, client in enumerate(clients, 1):
            client()
            wait_until(partial(self.has_counted, metric, number), f"{number} refused as {reason}")
        wait_until(lambda: any(FIXES[reason] in line for line in self.server.log), "the fix in the log")
        metrics = self.server.metrics()
        self.assertEqual((metrics["ingest_records_total"], metrics["ingest_conservation_error"]), (0, 0))

    def has_counted(self, metric: str, number: int) -> bool:
        """Whether a metric has come so far."""
        return self.server.metrics()[metric] == number

    def send(self, data: bytes) -> None:
        """Send on a connection of its own, which is reset."""
        with self.server.connect() as peer, contextlib.suppress(ConnectionResetError):
            peer.sendall(data)
            self.assertEqual(peer.recv(1), b"")

    def log_to(self, handler: logging.Handler) -> Callable[[], None]:
        """Give what logs one record through a handler and closes it."""

        def client() -> None:
            handler.handle(logging.makeLogRecord({"name": "app", "msg": "hello %s", "args": ("x",)}))
            handler.close()

        return client

    def run_client(self, *command: str) -> Callable[[], None]:
        """Give what runs a program, however it takes the refusal."""
        return lambda: self.assertIsNotNone(subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False))

    def send_output(self, *command: str) -> Callable[[], None]:
        """Give what sends the output of a program that compresses its input."""

        def client() -> None:
            lines = b"<13>Nov 26 05:00:00 host app: hello\n" * 100
            self.send(subprocess.run(command, input=lines, capture_output=True, check=True).stdout)

        return client

    def test_socket_handler(self) -> None:
        """Python's `SocketHandler`, as it is and with each protocol of pickle."""
        host, port = "127.0.0.1", self.server.port
        handlers = [Pickling(host, port, version) for version in range(6)]
        own = logging.handlers.SocketHandler(host, port)
        self.refused(RefuseReason.PICKLE, *map(self.log_to, [own, *handlers]))

    def test_curl(self) -> None:
        """Any method, and HTTP/2 without asking."""
        curl, url = program("curl", "curl"), f"http://127.0.0.1:{self.server.port}/"
        command = (curl, "--silent", "--max-time", "20")
        ways = ((), ("--request", "PROPFIND"), ("--head",), ("--http2-prior-knowledge",))
        self.refused(RefuseReason.HTTP, *(self.run_client(*command, *way, url) for way in ways))

    def test_zstd(self) -> None:
        """The output of zstd."""
        self.refused(RefuseReason.ZSTD, self.send_output(program("zstd", "zstd"), "--stdout"))

    def test_lz4(self) -> None:
        """The output of lz4."""
        self.refused(RefuseReason.LZ4, self.send_output(program("lz4", "lz4"), "-c"))

    def test_gzip(self) -> None:
        """The output of gzip."""
        self.refused(RefuseReason.GZIP, self.send_output(program("gzip", "gzip"), "-c"))

    def test_utf_16(self) -> None:
        """Text in UTF-16 with and without its mark, in the order of each kind of machine."""
        text = "<13>Nov 26 05:00:00 host app: hello\r\n"
        codes = ("utf-16", "utf-16-le", "utf-16-be")
        self.refused(RefuseReason.UTF16, *(partial(self.send, text.encode(code)) for code in codes))
