"""Snapshot files with real processes and real disks: there and back, through any node, with a SIGKILL in between."""

import http.client
import signal
import threading

from tests.processes.nodes import Cluster, Node, wait_until

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
