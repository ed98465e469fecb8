"""The settings of a spool: what they mean, and every mistake with its place and its fix."""

import os

from twisted.internet.task import Clock

from tests.test_config_load import LoadingTestCase
from twisted_ingest import limits
from twisted_ingest.errors import SpoolPolicy
from twisted_ingest.limits import MIB
from twisted_ingest.observe.log import LogWriter
from twisted_ingest.service import IngestService

SPOOLED = '[sinks.a]\ntype = "file"\npath = "a.log"\nspool = true\n'


class SpoolTests(LoadingTestCase):
    def test_defaults(self) -> None:
        """No sink has a spool; one that has it is bounded, leaves space free, and blocks when it is full."""
        settings = self.load().settings
        self.assertFalse(any(sink.spool for sink in settings.sinks.values()))
        self.assertEqual(settings.spool.directory, "ingest-data/spool")
        self.assertEqual(settings.spool.max_bytes, limits.SPOOL_BYTES)
        self.assertEqual(settings.spool.free_space_floor, limits.FREE_SPACE_FLOOR)
        self.assertIs(settings.spool.policy, SpoolPolicy.BLOCK)

    def test_table(self) -> None:
        """Every key of the table is read."""
        text = '[spool]\ndirectory = "/s"\nmax_bytes = "64MiB"\nfree_space_floor = "off"\npolicy = "drop-oldest"\n'
        settings = self.load(text + SPOOLED).settings
        self.assertTrue(settings.sinks["a"].spool)
        spool = settings.spool
        self.assertEqual((spool.directory, spool.max_bytes, spool.free_space_floor), ("/s", 64 * MIB, None))
        self.assertIs(spool.policy, SpoolPolicy.DROP_OLDEST)

    def test_flag(self) -> None:
        """A sink made by a flag can have one too, of any kind."""
        for spec in ("file:a.log?spool=true", "stdout:?spool=true", "null:?spool=true"):
            (sink,) = self.load(sinks=[spec]).settings.sinks.values()
            self.assertTrue(sink.spool)

    def test_mistakes(self) -> None:
        """Each mistake is one line: where, what, and what would be right."""
        name = "ingest.toml"
        for table, expected in (
            ('max_byte = "1GiB"', f"{name}:2: error: unknown key 'max_byte' in [spool]; did you mean 'max_bytes'?"),
            (
                'policy = "drop"',
                f"{name}:2: error: policy: 'drop' is not known; did you mean 'drop-oldest'? "
                "(one of block, drop-oldest)",
            ),
            (
                'free_space_floor = "1k"',
                f"{name}:2: error: free_space_floor: '1k' is not a size: unknown unit 'k' "
                '(try "off", "1KiB" or "1kB")',
            ),
            ('directory = ""', f"{name}:2: error: directory: it must not be empty"),
            (
                'max_bytes = "1MiB"',
                f"{name}:2: error: max_bytes 1MiB is less than 4 times connection_memory 4MiB: "
                "raise max_bytes to 16MiB or lower connection_memory",
            ),
        ):
            self.assertEqual(self.complaints(f"[spool]\n{table}\n{SPOOLED}"), [expected])
        self.assertEqual(
            self.complaints(SPOOLED.replace("true", '"perhaps"')),
            [f"{name}:4: error: spool: 'perhaps' is not true or false"],
        )

    def test_exactly_fitting(self) -> None:
        """Four times the memory of a connection is enough."""
        self.load(f'[spool]\nmax_bytes = "16MiB"\n{SPOOLED}')

    def test_a_table_for_nobody(self) -> None:
        """A table that no sink uses is a mistake: whoever wrote it believes to have a spool."""
        text = '[spool]\nmax_bytes = "1GiB"\n[sinks.a]\ntype = "null"\n'
        (line,) = self.complaints(text)
        self.assertTrue(line.startswith("ingest.toml:1: error: [spool] does nothing"), line)
        # A sink with a mistake of its own may be the one.
        (line,) = self.complaints(text + "spol = true\n")
        self.assertIn("did you mean 'spool'?", line)

    def test_folder_of_a_sink(self) -> None:
        """No name that a sink may have leads out of the spool's directory."""
        sink = SPOOLED.replace("sinks.a", "sinks.'..'")
        loaded = self.load(f'[spool]\ndirectory = "{self.folder}"\n{sink}')
        service = IngestService(loaded, Clock(), lambda: 0.0, LogWriter())
        self.assertIn(os.path.join(self.folder, "sink-.."), service.sinks[0].describe())
