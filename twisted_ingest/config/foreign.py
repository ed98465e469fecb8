"""
Kinds that other distributions add: whoever asks for one that cannot be used is told whose it is.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from twisted_ingest.config.draft import Draft
from twisted_ingest.config.kinds import OWN, Kinds
from twisted_ingest.config.positions import Path
from twisted_ingest.sinks.registry import SinkType, sink_types
from twisted_ingest.sources.registry import LINES, TAGS, source_types
from twisted_ingest.units import quote


def refuse_foreign(draft: Draft) -> list[Path]:
    """
    Complain of tables of kinds that cannot be used, and take them out; warn of such kinds that nobody asks for.

    Gives the paths of what was taken out. A kind whose own code raises is one of them.
    """
    refused: list[Path] = []
    asked = set()
    for path, tag, kinds, table in _tables(draft):
        word = table.get(tag, LINES if tag == TAGS["listeners"] else None)
        if not isinstance(word, str):
            continue
        broken = kinds.broken.get(word)
        reason = str(broken) if broken else _bug(kinds, word, table, draft.hide)
        if reason is not None:
            asked.add(broken)
            refused.append(path)
            draft.complain(draft.where((*path, tag)), reason)
    for broken in (*sink_types().broken.values(), *source_types().broken.values()):
        if broken not in asked:
            draft.warn(broken.distribution, f"it adds {broken.word!r}, which cannot be used: {broken.reason}")
    for section, name in refused:
        del draft.raw[section][name]
    return refused


def _tables(draft: Draft) -> Iterator[tuple[Path, str, Kinds[Any], Mapping[str, Any]]]:
    tags: dict[str, tuple[str, Kinds[Any]]] = {"sinks": ("type", sink_types())}
    tags |= {section: (tag, source_types()) for section, tag in TAGS.items()}
    for section, (tag, kinds) in tags.items():
        for name, table in draft.tables(section):
            yield (section, name), tag, kinds, table


def _bug(kinds: Kinds[Any], word: str, table: Mapping[str, Any], hide: Callable[[str], str]) -> str | None:
    """Say what the code of another distribution's kind raises when it is asked about a table."""
    if word not in kinds or kinds.owner(word) == OWN:
        return None
    kind = kinds[word]
    try:
        read = kind.table.model_validate(dict(table))
        if isinstance(kind, SinkType):
            _ = [*kind.places(read), *kind.problems(read)]
    except ValidationError:
        return None  # the operator's mistake, told with all others
    except Exception as error:  # noqa: BLE001 - it may be anything
        return f"{kinds.owner(word)} cannot check {word!r}: {type(error).__name__}: {quote(hide(str(error)))}"
    return None
