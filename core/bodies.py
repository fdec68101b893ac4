"""Request bodies: JSON text to fields, checked and bounded, as loosely typed as Vault takes them.

* `decode_object` reads a body into plain values, `decode_fields` into the Struct that an operation declares.
* What Vault accepts is accepted: "5" and 5 for an integer, "1h", "3600" and 3600 for a duration, "a,b" for a list,
  "k=v" for a map; text behind the first JSON value is ignored; no body at all is an empty object.
* `canonical_json` is how JSON that clients gave is kept: keys sorted, nothing superfluous, number literals exactly as they
  were written (30 digits, 1.50), and `<`, `>`, `&` escaped as Go does.

The messages are those of Go's JSON reader where clients may match them. Source: RFC 8259; features measured on a real server.
"""

import json
import re
from array import array
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any, Final, TypeVar, get_type_hints

import msgspec
from msgspec import Raw, Struct

from conclave.core.contract import Operation, Request
from conclave.core.durations import SECONDS_KIND, SIGNED_SECONDS_KIND, parse_seconds
from conclave.core.errors import InvalidRequest, TooLarge

S = TypeVar("S", bound=Struct)

VALUE_BYTES_MAX: Final = 1 << 20
"""The largest value that a secrets engine keeps: 1 MiB, as in Vault."""
DEPTH_MAX: Final = 128
"""How deep a body's lists and objects may nest: codecs recurse, and no real body comes near."""

_LITERAL = msgspec.json.Decoder(float_hook=lambda literal: Raw(literal.encode()))
_PLAIN = msgspec.json.Decoder()
_RAW_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_sorted_encoder = msgspec.json.Encoder(order="sorted")

_STRINGS = re.compile(rb'"[^"]*"?')
"""Strings without escapes, also one that never ends: if that did not match, every quote in it would be looked at as a
beginning."""
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""Brackets as signed bytes: one level down or up."""
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[{]}"))
_LEADING_SPACE: Final = b" \t\r\n"
_GO_TYPES: Final = {"[": "array", '"': "string", "t": "bool", "f": "bool", "n": "null"}


# -- JSON --


def decode_object(body: bytes) -> dict[str, Any]:
    """Return a body's fields as plain values; an empty body has none.

    Raises:
        InvalidRequest: it is no JSON object, or nests too deeply.
    """
    value = _decode(_PLAIN, body)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _no_object(body)
    return value


def canonical_json(text: bytes) -> bytes:
    """Return JSON text as it is kept: sorted, compact, numbers as they were written.

    Raises:
        InvalidRequest: it is no JSON, or nests too deeply.
    """
    return escape_html(_sorted_encoder.encode(_decode(_LITERAL, text)))


def canonical_object(body: bytes) -> bytes:
    """Return a body that must be an object as it is kept; an empty body is an empty object.

    Raises:
        InvalidRequest: it is no JSON object, or nests too deeply.
    """
    text = canonical_json(body)
    if text == b"null":
        return b"{}"
    if not text.startswith(b"{"):
        raise _no_object(body)
    return text


def bounded(value: bytes) -> bytes:
    """Return a value that is small enough to be kept.

    Raises:
        TooLarge: it exceeds 1 MiB.
    """
    if len(value) > VALUE_BYTES_MAX:
        raise TooLarge(f"put failed due to value being too large; got {len(value)} bytes, max {VALUE_BYTES_MAX} bytes")
    return value


def merge_patch(target: bytes, patch: bytes) -> bytes:
    """Return `target` with a JSON merge patch (RFC 7396) applied, both JSON text; numbers stay as they were written."""
    merged = _merge(_decode(_LITERAL, target), _decode(_LITERAL, patch))
    return escape_html(_sorted_encoder.encode(merged))


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def escape_html(text: bytes) -> bytes:
    """Return JSON text with the characters escaped that Go escapes; they occur in strings only."""
    if b"<" in text or b">" in text or b"&" in text:
        text = text.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")
    if b"\xe2\x80" in text:
        text = text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return text


def _decode(decoder: msgspec.json.Decoder[Any], text: bytes) -> Any:
    """Decode the first value of a text; None if there is nothing but space, or `null`, which clients send for no body."""
    if text.strip(_LEADING_SPACE) in (b"", b"null"):
        return None
    _check_depth(text)
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        raise _no_object(text) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _decode_first(decoder, text)


def _decode_first(decoder: msgspec.json.Decoder[Any], text: bytes) -> Any:
    """Decode a text that has something behind its first value, or bytes that are no UTF-8; else say what is wrong."""
    as_text = text.decode("utf-8", "replace").lstrip(" \t\r\n")
    try:
        _, end = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(as_text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"failed to decode JSON input: {_go_error(as_text, error)}") from None
    try:
        return decoder.decode(as_text[:end].encode())
    except msgspec.ValidationError:
        raise _no_object(text) from None
    except (msgspec.DecodeError, UnicodeError) as error:  # half a surrogate pair
        raise InvalidRequest(f"failed to decode JSON input: {error}") from None


def _refuse_constant(literal: str) -> None:
    raise ValueError(f"invalid character {literal[0]!r} looking for beginning of value")


def _go_error(text: str, error: ValueError | RecursionError) -> str:
    """Say in Go's words why a text is no JSON, as far as that can be told from Python's."""
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    position = error.pos
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    if position >= len(text) or error.msg.startswith("Unterminated string"):
        return "unexpected EOF"
    found = f"invalid character {_quoted(text[position])}"
    if error.msg == "Expecting ':' delimiter":
        return f"{found} after object key"
    if error.msg == "Expecting ',' delimiter":
        return f"{found} after {'array element' if _is_in_array(text, position) else 'object key:value pair'}"
    if error.msg.startswith("Expecting property name") and position > 1:
        return f"{found} looking for beginning of object key string"
    if error.msg.startswith("Invalid control character"):
        return f"{found} in string literal"
    return f"{found} looking for beginning of value"


def _quoted(character: str) -> str:
    return "'\\''" if character == "'" else f"'{character}'" if character.isprintable() else repr(character)


def _is_in_array(text: str, position: int) -> bool:
    open_brackets: list[int] = []
    for bracket in _without_strings(text[:position].encode("utf-8", "replace")).translate(None, _NO_BRACKETS):
        if bracket in b"[{":
            open_brackets.append(bracket)
        elif open_brackets:
            open_brackets.pop()
    return bool(open_brackets) and open_brackets[-1] == ord("[")


def _no_object(body: bytes) -> InvalidRequest:
    first = body.lstrip(_LEADING_SPACE)[:1].decode("ascii", "replace")
    kind = _GO_TYPES.get(first, "number")
    return InvalidRequest(
        f"failed to decode JSON input: json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
    )


def _check_depth(text: bytes) -> None:
    if text.count(b"[") + text.count(b"{") <= DEPTH_MAX:
        return
    steps = array("b", _without_strings(text).translate(_STEPS, _NO_BRACKETS))
    if max(accumulate(steps), default=0) > DEPTH_MAX:
        raise InvalidRequest(f"failed to decode JSON input: exceeded max depth of {DEPTH_MAX}")


def _without_strings(text: bytes) -> bytes:
    """Return JSON without its strings; an escaped quote ends none, and one behind an escaped backslash does."""
    return _STRINGS.sub(b"", text.replace(rb"\\", b"").replace(rb"\"", b""))


# -- fields --


class _Field(Struct, frozen=True):
    """One field of a declared Struct."""

    attribute: str
    name: str
    type: Any
    convert: Callable[[Any], Any]  # from plain values of JSON, or the text of a query
    is_raw: bool
    is_required: bool
    exact_type: Any  # values of this very type need no conversion; None: there is no such type


_fields: dict[type[Struct], dict[str, _Field]] = {}


def decode_fields(struct_type: type[Struct], request: Request) -> tuple[Struct, list[str]]:
    """Return an operation's fields, and the names of those it does not know, sorted.

    Writes take them from the body, all others from the query.

    Raises:
        InvalidRequest: the body is no object, or a field does not convert; the text names it.
    """
    given: Mapping[str, Any]
    is_body = request.operation in (Operation.CREATE, Operation.UPDATE, Operation.PATCH)
    given = (_decode(_RAW_OBJECT, request.body) or {}) if is_body else request.query
    return _fill(struct_type, given, is_json=is_body)


def convert_fields(struct_type: type[S], given: Mapping[str, Any]) -> S:
    """Return fields that a client gave as plain values within another field (a mount's `config`); unknown ones are ignored.

    Raises:
        InvalidRequest: a field does not convert; the text names it.
    """
    return _fill(struct_type, given, is_json=False)[0]


def _fill(struct_type: type[S], given: Mapping[str, Any], *, is_json: bool) -> tuple[S, list[str]]:
    declared = _fields.get(struct_type)
    if declared is None:
        declared = _fields[struct_type] = _describe(struct_type)
    values: dict[str, Any] = {}
    unknown: list[str] = []
    for name, value in given.items():
        field = declared.get(name)
        if field is None:
            unknown.append(name)
            continue
        plain = _plain(field, value) if is_json and not field.is_raw else value
        if plain is not None:
            values[field.attribute] = _convert(field, plain)
    for field in declared.values():
        if field.is_required and field.attribute not in values:
            raise InvalidRequest(f"missing required parameter {field.name!r}")
    return struct_type(**values), sorted(unknown)


def _plain(field: _Field, text: Raw) -> Any:
    try:
        return _PLAIN.decode(text)
    except msgspec.DecodeError as error:  # a number beyond what a double holds: JSON, yet no value
        raise InvalidRequest(f'failed to decode JSON input: field "{field.name}": {error}') from None


def _convert(field: _Field, value: Any) -> Any:
    if type(value) is field.exact_type:
        return value
    try:
        converted = field.convert(value)
        return converted if field.is_raw else msgspec.convert(converted, field.type)
    except (ValueError, TypeError) as error:  # msgspec's ValidationError is a ValueError
        problem = f'error converting input for field "{field.name}": {error}'
        raise InvalidRequest(f"Field validation failed: {problem}") from None


def _describe(struct_type: type[Struct]) -> dict[str, _Field]:
    hints = get_type_hints(struct_type, include_extras=True)
    described = {}
    for field in msgspec.structs.fields(struct_type):
        hint = hints[field.name]
        kind = msgspec.inspect.type_info(hint)
        described[field.encode_name] = _Field(
            field.name,
            field.encode_name,
            hint,
            _converter(kind),
            isinstance(_bare(kind), msgspec.inspect.RawType),
            field.required,
            _exact_type(kind),
        )
    return described


def _bare(kind: msgspec.inspect.Type) -> msgspec.inspect.Type:
    """Return the type without its metadata, and without the None of an optional."""
    while isinstance(kind, msgspec.inspect.Metadata):
        kind = kind.type
    if isinstance(kind, msgspec.inspect.UnionType):
        rest = [each for each in kind.types if not isinstance(each, msgspec.inspect.NoneType)]
        if len(rest) == 1:
            return _bare(rest[0])
    return kind


def _exact_type(kind: msgspec.inspect.Type) -> type[object] | None:
    """Return the type of values that are good as they are; None where each has to be looked at."""
    if _special_kind(kind):
        return None
    bare = _bare(kind)
    if bare == msgspec.inspect.StrType():  # without a bound on its length, or a pattern
        return str
    return bool if bare == msgspec.inspect.BoolType() else None


def _special_kind(kind: msgspec.inspect.Type) -> str:
    """Return what the type's metadata calls it, however deep they lie; "" for nothing."""
    while isinstance(kind, msgspec.inspect.Metadata):
        name = (kind.extra or {}).get("kind")
        if isinstance(name, str):
            return name
        kind = kind.type
    if isinstance(kind, msgspec.inspect.UnionType):
        return next(filter(None, map(_special_kind, kind.types)), "")
    return ""


def _converter(kind: msgspec.inspect.Type) -> Callable[[Any], Any]:
    special = _special_kind(kind)
    if special in _SPECIAL_CONVERTERS:
        return _SPECIAL_CONVERTERS[special]
    bare = _bare(kind)
    if isinstance(bare, msgspec.inspect.ListType):
        element = _converter(bare.item_type)
        return lambda value: [element(each) for each in _to_list(value)]
    if isinstance(bare, msgspec.inspect.DictType):
        value_type = _bare(bare.value_type)
        return _to_string_map if isinstance(value_type, msgspec.inspect.StrType) else _to_map
    return _CONVERTERS.get(type(bare), lambda value: value)


def _go_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "json.Number"
    if isinstance(value, list):
        return "[]interface {}"
    return "map[string]interface {}" if isinstance(value, dict) else "string"


def _mismatch(expected: str, value: Any) -> ValueError:
    return ValueError(f"'' expected type '{expected}', got unconvertible type '{_go_type(value)}'")


def _to_string(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (int, float)):
        return str(value)
    raise _mismatch("string", value)


INTEGER_MAX: Final = (1 << 63) - 1
"""The largest integer of a field: what is kept has 64 bits, as Go's."""


def _to_int(value: Any) -> int:
    if isinstance(value, str):
        try:
            number = int(value or "0")
        except ValueError:
            raise ValueError("'' cannot parse value as 'int': strconv.ParseInt: invalid syntax") from None
    elif isinstance(value, (bool, int, float)):
        if not abs(value) <= INTEGER_MAX:  # also what is no number at all
            raise ValueError("'' cannot parse value as 'int': strconv.ParseInt: value out of range")
        number = int(value)
    else:
        raise _mismatch("int", value)
    if abs(number) > INTEGER_MAX:
        raise ValueError("'' cannot parse value as 'int': strconv.ParseInt: value out of range")
    return number


_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False", ""})


def _to_bool(value: Any) -> bool:
    if isinstance(value, (bool, int, float)):
        return bool(value)
    if not isinstance(value, str):
        raise _mismatch("bool", value)
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ValueError("'' cannot parse value as 'bool': strconv.ParseBool: invalid syntax")


def _to_float(value: Any) -> float:
    if isinstance(value, (bool, int, float, str)):
        return float(value)
    raise _mismatch("float64", value)


def _to_seconds(value: Any) -> int:
    seconds = _to_signed_seconds(value)
    if seconds < 0:
        raise ValueError(f"cannot provide negative value '{value}'")
    return seconds


def _to_signed_seconds(value: Any) -> int:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return parse_seconds(value)
    raise _mismatch("time.Duration", value)


def _to_list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        return [each.strip() for each in value.split(",") if each.strip()]
    if isinstance(value, dict):
        raise _mismatch("[]string", value)
    return [value]


def _to_map(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise _mismatch("map[string]interface {}", value)


def _to_string_map(value: Any) -> dict[str, str]:
    """Take an object, or "k=v" texts: one, several separated by commas, or a list of them."""
    if isinstance(value, dict):
        return {key: _to_string(each) for key, each in value.items()}
    pairs = [_to_string(each).partition("=") for each in _to_list(value)]
    if any(not equals for _, equals, _ in pairs):
        raise _mismatch("map[string]string", value)
    return {key.strip(): text.strip() for key, _, text in pairs}


_SPECIAL_CONVERTERS: Final[dict[str, Callable[[Any], Any]]] = {
    SECONDS_KIND: _to_seconds,
    SIGNED_SECONDS_KIND: _to_signed_seconds,
}
_CONVERTERS: Final[dict[type[msgspec.inspect.Type], Callable[[Any], Any]]] = {
    msgspec.inspect.StrType: _to_string,
    msgspec.inspect.IntType: _to_int,
    msgspec.inspect.BoolType: _to_bool,
    msgspec.inspect.FloatType: _to_float,
}
