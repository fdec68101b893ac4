"""core/passwords.py and sys/policies/password: what a policy may say, and what the passwords are like."""

import os

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, text, tuples

from conclave.core.errors import InvalidRequest
from conclave.core.passwords import CharsetRule, PasswordPolicy, generate_password, parse_password_policy
from tests.clients import client, is_done, refusal

POLICY = 'length = 20\nrule "charset" { charset = "cab" min-chars = 2 }\nrule "charset" { charset = "01" }'


def test_a_policy_is_read() -> None:
    assert parse_password_policy(POLICY) == PasswordPolicy(20, (CharsetRule("abc", 2), CharsetRule("01", 0)))


def test_json_says_the_same() -> None:
    written = (
        '{"length": 20, "rule": [{"charset": {"charset": "cab", "min-chars": 2}}, {"charset": {"charset": "01"}}]}'
    )

    assert parse_password_policy(written) == parse_password_policy(POLICY)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ('rule "charset" { charset = "a" }', "length must be > 0"),
        ("length = 8", "no charset specified"),
        ('length = 8\nrule "charset" { charset = "" }', "no charset specified"),
        ('length = 8\nrule "charset" { charset = "a" min-chars = 9 }', "require at least 9 characters but 8 is"),
        ('length = 8\nrule "word" { charset = "a" }', "unrecognized rule type word"),
        ('length = 3\nrule "charset" { charset = "a" }', "between 4 and 100 characters"),
        ('length = 101\nrule "charset" { charset = "a" }', "between 4 and 100 characters"),
        ('length = "x"\nrule "charset" { charset = "a" }', "length must be a whole number"),
        ('length = 8\nrule "charset" { charset = 5 }', "charset must be a string"),
        ('length = 8\nrule "charset" { charset = "a\\n" }', "printable"),
        ('length = 8\nrule "charset" { min-chars = 1 }\nrule "charset" { charset = "a" }', "names none"),
        ("length = ", "unable to decode"),
    ],
)
def test_what_no_password_can_be_made_of_is_refused(document: str, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        parse_password_policy(document)


@given(
    lists(tuples(text("abcdefé漢", min_size=1, max_size=6), integers(0, 6)), min_size=1, max_size=4),
    integers(24, 100),
)
def test_every_password_obeys_its_policy(rules: list[tuple[str, int]], length: int) -> None:
    policy = PasswordPolicy(
        length, tuple(CharsetRule("".join(sorted(set(charset))), count_min) for charset, count_min in rules)
    )

    password = generate_password(policy, os.urandom)

    assert len(password) == length
    assert set(password) <= {character for rule in policy.rules for character in rule.charset}
    for rule in policy.rules:
        assert sum(character in rule.charset for character in password) >= rule.count_min


def test_a_password_is_made_by_a_policy_that_was_written() -> None:
    with client() as vault:
        assert is_done(vault.write("sys/policies/password/pp", {"policy": POLICY}))

        first = vault.data("sys/policies/password/pp/generate")["password"]

        assert len(first) == 20
        assert first != vault.data("sys/policies/password/pp/generate")["password"]
        assert vault.data("sys/policies/password/pp") == {"policy": POLICY}
        assert vault.keys("sys/policies/password") == ["pp"]


def test_a_policy_that_was_deleted_makes_no_password() -> None:
    with client() as vault:
        vault.write("sys/policies/password/pp", {"policy": POLICY})

        assert is_done(vault.delete("sys/policies/password/pp"))

        assert "policy does not exist" in refusal(vault.read("sys/policies/password/pp/generate"))
