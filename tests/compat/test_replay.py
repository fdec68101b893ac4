"""tests/compat/replay.py itself: what it makes neutral, what it finds, and that its list can be read."""

from typing import Any

import pytest

from tests.compat.masks import Masks, differences
from tests.compat.replay import HERE, LISTED, Step, parse_listed, parse_steps

MASKS = Masks({"127.0.0.1:8200": "<api a>"})


@pytest.mark.parametrize(
    ("value", "neutral"),
    [
        ({"request_id": "1"}, {"request_id": "<request_id>"}),
        ({"nonce": ""}, {"nonce": ""}),
        ("2026-11-24T00:06:01.34493101Z", "<time>"),
        ("hvs.CAESIJlU9JMYEhOPYv4igdhm9PnZDrabYTobQ4Ymnlq1qY", "<token>"),
        ("s.jTiotu4CuLs8FB527QObmkn1", "<token>"),
        ("auth_userpass_fa39e747", "<auth_userpass>"),
        ("http://127.0.0.1:8200/v1/x", "http://<api a>/v1/x"),
        ("vault:v2:e53BuovfrpfYACKBbWOWO/3p4cxf2zuPv+H=", "<v2 text>"),
        ("an ordinary text", "an ordinary text"),
        (3600, 3600),
        (1_795_478_602, "<time>"),
    ],
)
def test_what_says_nothing_is_made_neutral(value: Any, neutral: Any) -> None:
    assert MASKS.neutral(value) == neutral


def test_every_difference_is_found_where_it_is() -> None:
    there = {"a": {"b": [1, 2]}, "gone": True, "ttl": 3600}
    here = {"a": {"b": [1, 3]}, "new": None, "ttl": 3599}

    assert list(differences(there, here)) == [
        ("a.b.1", 2, 3),
        ("gone", True, "<absent>"),
        ("new", "<absent>", None),
    ]


def test_another_status_is_one_difference() -> None:
    there, here = {"status": 200, "body": {"a": 1}}, {"status": 404, "body": {"errors": []}}

    assert list(differences(there, here)) == [("status", "200 {'a': 1}", "404 {'errors': []}")]


def test_steps_are_read_as_they_are_written() -> None:
    text = "== one\nPUT a x/y @{t} -H 'A: b' -d {\"c\": 1}\n  save n data.id\nwait answer b x/y\n"

    assert list(parse_steps(text)) == [
        Step("one", "PUT", "a", "x/y", "{t}", (("A", "b"),), '{"c": 1}', (("n", "data.id"),)),
        Step("one", "wait", "b", "answer x/y"),
    ]


def test_the_requests_and_the_list_of_differences_can_be_read() -> None:
    assert len(list(parse_steps((HERE / "requests.txt").read_text(encoding="utf-8")))) > 480
    assert len(parse_listed(LISTED.read_text(encoding="utf-8"))) > 30
