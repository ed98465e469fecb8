"""
The recipes of docs/clients.md whose clients come from elsewhere: npm, Maven, Go's own compiler.

They install what they need into a folder of their own, which takes a minute: `make integration` runs them, not
`make test-all`. Where a program is missing or its registry cannot be reached, they are skipped with the reason.
"""

import atexit
import os
import shutil
import subprocess
import tempfile

from twisted.trial.unittest import SkipTest

from tests.clients import RECIPES, RFC5424, RecipeCase
from tests.server import wait_until

INSTALL_SECONDS = 240
"""How long an installation may take before it counts as impossible."""


class InstalledCase(RecipeCase):
    """Recipes whose clients are installed once for the class, into ``packages``; ``problem`` says why that failed."""

    folder_of: str
    tool: str
    install: tuple[str, ...]
    packages: str
    problem: str | None = None

    def setUp(self) -> None:
        if self.problem is None:
            # trial knows no fixtures of classes.
            type(self).problem = self.find_or_install()
        if self.problem:
            raise SkipTest(self.problem)
        super().setUp()

    @classmethod
    def find_or_install(cls) -> str:
        """Install the clients; gives what stands in the way, or nothing."""
        if not os.environ.get("INGEST_TEST_INTEGRATION"):
            return "installs clients from elsewhere: set INGEST_TEST_INTEGRATION=1 (make integration does)"
        if shutil.which(cls.tool) is None:
            return f"needs the program {cls.tool}"
        cls.packages = tempfile.mkdtemp(prefix=f"ingest-{cls.folder_of}-")
        atexit.register(shutil.rmtree, cls.packages, ignore_errors=True)
        shutil.copytree(RECIPES / cls.folder_of, cls.packages, dirs_exist_ok=True)
        try:
            done = subprocess.run(
                cls.install,
                cwd=cls.packages,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"{cls.tool} did not come to an end"
        return f"{' '.join(cls.install)}: {(done.stderr + done.stdout)[-300:]}" if done.returncode else ""

    def place_without(self, name: str, setting: str) -> str:
        """Put a recipe into the folder that lacks a setting; gives its path."""
        path = self.place(name)
        text = self.text(name)
        self.assertIn(setting, text)
        with open(path, "w") as stream:
            stream.write(text.replace(setting, ""))
        return path

    def wait_named(self) -> None:
        """Wait for the log to say that a sender ends no records."""
        wait_until(lambda: any("this sender ends no records" in line for line in self.server.log), "named")


class NodeTests(InstalledCase):
    folder_of = "node"
    tool = "npm"
    install = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts")

    def run_recipe(self, name: str) -> None:
        """Run a recipe; the client is ended once its records are there, for some never end by themselves."""
        self.start("node", self.place(f"node/{name}.js"), NODE_PATH=os.path.join(self.packages, "node_modules"))

    def test_winston(self) -> None:
        """winston-syslog, told to end records."""
        self.run_recipe("winston")
        self.check(
            RFC5424 % 134 + rb'\d+ - - {"level":"info","message":"started"}$',
            RFC5424 % 131 + rb'\d+ - - {"level":"error","message":"no number\\nat line 12"}$',
        )

    def test_winston_without_eol(self) -> None:
        """winston-syslog as it comes ends records with nothing: the log names it, and what to set."""
        path = self.place_without("node/winston.js", ' eol: "\\n",')
        had = self.received()
        client = self.start("node", path, NODE_PATH=os.path.join(self.packages, "node_modules"))
        wait_until(lambda: self.received() > had + 160, "two records of a hundred bytes")
        self.end(client)
        self.wait_named()
        (line,) = self.records(1)
        self.assertEqual(line.count(b"<13"), 2)

    def received(self) -> float:
        """Give how many bytes have come."""
        return self.server.metrics()["ingest_received_bytes_total"]

    def test_pino(self) -> None:
        """pino-socket."""
        self.run_recipe("pino")
        self.check(rb'^{"level":30,.*"msg":"started"}$', rb'^{"level":50,.*"msg":"no number\\nat line 12"}$')

    def test_log4js(self) -> None:
        """The TCP appender of log4js, told to end records with LF."""
        self.run_recipe("log4js")
        self.check(rb"^\S+ INFO shop started$", rb"^\S+ ERROR shop no number\\nat line 12$")

    def test_gelf(self) -> None:
        """gelf-pro, which ends records with NUL, each on a connection of its own."""
        self.run_recipe("gelf")
        started, failed = sorted(self.records(2), reverse=True)
        self.assertRegex(started, rb'^{"version":"1.1","short_message":"started",.*}$')
        self.assertRegex(failed, rb'^{"version":"1.1","short_message":"no number\\nat line 12",.*}$')


class JavaTests(InstalledCase):
    folder_of = "java"
    tool = "mvn"
    install = ("mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib")

    def run_recipe(self, program: str, configuration: str) -> None:
        classes = os.path.join(self.packages, "lib", "*")
        source = str(RECIPES / "java" / f"{program}.java")
        self.finish(self.start("java", "-cp", classes, f"-D{configuration}", source))

    def test_log4j2(self) -> None:
        """Log4j 2: RFC 5424, told to end records with LF and to escape it inside."""
        self.run_recipe("Log4jClient", f"log4j2.configurationFile={self.place('java/log4j2.xml')}")
        self.check(RFC5424 % 14 + rb"\d+ - - started$", RFC5424 % 11 + rb"\d+ - - no number\\nat line 12$")

    def test_log4j2_without_new_line(self) -> None:
        """Its layout for RFC 5424 as it comes ends records with nothing: the log names it, and what to set."""
        path = self.place_without("java/log4j2.xml", ' newLine="true"')
        self.run_recipe("Log4jClient", f"log4j2.configurationFile={path}")
        self.wait_named()
        (line,) = self.records(1)
        self.assertRegex(line, RFC5424 % 14 + rb"\d+ - - started<11>1 ")

    def test_logback(self) -> None:
        """Logback with logstash-logback-encoder: a JSON object a line."""
        self.run_recipe("LogbackClient", f"logback.configurationFile={self.place('java/logback.xml')}")
        self.check(rb'^{"@timestamp":.*"message":"started".*}$', rb'^{.*"message":"no number\\nat line 12".*}$')


class GoTests(InstalledCase):
    folder_of = "go"
    tool = "go"
    install = ("go", "version")

    def test_syslog(self) -> None:
        """Go's own ``log/syslog``."""
        source = self.place("go/main.go")
        self.finish(self.start("go", "run", source, GOFLAGS="-mod=mod", GO111MODULE="off"))
        self.check(rb"^<14>\S+ \S+ shop\[\d+\]: started$", rb"^<11>\S+ \S+ shop\[\d+\]: no number\\nat line 12$")
