"""
Human units: sizes and durations as operators write them.

Pure text to number and back. Units are case-sensitive on purpose: ``64k``
could mean 64,000 or 65,536, so it is an error that offers both.
"""

import re
from dataclasses import dataclass
from datetime import date, datetime, time

_SIZE_UNITS = {
    "B": 1,
    "kB": 1000,
    "KiB": 1024,
    "MB": 1000**2,
    "MiB": 1024**2,
    "GB": 1000**3,
    "GiB": 1024**3,
    "TB": 1000**4,
    "TiB": 1024**4,
}
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_COUNT_UNITS = {"": 1, "k": 1000, "M": 1000**2}

# Digits are bounded before int() and float() see them: nobody means a million of them.
_SIZE = re.compile(r"([0-9]{1,18})\s*([A-Za-z]*)", re.ASCII)
_RATE = re.compile(r"([0-9]{1,18})\s*([A-Za-z]*)/(s|m|h)", re.ASCII)
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,6})?(?:ms|s|m|h|d))+", re.ASCII)
_DURATION_PART = re.compile(r"([0-9.]+)(ms|s|m|h|d)", re.ASCII)


SHOWN = 60
"""Characters of a wrong value that a message repeats at most."""


def quote(value: object) -> str:
    """Write a value that was given as an operator would, cut where it would flood the line."""
    try:
        text = _written(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python cares to write
        return "this value"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        items = ", ".join(f"{key} = {_written(item)}" for key, item in value.items())
        return f"{{{items}}}"
    return repr(value)


def parse_size(text: str | int) -> int:
    """
    Read a size such as ``"64KiB"`` or ``1048576``; the answer is in bytes.

    Raises ``ValueError`` whose message names a form that works.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise ValueError(f"{text} is not a size: it is negative")
        return text
    match = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f'{quote(text)} is not a size (try "64KiB", "10MB" or a number of bytes)')
    number, unit = int(match[1]), match[2] or "B"
    if unit not in _SIZE_UNITS:
        likely = {"k": ("KiB", "kB"), "m": ("MiB", "MB"), "g": ("GiB", "GB"), "t": ("TiB", "TB")}
        first, second = likely.get(unit[0].lower(), ("KiB", "MB"))
        raise ValueError(f'{text!r} is not a size: unknown unit {unit!r} (try "{number}{first}" or "{number}{second}")')
    return number * _SIZE_UNITS[unit]


def parse_duration(text: str | float) -> float:
    """
    Read a duration such as ``"5m"``, ``"1h30m"`` or ``"250ms"``; the answer is in seconds.

    A bare number is refused: seconds and milliseconds are too easily confused.
    Raises ``ValueError`` whose message names a form that works.
    """
    if not isinstance(text, str) or _DURATION.fullmatch(text.strip()) is None:
        raise ValueError(f'{quote(text)} is not a duration (try "5m", "300s" or "250ms")')
    return sum(float(number) * _DURATION_UNITS[unit] for number, unit in _DURATION_PART.findall(text))


@dataclass(frozen=True, slots=True)
class Rate:
    """So many records, or bytes, a second."""

    per_second: float
    is_of_bytes: bool

    def __str__(self) -> str:
        """Write it as `parse_rate` reads it, where it is whole."""
        number = f"{self.per_second:.6f}".rstrip("0").rstrip(".")
        if not self.is_of_bytes:
            return f"{number}/s"
        return f"{exact_size(int(self.per_second))}/s" if self.per_second.is_integer() else f"{number}B/s"


def parse_rate(text: str | float) -> Rate:
    """
    Read a rate such as ``"500/s"``, ``"10k/s"`` or ``"600/m"`` (records), or ``"1MiB/s"`` (bytes).

    Raises ``ValueError`` whose message names a form that works.
    """
    match = _RATE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or match[2] not in _COUNT_UNITS.keys() | _SIZE_UNITS.keys():
        raise ValueError(f'{quote(text)} is not a rate (try "500/s" or "10k/s" for records, "1MiB/s" for bytes)')
    number, unit, period = match.groups()
    amount = int(number) * (_COUNT_UNITS.get(unit) or _SIZE_UNITS[unit])
    if not amount:
        raise ValueError(f"{text!r} is too slow: nothing would ever be read")
    return Rate(amount / _DURATION_UNITS[period], unit not in _COUNT_UNITS)


def format_size(size: int) -> str:
    """Write a number of bytes in the largest binary unit that loses nothing, or one decimal."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        factor = _SIZE_UNITS[unit]
        if size >= factor:
            return f"{size // factor}{unit}" if size % factor == 0 else f"{size / factor:.1f}{unit}"
    return f"{size}B"


def exact_size(size: int) -> str:
    """Write a number of bytes in the largest unit that loses nothing; `parse_size` reads it back."""
    for unit, factor in sorted(_SIZE_UNITS.items(), key=lambda item: -item[1]):
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


def format_duration(seconds: float) -> str:
    """
    Write seconds in the largest unit that divides them, or as they are, to the microsecond.

    `parse_duration` reads it back.
    """
    for unit in ("d", "h", "m"):
        factor = _DURATION_UNITS[unit]
        if seconds >= factor and seconds % factor == 0:
            return f"{int(seconds // factor)}{unit}"
    # Not "g": it would turn 1234567 into 1.23457e+06.
    number, unit = (seconds, "s") if seconds >= 1 or seconds == 0 else (seconds * 1000, "ms")
    text = f"{number:.6f}" if unit == "s" else f"{number:.3f}"
    return text.rstrip("0").rstrip(".") + unit
