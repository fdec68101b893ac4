"""Tables and headings as plain text.

Pure. Columns are as wide as their widest cell and four blanks apart; an empty cell reads "n/a"; below the names of the
columns stands a rule for each.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from conclave.cli.document import cell
from conclave.cli.durations import human_seconds

GAP: Final = "    "
WRAP_COLUMNS: Final = 80
"""Where prose for a terminal is folded."""

_DURATION_NAMES: Final = ("period", "ttl", "duration")


def columns(rows: Sequence[Sequence[str]], *, gap: str = GAP) -> str:
    """Align cells in columns; no blanks at the ends of lines."""
    filled = [[text or "n/a" for text in row] for row in rows]
    widths = [max(len(row[i]) for row in filled if i < len(row)) for i in range(max(map(len, filled), default=0))]
    return "\n".join(
        gap.join(text.ljust(width) for text, width in zip(row, widths, strict=False)).rstrip() for row in filled
    )


def table(names: Sequence[str], rows: Sequence[Sequence[str]], *, gap: str = GAP) -> str:
    """Align rows below the names of their columns and a rule."""
    return columns([names, ["-" * len(name) for name in names], *rows], gap=gap)


def rows_of(data: Mapping[str, Any]) -> list[list[str]]:
    """Return a name and a cell for each entry, sorted; seconds that are a length of time become readable."""
    return [[name, _entry(name, data[name])] for name in sorted(data)]


def _entry(name: str, value: Any) -> str:
    is_length = name in _DURATION_NAMES or name.endswith(tuple("_" + suffix for suffix in _DURATION_NAMES))
    if is_length and isinstance(value, int | float) and not isinstance(value, bool):
        return human_seconds(value)
    return cell(value)


def key_value_table(rows: Sequence[Sequence[str]]) -> str:
    """Align rows of two cells under Key and Value."""
    return table(["Key", "Value"], rows)


def heading(title: str, width: int) -> str:
    """Centre a title in a line of "=" that is about `width` wide; two on either side at least where it is too narrow."""
    missing = width - len(title) - 2
    bar = "=" * ((missing + 1) // 2) if missing > 0 else "=="
    return f"{bar} {title} {bar}"


def data_width(names: Sequence[str]) -> int:
    """Return the width that a heading above a table of these names aims at."""
    return max(map(len, names), default=0) + len(GAP) + len("Value")


def wrapped(text: str, indent: str) -> str:
    """Fold words so that no line is longer than a terminal; every line starts with `indent`."""
    lines, line = [], ""
    for word in text.split():
        if line and len(indent) + len(line) + 1 + len(word) > WRAP_COLUMNS:
            lines.append(indent + line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return "\n".join([*lines, indent + line])
