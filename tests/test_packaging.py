"""The wheel: what is in it, and that twistd finds the command in it, and loses it with it."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from twisted_ingest.framing import scan

ROOT = pathlib.Path(__file__).parent.parent


def run(*command: object, cwd: object = None, **more: str) -> str:
    """Run a command, with ``more`` in its environment; gives its standard output, fails with its standard error."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COVERAGE"))}
    environment.update(more)
    done = subprocess.run(  # noqa: PLW1510 - checked below, with its output
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=str(cwd or "/"),
        env=environment,
    )
    if done.returncode:
        raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


class PluginTests(SynchronousTestCase):
    def test_namespace_has_no_init(self) -> None:
        """The plugin folder stays a namespace: an ``__init__.py`` in it would hide the plugin, or Twisted itself."""
        self.assertEqual([str(path) for path in (ROOT / "twisted").rglob("__init__.py")], [])

    def test_plugin_imports_nothing_of_ours(self) -> None:
        """Every twistd on a machine imports the plugin, so importing it must not import the server."""
        code = (
            "import sys; sys.path.insert(0, '.'); import twisted.plugins.twisted_ingest_plugin; "
            "print([name for name in sys.modules if name.startswith('twisted_ingest')])"
        )
        self.assertEqual(run(sys.executable, "-c", code, cwd=ROOT).strip(), "[]")

    def test_editable_install_is_found(self) -> None:
        """Twistd of the environment the tests run in lists the command, from any folder."""
        code = "from twisted.scripts.twistd import run; run()"
        self.assertIn("\n    ingest ", run(sys.executable, "-c", code, "--help"))


class WheelTests(SynchronousTestCase):
    """Slow by its nature (it makes an environment): `make wheel` and CI run it, `make test` does not."""

    def setUp(self) -> None:
        if not os.environ.get("INGEST_TEST_WHEEL"):
            raise SkipTest("builds and installs a wheel: set INGEST_TEST_WHEEL=1 (make wheel does)")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ingest-wheel-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def build(self, **environment: str) -> pathlib.Path:
        source = self.folder / "source"
        ignored = shutil.ignore_patterns(
            ".venv", ".git", ".tox", "_trial_temp*", "__pycache__", ".hypothesis", "ingest-data", ".*_cache", "*.so"
        )
        shutil.copytree(ROOT, source, ignore=ignored)
        # Left behind by any twistd that ran in the checkout; in a wheel it would overwrite Twisted's own.
        (source / "twisted" / "plugins" / "dropin.cache").write_bytes(b"stray")
        build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", self.folder, source)
        run(*build, **environment)
        (wheel,) = self.folder.glob("*.whl")
        return wheel

    def test_wheel(self) -> None:
        """The wheel holds the package and the plugin only; installed it is found, uninstalled it is gone."""
        wheel = self.build()
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
        outside = [n for n in names if not n.startswith(("twisted_ingest/", "twisted_ingest-"))]
        self.assertEqual(outside, ["twisted/plugins/twisted_ingest_plugin.py"])
        self.assertIn("twisted_ingest/py.typed", names)
        venv.create(self.folder / "env", with_pip=True)
        bin_folder = self.folder / "env" / "bin"
        run(bin_folder / "pip", "install", "--quiet", wheel)
        self.assertIn("\n    ingest ", run(bin_folder / "twistd", "--help"))
        self.assertIn(f"(scanner: {scan.SCANNER}, OpenSSL ", run(bin_folder / "twisted-ingest", "--version"))
        self.assertEqual(run(bin_folder / "twistd", "-n", "ingest", "--check"), "")
        run(bin_folder / "pip", "uninstall", "--quiet", "--yes", "twisted-ingest")
        self.assertNotIn("\n    ingest ", run(bin_folder / "twistd", "--help"))
        run(bin_folder / "python", "-c", "import twisted.internet.reactor")

    def test_without_compiler(self) -> None:
        """Without a compiler the wheel is made all the same: one of pure Python, for every machine."""
        wheel = self.build(CC="/bin/false")
        self.assertTrue(wheel.name.endswith("-py3-none-any.whl"), wheel.name)
        with zipfile.ZipFile(wheel) as archive:
            self.assertEqual([name for name in archive.namelist() if name.endswith((".so", ".c"))], [])

    def test_scanner_can_be_switched_off(self) -> None:
        """The environment says so, at build time and at run time."""
        self.assertTrue(self.build(**{scan.PURE: "1"}).name.endswith("-py3-none-any.whl"))
        code = "from twisted_ingest.framing import scan; print(scan.SCANNER)"
        self.assertEqual(run(sys.executable, "-c", code, cwd=ROOT, **{scan.PURE: "1"}), "python\n")
