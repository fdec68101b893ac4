"""hvac, the Python client of Vault, drives a cluster of three real nodes unmodified."""

from collections.abc import Iterator

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
