"""Real and independent RELP clients against a real process: sizes, contents, stops, answers that come late."""

import glob
import os
import re
import signal
import socket
import threading
import time

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.relp_client import RelpClient, SessionLostError
from tests.server import PATIENCE, Server, wait_until
from tests.test_real_clients import Rsyslog, program
from twisted_ingest.limits import KIB, RELP_MAX_LENGTH

STALL_SECONDS = float(os.environ.get("INGEST_TEST_STALL_SECONDS", "2"))
"""How long a stopped server keeps omrelp waiting; `make slow` sets ten."""

RELP = "--relp=tcp:0:interface=127.0.0.1"


def omrelp() -> str:
    """Find rsyslog with its RELP output, or skip (or fail) for want of it."""
    path = program("rsyslogd", "rsyslog")
    if not glob.glob("/usr/lib/*/rsyslog/omrelp.so") + glob.glob("/usr/lib*/rsyslog/omrelp.so"):
        message = "needs rsyslog's omrelp (Debian package rsyslog-relp)"
        if os.environ.get("INGEST_TEST_REQUIRE_PROGRAMS"):
            raise AssertionError(message)
        raise SkipTest(message)
    return path


class Omrelp(Rsyslog):
    """An rsyslog that takes counted frames and forwards them with ``omrelp``, their bytes unchanged."""

    template = "%rawmsg%"
    settings = (
        'maxMessageSize="300k" parser.escapeControlCharactersOnReceive="off" parser.dropTrailingLFOnReception="off"'
    )

    def action(self, target: int, options: str) -> str:
        """See `Rsyslog`."""
        return (
            f'template(name="whole" type="string" string="{self.template}")\n'
            'module(load="omrelp")\n'
            f'action(type="omrelp" target="127.0.0.1" port="{target}" template="whole" {options} {self.patience})'
        )

    def feed(self, records: list[bytes], pause: float = 0.0) -> None:
        """Have it forward records."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as peer:
            for start in range(0, len(records), 10):
                peer.sendall(b"".join(b"%d %b" % (len(record), record) for record in records[start : start + 10]))
                time.sleep(pause * 10)


class Templated(Omrelp):
    """The same with a template of one's own."""

    def __init__(self, path: str, target: int, template: str) -> None:
        self.template = template
        super().__init__(path, target)


class Pasted(Rsyslog):
    """An rsyslog that forwards with lines from elsewhere, whatever port they name."""

    def action(self, target: int, options: str) -> str:
        """See `Rsyslog`."""
        return re.sub(r'port="\d+"', f'port="{target}"', self.lines)

    def __init__(self, path: str, target: int, lines: str) -> None:
        self.lines = lines
        super().__init__(path, target)


class RelpCase(SynchronousTestCase):
    """A server with a RELP listener."""

    flags: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.server = Server(RELP, *self.flags)
        self.addCleanup(self.server.kill)
        self.server.wait_ready()

    def restart(self) -> None:
        """Start the next process where the last one was."""
        self.server = Server(f"--relp=tcp:{self.server.port}:interface=127.0.0.1", folder=self.server.folder)
        self.addCleanup(self.server.kill)
        self.server.wait_ready()

    def wait_lines(self, count: int) -> list[bytes]:
        wait_until(lambda: self.server.output().count(b"\n") >= count, f"{count} lines", 60)
        self.assertEqual(self.server.metrics()["ingest_conservation_error"], 0)
        return self.server.output().splitlines()

    def acks(self) -> float:
        """Give how many records were answered by the process that runs."""
        values = self.server.metrics()
        return sum(value for name, value in values.items() if name.startswith("ingest_relp_acks_total"))


class OmrelpTests(RelpCase):
    """The matrix: what rsyslog's omrelp sends, and what becomes of it when the server is killed, stopped or slow."""

    def setUp(self) -> None:
        path = omrelp()
        super().setUp()
        self.sender = Omrelp(path, self.server.port)
        self.addCleanup(self.sender.stop)

    def check(self, lines: list[bytes]) -> None:
        """Wait until every line has arrived; first copies in order, nothing else."""
        wait_until(lambda: set(lines) <= set(self.server.output().splitlines()), "every line", 60)
        self.assertEqual(list(dict.fromkeys(self.server.output().splitlines())), lines)

    def test_sizes(self) -> None:
        """Records of any size arrive; those above the limit are cut, and their session goes on."""
        sizes = [8 * KIB, 127 * KIB, 129 * KIB, 200]
        records = [b"<13>%d " % size + b"x" * (size - 6 - len(str(size))) + b"." for size in sizes]
        self.sender.feed(records)
        self.assertEqual(self.wait_lines(4), [record[:RELP_MAX_LENGTH] for record in records])
        wait_until(lambda: self.acks() == 4, "four answers")
        values = self.server.metrics()
        self.assertEqual(values["ingest_truncated_records_total"], 1)
        self.assertEqual(values["ingest_connections_opened_total"], 1)

    def test_empty_and_one_byte(self) -> None:
        """A record of one byte arrives, an empty one is answered and counted; the session goes on."""
        # What rsyslog keeps of a single NUL is an empty message, and omrelp sends it as one.
        self.sender.feed([b"<13>", b"x", b"\0", b"<13>last"])
        self.assertEqual(self.wait_lines(3), [b"<13>", b"x", b"<13>last"])
        wait_until(lambda: self.acks() == 4, "four answers")
        values = self.server.metrics()
        self.assertEqual(values["ingest_empty_records_total"], 1)
        self.assertEqual(values["ingest_connections_opened_total"], 1)

    def test_no_nul(self) -> None:
        """No NUL comes from omrelp: rsyslog writes one it receives as ``#000``, and ends a template's text at one."""
        self.sender.feed([b"<13>a\0b"])
        self.assertEqual(self.wait_lines(1), [b"<13>a#000b"])
        # Nor would omrelp send one that got there: it takes the length of a record with strlen(3).
        cut = Templated(omrelp(), self.server.port, r"%rawmsg%\000cut")
        self.addCleanup(cut.stop)
        cut.feed([b"<13>whole"])
        self.assertEqual(self.wait_lines(2)[1:], [b"<13>whole"])

    def test_line_feeds_inside(self) -> None:
        """LF and other control characters inside a record stay inside it."""
        self.sender.feed([b"<13>one\ntwo\tthree", b"<13>\x01\x7f\xff", b"<13>last"])
        self.assertEqual(self.wait_lines(3), [b"<13>one\\ntwo\tthree", b"<13>\x01\x7f\xff", b"<13>last"])

    def test_server_stopped(self) -> None:
        """A server that stands still for a while loses nothing, and doubles nothing."""
        lines = [b"<13>%06d" % number for number in range(2000)]
        self.sender.feed(lines[:1000])
        self.server.send_signal(signal.SIGSTOP)
        try:
            self.sender.feed(lines[1000:])
            time.sleep(STALL_SECONDS)
        finally:
            self.server.send_signal(signal.SIGCONT)
        self.assertEqual(self.wait_lines(2000), lines)

    def test_orderly_stop(self) -> None:
        """A stop by SIGTERM under load answers what it has taken: every line arrives, hardly one of them twice."""
        lines = [b"<13>%06d" % number for number in range(3000)]
        feeder = threading.Thread(target=self.sender.feed, args=(lines, 0.0005), daemon=True)
        feeder.start()
        wait_until(lambda: self.server.output().count(b"\n") > 300, "lines flow")
        self.server.stop()
        self.assertTrue([text for text in self.server.log if "conservation error 0" in text], self.server.log)
        self.restart()
        feeder.join(60)
        self.check(lines)
        copies = self.server.output().count(b"\n") - len(lines)
        self.assertEqual(copies, 0, "an orderly stop answers what it delivers")

    def test_killed(self) -> None:
        """A server that was killed and started again gets everything."""
        lines = [b"<13>%06d" % number for number in range(2000)]
        feeder = threading.Thread(target=self.sender.feed, args=(lines, 0.0005), daemon=True)
        feeder.start()
        wait_until(lambda: self.server.output().count(b"\n") > 300, "lines flow")
        self.server.crash()
        self.restart()
        feeder.join(60)
        wait_until(lambda: set(lines) <= set(self.server.output().splitlines()), "every line", 60)


class ReadmeTests(RelpCase):
    def test_rsyslog_as_pasted(self) -> None:
        """The rsyslog lines of the README work as they stand, on the port of the server."""
        path = omrelp()
        with open(os.path.join(os.path.dirname(os.path.dirname(__file__)), "README.md")) as stream:
            (lines,) = re.findall(r"```rsyslog\n(.*?)```", stream.read(), re.DOTALL)
        sender = Pasted(path, self.server.port, lines)
        self.addCleanup(sender.stop)
        with socket.create_connection(("127.0.0.1", sender.port), PATIENCE) as peer:
            peer.sendall(b"<13>Nov 21 00:00:00 host app: hello\n")
        (line,) = self.wait_lines(1)
        self.assertTrue(line.startswith(b"<13>") and line.endswith(b"host app: hello"), line)


class OwnClientTests(RelpCase):
    def test_contents(self) -> None:
        """NUL, LF, both and nothing at all inside records arrive as they are told apart; all are answered."""
        records = [b"plain", b"", b"a\0b", b"a\nb", b"\0a\nb", b"x" * 129 * KIB, b"\xff\xfe", b"last"]
        with RelpClient(self.server.port) as client:
            self.assertEqual(client.open()[:7], b"200 OK\n")
            for record in records:
                client.send(record)
            while client.unanswered:
                client.settle()
            self.assertEqual((client.answered, client.refused), (records, []))
            client.close()
        whole = [record[:RELP_MAX_LENGTH].replace(b"\n", b"\\n") for record in records if record]
        self.assertEqual(self.wait_lines(len(whole)), whole)

    def test_half_close(self) -> None:
        """A client that has nothing more to send, and says so, gets all its answers."""
        with RelpClient(self.server.port) as client:
            client.open()
            for number in range(1000):
                client.send(b"%d" % number)
            client.half_close()
            while client.unanswered:
                client.settle()
            self.assertRaises(SessionLostError, client.receive)
