"""A reader for HCL version 1, the language of Vault's policies and configuration files, and for its JSON form.

    path "secret/*" { capabilities = ["read"] }       a block: key, labels, body
    ui = true                                         an assignment

It reads text into a tree that keeps line numbers and the order of the source, and knows nothing of what keys mean.
There is no interpolation (Vault never evaluates any): `${…}` is ordinary text, except that a quote inside it does not
end the string. Whatever the text, nothing but `HclError` is raised; nesting is bounded. Pure.

In JSON a block is an object within an object, so `{"path": {"secret/*": {…}}}` says the same as the block above;
`Object.blocks` hides the difference. Source: the specification in the README of HCL 1 (comments, strings, heredocs, numbers).
"""

import json
import math
import re
import sys
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from msgspec import Struct

DEPTH_MAX: Final = 64
"""Objects and lists within each other; far more than any policy, far less than Python's stack."""

Value: TypeAlias = "str | int | float | bool | list[Value] | Object | None"


class HclError(ValueError):
    """The text is no HCL.

    Args:
        problem: what is wrong.
        line: where, counted from 1.
        source: the file's name, or "".
    """

    def __init__(self, problem: str, line: int, source: str = "") -> None:
        super().__init__(f"{source}:{line}: {problem}" if source else f"line {line}: {problem}")
        self.problem = problem
        self.line = line
        self.source = source


class Item(Struct, frozen=True):
    """One `key = value`, or one `key "label" { … }`, whose value is an `Object`."""

    key: str
    labels: tuple[str, ...]
    value: Any  # a Value; msgspec cannot name a recursive type
    line: int


class Object(Struct, frozen=True):
    """What stands between braces, in the order of the source; a key may stand there several times."""

    items: tuple[Item, ...]
    line: int

    def get(self, key: str) -> Item | None:
        """Return the item with this key, the last if there are several; None if there is none."""
        return next((item for item in reversed(self.items) if item.key == key), None)

    def blocks(self, key: str, *, labels: int = 1, source: str = "") -> list[Item]:
        """Return the blocks named `key`, each with exactly so many labels and an `Object` as its value.

        Labels that do not stand in front of the braces are taken from the keys within, as JSON writes them.

        Args:
            key: the blocks' name.
            labels: 1 for `path "a" {…}`, 0 for `telemetry {…}`.
            source: the file's name, for messages.

        Raises:
            HclError: a value stands where a block should, or there are too many labels.
        """
        return [block for item in self.items if item.key == key for block in _labelled(item, labels, source)]

    def plain(self) -> dict[str, Any]:
        """Return it as a dictionary, labels as keys; of repeated keys the last counts."""
        return {item.key: _under_labels(item) for item in self.items}


class Document(Struct, frozen=True):
    """A whole text."""

    body: Object
    source: str


def parse(text: str, source: str = "") -> Document:
    """Read a text: JSON if its first character is a brace, else HCL.

    Args:
        text: the whole text; a byte order mark in front is skipped.
        source: the file's name, for messages.

    Raises:
        HclError: it is neither.
    """
    text = text.removeprefix("\ufeff")
    if not _is_unicode(text):
        raise HclError("the text is no Unicode", 1, source)
    is_json = text.lstrip().startswith("{")
    return Document(_parse_json(text, source) if is_json else _Parser(text, source).document(), source)


def _labelled(item: Item, wanted: int, source: str) -> Iterator[Item]:
    if isinstance(item.value, list):
        for each in item.value:
            yield from _labelled(Item(item.key, item.labels, each, item.line), wanted, source)
    elif not isinstance(item.value, Object) or len(item.labels) > wanted:
        shape = "a block without a label" if wanted == 0 else "a labelled block"
        raise HclError(f"'{item.key}' must be {shape}", item.line, source)
    elif len(item.labels) == wanted:
        yield item
    else:
        for inner in item.value.items:
            labels = (*item.labels, inner.key, *inner.labels)
            yield from _labelled(Item(item.key, labels, inner.value, max(inner.line, item.line)), wanted, source)


def _under_labels(item: Item) -> Any:
    value = _plain(item.value)
    for label in reversed(item.labels):
        value = {label: value}
    return value


def _plain(value: Value) -> Any:
    if isinstance(value, Object):
        return value.plain()
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _is_unicode(text: str) -> bool:
    """Whether a text can be encoded: it has no half of a surrogate pair."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


# -- HCL --

_TOKEN: Final = re.compile(
    r"""
      (?P<space>[ \t\r\n]+|\#[^\n]*|//[^\n]*|/\*.*?\*/)
    | (?P<heredoc><<-?[^\n]*\n)
    | (?P<string>")
    | (?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+)(?![\w.]))
    | (?P<name>[^\W\d][\w.-]*)
    | (?P<mark>[{}\[\],=:])
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
_ESCAPE: Final = re.compile(r"([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.)", re.DOTALL)
_LOW_SURROGATE: Final = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_WORDS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}
_END: Final = "end of text"
_UNCLOSED: Final = "object expected closing RBRACE got: EOF"


class _Token(Struct, frozen=True):
    kind: str
    text: str
    line: int


def _tokens(text: str, source: str) -> Iterator[_Token]:
    position, line = 0, 1
    while position < len(text):
        fits = _TOKEN.match(text, position)
        if fits is None:
            problem = (
                "comment not terminated" if text.startswith("/*", position) else f"illegal character {text[position]!r}"
            )
            raise HclError(problem, line, source)
        kind, end = str(fits.lastgroup), fits.end()
        if kind == "string":
            value, end = _string(text, end, line, source)
        elif kind == "heredoc":
            value, end = _heredoc(text, fits, line, source)
        else:
            value = fits.group()
        if kind != "space":
            yield _Token("string" if kind == "heredoc" else kind, value, line)
        line += text.count("\n", position, end)
        position = end
    yield _Token("end", _END, line)


def _string(text: str, start: int, line: int, source: str) -> tuple[str, int]:
    """Return the string whose opening quote stands before `start`, and where it ends."""
    parts: list[str] = []
    position, braces = start, 0
    while position < len(text):
        character = text[position]
        if braces:  # inside ${…}: all text, and only the matching brace ends it
            braces += (character == "{") - (character == "}")
        elif character == '"':
            return "".join(parts), position + 1
        elif character == "\n":
            break
        elif character == "\\":
            part, position = _escape(text, position + 1, line, source)
            parts.append(part)
            continue
        elif text.startswith("${", position):
            braces, character = 1, "${"
        parts.append(character)
        position += len(character)
    raise HclError("expected terminating braces" if braces else "literal not terminated", line, source)


def _escape(text: str, start: int, line: int, source: str) -> tuple[str, int]:
    """Return what the escape whose backslash stands before `start` stands for, and where it ends."""
    fits = _ESCAPE.match(text, start)
    if fits is None:
        raise HclError("illegal char escape", line, source)
    octal, *hexadecimal, plain = fits.groups()
    if plain in _ESCAPES:
        return _ESCAPES[plain], fits.end()
    digits = next((digits for digits in hexadecimal if digits), None)
    code = int(octal, 8) if octal else int(digits, 16) if digits else sys.maxunicode + 1
    end = fits.end()
    low = _LOW_SURROGATE.match(text, end)
    if 0xD800 <= code <= 0xDBFF and low is not None:
        code = 0x10000 + ((code - 0xD800) << 10) + (int(low.group(1), 16) - 0xDC00)
        end = low.end()
    if code > sys.maxunicode:
        raise HclError("illegal char escape", line, source)
    if 0xD800 <= code <= 0xDFFF:
        raise HclError("illegal char escape: half a surrogate pair", line, source)
    return chr(code), end


def _heredoc(text: str, opening: re.Match[str], line: int, source: str) -> tuple[str, int]:
    """Return the text between `<<MARK` and a line that is only MARK; with `<<-` the common indentation is cut off."""
    is_indented = opening.group().startswith("<<-")
    mark = opening.group()[3 if is_indented else 2 :].strip()
    if not mark.isidentifier():
        raise HclError("heredoc needs a marker after <<", line, source)
    closing = re.compile(rf"^[ \t]*{re.escape(mark)}[ \t\r]*$", re.MULTILINE).search(text, opening.end())
    if closing is None:
        raise HclError("heredoc not terminated", line, source)
    lines = text[opening.end() : closing.start()].splitlines(keepends=True)
    if is_indented:
        margin = min((len(each) - len(each.lstrip(" \t")) for each in lines if each.strip()), default=0)
        lines = [each[margin:] if each.strip() else each.lstrip(" \t") for each in lines]
    return "".join(lines), closing.end()


class _Parser:
    def __init__(self, text: str, source: str) -> None:
        self._source = source
        self._tokens = _tokens(text, source)
        self._token = next(self._tokens)
        self._depth = 0

    def document(self) -> Object:
        items = self._items(closing="end")
        return Object(items, 1)

    def _items(self, closing: str) -> tuple[Item, ...]:
        items: list[Item] = []
        while not self._at(closing):
            items.append(self._item())
            self._take_if(",")
        return tuple(items)

    def _item(self) -> Item:
        first = self._token
        keys = []
        while self._token.kind in ("name", "string"):
            keys.append(self._next().text)
        if not keys and first.kind == "end":
            raise self._error(_UNCLOSED)
        if not keys:
            raise self._error(f"expected a key, found {first.text!r}")
        if self._at("{"):
            return Item(keys[0], tuple(keys[1:]), self._object(), first.line)
        is_assignment = self._take_if("=") or self._take_if(":")
        if not is_assignment or len(keys) > 1:
            name = " ".join(keys)
            wanted = "start of object ('{')" if is_assignment else "start of object ('{') or assignment ('=')"
            raise self._error(f"key '{name}' expected {wanted}")
        return Item(keys[0], (), self._value(), first.line)

    def _value(self) -> Value:
        if self._at("{"):
            return self._object()
        if self._at("["):
            return self._list()
        token = self._token
        if token.kind in ("string", "number", "name"):
            self._next()
        if token.kind == "string":
            return token.text
        if token.kind == "number":
            return self._number(token)
        if token.kind == "name" and token.text in _WORDS:
            return _WORDS[token.text]
        raise HclError(f"expected a value, found {token.text!r}", token.line, self._source)

    def _number(self, token: _Token) -> int | float:
        digits = token.text.lower()
        try:
            if "x" in digits:
                return int(digits, 16)
            return _finite(digits) if set(digits) & set(".e") else int(digits)
        except OverflowError:
            raise HclError(f"number too large: {token.text}", token.line, self._source) from None
        except ValueError:  # Python refuses to convert more than 4300 digits
            raise HclError("number too large", token.line, self._source) from None

    def _object(self) -> Object:
        line = self._next().line
        self._enter()
        items = self._items(closing="}")
        self._next()
        self._depth -= 1
        return Object(items, line)

    def _list(self) -> Value:
        self._next()
        self._enter()
        values: list[Value] = []
        while not self._at("]"):
            values.append(self._value())
            if not self._take_if(",") and not self._at("]"):
                raise self._error(f"error parsing list, expected comma or list end, got: {self._token.text}")
        self._next()
        self._depth -= 1
        return values

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._error(f"nested deeper than {DEPTH_MAX}")

    def _at(self, mark: str) -> bool:
        return self._token.kind == mark or (self._token.kind == "mark" and self._token.text == mark)

    def _take_if(self, mark: str) -> bool:
        if self._at(mark):
            self._next()
            return True
        return False

    def _next(self) -> _Token:
        token = self._token
        if token.kind == "end":
            raise self._error(_UNCLOSED)
        self._token = next(self._tokens)
        return token

    def _error(self, problem: str) -> HclError:
        return HclError(problem, self._token.line, self._source)


def _finite(digits: str) -> float:
    """Convert a number.

    Raises:
        OverflowError: it is beyond what a float holds.
    """
    number = float(digits)
    if math.isinf(number):
        raise OverflowError
    return number


# -- JSON --


def _parse_json(text: str, source: str) -> Object:
    try:
        value = json.loads(
            text, object_pairs_hook=_JsonObject, parse_float=_finite, parse_constant=_refuse_constant, strict=False
        )
        converted = _from_json(value, 0)
    except json.JSONDecodeError as error:
        problem = f"unexpected {text[error.pos]!r}" if error.msg == "Extra data" else error.msg
        raise HclError(problem, error.lineno, source) from None
    except RecursionError:
        raise HclError(f"nested deeper than {DEPTH_MAX}", 1, source) from None
    except OverflowError:
        raise HclError("number too large", 1, source) from None
    except ValueError as error:
        raise HclError(str(error), 1, source) from None
    assert isinstance(converted, Object), "the text begins with a brace"
    return converted


class _JsonObject(list[tuple[str, Any]]):
    """An object's pairs in order, so that repeated keys stay."""


def _refuse_constant(literal: str) -> None:
    raise ValueError(f"expected a value, found {literal!r}")


def _from_json(value: Any, depth: int) -> Value:
    if depth > DEPTH_MAX:
        raise ValueError(f"nested deeper than {DEPTH_MAX}")
    if isinstance(value, _JsonObject):
        return Object(tuple(Item(_checked(key), (), _from_json(each, depth + 1), 1) for key, each in value), 1)
    if isinstance(value, list):
        return [_from_json(each, depth + 1) for each in value]
    if isinstance(value, str):
        return _checked(value)
    assert value is None or isinstance(value, int | float), "JSON has no other values"
    return value


def _checked(text: str) -> str:
    if not _is_unicode(text):
        raise ValueError("illegal char escape: half a surrogate pair")
    return text
