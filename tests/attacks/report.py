"""
What an attack is, in words that the page `docs/reliability.md` is made of, and what its tests measured.

Each attack module describes its scenarios as constants; its tests report a result through them. Nothing is kept
unless the environment variable INGEST_TEST_REPORT names a file (`make reliability` does).
"""

import json
import os
from dataclasses import dataclass
from enum import StrEnum


class Group(StrEnum):
    """The chapters of the page, in its order."""

    PEERS = "Peers that misbehave"
    ACCEPT = "At the door"
    TLS = "TLS and who may send"
    PRESSURE = "Pressure"
    RELP = "RELP sessions"
    SERVERS = "Servers that are polled"
    DISK = "Disks and sinks"
    PROCESS = "Process, signals and clock"
    OURSELVES = "Ourselves"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the page: what happens, what the server does, and where an operator sees it."""

    group: Group
    name: str
    """Unique, as a heading would say it."""
    trigger: str
    behaviour: str
    metrics: tuple[str, ...]
    """Samples as the admin page writes them, labels included where one matters: ``ingest_x_total{reason="y"}``."""

    def measured(self, text: str) -> None:
        """Report a result: figures and what they are, no full stop. Each call of a test run adds to the row."""
        path = os.environ.get("INGEST_TEST_REPORT")
        if path:
            # One write to a file opened for appending: tests may run in several processes.
            with open(path, "a") as report:
                report.write(json.dumps({"scenario": self.name, "measured": text}) + "\n")
