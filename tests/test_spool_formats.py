"""Spools that other versions have written: those of older formats are read, those of newer ones left untouched."""

import json
import os
import shutil
import tempfile

from twisted.trial.unittest import TestCase

from tests.spooling import Spool, same
from twisted_ingest.batch import Batch, ConnectionInfo
from twisted_ingest.spool.disk import RealDisk

SPOOLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "spools")
"""What other versions left on the disk, and how it was made."""


def expected(name: str) -> list[Batch]:
    """Give the batches that a kept spool was given and has not delivered."""
    with open(os.path.join(SPOOLS, f"{name}.json"), encoding="ascii") as stream:
        kept = json.load(stream)
    return [
        Batch(
            entry["wire"].encode("latin-1"),
            entry["count"],
            ConnectionInfo(**entry["info"]),
            entry["received_at"],
            entry["delimiter"].encode(),
            partial=entry["partial"],
            truncated=entry["truncated"],
        )
        for entry in kept["batches"][kept["delivered"] :]
    ]


class FormatCase(TestCase):
    def setUp(self) -> None:
        root = tempfile.mkdtemp(prefix="ingest-spool-")
        self.addCleanup(shutil.rmtree, root)
        self.directory = os.path.join(root, "spool")

    def start(self) -> Spool:
        """Start a spool on the directory; another one must have ended."""
        spool = Spool(RealDisk(), segment_bytes=1000, directory=self.directory)
        self.addCleanup(self.kill, spool)
        return spool

    def kill(self, spool: Spool) -> None:
        """Let go of all that a spool has open."""
        for close in (spool.target.close, spool.cursor.close):
            close()
        spool.disk.close(spool.lock)
        spool.lock = -1


class OlderTests(FormatCase):
    def setUp(self) -> None:
        super().setUp()
        shutil.copytree(os.path.join(SPOOLS, "v1"), self.directory)

    def test_format_1(self) -> None:
        """A spool of format 1 is delivered from its position on: every batch, in order, the same to the last byte."""
        spool = self.start()
        report = spool.recovered.report
        found = spool.read()
        wanted = expected("v1")
        self.assertEqual(len(found), len(wanted))
        for one, other in zip(found, wanted, strict=True):
            self.assertTrue(same(one, other), one)
            self.assertEqual(one.records(), other.records())
        self.assertEqual((report.batches, report.passed, report.missing), (len(wanted), 3, 0))
        # What a failed sync and a killed write have left is there, and told from the rest.
        self.assertEqual((report.duplicates, report.quarantined_regions), (1, 0))
        self.assertGreater(report.torn_bytes, 0)
        self.assertTrue(report.is_clean)
