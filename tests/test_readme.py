"""The README, held against what it speaks of: its configuration, its commands, and the mistake that it shows."""

import os
import pathlib
import re
import shlex

from tests.test_config_load import LoadingTestCase
from twisted_ingest.tap import Options

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str = "") -> list[str]:
    """Give the code blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


class ReadmeTests(LoadingTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        (self.sample,) = (block for block in blocks("toml") if block.startswith("# ingest.toml\n"))

    def test_configuration(self) -> None:
        """The file that it shows is good, and has the keys as they stand there."""
        settings = self.load(self.sample).settings
        self.assertEqual((list(settings.listeners), list(settings.sinks)), (["apps"], ["archive"]))

    def test_mistake(self) -> None:
        """The mistake that it shows is what the file gives with that typo."""
        (shown,) = (block for block in blocks() if ": error: " in block)
        lines = self.complaints(self.sample.replace("idle_timeout", "idle_timout"))
        self.assertEqual(shown, "".join(f"{line}\n" for line in lines))

    def test_commands(self) -> None:
        """Every command line of ours in it is one that is taken, flags and values."""
        self.write(self.sample)
        commands = [line for block in blocks() for line in block.splitlines() if line.startswith("twisted-ingest ")]
        self.assertGreaterEqual(len(commands), 2)
        for command in commands:
            words = [word for word in shlex.split(command)[1:] if word != "--check"]
            Options().parseOptions(words)

    def test_installation(self) -> None:
        """The lines that install it install the checkout, which has what each of them needs."""
        (lines,) = (block.splitlines() for block in blocks() if "pipx install" in block)
        self.assertEqual([line.split("#")[0].split()[-1] for line in lines], ["."] * 3)
