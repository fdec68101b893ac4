"""Three processes: what is written is there on every node, and stays there whoever dies."""

import signal
import stat
import time

from tests.processes.nodes import Cluster, wait_until

CANARIES = ("canary-mount", "canary-name", "canary-value", "canary-policy")


def test_what_one_node_has_acknowledged_every_other_shows_at_once(cluster: Cluster) -> None:
    for number in range(30):
        writer, reader = cluster.nodes[number % 3], cluster.nodes[(number + 1) % 3]

        status, answer = cluster.write(writer, "shown", number=number)

        assert status == 200, answer
        assert cluster.read(reader, "shown") == {"number": number}


def test_no_name_and_no_value_stands_in_clear_in_any_file(cluster: Cluster) -> None:
    mount, name, value, policy = CANARIES
    node = cluster.nodes[0]
    node.request("POST", f"sys/mounts/{mount}", {"type": "kv"}, cluster.token)
    assert node.request("POST", f"{mount}/{name}", {"key": value}, cluster.token)[0] == 204
    rules = f'path "{mount}/{name}" {{ capabilities = ["read"] }}'
    assert node.request("PUT", f"sys/policies/acl/{policy}", {"policy": rules}, cluster.token)[0] == 204

    written = [file for each in cluster.nodes for file in each.data.rglob("*") if file.is_file()]
    wait_until(lambda: _applied(cluster) == 1, "every node has applied the same")

    assert written
    for file in written:
        content = file.read_bytes()
        for canary in (*CANARIES, cluster.token):
            assert canary.encode() not in content, f"{canary} stands in {file.name}"


def test_files_and_folders_are_private_whatever_the_umask(cluster: Cluster) -> None:
    modes = {
        stat.S_IMODE(path.stat().st_mode) | (0o1000 if path.is_dir() else 0)
        for node in cluster.nodes
        for path in (node.data, *node.data.rglob("*"))
    }

    assert modes == {0o600, 0o1700}


def test_a_killed_leader_is_replaced_and_nothing_acknowledged_is_lost(cluster: Cluster) -> None:
    assert cluster.write(cluster.nodes[0], "kept", value="before")[0] == 200
    dead = cluster.leader()

    dead.end(signal.SIGKILL)
    began = time.monotonic()
    status, answer = cluster.write(cluster.alive()[0], "after", value="after")
    seconds = time.monotonic() - began

    assert status == 200, answer
    assert seconds < 5  # 0.2 s on an idle machine; here it shares two cores with all other tests
    for node in cluster.alive():
        assert cluster.read(node, "kept") == {"value": "before"}
    dead.start()
    cluster.unseal(dead)
    assert cluster.read(dead, "after") == {"value": "after"}


def test_a_frozen_leader_never_shows_what_is_old(cluster: Cluster) -> None:
    frozen = cluster.leader()
    cluster.write(frozen, "frozen", value="old")

    frozen.send(signal.SIGSTOP)
    other = next(node for node in cluster.nodes if node is not frozen)
    status, answer = cluster.write(other, "frozen", value="new")
    frozen.send(signal.SIGCONT)

    assert status == 200, answer
    assert cluster.read(frozen, "frozen") == {"value": "new"}


def test_no_request_fails_while_the_leader_is_told_to_stop(cluster: Cluster) -> None:
    leader = cluster.leader()
    standby = cluster.standbys()[0]

    leader.send(signal.SIGTERM)
    answers = [cluster.write(standby, "gap", number=number)[0] for number in range(20)]

    assert answers == [200] * 20
    assert leader.end(signal.SIGTERM) == 0
    leader.start()
    cluster.unseal(leader)


def test_everything_is_there_after_all_nodes_were_killed(cluster: Cluster) -> None:
    cluster.write(cluster.nodes[1], "all", value="survives")

    for node in cluster.nodes:
        node.end(signal.SIGKILL)
    for node in cluster.nodes:
        node.start()
    for node in cluster.nodes:
        cluster.unseal(node)

    assert [cluster.read(node, "all") for node in cluster.nodes] == [{"value": "survives"}] * 3


def test_a_lone_node_answers_neither_reads_nor_writes(cluster: Cluster) -> None:
    lone, *others = cluster.nodes
    cluster.write(lone, "known", value="old")
    for node in others:
        node.end(signal.SIGKILL)

    read = wait_until(
        lambda: lone.request("GET", "secret/data/known", token=cluster.token)[0] == 503, "its lease is over", 5
    )
    written, _ = cluster.write(lone, "lone", value=1)
    for node in others:
        node.start()
    for node in others:
        cluster.unseal(node)

    assert (read, written) == (True, 503)
    assert cluster.read(lone, "known") == {"value": "old"}


def _applied(cluster: Cluster) -> int:
    """Return how many different applied indexes the nodes have."""
    return len({node.request("GET", "sys/leader")[1]["raft_applied_index"] for node in cluster.nodes})
