"""
``${env:NAME}``, ``${file:PATH}`` and ``${cred:NAME}`` in the strings of a configuration, and their secrecy.

They are replaced after parsing, in values alone, and once: what one stands for is never looked at again. ``$${`` stands
for ``${``.
What was put in is secret, whatever it is: wherever settings are shown it stands as it was written.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from typing import Any

from twisted_ingest.config.draft import Draft
from twisted_ingest.config.meant import nearest
from twisted_ingest.config.positions import Path
from twisted_ingest.escaping import escape
from twisted_ingest.limits import KIB

LARGEST_FILE = 64 * KIB
"""Bytes of what ``${file:PATH}`` stands for: a secret, a certificate; against a path that is wrong."""

LEAST_HIDDEN = 4
"""Characters below which a text is not looked for in messages: it would be found everywhere. The setting it was put
into is masked all the same."""

_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z]+):([^{}]*)(\}?)")


class Secrets:
    """What was put in for references: where, and how to show it."""

    def __init__(self) -> None:
        self.references: dict[Path, str] = {}
        """What was written at the paths of values that hold a secret."""
        self.empty: dict[Path, str] = {}
        """Which reference stands for an empty text, by the paths of values that hold one."""
        self._shown: dict[str, str] = {}

    def add(self, text: str, reference: str) -> None:
        """Hide a text, in each form that a message may have it in."""
        forms = (text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
        for form in (*forms, escape(text)):
            if len(form) >= LEAST_HIDDEN:
                self._shown.setdefault(form, reference)

    def hide(self, text: str) -> str:
        """Give a text with references where it holds what they stand for."""
        for secret in sorted(self._shown, key=len, reverse=True):
            text = text.replace(secret, self._shown[secret])
        return text

    def hide_in(self, value: Any) -> Any:
        """Do that to all texts in a document of plain values."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, dict):
            return {key: self.hide_in(item) for key, item in value.items()}
        return [self.hide_in(item) for item in value] if isinstance(value, list) else value


def substitute(draft: Draft, secrets: Secrets) -> list[Path]:
    """Put in what references stand for. Those that cannot be had are complained of and taken out; gives their paths."""
    wrong: list[Path] = []
    _walk(draft.raw, (), draft, secrets, wrong)
    return wrong


def _walk(table: dict[str, Any], above: Path, draft: Draft, secrets: Secrets, wrong: list[Path]) -> None:
    for key, value in list(table.items()):
        path = (*above, key)
        if isinstance(value, dict):
            _walk(value, path, draft, secrets, wrong)
            continue
        try:
            table[key] = _replaced(value, path, secrets)
        except ValueError as error:
            draft.complain(draft.where(path), f"{key}: {error}")
            wrong.append(path)
            del table[key]


def _replaced(value: Any, path: Path, secrets: Secrets) -> Any:
    if isinstance(value, list):
        return [_replaced(item, path, secrets) for item in value]
    if isinstance(value, dict):
        return {key: _replaced(item, path, secrets) for key, item in value.items()}
    if not isinstance(value, str) or "${" not in value:
        return value

    def put_in(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        text = _read(match[1], match[2], is_closed=bool(match[3]))
        secrets.references[path] = value
        if not text:
            secrets.empty[path] = match[0]
        secrets.add(text, match[0])
        return text

    return _REFERENCE.sub(put_in, value)


def _read(word: str, name: str, *, is_closed: bool) -> str:
    """Give what a reference stands for. Raises ``ValueError`` with what to do."""
    shown = f"${{{word}:{name}}}"
    if not is_closed:
        raise ValueError(f"{shown[:-1]} lacks its closing brace (for the characters themselves write $${{)")
    if word not in _READERS:
        raise ValueError(f"{shown}{nearest(word, list(_READERS))} (for the characters themselves write $${{)")
    if not name or "\0" in name:
        raise ValueError(f"{shown} names nothing")
    try:
        return _READERS[word](name)
    except (LookupError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{shown} {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "is not text in UTF-8"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}"
    return str(error.args[0])


def _environment(name: str) -> str:
    if name not in os.environ:
        raise LookupError("is not set in the environment (set it, or write the value here)")
    return os.environ[name]


def _credential(name: str) -> str:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder is None:
        raise LookupError("needs a service manager that passes credentials (LoadCredential=; CREDENTIALS_DIRECTORY)")
    if "/" in name or name in (".", ".."):
        raise LookupError("is not the name of a credential: it has no slash (try ${file:PATH})")
    return _file(os.path.join(folder, name))


def _file(path: str) -> str:
    # O_NONBLOCK: opening a FIFO would wait for its other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise LookupError("is no regular file")
        data = stream.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise LookupError(f"has more than {LARGEST_FILE // KIB} KiB")
    text = data.decode()
    return text[: -2 if text.endswith("\r\n") else -1] if text.endswith("\n") else text


_READERS: Mapping[str, Callable[[str], str]] = {"env": _environment, "file": _file, "cred": _credential}
