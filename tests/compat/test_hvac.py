"""hvac, the Python client of Vault, drives a cluster of three real nodes unmodified."""

from collections.abc import Iterator
from pathlib import Path

import hvac
import pytest
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest

from tests.processes.nodes import Cluster, started, wait_until


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("hvac")) as running:
        yield running


@pytest.fixture
def client(cluster: Cluster) -> Iterator[hvac.Client]:
    """A client of a standby: what it cannot answer goes to the leader."""
    made = hvac.Client(url=cluster.standbys()[0].address, token=cluster.token)
    yield made
    made.adapter.close()


def test_it_knows_the_state_of_the_cluster(client: hvac.Client) -> None:
    assert client.is_authenticated()
    assert client.sys.is_initialized()
    assert not client.sys.is_sealed()
    assert client.sys.read_health_status(method="GET").status_code == 429
    servers = client.sys.read_raft_config()["data"]["config"]["servers"]
    assert sorted(each["node_id"] for each in servers) == ["a", "b", "c"]


@pytest.mark.filterwarnings(
    "ignore:The raise_on_deleted_version parameter:DeprecationWarning"
)  # hvac's own call in patch()
def test_versions_of_a_secret_come_and_go(client: hvac.Client) -> None:
    kv = client.secrets.kv.v2
    kv.create_or_update_secret("app", {"a": "1"}, mount_point="secret")
    kv.create_or_update_secret("app", {"a": "2"}, cas=1, mount_point="secret")

    with pytest.raises(InvalidRequest, match="check-and-set parameter did not match the current version"):
        kv.create_or_update_secret("app", {"a": "3"}, cas=1, mount_point="secret")
    kv.patch("app", {"b": "x"}, mount_point="secret")
    newest = kv.read_secret_version("app", mount_point="secret", raise_on_deleted_version=True)
    oldest = kv.read_secret_version("app", version=1, mount_point="secret", raise_on_deleted_version=True)
    kv.delete_latest_version_of_secret("app", mount_point="secret")

    assert newest["data"]["data"] == {"a": "2", "b": "x"}
    assert oldest["data"]["data"] == {"a": "1"}
    with pytest.raises(InvalidPath):
        kv.read_secret_version("app", mount_point="secret", raise_on_deleted_version=True)
    kv.undelete_secret_versions("app", [3], mount_point="secret")
    assert kv.read_secret_metadata("app", mount_point="secret")["data"]["current_version"] == 3
    assert kv.list_secrets("", mount_point="secret")["data"]["keys"] == ["app"]
    kv.delete_metadata_and_all_versions("app", mount_point="secret")


def test_a_policy_bounds_a_token_and_its_end_is_seen_at_once(cluster: Cluster, client: hvac.Client) -> None:
    client.secrets.kv.v2.create_or_update_secret("seen", {"a": "1"}, mount_point="secret")
    client.sys.create_or_update_policy("seer", 'path "secret/data/seen" { capabilities = ["read"] }')
    token = client.auth.token.create(policies=["seer"], ttl="1h")["auth"]["client_token"]
    limited = hvac.Client(url=cluster.standbys()[-1].address, token=token)

    read = limited.secrets.kv.v2.read_secret_version("seen", mount_point="secret", raise_on_deleted_version=True)
    with pytest.raises(Forbidden):
        limited.secrets.kv.v2.create_or_update_secret("seen", {"a": "2"}, mount_point="secret")
    client.auth.token.revoke(token)

    assert read["data"]["data"] == {"a": "1"}
    with pytest.raises(Forbidden):
        limited.secrets.kv.v2.read_secret_version("seen", mount_point="secret", raise_on_deleted_version=True)
    limited.adapter.close()


def test_people_and_machines_log_in(client: hvac.Client) -> None:
    client.sys.enable_auth_method("userpass")
    client.auth.userpass.create_or_update_user("bob", password="a password", policies=["default"])
    client.sys.enable_auth_method("approle")
    client.auth.approle.create_or_update_approle("web", token_policies=["default"], token_ttl="10m")
    role_id = client.auth.approle.read_role_id("web")["data"]["role_id"]
    secret_id = client.auth.approle.generate_secret_id("web")["data"]["secret_id"]
    visitor = hvac.Client(url=client.url)

    person = visitor.auth.userpass.login("bob", "a password")["auth"]
    machine = visitor.auth.approle.login(role_id, secret_id)["auth"]

    assert person["policies"] == machine["policies"] == ["default"]
    with pytest.raises(InvalidRequest):
        visitor.auth.userpass.login("bob", "another")
    visitor.adapter.close()


def test_transit_opens_what_it_sealed(client: hvac.Client) -> None:
    client.sys.enable_secrets_engine("transit")
    client.secrets.transit.create_key("orders")

    sealed = client.secrets.transit.encrypt_data("orders", plaintext="aGVsbG8=")["data"]["ciphertext"]
    client.secrets.transit.rotate_key("orders")
    opened = client.secrets.transit.decrypt_data("orders", sealed)["data"]["plaintext"]

    assert sealed.startswith("vault:v1:")
    assert opened == "aGVsbG8="


def test_an_answer_is_wrapped_and_unwrapped_once(client: hvac.Client) -> None:
    wrapped = client.sys.wrap({"a": "b"}, ttl=60)["wrap_info"]["token"]

    assert client.sys.unwrap(wrapped)["data"] == {"a": "b"}
    with pytest.raises(InvalidRequest):
        client.sys.unwrap(wrapped)


def test_mounts_are_listed_tuned_moved_and_removed(client: hvac.Client) -> None:
    client.sys.enable_secrets_engine("kv", path="one", description="first")
    client.sys.tune_mount_configuration("one", default_lease_ttl="1h")
    client.sys.move_backend("one", "two")
    wait_until(lambda: "two/" in client.sys.list_mounted_secrets_engines()["data"], "it has moved")

    tuned = client.sys.read_mount_configuration("two")["data"]
    client.sys.disable_secrets_engine("two")

    assert tuned["default_lease_ttl"] == 3600
    assert "two/" not in client.sys.list_mounted_secrets_engines()["data"]


def test_a_token_is_looked_up_renewed_and_found_by_its_accessor(client: hvac.Client) -> None:
    made = client.auth.token.create(policies=["default"], ttl="10m", meta={"team": "a"})["auth"]

    found = client.auth.token.lookup_accessor(made["accessor"])["data"]
    renewed = client.auth.token.renew(made["client_token"], increment="20m")["auth"]

    assert found["meta"] == {"team": "a"}
    assert found["id"] == ""
    assert renewed["lease_duration"] == 1200
    assert made["accessor"] in client.auth.token.list_accessors()["data"]["keys"]
    client.auth.token.revoke_accessor(made["accessor"])
    with pytest.raises(Forbidden):
        client.auth.token.lookup(made["client_token"])


def test_a_role_makes_tokens_by_its_own_rules(client: hvac.Client) -> None:
    client.auth.token.create_or_update_role("ci", allowed_policies=["default"], orphan=True, token_period="1h")

    made = client.auth.token.create(role_name="ci", policies=["default"])["auth"]

    assert made["orphan"]
    assert made["lease_duration"] == 3600
    assert client.auth.token.list_roles()["data"]["keys"] == ["ci"]
    client.auth.token.delete_role("ci")


def test_a_group_gives_its_members_a_policy(client: hvac.Client) -> None:
    entity = client.secrets.identity.create_or_update_entity("ann", metadata={"floor": "2"})["data"]["id"]
    client.secrets.identity.create_or_update_group("staff", member_entity_ids=[entity], policies=["default"])

    group = client.secrets.identity.read_group_by_name("staff")["data"]

    assert group["member_entity_ids"] == [entity]
    assert client.secrets.identity.lookup_entity(name="ann")["data"]["group_ids"] == [group["id"]]
    client.secrets.identity.delete_entity(entity)


def test_what_a_token_may_do_is_told(client: hvac.Client) -> None:
    client.sys.create_or_update_policy("asker", 'path "secret/data/a" { capabilities = ["read", "update"] }')
    token = client.auth.token.create(policies=["asker"])["auth"]["client_token"]

    told = client.sys.get_capabilities(paths=["secret/data/a", "secret/data/b"], token=token)["data"]

    assert told["secret/data/a"] == ["read", "update"]
    assert told["secret/data/b"] == ["deny"]
    assert "asker" in client.sys.list_policies()["data"]["policies"]
    client.sys.delete_policy("asker")


def test_the_lease_of_a_login_is_found_and_ended(client: hvac.Client) -> None:
    client.sys.enable_auth_method("userpass", path="leased")
    client.auth.userpass.create_or_update_user("eve", password="a password", mount_point="leased")
    visitor = hvac.Client(url=client.url)
    visitor.auth.userpass.login("eve", "a password", mount_point="leased")
    assert visitor.is_authenticated()

    lease = client.sys.list_leases("auth/leased/login/eve")["data"]["keys"][0]
    told = client.sys.read_lease(f"auth/leased/login/eve/{lease}")["data"]
    client.sys.revoke_prefix("auth/leased")

    assert told["ttl"] > 0
    assert not visitor.is_authenticated()
    visitor.adapter.close()


def test_kv_without_versions_keeps_what_it_was_given(client: hvac.Client) -> None:
    client.sys.enable_secrets_engine("kv", path="plain", options={"version": "1"})
    kv = client.secrets.kv.v1

    kv.create_or_update_secret("a/b", {"n": 12345678901234567890}, mount_point="plain")

    assert kv.read_secret("a/b", mount_point="plain")["data"] == {"n": 12345678901234567890}
    assert kv.list_secrets("", mount_point="plain")["data"]["keys"] == ["a/"]
    kv.delete_secret("a/b", mount_point="plain")
    with pytest.raises(InvalidPath):
        kv.read_secret("a/b", mount_point="plain")


def test_transit_signs_and_hashes(client: hvac.Client) -> None:
    client.sys.enable_secrets_engine("transit", path="signing")
    transit = client.secrets.transit
    transit.create_key("s", key_type="ed25519", mount_point="signing")

    signature = transit.sign_data("s", hash_input="aGVsbG8=", mount_point="signing")["data"]["signature"]

    checked = transit.verify_signed_data("s", "aGVsbG8=", signature=signature, mount_point="signing")
    assert checked["data"]["valid"]
    assert len(transit.generate_random_bytes(n_bytes=8, output_format="hex")["data"]["random_bytes"]) == 16


def test_the_keyring_is_rotated(client: hvac.Client) -> None:
    before = client.sys.get_encryption_key_status()["data"]["term"]

    client.sys.rotate_encryption_key()

    assert client.sys.get_encryption_key_status()["data"]["term"] == before + 1


def test_an_audit_device_tells_the_hash_of_a_value(client: hvac.Client, tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    client.sys.enable_audit_device("file", path="told", options={"file_path": str(log)})

    hashed = client.sys.calculate_hash("told", "a value")["data"]["hash"]

    assert hashed.startswith("hmac-sha256:")
    assert "told/" in client.sys.list_enabled_audit_devices()["data"]
    client.sys.disable_audit_device("told")
