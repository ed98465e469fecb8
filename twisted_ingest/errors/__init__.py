"""
What can go wrong, and every word for how something ends or is to be done: all are imported from here.
"""

from twisted_ingest.errors.choices import (
    Durability,
    Format,
    Framing,
    Fsync,
    Oversize,
    Redirects,
    SpoolPolicy,
)
from twisted_ingest.errors.exceptions import (
    Caution,
    ConfigurationError,
    IngestError,
    ListenError,
    MisconfiguredError,
    Problem,
    SinkError,
    SourceError,
)
from twisted_ingest.errors.reasons import (
    AcceptError,
    CloseReason,
    DiscardReason,
    DropReason,
    HandshakeResult,
    PauseReason,
    PollResult,
    RefuseReason,
    ReloadResult,
    RelpCommand,
    RelpError,
    Resync,
)

__all__ = [
    "AcceptError",
    "Caution",
    "CloseReason",
    "ConfigurationError",
    "DiscardReason",
    "DropReason",
    "Durability",
    "Format",
    "Framing",
    "Fsync",
    "HandshakeResult",
    "IngestError",
    "ListenError",
    "MisconfiguredError",
    "Oversize",
    "PauseReason",
    "PollResult",
    "Problem",
    "Redirects",
    "RefuseReason",
    "ReloadResult",
    "RelpCommand",
    "RelpError",
    "Resync",
    "SinkError",
    "SourceError",
    "SpoolPolicy",
]
