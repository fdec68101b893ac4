"""Durations as Go writes and reads them ("768h0m0s", "1.5s", "300ms"), which is how Vault's API spells them.

Pure. A bare number is a count of seconds, as text or as a number; "d" (24 hours) is Vault's addition to Go's units.
Source: the documentation of Go's `time.ParseDuration` and `Duration.String`; Vault's page "Duration format strings".
"""

import re
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

NANOSECONDS: Final = 1_000_000_000
"""Nanoseconds of a second."""
DURATION_NS_MAX: Final = 2**63 - 1
"""The longest duration that Go can hold, about 292 years."""

SECONDS_KIND: Final = "seconds"
Seconds: TypeAlias = Annotated[int, Meta(extra={"kind": SECONDS_KIND})]
"""A field that takes "1h", "3600" or 3600 and holds whole seconds, 0 or more."""
SIGNED_SECONDS_KIND: Final = "signed seconds"
SignedSeconds: TypeAlias = Annotated[int, Meta(extra={"kind": SIGNED_SECONDS_KIND})]
"""The same where less than 0 has a meaning."""

_UNITS_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, the micro sign
    "μs": 1_000,
    "ms": 1_000_000,
    "s": NANOSECONDS,
    "m": 60 * NANOSECONDS,
    "h": 3600 * NANOSECONDS,
    "d": 86_400 * NANOSECONDS,
}
_PART = re.compile(r"(\d*)(?:\.(\d*))?([^\d.]*)", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d{1,18}", re.ASCII)


def parse_duration_ns(text: str) -> int:
    """Return the nanoseconds of "1h30m", "-1.5s", "90" (seconds) or "" (none).

    Raises:
        ValueError: in Go's words, what is wrong.
    """
    text = text.strip()
    if not text:
        return 0
    if _NUMBER.fullmatch(text):
        total = int(text) * NANOSECONDS
    else:
        unsigned = text.removeprefix("-").removeprefix("+") if text[0] in "+-" else text
        total = _sum_parts(unsigned, text) * (-1 if text[0] == "-" else 1)
    if abs(total) > DURATION_NS_MAX:
        raise ValueError(f'time: invalid duration "{text}"')
    return total


def _sum_parts(unsigned: str, text: str) -> int:
    total = position = 0
    if not unsigned:
        raise ValueError(f'time: invalid duration "{text}"')
    while position < len(unsigned):
        part = _PART.match(unsigned, position)
        assert part is not None, "every piece of the pattern may be empty"
        whole, fraction, unit = part.groups()
        if not whole and not fraction:
            raise ValueError(f'time: invalid duration "{text}"')
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS_NS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        if len(whole) > 18:
            raise ValueError(f'time: invalid duration "{text}"')
        total += int(whole or 0) * _UNITS_NS[unit]
        if fraction:
            digits = fraction[:18]
            total += int(digits) * _UNITS_NS[unit] // 10 ** len(digits)
        position = part.end()
    return total


def parse_seconds(value: str | float) -> int:
    """Return whole seconds of a duration given as text or as a number of seconds; parts of a second are dropped.

    Raises:
        ValueError: in Go's words, what is wrong.
    """
    if isinstance(value, str):
        nanoseconds = parse_duration_ns(value)
        return abs(nanoseconds) // NANOSECONDS * (1 if nanoseconds >= 0 else -1)
    if not abs(value) <= DURATION_NS_MAX // NANOSECONDS:  # also what is no number at all
        raise ValueError(f'time: invalid duration "{value}"')
    return int(value)


def format_duration(seconds: float) -> str:
    """Return a duration as Go's `Duration.String` does: "768h0m0s", "1.5s", "300ms", "0s"."""
    nanoseconds = round(seconds * NANOSECONDS) if isinstance(seconds, float) else seconds * NANOSECONDS
    sign = "-" if nanoseconds < 0 else ""
    nanoseconds = abs(nanoseconds)
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < NANOSECONDS:
        unit = next(unit for unit in ("ms", "µs", "ns") if nanoseconds >= _UNITS_NS[unit])
        return f"{sign}{_decimal(nanoseconds, _UNITS_NS[unit])}{unit}"
    minutes, rest = divmod(nanoseconds, 60 * NANOSECONDS)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, NANOSECONDS)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else sign + text


def format_short(seconds: float) -> str:
    """Return a duration without the parts that are zero at its end: "768h", "1m30s"."""
    text = format_duration(seconds)
    if text.endswith("m0s"):
        text = text[:-2]
    return text[:-2] if text.endswith("h0m") else text


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = len(str(unit)) - 1
    fraction = f"{rest:0{digits}d}".rstrip("0") if rest else ""
    return f"{whole}.{fraction}" if fraction else str(whole)
