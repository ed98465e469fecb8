"""Settings of pollers: flags, tables, what is refused, and a real process that polls."""

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.server import Server, wait_until
from tests.test_config_relp import ConfigCase
from twisted_ingest.config.load import load
from twisted_ingest.errors import ConfigurationError
from twisted_ingest.sinks.registry import sink_types
from twisted_ingest.sources.registry import source_types

TABLE = '[sources.a]\ntype = "http-poll"\nurl = "http://192.0.2.1/x"\n'


class PollConfigTests(ConfigCase):
    def test_flags(self) -> None:
        """``--poll`` makes a poller, alone or beside listeners; alone nothing listens."""
        alone = load(None, {}, [], [], sources={"poll": ["http://192.0.2.1/", "http://192.0.2.2/"]}).settings
        self.assertEqual((list(alone.listeners), list(alone.sources)), ([], ["http-poll", "http-poll-2"]))
        both = load(None, {}, ["tcp:1514"], [], sources={"poll": ["http://192.0.2.1/"]}).settings
        self.assertEqual((list(both.listeners), list(both.sources)), (["tcp-1514"], ["http-poll"]))

    def test_defaults(self) -> None:
        """What is not set is as documented; a length comes from the table, from ``[limits]``, or is the default."""
        settings: Any = self.read(TABLE).settings
        table = settings.sources["a"]
        self.assertEqual((table.interval, table.timeout, table.max_bytes), (60.0, 30.0, 64 << 20))
        self.assertEqual(settings.listener_limits("a").max_record_bytes, 100 * 1024)
        settings = self.read(TABLE + "max_length = 7\n[limits]\nmax_length = 9").settings
        self.assertEqual(settings.listener_limits("a").max_record_bytes, 7)
        settings = self.read(TABLE + "[limits]\nmax_length = 9").settings
        self.assertEqual(settings.listener_limits("a").max_record_bytes, 9)

    def test_a_header_is_told_at_its_line(self) -> None:
        """What is wrong with one header, its name or its value, stands at its own line, and hides no other."""
        text = TABLE + '[sources.a.headers]\nA = "1"\n"B C" = "2"\nHost = "h"\nD = 4\nE = "\\u0000"\nF = "6"\n'
        error = self.assertRaises(ConfigurationError, self.read, text)
        self.assertEqual(
            [(problem.where.rpartition(":")[2], problem.message.partition(":")[0]) for problem in error.problems],
            [("6", "B C"), ("7", "Host"), ("8", "D"), ("9", "E")],
        )

    def test_tables_of_ones_own_keys(self) -> None:
        """This is the one setting that is a table of the operator's own keys: for another, add it to the test above."""
        types: list[Any] = [*source_types().values(), *sink_types().values()]
        found = [
            (kind.word, key)
            for kind in types
            for key, about in kind.table.model_fields.items()
            if "dict[" in str(about.annotation)
        ]
        self.assertEqual(found, [("http-poll", "headers")])

    def test_mistakes(self) -> None:
        """Each mistake is named, with what would do; a secret in it is not repeated."""
        for line, what in (
            ('url = "ftp://h/"', "it must begin with http:// or https://"),
            ('url = "http://u:pa55@h/"', "credentials do not belong in it"),
            ("url = 7", "not text in quotes"),
            ('interval = "10ms"', "at least 1s"),
            ('redirects = "all"', "one of same-host, any, off"),
            ('headers = { "X Y" = "1" }', "not the name of a header"),
            ('headers = { "Host" = "h" }', "the poller sets it"),
            ('headers = { "authorization" = "pa55" }', "use authorization_file"),
            ('headers = { "X" = "a\\r\\nEvil: pa55" }', "one line of printable ASCII"),
            ('headers = "X: 1"', "not a table"),
            ('username = "a b"', "username: it is not 1 to 256 characters"),
            ('username = "me"', "without password_file it says nothing"),
            ('password_file = "nowhere"', "without username it says nothing"),
            ('username = "me"\npassword_file = "nowhere"', "cannot read nowhere: No such file"),
            ('authorization_file = "/"', "Is a directory"),
            ('ca = "/dev/null"', "without https there are no certificates"),
            ('max_length = "1GiB"', "do not fit in connection_memory"),
            ("max_bites = 1", "did you mean 'max_bytes'?"),
        ):
            head = TABLE.replace('url = "http://192.0.2.1/x"\n', "") if line.startswith("url") else TABLE
            found = self.mistakes(head + line)
            self.assertTrue([text for text in found if what in text], (line, found))
            self.assertNotIn("pa55", str(found))

    def test_names(self) -> None:
        """A poller and a listener of one name would have one account, and are refused."""
        found = self.mistakes(TABLE + '[listeners.a]\nendpoint = "tcp:1"')
        self.assertIn("a listener is named 'a' too", found[0])

    def test_secret_files(self) -> None:
        """A file that holds no secret is refused at its key."""
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as file:
            file.write("pa55\nword\n")
        text = f'{TABLE}username = "me"\npassword_file = "{path}"'
        self.assertEqual(self.mistakes(text), [f"password_file: {path} must hold one line of printable ASCII"])
        with open(path, "w") as file:
            file.write("pa55\n")
        self.assertEqual(self.mistakes(text), [])

    def test_flag_mistake(self) -> None:
        """A mistake of the flag is told at the flag."""
        error = self.assertRaises(ConfigurationError, load, None, {}, [], [], sources={"poll": ["h/x"]})
        self.assertIn("--poll: error: url: it must begin with http:// or https://", str(error))


class _Document(BaseHTTPRequestHandler):
    """A document that has a version."""

    def do_GET(self) -> None:
        """Answer."""
        if self.headers.get("If-None-Match") == '"v1"':
            self.send_response(304)
            self.end_headers()
            return
        body = b"one\ntwo\n"
        self.send_response(200)
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def poller(server: Server) -> dict[str, Any]:
    """Give the row of a server's one poller."""
    row: dict[str, Any] = server.status()["http"]["pollers"][0]
    return row


class ProcessTests(ConfigCase):
    @pytest.mark.slow
    def test_process(self) -> None:
        """A real process polls a real server, listens nowhere, says so, keeps the lines, and stops in good order."""
        http = ThreadingHTTPServer(("127.0.0.1", 0), _Document)
        self.addCleanup(http.server_close)
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(http.shutdown)
        url = f"http://127.0.0.1:{http.server_port}/lines?token=s3cret"
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as file:
            file.write(f'[sources.doc]\ntype = "http-poll"\nurl = "{url}"\ninterval = "1s"\n')
        with Server("--config", path) as server:
            self.assertEqual(server.wait_output(8), b"one\ntwo\n")
            wait_until(lambda: poller(server)["last_result"] == "not_modified", "asked again")
            self.assertTrue([line for line in server.log if f"polling    http://127.0.0.1:{http.server_port}" in line])
            self.assertEqual([line for line in server.log if "s3cret" in line or "listening" in line], [])
            status = server.status()
            row = poller(server)
            self.assertEqual((row["name"], row["records"], row["errors"]), ("doc", 2, 0))
            self.assertEqual((status["http"]["active_pollers"], status["listeners"], status["ready"]), (1, [], True))
            self.assertEqual(server.metrics()["ingest_conservation_error"], 0)
            self.assertEqual(server.stop(), -signal.SIGTERM)
            self.assertEqual(server.wait_output(8), b"one\ntwo\n")
