"""The `bao` command line, unmodified, takes a secret through its life on a cluster of three real nodes."""

import json
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.nodes import Cluster, Node, environment, started, wait_until

BAO = Path(sysconfig.get_path("scripts")) / "bao"


class Bao:
    """The client, at one node; `env` is what a user would have exported."""

    def __init__(self, node: Node, home: Path) -> None:
        self._env = environment(home, BAO_ADDR=node.address)

    def run(self, *arguments: str, fails_with: int = 0) -> str:
        """Return what a command prints."""
        done = subprocess.run([BAO, *arguments], env=self._env, capture_output=True, text=True, check=False)
        assert done.returncode == fails_with, done
        return done.stdout if fails_with == 0 else done.stderr


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("bao")) as running:
        yield running


@pytest.fixture
def bao(cluster: Cluster, tmp_path: Path) -> Bao:
    client = Bao(cluster.standbys()[0], tmp_path)
    client.run("login", cluster.token)
    return client


def test_it_knows_the_state_of_the_cluster(bao: Bao) -> None:
    assert json.loads(bao.run("status", "-format=json"))["sealed"] is False
    assert len(bao.run("operator", "raft", "list-peers").splitlines()) == 5


def test_a_secret_is_written_read_changed_and_deleted(bao: Bao) -> None:
    bao.run("kv", "put", "-mount=secret", "app", "a=1")
    bao.run("kv", "patch", "-mount=secret", "app", "b=2")

    assert json.loads(bao.run("kv", "get", "-format=json", "-mount=secret", "app"))["data"]["data"] == {
        "a": "1",
        "b": "2",
    }
    assert bao.run("kv", "get", "-field=a", "-version=1", "-mount=secret", "app") == "1"
    bao.run("kv", "delete", "-mount=secret", "app")
    assert "No data found" in bao.run("kv", "get", "-field=a", "-mount=secret", "app", fails_with=2)
    bao.run("kv", "metadata", "delete", "-mount=secret", "app")


def test_a_policy_bounds_a_token(bao: Bao, tmp_path: Path) -> None:
    document = tmp_path / "reader.hcl"
    document.write_text('path "secret/data/app" { capabilities = ["read"] }')
    bao.run("policy", "write", "reader", str(document))

    token = bao.run("token", "create", "-policy=reader", "-field=token").strip()

    assert bao.run("token", "capabilities", token, "secret/data/app").strip() == "read"
    bao.run("token", "revoke", token)
    assert "bad token" in bao.run("token", "lookup", token, fails_with=2)


def test_a_mount_is_enabled_moved_and_disabled(bao: Bao) -> None:
    bao.run("secrets", "enable", "-path=one", "kv")

    assert "Success! Finished moving secrets engine one/ to two/" in bao.run("secrets", "move", "one/", "two/")

    assert "two/" in json.loads(bao.run("secrets", "list", "-format=json"))
    bao.run("secrets", "disable", "two")


def test_a_snapshot_is_restored_into_a_new_node_with_other_keys(cluster: Cluster, bao: Bao, tmp_path: Path) -> None:
    file, home = tmp_path / "lost.snap", tmp_path / "rescue"
    home.mkdir()
    node = Node(home, "rescue")
    rescuer = Bao(node, home)
    bao.run("kv", "put", "-mount=secret", "rescued", "a=1")
    bao.run("operator", "raft", "snapshot", "save", str(file))
    try:
        node.start()
        made = json.loads(rescuer.run("operator", "init", "-format=json", "-key-shares=1", "-key-threshold=1"))
        rescuer.run("operator", "unseal", made["unseal_keys_b64"][0])
        rescuer.run("login", made["root_token"])

        rescuer.run("operator", "raft", "snapshot", "restore", str(file), fails_with=2)
        rescuer.run("operator", "raft", "snapshot", "restore", "-force", str(file))
        assert node.request("GET", "sys/seal-status")[1]["sealed"] is True
        rescuer.run("operator", "unseal", cluster.key)
        wait_until(lambda: node.health() == 200, "it leads")

        rescuer.run("login", cluster.token)
        assert rescuer.run("kv", "get", "-field=a", "-mount=secret", "rescued") == "1"
    finally:
        node.end()
