"""The command: exit statuses, one line per mistake, and what a real twistd makes of it."""

import io
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest import __version__, limits
from twisted_ingest.config.given import FLAG_PATHS
from twisted_ingest.config.load import load
from twisted_ingest.config.look import NOT_LOOKED_AT
from twisted_ingest.config.model import DEFAULT_ADMIN, DEFAULT_ENDPOINT, DEFAULT_PATH
from twisted_ingest.framing.scan import SCANNER
from twisted_ingest.process.signals import IGNORED
from twisted_ingest.tap import _PARAMETERS, EX_CONFIG, Options
from twisted_ingest.units import exact_size, format_duration

TWISTD = os.path.join(os.path.dirname(sys.executable), "twistd")


class OptionsTests(SynchronousTestCase):
    """Parse in this process."""

    def setUp(self) -> None:
        # What parsing does to it is for the process that will serve.
        for number in (*IGNORED, signal.SIGINT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))

    def parse(self, *words: str) -> Options:
        options = Options()
        options.parseOptions(list(words))
        return options

    def leave(self, *words: str) -> tuple[object, str, str]:
        """Parse words that end the process: exit status, standard output, standard error."""
        output, errors = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", output)
        self.patch(sys, "stderr", errors)
        left = self.assertRaises(SystemExit, self.parse, *words)
        return left.code, output.getvalue(), errors.getvalue()

    def test_flags_reach_the_settings(self) -> None:
        """Repeated flags gather, single ones arrive under their names."""
        settings = self.parse(
            "--listen", "tcp:1", "--listen=tcp:2", "--sink", "null:", "--sink", "stdout:", "--memory", "64MiB"
        ).loaded.settings
        self.assertEqual(list(settings.listeners), ["tcp-1", "tcp-2"])
        self.assertEqual(list(settings.sinks), ["null", "stdout"])
        self.assertEqual(settings.limits.memory, 64 << 20)

    def test_early_signals(self) -> None:
        """From here on what asks for something does not end the process; a handler that somebody has set stays."""
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)
            self.parse()
            signal.raise_signal(number)
            seen: list[int] = []
            signal.signal(number, lambda number, _, seen=seen: seen.append(number))  # type: ignore[misc]
            self.parse()
            signal.raise_signal(number)
            self.assertEqual(seen, [number])

    def test_two_parses_share_nothing(self) -> None:
        """What one parse gathered is not there in the next."""
        self.parse("--listen", "tcp:1")
        self.assertEqual(list(self.parse().loaded.settings.listeners), ["tcp-1514"])

    def test_every_mistake_is_one_line(self) -> None:
        """Mistakes exit 78 with one line each on standard error and nothing else anywhere."""
        self.assertEqual(
            self.leave("--listen", "tcp:99999", "--memory", "x", "--oversize", "drp"),
            (
                EX_CONFIG,
                "",
                "--oversize: error: oversize: 'drp' is not known; did you mean 'drop'? (one of truncate, drop, close)\n"
                '--memory: error: memory: \'x\' is not a size (try "64KiB", "10MB" or a number of bytes)\n'
                "--listen: error: 'tcp:99999': port 99999 is not between 0 and 65535\n",
            ),
        )

    def test_admin_host(self) -> None:
        """``--admin-host`` may be repeated; what is no name exits 78 and says what to write."""
        loaded = self.parse("--admin-host", "ingest", "--admin-host", "Logs.example.").loaded
        self.assertEqual(loaded.settings.admin.hosts.names, {"ingest", "logs.example"})
        for word, fix in (
            ("http://ingest:9108/", 'the name alone is compared (try "ingest")'),
            ("192.0.2.1:9108", "addresses need not be given, they are always accepted, with any port"),
        ):
            line = f"--admin-host: error: hosts: {word!r} is not the name of a host: {fix}\n"
            self.assertEqual(self.leave("--admin-host", word), (EX_CONFIG, "", line))

    def test_flag_mistakes(self) -> None:
        """A flag that is unknown, ambiguous, or has too much or too little is one line that begins with it."""
        ambiguous = "--max-length or --max-connections or --max-connections-per-peer"
        for words, line in [
            (["--memroy", "1"], "--memroy: error: unknown flag; did you mean '--memory'?"),
            (["--max-lenght=1"], "--max-lenght: error: unknown flag; did you mean '--max-length'?"),
            (["--zzzzzz"], "--zzzzzz: error: unknown flag"),
            (["-x"], "-x: error: unknown flag"),
            (["--max", "1"], f"--max: error: it could be {ambiguous}"),
            (["--memory"], "--memory: error: it needs a value"),
            (["--check=yes"], "--check: error: it takes no value"),
            (["tcp:1514"], "error: unexpected 'tcp:1514': everything is given by flags (try --help)"),
        ]:
            self.assertEqual(self.leave(*words), (EX_CONFIG, "", f"{line}\n"))

    def test_check_of_a_good_configuration(self) -> None:
        """``--check`` exits 0 when there is nothing to complain of."""
        self.assertEqual(self.leave("--check"), (0, "", f"the configuration is good\n{NOT_LOOKED_AT}\n"))

    def test_check_warns(self) -> None:
        """``--check`` tells what may not be meant, and goes on."""
        code, _, errors = self.leave("--check", "--sink", "file:~/x")
        self.assertEqual((code, errors.split(": ")[:2]), (0, ["--sink file:~/x", "warning"]))

    def test_check_looks(self) -> None:
        """``--check`` looks at what the configuration names, exit status 78."""
        code, _, errors = self.leave("--check", "--sink", "file:/")
        self.assertEqual((code, errors), (EX_CONFIG, "--sink file:/: error: / is a directory\n"))

    def test_check_of_a_bad_configuration(self) -> None:
        """``--check`` exits 78 and complains as a start would."""
        self.assertEqual(self.leave("--check", "--listen", "tcp:99999"), self.leave("--listen", "tcp:99999"))

    def test_version(self) -> None:
        """``--version`` prints one line with our version and exits 0, whatever else is wrong."""
        line = f"twisted-ingest {__version__} (scanner: {SCANNER}, {ssl.OPENSSL_VERSION})\n"
        self.assertEqual(self.leave("--version", "--memory", "x"), (0, line, ""))

    def test_help(self) -> None:
        """``--help`` lists every flag with its default and exits 0."""
        code, output, _ = self.leave("--help")
        self.assertIn(code, (0, None))
        for flag in ("config", "listen", "framing", "max-length", "sink", "admin", "log-format", "check", "version"):
            self.assertIn(f"--{flag}", output)
        text = "".join(output.split())
        for default in (
            *map(exact_size, (limits.MAX_LENGTH, limits.MEMORY, limits.CONNECTION_MEMORY)),
            *map(format_duration, (limits.FRAME_TIMEOUT, limits.DRAIN_TIMEOUT)),
            f"{format_duration(limits.IDLE_TIMEOUT)},untilthefirst",
            f"{limits.DESCRIPTOR_SHARE * 100:.0f}%ofthedescriptorlimit,atmost{limits.MAX_CONNECTIONS}",
            *(DEFAULT_ENDPOINT, DEFAULT_ADMIN, DEFAULT_PATH),
        ):
            self.assertIn(f"{default})" if "%" not in default and "," not in default else default, text)

    def test_defaults_of_every_flag(self) -> None:
        """What the help gives as the default of a flag is that of its key, and means it when it is given."""
        plain = load(None, {}, [], []).settings
        for flag in FLAG_PATHS:
            match = re.search(r"\(([^()]*)\)$", _PARAMETERS[flag])
            assert match is not None, flag
            if flag in ("max-connections", "idle-timeout"):
                continue  # computed from the machine's; a value of its own when it is given
            given = load(None, {flag: match[1]}, [], []).settings
            self.assertEqual(given.model_dump(), plain.model_dump(), flag)


class TwistdTests(SynchronousTestCase):
    """Run a real twistd."""

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def run_to_the_end(self, *words: str) -> tuple[int, str, list[str]]:
        """Run ``twistd ingest`` in an empty folder: exit status, standard output, lines of standard error."""
        ended = subprocess.run(
            [TWISTD, "-n", "--pidfile=", "ingest", *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return ended.returncode, ended.stdout, ended.stderr.splitlines()

    def errors(self, lines: list[str]) -> list[str]:
        """Leave out twistd's own greeting, which carries a time; a traceback is in no case left out."""
        return [line for line in lines if " info " not in line]

    def test_mistakes(self) -> None:
        """Mistakes of flags and file exit 78, one line each, without traceback, usage, or a file left behind."""
        with open(os.path.join(self.folder, "x.toml"), "w", encoding="utf-8") as stream:
            stream.write("[limits]\nmemry = 1\n")
        self.assertEqual(
            self.run_to_the_end("--config", "x.toml", "--listen", "tpc:1"),
            (
                78,
                "",
                [
                    "--listen: error: 'tpc:1': unknown endpoint type 'tpc'; did you mean 'tcp'? "
                    "(try 'tcp:1514:interface=127.0.0.1')",
                    "x.toml:2: error: unknown key 'memry' in [limits]; did you mean 'memory'?",
                ],
            ),
        )
        self.assertEqual(os.listdir(self.folder), ["x.toml"])

    def test_unknown_flag(self) -> None:
        """An unknown flag exits 78 with the nearest one."""
        self.assertEqual(
            self.run_to_the_end("--lisen", "tcp:1"),
            (78, "", ["--lisen: error: unknown flag; did you mean '--listen'?"]),
        )

    def test_check_makes_nothing(self) -> None:
        """``--check`` neither binds nor creates anything."""
        self.assertEqual(self.run_to_the_end("--check"), (0, "", ["the configuration is good", NOT_LOOKED_AT]))
        self.assertEqual(os.listdir(self.folder), [])

    def test_port_in_use(self) -> None:
        """A port that is taken ends the start with the address and the reason, for a listener and for admin."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            for words, name in [
                (["--listen", endpoint, "--admin", "off"], endpoint),
                (["--listen", "tcp:0:interface=127.0.0.1", "--admin", endpoint], f"{endpoint} (--admin)"),
            ]:
                code, output, lines = self.run_to_the_end(*words, "--sink", "null:")
                self.assertEqual((code, output), (1, ""))
                self.assertEqual(self.errors(lines), [f"error: cannot listen on {name}: Address already in use"])

    def test_sink_that_cannot_be_opened(self) -> None:
        """A path that can never be a file ends the start with the sink, the path and the reason."""
        code, output, lines = self.run_to_the_end(
            "--listen", "tcp:0:interface=127.0.0.1", "--admin", "off", "--sink", f"file:{self.folder}"
        )
        self.assertEqual((code, output), (1, ""))
        self.assertEqual(self.errors(lines), [f"error: sink file: cannot open {self.folder}: Is a directory"])
