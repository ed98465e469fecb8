"""
The kind of source that polls: its table, and what is made of it.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from twisted_ingest.config.fields import About, Duration, FilePath, Size
from twisted_ingest.errors import Oversize, Redirects, SourceError
from twisted_ingest.limits import ListenerLimits
from twisted_ingest.sources.plan import LEAST_INTERVAL, POLL_BYTES, POLL_INTERVAL, POLL_TIMEOUT, PollPlan
from twisted_ingest.sources.poller import HttpPoller
from twisted_ingest.sources.registry import COMMON, SourceContext, SourceTable, SourceType
from twisted_ingest.sources.url import Url
from twisted_ingest.units import format_duration

HEADER_LENGTH = 4096
"""Bytes of one header that is sent: common servers refuse what is above 8 KiB in all."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110, 5.6.2

_USERNAME = re.compile(r"[!-9;-~]{1,256}")  # RFC 7617, 2

_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")

_OURS = frozenset(
    {
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "expect",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "proxy-authorization",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that say what we must know of ourselves."""


def _url(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError('it is not text in quotes (try "https://host/path")')  # noqa: TRY004 - pydantic's way
    try:
        Url.parse(value)
    except ValueError as error:
        # Its own words are not repeated: they may hold a password.
        raise ValueError(f'{error} (try "https://host/path")') from error
    return value


def _interval(seconds: float) -> float:
    if seconds < LEAST_INTERVAL:
        raise ValueError(f"it is too short: at least {format_duration(LEAST_INTERVAL)}")
    return seconds


def _header_name(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError("it is not the name of a header")
    if name.lower() in _OURS:
        raise ValueError(f"it is not for you to set: {_instead(name.lower())}")
    return name


def _header_value(value: Any) -> str:
    if not isinstance(value, str) or len(value) > HEADER_LENGTH or not _VALUE.fullmatch(value):
        raise ValueError(f"its value is not one line of printable ASCII, at most {HEADER_LENGTH} characters, in quotes")
    return value


def _username(name: str) -> str:
    if not _USERNAME.fullmatch(name):
        raise ValueError("it is not 1 to 256 characters of printable ASCII without a blank or a colon")
    return name


def _instead(name: str) -> str:
    if name == "authorization":
        return "use authorization_file, or username and password_file"
    return "the poller sets it"


class HttpPollTable(SourceTable):
    """``[sources.NAME]`` with ``type = "http-poll"``."""

    type: Literal["http-poll"]
    url: Annotated[str, BeforeValidator(_url), About("URL:", "what is asked for, http or https")]
    interval: Annotated[
        Duration, AfterValidator(_interval), About("DURATION", "between the beginnings of two polls")
    ] = POLL_INTERVAL
    timeout: Annotated[Duration, About("DURATION", "that a poll may take")] = POLL_TIMEOUT
    max_bytes: Annotated[Size, About("SIZE", "of a body")] = POLL_BYTES
    max_length: Annotated[Size | None, COMMON] = None
    oversize: Annotated[Oversize | None, COMMON] = None
    redirects: Annotated[Redirects, About("same-host|any|off:", "where redirects are followed to")] = (
        Redirects.SAME_HOST
    )
    headers: Annotated[
        dict[Annotated[str, AfterValidator(_header_name)], Annotated[str, BeforeValidator(_header_value)]],
        About("TABLE", "of headers that are sent", default="none"),
    ] = Field(default_factory=dict)
    username: Annotated[
        Annotated[str, AfterValidator(_username)] | None,
        About("NAME", "for basic authentication", default="none"),
    ] = None
    password_file: Annotated[FilePath | None, About("PATH", "of the file with its password", default="none")] = None
    authorization_file: Annotated[
        FilePath | None, About("PATH", "of the file with the whole value of Authorization", default="none")
    ] = None
    ca: Annotated[
        FilePath | None, About("PATH", "of the certificates that are trusted instead", default="the system's")
    ] = None


def _plan(table: HttpPollTable, limits: ListenerLimits) -> PollPlan:
    return PollPlan(
        url=Url.parse(table.url),
        interval_seconds=table.interval,
        timeout_seconds=table.timeout,
        max_body_bytes=table.max_bytes,
        max_record_bytes=limits.max_record_bytes,
        oversize=limits.oversize,
        redirects=table.redirects,
        headers={name.encode(): value.encode() for name, value in table.headers.items()},
        username=table.username,
        password_file=table.password_file,
        authorization_file=table.authorization_file,
        ca=table.ca,
    )


def _problems(table: HttpPollTable, limits: ListenerLimits) -> Iterator[tuple[str, str]]:
    if (table.username is None) is not (table.password_file is None):
        have, lack = ("username", "password_file") if table.username else ("password_file", "username")
        yield have, f"{have}: without {lack} it says nothing"
        return
    if table.username is not None and table.authorization_file is not None:
        yield "authorization_file", "authorization_file: username and password_file make the same header"
        return
    if table.ca is not None and not table.url.lower().startswith("https:"):
        yield "ca", "ca: without https there are no certificates"
    plan = _plan(table, limits)
    for key, read in ((_secret_key(table), plan.authorization), ("ca", plan.policy)):
        try:
            read()
        except SourceError as error:
            yield key, f"{key}: {error}"


def _secret_key(table: HttpPollTable) -> str:
    return "password_file" if table.authorization_file is None else "authorization_file"


def _make(name: str, table: HttpPollTable, context: SourceContext) -> HttpPoller:
    return HttpPoller(
        name,
        _plan(table, context.limits),
        intake=context.intake,
        events=context.events,
        clock=context.reactor,
        reactor=context.reactor,
        wall_time=context.wall_time,
        ids=context.ids,
        sinks=table.sinks,
    )


KINDS = (
    SourceType(
        table=HttpPollTable,
        make=_make,
        flag="poll",
        address="url",
        summary="that is asked every minute, its body taken as lines",
        page="docs/polling.md",
        problems=_problems,
    ),
)
