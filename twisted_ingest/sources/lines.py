"""
Lines: records one after the other, in one of the framings; nothing is answered.
"""

from typing import Annotated, Literal

from twisted_ingest.config.fields import About
from twisted_ingest.errors import Framing
from twisted_ingest.server.lines import IngestFactory
from twisted_ingest.sources.listener import make_listener
from twisted_ingest.sources.registry import ListenerTable, SourceType


class LinesTable(ListenerTable):
    """``[listeners.NAME]`` where lines are received."""

    protocol: Literal["lines"] = "lines"
    framing: Annotated[Framing, About("auto|newline|nul|octet-counted:", "how records are told apart")] = Framing.AUTO


KINDS = (
    SourceType(
        table=LinesTable,
        make=make_listener(IngestFactory),
        flag="listen",
        tls_flag="listen-tls",
        summary="to receive on: tcp, tcp6, unix or systemd",
    ),
)
