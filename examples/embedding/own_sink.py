"""Records come by RELP, and are answered once a table of SQLite has them on disk."""

import sqlite3
import threading
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from twisted_ingest.batch import Group
from twisted_ingest.config.load import load
from twisted_ingest.errors import Durability, SinkError
from twisted_ingest.interfaces import ISink
from twisted_ingest.service import IngestService

RETRY_SECONDS = 1.0
"""Between two attempts while the database cannot take records: it is locked, or the disk is full."""


@implementer(ISink)
class SqliteSink:
    """Puts each group into the table ``records`` in one transaction, in a thread of its own."""

    durability = Durability.FSYNC  # a commit returns once the device has it (synchronous=FULL)
    wants_groups = True  # a transaction is dear: gather some milliseconds of batches

    def __init__(self, name: str, path: str, reactor: Any) -> None:
        self.name = name
        self.trouble: str | None = None
        self._path = path
        self._reactor = reactor
        self._thread = ThreadPool(1, 1, name)  # one thread: the order of the groups is kept
        self._abandoned = threading.Event()
        self._database: sqlite3.Connection | None = None
        self._rows = 0

    def describe(self) -> str:
        """Say where records go."""
        return f"SQLite {self._path}"

    def start(self) -> None:
        """Open the database; raises `SinkError`, which ends the start."""
        try:
            database = sqlite3.connect(self._path, check_same_thread=False)
            database.execute("PRAGMA synchronous=FULL")
            database.execute("CREATE TABLE IF NOT EXISTS records (at REAL, peer TEXT, record BLOB)")
        except sqlite3.Error as error:
            raise SinkError(f"sink {self.name}: cannot open {self._path}: {error}") from error
        self._database = database
        self._thread.start()

    def deliver(self, group: Group) -> Deferred[None]:
        """Fire once the group is committed."""
        return deferToThreadPool(self._reactor, self._thread, self._commit, group)

    def _commit(self, group: Group) -> None:
        rows = [(batch.received_at, batch.info.peer, record) for batch in group.batches for record in batch.records()]
        while not self._try(rows):
            if self._abandoned.wait(RETRY_SECONDS):
                raise SinkError(f"sink {self.name}: {self.trouble}")

    def _try(self, rows: list[tuple[float, str, bytes]]) -> bool:
        """Insert, or note why not: what passes is waited for here, and holds the senders back."""
        database = self._database
        if database is None:
            raise SinkError(f"sink {self.name} is closed")
        try:
            with database:
                database.executemany("INSERT INTO records VALUES (?, ?, ?)", rows)
        except sqlite3.OperationalError as error:
            self.trouble = str(error)  # shown by /readyz
            return False
        self.trouble = None
        self._rows += len(rows)
        return True

    def reopen(self) -> None:
        """Do nothing: nobody rotates a database."""

    def close(self) -> Deferred[None]:
        """Close behind everything that was delivered; also where the start failed, and there is nothing to close."""
        if self._database is None:
            return succeed(None)
        return deferToThreadPool(self._reactor, self._thread, self._database.close).addCallback(self._stop)

    def _stop(self, _: object) -> None:
        self._database = None
        self._thread.stop()

    def abandon(self) -> None:
        """Stop trying."""
        self._abandoned.set()

    def details(self) -> Mapping[str, float]:
        """Count the rows: ``ingest_sink_rows_total``."""
        return {"rows": self._rows}


def make_service(reactor: Any, endpoint: str, path: str) -> IngestService:
    """Make a service that speaks RELP at ``endpoint`` and has no other sink."""
    loaded = load(None, {"admin": "off"}, listen=[], sinks=[], relp=[endpoint], has_own_sinks=True)
    service = IngestService(loaded, reactor)
    service.add_sink(lambda: SqliteSink("sqlite", path, reactor))
    return service
