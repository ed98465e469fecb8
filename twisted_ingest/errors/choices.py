"""
What an operator may choose between, each word as it stands in the configuration.
"""

from enum import StrEnum


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


class Redirects(StrEnum):
    """Where a poller follows a redirect to; never from https to http, nor with credentials to another server."""

    SAME_HOST = "same-host"
    ANY = "any"
    OFF = "off"


class Durability(StrEnum):
    """What must be true of a record before it counts as taken; the weakest first."""

    MEMORY = "memory"
    """We have it."""
    WRITTEN = "written"
    """The kernel has it: it survives a kill of the process, not of the machine."""
    FSYNC = "fsync"
    """The device says it has it."""
    DELIVERED = "delivered"
    """The sink behind has taken it, as far as that one says so: no disk of ours is in between."""

    def covers(self, wanted: "Durability") -> bool:
        """Whether this is ``wanted`` or stronger."""
        levels = list(Durability)
        return levels.index(self) >= levels.index(wanted)


class Fsync(StrEnum):
    """When the file sink asks the device to keep what was written."""

    NEVER = "never"
    """The kernel decides; survives a kill of the process, not of the machine."""
    SECOND = "1s"
    """At most a second of written records is exposed to a crash of the machine."""
    ALWAYS = "always"
    """Before a group counts as delivered."""


class SpoolPolicy(StrEnum):
    """What a spool does when it is full."""

    BLOCK = "block"
    """Take nothing: the senders are held back."""
    DROP_OLDEST = "drop-oldest"
    """Give up what has waited longest, a segment at a time, and count it."""


class Format(StrEnum):
    """How a sink that writes lines writes a record."""

    RAW = "raw"
    """The record's bytes, an LF inside it as ``\\n``."""
    JSON = "json"
    """An object with time, listener, peer and message."""
