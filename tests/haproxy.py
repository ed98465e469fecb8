"""A real HAProxy in TCP mode, in front of a server."""

import os
import pathlib
import shutil
import socket
import subprocess
import tempfile

from tests.clients import free_port
from tests.server import PATIENCE, wait_until
from tests.test_real_clients import program


class HAProxy:
    """
    One process with a front on a free loopback port, which passes connections on to ``target``.

    ``how`` is what stands on the line of the server: how a header is sent, and whether its health is checked.
    """

    def __init__(self, target: int, how: str, *, front: str = "") -> None:
        self.folder = tempfile.mkdtemp(prefix="ingest-haproxy-")
        self.port = free_port()
        self.socket = os.path.join(self.folder, "stats")
        configuration = pathlib.Path(self.folder) / "haproxy.cfg"
        configuration.write_text(
            f"global\n  stats socket {self.socket} mode 600 level admin\n"
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
            f"frontend lines\n  bind 127.0.0.1:{self.port} {front}\n  default_backend ingest\n"
            f"backend ingest\n  server one 127.0.0.1:{target} {how}\n"
        )
        self._log = open(os.path.join(self.folder, "log"), "wb")  # noqa: SIM115 - closed with it
        self._process = subprocess.Popen(
            [program("haproxy", "haproxy"), "-db", "-f", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        wait_until(lambda: os.path.exists(self.socket), "HAProxy is up")

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        """Connect to its front, from a loopback address."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE, source_address=(source, 0))

    def status(self) -> str:
        """Say what it takes the server for: ``UP``, ``DOWN``, ``no check``."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(PATIENCE)
            control.connect(self.socket)
            control.sendall(b"show stat\n")
            table = b""
            while part := control.recv(65536):
                table += part
        head, *rows = (line.split(",") for line in table.decode().lstrip("# ").splitlines() if line)
        row = next(row for row in rows if row[1] == "one")
        return row[head.index("status")]

    def kill(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(PATIENCE)
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
