"""core/hcl.py: the grammar by example, and no text that does more than be refused."""

import json

import pytest
from hypothesis import example, given
from hypothesis.strategies import booleans, dictionaries, integers, lists, recursive, text

from conclave.core.hcl import DEPTH_MAX, HclError, Item, Object, parse

CONFIG = """\
# where the data is
storage "raft" {
  path    = "/data"   // in the volume
  node_id = "a"
}

/* two
   lines */
listener "tcp" { address = "127.0.0.1:8200", tls_disable = true }
ui = false
max = 0x10
ratio = -1.5e2
names = ["a", "b",]
"""


def test_a_configuration_is_read_with_its_lines() -> None:
    body = parse(CONFIG).body

    assert [(item.key, item.labels, item.line) for item in body.items] == [
        ("storage", ("raft",), 2),
        ("listener", ("tcp",), 9),
        ("ui", (), 10),
        ("max", (), 11),
        ("ratio", (), 12),
        ("names", (), 13),
    ]


def test_values_keep_their_types() -> None:
    plain = parse(CONFIG).body.plain()

    assert plain == {
        "storage": {"raft": {"path": "/data", "node_id": "a"}},
        "listener": {"tcp": {"address": "127.0.0.1:8200", "tls_disable": True}},
        "ui": False,
        "max": 16,
        "ratio": -150.0,
        "names": ["a", "b"],
    }


@pytest.mark.parametrize(
    "text",
    [
        'path "a/*" { policy = "read" }',
        'path { "a/*" { policy = "read" } }',
        'path = { "a/*" = { policy = "read" } }',
        '{"path": {"a/*": {"policy": "read"}}}',
        '{"path": [{"a/*": {"policy": "read"}}]}',
        '{"path": [{"a/*": [{"policy": "read"}]}]}',
    ],
)
def test_a_labelled_block_can_be_written_in_several_ways(text: str) -> None:
    (block,) = parse(text).body.blocks("path")

    assert isinstance(block.value, Object)
    assert (block.labels, block.value.plain()) == (("a/*",), {"policy": "read"})


def test_blocks_refuse_what_has_no_label() -> None:
    with pytest.raises(HclError, match=r"^p.hcl:2: 'path' must be a labelled block$"):
        parse('\npath = "x"').body.blocks("path", source="p.hcl")


def test_of_repeated_keys_the_last_counts() -> None:
    assert parse("a = 1\na = 2").body.get("a") == Item("a", (), 2, 2)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"a\n\t\"\\"', 'a\n\t"\\'),
        (r'"\u00e9\x41\101\U0001F600"', "éAA😀"),
        (r'"\ud83d\ude00"', "😀"),
        ('"${var.x["y"]}/z $5"', '${var.x["y"]}/z $5'),
        ("<<EOF\none\n  two\nEOF", "one\n  two\n"),
        ("<<-EOF\n  one\n    two\n  EOF", "one\n  two\n"),
        ("<<EOF\nEOF", ""),
        ("-7", -7),
        ("[]", []),
        ("null", None),
    ],
)
def test_a_value_is_read_as_written(text: str, value: object) -> None:
    item = parse(f"key = {text}\nnext = 1").body.get("key")

    assert item is not None
    assert item.value == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path x", "line 1: key 'path x' expected start of object ('{') or assignment ('=')"),
        ('\n\na = "b', "line 3: literal not terminated"),
        ("a = <<EOF\nb", "line 1: heredoc not terminated"),
        ("a = [1 2]", "line 1: error parsing list, expected comma or list end, got: 2"),
        ("a = [1", "line 1: error parsing list, expected comma or list end, got: end of text"),
        ("a {\n b = 1", "line 2: object expected closing RBRACE got: EOF"),
        ("a = read", "line 1: expected a value, found 'read'"),
        ("a = 1 }", "line 1: expected a key, found '}'"),
        ("{} {}", "line 1: unexpected '{'"),
        ("/* a", "line 1: comment not terminated"),
        ("a = ?", "line 1: illegal character '?'"),
        ("a = 1e999", "line 1: number too large: 1e999"),
        ("a = " + "9" * 5000, "line 1: number too large"),
        (r'a = "\q"', "line 1: illegal char escape"),
        (r'a = "\ud800"', "line 1: illegal char escape: half a surrogate pair"),
        ('a = "${b"', "line 1: expected terminating braces"),
        ('a "b" = 1', "line 1: key 'a b' expected start of object ('{')"),
    ],
)
def test_what_is_no_hcl_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(HclError) as refusal:
        parse(text)

    assert str(refusal.value) == message


def test_an_error_names_its_file() -> None:
    with pytest.raises(HclError, match=r"^conclave\.hcl:2: "):
        parse("a = 1\nb", "conclave.hcl")


@pytest.mark.parametrize("opening", ["[", "{ b = "])
def test_deep_nesting_is_refused(opening: str) -> None:
    with pytest.raises(HclError, match=f"nested deeper than {DEPTH_MAX}"):
        parse("a = " + opening * 10_000)


@given(text())
@example("a = \ud800")
@example('a = "\ud800"')
@example("a=0_1")
def test_no_text_raises_anything_but_hcl_error(source: str) -> None:
    try:
        parse(source)
    except HclError:
        return


@given(text(alphabet='ab{}[]=:,"\\$<-E\n\t #/*01.ex'))
def test_no_text_of_the_grammars_own_characters_raises_anything_but_hcl_error(source: str) -> None:
    try:
        parse(source)
    except HclError:
        return


_JSON = recursive(
    booleans() | integers() | text(), lambda inner: lists(inner, max_size=4) | dictionaries(text(), inner, max_size=4)
)


@given(dictionaries(text(), _JSON, max_size=4))
def test_json_reads_as_json(value: dict[str, object]) -> None:
    assert parse(json.dumps(value)).body.plain() == value
