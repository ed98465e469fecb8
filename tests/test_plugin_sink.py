"""The sink of another distribution (examples/plugin-sink): checked, documented, spooled and counted like ours."""

import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import tomllib

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.server import Server, wait_until
from twisted_ingest.testing import Lender

SOURCE = pathlib.Path(__file__).parent.parent / "examples" / "plugin-sink"


class PluginSinkTests(SynchronousTestCase):
    """Laid out as an installation is, without a build."""

    def setUp(self) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ingest-plugin-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.target = self.folder / "site"
        self.install()

    def install(self) -> None:
        project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
        about = self.target / f"shout_sink-{project['version']}.dist-info"
        about.mkdir(parents=True)
        shutil.copy(SOURCE / "shout_sink.py", self.target)
        about.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        points = project["entry-points"]["twisted_ingest.sinks"].items()
        lines = ["[twisted_ingest.sinks]", *(f"{word} = {value}" for word, value in points)]
        about.joinpath("entry_points.txt").write_text("\n".join(lines))

    def break_it(self, text: str) -> None:
        """Replace the distribution's module."""
        (self.target / "shout_sink.py").write_text(text)

    def command(self, *words: str) -> tuple[int, str]:
        """Run the command with the distribution installed: exit status and output."""
        done = subprocess.run(
            [sys.executable, "-m", "twisted_ingest", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.target)},
        )
        return done.returncode, done.stdout + done.stderr

    def test_help(self) -> None:
        """``--help`` has it among ours."""
        status, text = self.command("--help")
        self.assertEqual(status, 0)
        self.assertIn("shout:PATH shouted to a file", " ".join(text.split()))

    def test_check(self) -> None:
        """Its table is checked as ours are: the place, the nearest word, the path, what two sinks would share."""
        self.assertEqual(self.command("--check", "--sink", "shout:a")[0], 0)
        for words, text in (
            (["--sink", "shuot:a"], "'shuot:a' is not a sink; did you mean 'shout'?"),
            (["--sink", "shout:"], "path: it must not be empty"),
            (["--sink", "shout:/"], "/ is a directory"),
            (["--sink", "shout:a", "--sink", "file:a"], "a is written to by sink 'shout' already"),
            (["--sink", "shout:a?marc=x"], "unknown key 'marc' in [sinks.shout]; did you mean 'mark'?"),
            (["--sink", "shout:a", "--relp", "tcp:0"], "the required sink 'shout' (shout) can give 'written' at most"),
        ):
            status, output = self.command("--check", *words)
            self.assertEqual(status, 78, output)
            self.assertIn(text, output)
        (self.folder / "x.toml").write_text('[sinks.a]\ntype = "shout"\npth = "b"\n')
        output = self.command("--check", "--config", "x.toml")[1]
        self.assertIn("x.toml:3: error: unknown key 'pth' in [sinks.a]; did you mean 'path'?", output)

    def test_a_real_process(self) -> None:
        """It takes records, behind a spool too, and is counted."""
        for option in ("", "?spool=true"):
            self.shout(option, self.folder / f"run{option.strip('?')}")

    def shout(self, option: str, folder: pathlib.Path) -> None:
        folder.mkdir()
        out = folder / "out"
        prefix = ("env", f"PYTHONPATH={self.target}")
        with Server("--sink", f"shout:out{option}", folder=str(folder), prefix=prefix) as server:
            server.send(b"hello\nworld\n")
            wait_until(lambda: out.exists() and out.read_bytes() == b"HELLO!\nWORLD!\n", "the shouted lines")
            count = "ingest_sink_delivered_records_total[shout]"
            wait_until(lambda: server.metrics()[count] == 2, "their count")
            self.assertEqual(server.stop(), -15)

    def test_broken(self) -> None:
        """One that cannot be used is a mistake where it is asked for, a warning elsewhere, and never a traceback."""
        original = (SOURCE / "shout_sink.py").read_text()
        unchecked = original.replace("[Place(table.path", "[Place(table.nothing")
        for text, reason in (
            ("import nothing_such", "No module named 'nothing_such'"),
            ("raise SystemExit(3)", "SystemExit"),
            ("SHOUT = 5", "int is no SinkType"),
            ("syntax error", "SyntaxError"),
        ):
            self.break_it(text)
            status, output = self.command("--check", "--sink", "shout:a")
            self.assertEqual(status, 78)
            self.assertIn("--sink shout:a: error: shout-sink 1.0 adds 'shout', which cannot be used: ", output)
            self.assertIn(reason, output)
            status, output = self.command("--check", "--sink", "null:")
            self.assertEqual(status, 0)
            self.assertIn("shout-sink 1.0: warning: it adds 'shout', which cannot be used: ", output)
            self.assertNotIn("Traceback", output)
        for text, reason in (
            (unchecked, "shout-sink 1.0 cannot check 'shout': AttributeError"),
            (original.replace("ShoutSink(name, table),", "ShoutSink(table),"), "shout-sink 1.0 cannot make it"),
            (original.replace("ShoutSink(name, table),", "None,"), "NoneType is no ISink"),
        ):
            self.break_it(text)
            status, output = self.command("--sink", "shout:a", "--listen", "tcp:0", "--admin", "off")
            self.assertEqual(status, 78, output)
            self.assertIn(reason, output)
            self.assertNotIn("Traceback", output)


class AloneTests(SynchronousTestCase):
    """The sink by itself, as its own distribution would test it."""

    def test_lent_bytes(self) -> None:
        """It is done with a batch when its Deferred has fired, and keeps no view of its bytes."""
        self.patch(sys, "path", [str(SOURCE), *sys.path])
        self.addCleanup(sys.modules.pop, "shout_sink", None)
        shout = importlib.import_module("shout_sink")
        path = pathlib.Path(self.mktemp())
        sink = shout.ShoutSink("shout", shout.ShoutTable(type="shout", path=str(path)))
        lender = Lender()
        group = lender.group(b"one\ntwo\n", b"three\n")
        self.successResultOf(sink.deliver(group))
        lender.settle(group)
        self.assertEqual(path.read_bytes(), b"ONE!\nTWO!\nTHREE!\n")
        self.assertEqual((lender.lent, lender.returned, lender.kept), (2, 2, 0))


class BuiltPluginSinkTests(PluginSinkTests):
    """The same of the wheel that pip builds and installs; it fetches the build backend, as `make wheel` does."""

    def install(self) -> None:
        if not os.environ.get("INGEST_TEST_WHEEL"):
            raise SkipTest("builds and installs a wheel: set INGEST_TEST_WHEEL=1 (make wheel does)")
        source = self.folder / "source"
        shutil.copytree(SOURCE, source)
        pip: list[str] = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "wheel", "--no-deps", "--wheel-dir", str(self.folder), str(source)], check=True, timeout=300
        )
        (wheel,) = self.folder.glob("*.whl")
        install = [*pip, "install", "--no-deps", "--no-index", "--target", str(self.target), str(wheel)]
        subprocess.run(install, check=True, timeout=300)
