"""core/templates.py: paths of policies that mean something else for everybody."""

import pytest

from conclave.core.errors import InvalidRequest
from conclave.core.identity import Alias, Entity, Group
from conclave.core.policies import parse_policy
from conclave.core.templates import ForbiddenValue, Person, check_template, fill
from tests.clients import Client, auth_of, client, is_done, refusal
from tests.fakes import data_of

PERSON = Person(
    Entity("e-1", "bob", 0, 0, metadata={"team": "blue", "a.b": "dotted", "empty": ""}),
    [Alias("a-1", "bob@up", "auth_up_1", "e-1", 0, 0, metadata={"k": "v"}, custom_metadata={"c": "w"})],
    [Group("g-1", "ops.eu", 0, 0, metadata={"room": "r1"})],
)


@pytest.mark.parametrize(
    ("path", "filled"),
    [
        ("a/{{identity.entity.id}}/x", "a/e-1/x"),
        ("a/{{ identity.entity.name }}*", "a/bob*"),
        ("{{identity.entity.id}}{{identity.entity.name}}", "e-1bob"),
        ("a/{{identity.entity.metadata.team}}", "a/blue"),
        ("a/{{identity.entity.metadata.a.b}}", "a/dotted"),
        ("a/{{identity.entity.aliases.auth_up_1.name}}", "a/bob@up"),
        ("a/{{identity.entity.aliases.auth_up_1.id}}", "a/a-1"),
        ("a/{{identity.entity.aliases.auth_up_1.metadata.k}}", "a/v"),
        ("a/{{identity.entity.aliases.auth_up_1.custom_metadata.c}}", "a/w"),
        ("a/{{identity.groups.ids.g-1.name}}", "a/ops.eu"),
        ("a/{{identity.groups.names.ops.eu.id}}", "a/g-1"),
        ("a/{{identity.groups.names.ops.eu.metadata.room}}", "a/r1"),
    ],
)
def test_a_template_is_filled_with_what_is_known(path: str, filled: str) -> None:
    assert fill(path, PERSON) == filled


@pytest.mark.parametrize(
    "name",
    [
        "identity.entity.metadata.none",
        "identity.entity.metadata.empty",
        "identity.entity.metadata",
        "identity.entity.aliases.other.name",
        "identity.entity.aliases.auth_up_1.other",
        "identity.groups.ids.none.name",
        "identity.groups.names.ops.id",
        "identity.groups.ids",
        "identity.entity",
        "identity.other.id",
        "time.now",
        "",
    ],
)
def test_without_a_value_there_is_no_rule(name: str) -> None:
    assert fill(f"a/{{{{{name}}}}}/x", PERSON) is None


def test_a_token_that_stands_for_nobody_has_no_such_rules() -> None:
    assert fill("a/{{identity.entity.id}}", None) is None


@pytest.mark.parametrize("value", ["a/b", "*", "a*", "+", "../x"])
def test_a_value_that_would_widen_the_path_is_refused(value: str) -> None:
    person = Person(Entity("e-1", value, 0, 0), [], [])

    with pytest.raises(ForbiddenValue):
        fill("a/{{identity.entity.name}}/x", person)


@pytest.mark.parametrize("value", ["a+b@example.com", "..", "{{x}}", "a b"])
def test_other_values_stand_for_themselves(value: str) -> None:
    assert fill("a/{{identity.entity.name}}/x", Person(Entity("e-1", value, 0, 0), [], [])) == f"a/{value}/x"


@pytest.mark.parametrize(
    "path",
    ["a/{{x", "a/x}}", "}}a{{", "{{a{{b}}}}", "{{a}} }}", "{{" + " " * 100_000, "{{" * 100_000, "{{a" * 100_000 + "}}"],
    ids=range(8),
)
def test_braces_must_balance(path: str) -> None:
    with pytest.raises(ValueError, match="unbalanced templating characters"):
        check_template(path)
    with pytest.raises(InvalidRequest, match="failed to validate policy templating: unbalanced templating characters"):
        parse_policy("p", f'path "{path}" {{ }}')


# -- through a vault --


def log_in(vault: Client, document: str) -> tuple[str, str]:
    """Return token and entity id of a user with this policy."""
    vault.write("sys/policies/acl/own", {"policy": document})
    vault.write("sys/auth/userpass", {"type": "userpass"})
    vault.write("auth/userpass/users/bob", {"password": "pw", "token_policies": "own"})
    auth = auth_of(vault.write("auth/userpass/login/bob", {"password": "pw"}, token=""))
    return auth.client_token, auth.entity_id


def test_everybody_reaches_what_is_theirs() -> None:
    with client() as vault:
        token, entity_id = log_in(
            vault, 'path "secret/data/{{identity.entity.id}}/*" { capabilities = ["create", "read"] }'
        )

        assert data_of(vault.write(f"secret/data/{entity_id}/x", {"data": {}}, token=token))["version"] == 1
        assert refusal(vault.write("secret/data/other/x", {"data": {}}, token=token)).startswith("PermissionDenied")


def test_a_change_of_the_entity_holds_at_once() -> None:
    with client() as vault:
        token, entity_id = log_in(
            vault, 'path "secret/data/{{identity.entity.metadata.team}}/*" { capabilities = ["read"] }'
        )
        assert refusal(vault.read("secret/data/blue/x", token=token)).startswith("PermissionDenied")

        assert is_done(vault.write(f"identity/entity/id/{entity_id}", {"metadata": {"team": "blue"}}))
        assert refusal(vault.read("secret/data/blue/x", token=token)) == "NotFound"

        vault.write(f"identity/entity/id/{entity_id}", {"metadata": {"team": "red"}})
        assert refusal(vault.read("secret/data/blue/x", token=token)).startswith("PermissionDenied")


def test_a_forbidden_value_denies_everything() -> None:
    with client() as vault:
        token, entity_id = log_in(
            vault,
            'path "secret/*" { capabilities = ["read"] }\n'
            'path "secret/data/{{identity.entity.metadata.team}}" { capabilities = ["deny"] }',
        )
        vault.write(f"identity/entity/id/{entity_id}", {"metadata": {"team": "a*"}})

        assert "template substitution contains forbidden value" in refusal(vault.read("secret/data/x", token=token))
