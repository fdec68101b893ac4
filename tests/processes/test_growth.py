"""A cluster that grows from one node to five and shrinks to three under load: no request of any client fails by it."""

import asyncio
import contextlib
import signal
from collections.abc import Iterable
from pathlib import Path

from tests.processes.history import judge
from tests.processes.load import MOUNT, Load, Place, read_everything
from tests.processes.nodes import Cluster, Node, wait_until

VERSIONS_MAX = 400
"""More than a key ever gets: all of them are read at the end."""
SETTLING_WRITES = 200
"""So many writes after clients were told to use other nodes, nobody waits for an answer of the nodes before."""


def places(nodes: Iterable[Node]) -> list[Place]:
    return [Place(node.name, node.api_port) for node in nodes]


def join(cluster: Cluster, node: Node) -> None:
    """Add a node; it votes when this returns."""
    node.start()
    status, answer = node.request("PUT", "sys/storage/raft/join", {"leader_api_addr": cluster.leader().address})
    assert status == 200, answer
    cluster.unseal(node)
    cluster.nodes.append(node)
    wait_until(lambda: cluster.voters() == len(cluster.nodes), f"{node.name} votes")


def remove(cluster: Cluster, node: Node) -> None:
    """Remove a node, and stop it."""
    cluster.nodes.remove(node)
    status, answer = cluster.nodes[0].request(
        "POST", "sys/storage/raft/remove-peer", {"server_id": node.name}, cluster.token
    )
    assert status == 204, answer
    wait_until(lambda: cluster.voters() == len(cluster.nodes), f"{node.name} votes no more")
    assert node.end(signal.SIGTERM) == 0


def test_no_request_fails_while_members_come_and_go(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.nodes = [Node(tmp_path, "a")]
    everybody = [Node(tmp_path, name) for name in "bcde"]
    with contextlib.ExitStack() as stack:
        for node in everybody:
            stack.callback(lambda node=node: node.end() if node.process is not None else None)  # type: ignore[misc]  # bound now
        stack.callback(cluster.stop)
        cluster.start()
        status, answer = cluster.nodes[0].request(
            "POST", f"{MOUNT}/config", {"max_versions": VERSIONS_MAX}, cluster.token
        )
        assert status in (200, 204), answer
        rules = {"server_stabilization_time": "1s"}  # a new node is let vote by then
        status, answer = cluster.nodes[0].request(
            "POST", "sys/storage/raft/autopilot/configuration", rules, cluster.token
        )
        assert status == 204, answer
        load = stack.enter_context(Load(places(cluster.nodes), cluster.token, canary="growth", seed=1))

        for node in everybody:
            join(cluster, node)
            load.only(places(cluster.nodes))
        for node in (cluster.standbys()[0], cluster.leader()):
            load.only(places(each for each in cluster.nodes if each is not node))
            settled = len(load.history.accepted_at) + SETTLING_WRITES
            wait_until(lambda enough=settled: len(load.history.accepted_at) >= enough, "clients have moved")  # type: ignore[misc]  # as above
            remove(cluster, node)

        load.end()
        keys = sorted({operation.key for operation in load.history.operations})
        reads, versions = asyncio.run(read_everything(places(cluster.nodes), cluster.token, keys))
        load.history.operations += reads

    assert load.history.failures == []
    assert judge(load.history, versions) == []
    assert len(cluster.nodes) == 3
