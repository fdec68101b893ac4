"""core/mounts.py and sys/mounts, sys/auth, sys/remount: what can be mounted where, and what goes with a mount."""

from typing import Any

import pytest

from conclave.core.revocation import clear_step
from conclave.core.system.mounts import MIGRATIONS_MAX
from tests.clients import Client, auth_of, client, is_done, refusal
from tests.fakes import data_of


def test_a_new_vault_has_the_mounts_of_every_vault() -> None:
    with client() as vault:
        assert sorted(vault.data("sys/mounts")) == ["cubbyhole/", "identity/", "secret/", "sys/"]
        assert sorted(vault.data("sys/auth")) == ["token/"]


def test_a_mount_is_described_as_vault_describes_it() -> None:
    with client() as vault:
        vault.write("sys/mounts/m", {"type": "kv", "description": "d", "config": {"default_lease_ttl": "30m"}})

        described = vault.data("sys/mounts/m")

        assert described.pop("accessor").startswith("kv_")
        assert len(described.pop("uuid")) == 36
        assert described == {
            "config": {"default_lease_ttl": 1800, "force_no_cache": False, "max_lease_ttl": 0},
            "deprecation_status": "supported",
            "description": "d",
            "external_entropy_access": False,
            "local": False,
            "options": {},
            "plugin_version": "",
            "running_plugin_version": "v0.1.0+builtin.conclave",
            "running_sha256": "",
            "seal_wrap": False,
            "type": "kv",
        }


@pytest.mark.parametrize(
    ("kind", "options", "version"),
    [("kv-v2", None, "2"), ("kv-v1", None, "1"), ("kv", {"version": "2"}, "2"), ("kv-v2", {"version": "1"}, "2")],
)
def test_the_version_of_kv_is_an_option(kind: str, options: Any, version: str) -> None:
    with client() as vault:
        vault.write("sys/mounts/m", {"type": kind, "options": options})

        described = vault.data("sys/mounts/m")
        assert (described["type"], described["options"]) == ("kv", {"version": version})


@pytest.mark.parametrize(
    ("fields", "options"), [({}, {}), ({"options": None}, None), ({"options": {"a": "b"}}, {"a": "b"})]
)
def test_options_are_shown_as_they_were_sent(fields: dict[str, Any], options: Any) -> None:
    with client() as vault:
        vault.write("sys/mounts/m", {"type": "kv"} | fields)

        assert vault.data("sys/mounts/m")["options"] == options


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("mounts/secret", {"type": "kv"}, "path is already in use at secret/"),
        ("mounts/secret/sub", {"type": "kv"}, "path is already in use at secret/"),
        ("mounts/m", {"type": "nope"}, "plugin not found in the catalog: nope"),
        ("mounts/m", {"type": "userpass"}, "plugin not found in the catalog: userpass"),
        ("mounts/m", {}, "backend type must be specified as a string"),
        ("mounts/m", {"type": "cubbyhole"}, 'mount type of "cubbyhole" is not mountable'),
        ("mounts/m", {"type": "kv", "options": {"version": "3"}}, "invalid version provided: 3"),
        ("mounts/sys", {"type": "kv"}, 'cannot mount "sys/"'),
        ("mounts/auth", {"type": "kv"}, 'cannot mount "auth/"'),
        ("mounts/audit/x", {"type": "kv"}, 'cannot mount "audit/x/"'),
        ("mounts/identity/x", {"type": "kv"}, 'cannot mount "identity/x/"'),
        ("mounts/m", {"type": "kv", "config": {"listing_visibility": "zz"}}, "invalid listing_visibility zz"),
        (
            "mounts/m",
            {"type": "kv", "config": {"default_lease_ttl": "zz"}},
            'unable to parse default TTL of zz: time: invalid duration "zz"',
        ),
        (
            "mounts/m",
            {"type": "kv", "config": {"default_lease_ttl": "2h", "max_lease_ttl": "1h"}},
            "given default lease TTL greater than given max lease TTL",
        ),
        (
            "mounts/m",
            {"type": "kv", "config": {"default_lease_ttl": "20000h"}},
            "given default lease TTL greater than system max lease TTL of 2764800",
        ),
        ("auth/m", {"type": "kv"}, "plugin not found in the catalog: kv"),
        ("auth/m", {"type": "token"}, "token credential backend cannot be instantiated"),
        ("auth/token", {"type": "userpass"}, "path is already in use at token/"),
    ],
)
def test_a_mount_that_cannot_be_is_refused(path: str, fields: dict[str, Any], message: str) -> None:
    with client() as vault:
        assert refusal(vault.write(f"sys/{path}", fields)) == f"InvalidRequest: {message}"


def test_no_mount_lies_above_another() -> None:
    with client() as vault:
        vault.write("sys/mounts/a/b/c", {"type": "kv"})

        assert refusal(vault.write("sys/mounts/a/b", {"type": "kv"})) == (
            "InvalidRequest: path is already in use at a/b/c/"
        )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("mounts/none", "No secret engine mount at none/"),
        ("auth/none", "No auth engine at none/"),
        ("mounts/none/tune", 'cannot fetch sysview for path "none/"'),
        ("auth/none/tune", 'cannot fetch sysview for path "auth/none/"'),
    ],
)
def test_what_is_not_mounted_is_refused(path: str, message: str) -> None:
    with client() as vault:
        assert refusal(vault.read(f"sys/{path}")) == f"InvalidRequest: {message}"


# -- tuning --


def test_tuning_changes_what_is_sent_and_nothing_else() -> None:
    with client() as vault:
        vault.write("sys/mounts/m", {"type": "kv", "description": "d", "config": {"max_lease_ttl": "2h"}})

        assert is_done(
            vault.write("sys/mounts/m/tune", {"default_lease_ttl": "20m", "audit_non_hmac_request_keys": ["a"]})
        )

        assert vault.data("sys/mounts/m/tune") == {
            "audit_non_hmac_request_keys": ["a"],
            "default_lease_ttl": 1200,
            "description": "d",
            "force_no_cache": False,
            "max_lease_ttl": 7200,
        }


def test_a_lifetime_can_be_given_back_to_the_system() -> None:
    with client() as vault:
        vault.write("sys/mounts/m", {"type": "kv", "config": {"default_lease_ttl": "1h", "max_lease_ttl": "2h"}})

        vault.write("sys/mounts/m/tune", {"default_lease_ttl": "system", "max_lease_ttl": "system"})

        assert vault.data("sys/mounts/m/tune")["default_lease_ttl"] == 2_764_800


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("mounts/secret", {"default_lease_ttl": "abc"}, 'time: invalid duration "abc"'),
        (
            "mounts/secret",
            {"default_lease_ttl": "2h", "max_lease_ttl": "1h"},
            "backend max lease TTL of 3600 would be less than backend default lease TTL of 7200",
        ),
        (
            "mounts/secret",
            {"default_lease_ttl": "9000h"},
            "system max lease TTL of 2764800 would be less than backend default lease TTL of 32400000",
        ),
        ("mounts/secret", {"token_type": "service"}, "'token_type' can only be modified on auth mounts"),
        ("mounts/secret", {"listing_visibility": "zz"}, "invalid listing_visibility zz"),
        ("mounts/secret", {"options": {"version": "1"}}, "cannot downgrade mount from version 2"),
        ("mounts/secret", {"options": {"version": "7"}}, "invalid version provided: 7"),
        ("mounts/sys", {"description": "d"}, "cannot tune parameter description of sys/"),
        ("mounts/cubbyhole", {"max_lease_ttl": "1h"}, "cannot tune parameter max_lease_ttl of cubbyhole/"),
        ("mounts/none", {}, 'tune of path "none/" failed: no mount entry found'),
        ("auth/token", {"token_type": "batch"}, "'token_type' cannot be set for 'token' or 'ns_token' auth mounts"),
    ],
)
def test_tuning_that_makes_no_sense_is_refused(path: str, fields: dict[str, Any], message: str) -> None:
    with client() as vault:
        assert refusal(vault.write(f"sys/{path}/tune", fields)) == f"InvalidRequest: {message}"


def test_an_empty_kv_mount_can_become_versioned() -> None:
    with client() as vault:
        vault.write("sys/mounts/m", {"type": "kv"})

        assert is_done(vault.write("sys/mounts/m/tune", {"options": {"version": "2"}}))

        assert data_of(vault.write("m/data/a", {"data": {}}))["version"] == 1


def test_a_kv_mount_with_secrets_cannot() -> None:
    with client() as vault:
        vault.write("sys/mounts/m", {"type": "kv"})
        vault.write("m/a", {"x": 1})

        assert refusal(vault.write("sys/mounts/m/tune", {"options": {"version": "2"}})).startswith("InvalidRequest")
        assert vault.data("m/a") == {"x": 1}


# -- the end of a mount --


def login(vault: Client, path: str = "up") -> str:
    vault.write(f"sys/auth/{path}", {"type": "userpass"})
    vault.write(f"auth/{path}/users/bob", {"password": "pw"})
    return auth_of(vault.write(f"auth/{path}/login/bob", {"password": "pw"}, token="")).client_token


def test_a_disabled_mount_is_gone_with_its_data() -> None:
    with client() as vault:
        vault.write("sys/mounts/m", {"type": "kv"})
        vault.write("m/a", {"x": 1})

        assert is_done(vault.delete("sys/mounts/m"))
        assert refusal(vault.read("m/a")).startswith("NotFound: no handler for route")

        vault.write("sys/mounts/m", {"type": "kv"})
        assert refusal(vault.read("m/a")) == "NotFound"


def test_disabling_what_is_not_there_is_no_error() -> None:
    with client() as vault:
        assert is_done(vault.delete("sys/mounts/none"))
        assert is_done(vault.delete("sys/auth/none"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("mounts/sys", 'cannot unmount "sys/"'),
        ("mounts/cubbyhole", 'cannot unmount "cubbyhole/"'),
        ("mounts/identity", 'cannot unmount "identity/"'),
        ("auth/token", "token credential backend cannot be disabled"),
    ],
)
def test_some_mounts_must_stay(path: str, message: str) -> None:
    with client() as vault:
        assert refusal(vault.delete(f"sys/{path}")) == f"InvalidRequest: {message}"


def test_disabling_an_auth_method_ends_its_tokens_at_once() -> None:
    with client() as vault:
        token = login(vault)
        assert data_of(vault.read("auth/token/lookup-self", token=token))["path"] == "auth/up/login/bob"

        vault.delete("sys/auth/up")

        assert refusal(vault.read("auth/token/lookup-self", token=token)) == "PermissionDenied: permission denied"


def test_enabling_it_again_does_not_bring_them_back() -> None:
    with client() as vault:
        old = login(vault)
        vault.delete("sys/auth/up")
        vault.fake.clock.advance(1)

        new = login(vault)

        assert refusal(vault.read("auth/token/lookup-self", token=old)).startswith("PermissionDenied")
        assert data_of(vault.read("auth/token/lookup-self", token=new))


# -- moving --


def test_a_mount_moves_with_its_data() -> None:
    with client() as vault:
        vault.write("secret/data/a", {"data": {"x": 1}})

        moved = data_of(vault.write("sys/remount", {"from": "secret", "to": "team/secret/"}))

        assert vault.data("team/secret/data/a")["data"] == {"x": 1}
        assert refusal(vault.read("secret/data/a")).startswith("NotFound: no handler")
        assert vault.data(f"sys/remount/status/{moved['migration_id']}")["migration_info"] == {
            "source_mount": "secret/",
            "target_mount": "team/secret/",
            "status": "in-progress",
        }


def test_a_move_is_over_when_the_old_leases_have_been_cleared() -> None:
    with client() as vault:
        moved = data_of(vault.write("sys/remount", {"from": "secret", "to": "team/secret/"}))
        services = vault.fake.services()
        assert clear_step(services) == 0  # whoever asks at once learns that it goes on
        vault.fake.clock.advance(1)

        services = vault.fake.services()
        assert clear_step(services)
        vault.commit(services)

        status = vault.data(f"sys/remount/status/{moved['migration_id']}")
        assert status["migration_info"]["status"] == "success"


def test_moving_an_auth_method_ends_its_tokens() -> None:
    with client() as vault:
        token = login(vault)

        vault.write("sys/remount", {"from": "auth/up", "to": "auth/people"})

        assert refusal(vault.read("auth/token/lookup-self", token=token)).startswith("PermissionDenied")
        assert auth_of(vault.write("auth/people/login/bob", {"password": "pw"}, token=""))


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("", "a", "both 'from' and 'to' path must be specified as a string"),
        ("none", "a", 'no matching mount at "none/"'),
        ("secret", "secret", 'path already in use at "secret/"'),
        ("secret", "secret/sub", 'path already in use at "secret/"'),
        ("sys", "a", 'cannot remount "sys/"'),
        ("auth/token", "auth/a", 'cannot remount "auth/token/"'),
        ("secret", "sys/a", "cannot remount to destination sys/a/"),
        ("secret", "auth/a", "cannot remount to destination auth/a/"),
        ("auth/a", "b", 'cannot remount auth mount to non-auth mount "b/"'),
    ],
)
def test_a_move_that_cannot_be_is_refused(source: str, target: str, message: str) -> None:
    with client() as vault:
        assert refusal(vault.write("sys/remount", {"from": source, "to": target})) == f"InvalidRequest: {message}"


def test_only_the_last_moves_are_remembered() -> None:
    with client() as vault:
        first = data_of(vault.write("sys/remount", {"from": "secret", "to": "m0"}))["migration_id"]
        for number in range(MIGRATIONS_MAX):
            vault.write("sys/remount", {"from": f"m{number}", "to": f"m{number + 1}"})

        assert refusal(vault.read(f"sys/remount/status/{first}")) == "NotFound"


# -- what user interfaces ask --


def test_without_a_token_only_mounts_shown_to_everybody_are_listed() -> None:
    with client() as vault:
        vault.write("sys/mounts/m", {"type": "kv", "description": "d", "config": {"listing_visibility": "unauth"}})

        assert vault.data("sys/internal/ui/mounts", token="") == {
            "auth": {},
            "secret": {"m/": {"description": "d", "options": {}, "type": "kv"}},
        }


def test_with_a_token_those_are_listed_that_it_reaches() -> None:
    with client() as vault:
        vault.write("sys/mounts/m", {"type": "kv"})
        vault.write("sys/policies/acl/app", {"policy": 'path "m/a" { capabilities = ["read"] }'})
        token = vault.new_token(policies=["app"], no_default_policy=True).client_token

        listed = vault.data("sys/internal/ui/mounts", token=token)

        assert (sorted(listed["secret"]), sorted(listed["auth"])) == (["m/"], [])


@pytest.mark.parametrize("path", ["secret", "secret/", "secret/data/a"])
def test_preflight_tells_the_mount_of_a_path(path: str) -> None:
    with client() as vault:
        told = vault.data(f"sys/internal/ui/mounts/{path}")

        assert (told["path"], told["type"], told["options"]) == ("secret/", "kv", {"version": "2"})


def test_preflight_refuses_who_reaches_nothing_there() -> None:
    with client() as vault:
        token = vault.new_token(policies=["default"]).client_token

        denied = "PermissionDenied: preflight capability check returned 403, please ensure client's policies grant "
        assert refusal(vault.read("sys/internal/ui/mounts/secret/a", token=token)) == (
            denied + 'access to path "secret/a/"'
        )
        assert refusal(vault.read("sys/internal/ui/mounts/none")) == denied + 'access to path "none/"'
        assert refusal(vault.read("sys/internal/ui/mounts/secret", token="")) == "PermissionDenied: permission denied"


# -- auth methods are not to be had by the paths of secrets engines, which ask for less --


def test_an_auth_method_is_shown_and_tuned_by_the_paths_of_mounts_too() -> None:
    with client() as vault:
        vault.write("sys/auth/up", {"type": "userpass"})

        assert is_done(vault.write("sys/mounts/auth/up/tune", {"description": "d"}))

        assert vault.data("sys/mounts/auth/up")["description"] == "d"


def test_no_auth_method_is_disabled_by_the_path_of_a_mount() -> None:
    with client() as vault:
        vault.write("sys/auth/up", {"type": "userpass"})

        assert refusal(vault.delete("sys/mounts/auth/up")) == 'InvalidRequest: cannot unmount "auth/up/"'

        assert is_done(vault.delete("sys/mounts/auth/none"))
        assert vault.data("sys/auth/up")["type"] == "userpass"


def test_nothing_is_mounted_below_auth_by_the_path_of_a_mount() -> None:
    with client() as vault:
        assert refusal(vault.write("sys/mounts/auth/x", {"type": "kv"})) == 'InvalidRequest: cannot mount "auth/x/"'
