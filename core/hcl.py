"""A reader for HCL version 1, the language of Vault's policies and configuration files, and for its JSON form.

    path "secret/*" { capabilities = ["read"] }       a block: key, labels, body
    ui = true                                         an assignment

It reads text into a tree that keeps line numbers and the order of the source, and knows nothing of what keys mean.
There is no interpolation (Vault never evaluates any): `${…}` is ordinary text, except that a quote inside it does not
end the string. Whatever the text, nothing but `HclError` is raised; nesting is bounded. Pure.

In JSON a block is an object within an object, so `{"path": {"secret/*": {…}}}` says the same as the block above;
`blocks` hides the difference. Source: the specification in the README of HCL 1 (comments, strings, heredocs, numbers).
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct

NESTING_MAX: Final = 64
"""Objects and lists within each other; far more than any policy, far less than Python's stack."""

Value: TypeAlias = "str | int | float | bool | list[Value] | Body | None"


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
    """One `key = value`, or one `key "label" { … }`, whose value is a `Body`."""

    key: str
    labels: tuple[str, ...]
    value: Any  # a Value; msgspec cannot name a recursive type
    line: int


class Body(Struct, frozen=True):
    """What stands between braces, in the order of the source; a key may stand there several times."""

    items: tuple[Item, ...]
    line: int


class Document(Struct, frozen=True):
    """A whole text."""

    body: Body
    source: str

    @property
    def items(self) -> tuple[Item, ...]:
        """The items of the outermost level."""
        return self.body.items


class Block(Struct, frozen=True):
    """One labelled block, whichever way it was written."""

    labels: tuple[str, ...]
    body: Body
    line: int


def parse(text: str, source: str = "") -> Document:
    """Read a text: JSON if its first character is a brace, else HCL.

    Args:
        text: the whole text; a byte order mark in front is skipped.
        source: the file's name, for messages.

    Raises:
        HclError: it is neither.
    """
    text = text.removeprefix("\ufeff")
    if text.lstrip().startswith("{"):
        return Document(_parse_json(text, source), source)
    return Document(_Parser(text, source).document(), source)


def blocks(items: Sequence[Item], key: str, labels: int = 1, source: str = "") -> Iterator[Block]:
    """Yield the blocks named `key`, each with exactly so many labels.

    Labels that do not stand in front of the braces are taken from the keys within, as JSON writes them.

    Raises:
        HclError: a value stands where a block should, or there are too many labels.
    """
    for item in items:
        if item.key == key:
            yield from _labelled(item.labels, item.value, item.line, labels, f'"{key}"', source)


def _labelled(found: tuple[str, ...], value: Value, line: int, wanted: int, name: str, source: str) -> Iterator[Block]:
    if isinstance(value, list):
        for each in value:
            yield from _labelled(found, each, line, wanted, name, source)
    elif not isinstance(value, Body):
        raise HclError(f"{name} must be a block", line, source)
    elif len(found) > wanted:
        raise HclError(f"{name} has too many labels", line, source)
    elif len(found) == wanted:
        yield Block(found, value, line)
    else:
        for item in value.items:
            yield from _labelled((*found, item.key, *item.labels), item.value, item.line, wanted, name, source)


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
_END: Final = "end of text"


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
                "comment is not closed" if text.startswith("/*", position) else f"illegal character {text[position]!r}"
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
    raise HclError("literal not terminated", line, source)


def _escape(text: str, start: int, line: int, source: str) -> tuple[str, int]:
    fits = _ESCAPE.match(text, start)
    if fits is not None:
        octal, *hexadecimal, plain = fits.groups()
        digits = next((digits for digits in hexadecimal if digits), None)
        code = int(octal, 8) if octal else int(digits, 16) if digits else None
        if code is None and plain in _ESCAPES:
            return _ESCAPES[plain], fits.end()
        if code is not None and code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF:
            return chr(code), fits.end()
    raise HclError("illegal char escape", line, source)


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

    def document(self) -> Body:
        items = self._items(closing="end")
        return Body(items, 1)

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
        if not keys:
            raise self._error(f"object expected key, found {first.text!r}")
        if self._at("{"):
            return Item(keys[0], tuple(keys[1:]), self._object(), first.line)
        if not (self._take_if("=") or self._take_if(":")):
            raise self._error(f"key '{' '.join(keys)}' expected start of object ('{{') or assignment ('=')")
        if len(keys) > 1:
            raise self._error(f"key '{' '.join(keys)}' has labels and an assignment")
        return Item(keys[0], (), self._value(), first.line)

    def _value(self) -> Value:
        if self._at("{"):
            return self._object()
        if self._at("["):
            return self._list()
        token = self._next()
        if token.kind == "string":
            return token.text
        if token.kind == "number":
            return self._number(token)
        if token.kind == "name" and token.text in ("true", "false"):
            return token.text == "true"
        raise HclError(f"unknown value {token.text!r}", token.line, self._source)

    def _number(self, token: _Token) -> int | float:
        digits = token.text.lower()
        try:
            if "x" in digits:
                return int(digits, 16)
            return float(digits) if set(digits) & set(".e") else int(digits)
        except ValueError as error:  # Python refuses to convert more than 4300 digits
            raise HclError("number is too long", token.line, self._source) from error

    def _object(self) -> Body:
        line = self._next().line
        self._enter()
        items = self._items(closing="}")
        self._next()
        self._depth -= 1
        return Body(items, line)

    def _list(self) -> Value:
        self._next()
        self._enter()
        values: list[Value] = []
        while not self._at("]"):
            values.append(self._value())
            if not self._take_if(",") and not self._at("]"):
                raise self._error(f"error parsing list, expected comma or list end, got {self._token.text!r}")
        self._next()
        self._depth -= 1
        return values

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > NESTING_MAX:
            raise self._error("nested too deeply")

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
            raise self._error("object expected closing RBRACE got: EOF")
        self._token = next(self._tokens)
        return token

    def _error(self, problem: str) -> HclError:
        return HclError(problem, self._token.line, self._source)


# -- JSON --


def _parse_json(text: str, source: str) -> Body:
    try:
        value = json.loads(text, object_pairs_hook=_JsonObject)
        converted = _from_json(value, 0)
    except json.JSONDecodeError as error:
        raise HclError(error.msg, error.lineno, source) from error
    except (RecursionError, ValueError) as error:  # too deep; a number with more digits than Python converts
        raise HclError("nested too deeply, or a number is too long", 1, source) from error
    assert isinstance(converted, Body), "the text begins with a brace"
    return converted


class _JsonObject(list[tuple[str, Any]]):
    """An object's pairs in order, so that repeated keys stay."""


def _from_json(value: Any, depth: int) -> Value:
    if depth > NESTING_MAX:
        raise ValueError("nested too deeply")
    if isinstance(value, _JsonObject):
        return Body(tuple(Item(key, (), _from_json(each, depth + 1), 1) for key, each in value), 1)
    if isinstance(value, list):
        return [_from_json(each, depth + 1) for each in value]
    assert value is None or isinstance(value, str | int | float | bool), "JSON has no other values"
    return value
