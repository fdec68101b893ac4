"""A cluster that grows from one node to five and shrinks to three under load: no request of any client fails by it."""

import asyncio
import contextlib
import signal
from pathlib import Path

from tests.processes.chaos import VERSIONS_MAX
from tests.processes.history import judge
from tests.processes.load import MOUNT, Load, places_of, read_everything
from tests.processes.nodes import Cluster, Node, wait_until

SETTLING_WRITES = 200
"""So many writes after clients were told to use other nodes, nobody waits for an answer of the nodes before."""


def join(cluster: Cluster, node: Node) -> None:
    """Add a node; it votes when this returns."""
    cluster.nodes.append(node)
    node.start()
    cluster.join(node, cluster.leader())
    wait_until(lambda: cluster.voters() == len(cluster.nodes), f"{node.name} votes")


def remove(cluster: Cluster, node: Node) -> None:
    """Remove a node, and stop it."""
    cluster.nodes.remove(node)
    try:
        status, answer = cluster.nodes[0].request(
            "POST", "sys/storage/raft/remove-peer", {"server_id": node.name}, cluster.token
        )
        assert status == 204, answer
        wait_until(lambda: cluster.voters() == len(cluster.nodes), f"{node.name} votes no more")
    finally:
        code = node.end(signal.SIGTERM)
    assert code == 0


def wait_moved(load: Load) -> None:
    """Wait until nobody waits for an answer of a node that the clients were told to leave."""
    enough = len(load.history.accepted_at) + SETTLING_WRITES
    wait_until(lambda: len(load.history.accepted_at) >= enough, "clients have moved")


def test_no_request_fails_while_members_come_and_go(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.nodes = [Node(tmp_path, "a")]
    with contextlib.ExitStack() as stack:
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
        load = stack.enter_context(Load(places_of(cluster.nodes), cluster.token, canary="growth", seed=1))

        for name in "bcde":
            join(cluster, Node(tmp_path, name))
            load.only(places_of(cluster.nodes))
        for node in (cluster.standbys()[0], cluster.leader()):
            load.only(places_of(each for each in cluster.nodes if each is not node))
            wait_moved(load)
            remove(cluster, node)

        load.end()
        keys = sorted({operation.key for operation in load.history.operations})
        reads, versions = asyncio.run(read_everything(places_of(cluster.nodes), cluster.token, keys))
        load.history.operations += reads

    assert load.history.failures == []
    assert judge(load.history, versions) == []
    assert len(cluster.nodes) == 3
