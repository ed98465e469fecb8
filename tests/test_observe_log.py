"""The log: one line per event in text or JSON, whatever the event, and no reader can stop the server."""

import errno
import fcntl
import importlib
import json
import os
import select
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, NoReturn

from twisted.logger import LogEvent, Logger, LogLevel, globalLogPublisher
from twisted.plugin import getCache
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.observe.log import FLUSH_SECONDS, QUEUE_LINES, LogObserver, LogWriter

LONG_SECONDS = 10.0
"""Longer than any wait here lasts when all is well."""

TIME = 1_700_000_000.123456


class Unspeakable:
    """Raises whenever it is asked what it is."""

    def __repr__(self) -> str:
        raise ValueError("no words")


def bug(message: str) -> NoReturn:
    """Fail as a bug would."""
    raise ValueError(message)


def failure_of(message: str) -> Failure:
    """Make a failure with a traceback."""
    try:
        bug(message)
    except ValueError:
        return Failure()


def in_time(call: Callable[[], object]) -> bool:
    """Run a call in a thread, so that one that blocks fails a test and does not hang it."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(LONG_SECONDS)
    return not thread.is_alive()


class PipeTestCase(SynchronousTestCase):
    """Gives each test a pipe with a writer at its one end."""

    def setUp(self) -> None:
        self.reader, self.descriptor = os.pipe()
        self.open = {self.reader, self.descriptor}
        self.addCleanup(self._close_all)
        self.writer = LogWriter(self.descriptor)

    def _close_all(self) -> None:
        for descriptor in self.open:
            os.close(descriptor)

    def close(self, descriptor: int) -> None:
        """Close one end early."""
        self.open.discard(descriptor)
        os.close(descriptor)

    def read_available(self) -> bytes:
        """Read what is in the pipe."""
        data = b""
        while select.select([self.reader], [], [], 0)[0]:
            chunk = os.read(self.reader, 1 << 20)
            if not chunk:
                break
            data += chunk
        return data

    def read_lines(self, count: int) -> list[bytes]:
        """Read until so many lines have come."""
        data = b""
        while data.count(b"\n") < count:
            self.assertTrue(select.select([self.reader], [], [], LONG_SECONDS)[0], f"only {data[-200:]!r} came")
            data += os.read(self.reader, 1 << 20)
        return data.splitlines()

    def fill(self) -> int:
        """Fill the pipe as a stalled reader does, and give how many bytes that took."""
        os.set_blocking(self.descriptor, False)
        size = 0
        try:
            while True:
                size += os.write(self.descriptor, b"." * 4096)
        except BlockingIOError:
            os.set_blocking(self.descriptor, True)
        return size

    def stop(self) -> None:
        """Stop the writer at the end of a test, the pipe read empty."""
        self.read_available()
        self.writer.stop()

    def stuck(self) -> None:
        """Start the writer on a full pipe, and wait until its thread holds a line that it cannot write."""
        self.size = self.fill()
        self.writer.start()
        self.addCleanup(self.stop)
        self.writer.write("first")
        self.assertTrue(in_time(self._until_taken))

    def _until_taken(self) -> None:
        # The thread takes lines under the lock; until it has, it is about to.
        while True:
            with self.writer._wake:
                if not self.writer._lines:
                    return


class WriterTests(PipeTestCase):
    def test_before_start(self) -> None:
        """Before ``start`` a line is written when ``write`` returns."""
        self.writer.write("hello")
        self.assertEqual(self.read_available(), b"hello\n")

    def test_before_start_no_thread(self) -> None:
        """Before ``start`` there is no thread that a fork could lose."""
        before = threading.active_count()
        LogWriter(self.descriptor).write("hello")
        self.assertEqual(threading.active_count(), before)

    def test_in_order(self) -> None:
        """Lines come out whole and in the order they were written, through the start and the stop."""
        self.writer.write("0")
        self.writer.start()
        for number in range(1, 500):
            self.writer.write(str(number))
        self.writer.stop()
        self.writer.write("500")
        self.assertEqual(self.read_lines(501), [str(number).encode() for number in range(501)])
        self.assertEqual(self.writer.dropped, 0)

    def test_many_threads(self) -> None:
        """Lines of several threads are all there, none torn."""
        self.writer.start()
        self.addCleanup(self.stop)

        def write(name: int) -> None:
            for number in range(100):
                self.writer.write(f"{name}:{number}")

        threads = [threading.Thread(target=write, args=(name,)) for name in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG_SECONDS)
        expected = {f"{name}:{number}".encode() for name in range(5) for number in range(100)}
        self.assertEqual(set(self.read_lines(500)), expected)

    def test_not_utf8(self) -> None:
        """A surrogate (a path that is not UTF-8) is written escaped."""
        self.writer.write("\udcff")
        self.assertEqual(self.read_available(), b"\\udcff\n")

    def test_longer_than_the_pipe(self) -> None:
        """A text larger than a pipe comes out whole once started."""
        self.writer.start()
        self.addCleanup(self.stop)
        self.writer.write("z" * 300_000)
        self.assertEqual(self.read_lines(1), [b"z" * 300_000])

    def test_non_blocking_descriptor(self) -> None:
        """A descriptor that another process made non-blocking loses no line."""
        self.size = self.fill()
        os.set_blocking(self.descriptor, False)
        self.writer.start()
        self.addCleanup(self.stop)
        self.writer.write("patient")
        self.assertEqual(self.read_lines(1)[0][self.size :], b"patient")
        self.assertEqual(self.writer.dropped, 0)

    def test_restart(self) -> None:
        """A stopped writer can be started again."""
        self.writer.start()
        self.writer.stop()
        self.writer.start()
        self.addCleanup(self.stop)
        self.writer.write("again")
        self.assertEqual(self.read_lines(1), [b"again"])


class StalledReaderTests(PipeTestCase):
    def test_write_never_blocks(self) -> None:
        """With a reader that stalls ``write`` returns, and what does not fit the queue is counted."""
        self.stuck()

        def flood() -> None:
            for number in range(QUEUE_LINES + 25):
                self.writer.write(f"line {number}")

        self.assertTrue(in_time(flood), "write blocked")
        self.assertEqual(self.writer.dropped, 25)

    def test_goes_on(self) -> None:
        """When the reader goes on, the lines that waited come out in order, and later ones too."""
        self.stuck()
        for number in range(QUEUE_LINES + 1):
            self.writer.write(str(number))
        lines = self.read_lines(1 + QUEUE_LINES)
        self.assertEqual(lines[0][self.size :], b"first")
        self.assertEqual(lines[1:], [str(number).encode() for number in range(QUEUE_LINES)])
        self.writer.write("later")
        self.assertEqual(self.read_lines(1), [b"later"])
        self.assertEqual(self.writer.dropped, 1)

    def test_tracebacks_count_line_by_line(self) -> None:
        """A dropped event of three lines is three lines dropped."""
        self.stuck()
        for number in range(QUEUE_LINES):
            self.writer.write(str(number))
        self.writer.write("a\n    b\n    c")
        self.assertEqual(self.writer.dropped, 3)

    def test_stop_is_bounded(self) -> None:
        """``stop`` returns although the reader stalls."""
        self.stuck()
        self.assertTrue(in_time(self.writer.stop), f"stop took longer than {FLUSH_SECONDS} s by far")

    def test_write_after_a_stop_in_vain(self) -> None:
        """What the process says after ``stop`` does not block it either, though the reader still stalls."""
        self.stuck()
        self.writer.stop()
        self.assertTrue(in_time(lambda: self.writer.write("Server Shut Down.")), "write blocked after stop")
        self.assertEqual([line[self.size :] for line in self.read_lines(2)[:1]], [b"first"])

    def test_reader_stalls_after_stop(self) -> None:
        """A reader that stalls after an orderly ``stop`` costs the line, counted, not the process."""
        self.writer.start()
        self.writer.stop()
        self.fill()
        self.assertTrue(in_time(lambda: self.writer.write("Server Shut Down.")), "write blocked after stop")
        self.assertEqual(self.writer.dropped, 1)


class GoneReaderTests(PipeTestCase):
    def test_before_start(self) -> None:
        """A reader that is gone raises nothing, and the line is counted."""
        self.close(self.reader)
        self.writer.write("into the void")
        self.assertEqual(self.writer.dropped, 1)

    def test_started(self) -> None:
        """The thread survives a reader that is gone, and every line is counted."""
        self.close(self.reader)
        self.writer.start()
        for number in range(10):
            self.writer.write(str(number))
        self.writer.stop()
        self.writer.write("after")
        self.assertEqual(self.writer.dropped, 11)

    def test_goes_while_stalled(self) -> None:
        """A reader that goes while the thread waits for it sets the thread free."""
        self.stuck()
        self.writer.write("second")
        self.close(self.reader)
        self.assertTrue(in_time(self.writer.stop))
        self.assertEqual(self.writer.dropped, 2)
        self.reader, other = os.pipe()
        self.open |= {self.reader, other}

    def test_closed_descriptor(self) -> None:
        """A descriptor that was closed raises nothing."""
        spare = fcntl.fcntl(self.descriptor, fcntl.F_DUPFD, 500)
        os.close(spare)
        writer = LogWriter(spare)
        writer.write("nowhere")
        self.assertEqual(writer.dropped, 1)


class ObserverTestCase(PipeTestCase):
    """Gives each test both styles of log on the pipe."""

    def text(self, **event: Any) -> str:
        """Render an event as text."""
        return self.render("text", event)

    def json(self, **event: Any) -> dict[str, Any]:
        """Render an event as JSON, insist on one valid line, and give its object."""
        line = self.render("json", event)
        self.assertEqual(line.count("\n"), 1, line)
        found: dict[str, Any] = json.loads(line, parse_constant=self.fail)
        return found

    def render(self, style: str, event: LogEvent) -> str:
        """Render one event."""
        observer = LogObserver(self.writer, style)
        observer({"log_time": TIME, "log_level": LogLevel.info, "log_namespace": "twisted_ingest", **event})
        return self.read_available().decode()


class TextTests(ObserverTestCase):
    def test_line(self) -> None:
        """A line is time in UTC, level, message."""
        self.assertEqual(self.text(log_format="{who} came", who="she"), "2023-11-14T22:13:20.123Z info     she came\n")

    def test_traceback_is_indented(self) -> None:
        """Every line of a traceback but the first is indented: what is not is an event."""
        text = self.text(log_format="oops", log_failure=failure_of("two\nlines"), log_level=LogLevel.critical)
        first, *rest = text.splitlines()
        self.assertTrue(first.endswith("critical oops"), first)
        self.assertGreater(len(rest), 3)
        self.assertTrue(all(line.startswith("    ") for line in rest), text)
        self.assertIn("ValueError: two", text)

    def test_terminal_is_safe(self) -> None:
        """A traceback that quotes a peer cannot steer a terminal, nor begin a line of its own."""
        hostile = "\x1b[2J\rfake\x0b\x85\u2028\u202e"
        text = self.text(log_format="{what}", what=hostile, log_failure=failure_of(hostile))
        self.assertTrue(all(line.isprintable() for line in text.splitlines()), repr(text))
        self.assertEqual(len(text.splitlines()), text.count("\n"))

    def test_fields_are_not_formats(self) -> None:
        """The content of a field is never taken for a format."""
        self.assertIn(" {0} %s {log_format}\n", self.text(log_format="{x}", x="{0} %s {log_format}"))

    def test_broken_events(self) -> None:
        """An event that cannot be rendered is one line that says so."""
        for event in (
            {"log_format": "{missing}"},
            {"log_format": "{x}", "x": Unspeakable()},
            {"log_format": "x", "log_time": None},
            {"log_format": "x", "log_time": float("nan")},
            {"log_format": "x", "log_level": "loud"},
            {"log_format": Unspeakable(), "log_level": "loud"},
        ):
            text = self.text(**event)
            self.assertTrue(text.startswith("20"), text)
            self.assertIn("ble", text)


class JsonTests(ObserverTestCase):
    def test_line(self) -> None:
        """A line has time, level, logger, message, and the event's own fields."""
        found = self.json(log_format="{who} came", who="she", conn=3, size=1.5, none=None)
        self.assertEqual(datetime.fromisoformat(found.pop("time")).timestamp(), TIME)
        self.assertEqual(
            found,
            {
                "level": "info",
                "logger": "twisted_ingest",
                "message": "she came",
                "who": "she",
                "conn": 3,
                "size": 1.5,
                "none": None,
            },
        )

    def test_failure(self) -> None:
        """A failure is in the message, its traceback included, on one line."""
        found = self.json(log_format="oops", log_failure=failure_of("two\nlines"), log_level=LogLevel.critical)
        self.assertTrue(found["message"].startswith("oops\nTraceback"), found["message"])
        self.assertIn("ValueError: two\nlines", found["message"])

    def test_own_keys_stand(self) -> None:
        """A field cannot pass for the time, the level, the logger or the message."""
        found = self.json(log_format="real", time="never", level="none", logger="forged", message="forged")
        self.assertEqual((found["level"], found["logger"], found["message"]), ("info", "twisted_ingest", "real"))
        self.assertEqual(datetime.fromisoformat(found["time"]).timestamp(), TIME)

    def test_similar_keys_are_kept(self) -> None:
        """A field whose name merely begins like an internal one is not left out."""
        fields = {"timeout": 5, "systemd": 1, "formats": 2, "messages": 3, "whyever": 4, "failures": 6}
        found = self.json(log_format="x", **fields)
        self.assertEqual({key: found.get(key) for key in fields}, fields)

    def test_legacy_keys_are_left_out(self) -> None:
        """What ``twisted.python.log`` adds for itself does not show."""
        found = self.json(log_format="x", isError=0, system="-", log_system="-", format="%(x)s")
        self.assertEqual(set(found), {"time", "level", "logger", "message"})

    def test_fields_that_json_does_not_know(self) -> None:
        """Whatever a field holds, the line is valid JSON and the other fields are there."""
        loop: list[Any] = []
        loop.append(loop)
        for value in (
            b"\xff",
            object(),
            {1, 2},
            {("a", 1): 2},
            {"deep": {"object": object()}},
            float("nan"),
            [float("inf")],
            loop,
            Unspeakable(),
            {"x": Unspeakable()},
            {Unspeakable(): 1},
            "\ud800\x00\x1b\u2028",
            LogLevel.warn,
            10**5000,
        ):
            found = self.json(log_format="kept", value=value, other=1)
            self.assertEqual((found["message"], found["other"]), ("kept", 1))
            self.assertIn("value", found)

    def test_broken_events(self) -> None:
        """An event that cannot be rendered is a valid line too."""
        for event in (
            {"log_format": "{missing}"},
            {"log_format": "{x}", "x": Unspeakable()},
            {"log_format": "x", "log_time": "noon"},
            {"log_format": "x", "log_time": 1e300},
            {"log_format": "x", "log_level": None},
            {"log_format": 5, "log_level": None},
        ):
            self.assertIn("ble", self.json(**event)["message"])

    def test_hostile_content(self) -> None:
        """A line of JSON is ASCII without control characters."""
        line = self.render("json", {"log_format": "{x}", "x": "\x1b\r\n\x00\u202eé"})
        self.assertTrue(line.rstrip("\n").isascii())
        self.assertTrue(line.rstrip("\n").isprintable())


def _refuse(number: int, *_: object) -> None:
    raise OSError(number, os.strerror(number))


class ObserverTests(ObserverTestCase):
    def test_debug_is_left_out(self) -> None:
        """Debug events are not written; every level above is."""
        for style in ("text", "json"):
            log = Logger("t", observer=LogObserver(self.writer, style))
            log.debug("hidden")
            for level in (LogLevel.info, LogLevel.warn, LogLevel.error, LogLevel.critical):
                log.emit(level, "shown")
            written = self.read_available()
            self.assertEqual((written.count(b"shown"), written.count(b"hidden")), (4, 0))

    def test_plugin_cache(self) -> None:
        """What twistd says of a plugin cache that it may not write is left out; a full disk it may speak of."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        package = f"plugins_{os.path.basename(folder)}"
        os.mkdir(os.path.join(folder, package))
        for name in ("__init__.py", "one.py"):
            open(os.path.join(folder, package, name), "w").close()
        self.patch(sys, "path", [folder, *sys.path])
        module = importlib.import_module(package)
        observer = LogObserver(self.writer, "text")
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for number, said in ((errno.EACCES, 0), (errno.EROFS, 0), (errno.EPERM, 0), (errno.ENOSPC, 1)):
            self.patch(FilePath, "setContent", partial(_refuse, number))
            getCache(module)
            self.assertEqual(self.read_available().count(b"plugin cache"), said, errno.errorcode[number])

    def test_without_a_level(self) -> None:
        """An event without a level or a format is still a line."""
        observer = LogObserver(self.writer, "text")
        observer({"log_time": TIME})
        self.assertEqual(self.read_available(), b"2023-11-14T22:13:20.123Z info     \n")
