"""Snapshot files with real processes and real disks: there and back, through any node, with a SIGKILL in between."""

import http.client
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.nodes import Cluster, Node, conclave, environment, wait_until

PATH = "/v1/sys/storage/raft/snapshot"
KEYS = 120
VALUE_BYTES = 20_000
"""So the state takes some entries of half a MiB each."""


def exchange(cluster: Cluster, node: Node, method: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Send one request whose body is a file; status 0 means that the connection broke."""
    connection = http.client.HTTPConnection("127.0.0.1", node.api_port, timeout=60)
    try:
        connection.request(method, PATH, body, {"X-Vault-Token": cluster.token})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def fill(cluster: Cluster, kind: str) -> None:
    for number in range(KEYS):
        status, answer = cluster.write(
            cluster.nodes[number % 3], f"restored/{number}", kind=kind, filler="x" * VALUE_BYTES
        )
        assert status == 200, answer


def kinds(cluster: Cluster, node: Node) -> set[str]:
    return {cluster.read(node, f"restored/{number}")["kind"] for number in range(KEYS)}


def test_a_restored_state_is_on_every_node_and_survives_their_restart(cluster: Cluster) -> None:
    fill(cluster, "before")
    status, content = exchange(cluster, cluster.standbys()[0], "GET")
    fill(cluster, "after")

    restored = exchange(cluster, cluster.standbys()[1], "POST", content)

    assert (status, restored) == (200, (204, b""))
    for node in cluster.nodes:
        assert kinds(cluster, node) == {"before"}
    for node in cluster.nodes:
        node.end(signal.SIGKILL)
    for node in cluster.nodes:
        node.start()
    for node in cluster.nodes:
        cluster.unseal(node)
    cluster.leader()
    for node in cluster.nodes:
        assert kinds(cluster, node) == {"before"}


def test_a_leader_killed_while_it_restores_leaves_one_state_on_all_nodes(cluster: Cluster) -> None:
    fill(cluster, "before")
    status, content = exchange(cluster, cluster.leader(), "GET")
    assert status == 200
    fill(cluster, "after")
    dead = cluster.leader()
    answers: list[tuple[int, bytes]] = []
    restoring = threading.Thread(target=lambda: answers.append(exchange(cluster, dead, "POST", content)))

    before = applied(cluster, cluster.standbys()[0])
    follower = cluster.standbys()[0]
    restoring.start()
    wait_until(lambda: applied(cluster, follower) > before, "the first entries have arrived")
    dead.end(signal.SIGKILL)
    restoring.join()
    cluster.leader()
    seen = [kinds(cluster, node) for node in cluster.alive()]
    dead.start()
    cluster.unseal(dead)
    seen.append(kinds(cluster, dead))

    assert seen[0] == seen[1] == seen[2]
    assert seen[0] == {"before"} or (seen[0] == {"after"} and answers[0][0] != 204)
    assert exchange(cluster, cluster.leader(), "POST", content) == (204, b"")
    assert kinds(cluster, dead) == {"before"}


def applied(cluster: Cluster, node: Node) -> int:
    status, answer = node.request("GET", "sys/leader", token=cluster.token)
    assert status == 200, answer
    index = answer["raft_applied_index"]
    assert isinstance(index, int)
    return index


class Rescue:
    """What an operator does who has a snapshot of a cluster, its shares, and two new machines.

    Args:
        folder: with room for the file and two nodes.
        lost: the cluster.
    """

    def __init__(self, folder: Path, lost: Cluster) -> None:
        self.folder = folder
        self.file = folder / "lost.snap"
        self.cluster = Cluster(folder)
        self.cluster.nodes = self.cluster.nodes[:2]
        self.cluster.key, self.cluster.token = lost.key, lost.token
        self.first, self.second = self.cluster.nodes
        self.throwaway_key = self.throwaway_token = ""

    def restore(self) -> None:
        """Make a new node with throwaway keys, and let the snapshot take their place."""
        self.first.start()
        made = json.loads(self.run("operator", "init", "-format=json", "-key-shares=1", "-key-threshold=1"))
        self.throwaway_key, self.throwaway_token = made["unseal_keys_b64"][0], made["root_token"]
        self.run("operator", "unseal", self.throwaway_key)
        self.run("operator", "raft", "snapshot", "restore", "-force", str(self.file))

    def run(self, *arguments: str, fails_with: int = 0) -> str:
        """Return what a command prints that asks the first node."""
        done = subprocess.run(
            conclave(*arguments),
            env=environment(self.folder, VAULT_ADDR=self.first.address, VAULT_TOKEN=self.throwaway_token),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == fails_with, done
        return done.stdout

    def tokens(self, node: Node) -> list[int]:
        """Return what a node answers to the old root token, and to that of the throwaway vault."""
        tokens = (self.cluster.token, self.throwaway_token)
        return [node.request("GET", "auth/token/lookup-self", token=token)[0] for token in tokens]


@pytest.fixture
def rescue(cluster: Cluster, tmp_path: Path) -> Iterator[Rescue]:
    status, answer = cluster.write(cluster.leader(), "rescued", kind="old")
    assert status == 200, answer
    found = Rescue(tmp_path, cluster)
    status, content = exchange(cluster, cluster.standbys()[0], "GET")
    assert status == 200
    found.file.write_bytes(content)
    yield found
    found.cluster.stop()


def test_a_new_node_takes_over_a_lost_cluster_s_snapshot_and_another_joins_it(rescue: Rescue) -> None:
    rescue.restore()
    first, second = rescue.first, rescue.second

    assert json.loads(rescue.run("status", "-format=json", fails_with=2))["sealed"]
    assert first.request("PUT", "sys/unseal", {"key": rescue.throwaway_key})[0] == 400
    rescue.run("operator", "unseal", rescue.cluster.key)
    wait_until(lambda: first.health() == 200, "the first node leads")
    assert rescue.cluster.read(first, "rescued") == {"kind": "old"}
    assert rescue.tokens(first) == [200, 403]

    second.start()
    rescue.cluster.join(second, first)
    wait_until(lambda: rescue.cluster.voters() == 2, "both vote")
    assert rescue.cluster.read(second, "rescued") == {"kind": "old"}
    assert rescue.cluster.write(second, "more", kind="new")[0] == 200

    first.end(signal.SIGKILL)
    first.start()
    rescue.cluster.unseal(first)
    assert rescue.cluster.read(first, "rescued") == {"kind": "old"}
    assert rescue.cluster.read(first, "more") == {"kind": "new"}


def test_a_node_killed_when_a_foreign_snapshot_is_restored_is_opened_by_its_shares(rescue: Rescue) -> None:
    rescue.restore()
    rescue.first.end(signal.SIGKILL)

    rescue.first.start()
    rescue.cluster.unseal(rescue.first)
    wait_until(lambda: rescue.first.health() == 200, "it leads")

    assert rescue.cluster.read(rescue.first, "rescued") == {"kind": "old"}
    assert rescue.tokens(rescue.first) == [200, 403]


def test_a_node_killed_when_it_makes_its_new_authority_makes_it_again(rescue: Rescue) -> None:
    rescue.restore()
    first, second = rescue.first, rescue.second
    first.request("PUT", "sys/unseal", {"key": rescue.cluster.key})
    first.end(signal.SIGKILL)  # before, between or behind its two steps

    first.start()
    rescue.cluster.unseal(first)
    wait_until(lambda: first.health() == 200, "it leads")
    second.start()
    rescue.cluster.join(second, first)

    assert rescue.cluster.read(second, "rescued") == {"kind": "old"}
