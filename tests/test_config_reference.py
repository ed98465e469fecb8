"""The page docs/settings.md is what the code says, and every setting says what it is."""

import pathlib

from pydantic import BaseModel
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.config.fields import About
from twisted_ingest.config.given import FLAG_PATHS
from twisted_ingest.config.kinds import OWN
from twisted_ingest.config.model import AdminSettings, LimitSettings, SpoolSettings, table_of
from twisted_ingest.config.reference import page
from twisted_ingest.sinks.registry import sink_types
from twisted_ingest.sources.registry import source_types
from twisted_ingest.tap import Options

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "settings.md"


class ReferenceTests(SynchronousTestCase):
    def test_fresh(self) -> None:
        """The page is what the generator writes now."""
        fix = "run python -m twisted_ingest.config.reference > docs/settings.md"
        self.assertEqual(PAGE.read_text(), page(), fix)

    def test_every_key_says_what_it_is(self) -> None:
        """No key of ours stands there without a word."""
        tables: list[type[BaseModel]] = [LimitSettings, SpoolSettings, AdminSettings]
        tables += [kind.table for word, kind in sink_types().items() if sink_types().owner(word) == OWN]
        tables += [kind.table for word, kind in source_types().items() if source_types().owner(word) == OWN]
        for table in tables:
            for key in table.model_fields:
                if key not in ("type", "protocol"):
                    self.assertTrue(About.of(table, key).text, f"{table.__name__}.{key}")

    def test_help_says_the_same(self) -> None:
        """``--help`` has the text of the page for every flag that stands for one key."""
        texts = "".join(Options().getUsage(width=200).split())
        for flag, path in FLAG_PATHS.items():
            about = About.of(*table_of(path))
            self.assertIn("".join(about.text.split()), texts, flag)
