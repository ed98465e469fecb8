"""
What is raised, and the operator's mistakes that one of them carries.

The tree::

    IngestError
    ├── ConfigurationError   the operator's mistake; carries every problem found
    ├── SinkError            a sink has failed for good: it takes nothing any more
    │   └── MisconfiguredError   only another configuration can help
    ├── ListenError          an address could not be bound
    └── SourceError          another source cannot start as things are
"""

from dataclasses import dataclass


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


@dataclass(frozen=True, slots=True)
class Caution:
    """What an operator may not have meant, though it can be done."""

    where: str
    """As of a `Problem`."""
    message: str

    def __str__(self) -> str:
        return f"{self.where}: warning: {self.message}"


class ConfigurationError(IngestError):
    """The configuration cannot be used. ``problems`` holds every mistake found, in reading order."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class SinkError(IngestError):
    """
    A sink has failed for good: until it is started anew it takes nothing, neither what it was handed nor what follows.

    Who keeps the records (a spool) stops bringing them; otherwise they are dropped and counted.
    """


class MisconfiguredError(SinkError):
    """A sink cannot start, and no waiting mends that: its configuration names what cannot be."""


class ListenError(IngestError):
    """An address could not be bound; the message names the address and the reason."""


class SourceError(IngestError):
    """A source cannot start as things are; the message names it, and what it lacks."""
