"""Our sinks into receivers of others: rsyslog's imrelp and imptcp, killed and started again."""

import os
import random
import socket
import subprocess
import tempfile
import threading
import time
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from tests.clients import absent, free_port
from tests.relp_client import Ledger, Sender
from tests.server import PATIENCE, Server, wait_until
from tests.test_real_clients import program

ROUNDS = 3
"""Times the receiver is killed."""


def line(number: int) -> bytes:
    """Make a record that rsyslog writes as it came."""
    return b"<13>Nov 26 18:00:00 host app: %08d " % number + b"x" * (number * 7919 % 900) + b" end"


class Receiver:
    """An rsyslog that writes what it receives to a file, each message as it came, at once."""

    def __init__(self, module: str, folder: str, port: int) -> None:
        self.path = os.path.join(folder, "received")
        self.port = port
        config = os.path.join(folder, "rsyslog.conf")
        action = f'action(type="omfile" file="{self.path}" template="raw" asyncWriting="off" flushOnTXEnd="on")'
        with open(config, "w") as stream:
            stream.write(
                f'global(workDirectory="{folder}")\n'
                f'module(load="{module}")\n'
                'template(name="raw" type="string" string="%rawmsg%\\n")\n'
                f'ruleset(name="keep" queue.type="Direct") {{ {action} }}\n'
                f'input(type="{module}" port="{port}" ruleset="keep"{self.extra(module)})\n'
            )
        self.process = subprocess.Popen(
            [program("rsyslogd", "rsyslog"), "-n", "-f", config, "-i", os.path.join(folder, "pid")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self.listens, "rsyslog listens")

    @staticmethod
    def extra(module: str) -> str:
        """Give what else a kind of input needs."""
        return ' address="127.0.0.1"' if module == "imptcp" else ' address="127.0.0.1" maxDataSize="200k"'

    def listens(self) -> bool:
        """Whether somebody can connect."""
        try:
            socket.create_connection(("127.0.0.1", self.port), PATIENCE).close()
        except OSError:
            return False
        return True

    def lines(self) -> list[bytes]:
        """Give what it has written, whole lines."""
        try:
            with open(self.path, "rb") as stream:
                return stream.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return []

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


class RsyslogTests(SynchronousTestCase):
    def setUp(self) -> None:
        program("rsyslogd", "rsyslog")
        self.folder = tempfile.mkdtemp(prefix="ingest-rsyslog-")
        self.port = free_port()

    def receive(self, module: str) -> Receiver:
        """Start an rsyslog."""
        receiver = Receiver(module, self.folder, self.port)
        self.addCleanup(receiver.kill)
        return receiver

    def test_imrelp(self) -> None:
        """Through an edge without a disk into rsyslog's imrelp, which is killed: nothing answered is missing."""
        if not any(os.path.exists(f"{place}/rsyslog/imrelp.so") for place in libraries()):
            absent("needs rsyslog's imrelp (Debian package rsyslog-relp)")
        receiver = self.receive("imrelp")
        with Server("--relp=tcp:0:interface=127.0.0.1", f"--sink=relp:127.0.0.1:{self.port}") as edge:
            ledger = Ledger(os.path.join(self.folder, "acks"))
            self.addCleanup(ledger.close)
            sender = Sender(edge.port, line, ledger)
            load = threading.Thread(target=sender.run, args=(time.monotonic() + 100,), daemon=True)
            load.start()
            for _ in range(ROUNDS):
                answered = ledger.count
                wait_until(lambda n=answered: ledger.count > n + 100, "answers")  # type: ignore[misc]
                time.sleep(random.uniform(0, 0.2))
                receiver.kill()
                receiver = self.receive("imrelp")
            sender.finish()
            load.join(60)
            self.assertFalse(load.is_alive(), edge.log[-5:])
            sent = [line(number) for number in range(sender.sent)]
            wait_until(lambda: set(sent) <= set(receiver.lines()), "every record")
            values = edge.metrics()
            self.assertEqual(values["ingest_conservation_error"], 0)
            self.assertEqual(values["ingest_sink_rejected_records_total[relp]"], 0)
            self.assertGreater(values["ingest_sink_connections_total[relp]"], ROUNDS)

    def has_delivered(self, edge: Server, number: int) -> bool:
        """Whether so many were acknowledged: the sink asks for that after it has sent."""
        return edge.metrics()["ingest_sink_delivered_records_total[tcp]"] == number

    def test_imptcp(self) -> None:
        """Lines, and counted frames, into rsyslog's imptcp arrive as they were, in order."""
        receiver = self.receive("imptcp")
        for framing in ("newline", "octet-counted"):
            with Server(f"--sink=tcp:127.0.0.1:{self.port}?framing={framing}") as edge:
                sent = [line(number) for number in range(2000)]
                edge.send(b"".join(each + b"\n" for each in sent))
                wait_until(lambda sent=sent: receiver.lines()[-len(sent) :] == sent, framing)  # type: ignore[misc]
                wait_until(partial(self.has_delivered, edge, 2000), "acknowledged")


def libraries() -> list[str]:
    """Give where modules of rsyslog may be."""
    return ["/usr/lib", *(entry.path for entry in os.scandir("/usr/lib") if entry.is_dir())]
