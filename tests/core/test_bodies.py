"""core/bodies.py: what is accepted as a body, what is kept of it, and how fields are read from it."""

import json
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis.strategies import binary, booleans, dictionaries, integers, lists, none, recursive, text
from msgspec import Meta, Raw, Struct

from conclave.core.bodies import (
    DEPTH_MAX,
    VALUE_BYTES_MAX,
    bounded,
    canonical_json,
    canonical_object,
    convert_fields,
    decode_fields,
    decode_object,
    merge_patch,
)
from conclave.core.contract import Operation, Request
from conclave.core.durations import Seconds, SignedSeconds
from conclave.core.errors import InvalidRequest, TooLarge

JSON = recursive(
    none() | booleans() | integers() | text(),
    lambda inner: lists(inner, max_size=3) | dictionaries(text(), inner, max_size=3),
)


class Fields(Struct):
    """Every kind of field."""

    name: str = ""
    count: int = 0
    flag: bool = False
    share: float = 0.0
    names: list[str] = []
    numbers: list[int] = []
    pairs: dict[str, str] = {}
    any_map: dict[str, Any] = {}
    ttl: Seconds = 0
    signed: Annotated[SignedSeconds | None, Meta(description="x")] = None
    raw: Raw = Raw(b"")


def fields(body: bytes | str, operation: Operation = Operation.UPDATE) -> Fields:
    encoded = body.encode() if isinstance(body, str) else body
    found, _ = decode_fields(Fields, Request("1", operation, "x", body=encoded))
    assert isinstance(found, Fields)
    return found


@pytest.mark.parametrize("body", [b"", b" \n", b"null", b"{}"])
def test_nothing_is_an_empty_object(body: bytes) -> None:
    assert decode_object(body) == {}
    assert canonical_object(body) == b"{}"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{bad", "invalid character 'b' looking for beginning of value"),
        (b"x", "invalid character 'x' looking for beginning of value"),
        (b"[1]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        (b'"a"', "json: cannot unmarshal string into Go value of type map[string]interface {}"),
        (b"5", "json: cannot unmarshal number into Go value of type map[string]interface {}"),
        (b"true", "json: cannot unmarshal bool into Go value of type map[string]interface {}"),
        (b'{"a"', "unexpected EOF"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a": 1 2}', "invalid character '2' after object key:value pair"),
        (b'{"a": [1 2]}', "invalid character '2' after array element"),
        (b'{"a": NaN}', "invalid character 'N' looking for beginning of value"),
    ],
)
def test_a_body_that_is_no_object_is_refused_in_gos_words(body: bytes, problem: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        decode_object(body)

    assert refused.value.messages == (f"failed to decode JSON input: {problem}",)


def test_what_comes_behind_the_first_value_is_ignored() -> None:
    assert decode_object(b'{"a":1}{"b":2}') == {"a": 1}


def test_of_duplicate_keys_the_last_counts() -> None:
    assert canonical_object(b'{"a":1,"a":2}') == b'{"a":2}'


def test_numbers_are_kept_as_they_were_written() -> None:
    text = b'{"big":123456789012345678901234567890,"e":1e3,"x":1.50}'

    assert canonical_json(text) == text


def test_what_go_escapes_is_escaped() -> None:
    assert canonical_json('{"a":"é<>&\u2028"}'.encode()) == '{"a":"é\\u003c\\u003e\\u0026\\u2028"}'.encode()


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting_is_refused(opening: str) -> None:
    with pytest.raises(InvalidRequest, match=f"exceeded max depth of {DEPTH_MAX}"):
        canonical_json(opening.encode() * (DEPTH_MAX + 1))


def test_brackets_in_strings_do_not_nest() -> None:
    assert canonical_json(json.dumps({"a": "[" * 1000}).encode())


@pytest.mark.parametrize("end", ["", "\\"])
def test_a_string_that_never_ends_is_read_once(end: str) -> None:
    text = "[" * (DEPTH_MAX + 1) + '"' + '\\"' * 1_000_000 + end  # hours, if it were read from each of its quotes on

    with pytest.raises(InvalidRequest, match="exceeded max depth"):
        canonical_json(text.encode())


def test_a_value_has_a_bound() -> None:
    assert len(bounded(b"x" * VALUE_BYTES_MAX)) == VALUE_BYTES_MAX
    with pytest.raises(TooLarge):
        bounded(b"x" * (VALUE_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("target", "patch", "merged"),  # RFC 7396, appendix A
    [
        ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
        ('{"a":"b"}', '{"a":null}', "{}"),
        ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
        ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
        ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
        ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
        ('["a","b"]', '["c","d"]', '["c","d"]'),
        ('{"a":"b"}', '["c"]', '["c"]'),
        ('{"a":"foo"}', "null", "null"),
        ('{"a":"foo"}', '"bar"', '"bar"'),
        ('{"e":null}', '{"a":1}', '{"a":1,"e":null}'),
        ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
        ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
        ('{"n":1.50}', '{"m":2.50}', '{"m":2.50,"n":1.50}'),
    ],
)
def test_a_merge_patch_is_applied(target: str, patch: str, merged: str) -> None:
    assert merge_patch(target.encode(), patch.encode()) == merged.encode()


@given(JSON)
def test_canonical_json_means_the_same(value: Any) -> None:
    assert json.loads(canonical_json(json.dumps(value).encode())) == value


@given(binary(max_size=64))
def test_no_bytes_raise_anything_but_a_refusal(body: bytes) -> None:
    try:
        decode_object(body)
    except InvalidRequest:
        return


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"name":5}', Fields(name="5")),
        ('{"name":true}', Fields(name="1")),
        ('{"count":"7"}', Fields(count=7)),
        ('{"count":7.0}', Fields(count=7)),
        ('{"count":""}', Fields()),
        ('{"flag":"true"}', Fields(flag=True)),
        ('{"flag":1}', Fields(flag=True)),
        ('{"share":"1.5"}', Fields(share=1.5)),
        ('{"names":"a, b,,c"}', Fields(names=["a", "b", "c"])),
        ('{"names":[1,"b"]}', Fields(names=["1", "b"])),
        ('{"numbers":"1,2"}', Fields(numbers=[1, 2])),
        ('{"numbers":3}', Fields(numbers=[3])),
        ('{"pairs":"a=b,c=d"}', Fields(pairs={"a": "b", "c": "d"})),
        ('{"pairs":{"a":1}}', Fields(pairs={"a": "1"})),
        ('{"any_map":{"a":[1]}}', Fields(any_map={"a": [1]})),
        ('{"ttl":"1h"}', Fields(ttl=3600)),
        ('{"ttl":60}', Fields(ttl=60)),
        ('{"signed":"-5s"}', Fields(signed=-5)),
        ('{"raw":{"x":1.50}}', Fields(raw=Raw(b'{"x":1.50}'))),
        ('{"name":null,"count":null}', Fields()),
        ("", Fields()),
    ],
)
def test_fields_are_taken_as_loosely_as_vault_takes_them(body: str, expected: Fields) -> None:
    assert fields(body) == expected


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('{"name":{}}', "\"name\": '' expected type 'string', got unconvertible type 'map[string]interface {}'"),
        ('{"count":"x"}', "\"count\": '' cannot parse value as 'int': strconv.ParseInt: invalid syntax"),
        ('{"flag":"zz"}', "\"flag\": '' cannot parse value as 'bool': strconv.ParseBool: invalid syntax"),
        ('{"ttl":"abc"}', '"ttl": time: invalid duration "abc"'),
        ('{"ttl":-5}', "\"ttl\": cannot provide negative value '-5'"),
        ('{"any_map":"x"}', "\"any_map\": '' expected type 'map[string]interface {}', got unconvertible type 'string'"),
    ],
)
def test_a_field_that_does_not_convert_is_named(body: str, problem: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        fields(body)

    assert refused.value.messages == (f"Field validation failed: error converting input for field {problem}",)


def test_reads_take_their_fields_from_the_query() -> None:
    found, unknown = decode_fields(Fields, Request("1", Operation.READ, "x", query={"count": "3", "zz": "1", "b": ""}))

    assert (found, unknown) == (Fields(count=3), ["b", "zz"])


def test_fields_within_a_field_are_converted_alike() -> None:
    assert convert_fields(Fields, {"ttl": "5m", "names": ["a"], "other": 1}) == Fields(ttl=300, names=["a"])


def test_a_field_without_a_default_is_required() -> None:
    class Needed(Struct):
        name: str

    with pytest.raises(InvalidRequest, match="missing required parameter 'name'"):
        decode_fields(Needed, Request("1", Operation.UPDATE, "x"))


def test_a_number_that_no_double_holds_is_refused() -> None:
    with pytest.raises(InvalidRequest, match='field "count": Number out of range'):
        decode_fields(Fields, Request("1", Operation.UPDATE, "x", body=b'{"count": 1e999}'))
