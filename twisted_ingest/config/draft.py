"""
What is on its way to become settings: values as they were written, where each stands, and what is wrong so far.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted_ingest.config.positions import Path
from twisted_ingest.errors import Caution, Problem
from twisted_ingest.escaping import escape


@dataclass(slots=True)
class Draft:
    """What has been gathered so far."""

    raw: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    cautions: list[Caution] = field(default_factory=list)
    hide: Callable[[str], str] = str
    """Takes secrets out of a message."""

    def complain(self, where: str, message: str) -> None:
        """Add a problem once, as one line whatever the operator's words hold."""
        problem = Problem(escape(where), escape(self.hide(message)))
        if problem not in self.problems:
            self.problems.append(problem)

    def warn(self, where: str, message: str) -> None:
        """Add a caution, as one line."""
        self.cautions.append(Caution(escape(where), escape(self.hide(message))))

    def put(self, path: Path, value: Any, origin: str) -> None:
        """Set a value, where it is to be found in the tables, and say where it comes from."""
        table = self.raw
        for part in path[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                return  # the file has a value where a table belongs; validation says so
        table[path[-1]] = value
        self.origins[path] = origin

    def forget(self, *path: str) -> None:
        """Drop the origins of a table that a flag replaces."""
        self.origins = {known: origin for known, origin in self.origins.items() if known[: len(path)] != path}

    def where(self, path: Path) -> str:
        """Find the origin of a path, or of the nearest table around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return self.origins.get((), "configuration")

    def tables(self, section: str) -> list[tuple[str, dict[str, Any]]]:
        """List the tables of a table of tables; what is none is left to the validation."""
        tables = self.raw.get(section)
        if not isinstance(tables, dict):
            return []
        return [(name, table) for name, table in tables.items() if isinstance(table, dict)]
