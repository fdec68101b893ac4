"""Values as text: JSON and YAML documents, and the short form that a table's cell shows.

Pure. The spellings are Go's, because that is what scripts compare with: JSON is indented by two blanks, keys of maps are
sorted, "<", ">" and "&" are escaped; a number keeps the literal that the server sent; YAML is what gopkg.in/yaml.v2 writes.
"""

import json
import re
from typing import Any, Final, Self


class Literal(float):
    """A number with a fraction or exponent that remembers how it was spelled, so that 1.50 stays 1.50."""

    text: str

    def __new__(cls, text: str) -> Self:
        """Keep `text` beside its value."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def parse_json(text: str | bytes) -> Any:
    """Read one JSON document; whole numbers keep all digits, others their spelling.

    Raises:
        ValueError: it is not JSON, or a number in it has more digits than Python converts.
    """
    return json.loads(text, parse_float=Literal)


class Fields(dict[str, Any]):
    """An object whose keys keep their order when it is written, as the fields of a record do; others are sorted."""


# --- JSON ---


def compact_json(value: Any) -> str:
    """Write one line, as it is sent to a server."""
    return _json(value, "", colon=":", step="")


def pretty_json(value: Any) -> str:
    """Write an indented document."""
    return _json(value, "\n", colon=": ", step="  ")


def _json(value: Any, newline: str, *, colon: str, step: str) -> str:
    inner = newline + step
    if isinstance(value, dict):
        names = list(value) if isinstance(value, Fields) else sorted(value)
        items = [_json_text(str(name)) + colon + _json(value[name], inner, colon=colon, step=step) for name in names]
        return "{" + inner + ("," + inner).join(items) + newline + "}" if items else "{}"
    if isinstance(value, list | tuple):
        parts = [_json(item, inner, colon=colon, step=step) for item in value]
        return "[" + inner + ("," + inner).join(parts) + newline + "]" if parts else "[]"
    return _json_text(value) if isinstance(value, str) else scalar(value, none="null")


def _json_text(text: str) -> str:
    escaped = json.dumps(text, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        if character in escaped:
            escaped = escaped.replace(character, f"\\u{ord(character):04x}")
    return escaped


def scalar(value: Any, *, none: str) -> str:
    """Write a leaf: true, false, a number as it was spelled, a text as it is, `none` for nothing."""
    if value is None:
        return none
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.text if isinstance(value, Literal) else str(value)


# --- the cell of a table ---


def cell(value: Any) -> str:
    """Write a value as Go's `%v` does: map[a:1 b:<nil>], [x y], true, <nil>."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{cell(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(cell(item) for item in value) + "]"
    return scalar(value, none="<nil>")


def quoted_list(values: Any) -> str:
    """Write names as Go's `%q` does: ["a" "b"]; [] for none."""
    return "[" + " ".join(json.dumps(str(value), ensure_ascii=False) for value in values or []) + "]"


# --- YAML ---


def yaml_document(value: Any) -> str:
    """Write a block-style document without a newline at its end; keys sorted."""
    return "\n".join(_yaml_lines(value))


def _yaml_lines(value: Any) -> list[str]:
    """The lines of a value that stands on its own, without indentation."""
    if isinstance(value, dict) and value:
        lines: list[str] = []
        for key in sorted(value):
            inner, head = _yaml_lines(value[key]), _yaml_text(str(key)) + ":"
            if isinstance(value[key], dict) and value[key]:
                lines += [head, *("  " + line for line in inner)]
            elif isinstance(value[key], list | tuple) and value[key]:
                lines += [head, *inner]
            else:
                lines += [f"{head} {inner[0]}", *("  " + line if line else "" for line in inner[1:])]
        return lines
    if isinstance(value, list | tuple) and value:
        lines = []
        for item in value:
            first, *rest = _yaml_lines(item)
            lines += ["- " + first, *("  " + line if line else "" for line in rest)]
        return lines
    if isinstance(value, dict | list | tuple):
        return ["{}" if isinstance(value, dict) else "[]"]
    if not isinstance(value, str):
        return [scalar(value, none="null")]
    return _yaml_block(value) if _is_block(value) else [_yaml_text(value)]


def _is_block(text: str) -> bool:
    """Several lines of printable text, none of which starts with a blank that a reader would take for indentation."""
    return "\n" in text and text.strip("\n") != "" and not text.startswith((" ", "\n", "\t")) and _is_printable(text)


def _yaml_block(text: str) -> list[str]:
    body = text.rstrip("\n")
    ends = len(text) - len(body)
    mark = {0: "|-", 1: "|"}.get(ends, "|+")
    return [mark, *body.split("\n"), *([""] * (ends - 1))]


# What a reader would not take for a text when it is not quoted: YAML 1.1's words, numbers and times.
_RESOLVES: Final = re.compile(
    r"""(~|null|Null|NULL|y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF|<<
    |[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*(:[0-5]?[0-9])*(\.[0-9_]*)?|[0-9][0-9_]*)
    |[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?
    |[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)
    |\d{4}-\d\d?-\d\d?([Tt\ ].*)?)?""",
    re.VERBOSE,
)
_SPECIAL_START: Final = re.compile(r"""[#,\[\]{}&*!|>'"%@`]|[-?:](\s|$)|---|\.\.\.""")
_SPECIAL_INSIDE: Final = re.compile(r":(\s|$)|\s#")


def _is_printable(text: str) -> bool:
    return all(character == "\n" or (character.isprintable() and character != "\ufeff") for character in text)


def _yaml_text(text: str) -> str:
    if _RESOLVES.fullmatch(text) or not _is_printable(text) or "\n" in text:
        return '"' + "".join(map(_yaml_character, text)) + '"'
    if text != text.strip(" ") or _SPECIAL_START.match(text) or _SPECIAL_INSIDE.search(text):
        return "'" + text.replace("'", "''") + "'"
    return text


_YAML_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0", "\b": "\\b"}


def _yaml_character(character: str) -> str:
    """One character between double quotes."""
    if character in _YAML_ESCAPES:
        return _YAML_ESCAPES[character]
    if character.isprintable() and character != "\ufeff":
        return character
    number = ord(character)
    return f"\\x{number:02X}" if number < 0x100 else f"\\u{number:04X}" if number < 0x10000 else f"\\U{number:08X}"
