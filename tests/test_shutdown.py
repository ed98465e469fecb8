"""Stopping a real process: what was read is delivered, clients notice, nothing can hold it up."""

import itertools
import os
import re
import signal
import socket
import threading

from twisted.trial.unittest import SynchronousTestCase

from tests.server import Server, numbered, wait_until


class ShutdownTests(SynchronousTestCase):
    def server(self, *flags: str) -> Server:
        server = Server(*flags)
        self.addCleanup(server.kill)
        server.wait_ready()
        return server

    def summary(self, server: Server) -> str:
        """Give the one line that says what became of everything: the last."""
        (line,) = [line for line in server.log if "stopped: " in line]
        self.assertEqual(line, server.log[-1])
        return line

    def test_idle_client(self) -> None:
        """Ctrl-C with one idle client open ends in good order within seconds; the client sees the end."""
        server = self.server()
        with server.connect() as peer:
            server.send_signal(signal.SIGINT)
            self.assertEqual(peer.recv(1), b"")
            self.assertEqual(server.process.wait(4), -signal.SIGINT)
            server._reader.join(5)
        self.assertIn("1 connections, 0 records in", self.summary(server))

    def test_what_clients_sent_until_they_noticed(self) -> None:
        """Clients that go on sending until they see the FIN lose nothing: it is read and delivered."""
        server = self.server()
        sent: list[bytes] = []
        peers = [server.connect() for _ in range(5)]
        senders = [threading.Thread(target=self.send_until_fin, args=(p, n, sent)) for n, p in enumerate(peers)]
        for sender in senders:
            sender.start()
        wait_until(lambda: len(server.output()) > 100_000, "lines under way")
        server.stop()
        for sender in senders:
            sender.join(10)
        self.assertEqual(sorted(server.output().splitlines()), sorted(sent))
        self.assertIn(f"{len(sent)} records in, {len(sent)} by file delivered, dropped 0", self.summary(server))

    def send_until_fin(self, peer: socket.socket, name: int, sent: list[bytes]) -> None:
        with peer:
            for number in itertools.count():
                line = b"client %d line %d" % (name, number)
                peer.sendall(line + b"\n")
                sent.append(line)
                peer.setblocking(False)
                try:
                    if peer.recv(1) == b"":
                        return
                except BlockingIOError:
                    pass
                finally:
                    peer.setblocking(True)

    def test_clients_in_the_accept_queue(self) -> None:
        """Connections that the kernel had accepted for us are served before the port is closed."""
        server = self.server()
        server.send_signal(signal.SIGSTOP)
        lines = numbered("waiting", 50)
        for line in lines:
            with server.connect() as peer:
                peer.sendall(line + b"\n")
        server.send_signal(signal.SIGTERM)
        server.send_signal(signal.SIGCONT)
        server.process.wait(10)
        self.assertEqual(sorted(server.output().splitlines()), lines)

    def test_half_a_line(self) -> None:
        """A line that a client has not ended when we stop is delivered as far as it came."""
        server = self.server()
        with server.connect() as peer:
            peer.sendall(b"whole\nhalf")
            server.wait_output(6)
            server.stop()
        self.assertEqual(server.output(), b"whole\nhalf\n")
        self.assertIn("1 records cut off by the stop", self.summary(server))
        self.assertIn(" warn ", self.summary(server))

    def test_hung_sink(self) -> None:
        """A sink that takes nothing cannot hold up a stop; what it has not taken is counted, and told by the status."""
        server = self.server("--sink", "stdout:", "--drain-timeout", "1s", "--memory", "8MiB")
        with server.connect() as peer:
            peer.settimeout(1)
            with self.assertRaises(TimeoutError):
                while True:
                    peer.sendall(b"x" * 99 + b"\n")
            server.send_signal(signal.SIGTERM)
            self.assertEqual(server.process.wait(6), 1)
        found = re.search(r"(\d+) records in, (\d+) by stdout delivered, dropped (\d+) \(shutdown\)", self.log(server))
        assert found is not None
        came, delivered, dropped = map(int, found.groups())
        self.assertEqual(came, delivered + dropped)
        self.assertGreater(dropped, 1_000)
        self.assertRegex(self.log(server), r"[1-9]\d* bytes left unread in the kernel, conservation error 0")

    def log(self, server: Server) -> str:
        server._reader.join(5)
        return self.summary(server)

    def test_second_signal(self) -> None:
        """A second signal ends the process now, whatever is stuck."""
        server = self.server("--sink", "stdout:", "--drain-timeout", "60s")
        with server.connect() as peer:
            peer.settimeout(1)
            with self.assertRaises(TimeoutError):
                while True:
                    peer.sendall(b"x" * 99 + b"\n")
            server.send_signal(signal.SIGTERM)
            wait_until(lambda: any("SIGTERM" in line for line in server.log), "the first signal noticed")
            # Either of the two is the second.
            server.send_signal(signal.SIGINT)
            self.assertEqual(server.process.wait(3), -signal.SIGINT)

    def test_not_ready_while_draining(self) -> None:
        """From the first moment of a stop ``/readyz`` says so, and the admin endpoint outlives the drain."""
        server = self.server("--drain-timeout", "3s")
        with server.connect() as peer:
            server.send_signal(signal.SIGTERM)
            wait_until(lambda: server.get("readyz") == "draining\n", "not ready", 2)
            with self.assertRaises(ConnectionRefusedError):
                server.connect()
            peer.sendall(b"still heard\n")
            wait_until(lambda: server.output() == b"still heard\n", "the line read while draining", 2)
        server.process.wait(5)


class FileRotationTests(SynchronousTestCase):
    def test_logrotate_by_rename(self) -> None:
        """Renaming the file and SIGHUP or SIGUSR1 under load split the lines over two files and lose none."""
        server = Server()
        self.addCleanup(server.kill)
        server.wait_ready()
        lines = numbered("rotated", 20_000)
        with server.connect() as peer:
            for number, line in enumerate(lines):
                peer.sendall(line + b"\n")
                if number in (5_000, 10_000, 15_000):
                    server.wait_output(1)
                    os.rename(server.path, f"{server.path}.{number}")
                    server.send_signal(signal.SIGUSR1 if number == 10_000 else signal.SIGHUP)
                    wait_until(lambda: os.path.exists(server.path), "a new file")
        wait_until(lambda: server.metrics()["ingest_sink_delivered_records_total[file]"] == len(lines), "delivered")
        written = b""
        for name in (f"{server.path}.{number}" for number in (5_000, 10_000, 15_000)):
            with open(name, "rb") as stream:
                written += stream.read()
        self.assertEqual((written + server.output()).splitlines(), lines)

    def test_other_signals(self) -> None:
        """What the page says does nothing does nothing; a name in the log says what had files opened anew."""
        server = Server()
        self.addCleanup(server.kill)
        server.wait_ready()
        for number in (signal.SIGUSR2, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH):
            server.send_signal(number)
        server.send_signal(signal.SIGUSR1)
        wait_until(lambda: any("SIGUSR1: opening files anew" in line for line in server.log), "the signal noticed")
        server.send(b"still here\n")
        self.assertEqual(server.wait_output(11), b"still here\n")
        self.assertEqual(server.stop(), -signal.SIGTERM)

    def test_table_of_signals(self) -> None:
        """The page says of every signal what it does, once."""
        with open(os.path.join(os.path.dirname(__file__), os.pardir, "docs", "operations.md")) as page:
            rows = re.findall(r"^\| (SIG[^|]*) \|", page.read(), re.MULTILINE)
        named = [name for row in rows for name in re.split(r", | to ", row)]
        self.assertEqual(sorted(named), sorted(number.name for number in signal.Signals))

    def test_torn_tail_of_a_killed_process(self) -> None:
        """The next start ends half a line left in the file with LF, says so, and truncates nothing."""
        server = Server()
        self.addCleanup(server.kill)
        server.wait_ready()
        server.send(b"whole\n")
        server.wait_output(6)
        server.send_signal(signal.SIGKILL)
        server.process.wait(5)
        with open(server.path, "ab") as stream:
            stream.write(b"torn")
        again = Server(folder=server.folder)
        self.addCleanup(again.kill)
        again.wait_ready()
        again.send(b"next\n")
        self.assertEqual(again.wait_output(16), b"whole\ntorn\nnext\n")
        self.assertEqual(again.metrics()["ingest_sink_repaired_lines_total[file]"], 1)
