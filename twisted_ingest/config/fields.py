"""
What a setting may be: how each kind of value is read, and what is said of one that is none.

Below the sinks and the sources, whose tables are made of these.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints

from twisted_ingest.admin.hosts import HostList, parse_host_name
from twisted_ingest.config.owners import group_id, user_id
from twisted_ingest.networks import AllowList, parse_network
from twisted_ingest.units import Rate, exact_size, format_duration, parse_duration, parse_rate, parse_size, quote

OFF = "off"
"""The word that lifts a limit, and leaves out the admin endpoint."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class About:
    """What a key is, for ``--help`` and the page of settings; stands in its annotation."""

    form: str
    """What is written, as in ``SIZE``; with a colon where ``text`` is no continuation of it."""
    text: str
    more: str = ""
    """For the page alone."""
    default: str = ""
    """What it is by default, where the value does not say it."""

    @staticmethod
    def of(table: type[BaseModel], key: str) -> "About":
        """Find it; of a key that has none it is made of its description."""
        field = table.model_fields[key]
        marks = [mark for mark in field.metadata if isinstance(mark, About)]
        return marks[0] if marks else About("", field.description or "")


def shown_default(table: type[BaseModel], key: str) -> str:
    """Write the default of a key as an operator would."""
    field = table.model_fields[key]
    about, value = About.of(table, key), field.default
    if about.default or field.is_required():
        return about.default
    if value is None:
        return OFF
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return format_duration(value)
    return exact_size(value) if isinstance(value, int) and about.form.startswith("SIZE") else str(value)


class Takes(Enum):
    """What a change of a setting takes; stands in the annotation of a key that is not like the others of its table."""

    NOTHING = "nothing"
    """Whoever goes by it reads the new one."""
    PART = "part"
    """The sink, the source or the endpoint is made anew."""
    RESTART = "restart"


HIGHEST_MODE = 0o777

OWN_MODE = 0o600
"""What we need ourselves: reading is for the look at the last byte."""

LARGEST_SIZE = 1 << 50
"""Bytes. Above what any machine has; numbers far beyond it do not fit where the kernel takes them."""

LARGEST_RECEIVE_BUFFER = 1 << 30
"""Bytes. ``SO_RCVBUF`` is a C int, and the kernel doubles it."""

IPV6_BITS = 128
"""Bits of an IPv6 address."""

LONGEST_DURATION = 365 * 86400.0
"""Seconds. Timers of threads overflow at some three hundred years."""


def _size(value: Any, largest: int = LARGEST_SIZE) -> int:
    size = parse_size(value)
    if size < 1:
        raise ValueError(f"{quote(value)} is too small: it must be at least one byte")
    if size > largest:
        raise ValueError(f"{quote(value)} is too large: it must be at most {exact_size(largest)}")
    return size


def _buffer_size(value: Any) -> int:
    return _size(value, LARGEST_RECEIVE_BUFFER)


def _duration(value: Any) -> float:
    seconds = parse_duration(value)
    if seconds <= 0:
        raise ValueError(f'{quote(value)} is too short: it must be longer than nothing (try "5s")')
    if seconds > LONGEST_DURATION:
        raise ValueError(f"{quote(value)} is too long: it must be at most {format_duration(LONGEST_DURATION)}")
    return seconds


def _count(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:  # noqa: PLR2004
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{quote(value)} is not a number of 1 or more")
    return value


def _prefix_ipv6(value: Any) -> int:
    try:
        bits = _count(value)
    except ValueError:
        bits = 0
    if not 1 <= bits <= IPV6_BITS:
        raise ValueError(f"{quote(value)} is not a length of an IPv6 prefix, 1 to {IPV6_BITS} (try 64)")
    return bits


def _or_off(read: Callable[[Any], T]) -> Callable[[Any], T | None]:
    """Take the word that lifts a limit besides, and offer it where a value is refused."""

    def read_or_off(value: Any) -> T | None:
        if value == OFF:
            return None
        try:
            return read(value)
        except ValueError as error:
            text, word = str(error), f'(try "{OFF}"'
            raise ValueError(text.replace("(try ", f"{word}, ") if "(try " in text else f"{text} {word})") from error

    return read_or_off


def _networks(value: Any) -> AllowList:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise ValueError('it needs one network or more (try "192.0.2.0/24"); without it everybody may connect')
    return AllowList(map(parse_network, texts))


def _proxies(value: Any) -> AllowList:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise ValueError(
            'it needs the networks of the proxies (try "192.0.2.0/24"); without it no PROXY header is expected'
        )
    return AllowList(map(parse_network, texts))


def _sink_names(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError('it needs names of sinks (try ["file"]); without it all sinks are meant')
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        raise ValueError(f"{quote(twice[0])} is named twice")
    return tuple(names)


def _host_names(value: Any) -> HostList:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise ValueError('it needs names of hosts (try ["ingest.example.com"])')
    return HostList(map(parse_host_name, texts))


def _path(value: str) -> str:
    if "\0" in value:
        raise ValueError(f"{quote(value)} is not a path: it holds a NUL")
    return value


def _mode(value: Any) -> int:
    """Read permissions in octal. A number would not do: 640 is 0o1200."""
    text = value if isinstance(value, str) else ""
    mode = int(text, 8) if re.fullmatch(r"(?:0o)?[0-7]{3,4}", text, re.ASCII) else -1
    if not 0 <= mode <= HIGHEST_MODE:
        raise ValueError(f'{quote(value)} is not the mode of a file (try "0640", in quotes)')
    if mode & OWN_MODE != OWN_MODE:
        raise ValueError(f"{quote(value)}: its owner must be able to read and to write the file (0600), we do both")
    return mode


Size = Annotated[int, BeforeValidator(_size)]
OptionalSize = Annotated[int | None, BeforeValidator(_or_off(_size))]
BufferSize = Annotated[int, BeforeValidator(_buffer_size)]
Duration = Annotated[float, BeforeValidator(_duration)]
OptionalDuration = Annotated[float | None, BeforeValidator(_or_off(_duration))]
Mode = Annotated[int, BeforeValidator(_mode)]
UserId = Annotated[int, BeforeValidator(user_id)]
GroupId = Annotated[int, BeforeValidator(group_id)]
Count = Annotated[int, BeforeValidator(_count)]
PrefixIPv6 = Annotated[int, BeforeValidator(_prefix_ipv6)]
OptionalCount = Annotated[int | None, BeforeValidator(_or_off(_count))]
OptionalRate = Annotated[Rate | None, BeforeValidator(_or_off(parse_rate))]
Networks = Annotated[AllowList, BeforeValidator(_networks)]
Proxies = Annotated[AllowList, BeforeValidator(_proxies)]
SinkNames = Annotated[tuple[str, ...], BeforeValidator(_sink_names)]
HostNames = Annotated[HostList, BeforeValidator(_host_names)]
FilePath = Annotated[str, StringConstraints(min_length=1), AfterValidator(_path)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Table(BaseModel):
    """A table of the configuration: what is not known is refused, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
