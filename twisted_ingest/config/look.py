"""
What the machine says to a configuration, as far as that can be asked without changing anything: for ``--check``.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint, UNIXServerEndpoint

from twisted_ingest.config.fields import OFF
from twisted_ingest.config.load import Loaded
from twisted_ingest.config.positions import Path
from twisted_ingest.errors import Problem
from twisted_ingest.server.endpoints import server_endpoint

NOT_LOOKED_AT = (
    "not looked at: whether ports are free, how much room disks have and whether they sync, "
    "and what another user would be allowed to"
)


def look(loaded: Loaded) -> list[Problem]:
    """Give what would keep this user from starting here and now."""
    found = [*_paths(loaded), *_endpoints(loaded)]
    return [Problem(loaded.origin(*path), loaded.secrets.hide(message)) for path, message in found]


def _paths(loaded: Loaded) -> Iterator[tuple[Path, str]]:
    for path, text in loaded.settings.paths().items():
        place = os.path.abspath(text)
        problem = _directory_problem(place) if path == ("spool", "directory") else _file_problem(place)
        if problem is not None:
            yield path, problem


def _file_problem(path: str) -> str | None:
    """Say why a file cannot be appended to, or made."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return _directory_problem(os.path.dirname(os.path.realpath(path)))
    except OSError as failure:
        return f"{path}: {failure.strerror}"
    if stat.S_ISDIR(status.st_mode):
        return f"{path} is a directory"
    wanted = os.W_OK if stat.S_ISFIFO(status.st_mode) else os.R_OK | os.W_OK
    return None if os.access(path, wanted) else f"{path}: {_whoami()} may not read and write it"


def _directory_problem(path: str) -> str | None:
    """Say why nothing can be made in a directory that is there, or that would have to be made."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    if not os.path.isdir(path):
        return f"{path} is no directory"
    return None if os.access(path, os.W_OK | os.X_OK) else f"{path}: {_whoami()} may not make anything in it"


def _whoami() -> str:
    return f"user {os.geteuid()}"


def _endpoints(loaded: Loaded) -> Iterator[tuple[Path, str]]:
    settings = loaded.settings
    places: dict[Path, str] = {
        ("listeners", name, "endpoint"): listener.endpoint for name, listener in settings.listeners.items()
    }
    if settings.admin.endpoint != OFF:
        places["admin", "endpoint"] = settings.admin.endpoint
    for path, endpoint in places.items():
        problem = _endpoint_problem(server_endpoint(object(), endpoint))
        if problem is not None:
            yield path, f"{endpoint}: {problem}"


def _endpoint_problem(parsed: Any) -> str | None:
    match parsed:
        case TCP4ServerEndpoint() | TCP6ServerEndpoint():
            return _interface_problem(parsed._interface)  # noqa: SLF001
        case UNIXServerEndpoint():
            return _socket_problem(os.path.abspath(parsed._address))  # noqa: SLF001
        case _:
            return None


def _interface_problem(interface: str) -> str | None:
    """Say whether this machine lacks an address."""
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # Port 0 takes nothing away from anybody, and nobody listens on it.
            probe.bind((interface, 0))
    except OSError as failure:
        if isinstance(failure, socket.gaierror):
            return f"{interface!r} is no address: an interface is given by one that it has (see ip address)"
        if failure.errno == errno.EADDRNOTAVAIL:
            return f"this machine has no address {interface}"
        return None if failure.errno == errno.EAFNOSUPPORT and not interface else failure.strerror or str(failure)
    return None


def _socket_problem(path: str) -> str | None:
    if os.path.exists(path) and not stat.S_ISSOCK(os.stat(path).st_mode):
        return f"{path} is there, and no socket"
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        return f"there is no directory {folder}, and none is made for a socket"
    return _directory_problem(folder)
