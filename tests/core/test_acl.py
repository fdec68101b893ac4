"""core/acl.py: which rule decides, and what it asks of a request."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import composite, lists, sampled_from

from conclave.core.acl import Acl
from conclave.core.contract import Operation
from conclave.core.policies import ROOT_POLICY, parse_policy


def acl(*documents: str) -> Acl:
    return Acl.compile([parse_policy(f"p{number}", text) for number, text in enumerate(documents)])


def rule(path: str, *capabilities: str, more: str = "") -> str:
    granted = ", ".join(f'"{capability}"' for capability in capabilities)
    return f'path "{path}" {{ capabilities = [{granted}]\n{more} }}'


@pytest.mark.parametrize(
    ("winner", "loser", "path"),
    [
        ("secret/a", "secret/+", "secret/a"),
        ("secret/a/+", "secret/+/b", "secret/a/b"),
        ("secret/+/mid", "secret/*", "secret/x/mid"),
        ("secret/+/b", "secret/+/*", "secret/a/b"),
        ("secret/+/b/*", "secret/+/+/*", "secret/a/b/c"),
        ("secret/abc*", "secret/ab*", "secret/abcd"),
        ("secret/a*", "*", "secret/a"),
        ("+/b/cc*", "+/b/c*", "a/b/ccc"),
    ],
)
def test_the_more_specific_rule_decides_alone(winner: str, loser: str, path: str) -> None:
    assert acl(rule(loser, "delete"), rule(winner, "read")).capabilities(path) == ["read"]


def test_rules_of_one_path_are_united() -> None:
    assert acl(rule("a/*", "read"), rule("a/*", "list", "create")).capabilities("a/b") == ["create", "list", "read"]


def test_deny_beats_all_of_its_path() -> None:
    merged = acl(rule("a", "read", "sudo"), rule("a", "deny"))

    assert merged.capabilities("a") == ["deny"]
    assert not merged.check("a", Operation.READ)


@pytest.mark.parametrize("path", ["b", "a", "ab", "a/b/c"])
def test_what_no_rule_covers_is_denied(path: str) -> None:
    assert acl(rule("a/+", "read")).capabilities(path) == ["deny"]


@pytest.mark.parametrize("path", ["x+y", "a*b", "a+"])
def test_wildcards_elsewhere_stand_for_themselves(path: str) -> None:
    assert acl(rule(path, "read")).capabilities(path) == ["read"]
    assert acl(rule(path, "read")).capabilities("xzy") == ["deny"]


def test_root_may_do_everything() -> None:
    root = Acl.compile([ROOT_POLICY])

    assert root.capabilities("anything") == ["root"]
    assert root.check("sys/seal", Operation.UPDATE, sudo_needed=True)


@pytest.mark.parametrize("path", ["secret/metadata/", "secret/metadata"])
@pytest.mark.parametrize("granted", ["secret/metadata/*", "secret/metadata/", "secret/metadata", "secret/+"])
def test_a_listing_is_covered_with_and_without_its_slash(path: str, granted: str) -> None:
    assert acl(rule(granted, "list")).check(path, Operation.LIST)


def test_a_pattern_without_the_slash_counts_only_if_nothing_else_matches() -> None:
    assert acl(rule("a/+", "list"), rule("*", "read")).capabilities("a/b/") == ["read"]


def test_create_is_not_update() -> None:
    creator = acl(rule("a", "create"))

    assert creator.check("a", Operation.UPDATE, exists=lambda: False)
    assert not creator.check("a", Operation.UPDATE, exists=lambda: True)
    assert not creator.check("a", Operation.UPDATE, exists=lambda: None)
    assert not creator.check("a", Operation.UPDATE)


def test_update_is_not_create() -> None:
    updater = acl(rule("a", "update"))

    assert not updater.check("a", Operation.UPDATE, exists=lambda: False)
    assert updater.check("a", Operation.UPDATE, exists=lambda: True)


@pytest.mark.parametrize("capabilities", [("create", "update"), ("read",)])
def test_whether_a_write_creates_is_not_asked_where_no_rule_tells_it_from_an_update(
    capabilities: tuple[str, ...],
) -> None:
    def ask() -> bool:
        raise AssertionError("asked")

    decided = acl(rule("a", *capabilities)).check("a", Operation.UPDATE, exists=ask)

    assert decided is ("update" in capabilities)


def test_sudo_is_needed_besides_the_operation() -> None:
    assert not acl(rule("a", "update")).check("a", Operation.UPDATE, sudo_needed=True)
    assert acl(rule("a", "update", "sudo")).check("a", Operation.UPDATE, sudo_needed=True)


PARAMETERS = """
allowed_parameters = { "a" = ["1", "2*"] "b" = [] "flag" = [true] "n" = [5] }
denied_parameters = { "c" = [] }
required_parameters = ["a"]
"""


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({"a": "1"}, True),
        ({"a": "1", "B": "x"}, True),
        ({"A": "1"}, False),
        ({"a": "*"}, False),
        ({"a": "25", "b": "anything"}, True),
        ({"a": "1", "flag": True, "n": 5}, True),
        ({"a": "1", "flag": "true"}, False),
        ({"a": "1", "n": "5"}, False),
        ({"a": 1}, False),
        ({"a": ["1"]}, False),
        ({"a": "1", "c": []}, False),
        ({"a": "1", "A": "3"}, False),
        ({"A": "3", "a": "1"}, False),
        ({"a": "3"}, False),
        ({"b": "x"}, False),
        ({"a": "1", "c": 1}, False),
        ({"a": "1", "z": 1}, False),
        ({}, False),
    ],
)
def test_parameters_are_held_against_the_rule(fields: dict[str, Any], allowed: bool) -> None:
    restricted = acl(rule("a", "create", "update", more=PARAMETERS))

    assert restricted.check("a", Operation.UPDATE, parameters=lambda: fields) is allowed


@pytest.mark.parametrize("value", ["1", 1, ["0", 1], "2x"])
def test_a_denied_value_is_denied_however_it_is_spelled(value: Any) -> None:
    restricted = acl(rule("a", "update", more='denied_parameters = { "x" = ["1", "2*"] }'))

    assert not restricted.check("a", Operation.UPDATE, parameters=lambda: {"x": value})
    assert restricted.check("a", Operation.UPDATE, parameters=lambda: {"x": "3"})


def test_a_star_allows_all_other_parameters_with_any_value() -> None:
    restricted = acl(rule("a", "update", more='allowed_parameters = { "x" = ["1"] "*" = ["2"] }'))

    assert restricted.check("a", Operation.UPDATE, parameters=lambda: {"x": "1", "y": "anything"})
    assert not restricted.check("a", Operation.UPDATE, parameters=lambda: {"x": "2"})


def test_all_parameters_can_be_denied() -> None:
    closed = acl(rule("a", "update", more='denied_parameters = { "*" = [] }'))

    assert closed.check("a", Operation.UPDATE, parameters=dict)
    assert not closed.check("a", Operation.UPDATE, parameters=lambda: {"x": 1})


def test_parameters_of_a_read_do_not_matter() -> None:
    assert acl(rule("a", "read", more=PARAMETERS)).check("a", Operation.READ)


@pytest.mark.parametrize(("ttl", "allowed"), [(None, False), (10, False), (30, True), (60, True), (61, False)])
def test_wrapping_can_be_demanded(ttl: int | None, allowed: bool) -> None:
    wrapped = acl(rule("a", "read", more='min_wrapping_ttl = "30s"\nmax_wrapping_ttl = 60'))

    assert wrapped.check("a", Operation.READ, wrap_ttl_seconds=ttl) is allowed


@pytest.mark.parametrize(
    ("path", "prefix", "reached"),
    [
        ("secret/data/a", "secret/", True),
        ("secret/*", "secret/", True),
        ("sec*", "secret/", True),
        ("+/data", "secret/", True),
        ("secret", "secret/", True),
        ("other/*", "secret/", False),
        ("secrets/a", "secret/", False),
        ("auth/a/login", "auth/b/", False),
    ],
)
def test_a_mount_is_reached_if_any_rule_leads_into_it(path: str, prefix: str, reached: bool) -> None:
    assert acl(rule(path, "read")).reaches(prefix) is reached


def test_a_denied_mount_is_not_reached() -> None:
    assert not acl(rule("secret/*", "deny")).reaches("secret/")


def test_everything_that_a_token_may_do_is_described() -> None:
    described = acl(rule("a", "read"), rule("b/*", "list", "create"), rule("c/+", "read"), rule("d", "deny"))

    assert described.described() == ({"a": ["read"], "d": ["deny"]}, {"b/": ["create", "list"]})


@composite
def rule_paths(draw: Any) -> str:
    segments = draw(lists(sampled_from(["a", "b", "+", "a*b"]), min_size=1, max_size=3))
    ending: str = draw(sampled_from(["", "*", "/*"]))
    return "/".join(segments) + ending


@given(
    lists(rule_paths(), min_size=1, max_size=4),
    lists(sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map("/".join),
)
def test_the_order_of_policies_does_not_matter(paths: list[str], asked: str) -> None:
    paths = [path for path in paths if "+*" not in path]
    documents = [rule(path, ["read", "list", "create", "delete"][number]) for number, path in enumerate(paths)]

    assert acl(*documents).capabilities(asked) == acl(*reversed(documents)).capabilities(asked)
