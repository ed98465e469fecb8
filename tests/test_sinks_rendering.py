"""Rendering: whatever bytes come, JSON is one valid object a line, and the fast way gives what the slow way does."""

import json
import os
import re
import socket
import tracemalloc
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.server import Server, wait_until
from twisted_ingest.batch import LF, NUL, Batch, ConnectionInfo, Group
from twisted_ingest.errors import Format, SinkError
from twisted_ingest.framing.lines import LineFramer, NulFramer
from twisted_ingest.ledger import ListenerLedger
from twisted_ingest.observe.events import Events
from twisted_ingest.sinks.file import FileSink
from twisted_ingest.sinks.rendering import RENDERERS, render_json, render_json_slowly, render_raw
from twisted_ingest.sinks.stdout import StdoutSink

INFO = ConnectionInfo(1, "tcp-1514", "127.0.0.1:5", "127.0.0.1")

# What is escaped, what looks like an escape, and UTF-8 whole, cut short, overlong, or of a surrogate.
PIECES = [
    *(bytes((code,)) for code in range(0x20)),
    *(b"a", b'"', b"\\", b"\\n", b"\\u0000", b'"}', b"/", b"\x7f", b"\xff", b"\x80"),
    *("é€😀\u2028\u2029\ufeff\ufffd"[index].encode() for index in range(7)),
    *(b"\xe2\x82", b"\xf0\x9f\x98", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3"),
]
BYTES = st.one_of(st.binary(max_size=30), st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join))
DELIMITERS = st.sampled_from([LF, NUL])
STAMPS = st.floats(0, 2**33, allow_nan=False)


def batch_of(
    *records: bytes,
    delimiter: bytes = LF,
    info: ConnectionInfo = INFO,
    at: float = 0.0,
    partial: bool = False,
    truncated: bool = False,
) -> Batch:
    """Make a batch of records that do not hold the delimiter, or of one that may."""
    wire = b"".join(record + delimiter for record in records)
    return Batch(wire, len(records), info, at, delimiter, partial=partial, truncated=truncated)


def objects(rendered: bytes) -> list[dict[str, Any]]:
    """Read lines as a strict reader does: each ends in LF, is UTF-8, and holds an object without a key twice."""
    assert rendered.endswith(LF)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    return [json.loads(line, object_pairs_hook=unique) for line in rendered[:-1].decode("utf-8").split("\n")]


def only(batch: Batch) -> dict[str, Any]:
    """Render one record and read it."""
    (line,) = objects(render_json(batch))
    return line


class RenderingCase(SynchronousTestCase):
    def check(self, batch: Batch) -> None:
        """Hold every line of a batch against its record, and the fast way against the slow one."""
        rendered = render_json(batch)
        self.assertEqual(rendered, render_json_slowly(batch))
        lines = objects(rendered)
        self.assertEqual([line["message"] for line in lines], [r.decode("utf-8", "replace") for r in batch.records()])
        marks = {name: True for name in ("partial", "truncated") if getattr(batch, name)}
        for line in lines:
            self.assertEqual(list(line), ["time", "listener", "peer", "message", *marks])
            self.assertEqual({name: line[name] for name in marks}, marks)


class AnyBytesTests(RenderingCase):
    @given(BYTES, DELIMITERS, STAMPS, st.booleans(), st.booleans())
    def test_one_record(self, record: bytes, delimiter: bytes, at: float, partial: bool, truncated: bool) -> None:
        """One record of any bytes, both delimiters among them, is one object that says what it was and how it ended."""
        record = record.replace(LF, b"") if delimiter == LF else record
        self.check(batch_of(record, delimiter=delimiter, at=at, partial=partial, truncated=truncated))

    @given(st.lists(BYTES, min_size=2, max_size=8), DELIMITERS, STAMPS)
    @example([b"\xe2\x82", b"\x82\xac", b"\xc3"], LF, 0.0)
    @example([b"a\nb", b"\\n", b"\\"], NUL, 0.0)
    def test_many_records(self, records: list[bytes], delimiter: bytes, at: float) -> None:
        """Records of any bytes are one object each, and none reaches into the next."""
        self.check(batch_of(*(record.replace(delimiter, b"") for record in records), delimiter=delimiter, at=at))

    @given(BYTES.flatmap(lambda data: st.tuples(st.just(data), st.lists(st.integers(0, len(data))))), DELIMITERS)
    def test_any_cut(self, stream: tuple[bytes, list[int]], delimiter: bytes) -> None:
        """Whatever the chunks of a stream, what its framer makes of them is rendered, unfinished and cut ones too."""
        data, cuts = stream
        kind = LineFramer if delimiter == LF else NulFramer
        framer = kind(INFO, ListenerLedger(), 8)
        edges = [0, *sorted(cuts), len(data)]
        batches = [
            batch for begin, end in pairwise(edges) if begin < end for batch in framer.feed(data[begin:end], 1.5)
        ]
        for batch in [*batches, *framer.finish(2.5)]:
            self.check(batch)

    @given(st.text(max_size=20), st.text(st.characters(), max_size=20))
    @example("", "\ud800")
    def test_any_name(self, listener: str, peer: str) -> None:
        """Names of any characters are escaped and read back as they were, a lone surrogate as a question mark."""
        expected = tuple(name.encode("utf-8", "replace").decode() for name in (listener, peer))
        batch = batch_of(b"a", b"b", info=ConnectionInfo(1, listener, peer, None, proxy=listener, local=peer))
        self.assertEqual(render_json(batch), render_json_slowly(batch))
        for line in objects(render_json(batch)):
            self.assertEqual((line["listener"], line["peer"]), expected)
            self.assertEqual((line["proxy"], line["local"]), expected)

    def test_what_else_is_known(self) -> None:
        """The proxy and the local address stand behind the peer where a header has said them, and nowhere else."""
        batch = batch_of(b"x", info=ConnectionInfo(1, "l", "p", None, proxy="a:1", local="b:2"))
        self.assertEqual(list(only(batch)), ["time", "listener", "peer", "proxy", "local", "message"])
        self.assertEqual(list(only(batch_of(b"x"))), ["time", "listener", "peer", "message"])


class FormTests(RenderingCase):
    def test_whole_line(self) -> None:
        """A line is written without blanks, in this order, with marks where they are true and nowhere else."""
        at = datetime(2026, 11, 21, 3, 4, 5, 123456, UTC).timestamp()
        head = b'{"time":"2026-11-21T03:04:05.123456Z","listener":"tcp-1514","peer":"127.0.0.1:5","message":'
        self.assertEqual(render_json(batch_of(b"x", b"y", at=at)), head + b'"x"}\n' + head + b'"y"}\n')
        for partial, truncated, tail in [
            (True, False, b',"partial":true}\n'),
            (False, True, b',"truncated":true}\n'),
            (True, True, b',"partial":true,"truncated":true}\n'),
        ]:
            rendered = render_json(batch_of(b"x", at=at, partial=partial, truncated=truncated))
            self.assertEqual(rendered, head + b'"x"' + tail)

    def test_escapes(self) -> None:
        """Short escapes where JSON has them, lower-case hexadecimal elsewhere; DEL and line separators stay."""
        for record, written in [
            (b'a"b', rb"a\"b"),
            (rb"a\nb", rb"a\\nb"),
            (b"\b\t\n\f\r", rb"\b\t\n\f\r"),
            (b"\0\x01\x0b\x1b\x1f", rb"\u0000\u0001\u000b\u001b\u001f"),
            (b"/\x7f", b"/\x7f"),
            ("é\u2028\u2029😀".encode(), "é\u2028\u2029😀".encode()),
        ]:
            rendered = render_json(batch_of(record, delimiter=NUL))
            self.assertTrue(rendered.endswith(b'"message":"' + written + b'"}\n'), rendered)

    def test_invalid_utf8(self) -> None:
        """Each maximal part that is not UTF-8 is one U+FFFD: stray, cut short, overlong, a surrogate, too large."""
        for record, message in [
            (b"a\x80b", "a\ufffdb"),
            (b"a\xe2\x82b", "a\ufffdb"),
            (b"\xf0\x9f\x98", "\ufffd"),
            (b"\xc0\x80", "\ufffd\ufffd"),
            (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
            (b"\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd"),
            (b"gr\xfc\xdfe", "gr\ufffd\ufffde"),
        ]:
            self.assertEqual(only(batch_of(record))["message"], message)

    def test_hostile_names(self) -> None:
        """No name of a listener or peer ends its string or its line, one that has no UTF-8 included."""
        hostile = 'a"},{\\\n\x1b\u2028é'
        line = only(batch_of(b"x", info=ConnectionInfo(1, hostile, hostile, None)))
        self.assertEqual((line["listener"], line["peer"]), (hostile, hostile))
        batch = batch_of(b"x", info=ConnectionInfo(1, "unix", os.fsdecode(b"/run/\xff"), None))
        self.assertEqual(only(batch)["peer"], "/run/?")
        self.assertEqual(render_json(batch), render_json_slowly(batch))

    def test_raw_and_json_of_a_line_feed(self) -> None:
        """An LF inside a record makes raw ambiguous, and json not."""
        one, two = batch_of(b"a\nb", delimiter=NUL), batch_of(rb"a\nb", delimiter=NUL)
        self.assertEqual(render_raw(one), render_raw(two))
        self.assertEqual([only(one)["message"], only(two)["message"]], ["a\nb", r"a\nb"])

    def test_every_format_has_its_way(self) -> None:
        """No format can be configured that cannot be rendered."""
        self.assertEqual(set(RENDERERS), set(Format))


class TimeTests(RenderingCase):
    def test_edges(self) -> None:
        """Microseconds are always six digits; what rounds up to a second carries into it, over midnights too."""
        midnight = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
        for at, written in [
            (0.0, "1970-01-01T00:00:00.000000Z"),
            (0.000001, "1970-01-01T00:00:00.000001Z"),
            (0.0000004, "1970-01-01T00:00:00.000000Z"),
            (0.0000006, "1970-01-01T00:00:00.000001Z"),
            (0.1, "1970-01-01T00:00:00.100000Z"),
            (0.9999994, "1970-01-01T00:00:00.999999Z"),
            (0.9999996, "1970-01-01T00:00:01.000000Z"),
            (midnight + 0.5, "2026-12-31T23:59:59.500000Z"),
            (midnight + 0.9999998, "2027-01-01T00:00:00.000000Z"),
        ]:
            self.assertEqual(only(batch_of(b"x", at=at))["time"], written)

    @given(STAMPS)
    def test_any_time(self, at: float) -> None:
        """Any time has the one form and is at most half a microsecond away, but for what a float cannot hold."""
        written = only(batch_of(b"x", at=at))["time"]
        self.assertTrue(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", written), written)
        distance = datetime.fromisoformat(written) - datetime(1970, 1, 1, tzinfo=UTC) - timedelta(seconds=at)
        self.assertTrue(abs(distance) <= timedelta(microseconds=1), (at, written))


class DescriptionTests(SynchronousTestCase):
    def test_json_is_named(self) -> None:
        """A sink says that it writes json; raw goes without saying."""
        clock = Clock()
        events = Events(clock.seconds)
        for form, file_says, stdout_says in [
            (Format.RAW, "(fsync never)", "standard output"),
            (Format.JSON, "(fsync never, json)", "standard output (json)"),
        ]:
            file = FileSink("file", "x.log", reactor=clock, events=events, format=form)
            self.assertTrue(file.describe().endswith(file_says), file.describe())
            stdout = StdoutSink("stdout", reactor=clock, events=events, format=form)
            self.assertEqual(stdout.describe(), stdout_says)


class WaitingTests(SynchronousTestCase):
    def test_what_waits_is_not_rendered_yet(self) -> None:
        """Groups that wait for the disk take the memory the budget was charged for, and not that of their JSON."""
        clock = Clock()
        sink = FileSink("file", "x.log", reactor=clock, events=Events(clock.seconds), format=Format.JSON)
        batch = batch_of(*[b"a"] * 30_000)
        self.assertTrue(len(render_json(batch)) > 40 * batch.size)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        delivered = [sink.deliver(Group([batch], batch.size)) for _ in range(10)]
        self.assertTrue(tracemalloc.get_traced_memory()[0] < batch.size, tracemalloc.get_traced_memory())
        sink.abandon()
        for outcome in delivered:
            self.failureResultOf(outcome, SinkError)


class EndToEndTests(SynchronousTestCase):
    def server(self, *flags: str) -> Server:
        """Start a process that ends with the test."""
        server = Server(*flags)
        self.addCleanup(server.kill)
        server.wait_ready()
        return server

    def test_file(self) -> None:
        """Lines sent over TCP are objects in the file, with who sent them, the cut and the unfinished one marked."""
        server = self.server("--sink", "file:out.log?format=json", "--max-length", "20B")
        with server.connect() as peer:
            name = "{}:{}".format(*peer.getsockname())
            peer.sendall(b'say "hi"\r\n\xff\x01\n' + b"x" * 21 + b"\nend")
            peer.shutdown(socket.SHUT_WR)
            self.assertEqual(peer.recv(1), b"")
        delivered = "ingest_sink_delivered_records_total[file]"
        wait_until(lambda: server.metrics()[delivered] == 4, "four records in the file")
        with open(os.path.join(server.folder, "out.log"), "rb") as stream:
            lines = objects(stream.read())
        self.assertEqual([line["message"] for line in lines], ['say "hi"', "\ufffd\x01", "x" * 20, "end"])
        self.assertEqual({(line["listener"], line["peer"]) for line in lines}, {("tcp-0", name)})
        marks = [{key for key in line if key in ("partial", "truncated")} for line in lines]
        self.assertEqual(marks, [set(), set(), {"truncated"}, {"partial"}])
        self.assertIn("(fsync never, json)", "\n".join(server.log))

    def test_standard_output(self) -> None:
        """NUL-ended records of several lines are one object a line on standard output."""
        server = self.server("--sink", "stdout:?format=json", "--framing", "nul")
        server.send(b"one\ntwo\0three\0")
        assert server.process.stdout is not None
        lines = objects(server.process.stdout.readline() + server.process.stdout.readline())
        self.assertEqual([line["message"] for line in lines], ["one\ntwo", "three"])
