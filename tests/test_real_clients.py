"""
Real clients, every line compared.

A program that the machine does not have is a skip that names it; with ``INGEST_TEST_REQUIRE_PROGRAMS`` set (as
`.ci/run` does, after installing them) it is a failure.
"""

import logging
import logging.handlers
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.server import PATIENCE, Server, numbered, wait_until

RESTARTS = int(os.environ.get("INGEST_TEST_RESTARTS", "2"))
"""Restarts under a steady sender; `make slow` sets ten, with 100,000 lines."""


def program(name: str, package: str) -> str:
    """Find a program, or skip (or fail) for want of it."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        message = f"needs the program {name} (Debian package {package})"
        if os.environ.get("INGEST_TEST_REQUIRE_PROGRAMS"):
            raise AssertionError(message)
        raise SkipTest(message)
    return path


class Rsyslog:
    """An rsyslog that takes lines on a port of its own and forwards them with ``omfwd``."""

    settings = ""
    patience = 'action.resumeInterval="1" action.resumeRetryCount="-1" queue.type="LinkedList" queue.size="500000"'

    def __init__(self, path: str, target: int, options: str = "") -> None:
        self.folder = tempfile.mkdtemp(prefix="ingest-rsyslog-")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        config = os.path.join(self.folder, "rsyslog.conf")
        with open(config, "w") as stream:
            stream.write(
                f'global(workDirectory="{self.folder}" {self.settings})\n'
                'module(load="imtcp")\n'
                f'input(type="imtcp" port="{self.port}" address="127.0.0.1")\n'
                'template(name="raw" type="string" string="%rawmsg%\\n")\n'
                f"{self.action(target, options)}\n"
            )
        self.process = subprocess.Popen(
            [path, "-n", "-f", config, "-i", os.path.join(self.folder, "pid")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self.is_up, "rsyslog takes connections")

    def action(self, target: int, options: str) -> str:
        """Write the action that forwards."""
        kind = f'type="omfwd" target="127.0.0.1" port="{target}" protocol="tcp" template="raw"'
        return f"action({kind} {options} {self.patience})"

    def is_up(self) -> bool:
        """Whether it accepts."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Tailing(Rsyslog):
    """An rsyslog that also follows a file, `imfile` to ``omfwd``, as it does by default."""

    def action(self, target: int, options: str) -> str:
        """Write the input that follows ``followed`` in its folder, and the action that forwards."""
        followed = f'input(type="imfile" file="{self.folder}/followed" tag="x")'
        template = 'template(name="message" type="string" string="<13>%msg%\\n")'
        forward = super().action(target, options).replace('template="raw"', 'template="message"')
        return f'module(load="imfile")\n{template}\n{followed}\n{forward}'


class RealClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.addCleanup(self.server.kill)
        self.server.wait_ready()

    def wait_lines(self, count: int) -> list[bytes]:
        wait_until(lambda: self.server.output().count(b"\n") >= count, f"{count} lines", 60)
        self.assertEqual(self.server.metrics()["ingest_conservation_error"], 0)
        return self.server.output().splitlines()

    def test_logger(self) -> None:
        """Lines of util-linux `logger` arrive, each once, in the form it gives them."""
        path = program("logger", "bsdutils")
        for number in range(5):
            subprocess.run(
                [path, "-T", "-n", "127.0.0.1", "-P", str(self.server.port), "-t", "app", f"message {number}"],
                check=True,
                timeout=PATIENCE,
            )
        lines = self.wait_lines(5)
        self.assertEqual(len(lines), 5)
        for number, line in enumerate(lines):
            self.assertTrue(line.startswith(b"<13>"), line)
            self.assertTrue(line.endswith(f"message {number}".encode()), line)

    def test_nc_without_a_last_newline(self) -> None:
        """The last line of `nc` arrives although it has no newline."""
        path = program("nc", "netcat-openbsd")
        subprocess.run(
            [path, "-N", "127.0.0.1", str(self.server.port)], input=b"one\ntwo\nlast", check=True, timeout=PATIENCE
        )
        self.assertEqual(self.wait_lines(3), [b"one", b"two", b"last"])

    def test_rsyslog_omfwd(self) -> None:
        """Lines that rsyslog forwards arrive in order and unchanged."""
        sender = Rsyslog(program("rsyslogd", "rsyslog"), self.server.port)
        self.addCleanup(sender.stop)
        lines = [b"<13>" + line for line in numbered("via rsyslog", 5_000)]
        with socket.create_connection(("127.0.0.1", sender.port), PATIENCE) as peer:
            peer.sendall(b"\n".join(lines) + b"\n")
        self.assertEqual(self.wait_lines(5_000), lines)

    def test_python_logging(self) -> None:
        """A Python logging handler that ends records with LF is received line by line."""
        handler = logging.handlers.SysLogHandler(
            ("127.0.0.1", self.server.port), socktype=socket.SOCK_STREAM, facility="local0"
        )
        handler.append_nul = False
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s\n"))
        logger = logging.Logger("app")  # noqa: LOG001 - not in the tree of all loggers
        logger.addHandler(handler)
        for number in range(100):
            logger.warning("number %d", number)
        handler.close()
        self.assertEqual(self.wait_lines(100), [b"<132>app: number %d" % number for number in range(100)])

    def test_python_sysloghandler_as_it_is(self) -> None:
        """Python's `SysLogHandler` as it is ends records with NUL: each arrives, a traceback as one record."""
        handler = logging.handlers.SysLogHandler(("127.0.0.1", self.server.port), socktype=socket.SOCK_STREAM)
        logger = logging.Logger("app")  # noqa: LOG001 - not in the tree of all loggers
        logger.addHandler(handler)
        logger.warning("first")
        try:
            int("boom")
        except ValueError:
            logger.exception("failed")
        logger.warning("last")
        handler.close()
        lines = self.wait_lines(3)
        self.assertEqual((lines[0], lines[-1]), (b"<12>first", b"<12>last"))
        self.assertTrue(lines[1].startswith(b"<11>failed\\nTraceback"), lines[1])
        self.assertTrue(lines[1].endswith(b"'boom'"), lines[1])

    def test_logger_octet_counted(self) -> None:
        """Counted frames of util-linux `logger` are received beside lines, without configuration."""
        path = program("logger", "bsdutils")
        target = ["-T", "-n", "127.0.0.1", "-P", str(self.server.port), "-t", "app"]
        subprocess.run([path, *target, "--octet-count", "counted"], check=True, timeout=PATIENCE)
        subprocess.run([path, *target, "plain"], check=True, timeout=PATIENCE)
        lines = self.wait_lines(2)
        self.assertEqual([line[:5] for line in lines], [b"<13>1", b"<13>1"])
        self.assertTrue(lines[0].endswith(b" counted") and lines[1].endswith(b" plain"), lines)

    def test_rsyslog_octet_counted(self) -> None:
        """Counted frames of rsyslog arrive in order and unchanged."""
        sender = Rsyslog(program("rsyslogd", "rsyslog"), self.server.port, 'TCP_Framing="octet-counted"')
        self.addCleanup(sender.stop)
        lines = [b"<13>" + line for line in numbered("counted", 5_000)]
        with socket.create_connection(("127.0.0.1", sender.port), PATIENCE) as peer:
            peer.sendall(b"\n".join(lines) + b"\n")
        self.assertEqual(self.wait_lines(5_000), lines)

    def follow_nuls(self, options: str, damaged: list[bytes]) -> None:
        """Forward a file as an unclean shutdown leaves it: every line behind the damage arrives exact."""
        sender = Tailing(program("rsyslogd", "rsyslog"), self.server.port, options)
        self.addCleanup(sender.stop)
        lines = numbered("behind NULs", 50_000)
        with open(os.path.join(sender.folder, "followed"), "wb") as stream:
            stream.write(b"\0" * 64 + b"\n<13>x\0y\n" + b"\n".join(lines) + b"\n")
        given = self.wait_lines(50_000)
        self.assertEqual(given[-50_000:], [b"<13>" + line for line in lines])
        self.assertEqual(given[:-50_000], damaged)

    def test_rsyslog_nuls_in_a_file(self) -> None:
        """NULs in a file that rsyslog forwards as lines cost no other line."""
        # What begins with a priority ends at NUL.
        self.follow_nuls('TCP_Framing="traditional"', [b"<13>", b"<13><13>x", b"y"])

    def test_rsyslog_nuls_in_a_file_octet_counted(self) -> None:
        """NULs in a file that rsyslog forwards in counted frames cost no other line."""
        self.follow_nuls('TCP_Framing="octet-counted"', [b"<13>" + b"\0" * 64, b"<13><13>x\0y"])

    def test_200_clients_at_once(self) -> None:
        """Lines of 200 clients sending at once arrive whole, each client's in order."""
        lines = {n: numbered(f"client {n:03d}", 200) for n in range(200)}

        def send(name: int) -> None:
            with self.server.connect() as peer:
                for line in lines[name]:
                    peer.sendall(line + b"\n")

        threads = [threading.Thread(target=send, args=(name,)) for name in lines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        got: dict[int, list[bytes]] = {name: [] for name in lines}
        for line in self.wait_lines(200 * 200):
            got[int(line[7:10])].append(line)
        self.assertEqual(got, lines)


class RestartTests(SynchronousTestCase):
    def test_restarts_under_a_steady_sender(self) -> None:
        """Restarts by SIGTERM under a steady rsyslog sender lose no line."""
        path = program("rsyslogd", "rsyslog")
        count = 10_000 * RESTARTS
        server = Server()
        self.addCleanup(server.kill)
        server.wait_ready()
        sender = Rsyslog(path, server.port)
        self.addCleanup(sender.stop)
        lines = [b"<13>" + line for line in numbered("steady", count, 60)]
        feeder = threading.Thread(target=self.feed, args=(sender.port, lines), daemon=True)
        feeder.start()
        servers = [server]
        for turn in range(RESTARTS):
            share = (turn + 1) * count // (RESTARTS + 1)
            wait_until(lambda s=share: self.written(server) >= s * 65, "lines flow", 60)  # type: ignore[misc]
            servers[-1].stop()
            servers.append(Server(folder=server.folder, port=server.port))
            self.addCleanup(servers[-1].kill)
            servers[-1].wait_ready()
        feeder.join(60)
        wait_until(lambda: self.written(server) >= count * 65, "the last line", 60)
        got = server.output().splitlines()
        self.assertEqual(len(set(lines) - set(got)), 0, "lines lost")
        self.assertEqual(got, lines)

    def written(self, server: Server) -> int:
        return os.path.getsize(server.path) if os.path.exists(server.path) else 0

    def feed(self, port: int, lines: list[bytes]) -> None:
        """Send at about 10,000 lines a second."""
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as peer:
            for start in range(0, len(lines), 100):
                peer.sendall(b"\n".join(lines[start : start + 100]) + b"\n")
                time.sleep(0.01)
