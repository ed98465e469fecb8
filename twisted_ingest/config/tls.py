"""
TLS as the configuration has it: what its flags mean, and what is wrong with the files that it names.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from twisted_ingest.config.draft import Draft
from twisted_ingest.config.model import Settings
from twisted_ingest.config.positions import Path
from twisted_ingest.server.certificates import CertificateError, key_caution, load_credentials
from twisted_ingest.sources.registry import source_types
from twisted_ingest.sources.tls import TLSTable

TLS_FLAGS = {"tls-certificate": "certificate", "tls-key": "key", "tls-client-ca": "client_ca"}
"""Flags of one value, and the keys that they set in the tables of TLS."""

PEER_FLAG = "tls-peer"

KEY_OF_FLAG = {flag: (TLSTable, key) for flag, key in (*TLS_FLAGS.items(), (PEER_FLAG, "peers"))}
"""What each flag sets: a key in a table."""


def overlay_tls(draft: Draft, flags: Mapping[str, str], peers: Sequence[str]) -> None:
    """Put the values of flags into every table of TLS, whose they are; refuse what would be half of it."""
    given: dict[str, tuple[str, Any]] = {
        f"--{flag}": (TLS_FLAGS[flag], value) for flag, value in flags.items() if flag in TLS_FLAGS
    }
    if peers:
        given[f"--{PEER_FLAG}"] = ("peers", list(peers))
    speaking = [name for name, table in draft.tables("listeners") if isinstance(table.get("tls"), dict)]
    for flag, (key, value) in given.items():
        if not speaking:
            draft.complain(
                flag, "no listener speaks TLS: give --listen-tls ENDPOINT or --relp-tls ENDPOINT, or leave it out"
            )
        for name in speaking:
            draft.put(("listeners", name, "tls", key), value, flag)
    for name in speaking:
        _refuse_half(draft, name)


def _refuse_half(draft: Draft, name: str) -> None:
    """Complain of a listener that a flag makes and that lacks certificate or key, and take it out."""
    origin = draft.origins.get(("listeners", name, "tls"), "")
    missing = [key for key in ("certificate", "key") if key not in draft.raw["listeners"][name]["tls"]]
    if origin.startswith("--") and missing:
        wanted = " and ".join(f"--{flag} FILE" for flag, key in TLS_FLAGS.items() if key in missing)
        draft.complain(origin, f"it needs {wanted}")
        del draft.raw["listeners"][name]


def tls_problems(settings: Settings, *, now: float | None = None) -> Iterator[tuple[tuple[Path, ...], str]]:
    """Give what is wrong with the TLS of listeners; reads their files. ``now`` in Unix seconds."""
    for name, table in settings.listeners.items():
        if table.tls is None:
            continue
        path = ("listeners", name, "tls")
        if source_types()[table.word].tls_flag is None:
            yield (path,), f"tls: a listener of protocol {table.word!r} does not speak it: leave it out"
            continue
        if table.tls.peers is not None and table.tls.client_ca is None:
            yield (
                ((*path, "peers"), path),
                "peers: clients show a certificate only where client_ca asks for one: set it (--tls-client-ca FILE), "
                "or leave out peers (--tls-peer), and everybody may send",
            )
        try:
            load_credentials(table.tls.files, time.time() if now is None else now)
        except CertificateError as error:
            yield ((*path, error.key), path), f"{error.key}: {error}"


def tls_cautions(settings: Settings) -> Iterator[tuple[Path, str]]:
    """Give what of it may not be meant; of a key that several listeners have once."""
    keys = {table.tls.key: name for name, table in settings.listeners.items() if table.tls is not None}
    for key, name in keys.items():
        caution = key_caution(key)
        if caution is not None:
            yield ("listeners", name, "tls", "key"), caution
