"""
What is wrong with the address of a listener, which is an endpoint string of Twisted's.
"""

import re
from collections.abc import Sequence
from typing import Any

from twisted_ingest.config.meant import HIGHEST_PORT, endpoint_meant, nearest
from twisted_ingest.server.endpoints import server_endpoint

ENDPOINT_EXAMPLES = {
    "tcp": "tcp:1514:interface=127.0.0.1",
    "tcp6": r"tcp6:1514:interface=\:\:1",
    "unix": "unix:/run/ingest.sock",
    "systemd": "systemd:domain=INET:index=0",
}
TLS_SCHEMES = ("ssl", "tls")
"""Twisted's own endpoints of TLS: without handshake deadlines, authorisation or renewal."""

ENDPOINT_SCHEMES = tuple(ENDPOINT_EXAMPLES)

ENDPOINT_OPTIONS = {
    "tcp": ("interface", "backlog"),
    "tcp6": ("interface", "backlog"),
    "unix": ("mode", "backlog", "lockfile"),
    "systemd": ("domain", "index", "name"),
}

# What Twisted's endpoint parsers raise when they are called with what they do not take.
_PARSER_ERRORS = (
    (re.compile(r"missing \d+ required positional argument: '(\w+)'"), "it needs the {0}"),
    (re.compile(r"invalid literal for int\(\) with base (?:8|10): ('.*')"), "{0} is not a number"),
    (re.compile(r"multiple values for argument '(\w+)'"), "the {0} is given twice"),
    (re.compile(r"positional arguments? but"), "it has too many parts"),
)
_UNKNOWN_OPTION = re.compile(r"unexpected keyword argument '(.*?)'(?:$|\. Did you mean)")


def endpoint_problem(endpoint: str, also: Sequence[str] = ()) -> str | None:
    """Say what is wrong with an endpoint string, or nothing. ``also`` are words to offer besides the schemes."""
    scheme, meant = endpoint.partition(":")[0], endpoint_meant(endpoint)
    if scheme in TLS_SCHEMES and not also:
        return (
            f"{endpoint!r}: TLS is no type of endpoint here: give --listen-tls (or --relp-tls) tcp:6514 with "
            "--tls-certificate FILE and --tls-key FILE, or in a table tls = {certificate = ..., key = ...}"
        )
    if meant is not None:
        return f"{endpoint!r} is not an endpoint; did you mean {meant!r}?"
    if scheme not in ENDPOINT_SCHEMES:
        hint = nearest(scheme, [*ENDPOINT_SCHEMES, *also])
        return f"{endpoint!r}: unknown endpoint type {scheme!r}{hint} (try {ENDPOINT_EXAMPLES['tcp']!r})"
    try:
        parsed = server_endpoint(object(), endpoint)
    except (IndexError, KeyError):
        return f"{endpoint!r}: the service manager passed no such socket"
    except Exception as error:  # noqa: BLE001 - Twisted's parsers raise whatever int() and friends do
        return f"{endpoint!r} is not an endpoint: {_reason(scheme, error)} (try '{ENDPOINT_EXAMPLES[scheme]}')"
    return _address_problem(endpoint, parsed)


def _reason(scheme: str, error: Exception) -> str:
    text = str(error)
    unknown = _UNKNOWN_OPTION.search(text)
    if unknown:
        return f"unknown option {unknown[1]!r}{nearest(unknown[1], ENDPOINT_OPTIONS[scheme])}"
    for pattern, message in _PARSER_ERRORS:
        match = pattern.search(text)
        if match:
            return message.format(*match.groups())
    return "it ends in a backslash" if isinstance(error, RuntimeError) else text


def _address_problem(endpoint: str, parsed: Any) -> str | None:
    port = getattr(parsed, "_port", 0)
    if isinstance(port, int) and not 0 <= port <= HIGHEST_PORT:
        return f"{endpoint!r}: port {port} is not between 0 and {HIGHEST_PORT}"
    if not getattr(parsed, "_address", "any"):
        return f"{endpoint!r} is not an endpoint: it needs the address (try {ENDPOINT_EXAMPLES['unix']!r})"
    return None
