"""The service as a process: what it says at its start, how it is configured, what ends it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.server import PATIENCE, Server, wait_until

CONFIG = """
log_format = "json"

[listeners.lines]
endpoint = "tcp:0:interface=127.0.0.1"
max_length = "20B"

[listeners.nul]
endpoint = "unix:nul.sock"
framing = "nul"

[sinks.main]
type = "file"
path = "main.log"
fsync = "always"

[sinks.spare]
type = "file"
path = "sub/spare.log"
fsync = "1s"
required = false

[limits]
memory = "16MiB"
oversize = "drop"

[admin]
endpoint = "tcp:0:interface=127.0.0.1"
"""


class ServiceTests(SynchronousTestCase):
    def server(self, *flags: str, **settings: object) -> Server:
        server = Server(*flags, **settings)  # type: ignore[arg-type]
        self.addCleanup(server.kill)
        server.wait_ready()
        return server

    def test_banner(self) -> None:
        """The start says where it listens, where lines go, where the metrics are, and what to try."""
        server = self.server()
        banner = "\n".join(server.log)
        for part in (
            f"listening  127.0.0.1:{server.port} (tcp-0)",
            f"lines to   file {server.path}",
            f"metrics    {server.admin}/metrics",
            rf"printf 'hello\n' | nc -w1 127.0.0.1 {server.port}",
        ):
            self.assertIn(part, banner)
        wait_until(
            lambda: any(f"--listen tcp:{server.port} --allow 192.0.2.0/24 opens it" in line for line in server.log),
            "the advice",
        )

    def test_few_descriptors(self) -> None:
        """With no settings at all the server starts under a limit of 64 descriptors, and takes as many as it says."""
        server = self.server(prefix=("sh", "-c", 'ulimit -n 64; exec "$@"', "sh"))
        limit = int(server.status()["limits"]["max_connections"]["value"])
        self.assertGreaterEqual(limit, 20)
        peers = [server.connect() for _ in range(limit)]
        for number, peer in enumerate(peers):
            self.addCleanup(peer.close)
            peer.sendall(b"%02d\n" % number)
        self.assertEqual(len(server.wait_output(3 * limit).splitlines()), limit)
        self.assertEqual([line for line in server.log if "cannot accept" in line], [])

    def test_configured_by_a_file(self) -> None:
        """Two listeners and two sinks from a file do what it says, and each limit knows where it comes from."""
        folder = tempfile.mkdtemp(prefix="ingest-test-")
        self.addCleanup(shutil.rmtree, folder)
        with open(os.path.join(folder, "ingest.toml"), "w") as stream:
            stream.write(CONFIG)
        server = self.server("--config", "ingest.toml", "--admin", "tcp:0:interface=127.0.0.1", folder=folder)
        server.send(b"short\n" + b"x" * 21 + b"\nlast\n")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(os.path.join(folder, "nul.sock"))
            peer.sendall(b"over\nnul\0")
        delivered = "ingest_sink_delivered_records_total"
        wait_until(lambda: server.metrics()[f"{delivered}[main]"] == 3, "three records at the main sink")
        wait_until(lambda: server.metrics()[f"{delivered}[spare]"] == 3, "three records at the spare one")
        for name in ("main.log", "sub/spare.log"):
            with open(os.path.join(folder, name), "rb") as stream:
                self.assertEqual(sorted(stream.read().splitlines()), [b"last", rb"over\nnul", b"short"])
        limits = server.status()["limits"]
        self.assertEqual(limits["memory"], {"value": 16 * 1024 * 1024, "from": "ingest.toml:24"})
        self.assertEqual(limits["max_length"]["from"], "default")
        metrics = server.metrics()
        self.assertEqual(metrics["ingest_dropped_records_total[oversize]"], 1)
        self.assertEqual(metrics["ingest_conservation_error"], 0)
        server.stop()
        for line in server.log:
            self.assertIn("message", json.loads(line))

    def test_broken_standard_output_is_final(self) -> None:
        """When the reader of standard output has gone, the process counts what is lost and fails."""
        server = self.server("--sink", "stdout:")
        assert server.process.stdout is not None
        server.process.stdout.close()
        server.send(b"nobody hears\n")
        self.assertEqual(server.process.wait(PATIENCE), 1)
        server._reader.join(PATIENCE)
        self.assertIn("dropped 1 (sink_failed)", "\n".join(server.log))

    def test_raises_the_descriptor_limit(self) -> None:
        """The soft limit on descriptors becomes the hard one, and the cap on connections follows it."""
        if shutil.which("prlimit") is None:
            raise SkipTest("needs the program prlimit (Debian package util-linux)")
        server = self.server(prefix=("prlimit", "--nofile=256:500"))
        with open(f"/proc/{server.process.pid}/limits") as stream:
            (line,) = [line for line in stream if line.startswith("Max open files")]
        self.assertEqual(line.split()[3:5], ["500", "500"])
        self.assertEqual(server.metrics()["ingest_connections_limit"], 400)

    def test_as_a_daemon(self) -> None:
        """As a daemon it writes a pid file, logs where twistd logs, receives, and stops cleanly."""
        folder = tempfile.mkdtemp(prefix="ingest-test-")
        self.addCleanup(shutil.rmtree, folder)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--pidfile=daemon.pid"]
        listen = ["ingest", "--listen", f"tcp:{port}:interface=127.0.0.1", "--admin", "off"]
        subprocess.run([*twistd, *listen], cwd=folder, check=True, timeout=PATIENCE)
        with open(os.path.join(folder, "daemon.pid")) as stream:
            pid = int(stream.read())
        self.addCleanup(self.end, pid)
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as peer:
            peer.sendall(b"to a daemon\n")
        output = os.path.join(folder, "ingest-data", "ingest.log")
        wait_until(lambda: os.path.exists(output) and os.path.getsize(output) == 12, "the line")
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the daemon")
        with open(os.path.join(folder, "twistd.log")) as stream:
            log = stream.read()
        self.assertIn("lines to   file", log)
        self.assertIn("stopped: 1 connections, 1 records in, 1 by file delivered", log)
        self.assertFalse(os.path.exists(os.path.join(folder, "daemon.pid")))

    def end(self, pid: int) -> None:
        if os.path.exists(f"/proc/{pid}"):
            os.kill(pid, signal.SIGKILL)

    def test_a_sink_that_never_opened_does_not_hold_up_a_stop(self) -> None:
        """With nothing to deliver, a sink that is still trying to open its file ends at once."""
        server = self.server("--sink", "file:/proc/nope/x", "--drain-timeout", "60s")
        wait_until(lambda: "cannot open" in server.get("readyz"), "the reason in /readyz")
        server.send_signal(signal.SIGTERM)
        self.assertEqual(server.process.wait(10), -signal.SIGTERM)

    def test_last_resort(self) -> None:
        """A stop that is stuck in the reactor itself is ended by a thread, with status 1."""
        code = (
            "import time; from twisted_ingest.process.ending import last_resort; "
            "last_resort(60).cancel(); last_resort(0.1); time.sleep(20)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=PATIENCE, check=False)
        self.assertEqual((done.returncode, done.stderr), (1, b"still stopping after 0.1 s: ending now\n"))

    def test_systemd_socket(self) -> None:
        """A socket passed by the service manager, with a name or none, is received on, and outlives the process."""
        for names, endpoint in ({"LISTEN_FDNAMES": "lines"}, "name=lines"), ({}, "index=0"):
            self.receive_on_passed(names, f"systemd:domain=INET:{endpoint}")

    def receive_on_passed(self, names: dict[str, str], endpoint: str) -> None:
        """Pass a socket to a server that listens on ``endpoint``."""
        folder = tempfile.mkdtemp(prefix="ingest-test-")
        self.addCleanup(shutil.rmtree, folder)
        with socket.create_server(("127.0.0.1", 0)) as given:
            port = given.getsockname()[1]
            code = (
                "import os, sys; os.dup2(int(sys.argv[1]), 3); "
                "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); "
                "os.execv(sys.executable, [sys.executable, '-m', 'twisted_ingest', *sys.argv[2:]])"
            )
            flags = ["--listen", endpoint, "--admin", "off"]
            command = [sys.executable, "-c", code, str(given.fileno()), *flags]
            passing: Any = {"cwd": folder, "env": {**os.environ, **names}, "pass_fds": [given.fileno()]}
            check = subprocess.run([*command, "--check"], **passing, capture_output=True, timeout=PATIENCE, check=False)
            self.assertEqual(check.returncode, 0, check.stderr)
            process = subprocess.Popen(command, **passing, stderr=subprocess.DEVNULL)
            self.addCleanup(process.kill)
            output = os.path.join(folder, "ingest-data", "ingest.log")
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as peer:
                peer.sendall(b"by systemd\n")
                wait_until(lambda: os.path.exists(output) and os.path.getsize(output) == 11, "the line")
            process.terminate()
            process.wait(PATIENCE)
            with socket.create_connection(("127.0.0.1", port), PATIENCE):
                pass  # it waits in the backlog for the next process
