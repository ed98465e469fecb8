"""The logging handler for applications: real sockets, peers that vanish, the server itself, ends of processes."""

import contextlib
import io
import logging
import logging.config
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator

from twisted.trial.unittest import SynchronousTestCase

from tests.server import PATIENCE, RELP_ENDPOINT, Server, wait_until
from tests.test_real_clients import Rsyslog, program
from tests.test_relp_clients import omrelp
from twisted_ingest.logging_handler import IngestHandler, delivery

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def soon(_attempt: int) -> float:
    """Try again at once."""
    return 0.001


class HandlerCase(SynchronousTestCase):
    """A listening socket, and a logger with a handler that sends there."""

    def setUp(self) -> None:
        self.port = socket.create_server(("127.0.0.1", 0))
        self.port.settimeout(PATIENCE)
        self.addCleanup(self.port.close)
        self.logger = logging.Logger("app")  # noqa: LOG001 - not in the tree of all loggers

    def handler(self, **more: object) -> IngestHandler:
        """Make the handler: the text alone, tried again at once, unless told otherwise."""
        arguments: dict[str, object] = {"raw": True, "backoff": soon, "timeout": PATIENCE, **more}
        handler = IngestHandler(self.port.getsockname(), **arguments)  # type: ignore[arg-type]
        self.logger.addHandler(handler)
        self.addCleanup(self.close, handler)
        return handler

    def close(self, handler: IngestHandler) -> None:
        """End the handler without waiting for what is left."""
        handler._timeout = 0.0
        with contextlib.redirect_stderr(io.StringIO()):
            handler.close()
        thread = handler._delivery._thread
        if thread is not None:
            thread.join(PATIENCE)
            self.assertFalse(thread.is_alive())

    def accept(self) -> "Peer":
        """Take the next connection."""
        peer = Peer(self.port.accept()[0])
        self.addCleanup(peer.close)
        return peer


class Peer:
    """The server's side of a connection, read line by line."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(PATIENCE)
        self.stream = connection.makefile("rb")

    def lines(self, count: int) -> list[bytes]:
        """Read so many lines."""
        return [self.stream.readline().rstrip(b"\n") for _ in range(count)]

    def frame(self) -> tuple[int, bytes, bytes]:
        """Read a RELP frame."""
        number, command, length = (self.word() for _ in range(3))
        text = self.stream.read(int(length))
        if int(length):
            self.stream.read(1)
        return int(number), command, text

    def word(self) -> bytes:
        """Read up to a blank or LF, and that."""
        found = b""
        while (byte := self.stream.read(1)) not in (b" ", b"\n"):
            if not byte:
                raise EOFError
            found += byte
        return found

    def answer(self, number: int, text: bytes = b"200 OK") -> None:
        """Answer a frame."""
        self.socket.sendall(b"%d rsp %d %b\n" % (number, len(text), text))

    def open(self) -> None:
        """Take part in the opening of a session."""
        number, command, _ = self.frame()
        assert (number, command) == (1, b"open")
        self.answer(1, b"200 OK\nrelp_version=0\ncommands=syslog")

    def close(self) -> None:
        """Close, with FIN where everything was read."""
        self.stream.close()
        self.socket.close()

    def reset(self) -> None:
        """Close with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


class LinesTests(HandlerCase):
    def test_one_record_one_line(self) -> None:
        """A traceback is one line, and so is what holds CR or NUL; LF at the end says nothing."""
        self.handler()
        try:
            int("boom")
        except ValueError:
            self.logger.exception("failed\r")
        self.logger.warning("next\0")
        self.logger.warning("last\n\n")
        first, second, last = self.accept().lines(3)
        self.assertTrue(first.startswith(b"failed\\r\\nTraceback (most recent call last):\\n"), first)
        self.assertTrue(first.endswith(b"ValueError: invalid literal for int() with base 10: 'boom'"), first)
        self.assertEqual((second, last), (b"next\\0", b"last"))

    def test_rfc5424_unless_raw(self) -> None:
        """By default a record is a message of RFC 5424, the formatter's text in it."""
        handler = self.handler(raw=False, facility="local3", app_name="shop", host_name="web1")
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        self.logger.warning("hello")
        (line,) = self.accept().lines(1)
        time = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
        self.assertRegex(line, rb"^<156>1 %b web1 shop %d app - WARNING: hello$" % (time, os.getpid()))

    def test_unix_socket(self) -> None:
        """A path is that of a UNIX socket, which may come later."""
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "socket")
        with socket.socket(socket.AF_UNIX) as port:
            handler = IngestHandler(path, raw=True, backoff=soon)
            self.addCleanup(self.close, handler)
            self.logger.addHandler(handler)
            self.logger.warning("hello")
            wait_until(lambda: handler.failure, "nobody listens")
            port.bind(path)
            port.listen()
            port.settimeout(PATIENCE)
            peer = Peer(port.accept()[0])
            self.addCleanup(peer.close)
            self.assertEqual(peer.lines(1), [b"hello"])

    def test_from_a_dictionary(self) -> None:
        """It can be named in a configuration of `logging.config`, where an address is a list."""
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "handlers": {
                    "ingest": {
                        "class": "twisted_ingest.logging_handler.IngestHandler",
                        "address": list(self.port.getsockname()),
                        "raw": True,
                    }
                },
                "loggers": {"ingest-dict-config": {"handlers": ["ingest"]}},
            }
        )
        logger = logging.getLogger("ingest-dict-config")
        (handler,) = logger.handlers
        assert isinstance(handler, IngestHandler)
        self.addCleanup(self.close, handler)
        self.addCleanup(logger.removeHandler, handler)
        logger.warning("hello")
        self.assertEqual(self.accept().lines(1), [b"hello"])

    def test_nothing_goes_to_a_closed_peer(self) -> None:
        """A line logged after the peer has closed or reset goes to the next connection: none is lost."""
        self.handler()
        self.logger.warning("line 0")
        for number, end in enumerate((Peer.close, Peer.reset, Peer.close), 1):
            peer = self.accept()
            self.assertEqual(peer.lines(1), [b"line %d" % (number - 1)])
            end(peer)
            self.logger.warning("line %d", number)
        self.assertEqual(self.accept().lines(1), [b"line 3"])

    def test_cut_off_is_sent_again_whole(self) -> None:
        """Where a connection ends inside a record, the next one begins with that record, and nothing is lost."""
        self.handler(max_bytes=64_000_000)
        lines = [b"%08d" % number + b"x" * 100_000 for number in range(200)]
        for line in lines:
            self.logger.warning(line.decode())
        first = self.accept()
        whole = first.lines(3)
        # We end our side, and read what was on its way.
        first.socket.shutdown(socket.SHUT_WR)
        *more, cut = first.stream.read().split(b"\n")
        whole += more
        self.assertTrue(len(whole) < 200 and lines[len(whole)].startswith(cut))
        self.assertEqual(whole + self.accept().lines(200 - len(whole)), lines)

    def test_never_waits(self) -> None:
        """With a peer that reads nothing, logging goes on; what has no room is dropped, counted, and told of."""
        handler = self.handler(max_records=50)
        text = "x" * 200_000  # fifty of them are more than the kernel takes
        self.logger.warning("begin")
        peer = self.accept()
        for number in range(1000):
            self.logger.warning("%04d %s", number, text)
        dropped = handler.dropped
        self.assertGreater(dropped, 500)
        self.assertLessEqual(handler.waiting, 51)
        lines, told = peer.lines(1), 0
        while len(lines) + told < 1001:
            (line,) = peer.lines(1)
            if found := re.match(rb"(\d+) records were dropped: too many waited to be sent$", line):
                told += int(found[1])
            else:
                lines.append(line)
        self.assertEqual(told, dropped)
        numbers = [int(line[:4]) for line in lines[1:]]
        self.assertEqual(numbers, sorted(set(numbers)))
        self.logger.warning("end")
        self.assertEqual(peer.lines(1), [b"end"])

    def test_flush(self) -> None:
        """After a flush everything has left; without a server it ends at its deadline, and closing waits no more."""
        handler = self.handler()
        for number in range(100):
            self.logger.warning("%d", number)
        handler.flush()
        self.assertEqual((handler.waiting, handler.failure), (0, None))
        peer = self.accept()
        self.assertEqual(peer.lines(100)[-1], b"99")
        self.port.close()
        peer.close()
        wait_until(lambda: handler.failure and "refused" in handler.failure, "the peer is gone")
        self.logger.warning("too late")
        handler._timeout = 0.01
        handler.flush()
        self.assertEqual(handler.waiting, 1)
        handler._timeout = 3600.0  # of which the test would notice
        said = io.StringIO()
        closing = threading.Thread(target=handler.close, daemon=True)
        with contextlib.redirect_stderr(said):
            closing.start()
            closing.join(PATIENCE)
        self.assertFalse(closing.is_alive())
        self.assertEqual(handler.dropped, 1)
        self.assertIn("1 records were not sent, or not answered: ", said.getvalue())
        self.logger.warning("after the end")
        self.assertEqual(handler.dropped, 2)

    def test_tries_again(self) -> None:
        """Each failure waits longer than the one before; a flush has the next try made at once."""
        address = self.port.getsockname()
        self.port.close()
        attempts: list[int] = []

        def delay(attempt: int) -> float:
            attempts.append(attempt)
            # Whatever is logged in the sending thread is not sent: it would beget itself.
            self.logger.warning("trying for the %d. time", attempt)
            return 0.001 if attempt < 3 else 3600.0

        handler = self.handler_at(address, delay)
        self.logger.warning("hello")
        wait_until(lambda: len(attempts) >= 3, "three failures")
        self.assertEqual(attempts, [1, 2, 3])
        self.port = socket.create_server(address)
        self.port.settimeout(PATIENCE)
        self.addCleanup(self.port.close)
        handler.flush()
        peer = self.accept()
        self.logger.warning("world")
        self.assertEqual(peer.lines(2), [b"hello", b"world"])

    def handler_at(self, address: tuple[str, int], delay: Callable[[int], float]) -> IngestHandler:
        handler = IngestHandler(address, raw=True, backoff=delay, timeout=PATIENCE)
        self.logger.addHandler(handler)
        self.addCleanup(self.close, handler)
        return handler

    def test_attempts_begin_anew(self) -> None:
        """Only a connection that has lasted makes the next failure a first one: a refusing server is not hammered."""
        attempts: list[int] = []

        def delay(attempt: int) -> float:
            attempts.append(attempt)
            return soon(attempt)

        handler = self.handler(backoff=delay)
        self.logger.warning("hello")
        for _ in range(3):
            self.accept().reset()
        wait_until(lambda: len(attempts) >= 3, "three failures")
        self.assertEqual(attempts, [1, 2, 3])
        self.patch(delivery, "STABLE_SECONDS", 0.0)
        last = self.accept()
        wait_until(lambda: handler.failure is None, "connected")
        last.reset()
        self.accept()
        self.assertEqual(attempts, [1, 2, 3, 1])

    def test_logging_while_logging(self) -> None:
        """What is logged while a record is formatted is sent too, before it."""

        class Loud:
            def __str__(inner) -> str:  # noqa: N805
                self.logger.warning("inner")
                return "outer"

        self.handler()
        self.logger.warning("%s", Loud())
        self.assertEqual(self.accept().lines(2), [b"inner", b"outer"])

    def test_mistakes_of_the_application(self) -> None:
        """A record that cannot be formatted is reported as the standard library does, and the next one is sent."""
        self.handler()
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            self.logger.warning("%d", "no number")
        self.assertIn("--- Logging error ---", said.getvalue())
        self.logger.warning("next")
        self.assertEqual(self.accept().lines(1), [b"next"])

    def test_backoff_that_fails(self) -> None:
        """A ``backoff`` that raises is reported, and does not end the sending."""

        def delay(_attempt: int) -> float:
            raise ValueError("no delay")

        handler = self.handler(backoff=delay)
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            self.logger.warning("one")
            peer = self.accept()
            peer.lines(1)
            peer.reset()
            wait_until(lambda: "no delay" in said.getvalue(), "it is reported")
        self.logger.warning("two")
        flush = threading.Thread(target=handler.flush)
        flush.start()
        self.assertEqual(self.accept().lines(1), [b"two"])
        flush.join(PATIENCE)

    def test_no_thread_to_be_had(self) -> None:
        """Where no thread can be started this is reported, and tried again with the next record."""
        handler = self.handler()

        def start(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        said = io.StringIO()
        patched = self.patch(threading.Thread, "start", start)
        with contextlib.redirect_stderr(said):
            self.logger.warning("one")
        patched.restore()
        self.assertIn("can't start new thread", said.getvalue())
        self.assertEqual(handler.waiting, 1)
        self.logger.warning("two")
        self.assertEqual(self.accept().lines(2), [b"one", b"two"])

    def test_formatter_that_cannot_tell(self) -> None:
        """A formatter that wants more of a record than ours has does not keep it from telling what was dropped."""
        handler = self.handler(max_records=1)
        handler.setFormatter(logging.Formatter("%(request)s %(message)s"))
        more = {"request": "r1"}
        with socket.create_server(("127.0.0.1", 0)) as unused:
            handler._delivery._address = unused.getsockname()
        self.logger.warning("one", extra=more)
        self.logger.warning("two", extra=more)
        handler._delivery._address = self.port.getsockname()
        peer = self.accept()
        self.assertEqual(peer.lines(2), [b"r1 one", b"1 records were dropped: too many waited to be sent"])


class ImrelpTests(SynchronousTestCase):
    def test_rsyslog_receives(self) -> None:
        """Rsyslog's own RELP receiver takes what we send, and answers it: LF, NUL, nothing, and what is not ASCII."""
        omrelp()
        folder = self.enterContext(tempfile.TemporaryDirectory(prefix="ingest-imrelp-"))
        output = os.path.join(folder, "output")
        receiver = Imrelp(program("rsyslogd", "rsyslog"), output)
        self.addCleanup(receiver.stop)
        handler = IngestHandler(("127.0.0.1", receiver.relp_port), protocol="relp", raw=True, timeout=PATIENCE)
        logger = logging.Logger("app")  # noqa: LOG001 - not in the tree of all loggers
        logger.addHandler(handler)
        texts = ["<14>plain", "<14>two\nlines", "<14>caf\u00e9", "", *(f"<14>{number}" for number in range(3000))]
        for text in texts:
            logger.warning("%s", text)
        handler.flush()
        self.assertEqual((handler.waiting, handler.dropped), (0, 0))
        handler.close()
        receiver.stop()
        with open(output, "rb") as stream:
            lines = stream.read().splitlines()
        self.assertEqual(lines[:3], [b"<14>plain", b"<14>two#012lines", "<14>caf\u00e9".encode()])
        self.assertEqual(lines[-3000:], [b"<14>%d" % number for number in range(3000)])


class Imrelp(Rsyslog):
    """An rsyslog that receives RELP and writes records as they came, a line each."""

    def __init__(self, path: str, output: str) -> None:
        self.output = output
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.relp_port: int = probe.getsockname()[1]
        super().__init__(path, 0)
        wait_until(self.is_listening, "rsyslog takes RELP")

    def action(self, target: int, options: str) -> str:
        """See `Rsyslog`."""
        return (
            f'module(load="imrelp")\ninput(type="imrelp" port="{self.relp_port}" address="127.0.0.1")\n'
            f'action(type="omfile" file="{self.output}" template="raw")'
        )

    def is_listening(self) -> bool:
        """Whether its RELP port accepts."""
        try:
            with socket.create_connection(("127.0.0.1", self.relp_port), 1):
                return True
        except OSError:
            return False


class RelpTests(HandlerCase):
    def test_unanswered_is_sent_again(self) -> None:
        """What was not answered before the connection broke is sent again, in order; LF and all."""
        handler = self.handler(protocol="relp")
        for text in ("one", "two\nlines", "three"):
            self.logger.warning(text)
        first = self.accept()
        first.open()
        self.assertEqual([first.frame() for _ in range(3)][1], (3, b"syslog", b"two\nlines"))
        first.answer(2)
        wait_until(lambda: handler.waiting == 2, "an answer is heard")
        first.reset()
        second = self.accept()
        second.open()
        frames = [second.frame() for _ in range(2)]
        self.assertEqual(frames, [(2, b"syslog", b"two\nlines"), (3, b"syslog", b"three")])
        second.answer(2)
        second.answer(3)
        handler.flush()
        self.assertEqual((handler.waiting, handler.dropped), (0, 0))

    def test_goodbye(self) -> None:
        """At the end the session is closed in good order."""
        handler = self.handler(protocol="relp")
        self.logger.warning("one")
        peer = self.accept()
        peer.open()
        peer.frame()
        peer.answer(2)
        thread = threading.Thread(target=handler.close)
        thread.start()
        self.assertEqual(peer.frame(), (3, b"close", b""))
        peer.socket.sendall(b"3 rsp 0\n0 serverclose 0\n")
        peer.close()
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive())
        self.assertEqual(handler.dropped, 0)

    def test_refused_is_counted(self) -> None:
        """A record that the server refuses is counted, and not sent again."""
        handler = self.handler(protocol="relp")
        self.logger.warning("one")
        peer = self.accept()
        peer.open()
        peer.frame()
        peer.answer(2, b"500 never")
        handler.flush()
        self.assertEqual((handler.waiting, handler.dropped), (0, 1))

    def test_no_answer(self) -> None:
        """Where an answer stays away for too long, another connection is tried."""
        self.patch(delivery, "ANSWER_SECONDS", 0.05)
        self.handler(protocol="relp")
        self.logger.warning("one")
        first = self.accept()
        second = self.accept()
        self.patch(delivery, "ANSWER_SECONDS", 60.0)
        for peer in (first, second):
            self.assertEqual(peer.frame()[:2], (1, b"open"))

    def test_no_relp_server(self) -> None:
        """A server that speaks something else is named, and nothing is given up."""
        handler = self.handler(protocol="relp")
        self.logger.warning("one")
        peer = self.accept()
        self.assertEqual(peer.frame()[1], b"open")
        peer.socket.sendall(b"HTTP/1.1 400 Bad Request\r\n")
        self.assertEqual(peer.stream.read(), b"")
        again = self.accept()
        again.open()
        self.assertEqual(again.frame(), (2, b"syslog", b"one"))
        again.answer(2)
        handler.flush()
        self.assertEqual(handler.waiting, 0)


def run(script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a script with the package at hand; fails with its standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return done


PRELUDE = """
    import logging, os, sys, threading
    from twisted_ingest.logging_handler import IngestHandler
    handler = IngestHandler(("127.0.0.1", int(sys.argv[1])), protocol=sys.argv[2], raw=True)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
"""


class ProcessTests(SynchronousTestCase):
    """Whole processes with the handler, and the server itself."""

    def setUp(self) -> None:
        self.server = Server("--listen", RELP_ENDPOINT, "--relp", RELP_ENDPOINT)
        self.addCleanup(self.server.kill)
        self.server.wait_ready()
        self.ports = dict(zip(("lines", "relp"), self.server.ports, strict=True))

    def protocols(self) -> Iterator[str]:
        """Go through the protocols, each with an empty output."""
        for protocol in self.ports:
            self.before = len(self.server.output().splitlines())
            yield protocol

    def run_script(self, protocol: str, script: str) -> "subprocess.CompletedProcess[str]":
        return run(textwrap.dedent(PRELUDE) + textwrap.dedent(script), str(self.ports[protocol]), protocol)

    def lines(self, count: int) -> list[bytes]:
        """Wait for so many lines more than there were."""
        wait_until(lambda: len(self.server.output().splitlines()) >= self.before + count, f"{count} lines")
        return self.server.output().splitlines()[self.before :]

    def test_end_of_a_process(self) -> None:
        """A process that ends at once has everything sent, without a word from the application."""
        for protocol in self.protocols():
            done = self.run_script(protocol, "for number in range(8_000): logging.info('%d', number)")
            sent = [int(line) for line in self.lines(8_000 if protocol == "relp" else 1) if line.isdigit()]
            dropped = 8_000 - len(sent)
            self.assertEqual((sent, done.stderr), (list(range(8_000)), ""), f"{protocol}, {dropped} dropped")

    def test_exceptions_and_threads(self) -> None:
        """Records of many threads arrive, each once, and so does the last word of a process that fails."""
        for protocol in self.protocols():
            self.run_script(
                protocol,
                """
                def talk(name):
                    for number in range(500): logging.info("%d %d", name, number)
                threads = [threading.Thread(target=talk, args=(name,)) for name in range(8)]
                [thread.start() for thread in threads]
                [thread.join() for thread in threads]
                try: 1 / 0
                except ZeroDivisionError: logging.exception("last"); sys.exit(0)
                """,
            )
            lines = self.lines(4001)
            self.assertEqual(len(lines), 4001)
            self.assertEqual(set(lines[:-1]), {b"%d %d" % (name, number) for name in range(8) for number in range(500)})
            self.assertRegex(lines[-1], rb"^last\\nTraceback.*ZeroDivisionError")

    def test_fork(self) -> None:
        """A child has a connection of its own; nothing is sent twice, and the parent's connection stays."""
        for protocol in self.protocols():
            self.run_script(
                protocol,
                """
                logging.info("before"); handler.flush()
                logging.info("waits in the parent")
                pid = os.fork()
                logging.info("parent" if pid else "child")
                if pid: os.waitpid(pid, 0)
                logging.info("the parent goes on" if pid else "the child goes on")
                """,
            )
            expected = ["before", "child", "parent", "the child goes on", "the parent goes on", "waits in the parent"]
            self.assertEqual(sorted(self.lines(6)), [text.encode() for text in expected])
        opened = [value for name, value in self.server.metrics().items() if "connections_opened_total[" in name]
        self.assertEqual(opened, [2, 2])

    def test_multiprocessing(self) -> None:
        """Processes of `multiprocessing`, which end without the interpreter's last steps, lose nothing either."""
        for protocol in self.protocols():
            self.run_script(
                protocol,
                """
                import multiprocessing
                def work(number): logging.info("%d", number)
                context = multiprocessing.get_context("fork")
                workers = [context.Process(target=work, args=(number,)) for number in range(5)]
                [worker.start() for worker in workers]
                [worker.join() for worker in workers]
                """,
            )
            self.assertEqual(sorted(self.lines(5)), [b"%d" % number for number in range(5)])

    def test_without_twisted(self) -> None:
        """It works where nothing is installed that the server needs."""
        script = """
        import sys
        class Block:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("twisted", "zope", "pydantic", "prometheus_client"):
                    raise ImportError(f"{name} is not here")
        sys.meta_path.insert(0, Block())
        """
        for protocol in self.protocols():
            run(
                textwrap.dedent(script) + textwrap.dedent(PRELUDE) + "logging.info('hello')",
                str(self.ports[protocol]),
                protocol,
            )
            self.assertEqual(self.lines(1), [b"hello"])

    def test_server_restarts(self) -> None:
        """Over RELP, servers that are killed and started again lose nothing; first copies are in order."""
        handler = IngestHandler(("127.0.0.1", self.ports["relp"]), protocol="relp", raw=True, backoff=soon)
        handler._timeout = PATIENCE
        logger = logging.Logger("app")  # noqa: LOG001 - not in the tree of all loggers
        logger.addHandler(handler)
        self.addCleanup(handler.close)
        server = self.server
        for turn in range(3):
            for number in range(1000):
                logger.warning("%d", turn * 1000 + number)
            self.flow(turn * 1000 + 100)
            server.crash()
            server = Server(f"--relp=tcp:{self.ports['relp']}:interface=127.0.0.1", folder=server.folder)
            self.addCleanup(server.kill)
            server.wait_ready()
        handler.flush()
        self.assertEqual((handler.waiting, handler.dropped), (0, 0))
        got = list(dict.fromkeys(int(line) for line in server.output().splitlines()))
        self.assertEqual(got, list(range(3000)))

    def flow(self, count: int) -> None:
        wait_until(lambda: self.server.output().count(b"\n") > count, "records flow")
