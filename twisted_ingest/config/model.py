"""
The one model of all settings. Flags and TOML both fill it; defaults come from `twisted_ingest.limits`.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from twisted_ingest import limits
from twisted_ingest.admin.hosts import HostList, parse_host_name
from twisted_ingest.config.owners import group_id, user_id
from twisted_ingest.errors import Durability, Format, Framing, Fsync, Oversize, SpoolPolicy, WireProtocol
from twisted_ingest.limits import ListenerLimits
from twisted_ingest.networks import AllowList, parse_network
from twisted_ingest.units import Rate, exact_size, format_duration, parse_duration, parse_rate, parse_size, quote

OFF = "off"

DEFAULT_ENDPOINT = "tcp:1514:interface=127.0.0.1"
DEFAULT_ADMIN = "tcp:9108:interface=127.0.0.1"
DEFAULT_PATH = "ingest-data/ingest.log"
DEFAULT_SPOOL = "ingest-data/spool"


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


def _duration_or_off(value: Any) -> float | None:
    if value == OFF:
        return None
    try:
        return _duration(value)
    except ValueError as error:
        raise ValueError(str(error).replace("(try ", f'(try "{OFF}", ')) from error


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


def _count_or_off(value: Any) -> int | None:
    if value == OFF:
        return None
    try:
        return _count(value)
    except ValueError as error:
        raise ValueError(f'{error} (try "{OFF}")') from error


def _size_or_off(value: Any) -> int | None:
    if value == OFF:
        return None
    try:
        return _size(value)
    except ValueError as error:
        raise ValueError(str(error).replace("(try ", f'(try "{OFF}", ')) from error


def _rate_or_off(value: Any) -> Rate | None:
    if value == OFF:
        return None
    try:
        return parse_rate(value)
    except ValueError as error:
        raise ValueError(str(error).replace("(try ", f'(try "{OFF}", ')) from error


def _networks(value: Any) -> AllowList:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise ValueError('it needs one network or more (try "192.0.2.0/24"); without it everybody may connect')
    return AllowList(map(parse_network, texts))


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
OptionalSize = Annotated[int | None, BeforeValidator(_size_or_off)]
BufferSize = Annotated[int, BeforeValidator(_buffer_size)]
Duration = Annotated[float, BeforeValidator(_duration)]
OptionalDuration = Annotated[float | None, BeforeValidator(_duration_or_off)]
Mode = Annotated[int, BeforeValidator(_mode)]
UserId = Annotated[int, BeforeValidator(user_id)]
GroupId = Annotated[int, BeforeValidator(group_id)]
Count = Annotated[int, BeforeValidator(_count)]
PrefixIPv6 = Annotated[int, BeforeValidator(_prefix_ipv6)]
OptionalCount = Annotated[int | None, BeforeValidator(_count_or_off)]
OptionalRate = Annotated[Rate | None, BeforeValidator(_rate_or_off)]
Networks = Annotated[AllowList, BeforeValidator(_networks)]
HostNames = Annotated[HostList, BeforeValidator(_host_names)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class LimitSettings(_Table):
    """``[limits]``: bounds of the process, and of every listener that does not set its own."""

    max_length: Size = limits.MAX_LENGTH
    oversize: Oversize = Oversize.TRUNCATE
    idle_timeout: OptionalDuration = limits.IDLE_TIMEOUT
    frame_timeout: OptionalDuration = limits.FRAME_TIMEOUT
    max_connections: Count | None = None
    max_connections_per_peer: OptionalCount = None
    connection_rate_per_peer: OptionalRate = None
    peer_prefix_ipv6: PrefixIPv6 = limits.PEER_PREFIX_IPV6
    rate: OptionalRate = None
    rate_per_peer: OptionalRate = None
    memory: Size = limits.MEMORY
    connection_memory: Size = limits.CONNECTION_MEMORY
    drain_timeout: Duration = limits.DRAIN_TIMEOUT


class ListenerSettings(_Table):
    """``[listeners.NAME]``. What is not set here comes from ``[limits]``."""

    endpoint: str
    protocol: WireProtocol = WireProtocol.LINES
    durability: Durability | None = None
    framing: Framing = Framing.AUTO
    max_length: Size | None = None
    oversize: Oversize | None = None
    idle_timeout: OptionalDuration = None
    frame_timeout: OptionalDuration = None
    rate: OptionalRate = None
    rate_per_peer: OptionalRate = None
    allow: Networks | None = None
    receive_buffer: BufferSize | None = None


class FileSettings(_Table):
    """``[sinks.NAME]`` with ``type = "file"``."""

    type: Literal["file"]
    path: Annotated[str, StringConstraints(min_length=1), AfterValidator(_path)]
    fsync: Fsync = Fsync.NEVER
    format: Format = Format.RAW
    mode: Mode = limits.FILE_MODE
    owner: UserId | None = None
    group: GroupId | None = None
    required: bool = True
    spool: bool = False


class StdoutSettings(_Table):
    """``[sinks.NAME]`` with ``type = "stdout"``."""

    type: Literal["stdout"]
    format: Format = Format.RAW
    required: bool = True
    spool: bool = False


class NullSettings(_Table):
    """``[sinks.NAME]`` with ``type = "null"``."""

    type: Literal["null"]
    required: bool = True
    spool: bool = False


SINK_TABLES: dict[str, type[BaseModel]] = {"file": FileSettings, "stdout": StdoutSettings, "null": NullSettings}

SinkSettings = Annotated[FileSettings | StdoutSettings | NullSettings, Field(discriminator="type")]


class SpoolSettings(_Table):
    """``[spool]``: of every sink that has ``spool = true``, in a directory of its own below this one."""

    directory: Annotated[str, StringConstraints(min_length=1), AfterValidator(_path)] = DEFAULT_SPOOL
    max_bytes: Size = limits.SPOOL_BYTES
    free_space_floor: OptionalSize = limits.FREE_SPACE_FLOOR
    policy: SpoolPolicy = SpoolPolicy.BLOCK


class AdminSettings(_Table):
    """``[admin]``. The endpoint ``off`` means no admin server."""

    endpoint: str = DEFAULT_ADMIN
    hosts: HostNames = HostList()


PROTOCOL_DEFAULTS: dict[WireProtocol, dict[str, Any]] = {
    WireProtocol.LINES: {},
    # Silence is normal for a client that keeps a session; closing it would cost what it sends next.
    WireProtocol.RELP: {"max_length": limits.RELP_MAX_LENGTH, "idle_timeout": None},
}
"""What ``[limits]`` is for a protocol where neither it nor the listener says so."""


class Settings(_Table):
    """Everything an operator can set."""

    listeners: dict[Name, ListenerSettings]
    sinks: dict[Name, SinkSettings]
    limits: LimitSettings = LimitSettings()
    spool: SpoolSettings = SpoolSettings()
    admin: AdminSettings = AdminSettings()
    log_format: Literal["text", "json"] = "text"

    def paths(self) -> dict[tuple[str, ...], str]:
        """Give every path that is written to, with the key it stands at."""
        found: dict[tuple[str, ...], str] = {}
        for name, sink in self.sinks.items():
            if isinstance(sink, FileSettings):
                found["sinks", name, "path"] = sink.path
        if any(sink.spool for sink in self.sinks.values()):
            found["spool", "directory"] = self.spool.directory
        return found

    def durability(self, name: str) -> Durability:
        """Give what a listener asks for; a protocol that answers promises the disk unless told otherwise."""
        listener = self.listeners[name]
        is_answered = listener.protocol is WireProtocol.RELP
        return listener.durability or (Durability.FSYNC if is_answered else Durability.WRITTEN)

    def promises(self) -> dict[str, Durability]:
        """Give what is promised of the records of each listener of which something is: it answers, or was asked to."""
        return {
            name: self.durability(name)
            for name, listener in self.listeners.items()
            if listener.protocol is WireProtocol.RELP or listener.durability is not None
        }

    def listener_limits(self, name: str) -> ListenerLimits:
        """Join a listener's own settings with the common ones."""
        own, common = self.listeners[name], self.limits
        defaults = PROTOCOL_DEFAULTS[own.protocol]

        def pick(field: str) -> Any:
            if field in own.model_fields_set:
                return getattr(own, field)
            is_set = field in common.model_fields_set or field not in defaults
            return getattr(common, field) if is_set else defaults[field]

        idle_is_explicit = "idle_timeout" in own.model_fields_set | common.model_fields_set
        return ListenerLimits(
            protocol=own.protocol,
            durability=self.durability(name),
            framing=own.framing,
            max_record_bytes=pick("max_length"),
            oversize=pick("oversize"),
            idle_timeout_seconds=pick("idle_timeout"),
            idle_until_first_record=not idle_is_explicit,
            frame_timeout_seconds=pick("frame_timeout"),
            allow=own.allow,
            rate=pick("rate"),
            rate_per_peer=pick("rate_per_peer"),
            receive_buffer_bytes=own.receive_buffer,
        )
