"""auth/token/: who may make which token, what it is like, and how it ends; rules measured on a real server."""

from typing import Any

import pytest

from conclave.core.contract import Auth, Response
from tests.clients import Client, auth_of, client, is_done, refusal
from tests.fakes import data_of

MAY_CREATE = 'path "auth/token/create*" { capabilities = ["create", "update"] }'
MAY_CREATE_ALL = 'path "auth/token/create*" { capabilities = ["create", "update", "sudo"] }'
DAY_32 = 2_764_800


def warnings_of(outcome: Any) -> list[str]:
    assert isinstance(outcome, Response), outcome
    return outcome.warnings


def creator(vault: Client, document: str = MAY_CREATE, **fields: Any) -> str:
    """Return a token that may make tokens."""
    vault.write("sys/policies/acl/maker", {"policy": document})
    return vault.new_token(**({"policies": ["maker"]} | fields)).client_token


def role_token(vault: Client, role: dict[str, Any], token: str = "", **fields: Any) -> Any:
    """Write a role and ask for a token through it."""
    assert is_done(vault.write("auth/token/roles/r", role))
    return vault.write("auth/token/create/r", fields, token=token or vault.fake.root)


# -- what a token is like --


@pytest.mark.parametrize("name", ["response-wrapping", " Response-Wrapping"])
def test_nobody_makes_a_wrapping_token_by_hand(name: str) -> None:
    with client() as vault:
        outcome = vault.write("auth/token/create", {"policies": [name], "no_default_policy": True})

        assert refusal(outcome) == 'InvalidRequest: cannot assign policy "response-wrapping"'


def test_a_child_of_root_is_root_without_an_end() -> None:
    with client() as vault:
        auth = vault.new_token()

        assert (auth.policies, auth.lease_duration, auth.renewable, auth.orphan) == (["root"], 0, False, False)


def test_a_token_has_what_was_asked_for() -> None:
    with client() as vault:
        made = vault.write(
            "auth/token/create",
            {"policies": ["P1"], "ttl": "1h", "num_uses": 3, "meta": {"a": "b"}, "display_name": "d n!"},
        )
        auth = auth_of(made)

        assert auth.policies == ["default", "p1"]
        assert (auth.lease_duration, auth.renewable, auth.num_uses, auth.metadata) == (3600, True, 3, {"a": "b"})
        assert warnings_of(made) == ['Policy "p1" does not exist']
        looked_up = data_of(vault.write("auth/token/lookup", {"token": auth.client_token}))
        assert (looked_up["display_name"], looked_up["path"]) == ("token-d-n", "auth/token/create")


def test_the_first_root_token_says_less_of_itself() -> None:
    with client() as vault:
        looked_up = vault.data("auth/token/lookup-self")

        assert looked_up["path"] == "auth/token/root"
        assert not {"issue_time", "renewable", "last_renewal"} & set(looked_up)
        assert (looked_up["ttl"], looked_up["expire_time"], looked_up["display_name"]) == (0, None, "root")


def test_a_lookup_by_accessor_hides_the_text() -> None:
    with client() as vault:
        made = vault.new_token(policies=["default"])

        assert data_of(vault.write("auth/token/lookup-accessor", {"accessor": made.accessor}))["id"] == ""


def test_uses_are_counted_down_and_then_over() -> None:
    with client() as vault:
        token = vault.new_token(policies=["default"], num_uses=2).client_token

        assert vault.data("auth/token/lookup-self", token=token)["num_uses"] == 1
        assert vault.data("auth/token/lookup-self", token=token)["num_uses"] == -1
        assert refusal(vault.read("auth/token/lookup-self", token=token)) == "PermissionDenied: permission denied"


def test_a_batch_token_has_no_accessor_and_cannot_be_renewed_or_revoked() -> None:
    with client() as vault:
        auth = vault.new_token(policies=["default"], type="batch", ttl="10m")

        assert (auth.accessor, auth.token_type, auth.renewable, auth.lease_duration) == ("", "batch", False, 600)
        for path, word in (("renew-self", "renewed"), ("revoke-self", "revoked")):
            refused = vault.write(f"auth/token/{path}", token=auth.client_token)
            assert refusal(refused) == f"InvalidRequest: batch tokens cannot be {word}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "zz"}, "invalid 'token_type' value"),
        ({"type": "batch"}, "batch tokens cannot be root tokens"),
        ({"type": "batch", "num_uses": 1}, 'batch tokens cannot have "num_uses" set'),
        ({"type": "batch", "period": "1h"}, 'batch tokens cannot have "period" set'),
        ({"type": "batch", "explicit_max_ttl": "1h"}, 'batch tokens cannot have "explicit_max_ttl" set'),
        ({"num_uses": -1}, "number of uses cannot be negative"),
        ({"ttl": "-1h"}, "ttl must be positive"),
        ({"ttl": "abc"}, 'time: invalid duration "abc"'),
        ({"explicit_max_ttl": "-1h"}, "explicit_max_ttl must be positive"),
        ({"period": "-1h"}, "period must be positive"),
        ({"id": "s.mine"}, "custom token ID cannot have the 's.' prefix"),
        ({"id": "hvs.mine"}, "custom token ID cannot have the 'hvs.' prefix"),
        ({"id": "a.b"}, "custom token ID cannot have a '.' in the value"),
        ({"entity_alias": "bob"}, "'entity_alias' is only allowed in combination with token role"),
    ],
)
def test_a_token_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with client() as vault:
        assert refusal(vault.write("auth/token/create", fields)) == f"InvalidRequest: {message}"


# -- lifetimes --


@pytest.mark.parametrize(
    ("fields", "lease", "warning"),
    [
        ({}, DAY_32, None),
        ({"ttl": "1h"}, 3600, None),
        ({"lease": "1h"}, 3600, None),
        ({"ttl": "9999h"}, DAY_32, 'TTL of "9999h" exceeded the effective max_ttl of "768h"; TTL value is capped'),
        ({"ttl": "1h", "explicit_max_ttl": "10m"}, 600, 'TTL of "1h" exceeded the effective max_ttl of "10m"'),
        ({"period": "30m", "ttl": "5h"}, 1800, None),
        ({"period": "9999h"}, DAY_32, 'period of "9999h" exceeded the effective max_ttl of "768h"; period value'),
        ({"period": "1h", "explicit_max_ttl": "30m"}, 1800, 'period of "1h" exceeded the effective max_ttl of "30m"'),
    ],
)
def test_a_lifetime_is_capped_with_a_warning(fields: dict[str, Any], lease: int, warning: str | None) -> None:
    with client() as vault:
        made = vault.write("auth/token/create", {"policies": ["default"]} | fields)

        assert auth_of(made).lease_duration == lease
        assert [text.startswith(warning or "") for text in warnings_of(made)] == ([True] if warning else [])


def test_a_token_ends_when_its_time_is_over() -> None:
    with client() as vault:
        token = vault.new_token(policies=["default"], ttl="3s").client_token

        vault.fake.clock.advance(3)

        assert refusal(vault.read("auth/token/lookup-self", token=token)) == "PermissionDenied: permission denied"


def test_renewing_gives_what_is_asked_for_up_to_the_maximum() -> None:
    with client() as vault:
        token = vault.new_token(policies=["default"], ttl="1h").client_token

        longer = vault.write("auth/token/renew-self", {"increment": "2h"}, token=token)
        too_long = vault.write("auth/token/renew-self", {"increment": "9999h"}, token=token)

        assert auth_of(longer).lease_duration == 7200
        assert auth_of(too_long).lease_duration == DAY_32
        assert warnings_of(too_long)[0].startswith('TTL of "9999h" exceeded the effective max_ttl')
        assert vault.data("auth/token/lookup-self", token=token)["last_renewal_time"]


def test_renewing_without_a_wish_gives_what_was_given_last() -> None:
    with client() as vault:
        token = vault.new_token(policies=["default"], ttl="1h").client_token
        assert auth_of(vault.write("auth/token/renew-self", token=token)).lease_duration == 3600

        vault.write("auth/token/renew-self", {"increment": "30m"}, token=token)

        assert auth_of(vault.write("auth/token/renew-self", token=token)).lease_duration == 1800


def test_a_periodic_token_gets_its_period_and_nothing_else() -> None:
    with client() as vault:
        token = vault.new_token(policies=["default"], period="30m").client_token

        for _ in range(3):
            vault.fake.clock.advance(1700)
            renewed = auth_of(vault.write("auth/token/renew-self", {"increment": "5h"}, token=token))
            assert renewed.lease_duration == 1800


def test_an_explicit_maximum_holds_against_renewals() -> None:
    with client() as vault:
        token = vault.new_token(policies=["default"], ttl="6m", explicit_max_ttl="10m").client_token
        vault.fake.clock.advance(300)

        renewed = vault.write("auth/token/renew-self", {"increment": "1h"}, token=token)

        assert auth_of(renewed).lease_duration == 300


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("renew", {"token": "none"}, "token not found"),
        ("renew", {}, "missing token ID"),
        ("renew-self", {}, "invalid lease ID"),
        ("renew-accessor", {}, "1 error occurred:\n\t* missing accessor\n\n"),
        ("renew-accessor", {"accessor": "none"}, "1 error occurred:\n\t* invalid accessor\n\n"),
        ("lookup-accessor", {"accessor": "none"}, "1 error occurred:\n\t* invalid accessor\n\n"),
        ("revoke", {}, "missing token ID"),
        ("revoke-orphan", {"token": "none"}, "token to revoke not found"),
    ],
)
def test_a_token_that_is_not_there_is_refused(path: str, fields: dict[str, Any], message: str) -> None:
    with client() as vault:
        assert refusal(vault.write(f"auth/token/{path}", fields)) == f"InvalidRequest: {message}"


def test_what_is_not_renewable_is_not_renewed() -> None:
    with client() as vault:
        token = vault.new_token(policies=["default"], renewable=False).client_token

        refused = vault.write("auth/token/renew-self", token=token)

        assert refusal(refused) == "InvalidRequest: lease is not renewable"


# -- rights --


def test_a_child_has_no_policy_that_its_parent_has_not() -> None:
    with client() as vault:
        maker = creator(vault)

        same = vault.write("auth/token/create", token=maker)
        other = vault.write("auth/token/create", {"policies": ["other"]}, token=maker)

        assert auth_of(same).policies == ["default", "maker"]
        assert refusal(other) == "InvalidRequest: child policies must be subset of parent"


def test_with_sudo_it_may_have_any_but_root() -> None:
    with client() as vault:
        maker = creator(vault, MAY_CREATE_ALL)

        other = vault.write("auth/token/create", {"policies": ["other"]}, token=maker)
        root = vault.write("auth/token/create", {"policies": ["root"]}, token=maker)

        assert auth_of(other).policies == ["default", "other"]
        assert refusal(root) == "InvalidRequest: root tokens may not be created without parent token being root"


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"id": "mine"}, "specify token id"),
        ({"no_parent": True}, "create orphan token"),
        ({"period": "1h"}, "create periodic token"),
    ],
)
def test_some_fields_take_sudo(fields: dict[str, Any], what: str) -> None:
    with client() as vault:
        refused = vault.write("auth/token/create", fields, token=creator(vault))
        allowed = vault.write("auth/token/create", fields, token=creator(vault, MAY_CREATE_ALL))

        assert refusal(refused) == f"InvalidRequest: root or sudo privileges required to {what}"
        assert auth_of(allowed)


def test_the_default_policy_comes_only_from_a_parent_that_has_it() -> None:
    with client() as vault:
        maker = creator(vault, no_default_policy=True)

        assert auth_of(vault.write("auth/token/create", token=maker)).policies == ["maker"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_uses": 5}, "restricted use token cannot generate child tokens"),
        ({"type": "batch"}, "batch tokens cannot create more tokens"),
    ],
)
def test_some_tokens_make_no_others(fields: dict[str, Any], message: str) -> None:
    with client() as vault:
        refused = vault.write("auth/token/create", token=creator(vault, **fields))

        assert refusal(refused) == f"InvalidRequest: {message}"


# -- the end --


def test_children_end_with_their_parent_and_orphans_do_not() -> None:
    with client() as vault:
        maker = creator(vault)
        child = auth_of(vault.write("auth/token/create", token=maker)).client_token
        orphan = auth_of(vault.write("auth/token/create-orphan", token=maker)).client_token

        assert is_done(vault.write("auth/token/revoke", {"token": maker}))

        assert refusal(vault.read("auth/token/lookup-self", token=child)).startswith("PermissionDenied")
        assert vault.data("auth/token/lookup-self", token=orphan)["orphan"] is True


def test_revoke_orphan_spares_the_children() -> None:
    with client() as vault:
        maker = creator(vault)
        child = auth_of(vault.write("auth/token/create", token=maker)).client_token

        assert is_done(vault.write("auth/token/revoke-orphan", {"token": maker}))

        assert refusal(vault.read("auth/token/lookup-self", token=maker)).startswith("PermissionDenied")
        assert vault.data("auth/token/lookup-self", token=child)["policies"] == ["default", "maker"]


def test_revoking_what_is_not_there_is_no_error() -> None:
    with client() as vault:
        assert is_done(vault.write("auth/token/revoke", {"token": "hvs.none"}))
        unknown = vault.write("auth/token/revoke-accessor", {"accessor": "none"})
        assert warnings_of(unknown) == ["No token found with this accessor"]


def test_a_token_is_revoked_by_its_accessor() -> None:
    with client() as vault:
        made = vault.new_token(policies=["default"])

        assert is_done(vault.write("auth/token/revoke-accessor", {"accessor": made.accessor}))

        refused = vault.write("auth/token/lookup", {"token": made.client_token})
        assert refusal(refused) == "PermissionDenied: bad token"


def test_accessors_are_listed_to_sudo() -> None:
    with client() as vault:
        made = vault.new_token(policies=["default"])

        assert made.accessor in vault.keys("auth/token/accessors")
        assert refusal(vault.list("auth/token/accessors", token=made.client_token)).startswith("PermissionDenied")


def test_tidying_is_accepted() -> None:
    with client() as vault:
        answer = vault.write("auth/token/tidy")

        assert isinstance(answer, Response)
        assert answer.is_accepted


# -- roles --


def test_a_role_is_written_field_by_field_and_read() -> None:
    with client() as vault:
        vault.write("auth/token/roles/r", {"allowed_policies": "p1,Default", "token_period": "1h"})
        vault.write("auth/token/roles/r", {"orphan": True})

        assert vault.data("auth/token/roles/r") == {
            "allowed_entity_aliases": None,
            "allowed_policies": ["default", "p1"],
            "allowed_policies_glob": [],
            "disallowed_policies": [],
            "disallowed_policies_glob": [],
            "explicit_max_ttl": 0,
            "name": "r",
            "orphan": True,
            "path_suffix": "",
            "period": 0,
            "renewable": True,
            "token_explicit_max_ttl": 0,
            "token_no_default_policy": False,
            "token_period": 3600,
            "token_type": "default-service",
        }
        assert vault.keys("auth/token/roles") == ["r"]


def test_older_names_are_shown_by_who_uses_them() -> None:
    with client() as vault:
        vault.write("auth/token/roles/r", {"period": "1h", "bound_cidrs": "10.0.0.1"})
        shown = vault.data("auth/token/roles/r")
        assert (shown["period"], shown["token_period"], shown["bound_cidrs"]) == (3600, 3600, ["10.0.0.1"])

        vault.write("auth/token/roles/r", {"token_period": "2h"})
        shown = vault.data("auth/token/roles/r")
        assert (shown["period"], shown["token_period"]) == (0, 7200)


def test_a_deleted_role_gives_no_tokens() -> None:
    with client() as vault:
        vault.write("auth/token/roles/r", {})

        assert is_done(vault.delete("auth/token/roles/r"))

        assert refusal(vault.read("auth/token/roles/r")) == "NotFound"
        assert refusal(vault.write("auth/token/create/r")) == "InvalidRequest: unknown role r"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path_suffix": "a/b"}, r"given role path suffix contains invalid characters; must match \w[\w-.]+\w"),
        ({"path_suffix": "ok..x"}, "error registering path suffix: path cannot contain parent references"),
        ({"token_type": "zz"}, "invalid 'token_type' value \"zz\""),
        ({"token_num_uses": -1}, "error parsing role fields: 'token_num_uses' cannot be negative"),
        (
            {"token_type": "batch"},
            "'token_type' cannot be 'batch' when role is set to generate non-orphan tokens",
        ),
        (
            {"token_type": "batch", "orphan": True, "token_period": "1h"},
            "'token_type' cannot be 'batch' when role is set to generate periodic tokens",
        ),
    ],
)
def test_a_role_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with client() as vault:
        assert refusal(vault.write("auth/token/roles/r", fields)) == f"InvalidRequest: {message}"


@pytest.mark.parametrize(
    ("role", "fields", "policies"),
    [
        ({"allowed_policies": "p1,p2"}, {}, ["default", "p1", "p2"]),
        ({"allowed_policies": "p1,p2"}, {"policies": ["p1"]}, ["default", "p1"]),
        ({"allowed_policies": "p1"}, {"policies": ["P1"], "no_default_policy": True}, ["p1"]),
        ({"allowed_policies": "p1", "token_no_default_policy": True}, {}, ["p1"]),
        ({"allowed_policies_glob": "x*"}, {"policies": ["xa"]}, ["default", "xa"]),
        ({"allowed_policies_glob": "x*"}, {}, ["default"]),
        ({"disallowed_policies": "zz"}, {"policies": ["a"]}, ["a", "default"]),
        ({"disallowed_policies": "default"}, {"policies": ["a"]}, ["a"]),
        ({}, {}, ["default", "maker"]),
    ],
)
def test_a_role_says_which_policies_its_tokens_have(
    role: dict[str, Any], fields: dict[str, Any], policies: list[str]
) -> None:
    with client() as vault:
        assert auth_of(role_token(vault, role, creator(vault), **fields)).policies == policies


@pytest.mark.parametrize(
    ("role", "policy", "message"),
    [
        (
            {"allowed_policies": "p1"},
            "p2",
            (
                'token policies (["default" "p2"]) must be subset of the role\'s allowed policies (["default" "p1"]) '
                "or glob policies ([])"
            ),
        ),
        (
            {"allowed_policies_glob": "x*"},
            "ya",
            (
                'token policies (["default" "ya"]) must be subset of the role\'s allowed policies (["default"]) '
                'or glob policies (["x*"])'
            ),
        ),
        ({"disallowed_policies": "zz"}, "zz", 'token policy "zz" is disallowed by this role'),
        ({"disallowed_policies_glob": "z*"}, "zz", 'token policy "zz" is disallowed by this role'),
        ({"allowed_policies": "p1", "disallowed_policies": "p1"}, "p1", 'token policy "p1" is disallowed by this role'),
        ({}, "p9", "child policies must be subset of parent"),
        ({"allowed_policies": "root"}, "root", "root tokens may not be created without parent token being root"),
    ],
)
def test_a_role_refuses_other_policies(role: dict[str, Any], policy: str, message: str) -> None:
    with client() as vault:
        refused = role_token(vault, role, creator(vault), policies=[policy])

        assert refusal(refused) == f"InvalidRequest: {message}"


def test_a_token_says_by_which_role_it_was_made() -> None:
    with client() as vault:
        made = auth_of(
            role_token(vault, {"path_suffix": "suf", "orphan": True, "token_period": "1h"}, policies=["default"])
        )

        looked_up = data_of(vault.write("auth/token/lookup", {"token": made.client_token}))

        assert (looked_up["path"], looked_up["role"]) == ("auth/token/create/r/suf", "r")
        assert (made.orphan, made.lease_duration, looked_up["period"]) == (True, 3600, 3600)


@pytest.mark.parametrize(
    ("role", "fields", "lease", "warning"),
    [
        (
            {"token_explicit_max_ttl": "30m"},
            {"explicit_max_ttl": "10m"},
            600,
            "Explicit max TTL specified both during creation call and in role; using the lesser value of 600 seconds",
        ),
        (
            {"token_period": "1h"},
            {"period": "3h"},
            3600,
            "Period specified both during creation call and in role; using the lesser value of 3600 seconds",
        ),
    ],
)
def test_of_two_bounds_the_lesser_counts(
    role: dict[str, Any], fields: dict[str, Any], lease: int, warning: str
) -> None:
    with client() as vault:
        made = role_token(vault, role, policies=["default"], **fields)

        assert auth_of(made).lease_duration == lease
        assert warnings_of(made)[0] == warning


@pytest.mark.parametrize(("asked", "given"), [(0, 5), (2, 2), (9, 5)])
def test_uses_are_bounded_by_the_role(asked: int, given: int) -> None:
    with client() as vault:
        assert auth_of(role_token(vault, {"token_num_uses": 5}, num_uses=asked)).num_uses == given


@pytest.mark.parametrize(
    ("role_type", "asked", "given"),
    [
        ("service", "batch", "service"),
        ("default-service", "batch", "batch"),
        ("default-batch", "", "batch"),
        ("default-batch", "service", "service"),
    ],
)
def test_the_type_of_a_token_is_the_roles_or_a_default(role_type: str, asked: str, given: str) -> None:
    with client() as vault:
        made = role_token(vault, {"token_type": role_type}, policies=["default"], type=asked)

        assert auth_of(made).token_type == given


def test_a_token_can_be_used_only_from_where_its_role_says() -> None:
    with client() as vault:
        token = auth_of(role_token(vault, {"token_bound_cidrs": "10.0.0.0/8"}, policies=["default"])).client_token

        refused = vault.read("auth/token/lookup-self", token=token, remote_address="192.0.2.1")

        assert refusal(refused) == "PermissionDenied: permission denied"
        assert vault.data("auth/token/lookup-self", token=token, remote_address="10.1.2.3")["bound_cidrs"]


def test_a_role_can_make_tokens_for_somebody() -> None:
    with client() as vault:
        role = {"allowed_entity_aliases": "Bob, team-*"}

        refused = role_token(vault, role, policies=["default"], entity_alias="eve")
        bob = auth_of(role_token(vault, role, policies=["default"], entity_alias="BOB"))
        again = auth_of(role_token(vault, role, policies=["default"], entity_alias="bob"))

        assert refusal(refused) == "InvalidRequest: invalid 'entity_alias' value"
        assert bob.entity_id == again.entity_id != ""


def test_a_root_token_has_no_bounds_of_place() -> None:
    with client() as vault:
        made: Auth = auth_of(role_token(vault, {"token_bound_cidrs": "10.0.0.0/8"}))

        assert made.policies == ["root"]
        assert "bound_cidrs" not in vault.data(
            "auth/token/lookup-self", token=made.client_token, remote_address="192.0.2.1"
        )


def test_policies_of_the_entity_are_told_with_the_tokens_own() -> None:
    with client() as vault:
        made = auth_of(
            role_token(vault, {"allowed_entity_aliases": "bob"}, policies=["own"], entity_alias="bob", ttl="1h")
        )
        vault.write(f"identity/entity/id/{made.entity_id}", {"policies": ["theirs"]})

        renewed = auth_of(vault.write("auth/token/renew", {"token": made.client_token}))
        looked_up = data_of(vault.write("auth/token/lookup", {"token": made.client_token}))

        assert (renewed.policies, renewed.token_policies) == (["default", "own", "theirs"], ["default", "own"])
        assert (looked_up["policies"], looked_up["identity_policies"]) == (["default", "own"], ["theirs"])
