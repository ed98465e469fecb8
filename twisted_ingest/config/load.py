"""
From flags and a TOML file to `Settings`, or to every mistake at once.

Parse first, then overlay, then validate: a value keeps its origin (flag, file and line, default) all the
way, for the error message and for ``/status``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from twisted_ingest.config import checks
from twisted_ingest.config.complaints import complaint, path_of
from twisted_ingest.config.draft import Draft
from twisted_ingest.config.file import read_file
from twisted_ingest.config.foreign import refuse_foreign
from twisted_ingest.config.given import overlay, overlay_sinks, overlay_sources, put_in_listeners
from twisted_ingest.config.meant import path_caution
from twisted_ingest.config.model import Settings, settings_model
from twisted_ingest.config.positions import Path
from twisted_ingest.config.substitution import Secrets, substitute
from twisted_ingest.config.tls import overlay_tls, tls_cautions, tls_problems
from twisted_ingest.errors import Caution, ConfigurationError, Problem


@dataclass(frozen=True, slots=True)
class Loaded:
    """Valid settings, and where each one that was set comes from."""

    settings: Settings
    origins: Mapping[Path, str]
    cautions: tuple[Caution, ...] = ()
    secrets: Secrets = field(default_factory=Secrets)
    """What was put in for ``${env:NAME}`` and the like, and is not to be shown."""

    def origin(self, *path: str) -> str:
        """Say where a setting comes from: a flag, ``FILE:LINE``, or ``default``."""
        return self.origins.get(path, "default")


def load(
    file: str | None,
    flags: Mapping[str, str],
    listen: Sequence[str],
    sinks: Sequence[str],
    allow: Sequence[str] = (),
    *,
    relp: Sequence[str] = (),
    sources: Mapping[str, Sequence[str]] = MappingProxyType({}),
    admin_hosts: Sequence[str] = (),
    tls_peers: Sequence[str] = (),
    proxies: Sequence[str] = (),
    has_own_sinks: bool = False,
) -> Loaded:
    """
    Build the settings from a file and flags; a flag overrides the file.

    ``flags`` holds single-valued flags without their dashes, ``allow`` the networks that every listener admits;
    ``listen`` and ``relp`` are endpoints for lines and for RELP, ``sources`` the addresses of any kind of source by its
    flag, ``admin_hosts`` names of the admin endpoint, ``proxies`` networks of proxies that alone may connect. With
    ``has_own_sinks`` an application adds sinks of its own: then there need be no other, and none is made by default.
    Raises `ConfigurationError` with every mistake found.
    """
    draft = Draft()
    if file is not None:
        read_file(draft, file)
    given = {"listen": listen, "relp": relp}
    given |= {flag: [*given.get(flag, ()), *each] for flag, each in sources.items()}
    in_listeners = {"allow": list(allow), "proxy_protocol_from": list(proxies)}
    overlay_sources(draft, given, closed_by=[key for key, values in in_listeners.items() if values])
    overlay_sinks(draft, sinks, has_own_sinks=has_own_sinks)
    overlay(draft, flags)
    overlay_tls(draft, flags, tls_peers)
    for key, values in in_listeners.items():
        if values:
            put_in_listeners(draft, key, values)
    if admin_hosts:
        draft.put(("admin", "hosts"), list(admin_hosts), "--admin-host")
    secrets = Secrets()
    refused = substitute(draft, secrets)
    draft.hide = secrets.hide
    refused += refuse_foreign(draft)
    settings, mistaken = _validate(draft, secrets, refused)
    for paths, message in (*checks.problems(settings, has_own_sinks=has_own_sinks), *tls_problems(settings)):
        # Nobody knows what a mistaken value was to be: nothing further is said of it.
        if not any(_overlap(path, wrong) for path in paths for wrong in mistaken):
            set_here = [path for path in paths if path in draft.origins] or list(paths)
            draft.complain(draft.where(set_here[0]), _discreet(secrets, paths, message))
    if draft.problems:
        raise ConfigurationError(sorted(draft.problems, key=_reading_order))
    _caution(draft, settings, secrets)
    return Loaded(settings, draft.origins, tuple(draft.cautions), secrets)


def _caution(draft: Draft, settings: Settings, secrets: Secrets) -> None:
    """Warn of what is allowed and seldom meant."""
    for path, text in settings.paths().items():
        caution = path_caution(text)
        if caution is not None and path not in secrets.references:
            draft.warn(draft.where(path), caution)
    for path, caution in tls_cautions(settings):
        draft.warn(draft.where(path), caution)
    for name, listener in settings.listeners.items():
        if listener.proxy_protocol_from is not None and listener.proxy_protocol_from.is_everybody:
            draft.warn(
                draft.where(("listeners", name, "proxy_protocol_from")),
                f"everybody may connect to listener {name!r}, as whomever it likes: name the proxies alone",
            )
    for name in checks.unnamed_sinks(settings):
        draft.warn(draft.where(("sinks", name)), f"no source names the sink {name!r} in its sinks: nothing goes there")


def _discreet(secrets: Secrets, paths: tuple[Path, ...], message: str) -> str:
    """Give a message about settings; about a secret one that tells nothing of it, also not what it was cut to."""
    path = next((path for path in paths if path in secrets.references), None)
    if path is None:
        return message
    if path in secrets.empty:
        return f"{path[-1]}: {secrets.empty[path]} stands for nothing: it is there, and empty"
    written = secrets.references[path]
    return f"{path[-1]}: what {written} stands for does not do here (it is secret: write it out to hear why)"


def _overlap(one: Path, other: Path) -> bool:
    """Tell whether one path is the other, or a table around it."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _reading_order(problem: Problem) -> int:
    """Put flags first, as they were found, then the file from top to bottom."""
    line = problem.where.rpartition(":")[2]
    return int(line) if not problem.where.startswith("--") and line.isdecimal() else 0


def _validate(draft: Draft, secrets: Secrets, refused: list[Path]) -> tuple[Settings, list[Path]]:
    """
    Complain of every mistake that a value has by itself.

    The answer is the settings without the mistaken values, so that the rest can be checked further, and their paths.
    """
    mistaken = list(refused)
    while True:
        try:
            return settings_model().model_validate(draft.raw), mistaken
        except ValidationError as error:
            found = [(path_of(detail), detail) for detail in error.errors()]
        for path, detail in found:
            # What is wrong only because a mistaken value was taken out is no mistake of the operator's.
            if not any(_overlap(path, wrong) for wrong in mistaken):
                draft.complain(draft.where(path), _discreet(secrets, (path,), complaint(path, detail)))
        # A table that lacks a value it needs is taken out as a whole: it would be incomplete in every round.
        wrong = [path[:-1] if detail["type"] == "missing" else path for path, detail in found]
        for path in wrong:
            _remove(draft.raw, path)
        mistaken += wrong


def _remove(raw: dict[str, Any], path: Path) -> None:
    table: Any = raw
    for part in path[:-1]:
        table = table.get(part, {})
    table.pop(path[-1], None)
    for name in ("listeners", "sinks"):
        raw.setdefault(name, {})
