"""core/policies.py and sys/policies: the language, its refusals, and the store."""

import base64

import pytest

from conclave.core.contract import Response
from conclave.core.errors import InvalidRequest
from conclave.core.policies import DEFAULT_POLICY, parse_policy
from conclave.core.system.policies import PolicyOperations
from tests.clients import client, is_done, refusal
from tests.fakes import data_of

READ_X = 'path "x" { capabilities = ["read"] }'


@pytest.mark.parametrize(
    "text", [READ_X, '{"path": {"x": {"capabilities": ["read"]}}}', 'path "/x" { capabilities = ["read",] }']
)
def test_a_document_is_hcl_or_json(text: str) -> None:
    (rule,) = parse_policy("p", text).rules

    assert (rule.path, set(rule.capabilities)) == ("x", {"read"})


@pytest.mark.parametrize(
    ("legacy", "capabilities"),
    [
        ("read", {"read", "list"}),
        ("write", {"create", "read", "update", "delete", "list"}),
        ("sudo", {"create", "read", "update", "delete", "list", "sudo"}),
        ("deny", {"deny"}),
    ],
)
def test_the_older_form_names_a_set(legacy: str, capabilities: set[str]) -> None:
    assert parse_policy("p", f'path "x" {{ policy = "{legacy}" }}').rules[0].capabilities == capabilities


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('path "x" {capabilities=["foo"]}', 'path "x": path "x": invalid capability "foo"'),
        ('path "x" {capabilities="read"}', 'path "x": path "x": "capabilities" must be a list of strings, on line 1'),
        ('path "x" {policy="foo"}', 'path "x": path "x": invalid policy "foo"'),
        ('pth "x" {}', '1 error occurred:\n\t* invalid key "pth" on line 0\n\n'),
        (
            "a = 1\nb = 2",
            '2 errors occurred:\n\t* invalid key "a" on line 1\n\t* invalid key "b" on line 2\n\n',
        ),
        ('path "x" {\nfoo = 1}', 'path "x": 1 error occurred:\n\t* invalid key "foo" on line 2\n\n'),
        ('path "a+*" {}', 'path "a+*": path "a+*": invalid use of wildcards (\'+*\' is forbidden)'),
        ('path "x" {min_wrapping_ttl="zz"}', 'path "x": error parsing min_wrapping_ttl: time: invalid duration "zz"'),
        (
            'path "x" {min_wrapping_ttl=9 max_wrapping_ttl=5}',
            'path "x": max_wrapping_ttl cannot be less than min_wrapping_ttl',
        ),
        ("path x", "line 1: key 'path x' expected start of object ('{') or assignment ('=')"),
    ],
)
def test_a_wrong_document_is_refused_in_vaults_words(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_policy("p", text)

    assert refused.value.messages == (f"failed to parse policy: {message}",)


def test_the_default_policy_is_a_policy() -> None:
    assert parse_policy("default", DEFAULT_POLICY).rules


def test_a_policy_is_written_read_listed_and_deleted() -> None:
    with client() as vault:
        assert is_done(vault.write("sys/policies/acl/App", {"policy": READ_X}))

        stored = vault.data("sys/policies/acl/app")
        assert (stored["name"], stored["policy"], stored["version"]) == ("app", READ_X, 1)
        assert vault.keys("sys/policies/acl") == ["app", "default", "root"]

        assert is_done(vault.delete("sys/policies/acl/app"))
        assert refusal(vault.read("sys/policies/acl/app")) == "NotFound"


def test_the_older_path_calls_the_document_rules() -> None:
    with client() as vault:
        answer = vault.write("sys/policy/app", {"rules": READ_X})

        assert isinstance(answer, Response)
        assert answer.warnings == ["'rules' is deprecated, please use 'policy' instead"]
        assert vault.data("sys/policy/app")["rules"] == READ_X
        assert vault.data("sys/policy")["policies"] == ["app", "default", "root"]


def test_a_document_may_come_in_base64() -> None:
    with client() as vault:
        vault.write("sys/policies/acl/app", {"policy": base64.b64encode(READ_X.encode()).decode()})

        assert vault.data("sys/policies/acl/app")["policy"] == READ_X


def test_a_name_may_hold_slashes() -> None:
    with client() as vault:
        vault.write("sys/policies/acl/team/app", {"policy": READ_X})

        assert vault.data("sys/policies/acl/team/app")["name"] == "team/app"
        assert "team/app" in vault.keys("sys/policies/acl")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("root", 'cannot update "root" policy'),
        ("response-wrapping", 'cannot update "response-wrapping" policy'),
    ],
)
def test_some_policies_cannot_be_written(name: str, message: str) -> None:
    with client() as vault:
        assert refusal(vault.write(f"sys/policies/acl/{name}", {"policy": READ_X})) == f"InvalidRequest: {message}"


@pytest.mark.parametrize(
    ("name", "message"), [("root", 'cannot delete "root" policy'), ("default", "cannot delete default policy")]
)
def test_some_policies_cannot_be_deleted(name: str, message: str) -> None:
    with client() as vault:
        assert refusal(vault.delete(f"sys/policies/acl/{name}")) == f"InvalidRequest: {message}"


def test_a_write_can_name_the_version_that_it_replaces() -> None:
    with client() as vault:
        vault.write("sys/policies/acl/app", {"policy": READ_X, "cas": -1})

        late = vault.write("sys/policies/acl/app", {"policy": READ_X, "cas": 0})
        blind = vault.write("sys/policies/acl/app", {"policy": READ_X, "cas_required": True})

        assert refusal(late) == "InvalidRequest: check-and-set parameter 0 did not match the current version 1"
        assert refusal(blind) == "InvalidRequest: check-and-set parameter required for this call"
        assert is_done(vault.write("sys/policies/acl/app", {"policy": READ_X, "cas": 1}))


def test_a_change_holds_for_tokens_that_exist() -> None:
    with client() as vault:
        vault.write("sys/policies/acl/app", {"policy": 'path "secret/data/*" { capabilities = ["read"] }'})
        token = vault.new_token(policies=["app"]).client_token
        assert refusal(vault.read("secret/data/a", token=token)) == "NotFound"

        vault.write("sys/policies/acl/app", {"policy": READ_X})

        assert refusal(vault.read("secret/data/a", token=token)).startswith("PermissionDenied")


def test_capabilities_are_told_of_oneself_a_token_and_an_accessor() -> None:
    with client() as vault:
        vault.write("sys/policies/acl/app", {"policy": READ_X})
        made = vault.new_token(policies=["app"])

        own = vault.write("sys/capabilities-self", {"paths": "x,y"}, token=made.client_token)
        others = vault.write("sys/capabilities", {"token": made.client_token, "path": "x"})
        by_accessor = vault.write("sys/capabilities-accessor", {"accessor": made.accessor, "paths": ["/x"]})

        assert data_of(own) == {"x": ["read"], "y": ["deny"]}
        assert data_of(others) == {"x": ["read"], "capabilities": ["read"]}
        assert data_of(by_accessor) == {"/x": ["read"], "capabilities": ["read"]}


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("capabilities-self", {}, "paths must be supplied"),
        ("capabilities", {"token": "none", "paths": ["x"]}, "1 error occurred:\n\t* invalid token\n\n"),
        ("capabilities-accessor", {"accessor": "none", "paths": ["x"]}, "1 error occurred:\n\t* invalid accessor\n\n"),
        ("capabilities-accessor", {"paths": ["x"]}, "missing accessor"),
    ],
)
def test_a_question_without_sense_is_refused(path: str, fields: dict[str, object], message: str) -> None:
    with client() as vault:
        assert refusal(vault.write(f"sys/{path}", fields)) == f"InvalidRequest: {message}"


def test_user_interfaces_learn_everything_a_token_may_do() -> None:
    with client() as vault:
        vault.write("sys/policies/acl/app", {"policy": 'path "a/*" { capabilities = ["read"] }'})
        token = vault.new_token(policies=["app"]).client_token

        told = vault.data("sys/internal/ui/resultant-acl", token=token)

        assert told["glob_paths"]["a/"] == {"capabilities": ["read"]}
        assert told["exact_paths"]["auth/token/lookup-self"] == {"capabilities": ["read"]}
        assert vault.data("sys/internal/ui/resultant-acl") == {"root": True}


def test_every_operation_has_a_summary() -> None:
    assert all(declared.summary for declared in PolicyOperations.declarations())


def test_a_patch_changes_what_it_names_and_leaves_the_rest() -> None:
    with client() as vault:
        vault.write("sys/policies/acl/app", {"policy": READ_X})

        assert is_done(vault.patch("sys/policies/acl/app", {"cas_required": True}))

        shown = vault.data("sys/policies/acl/app")
        assert (shown["policy"], shown["version"], shown["cas_required"]) == (READ_X, 2, True)
        assert "check-and-set parameter required" in refusal(vault.patch("sys/policies/acl/app", {"policy": READ_X}))


def test_what_is_not_there_cannot_be_patched() -> None:
    with client() as vault:
        assert refusal(vault.patch("sys/policies/acl/none", {"cas_required": True})) == (
            "InvalidRequest: policy not found"
        )


@pytest.mark.parametrize(
    ("kind", "lists", "merged"),
    [
        ("denied_parameters", '"a" = [] "A" = ["x"]', []),
        ("denied_parameters", '"a" = ["y"] "A" = ["x"]', ["y", "x"]),
        ("allowed_parameters", '"a" = [] "A" = ["x"]', ["x"]),
        ("allowed_parameters", '"a" = ["y"] "A" = ["x"]', ["y", "x"]),
        ("allowed_parameters", '"a" = []', []),
    ],
)
def test_names_that_differ_in_case_alone_are_one(kind: str, lists: str, merged: list[str]) -> None:
    (rule,) = parse_policy("p", f'path "x" {{ capabilities = ["update"] {kind} = {{ {lists} }} }}').rules

    assert getattr(rule, kind) == {"a": merged}
