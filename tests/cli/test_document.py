import json

import pytest
import yaml  # type: ignore[import-untyped]  # no stubs among the dependencies; used by this test alone
from hypothesis import given
from hypothesis.strategies import booleans, dictionaries, integers, lists, none, recursive, text

from conclave.cli.document import Fields, cell, compact_json, parse_json, pretty_json, quoted_list, yaml_document

documents = recursive(
    none() | booleans() | integers(-(2**63), 2**63) | text(max_size=12),
    lambda inner: lists(inner, max_size=3) | dictionaries(text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


def test_json_is_indented_sorted_and_escaped_as_go_does() -> None:
    value = {"b": [1, {"x": None}], "a": "<&>", "u": "grüße", "empty": {}, "none": []}

    assert pretty_json(value) == (
        "{\n"
        '  "a": "\\u003c\\u0026\\u003e",\n'
        '  "b": [\n    1,\n    {\n      "x": null\n    }\n  ],\n'
        '  "empty": {},\n'
        '  "none": [],\n'
        '  "u": "grüße"\n'
        "}"
    )


def test_the_fields_of_a_record_keep_their_order() -> None:
    assert compact_json(Fields(b=1, a={"d": 2, "c": 3})) == '{"b":1,"a":{"c":3,"d":2}}'


def test_a_number_keeps_its_spelling() -> None:
    text_sent = '{"big":123456789012345678901234567890,"e":1e3,"f":1.50}'

    assert compact_json(parse_json(text_sent)) == text_sent
    assert cell(parse_json(text_sent)) == "map[big:123456789012345678901234567890 e:1e3 f:1.50]"


@given(value=documents)
def test_json_is_read_again(value: object) -> None:
    assert json.loads(pretty_json(value)) == value
    assert json.loads(compact_json(value)) == value


@given(value=documents)
def test_yaml_is_read_again_by_another_reader(value: object) -> None:
    assert yaml.safe_load(yaml_document(value)) == value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", '""'),
        ("plain", "plain"),
        ("null", '"null"'),
        ("1e3", '"1e3"'),
        ("on", '"on"'),
        ("2026-11-24T18:18:37.1Z", '"2026-11-24T18:18:37.1Z"'),
        ("a: b", "'a: b'"),
        ("a #b", "'a #b'"),
        ("- a", "'- a'"),
        (" x", "' x'"),
        ('{"a":1}', "'{\"a\":1}'"),
        ('it\'s "q"', 'it\'s "q"'),
        ("a\tb", '"a\\tb"'),
        ("grüße <&>", "grüße <&>"),
        ([], "[]"),
        ({}, "{}"),
        (None, "null"),
        (True, "true"),
    ],
)
def test_yaml_quotes_what_would_be_read_as_something_else(value: object, shown: str) -> None:
    assert yaml_document({"k": value}) == f"k: {shown}"


def test_yaml_shows_several_lines_as_a_block() -> None:
    assert yaml_document({"t": "multi\nline", "u": "a\nb\n"}) == "t: |-\n  multi\n  line\nu: |\n  a\n  b"


def test_yaml_indents_maps_and_not_lists() -> None:
    assert (
        yaml_document({"n": {"l": [1, {"x": None, "y": [2]}]}}) == '"n":\n  l:\n  - 1\n  - x: null\n    "y":\n    - 2'
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "<nil>"),
        (True, "true"),
        ({"b": None, "a": [1, "x"]}, "map[a:[1 x] b:<nil>]"),
        ([], "[]"),
        ({}, "map[]"),
        ("", ""),
    ],
)
def test_a_cell_shows_what_go_would_print(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_names_in_a_cell_are_quoted() -> None:
    assert quoted_list(["default", "p1"]) == '["default" "p1"]'
    assert quoted_list(None) == "[]"
