"""
Proof: the order of system calls.

For every ``200 OK`` that is sent, the record's bytes were written to the file, and a ``fdatasync`` of it that began
after that has succeeded, before the send began.

Read from what strace saw, without trusting anything of our own; the reader is itself shown to find what is wrong.
"""

import glob
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.trial.unittest import SynchronousTestCase

from tests import traced
from tests.relp_client import RelpClient
from tests.server import Server

_CALL = re.compile(r"(?P<thread>\d+) +(?P<name>\w+)\((?P<rest>.*)")
_RESUMED = re.compile(r"(?P<thread>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)")
_RESULT = re.compile(r"\) += (-?\d+)[^\"]*$")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_FILE = re.compile(r"\d+<(.*?)>")
_ACK = re.compile(rb"(\d+) rsp 6 200 OK\n")


@dataclass
class Call:
    """A system call: in which lines of the trace it began and ended, and what it was given."""

    name: str
    begun: int
    ended: int
    file: str
    data: bytes
    result: int


def calls(trace: list[str]) -> list[Call]:
    """Read a trace, joining calls that others interrupted."""
    found: list[Call] = []
    pending: dict[str, tuple[int, str, str]] = {}
    for number, line in enumerate(trace):
        if resumed := _RESUMED.match(line):
            begun, name, before = pending.pop(resumed["thread"])
            found.append(_call(name, begun, number, before + resumed["rest"]))
        elif call := _CALL.match(line):
            if line.endswith("<unfinished ...>"):
                rest = call["rest"].removesuffix("<unfinished ...>").rstrip()
                pending[call["thread"]] = (number, call["name"], rest)
            else:
                found.append(_call(call["name"], number, number, call["rest"]))
    return found


def _call(name: str, begun: int, ended: int, rest: str) -> Call:
    file = _FILE.match(rest)
    texts = "".join(_TEXT.findall(rest))
    result = _RESULT.search(rest)
    status = int(result[1]) if result else -1
    data = texts.encode().decode("unicode_escape").encode("latin-1")[: max(0, status)]
    return Call(name, begun, ended, file[1] if file else "", data, status)


@dataclass
class Order:
    """What a trace shows of one output file: ``answers`` counted, and the ``wrong`` ones."""

    answers: int = 0
    syncs: int = 0
    wrong: list[str] = field(default_factory=list)


def judge(trace: list[str], path: str, sessions: list[list[bytes]], size: int = 0) -> Order:
    """
    Hold every answer in a trace against the writes and syncs of ``path`` before it.

    ``sessions`` are the records of each session, numbered from 2 on, in the order in which the sessions were opened.
    ``size`` is their length where something else may stand before one on its line, as the head of a spool's frame does.
    """
    order, seen = Order(), calls(trace)
    written: dict[bytes, int] = {}
    tail = b""
    for call in seen:
        if call.name in ("write", "writev", "pwritev") and call.file == path:
            *lines, tail = (tail + call.data).split(b"\n")
            for line in lines:
                written.setdefault(line[-size:], call.ended)
    synced = [call for call in seen if call.name in ("fdatasync", "fsync") and call.file == path and not call.result]
    order.syncs = len(synced)
    opened: dict[str, list[bytes]] = {}
    for call in sorted(seen, key=lambda call: call.begun):
        if call.name not in ("sendto", "sendmsg", "write", "writev") or call.file == path:
            continue
        if call.data.startswith(b"1 rsp "):
            opened[call.file] = sessions[len(opened)]
        for match in _ACK.finditer(call.data) if call.file in opened else ():
            order.answers += 1
            record = opened[call.file][int(match[1]) - 2]
            when = written.get(record)
            if when is None:
                order.wrong.append(f"{record!r} was answered and never written")
            elif not any(when < sync.begun and sync.ended < call.begun for sync in synced):
                order.wrong.append(f"{record!r} was answered in line {call.begun} without a sync after its write")
    return order


class JudgeTests(SynchronousTestCase):
    """The reader finds what it is there to find."""

    OPEN = '7 sendto(9<socket:[1]>, "1 rsp 22 200 OK\\ncommands=syslog\\n", 32, 0, NULL, 0) = 32'
    WRITE = '8 writev(5</out>, [{iov_base="one\\n", iov_len=4}, {iov_base="two\\n", iov_len=4}], 2) = 8'
    SYNC = "8 fdatasync(5</out>)                = 0"
    ACK = '7 sendto(9<socket:[1]>, "2 rsp 6 200 OK\\n3 rsp 6 200 OK\\n", 30, 0, NULL, 0) = 30'

    def wrong(self, *trace: str) -> int:
        return len(judge(list(trace), "/out", [[b"one", b"two"]]).wrong)

    def test_the_right_order(self) -> None:
        """Written, synced, answered."""
        order = judge([self.OPEN, self.WRITE, self.SYNC, self.ACK], "/out", [[b"one", b"two"]])
        self.assertEqual((order.answers, order.syncs, order.wrong), (2, 1, []))

    def test_wrong_orders(self) -> None:
        """Not written, not synced, synced too early, of another file, in vain: each is found."""
        self.assertEqual(self.wrong(self.OPEN, self.SYNC, self.ACK), 2)
        self.assertEqual(self.wrong(self.OPEN, self.WRITE, self.ACK, self.SYNC), 2)
        self.assertEqual(self.wrong(self.OPEN, self.SYNC, self.WRITE, self.ACK), 2)
        self.assertEqual(self.wrong(self.OPEN, self.WRITE, self.SYNC.replace("/out", "/other"), self.ACK), 2)
        failed = "8 fdatasync(5</out>) = -1 EIO (Input/output error)"
        self.assertEqual(self.wrong(self.OPEN, self.WRITE, failed, self.ACK), 2)
        self.assertEqual(self.wrong(self.OPEN, self.WRITE.replace("= 8", "= 4"), self.SYNC, self.ACK), 1)

    def test_interrupted_calls(self) -> None:
        """A sync that began before the write, or ended after the answer began, does not count."""
        begun, ended = "8 fdatasync(5</out> <unfinished ...>", "8 <... fdatasync resumed>) = 0"
        self.assertEqual(self.wrong(self.OPEN, begun, self.WRITE.replace("8 w", "6 w"), ended, self.ACK), 2)
        self.assertEqual(self.wrong(self.OPEN, self.WRITE, begun, self.ACK, ended), 2)
        self.assertEqual(self.wrong(self.OPEN, self.WRITE, begun, ended, self.ACK), 0)


class OrderTests(SynchronousTestCase):
    SESSIONS, RECORDS = 4, 200

    def test_no_answer_before_its_sync(self) -> None:
        """In a real run with several sessions at once no answer is sent before its record is on disk."""
        order = self.order_of(lambda server: server.path)
        self.assertEqual(order.wrong, [])
        self.assertEqual(order.answers, self.SESSIONS * self.RECORDS)
        self.assertGreater(order.syncs, 0)

    def test_no_answer_before_its_sync_in_a_spool(self) -> None:
        """Nor is one with a spool in front of the file: there it is the segment that is written and synced."""

        def segment(server: Server) -> str:
            (path,) = glob.glob(os.path.join(server.folder, "ingest-data", "spool", "sink-file", "*.segment"))
            return path

        order = self.order_of(segment, "--sink=file:ingest-data/ingest.log?spool=true")
        self.assertEqual(order.wrong, [])
        self.assertEqual(order.answers, self.SESSIONS * self.RECORDS)
        self.assertGreater(order.syncs, 0)

    def order_of(self, path_of: Callable[[Server], str], *flags: str) -> Order:
        """Run a server under strace, have its sessions exchange their records, and judge what was seen."""
        folder = tempfile.mkdtemp(prefix="ingest-strace-")
        self.addCleanup(shutil.rmtree, folder)
        log = os.path.join(folder, "trace")
        watched = "trace=write,writev,pwritev,sendto,sendmsg,fdatasync,fsync"
        prefix = (traced.strace(), "-f", "-qq", "-y", "-s", "1000000", "-e", watched, "-o", log)
        server = Server("--relp=tcp:0:interface=127.0.0.1", *flags, prefix=prefix)
        self.addCleanup(traced.end, server)
        server.wait_ready()
        records = [[b"session %d record %04d" % (s, r) for r in range(self.RECORDS)] for s in range(self.SESSIONS)]
        clients = [RelpClient(server.port) for _ in records]
        for client in clients:
            client.open()
        threads = [threading.Thread(target=self.exchange, args=pair) for pair in zip(clients, records, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        path = os.path.realpath(path_of(server))
        traced.stop(server)
        with open(log, encoding="latin-1") as stream:
            return judge(stream.read().splitlines(), path, records, len(records[0][0]) if flags else 0)

    def exchange(self, client: RelpClient, records: list[bytes]) -> None:
        """Send with a window of 16, so that many groups are committed."""
        with client:
            for record in records:
                client.send(record)
                if len(client.unanswered) >= 16:
                    client.settle()
            client.close()
