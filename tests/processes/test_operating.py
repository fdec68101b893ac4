"""What operators do to a cluster of real nodes: move, remove and promote members, and get a lost quorum back."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

from tests.processes.nodes import Cluster, Node, conclave, free_ports, started, wait_until

MOVED_SECONDS_MAX = 15.0
"""Several times what it takes on a quiet machine."""
RECOVER = ("operator", "raft", "recover")


def members(cluster: Cluster, node: Node) -> dict[str, dict[str, object]]:
    """Return the members as a node shows them, by name."""
    status, answer = node.request("GET", "sys/storage/raft/configuration", token=cluster.token)
    assert status == 200, answer
    return {server["node_id"]: server for server in answer["data"]["config"]["servers"]}


def addresses(cluster: Cluster, node: Node) -> set[tuple[str, object]]:
    """Return the members' names and cluster addresses as a node shows them."""
    return {(name, server["address"]) for name, server in members(cluster, node).items()}


def change(cluster: Cluster, node: Node, operation: str, name: str) -> None:
    """Remove, promote or demote a member, asking this node."""
    status, answer = node.request("POST", f"sys/storage/raft/{operation}", {"server_id": name}, cluster.token)
    assert status == 204, answer


def move(node: Node, host: str) -> None:
    """Give a stopped node another cluster port, under this name of the machine."""
    old, (new,) = node.cluster_port, free_ports(1)
    text = node.config.read_text().replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
    node.config.write_text(text.replace(f'"https://127.0.0.1:{new}"', f'"https://{host}:{new}"'))
    node.cluster_port = new


def move_all(cluster: Cluster, *, with_retry_join: bool) -> None:
    """End all nodes, and give each other ports, of both kinds."""
    for node in cluster.nodes:
        node.end()
        move(node, "127.0.0.1")
        old, (node.api_port,) = node.api_port, free_ports(1)
        node.config.write_text(node.config.read_text().replace(f"127.0.0.1:{old}", f"127.0.0.1:{node.api_port}"))
    if with_retry_join:
        blocks = "".join(f'  retry_join {{ leader_api_addr = "{node.address}" }}\n' for node in cluster.nodes)
        for node in cluster.nodes:
            node.config.write_text(node.config.read_text().replace("node_id", f"{blocks}  node_id", 1))


def wait_serving(cluster: Cluster, node: Node) -> None:
    """Wait until a node answers, and knows every member by its present address."""
    wanted = {(each.name, f"127.0.0.1:{each.cluster_port}") for each in cluster.nodes}

    def serves() -> bool:
        status = node.request("GET", "sys/storage/raft/configuration", token=cluster.token)[0]
        return status == 200 and addresses(cluster, node) == wanted

    wait_until(serves, f"{node.name} serves", MOVED_SECONDS_MAX)


def recover(node: Node, *flags: str) -> str:
    """Run the command on a stopped node's data."""
    done = subprocess.run(
        conclave(*RECOVER, f"-path={node.data}", *flags), capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def join_anew(cluster: Cluster, node: Node, through: Node) -> None:
    """Wipe a stopped node's data, and let it become a member again."""
    shutil.rmtree(node.data)
    node.start()
    cluster.join(node, through)


def lose_quorum(cluster: Cluster) -> Node:
    """Kill every node, and return the one that survives: the leader, who knows everything."""
    survivor = cluster.leader()
    for node in cluster.nodes:
        node.end()
    return survivor


def test_nodes_that_come_back_under_other_addresses_are_found_there(tmp_path: Path) -> None:
    with started(tmp_path) as cluster:
        moved = cluster.standbys()
        for node in moved:
            node.end()
            move(node, "localhost")  # a name, which is looked up at every dial
            node.start()
            cluster.unseal(node)
            assert cluster.write(cluster.leader(), "moved", by=node.name)[0] == 200

        wanted = {(node.name, f"localhost:{node.cluster_port}") for node in moved}

        def is_recorded() -> bool:
            return all(wanted <= addresses(cluster, node) for node in cluster.nodes)

        wait_until(is_recorded, "every node knows the new addresses")
        cluster.leader().end()  # those that have moved must find each other
        assert cluster.read(moved[0], "moved") == {"by": moved[1].name}


def test_all_nodes_that_come_back_under_other_addresses_find_each_other_by_retry_join(tmp_path: Path) -> None:
    with started(tmp_path) as cluster:
        for number in range(20):
            assert cluster.write(cluster.nodes[0], f"kept-{number}", value=number)[0] == 200

        move_all(cluster, with_retry_join=True)
        for node in cluster.nodes:
            node.start()
        for node in cluster.nodes:
            cluster.unseal(node)

        for node in cluster.nodes:
            wait_serving(cluster, node)
            assert [cluster.read(node, f"kept-{number}")["value"] for number in range(20)] == list(range(20))
        cluster.leader().end()  # those that are left must find each other without it
        assert cluster.write(cluster.alive()[0], "later", value=1)[0] == 200


def test_all_nodes_that_come_back_under_other_addresses_find_each_other_by_joining_again(tmp_path: Path) -> None:
    with started(tmp_path) as cluster:
        assert cluster.write(cluster.nodes[0], "kept", value=1)[0] == 200
        move_all(cluster, with_retry_join=False)
        for node in cluster.nodes:
            node.start()
        first, *others = cluster.nodes

        for node in others:  # the third is told of the second by the first
            target = {"leader_api_addr": first.address}
            assert node.request("PUT", "sys/storage/raft/join", target) == (200, {"joined": True})

        for node in cluster.nodes:
            cluster.unseal(node)
        for node in cluster.nodes:
            wait_serving(cluster, node)
            assert cluster.read(node, "kept") == {"value": 1}


def test_a_removed_node_refuses_at_once_and_says_why(tmp_path: Path) -> None:
    with started(tmp_path) as cluster:
        leader, gone = cluster.leader(), cluster.standbys()[0]
        cluster.write(leader, "kept", value="secret")

        change(cluster, leader, "remove-peer", gone.name)

        wait_until(lambda: gone.health() == 530, "the removed node says so")
        status, answer = gone.request("GET", "secret/data/kept", token=cluster.token)
        assert status == 503
        assert "removed from the cluster" in answer["errors"][0]
        gone.end()
        gone.start()
        assert gone.health() == 530
        assert gone.request("PUT", "sys/unseal", {"key": cluster.key})[0] == 503
        assert gone.name not in members(cluster, leader)

        gone.end()
        join_anew(cluster, gone, leader)

        assert cluster.read(gone, "kept") == {"value": "secret"}


def test_a_member_loses_its_vote_and_gets_it_back(tmp_path: Path) -> None:
    with started(tmp_path) as cluster:
        leader = cluster.leader()

        change(cluster, cluster.standbys()[0], "demote", leader.name)  # hands over first

        other = next(node for node in cluster.nodes if node is not leader)
        wait_until(lambda: not members(cluster, other)[leader.name]["voter"], "the vote is taken")
        assert cluster.leader() is not leader
        assert cluster.write(leader, "forwarded", value=1)[0] == 200
        change(cluster, other, "promote", leader.name)
        wait_until(lambda: members(cluster, other)[leader.name]["voter"], "it votes again, having caught up")


def test_a_voter_without_which_the_cluster_would_stand_still_is_not_removed(tmp_path: Path) -> None:
    with started(tmp_path) as cluster:
        leader, (dead, alive) = cluster.leader(), cluster.standbys()
        rules = {"last_contact_threshold": "3s"}
        assert leader.request("POST", "sys/storage/raft/autopilot/configuration", rules, cluster.token)[0] == 204
        dead.end()

        def is_seen_dead() -> bool:
            _, answer = leader.request("GET", "sys/storage/raft/autopilot/state", token=cluster.token)
            return bool(answer["data"]["servers"][dead.name]["node_status"] == "failed")

        wait_until(is_seen_dead, "the dead node is seen to be dead")
        status, answer = leader.request(
            "POST", "sys/storage/raft/remove-peer", {"server_id": alive.name}, cluster.token
        )

        assert status == 400
        assert "no majority" in answer["errors"][0]
        change(cluster, leader, "remove-peer", dead.name)
        assert cluster.write(alive, "after", value=1)[0] == 200


def test_a_lost_quorum_is_got_back_from_one_survivor(tmp_path: Path) -> None:
    with started(tmp_path) as cluster:
        assert cluster.write(cluster.leader(), "kept", value="before")[0] == 200
        survivor = lose_quorum(cluster)
        former = next(node for node in cluster.nodes if node is not survivor)

        shown = recover(survivor)
        assert "Nothing has been changed" in shown
        assert all(f"{node.name}  127.0.0.1:{node.cluster_port}  voter" in shown for node in cluster.nodes)
        removed = ", ".join(line.split()[0] for line in shown.splitlines() if line.endswith("  voter"))
        assert f"Removed       {removed}: refused from then on" in shown
        assert "only member now" in recover(survivor, "-apply")
        survivor.start()
        cluster.unseal(survivor)

        assert cluster.leader() is survivor
        assert list(members(cluster, survivor)) == [survivor.name]
        assert cluster.read(survivor, "kept") == {"value": "before"}
        assert cluster.write(survivor, "kept", value="after")[0] == 200
        former.start()
        wait_until(lambda: former.health() == 530, "the former member learns that it is none")

        former.end()
        join_anew(cluster, former, survivor)

        assert cluster.read(former, "kept") == {"value": "after"}


def test_a_node_on_an_older_copy_of_its_data_folder_is_refused(tmp_path: Path) -> None:
    with started(tmp_path) as cluster:
        leader, node = cluster.leader(), cluster.standbys()[0]
        node.end()
        copied = shutil.copytree(node.data, tmp_path / "copy")
        node.start()
        cluster.unseal(node)
        assert cluster.write(leader, "later", value=1)[0] == 200
        assert cluster.read(node, "later") == {"value": 1}
        node.end(signal.SIGTERM)  # its peers have heard by then how far it was

        shutil.rmtree(node.data)
        copied.rename(node.data)
        node.start()

        def fault() -> str:
            return str(node.request("GET", "sys/health")[1].get("fault", ""))

        wait_until(lambda: "older copy" in fault(), "it is told")
        assert cluster.write(leader, "later", value=2)[0] == 200
        change(cluster, leader, "remove-peer", node.name)
        node.end()
        join_anew(cluster, node, leader)
        assert cluster.read(node, "later") == {"value": 2}


def test_a_peers_file_that_names_the_survivor_alone_is_used_once(tmp_path: Path) -> None:
    with started(tmp_path) as cluster:
        assert cluster.write(cluster.leader(), "kept", value="before")[0] == 200
        survivor = lose_quorum(cluster)
        file = survivor.data / "peers.json"
        peers = [{"id": node.name, "address": f"127.0.0.1:{node.cluster_port}"} for node in cluster.nodes]
        file.write_text(json.dumps(peers))
        refused = subprocess.run(
            conclave("server", f"-config={survivor.config}"), capture_output=True, text=True, check=False, timeout=60
        )
        assert refused.returncode == 1
        assert "must name this node" in refused.stderr

        file.write_text(json.dumps([peer for peer in peers if peer["id"] == survivor.name]))
        survivor.start()
        cluster.unseal(survivor)

        assert cluster.read(survivor, "kept") == {"value": "before"}
        assert not file.exists()
        assert file.with_name("peers.json.used").exists()


def test_a_folder_that_holds_no_node_is_no_survivor(tmp_path: Path) -> None:
    done = subprocess.run(
        conclave(*RECOVER, f"-path={tmp_path}"), capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 1
    assert "holds no node's data" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_node_saves_snapshots_by_itself_if_its_configuration_says_so(tmp_path: Path) -> None:
    node = Node(tmp_path, "a")
    folder = tmp_path / "backup"
    with node.config.open("a") as config:
        config.write(f'snapshots {{\n  path = "{folder}"\n  interval = "1s"\n  retain = 2\n}}\n')
    try:
        node.start()
        status, made = node.request("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        assert status == 200, made
        node.request("PUT", "sys/unseal", {"key": made["keys_base64"][0]})

        first = wait_until(lambda: next(folder.glob("*Z.snap"), None), "a snapshot is there")

        shown = subprocess.run(
            conclave("operator", "raft", "snapshot", "inspect", str(first)), capture_output=True, text=True, check=True
        )
        assert "Index" in shown.stdout
        wait_until(lambda: not first.exists(), "it has been replaced by two newer ones")
        assert len(list(folder.glob("conclave-*.snap"))) in (2, 3)  # the oldest goes after the newest has come
    finally:
        node.end()
