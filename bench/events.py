"""What happens once in a while: a leader dies, a node comes back, a node with many leases is unsealed.

Each is played for both programs in turns, and told in seconds: the median of the rounds, and the worst.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from bench import load
from bench.load import Target, Way
from bench.nodes import Cluster, NodeProcess

ATTEMPT_SECONDS_MAX: Final = 1.0
PAUSE_SECONDS: Final = 0.005
WAIT_SECONDS_MAX: Final = 60.0
STEADY_SECONDS: Final = 1.0
"""The cluster is left alone for so long between two rounds."""
LEASES_CONNECTIONS: Final = 64
LEASES_SECONDS: Final = 2


class Happening(Struct, frozen=True):
    """What an event takes with one program, in seconds."""

    name: str
    program: str
    median_seconds: float
    worst_seconds: float
    rounds: int


def fail_over(clusters: Sequence[Cluster], rounds: int, say: Callable[[str], None]) -> list[Happening]:
    """Kill the leader, `rounds` times: how long until a client of another node has written, and until the node is back."""
    gaps: list[list[float]] = [[] for _ in clusters]
    returns: list[list[float]] = [[] for _ in clusters]
    for _ in range(rounds):
        for which, cluster in enumerate(clusters):
            gap, back = _kill_leader(cluster)
            gaps[which].append(gap)
            returns[which].append(back)
    happenings = [
        *_told("leader killed, until a write is accepted", clusters, gaps),
        *_told("killed node started, until it serves", clusters, returns),
    ]
    for each in happenings:
        say(f"{each.name}: {each.program} {each.median_seconds:.2f} s")
    return happenings


def _kill_leader(cluster: Cluster) -> tuple[float, float]:
    leader, standby = cluster.leader, cluster.standbys[0]
    time.sleep(STEADY_SECONDS)  # a measurement: the time itself is what is wanted
    _write_until_done(cluster, standby)
    leader.kill()
    gap = _write_until_done(cluster, standby)
    began = time.monotonic()
    cluster.restart(leader)
    back = time.monotonic() - began
    cluster.wait("all nodes to vote", lambda: cluster.voters() == len(cluster.nodes))
    return gap, back


def _write_until_done(cluster: Cluster, node: NodeProcess) -> float:
    """Write through one node, again and again, and return the seconds until a write was accepted."""
    began = time.monotonic()
    while True:
        try:
            answer = node.request(
                "POST",
                "secret/data/failover",
                {"data": {"k": "v"}},
                token=cluster.root_token,
                seconds_max=ATTEMPT_SECONDS_MAX,
            )
        except OSError:
            answer = None
        elapsed = time.monotonic() - began
        if answer is not None and answer.status < 300:  # a redirection to a dead leader is no success
            return elapsed
        if elapsed > WAIT_SECONDS_MAX:
            raise load.LoadFailed(f"no write was accepted within {WAIT_SECONDS_MAX:.0f} s after the leader was killed")
        time.sleep(PAUSE_SECONDS)


def restart_elsewhere(cluster: Cluster, ports: Sequence[int], say: Callable[[str], None]) -> Happening:
    """Kill all nodes, start and unseal them on other ports, once for each base port: how long until a write is accepted.

    Raises:
        LoadFailed: what was written before is not there.
    """
    seconds = []
    for number, port in enumerate(ports):
        cluster.request("POST", "secret/data/moved", {"data": {"k": str(number)}})
        for node in cluster.nodes:
            node.kill()
            node.move(port, [each.number for each in cluster.nodes])
        began = time.monotonic()
        for node in cluster.nodes:
            node.start()
        for node in cluster.nodes:
            cluster.wait_listening(node)
            cluster.unseal(node)
        _write_until_done(cluster, cluster.nodes[0])
        seconds.append(time.monotonic() - began)
        for node in cluster.nodes:
            if cluster.request("GET", "secret/data/moved", node=node).json()["data"]["data"] != {"k": str(number)}:
                raise load.LoadFailed(f"node {node.number} has lost what was written before it was moved")
    (happening,) = _told("all killed, started on other ports, until a write is accepted", [cluster], [seconds])
    say(f"{happening.name}: {happening.median_seconds:.2f} s")
    return happening


def unseal(clusters: Sequence[Cluster], leases: int, rounds: int, say: Callable[[str], None]) -> list[Happening]:
    """Give clusters of one node so many leases, and restart and unseal them in turns; see `unseal_with_leases`."""
    seconds: list[list[float]] = [[] for _ in clusters]
    for number in range(rounds):
        for which, cluster in enumerate(clusters):
            seconds[which].append(unseal_with_leases(cluster, leases if number else 0, leases))
    happenings = _told(f"unsealed with {leases:,} leases, until it serves", clusters, seconds)
    for each in happenings:
        say(f"{each.name}: {each.program} {each.median_seconds:.2f} s")
    return happenings


def _told(name: str, clusters: Sequence[Cluster], seconds: Sequence[Sequence[float]]) -> list[Happening]:
    return [
        Happening(name, cluster.program.name, statistics.median(each), max(each), len(each))
        for cluster, each in zip(clusters, seconds, strict=True)
    ]


def unseal_with_leases(cluster: Cluster, held: int, leases: int) -> float:
    """Give a cluster of one node so many leases, of which it has `held`; restart it; return the seconds to unseal it.

    That is from the unseal key to the first answer that needs a token.
    """
    token = Target("POST", "auth/token/create", '{"ttl":"24h","policies":["default"]}')
    while held < leases:
        way = Way(LEASES_CONNECTIONS, LEASES_SECONDS)
        held += load.run(cluster.leader.address, [token], way, token=cluster.root_token).requests
    node = cluster.nodes[0]
    node.stop()
    cluster.restart(node, unseal=False)
    began = time.monotonic()
    cluster.unseal(node)

    def serves() -> bool:
        try:
            return node.request("GET", "auth/token/lookup-self", token=cluster.root_token, seconds_max=5).status == 200
        except OSError:
            return False

    cluster.wait("the node to serve", serves, WAIT_SECONDS_MAX)
    return time.monotonic() - began
