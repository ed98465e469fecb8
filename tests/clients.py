"""Recipes for clients (`examples/clients`), run as they stand against a real process, but for the ports in them."""

import importlib.util
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from typing import ClassVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.server import PATIENCE, RELP_ENDPOINT, Server, wait_until

ROOT = pathlib.Path(__file__).parent.parent
RECIPES = ROOT / "examples" / "clients"
PAGE = ROOT / "docs" / "clients.md"

RFC5424 = rb"<%d>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d) \S+ shop "
"""The beginning of a message of RFC 5424, up to the application's name; the priority is to be filled in."""


def absent(message: str) -> None:
    """Skip for want of something, or fail where everything has been installed."""
    if os.environ.get("INGEST_TEST_REQUIRE_PROGRAMS"):
        raise AssertionError(message)
    raise SkipTest(message)


def module(name: str) -> None:
    """See that a package is there that only clients need."""
    if importlib.util.find_spec(name) is None:
        absent(f"needs the package {name} (pip install -e '.[clients]')")


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


class RecipeCase(SynchronousTestCase):
    """A server, and a folder that recipes run in, with a log file of three lines in it."""

    environment: ClassVar[Mapping[str, str]] = {}

    def setUp(self) -> None:
        self.server = Server("--listen", "tcp:0:interface=127.0.0.1", "--relp", RELP_ENDPOINT)
        self.addCleanup(self.server.kill)
        self.server.wait_ready()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ingest-client-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        (self.folder / "app.log").write_bytes(b"one\ntwo\nlast")

    def text(self, name: str) -> str:
        """Read a recipe, with the ports that the server listens on."""
        ports = dict(zip(("1514", "20514"), map(str, self.server.ports), strict=True))
        return re.sub(r"\b(20514|1514)\b", lambda found: ports[found[0]], (RECIPES / name).read_text())

    def place(self, name: str) -> str:
        """Put a recipe into the folder; gives its path."""
        path = self.folder / os.path.basename(name)
        path.write_text(self.text(name))
        return str(path)

    def start(self, *command: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Start a client in the folder. It is ended with the test."""
        client = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.addCleanup(self.end, client)
        return client

    def end(self, client: "subprocess.Popen[bytes]") -> None:
        """End a client, if it has not ended."""
        client.kill()
        with client:
            client.wait()

    def finish(self, client: "subprocess.Popen[bytes]") -> None:
        """Wait until a client has ended well."""
        said, _ = client.communicate(timeout=PATIENCE)
        self.assertEqual(client.returncode, 0, said)

    def records(self, count: int) -> list[bytes]:
        """Wait for so many records; there must be no more, and nothing may be unaccounted for."""
        wait_until(lambda: self.server.output().count(b"\n") >= count, f"{count} records")
        lines = self.server.output().splitlines()
        self.assertEqual(len(lines), count, lines)
        self.assertEqual(self.server.metrics()["ingest_conservation_error"], 0)
        return lines

    def check(self, *patterns: bytes) -> None:
        """See that records arrive of which each matches its pattern, and nothing else does."""
        for line, pattern in zip(self.records(len(patterns)), patterns, strict=True):
            self.assertRegex(line, pattern)
