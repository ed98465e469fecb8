"""
RELP: numbered frames, each answered once it is safe.
"""

from collections.abc import Iterator
from typing import Literal

from twisted_ingest.errors import Durability, Oversize
from twisted_ingest.limits import RELP_MAX_LENGTH, ListenerLimits
from twisted_ingest.server.relp import RelpFactory
from twisted_ingest.sources.listener import make_listener
from twisted_ingest.sources.registry import ListenerTable, SourceType


class RelpTable(ListenerTable):
    """``[listeners.NAME]`` with ``protocol = "relp"``."""

    protocol: Literal["relp"]


def _problems(_: RelpTable, limits: ListenerLimits) -> Iterator[tuple[str, str]]:
    if limits.oversize is Oversize.CLOSE:
        yield (
            "oversize",
            "oversize: 'close' would have a RELP client send the same record for ever (one of truncate, drop)",
        )


KINDS = (
    SourceType(
        table=RelpTable,
        make=make_listener(RelpFactory),
        flag="relp",
        tls_flag="relp-tls",
        summary="to receive RELP on (rsyslog's omrelp), each record answered once it is on disk",
        promises=Durability.FSYNC,
        # Silence is normal for a client that keeps a session; closing it would cost what it sends next.
        defaults={"max_length": RELP_MAX_LENGTH, "idle_timeout": None},
        foreign={"framing": "RELP has its own; the key is for lines"},
        problems=_problems,
    ),
)
