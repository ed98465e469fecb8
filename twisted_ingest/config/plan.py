"""
The difference of two configurations, as a value: what a change from one to the other is made of.

Pure. It says of each change what it takes: nothing (who reads the setting reads the new one), the part made anew (a
sink, a source, the admin endpoint: the others go on), or a restart.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from twisted_ingest.config.fields import Takes
from twisted_ingest.config.model import Settings
from twisted_ingest.config.positions import Path

PARTS = ("listeners", "sources", "sinks")
"""Tables of tables, each of which is a part of its own."""

DEFAULTS = {
    "limits": Takes.NOTHING,
    "listeners": Takes.NOTHING,
    "sources": Takes.PART,
    "sinks": Takes.PART,
    "spool": Takes.PART,
    "admin": Takes.PART,
    "log_format": Takes.RESTART,
}
"""What a change of a key takes where the key does not say so itself (`Takes` in its annotation)."""


@dataclass(frozen=True, slots=True)
class Change:
    """A key whose value is another."""

    path: Path
    before: Any
    after: Any
    takes: Takes


@dataclass(frozen=True, slots=True)
class Plan:
    """What is different; parts by their paths, such as ``("sinks", "file")``."""

    added: tuple[Path, ...] = ()
    removed: tuple[Path, ...] = ()
    changed: tuple[Change, ...] = field(default_factory=tuple)

    @property
    def is_empty(self) -> bool:
        """Whether the two are the same."""
        return not (self.added or self.removed or self.changed)

    @property
    def needs_restart(self) -> bool:
        """Whether anything is different that a running process cannot take over."""
        return any(change.takes is Takes.RESTART for change in self.changed)

    def anew(self) -> tuple[Path, ...]:
        """Give the parts that are there before and after, and are to be made anew; of ``spool`` that is its sinks."""
        paths = {self._part(change.path): None for change in self.changed if change.takes is Takes.PART}
        return tuple(paths)

    @staticmethod
    def _part(path: Path) -> Path:
        return path[:2] if path[0] in PARTS else path[:1]


def difference(old: Settings, new: Settings) -> Plan:
    """Compare two configurations. What is written differently and means the same is no difference."""
    added: list[Path] = []
    removed: list[Path] = []
    changed: list[Change] = []
    for section in PARTS:
        before: Mapping[str, BaseModel] = getattr(old, section)
        after: Mapping[str, BaseModel] = getattr(new, section)
        added += [(section, name) for name in after if name not in before]
        removed += [(section, name) for name in before if name not in after]
        for name in before:
            if name in after:
                changed += _compared((section, name), before[name], after[name])
    for key in Settings.model_fields:
        if key not in PARTS:
            changed += _compared((key,), getattr(old, key), getattr(new, key))
    return Plan(tuple(added), tuple(removed), tuple(changed))


def _compared(path: Path, before: Any, after: Any) -> Iterator[Change]:
    """Compare two tables key by key, or two values."""
    usual = DEFAULTS[path[0]]
    if not isinstance(before, BaseModel):
        if before != after:
            yield Change(path, before, after, usual)
        return
    fields = type(before).model_fields
    if type(before) is not type(after):
        # Another kind under the same name: one key says it, the others are not comparable.
        yield Change(path, before, after, Takes.PART)
        return
    for key, about in fields.items():
        one, other = getattr(before, key), getattr(after, key)
        if one != other or (usual is Takes.NOTHING and _is_set(before, key) is not _is_set(after, key)):
            takes = next((mark for mark in about.metadata if isinstance(mark, Takes)), usual)
            yield Change((*path, key), one, other, takes)


def _is_set(table: BaseModel, key: str) -> bool:
    """Tell whether a limit is set here: what is not may mean another limit (the common one, that of the protocol)."""
    return key in table.model_fields_set
