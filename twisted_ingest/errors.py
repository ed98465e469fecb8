"""
What can go wrong, and every reason something can end with.

The tree::

    IngestError
    ├── ConfigurationError   the operator's mistake; carries every problem found
    ├── SinkError            a sink has given up for good on what it was handed
    └── ListenError          an address could not be bound

A peer's mistake is never an exception on the hot path: it is a member of one
of the enumerations below. Their values are the only ones that a metric label
``reason`` can take.
"""

from dataclasses import dataclass
from enum import StrEnum


class IngestError(Exception):
    """Base of all errors raised by this package."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One configuration mistake: where it stands and what to do about it."""

    where: str
    """``FILE:LINE`` or the flag, as the operator would look it up."""
    message: str
    """What is wrong, with the fix or the nearest valid word."""

    def __str__(self) -> str:
        return f"{self.where}: error: {self.message}"


class ConfigurationError(IngestError):
    """The configuration cannot be used. ``problems`` holds every mistake found, in reading order."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class SinkError(IngestError):
    """A sink will never take what it was handed; the records are dropped and counted."""


class ListenError(IngestError):
    """An address could not be bound; the message names the address and the reason."""


class PauseReason(StrEnum):
    """Why a connection is not read from for now."""

    BUDGET = "budget"
    """All connections together hold what they may; the sinks must catch up."""
    CONNECTION = "connection"
    """This one holds what one connection may."""
    RATE = "rate"
    """It, or its peer, has sent faster than it may."""


class CloseReason(StrEnum):
    """Why a connection ended. Every connection ends with exactly one."""

    EOF = "eof"
    """The peer closed in good order."""
    RESET = "reset"
    """The peer reset the connection, or keepalive found it dead."""
    IDLE = "idle"
    FRAME_DEADLINE = "frame_deadline"
    """A record was begun and not ended in time."""
    OVERSIZE = "oversize"
    """A record passed ``MAX_LENGTH`` and the policy is ``close``."""
    MEMORY = "memory"
    """As oversize, because unfinished records filled their share of the budget."""
    FRAMING = "framing"
    """A counted frame did not begin with its count: there is no safe place to go on."""
    WRONG_PROTOCOL = "wrong_protocol"
    DRAIN = "drain"
    """The server is stopping."""
    INTERNAL_ERROR = "internal_error"
    LOCAL = "local"
    """Closed by code that embeds the protocol (``transport.loseConnection``)."""


class RefuseReason(StrEnum):
    """Why a connection was not admitted."""

    PER_PEER = "per_peer"
    """Its peer has as many connections as one may have."""
    CONNECTION_RATE = "connection_rate"
    """Its peer connects more often than one may."""
    NOT_ALLOWED = "not_allowed"
    """The listener does not allow its address."""
    DRAINING = "draining"
    INTERNAL_ERROR = "internal_error"
    # Admitted, and turned away by its first bytes: a protocol that is not ours.
    TLS = "tls"
    HTTP = "http"
    SSH = "ssh"
    PROXY = "proxy"
    RELP = "relp"
    PICKLE = "pickle"
    JAVA = "java"
    MSGPACK = "msgpack"
    ZLIB = "zlib"


class DropReason(StrEnum):
    """Why a record that was framed is not delivered."""

    OVERSIZE = "oversize"
    MEMORY = "memory"
    OVERFLOW = "overflow"
    """The bounded queue of a sink that is not required was full."""
    SINK_FAILED = "sink_failed"
    SHUTDOWN = "shutdown"
    """Still undelivered when the drain deadline passed."""


class DiscardReason(StrEnum):
    """Why bytes never became (part of) a delivered record."""

    OVERSIZE = "oversize"
    MEMORY = "memory"
    RESET = "reset"
    FRAMING = "framing"
    WRONG_PROTOCOL = "wrong_protocol"
    INTERNAL_ERROR = "internal_error"


class Oversize(StrEnum):
    """What happens to a record longer than ``MAX_LENGTH``."""

    TRUNCATE = "truncate"
    """Keep the first ``MAX_LENGTH`` bytes, skip the rest."""
    DROP = "drop"
    """Skip the whole record."""
    CLOSE = "close"
    """End the connection."""


class Framing(StrEnum):
    """How records are told apart on the wire."""

    AUTO = "auto"
    """Each frame by its beginning: a line, a counted frame, a record ended by NUL."""
    NEWLINE = "newline"
    """LF ends a record; one CR before it is stripped."""
    NUL = "nul"
    """NUL ends a record."""
    OCTET_COUNTED = "octet-counted"
    """A decimal length and a blank stand before each record (RFC 6587)."""


class Fsync(StrEnum):
    """When the file sink asks the device to keep what was written."""

    NEVER = "never"
    """The kernel decides; survives a kill of the process, not of the machine."""
    SECOND = "1s"
    """At most a second of written records is exposed to a crash of the machine."""
    ALWAYS = "always"
    """Before a group counts as delivered."""


class Format(StrEnum):
    """How a sink that writes lines writes a record."""

    RAW = "raw"
    """The record's bytes, an LF inside it as ``\\n``."""
    JSON = "json"
    """An object with time, listener, peer and message."""
