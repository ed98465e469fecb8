"""
Values that add: dataclasses of which every field says what two of it make.

What was seen of several processes is told as one by adding it up, and so is what has gone: a listener or a sink that
was taken away leaves its counts, and a total never falls. Addition is associative, and `Adds.nothing` changes nothing;
it is commutative but for the order of texts and of names.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import cache
from typing import Any, NamedTuple, Self


class Exposure(NamedTuple):
    """How a field shows among the metrics: without the ending that its kind gives it."""

    name: str
    text: str
    label: str = ""
    """Of a mapping: what its keys are. Two words are two labels, and a key is two words then."""


@dataclass(frozen=True, slots=True)
class Rule:
    """
    How the values of a field add.

    ``nothing`` makes the value that changes no other; ``keep`` gives what stays of one whose owner is gone, ``None``
    where nothing does; ``read`` makes a value of what JSON has made of one.
    """

    nothing: Callable[[], Any]
    add: Callable[[Any, Any], Any]
    keep: Callable[[Any], Any] | None = None
    read: Callable[[Any], Any] = lambda plain: plain


class Adds:
    """A frozen dataclass of fields made by `adds`."""

    __slots__ = ()

    def __add__(self, other: Self) -> Self:
        """Give what both make together."""
        return type(self)(
            **{name: rule.add(getattr(self, name), getattr(other, name)) for name, rule in rules(type(self)).items()}
        )

    @classmethod
    def nothing(cls) -> Self:
        """Give what changes no other."""
        return cls()

    def counted(self) -> Self:
        """Give what stays when the owner is gone: what was counted, without what it held."""
        kept = {name: rule.keep(getattr(self, name)) for name, rule in rules(type(self)).items() if rule.keep}
        return type(self)(**kept)

    def to_plain(self) -> dict[str, Any]:
        """Give it in the words of JSON."""
        return {name: _plain(getattr(self, name)) for name in rules(type(self))}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_plain` gave, of another version too: what is unknown falls, and what is missing is nothing."""
        return cls(**{name: rule.read(plain[name]) for name, rule in rules(cls).items() if name in plain})


def adds(rule: Rule, exposure: Exposure | None = None) -> Any:
    """Make a field that adds by a rule, and shows as a metric if it does."""
    return field(default_factory=rule.nothing, metadata={"rule": rule, "exposure": exposure})


def _rules(kind: Any) -> dict[str, Rule]:
    return {each.name: each.metadata["rule"] for each in fields(kind)}


def _exposures(kind: Any) -> dict[str, tuple[Exposure, bool]]:
    shown = ((each.name, each.metadata["exposure"], each.metadata["rule"]) for each in fields(kind))
    return {name: (exposure, rule.keep is not None) for name, exposure, rule in shown if exposure is not None}


rules: Callable[[Any], dict[str, Rule]] = cache(_rules)
"""Gives the rules of a class by field."""

exposures: Callable[[Any], dict[str, tuple[Exposure, bool]]] = cache(_exposures)
"""Gives how the fields of a class show, those that do, and whether each is a counter."""


def _plain(value: Any) -> Any:
    if isinstance(value, Adds):
        return value.to_plain()
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value.value if isinstance(value, Enum) else value


def _sums(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> dict[Any, Any]:
    """Unite two mappings by name: what both have adds."""
    return {**one, **{key: one[key] + value if key in one else value for key, value in other.items()}}


def _joined(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    """Join texts, each of them once, in the order they came."""
    return tuple(dict.fromkeys((*one, *other)))


def _every(one: bool | None, other: bool | None) -> bool | None:
    return other if one is None else one if other is None else one and other


def _least(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else min(one, other)


def _same(value: Any) -> Any:
    return value


# Of a number.

COUNT = Rule(int, operator.add, keep=_same)
"""What only grows: its sum; it stays."""

LEVEL = Rule(int, operator.add)
"""What is held now, or allowed: its sum."""

HIGHEST = Rule(float, max)
"""Ages: the highest; none is below zero."""

SOONEST = Rule(lambda: None, _least)
"""Times: the soonest; ``None``: there is none."""

# Of a truth.

EVERY = Rule(lambda: None, _every)
"""Whether all that can say so say yes; ``None``: nobody can."""

ANY = Rule(bool, operator.or_)
"""Whether anybody says yes."""

EVER = Rule(bool, operator.or_, keep=_same)
"""Whether anybody says yes, or has said so."""

# Of several.

TEXTS = Rule(tuple, _joined, read=tuple)
"""Texts: all that differ."""

COUNTS = Rule(dict, _sums, keep=_same)
"""What only grows, by name: the sums; they stay."""

LEVELS = Rule(dict, _sums)
"""What is held now, by name: the sums."""


def parts(kind: type[Adds]) -> Rule:
    """Give the rule of parts by name: parts of one name add, and their counts stay."""
    return Rule(
        dict,
        _sums,
        keep=lambda those: {name: part.counted() for name, part in those.items()},
        read=lambda plain: {name: kind.from_plain(part) for name, part in plain.items()},
    )
