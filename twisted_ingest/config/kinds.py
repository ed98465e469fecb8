"""
What there are kinds of, sinks and sources: found in a room of ours, and in distributions that are installed beside us.

A kind is described by one object, its descriptor. A module of ours names its own in ``KINDS``; another distribution
names one by an entry point, whose name is the kind's word. What is wrong with such a distribution is told where its
word is used, and is no more than a warning where it is not.
"""

import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Generic, Literal, Protocol, TypeVar, get_args, get_origin

from pydantic import BaseModel

from twisted_ingest.units import quote

OWN = "twisted-ingest"
"""The distribution of what is ours."""

_WORD = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)


class Kind(Protocol):
    """What every descriptor has."""

    @property
    def word(self) -> str:
        """The word that operators write."""


K = TypeVar("K", bound=Kind)


@dataclass(frozen=True, slots=True)
class Broken:
    """An entry point that cannot be used: whose it is, and why."""

    word: str
    distribution: str
    reason: str

    def __str__(self) -> str:
        return f"{self.distribution} adds {self.word!r}, which cannot be used: {self.reason}"


class Kinds(Mapping[str, K], Generic[K]):
    """
    All kinds, by their words in alphabetical order.

    ``broken`` are words that are not to be used, with whom to blame: of kinds that cannot be had, and of those that
    more than one distribution claims.
    """

    def __init__(self, kinds: Mapping[str, K], broken: Mapping[str, Broken], owners: Mapping[str, str]) -> None:
        self._kinds = {word: kinds[word] for word in sorted(kinds)}
        self._owners = owners
        self.broken = MappingProxyType(dict(broken))

    def __getitem__(self, word: str) -> K:
        return self._kinds[word]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def owner(self, word: str) -> str:
        """Name the distribution that a kind comes from, with its version where it is not ours."""
        return self._owners[word]


def find_kinds(room: str, group: str, check: Callable[[object], K]) -> Kinds[K]:
    """
    Find all kinds: those that the modules of a package name in ``KINDS``, and the entry points of a group.

    ``check`` gives the descriptor back, or raises ``TypeError`` with what it lacks.
    """
    kinds = {kind.word: kind for kind in map(check, _ours(room))}
    owners, broken = dict.fromkeys(kinds, OWN), dict[str, Broken]()
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value)):
        word, owner = point.name, _distribution(point)
        found = _load(point, check)
        if word in owners:
            found = f"the word is taken by {owners[word]} (uninstall one of the two)"
        if isinstance(found, str):
            broken[word] = Broken(word, owner, found)
        else:
            kinds[word] = found
        owners.setdefault(word, owner)
    return Kinds(kinds, broken, owners)


def check_keys(table: type[BaseModel], tag: str, address: str | None) -> None:
    """Raise ``TypeError`` where a table does not say by ``tag`` of which kind it is, or lacks its address's key."""
    words = table.model_fields[tag].annotation
    if get_origin(words) is not Literal or len(get_args(words)) != 1:
        raise TypeError(f'its table lacks {tag}: Literal["word"]')
    if address is not None and address not in table.model_fields:
        raise TypeError(f"its table has no key {address!r}, which it names as the address")


def _ours(room: str) -> Iterator[object]:
    package = import_module(room)
    for module in pkgutil.iter_modules(package.__path__):
        yield from getattr(import_module(f"{room}.{module.name}"), "KINDS", ())


def _distribution(point: EntryPoint) -> str:
    return "an unknown distribution" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _load(point: EntryPoint, check: Callable[[object], K]) -> K | str:
    """Give the descriptor behind an entry point, or say why it cannot be had."""
    if not _WORD.fullmatch(point.name):
        return "the name of an entry point is a word of small letters, digits and hyphens, at most 32"
    try:
        kind = check(point.load())
    except KeyboardInterrupt:  # the operator's
        raise
    except BaseException as error:  # noqa: BLE001 - a module of somebody else's may raise anything
        return f"{point.value}: {type(error).__name__}: {_words(error)}"
    if kind.word != point.name:
        return f"its entry point is named {point.name!r}, and its table is of type {kind.word!r}"
    return kind


def _words(error: BaseException) -> str:
    try:
        return quote(str(error))
    except Exception:  # noqa: BLE001 - it is somebody else's too
        return "it cannot say what is wrong"
