"""
What was meant by something that is nearly right: offered where it is refused.
"""

import difflib
import re
import tomllib
from collections.abc import Collection, Sequence
from ipaddress import ip_address

HIGHEST_PORT = 65535

_HOST_AND_PORT = re.compile(r"(?:tcp://)?(?:(?:\[([^\[\]]+)\]|([^:\[\]/]*)):)?([0-9]{1,5})/?", re.ASCII)


def nearest(word: str, known: Sequence[str]) -> str:
    """Offer the known word that is nearest, or all of them where there are few and none is near."""
    close = difflib.get_close_matches(word, known, 1, 0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f" (known: {', '.join(known)})" if len(known) <= 16 else ""  # noqa: PLR2004


def endpoint_meant(text: str) -> str | None:
    """Give the endpoint meant by a port, an address and a port, or a path: ``1514``, ``127.0.0.1:1514``, ``/run/x``."""
    if text.startswith("/"):
        return f"unix:{text}"
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None or int(match[3]) > HIGHEST_PORT:
        return None
    host, port = match[1] or match[2] or "", match[3]
    if host in ("", "*"):
        return f"tcp:{port}"
    try:
        version = ip_address("127.0.0.1" if host == "localhost" else host).version
    except ValueError:
        return None
    escaped = host.replace("localhost", "127.0.0.1").replace(":", r"\:")
    return f"tcp{'6' * (version == 6)}:{port}:interface={escaped}"  # noqa: PLR2004 - of IP


def sink_meant(spec: str, bare: Collection[str]) -> str | None:
    """
    Give the sink meant by its type alone or by a path: ``stdout``, ``null``, ``-``, ``/var/log/x``.

    ``bare`` are the types that need nothing else.
    """
    word, question, options = spec.partition("?")
    if word == "-" or word in bare:
        return f"{'stdout' if word == '-' else word}:{question}{options}"
    return f"file:{spec}" if "/" in word and ":" not in word.partition("/")[0] else None


def path_caution(path: str) -> str | None:
    """Say what in a path is taken as it stands, though it looks as if it stood for something else."""
    odd = re.search(r"^~[^/]*|%[A-Za-z%]|\$\{?\w+\}?", path)
    if odd is None:
        return None
    return f"{odd[0]!r} in {path!r} is taken as it stands: no home directory, date or variable is put in its place"


# A key, `=`, and what is not the beginning of anything TOML has.
_STATEMENT = re.compile(r"(?P<key>[^=#\n]*=\s*)(?P<value>[^#\n]*?)\s*(?:#.*)?$")


def quotes_meant(line: str) -> str | None:
    """Give what a line of TOML should read, where a value, also one in an array, lacks quotes (``memory = 512MiB``)."""
    match = _STATEMENT.match(line)
    if match is None or match["value"][:1] in ("{", "=", ""):
        return None
    value = match["value"]
    if value.startswith("[") and value.endswith("]"):
        meant = f"[{', '.join(_quoted(item.strip()) for item in value[1:-1].split(','))}]"
    else:
        meant = _quoted(value)
    return match["key"].strip() + " " + meant if meant != value and _is_toml(f"x = {meant}") else None


def _quoted(value: str) -> str:
    if value.lower() in ("true", "false"):
        return value.lower()
    return value if _is_toml(f"x = {value}") or set(value) & set("\"'\\") else f'"{value}"'


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
