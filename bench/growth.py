"""What size does: the same few operations with more and more of one thing.

`python -m bench --growth secrets=1000,100000 connections=1,1024 nodes=1,3,5` plays each dimension on clusters of its own. A
design whose reads walk what is there, or whose memory holds it, shows here and nowhere else.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from bench import load
from bench.events import unseal_with_leases
from bench.load import Target, Way
from bench.nodes import BESIDE_PORTS_LATER, CONCLAVE, Cluster
from bench.preparing import VALUE, WRITE_BODY, enable, fill

CONNECTIONS: Final = 16
ROUNDS: Final = 5
PLACE: Final = "grown"
FEWEST_BESIDE: Final = "of the fewest meanwhile, ms"


class Point(Struct, frozen=True):
    """What was measured with so much of a dimension; the figures by their names, which tell their units."""

    dimension: str
    size: int
    figures: dict[str, float]


class Plan(Struct, frozen=True):
    """Where and how long to measure."""

    folder: Path
    base_port: int
    seconds: int
    say: Callable[[str], None]

    def cluster(self, name: str, size: int = 3, *, ports_later: int = 0) -> Cluster:
        """Return a cluster that is not started, in a folder of its own."""
        return Cluster(CONCLAVE, self.folder / name, base_port=self.base_port + ports_later, size=size)

    def done(self, dimension: str, size: int, figures: dict[str, float]) -> Point:
        """Return a point, and tell of it."""
        self.say(f"{size:,} {dimension}: " + ", ".join(f"{name} {value:,.2f}" for name, value in figures.items()))
        return Point(dimension, size, figures)


def _secrets(plan: Plan, sizes: Sequence[int]) -> list[Point]:
    """More and more secrets in one directory; also what they take, and what a snapshot of them does.

    A second cluster keeps the fewest, and is asked in turns: the machine may have another pace when all are there.
    """
    points = []
    with plan.cluster("secrets") as cluster, plan.cluster("fewest", ports_later=BESIDE_PORTS_LATER) as beside:
        for each in (cluster, beside):
            enable(each)
        fewest = sizes[0]
        fill(beside, PLACE, fewest)
        held = 0
        for size in sizes:
            fill(cluster, PLACE, size, held=held)
            held = size
            figures = _reads_and_writes(cluster, plan.seconds, held, beside, fewest)
            leader = cluster.leader
            figures["memory, MB"] = leader.usage().resident_bytes / 1e6
            disk = sum(file.stat().st_blocks * 512 for file in leader.data.rglob("*") if file.is_file())
            figures["disk, MB"] = disk / 1e6
            began = time.monotonic()
            saved = leader.request("GET", "sys/storage/raft/snapshot", token=cluster.root_token, seconds_max=300)
            figures["snapshot, s"] = time.monotonic() - began
            figures["snapshot, MB"] = len(saved.body) / 1e6
            points.append(plan.done("secrets", size, figures))
    return points


def _reads_and_writes(cluster: Cluster, seconds: int, held: int, beside: Cluster, fewest: int) -> dict[str, float]:
    """Read secrets anywhere among them, sixteen at a time, and write them, one at a time; medians of rounds.

    In each round the fewest are read, too, of the cluster that keeps them.
    """
    leader, token = cluster.leader, cluster.root_token
    path = f"secret/data/{PLACE}/{{n}}"
    known, written = Target("GET", path, count=held), Target("POST", path, WRITE_BODY, count=held)
    few = Target("GET", path, count=fewest)
    reads, writes, reads_beside = [], [], []
    for _ in range(ROUNDS):
        reads_beside.append(load.run(beside.leader.address, [few], Way(CONNECTIONS, seconds), token=beside.root_token))
        reads.append(load.run(leader.address, [known], Way(CONNECTIONS, seconds), token=token))
        writes.append(load.run(leader.address, [written], Way(1, seconds), token=token))
    return {
        "read p50, ms": statistics.median(each.p50_ms for each in reads),
        FEWEST_BESIDE: statistics.median(each.p50_ms for each in reads_beside),
        "reads/s": statistics.median(each.rate for each in reads),
        "write p50, ms": statistics.median(each.p50_ms for each in writes),
    }


def _values(plan: Plan, sizes: Sequence[int]) -> list[Point]:
    """Larger and larger values."""
    points = []
    with plan.cluster("values") as cluster:
        enable(cluster)
        for size in sizes:
            body = f'{{"data":{{"k":"{"x" * size}"}}}}'
            way = Way(CONNECTIONS, plan.seconds)
            address, token = cluster.leader.address, cluster.root_token
            write = load.run(address, [Target("POST", f"secret/data/v{size}/{{n}}", body, 100)], way, token=token)
            read = load.run(address, [Target("GET", f"secret/data/v{size}/{{n}}", "", 100)], way, token=token)
            points.append(plan.done("bytes a value", size, _two(read, write)))
    return points


def _connections(plan: Plan, sizes: Sequence[int]) -> list[Point]:
    """More and more connections at once."""
    with plan.cluster("connections") as cluster:
        enable(cluster)
        fill(cluster, PLACE, 1000)
        return [plan.done("connections", size, _two(*_read_and_write(cluster, size, plan.seconds))) for size in sizes]


def _nodes(plan: Plan, sizes: Sequence[int]) -> list[Point]:
    """Clusters of more and more nodes, all on this machine."""
    points = []
    for size in sizes:
        with plan.cluster(f"nodes-{size}", size) as cluster:
            enable(cluster)
            fill(cluster, PLACE, 1000)
            points.append(plan.done("nodes", size, _two(*_read_and_write(cluster, CONNECTIONS, plan.seconds))))
    return points


def _read_and_write(cluster: Cluster, connections: int, seconds: int) -> tuple[load.Load, load.Load]:
    address, token, way = cluster.leader.address, cluster.root_token, Way(connections, seconds)
    read = load.run(address, [Target("GET", f"secret/data/{PLACE}/{{n}}", count=1000)], way, token=token)
    body = f'{{"data":{{"k":"{VALUE}"}}}}'
    write = load.run(address, [Target("POST", "secret/data/w/{n}", body, 1000)], way, token=token)
    return read, write


def _two(read: load.Load, write: load.Load) -> dict[str, float]:
    return {
        "reads/s": read.rate,
        "read p50, ms": read.p50_ms,
        "read p99, ms": read.p99_ms,
        "writes/s": write.rate,
        "write p50, ms": write.p50_ms,
        "write p99, ms": write.p99_ms,
    }


def _leases(plan: Plan, sizes: Sequence[int]) -> list[Point]:
    """More and more leases on one node that is unsealed again."""
    points = []
    with plan.cluster("leases", 1) as cluster:
        held = 0
        for size in sizes:
            seconds = unseal_with_leases(cluster, held, size)
            held = size
            memory = cluster.nodes[0].usage().resident_bytes / 1e6
            points.append(plan.done("leases", size, {"unseal, s": seconds, "memory, MB": memory}))
    return points


DIMENSIONS: Final = {
    "secrets": _secrets,
    "values": _values,
    "connections": _connections,
    "nodes": _nodes,
    "leases": _leases,
}


def grow(plan: Plan, wanted: dict[str, Sequence[int]]) -> list[Point]:
    """Measure each wanted dimension at its sizes, from the smallest on."""
    points: list[Point] = []
    for dimension, sizes in wanted.items():
        points += DIMENSIONS[dimension](plan, sorted(sizes))
    return points
