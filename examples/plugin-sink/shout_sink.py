"""A kind of sink from another distribution: records go to a file in capitals."""

from typing import Literal

from twisted.internet.defer import Deferred

from twisted_ingest.batch import Group
from twisted_ingest.config.fields import FilePath
from twisted_ingest.errors import Durability
from twisted_ingest.sinks.null import NullSink
from twisted_ingest.sinks.registry import Place, SinkTable, SinkType


class ShoutTable(SinkTable):
    """``[sinks.NAME]`` with ``type = "shout"``."""

    type: Literal["shout"]
    path: FilePath
    mark: str = "!"


class ShoutSink(NullSink):
    """Appends to a file at once, which blocks; a sink for real writes in a thread and tries again."""

    durability = Durability.WRITTEN

    def __init__(self, name: str, table: ShoutTable) -> None:
        super().__init__(name)
        self.table = table

    def describe(self) -> str:
        """Say where records go."""
        return f"shouted to {self.table.path}"

    def deliver(self, group: Group) -> Deferred[None]:
        """Write a group; what it returns has fired, so that the group is taken."""
        mark = self.table.mark.encode()
        with open(self.table.path, "ab") as file:
            file.writelines(record.upper() + mark + b"\n" for batch in group.batches for record in batch.records())
        return super().deliver(group)


SHOUT = SinkType(
    table=ShoutTable,
    make=lambda name, table, _: ShoutSink(name, table),
    durability=ShoutSink.durability,
    summary="shouted to a file",
    address="path",
    places=lambda table: [Place(table.path, "path")],
)
