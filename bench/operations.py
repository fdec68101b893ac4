"""Operations of a whole cluster: what a client sees, and what it costs all nodes together.

Each operation is played for a few seconds on three real processes, after a warm-up; where a peer is measured beside, the
two take turns, so that a noisy moment of the machine hits both. A figure is the median of the rounds.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct

from bench import load
from bench.load import Load, Target
from bench.nodes import Cluster, NodeProcess

WARM_UP_SECONDS: Final = 1
SECRETS: Final = 1000
VALUE: Final = "x" * 100
_WRITE: Final = json.dumps({"data": {"password": VALUE, "username": "bench"}})


class Operation(Struct, frozen=True):
    """One thing that clients do.

    Attributes:
        on_standby: whether a standby is asked.
        path: of the token or role that the preparation made: "{token}" is replaced by what it returned.
    """

    name: str
    target: Target
    connections: int
    on_standby: bool = False
    asks_as: str = "root"  # which of the prepared tokens: root, one with a policy, or none


OPERATIONS: Final = (
    Operation("health", Target("GET", "sys/health"), 16),
    Operation("token lookup-self", Target("GET", "auth/token/lookup-self"), 16, asks_as="service"),
    Operation("kv-v2 read, leader", Target("GET", "secret/data/bench/{n}", count=SECRETS), 16, asks_as="service"),
    Operation(
        "kv-v2 read, standby",
        Target("GET", "secret/data/bench/{n}", count=SECRETS),
        16,
        on_standby=True,
        asks_as="service",
    ),
    Operation("kv-v2 write, 1 connection", Target("PUT", "secret/data/w1/{n}", _WRITE, count=SECRETS), 1),
    Operation("kv-v2 write, 16 connections", Target("PUT", "secret/data/w16/{n}", _WRITE, count=SECRETS), 16),
    Operation("kv-v2 write, 64 connections", Target("PUT", "secret/data/w64/{n}", _WRITE, count=SECRETS), 64),
    Operation("kv-v2 write, 256 connections", Target("PUT", "secret/data/w256/{n}", _WRITE, count=SECRETS), 256),
    Operation(
        "kv-v2 write through a standby", Target("PUT", "secret/data/ws/{n}", _WRITE, count=SECRETS), 16, on_standby=True
    ),
    Operation("token create", Target("PUT", "auth/token/create", '{"ttl":"1h","policies":["bench"]}'), 16),
    Operation("approle login", Target("PUT", "auth/approle/login", "{approle}"), 16, asks_as=""),
    Operation("transit encrypt", Target("PUT", "transit/encrypt/bench", '{"plaintext":"aGVsbG8="}'), 16),
    Operation("transit sign", Target("PUT", "transit/sign/signer", '{"input":"aGVsbG8="}'), 16),
    Operation("list 1000 names", Target("GET", "secret/metadata/bench?list=true"), 4),
)


class Prepared(Struct, frozen=True):
    """What a cluster was prepared with."""

    tokens: dict[str, str]
    approle: str


class Measured(Struct, frozen=True):
    """One operation on one cluster: medians over the rounds, and how far they were apart."""

    name: str
    program: str
    rate: float
    rate_spread: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    cpu_microseconds: float  # of all nodes together, a request
    written_bytes: float  # of all nodes together, a request


class Idle(Struct, frozen=True):
    """What a cluster uses that is asked nothing; of one node, the mean of all."""

    program: str
    resident_bytes: float
    cpu_percent: float
    written_bytes_a_second: float


def measure_idle(cluster: Cluster, seconds: float) -> Idle:
    """Watch a cluster that is asked nothing."""
    before = cluster.usage()
    time.sleep(seconds)
    after = cluster.usage()
    nodes = len(cluster.nodes)
    return Idle(
        cluster.program.name,
        after.resident_bytes / nodes,
        (after.cpu_seconds - before.cpu_seconds) / seconds / nodes * 100,
        (after.written_bytes - before.written_bytes) / seconds / nodes,
    )


def prepare(cluster: Cluster) -> Prepared:
    """Give a cluster what the operations need."""
    cluster.request("POST", "sys/mounts/secret", {"type": "kv-v2"})
    cluster.request("POST", "sys/mounts/transit", {"type": "transit"})
    cluster.request("POST", "sys/auth/approle", {"type": "approle"})
    _until_done(cluster, "POST", "secret/data/bench/0", {"data": {"k": VALUE}})
    policy = 'path "secret/*" { capabilities = ["read", "list", "create", "update"] }'
    cluster.request("PUT", "sys/policies/acl/bench", {"policy": policy})
    for number in range(1, SECRETS):
        cluster.request("POST", f"secret/data/bench/{number}", {"data": {"k": VALUE}}, node=cluster.nodes[0])
    _until_done(cluster, "POST", "transit/keys/bench", {})
    cluster.request("POST", "transit/keys/signer", {"type": "ed25519"})
    created = cluster.request("POST", "auth/token/create", {"policies": ["bench"], "ttl": "2h"}).json()
    cluster.request("POST", "auth/approle/role/bench", {"token_policies": ["bench"], "token_ttl": "1h"})
    role_id = cluster.request("GET", "auth/approle/role/bench/role-id").json()["data"]["role_id"]
    secret_id = cluster.request("POST", "auth/approle/role/bench/secret-id", {}).json()["data"]["secret_id"]
    return Prepared(
        {"root": cluster.root_token, "service": created["auth"]["client_token"], "": ""},
        json.dumps({"role_id": role_id, "secret_id": secret_id}),
    )


def _until_done(cluster: Cluster, method: str, path: str, fields: Any) -> None:
    """Repeat a request until a mount that was just made is ready for it."""

    def is_done() -> bool:
        return cluster.leader.request(method, path, fields, token=cluster.root_token).status < 400

    cluster.wait(path, is_done)


def measure(
    operation: Operation,
    clusters: Sequence[tuple[Cluster, Prepared]],
    *,
    rounds: int,
    seconds: int,
    report: Callable[[str], None],
) -> list[Measured]:
    """Measure one operation on each cluster, taking turns."""
    taken: list[list[tuple[Load, float, float]]] = [[] for _ in clusters]
    for number in range(rounds):
        for which, (cluster, prepared) in enumerate(clusters):
            taken[which].append(_play(operation, cluster, prepared, seconds, warms_up=number == 0))
    results = [
        _summed_up(operation, cluster.program.name, figures)
        for (cluster, _), figures in zip(clusters, taken, strict=True)
    ]
    report(operation.name + ": " + ", ".join(f"{result.program} {result.rate:,.0f}/s" for result in results))
    return results


def _play(
    operation: Operation, cluster: Cluster, prepared: Prepared, seconds: int, *, warms_up: bool
) -> tuple[Load, float, float]:
    leader = cluster.leader
    node: NodeProcess = next(n for n in cluster.nodes if n is not leader) if operation.on_standby else leader
    body = prepared.approle if operation.target.body == "{approle}" else operation.target.body
    target = Target(operation.target.method, operation.target.path, body, operation.target.count)
    token = prepared.tokens[operation.asks_as]
    if warms_up:
        load.run(node.address, target, connections=operation.connections, seconds=WARM_UP_SECONDS, token=token)
    before = cluster.usage()
    figures = load.run(node.address, target, connections=operation.connections, seconds=seconds, token=token)
    after = cluster.usage()
    return (
        figures,
        (after.cpu_seconds - before.cpu_seconds) / figures.requests * 1e6,
        (after.written_bytes - before.written_bytes) / figures.requests,
    )


def _summed_up(operation: Operation, program: str, figures: Sequence[tuple[Load, float, float]]) -> Measured:
    rates = sorted(load.rate for load, _, _ in figures)
    return Measured(
        name=operation.name,
        program=program,
        rate=statistics.median(rates),
        rate_spread=rates[-1] - rates[0],
        p50_ms=statistics.median(load.p50_ms for load, _, _ in figures),
        p90_ms=statistics.median(load.p90_ms for load, _, _ in figures),
        p99_ms=statistics.median(load.p99_ms for load, _, _ in figures),
        p999_ms=statistics.median(load.p999_ms for load, _, _ in figures),
        cpu_microseconds=statistics.median(cpu for _, cpu, _ in figures),
        written_bytes=statistics.median(written for _, _, written in figures),
    )
