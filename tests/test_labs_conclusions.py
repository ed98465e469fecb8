"""What the labs say: drawn from figures, other when the figures are, and the published page made of it."""

import os
import signal
import subprocess
import sys
import tempfile
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from labs.__main__ import LABS, build_page, options
from labs.measure import thinned
from labs.report import Figures
from labs.showing import draw, markdown
from tests.labs import ROOT, published
from tests.server import PATIENCE, wait_until

EXCHANGED: dict[str, tuple[str, ...]] = {
    "backpressure": ("outward", "bare", "contract"),
    "halfopen": ("results", "nothing", "idle timer 4 s"),
    "nagle": ("questions", "default (Nagle)", "no delay"),
    "lifecycle": ("idle_close", "closes-idle", "ours"),
    "leak": ("receivers", "before its fixes", "ours"),
}
"""For each lab a place in its figures, and two entries there that are told apart by the finding."""


def exchange(figures: Figures, place: str, one: str, other: str) -> Figures:
    """Give the figures as they would be if the two had come out the other way round."""
    entries: dict[str, Any] = figures[place]
    return figures | {place: entries | {one: entries[other], other: entries[one]}}


class ConclusionTests(SynchronousTestCase):
    def test_published_findings_hold(self) -> None:
        """Every finding on the published page is one that its figures bear out."""
        for name, lab in LABS.items():
            report = lab.describe(published(name)["figures"])
            self.assertEqual([item.name for item in report.findings if not item.holds], [], name)

    def test_other_figures_another_conclusion(self) -> None:
        """With two figures exchanged a finding no longer holds, and the text says so."""
        for name, lab in LABS.items():
            figures = published(name)["figures"]
            before = lab.describe(figures).findings
            after = lab.describe(exchange(figures, *EXCHANGED[name])).findings
            turned = [new for old, new in zip(before, after, strict=True) if old.holds and not new.holds]
            self.assertTrue(turned, name)
            for item in turned:
                self.assertIn("Not as expected", item.text)

    def test_page_is_made_of_the_figures(self) -> None:
        """docs/labs/README.md is what the figures beside it say, word for word."""
        folder = tempfile.mkdtemp(prefix="ingest-labs-page-", dir=self.mktemp_folder())
        for name in LABS:
            os.symlink(ROOT / "docs" / "labs" / f"{name}.json", os.path.join(folder, f"{name}.json"))
        build_page(folder)
        with open(os.path.join(folder, "README.md")) as stream:
            self.assertEqual(stream.read(), (ROOT / "docs" / "labs" / "README.md").read_text())

    def mktemp_folder(self) -> str:
        path: str = self.mktemp()
        os.makedirs(path)
        return path

    def test_every_lab_has_its_picture(self) -> None:
        """Each section shows a picture that is there."""
        for name, lab in LABS.items():
            text = markdown(lab, lab.describe(published(name)["figures"]))
            self.assertIn(f"({name}.png)", text)
            self.assertTrue((ROOT / "docs" / "labs" / f"{name}.png").is_file())

    def test_drawing(self) -> None:
        """Reports can be drawn."""
        try:
            import matplotlib as mpl  # noqa: F401, PLC0415
        except ImportError:
            raise SkipTest("needs matplotlib (the extra labs)") from None
        folder = self.mktemp_folder()
        for name in ("backpressure", "halfopen"):  # between them they have every kind of diagram
            path, lab = os.path.join(folder, f"{name}.png"), LABS[name]
            draw(lab, lab.describe(published(name)["figures"]), path)
            with open(path, "rb") as stream:
                self.assertEqual(stream.read(4), b"\x89PNG")

    def test_thinned_lines_keep_their_peak(self) -> None:
        """A line with too many points loses some, its highest never."""
        points = [[float(n), 9.0 if n == 777 else 1.0] for n in range(5000)]
        kept = thinned(points, 100)
        self.assertLessEqual(len(kept), 100)
        self.assertIn([777.0, 9.0], kept)


class CommandTests(SynchronousTestCase):
    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start labs with a mark in the environment that all their descendants inherit."""
        self.mark = f"INGEST_LABS_MARK={os.getpid()}-{self.id()}"
        key, value = self.mark.split("=")
        process = subprocess.Popen(
            [sys.executable, "-m", "labs", *words],
            cwd=ROOT,
            env={**os.environ, key: value},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(self.end, process)
        return process

    def end(self, process: "subprocess.Popen[str]") -> None:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE)

    def descendants(self, process: "subprocess.Popen[str]") -> list[int]:
        """Find every other live process that carries the mark."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/environ", "rb") as stream:
                    if self.mark.encode() in stream.read().split(b"\0") and int(name) != process.pid:
                        found.append(int(name))
            except OSError:
                pass
        return found

    def test_interrupted(self) -> None:
        """Ctrl-C ends a lab at once, with its children, in good order."""
        process = self.start("leak", "--quick", "--into", self.mktemp())
        wait_until(lambda: self.descendants(process), "the lab has a child")
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 130, printed)
        self.assertNotIn("Traceback", printed)
        wait_until(lambda: not self.descendants(process), "no process is left")

    def test_killed(self) -> None:
        """A lab that is killed leaves no child behind: the kernel ends them."""
        process = self.start("halfopen", "backpressure", "--quick", "--into", self.mktemp())
        wait_until(lambda: self.descendants(process), "the lab has a child")
        process.kill()
        process.communicate(timeout=PATIENCE)
        wait_until(lambda: not self.descendants(process), "no process is left")

    def test_unknown_name(self) -> None:
        """A name that is no lab is answered with those that are."""
        process = self.start("nagel")
        printed, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 2)
        for name in LABS:
            self.assertIn(name, printed)

    def test_options(self) -> None:
        """By default a run writes into a folder that is not under version control."""
        self.assertTrue(options(["leak"]).into.endswith(os.path.join("labs", "results")))
