"""``${env:}``, ``${file:}``, ``${cred:}``: what they stand for, what is said where they fail, and secrecy."""

import os
import pathlib
import subprocess
import sys

from tests.server import Server
from tests.test_config_load import LoadingTestCase
from twisted_ingest.assembly import limit_origins
from twisted_ingest.config.look import look
from twisted_ingest.config.substitution import LARGEST_FILE
from twisted_ingest.errors import ConfigurationError

SECRET = 'hush-"7f3a"-hush'


class SubstitutionTestCase(LoadingTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(os, "environ", dict(os.environ))
        self.secret_folder = pathlib.Path(self.mktemp()).absolute()
        self.secret_folder.mkdir()

    def put(self, name: str, data: bytes) -> str:
        path = self.secret_folder / name
        path.write_bytes(data)
        return str(path)

    def path_for(self, text: str) -> str:
        """Give the path of a file sink that is configured as this."""
        sink = self.load(f"[sinks.a]\ntype = 'file'\npath = '{text}'\n").settings.sinks["a"]
        return str(sink.path)  # type: ignore[attr-defined]


class ValueTests(SubstitutionTestCase):
    def test_each_kind(self) -> None:
        """The environment, a file without its last newline, a credential of the service manager's."""
        os.environ["NAME"] = "x"
        os.environ["CREDENTIALS_DIRECTORY"] = str(self.secret_folder)
        for data, text in ((b"y", "y"), (b"y\n", "y"), (b"y\r\n", "y"), (b"y\n\n", "y\n")):
            name = self.put("token", data)
            self.assertEqual(self.path_for(f"${{file:{name}}}"), text)
            self.assertEqual(self.path_for("a/${cred:token}"), f"a/{text}")
        self.assertEqual(self.path_for("/${env:NAME}/${env:NAME}.log"), "/x/x.log")

    def test_as_it_stands(self) -> None:
        """``$${`` is a literal, other dollars are what they are, and what is put in is not looked at again."""
        os.environ["NAME"] = "${env:OTHER}$${"
        self.assertEqual(self.path_for("$${env:NAME}"), "${env:NAME}")
        self.assertEqual(self.path_for("${HOME} $x $$ ${}"), "${HOME} $x $$ ${}")
        self.assertEqual(self.path_for("${env:NAME}"), "${env:OTHER}$${")

    def test_values_of_all_kinds(self) -> None:
        """It works where a string is read as something else, in lists and in flags, and nowhere in keys."""
        os.environ.update(MEMORY="64MiB", NET="192.0.2.0/24", FORMAT="json", NO="false")
        text = "[limits]\nmemory = '${env:MEMORY}'\n[listeners.a]\nendpoint = 'tcp:1'\nallow = ['${env:NET}']\n"
        settings = self.load(text, {"log-format": "${env:FORMAT}"}, [], ["null:", "null:?required=${env:NO}"]).settings
        self.assertEqual(settings.limits.memory, 64 << 20)
        self.assertEqual(str(settings.listeners["a"].allow), "192.0.2.0/24")
        self.assertEqual((settings.log_format, settings.sinks["null-2"].required), ("json", False))
        with self.assertRaisesRegex(ConfigurationError, r"unknown key '\$\{env:NET\}'"):
            self.load("[limits]\n'${env:NET}' = 1\n")


class MistakeTests(SubstitutionTestCase):
    def test_each_mistake(self) -> None:
        """What cannot be had is one line: file, line, key, and what to do."""
        os.environ.pop("CREDENTIALS_DIRECTORY", None)
        os.environ.pop("NAME", None)
        here = str(self.secret_folder)
        large = self.put("large", b"x" * (LARGEST_FILE + 1))
        latin = self.put("latin", b"\xff")
        fifo = f"{here}/fifo"
        os.mkfifo(fifo)
        literal = "(for the characters themselves write $${)"
        for text, message in (
            ("${env:NAME}", "${env:NAME} is not set in the environment (set it, or write the value here)"),
            ("${env:}", "${env:} names nothing"),
            ("${env:NAME", f"${{env:NAME lacks its closing brace {literal}"),
            ("${enf:NAME}", f"${{enf:NAME}}; did you mean 'env'? {literal}"),
            (f"${{file:{here}/none}}", f"${{file:{here}/none}} cannot be read: No such file or directory"),
            (f"${{file:{large}}}", f"${{file:{large}}} has more than 64 KiB"),
            (f"${{file:{latin}}}", f"${{file:{latin}}} is not text in UTF-8"),
            (f"${{file:{fifo}}}", f"${{file:{fifo}}} is no regular file"),
            (
                "${cred:x}",
                "${cred:x} needs a service manager that passes credentials (LoadCredential=; CREDENTIALS_DIRECTORY)",
            ),
        ):
            lines = self.complaints(f"[sinks.a]\ntype = 'file'\npath = '{text}'\n")
            self.assertEqual(lines, [f"ingest.toml:3: error: path: {message}"])
        os.environ["CREDENTIALS_DIRECTORY"] = here
        (line,) = self.complaints("[sinks.a]\ntype = 'file'\npath = '${cred:../x}'\n")
        self.assertIn("is not the name of a credential", line)

    def test_an_empty_one(self) -> None:
        """Where a reference stands for nothing, and something is needed, that is what is said, of whatever setting."""
        os.environ["NAME"] = ""
        empty = self.put("empty", b"\n")
        name, file = "${env:NAME}", f"${{file:{empty}}}"
        for table, key in (
            ("[limits]", "memory"),
            ("[limits]", "max_connections"),
            ("[limits]", "oversize"),
            ("[listeners.a]", "endpoint"),
            ("[listeners.a]\nendpoint = 'tcp:1'", "protocol"),
            ("[sinks.a]", "type"),
            ("[sinks.a]\ntype = 'file'", "path"),
            ("[sources.a]", "type"),
            ("[sources.a]\ntype = 'http-poll'", "url"),
            ("[sources.a]\ntype = 'http-poll'\nurl = 'http://h/'\n[sources.a.headers]", "X-Key"),
        ):
            for reference in (name, file):
                line = 2 + table.count("\n")
                self.assertEqual(
                    self.complaints(f"{table}\n{key} = '{reference}'\n"),
                    [f"ingest.toml:{line}: error: {key}: {reference} stands for nothing: it is there, and empty"],
                )
        self.assertEqual(self.path_for("a${env:NAME}"), "a")

    def test_a_kind(self) -> None:
        """A word that is no kind's is named at its key, as it was written; so is one of every table of kinds."""
        os.environ["NAME"] = "hush"
        for table, key in (
            ("[listeners.a]\nendpoint = 'tcp:1'", "protocol"),
            ("[sinks.a]", "type"),
            ("[sources.a]", "type"),
        ):
            line = 2 + table.count("\n")
            (found,) = self.complaints(f"{table}\n{key} = '${{env:NAME}}'\n")
            self.assertIn(f"ingest.toml:{line}: error: {key}: what ${{env:NAME}} stands for does not do", found)
            (found,) = self.complaints(f"{table}\n{key} = 'fil'\n")
            self.assertIn(f"ingest.toml:{line}: error: {key}: 'fil' is not ", found)

    def test_exit_status(self) -> None:
        """A start with one ends with 78."""
        command = [sys.executable, "-m", "twisted_ingest", "--check", "--sink", "file:${env:NOT_SET_AT_ALL}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 78)
        self.assertIn("path: ${env:NOT_SET_AT_ALL} is not set", done.stderr)


class SecrecyTests(SubstitutionTestCase):
    def setUp(self) -> None:
        super().setUp()
        os.environ["S"] = SECRET

    def test_complaints(self) -> None:
        """No mistake shows what a value stands for, nor a part of it, whatever is wrong with it."""
        for key in ("memory", "oversize", "idle_timeout", "max_connections", "rate", "peer_prefix_ipv6"):
            (line,) = self.complaints(f"[limits]\n{key} = '${{env:S}}'\n")
            self.assertEqual(
                line,
                f"ingest.toml:2: error: {key}: what ${{env:S}} stands for does not do here "
                "(it is secret: write it out to hear why)",
            )
        os.environ["S"] = "hush" * 40
        for text in (
            "[listeners.a]\nendpoint = '${env:S}'\n",
            "[listeners.a]\nendpoint = 'tcp:1:interface=${env:S}:x=y'\n",
            "[listeners.a]\nendpoint = 'tcp:1'\nallow = ['${env:S}']\n",
            "[sinks.a]\ntype = '${env:S}'\n",
            "[sinks.a]\ntype = 'file'\npath = '/${env:S}'\n[sinks.b]\ntype = 'file'\npath = '/${env:S}'\n",
        ):
            for line in self.complaints(text):
                self.assertNotIn("hush", line)

    def test_what_is_shown_of_good_ones(self) -> None:
        """Cautions, origins, what ``--check`` finds and the limits in ``/status`` show the reference."""
        os.environ.update(S="~hush", MEMORY="65MiB")
        loaded = self.load("limits.memory = '${env:MEMORY}'\n", {}, [], ["file:/dev/null/${env:S}"])
        self.assertEqual(limit_origins(loaded, 1)["memory"]["value"], "${env:MEMORY}")
        self.assertEqual(loaded.origin("sinks", "file", "path"), "--sink file:/dev/null/${env:S}")
        (problem,) = look(loaded)
        self.assertNotIn("hush", str(problem))
        self.assertEqual(self.load("", {}, [], ["file:${env:S}"]).cautions, ())

    def test_a_real_process(self) -> None:
        """Neither the banner, the log, ``/status`` nor ``/readyz`` shows it, and the file has its name all the same."""
        prefix = ("env", f"S={SECRET}")
        with Server("--sink", "file:out-${env:S}.log", prefix=prefix) as server:
            server.send(b"a\n")
            path = os.path.join(server.folder, f"out-{SECRET}.log")
            self.assertTrue(os.path.exists(path))
            pages = [server.get(page) for page in ("status", "readyz", "metrics", "connections")]
            self.assertIn("out-${env:S}.log", pages[0])
            server.stop()
            text = "".join([*pages, *server.log])
        self.assertIn("out-${env:S}.log", text)
        self.assertNotIn("7f3a", text)
