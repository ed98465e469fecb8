"""What is nearly right is refused with what was meant, and no message speaks of Python."""

import os
import re
from typing import Any

from pydantic import BaseModel

from tests.test_config_load import LoadingTestCase
from twisted_ingest.config import owners
from twisted_ingest.config.given import FLAG_PATHS
from twisted_ingest.config.meant import endpoint_meant, path_caution, quotes_meant, sink_meant
from twisted_ingest.config.model import AdminSettings, LimitSettings, SpoolSettings
from twisted_ingest.errors import ConfigurationError
from twisted_ingest.sinks.registry import sink_types
from twisted_ingest.sources.registry import source_types

WRONG = (
    "true", "-1", "0", "1", "1.5", "nan", "-inf", "1" * 40, '""', '"x"', '"\\u0000"', '"1" ', "[]", "[1, true]",
    '["x", []]', "{}", "[[]]", "{a = 1, b = {c = false}}", "2026-11-26", "2026-11-26T01:02:03Z", "01:02:03",
    "'''\na'''",
)  # fmt: skip

PYTHON = re.compile(
    r"\b(str|int|float|bool|list|dict|tuple|None|NoneType|True|False|datetime|pydantic|class|object|instance|"
    r"argument|Input|input|validator|subclass|isinstance|Exception|Error|TypeError|ValueError|AttributeError)\b|<|0x"
)
"""Words that an operator should never have to read."""

TABLES: list[tuple[str, dict[str, str], type[BaseModel]]] = [
    ("limits", {}, LimitSettings),
    ("admin", {}, AdminSettings),
    ("spool", {}, SpoolSettings),
    *(
        ("listeners.a", {"endpoint": '"tcp:1"', "protocol": f'"{word}"'}, kind.table)
        for word, kind in source_types().items()
    ),
    *((f"sinks.{name}", {"type": f'"{name}"', "path": '"x"'}, kind.table) for name, kind in sink_types().items()),
]


class WordTests(LoadingTestCase):
    def check(self, text: str, **given: Any) -> None:
        """See that a mistake, if it is one, is told in the operator's words."""
        try:
            self.load(text, **given)
        except ConfigurationError as error:
            for problem in error.problems:
                words = PYTHON.search(problem.message.replace(repr("x"), ""))
                self.assertIsNone(words, f"{text}: {problem}")
                self.assertTrue(str(problem).isprintable())

    def test_every_key_with_every_kind_of_value(self) -> None:
        """No message names a type of Python, its values, or the library that found the mistake."""
        for table, needed, model in TABLES:
            for key in model.model_fields:
                for value in WRONG:
                    others = {name: text for name, text in needed.items() if name in model.model_fields and name != key}
                    lines = [f"{name} = {text}" for name, text in {**others, key: value}.items()]
                    self.check("\n".join((f"[{table}]", *lines)))

    def test_tables_that_are_none(self) -> None:
        """Nor does one about a value where a table belongs."""
        for key in ("limits", "admin", "spool", "listeners", "listeners.a", "sinks", "sinks.a", "log_format"):
            for value in WRONG:
                self.check(f"{key} = {value}")

    def test_every_flag(self) -> None:
        """Nor does one about a flag."""
        for flag in (*FLAG_PATHS, "framing"):
            for value in ("", "x", "-1", "1.5", "true", "1" * 40, "\0", "[]"):
                self.check("", flags={flag: value})
        for value in (
            "",
            "x",
            "tcp",
            "tcp:",
            "tcp:x",
            "tcp:1:2:3:4:5",
            "tcp:port",
            "unix:",
            "unix:/x:mode=9",
            "systemd:x",
            "tcp:\\",
        ):
            self.check("", listen=[value])
        for value in (
            "",
            "x",
            "file:",
            "file:x?",
            "file:x?mode=9",
            "file:x?fsync=no",
            "null:?required=perhaps",
            "stdout:?owner=0",
        ):
            self.check("", sinks=[value])


class MeantTests(LoadingTestCase):
    def test_endpoints(self) -> None:
        """A port, an address and a port, or a path is told what endpoint that is; the offer is good."""
        for given, meant in (
            ("1514", "tcp:1514"),
            (":1514", "tcp:1514"),
            ("*:1514", "tcp:1514"),
            ("127.0.0.1:1514", "tcp:1514:interface=127.0.0.1"),
            ("localhost:1514", "tcp:1514:interface=127.0.0.1"),
            ("tcp://0.0.0.0:1514", "tcp:1514:interface=0.0.0.0"),
            ("[::1]:1514", r"tcp6:1514:interface=\:\:1"),
            ("/run/ingest.sock", "unix:/run/ingest.sock"),
        ):
            (line,) = self.complaints(None, {}, [given])
            self.assertEqual(line, f"--listen: error: {given!r} is not an endpoint; did you mean {meant!r}?")
            self.load(None, {}, [meant])
            self.assertIn(f"did you mean {meant!r}?", self.complaints(None, {"admin": given})[0])
        for given in ("99999", "garbage", "host.example:1", "1514/tcp", "", ":"):
            self.assertIsNone(endpoint_meant(given))

    def test_sinks(self) -> None:
        """A bare type or a path is told what sink that is; the offer is good."""
        for given, meant in (
            ("stdout", "stdout:"),
            ("-", "stdout:"),
            ("null", "null:"),
            ("stdout?format=json", "stdout:?format=json"),
            ("/var/log/x", "file:/var/log/x"),
            ("./x?fsync=1s", "file:./x?fsync=1s"),
        ):
            (line,) = self.complaints(None, {}, (), [given])
            self.assertEqual(line, f"--sink: error: {given!r} is not a sink; did you mean {meant!r}?")
            self.load(None, {}, (), [meant])
        for given in ("s3://bucket/x", "x", ""):
            self.assertIsNone(sink_meant(given, ["null", "stdout"]))

    def test_quotes(self) -> None:
        """Lines that are TOML already, or that quotes do not mend, are left alone."""
        for line in ("a = 1", "a", "a = = 2", "a =", 'a = "x', "[a", "a = {b = c}", "a = [1, 2]", "# a = b"):
            self.assertIsNone(quotes_meant(line), line)

    def test_paths(self) -> None:
        """What a shell or a date would fill in is warned of, and nothing else."""
        for path, odd in (
            ("~/x", "~"),
            ("~root/x", "~root"),
            ("/l/%Y-%m/x", "%Y"),
            ("$HOME/x", "$HOME"),
            ("/${A}", "${A}"),
        ):
            self.assertIn(f"{odd!r} in {path!r} is taken as it stands", path_caution(path) or "")
        for path in ("/var/log/x", "x~", "/a/100%", "/a%20", "/cost$"):
            self.assertIsNone(path_caution(path), path)


class FileAccessTests(LoadingTestCase):
    def test_given(self) -> None:
        """Mode, owner and group are keys of the file sink, by name or by number."""
        for text in (
            '[sinks.file]\ntype = "file"\npath = "x"\nmode = "0644"\nowner = "root"\ngroup = 0\n',
            '[sinks.file]\ntype = "file"\npath = "x"\nmode = "644"\nowner = 0\ngroup = "root"\n',
        ):
            sink: Any = self.load(text).settings.sinks["file"]
            self.assertEqual((sink.mode, sink.owner, sink.group), (0o644, 0, 0))
        sink = self.load(None, {}, (), ["file:x?mode=0600&owner=root&group=0"]).settings.sinks["file"]
        self.assertEqual((sink.mode, sink.owner, sink.group), (0o600, 0, 0))

    def test_mistakes(self) -> None:
        """Each kind of mistake is one line that names the fix."""
        for option, message in (
            ("mode=640x", "mode: '640x' is not the mode of a file (try \"0640\", in quotes)"),
            ("mode=4755", "mode: '4755' is not the mode of a file (try \"0640\", in quotes)"),
            ("mode=0440", "mode: '0440': its owner must be able to read and to write the file (0600), we do both"),
            ("owner=no-such", "owner: 'no-such': this machine has no such user (see getent passwd)"),
            ("group=no-such", "group: 'no-such': this machine has no such group (see getent group)"),
            ("owner=-1", "owner: '-1': this machine has no such user (see getent passwd)"),
            ("owner=4294967295", "owner: 4294967295 is not the number of a user: it must be between 0 and 4294967294"),
        ):
            spec = f"file:x?{option}"
            self.assertEqual(self.complaints(None, {}, (), [spec]), [f"--sink {spec}: error: {message}"])
        text = '[sinks.x]\ntype = "file"\npath = "x"\nmode = 640\n'
        self.assertEqual(
            self.complaints(text), ['ingest.toml:4: error: mode: 640 is not the mode of a file (try "0640", in quotes)']
        )

    def test_who_may_give(self) -> None:
        """Only root, and who may as root may, gives files to another user; others to groups they are in."""
        self.patch(owners, "_may_chown", lambda: False)
        self.patch(os, "geteuid", lambda: 1000)
        self.patch(os, "getegid", lambda: 1000)
        self.patch(os, "getgroups", lambda: [4])
        for option, fix in (
            (
                "owner=0",
                "only root may give files to another user, and this is user 1000: leave out owner, or let the server",
            ),
            (
                "group=0",
                "user 1000 is not in group 0 and may not give files to it: add the user to the group, or leave",
            ),
        ):
            (line,) = self.complaints(None, {}, (), [f"file:x?{option}"])
            self.assertIn(fix, line)
        for option in ("owner=1000", "group=1000", "group=4"):
            self.load(None, {}, (), [f"file:x?{option}"])
        self.patch(owners, "_may_chown", lambda: True)
        self.load(None, {}, (), ["file:x?owner=0&group=0"])
        self.patch(os, "geteuid", lambda: 0)
        self.patch(owners, "_may_chown", lambda: False)
        self.load(None, {}, (), ["file:x?owner=1&group=1"])
