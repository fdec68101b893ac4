"""Durations as Go spells them ("1h30m0s"), read and written; and the shorter spelling that tables show ("1h30m").

Pure. All lengths are whole nanoseconds. A bare number is a count of seconds, as everywhere in Vault.
Source: the documentation of Go's time.ParseDuration and Duration.String.
"""

from typing import Final

NANOSECONDS: Final = 1_000_000_000
"""Nanoseconds of a second."""

_UNITS_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": NANOSECONDS,
    "m": 60 * NANOSECONDS,
    "h": 3600 * NANOSECONDS,
    "d": 86_400 * NANOSECONDS,
}
_DIGITS: Final = frozenset("0123456789")


def parse_duration(text: str) -> int:
    """Return the nanoseconds of "90" (seconds), "1h30m", "-1.5s" or "2d".

    Raises:
        ValueError: `text` is no duration; the message is Go's.
    """
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest and _DIGITS.issuperset(rest):
        return sign * int(rest) * NANOSECONDS
    if not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    total = 0
    while rest:
        amount, rest = _split(rest, _DIGITS | {"."})
        unit, rest = _split_unit(rest)
        if amount.count(".") > 1 or not amount.strip("."):
            raise ValueError(f'time: invalid duration "{text}"')
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS_NS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        total += _scale(amount, _UNITS_NS[unit])
    return sign * total


def _split(text: str, wanted: frozenset[str]) -> tuple[str, str]:
    end = 0
    while end < len(text) and text[end] in wanted:
        end += 1
    return text[:end], text[end:]


def _split_unit(text: str) -> tuple[str, str]:
    end = 0
    while end < len(text) and text[end] not in _DIGITS and text[end] != ".":
        end += 1
    return text[:end], text[end:]


def _scale(amount: str, unit_ns: int) -> int:
    whole, _, fraction = amount.partition(".")
    return int(whole or "0") * unit_ns + (int(fraction) * unit_ns // 10 ** len(fraction) if fraction else 0)


def go_duration(nanoseconds: int) -> str:
    """Write a duration as Go does: "1h30m0s", "1.5s", "250ms", "0s"."""
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < 0:
        return "-" + go_duration(-nanoseconds)
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if nanoseconds < size * 1000 and nanoseconds < NANOSECONDS:
            return _decimal(nanoseconds, size) + unit
    minutes, rest = divmod(nanoseconds, 60 * NANOSECONDS)
    hours, minutes = divmod(minutes, 60)
    seconds = _decimal(rest, NANOSECONDS) + "s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _decimal(amount: int, unit: int) -> str:
    whole, rest = divmod(amount, unit)
    if not rest:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0")


def human_seconds(seconds: float) -> str:
    """Write whole seconds for a reader: "768h", "767h59m59s", "30m", "0s"."""
    text = go_duration(int(seconds) * NANOSECONDS)
    if text.endswith("m0s"):
        text = text.removesuffix("0s")
    return text.removesuffix("0m") if text.endswith("h0m") else text
