"""Operations of a whole cluster: what a client sees, and what it costs all nodes together.

Each operation is played for a few seconds on three real processes, after a warm-up; where a peer is measured beside, the
two take turns, so that a noisy moment of the machine hits both. A figure is the median of the rounds.
"""

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Final

import msgspec
from msgspec import Struct

from bench import load, noise
from bench.load import Load, Target, Way
from bench.nodes import Cluster, NodeProcess
from bench.preparing import APPROLE, FEW, MANY, TEN, TEN_THOUSAND, USERPASS, WRITE_BODY, Prepared, Setting

WARM_UP_SECONDS: Final = 1
SETTLE_SECONDS: Final = 2.0
"""After writes: what they leave for later (a flush of the state each second) counts as theirs, and delays nobody else."""
ATTEMPTS_MAX: Final = 3
"""How often an operation is measured whose rounds are too far apart."""
LEAD_SECONDS: Final = 0.5
"""What is done beside an operation begins so much earlier."""


class Beside(Enum):
    """What else the cluster is made to do meanwhile; what that costs cannot be told from what the operation costs."""

    NOTHING = "nothing"
    WRITES = "writes"
    SNAPSHOTS = "snapshots"


class Operation(Struct, frozen=True):
    """One thing that clients do.

    Attributes:
        targets: asked in turns.
        on_standby: whether a standby is asked.
        asks_as: whose token: root, one with a policy, or none.
    """

    name: str
    targets: tuple[Target, ...]
    connections: int = 16
    on_standby: bool = False
    asks_as: str = "root"
    keeps_alive: bool = True
    revokes: bool = False
    setting: Setting = Setting.PLAIN
    beside: Beside = Beside.NOTHING


_READ: Final = (Target("GET", "secret/data/few/{n}", count=FEW),)
_READ_MANY: Final = (Target("GET", "secret/data/many/{n}", count=MANY),)
_ENCRYPT: Final = Target("PUT", "transit/encrypt/bench", '{"plaintext":"aGVsbG8="}')
_SIGN: Final = Target("PUT", "transit/sign/signer", '{"input":"aGVsbG8="}')
_NEW_TOKEN: Final = Target("PUT", "auth/token/create", '{"ttl":"1h","policies":["bench"]}')


def _write(place: str) -> tuple[Target, ...]:
    return (Target("PUT", f"secret/data/{place}/{{n}}", WRITE_BODY, count=1000),)


OPERATIONS: Final = (
    Operation("health", (Target("GET", "sys/health"),)),
    Operation("token lookup-self", (Target("GET", "auth/token/lookup-self"),), asks_as="service"),
    Operation("kv-v2 read, leader", _READ, asks_as="service"),
    Operation("kv-v2 read, standby", _READ, asks_as="service", on_standby=True),
    Operation("kv-v2 read, 100,000 secrets", _READ_MANY, asks_as="service", setting=Setting.STOCKED),
    Operation("kv-v2 read, 1 KiB", (Target("GET", "secret/data/sized/1024"),), asks_as="service"),
    Operation("kv-v2 read, 64 KiB", (Target("GET", "secret/data/sized/65536"),), asks_as="service"),
    Operation("kv-v2 read, a connection each", _READ, asks_as="service", keeps_alive=False),
    Operation("kv-v2 read, TLS", _READ, asks_as="service", setting=Setting.TLS),
    Operation("kv-v2 read, audited", _READ, asks_as="service", setting=Setting.AUDIT),
    Operation("kv-v2 read beside 64 writers", _READ, asks_as="service", beside=Beside.WRITES),
    Operation(
        "kv-v2 read beside snapshots", _READ_MANY, asks_as="service", setting=Setting.STOCKED, beside=Beside.SNAPSHOTS
    ),
    Operation("kv-v2 write, 1 connection", _write("w1"), 1),
    Operation("kv-v2 write, 16 connections", _write("w16")),
    Operation("kv-v2 write, 64 connections", _write("w64"), 64),
    Operation("kv-v2 write, 256 connections", _write("w256"), 256),
    Operation("kv-v2 write through a standby", _write("ws"), on_standby=True),
    Operation("kv-v2 write, TLS", _write("wt"), setting=Setting.TLS),
    Operation("kv-v2 write, audited", _write("wa"), setting=Setting.AUDIT),
    Operation(
        "kv-v2, nine reads and a write",
        (Target("GET", "secret/data/few/{n}", count=FEW, weight=9), *_write("few")),
        asks_as="service",
    ),
    Operation("list 10 names", (Target("GET", f"secret/metadata/{TEN}?list=true"),), 4),
    Operation("list 1000 names", (Target("GET", "secret/metadata/few?list=true"),), 4),
    Operation(
        "list 10,000 names", (Target("GET", f"secret/metadata/{TEN_THOUSAND}?list=true"),), 4, setting=Setting.STOCKED
    ),
    Operation("token create", (_NEW_TOKEN,)),
    Operation("token create, then revoke", (_NEW_TOKEN,), revokes=True),
    Operation("approle login", (Target("PUT", "auth/approle/login", APPROLE),), asks_as=""),
    Operation("userpass login", (Target("PUT", "auth/userpass/login/bench", USERPASS),), 4, asks_as=""),
    Operation("transit encrypt", (_ENCRYPT,)),
    Operation("transit sign", (_SIGN,)),
)


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
    cpu_microseconds: float | None  # of all nodes together, a request; None beside something else
    asked_cpu_microseconds: float | None  # of the node that is asked alone, likewise
    written_bytes: float | None  # to disk, of all nodes together, likewise


class Pauses(Struct, frozen=True):
    """For how long the collector of memory has stopped the requests of a leader since it was started."""

    program: str
    collections: int
    total_ms: float
    longest_ms: float  # of the latest


class Idle(Struct, frozen=True):
    """What a cluster uses that is asked nothing; of one node, the mean of all."""

    program: str
    resident_bytes: float
    cpu_percent: float
    written_bytes_a_second: float  # as the kernel counts it for the nodes: others write to the disk, too


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


def measure_pauses(cluster: Cluster) -> Pauses:
    """Return what a leader of ours tells of its collector."""
    samples = cluster.request("GET", "sys/metrics").json()["Samples"]
    pauses = next(sample for sample in samples if sample["Name"] == "vault.runtime.gc_pause_ns")
    return Pauses(cluster.program.name, pauses["Count"], pauses["Sum"] / 1e6, pauses["Max"] / 1e6)


def until_steady(name: str, play: Callable[[], list[Measured]], report: Callable[[str], None]) -> list[Measured]:
    """Return what `play` measures of an operation; it is played again if its rounds were too far apart.

    Raises:
        TooNoisy: they always were.
    """
    for _ in range(ATTEMPTS_MAX):
        results = play()
        if all(result.rate_spread <= noise.SPREAD_MAX * result.rate for result in results):
            return results
        report(f"{name}: the rounds are too far apart")
    raise noise.TooNoisy(f"{name}: its rounds were always too far apart; nothing is written down")


def measure(
    operation: Operation,
    clusters: Sequence[tuple[Cluster, Prepared]],
    *,
    rounds: int,
    seconds: int,
    report: Callable[[str], None],
) -> list[Measured]:
    """Measure one operation on each cluster, taking turns, and taking turns at being the first."""
    taken: list[list[_Round]] = [[] for _ in clusters]
    for number in range(rounds):
        order = list(enumerate(clusters))
        for which, (cluster, prepared) in order if number % 2 == 0 else reversed(order):
            taken[which].append(_play(operation, cluster, prepared, seconds, warms_up=number == 0))
    results = [
        _summed_up(operation, cluster.program.name, played)
        for (cluster, _), played in zip(clusters, taken, strict=True)
    ]
    report(
        f"{operation.name}: "
        + ", ".join(f"{result.program} {result.rate:,.0f}/s, p99 {result.p99_ms:.1f} ms" for result in results)
    )
    return results


class _Round(Struct, frozen=True):
    load: Load
    cpu_microseconds: float
    asked_cpu_microseconds: float
    written_bytes: float


def _play(operation: Operation, cluster: Cluster, prepared: Prepared, seconds: int, *, warms_up: bool) -> _Round:
    leader = cluster.leader
    node: NodeProcess = next(n for n in cluster.nodes if n is not leader) if operation.on_standby else leader
    targets = [_filled_in(target, prepared) for target in operation.targets]
    token = prepared.tokens[operation.asks_as]
    way = Way(operation.connections, seconds, operation.keeps_alive, operation.revokes)
    if warms_up:
        load.run(node.address, targets, msgspec.structs.replace(way, seconds=WARM_UP_SECONDS), token=token)
    written_before = cluster.written_bytes()
    with _beside(operation.beside, leader, prepared, seconds):
        before, asked_before = cluster.usage(), node.usage()
        figures = load.run(node.address, targets, way, token=token)
        if any(target.method != "GET" for target in targets):
            time.sleep(SETTLE_SECONDS)  # nothing tells when the last flush has ended
        after, asked_after = cluster.usage(), node.usage()
    written_bytes = cluster.written_bytes() - written_before
    return _Round(
        figures,
        (after.cpu_seconds - before.cpu_seconds) / figures.requests * 1e6,
        (asked_after.cpu_seconds - asked_before.cpu_seconds) / figures.requests * 1e6,
        written_bytes / figures.requests,
    )


def _filled_in(target: Target, prepared: Prepared) -> Target:
    """Return a target with the credentials that the preparation made."""
    return msgspec.structs.replace(target, body=prepared.bodies.get(target.body, target.body))


@contextlib.contextmanager
def _beside(beside: Beside, leader: NodeProcess, prepared: Prepared, seconds: int) -> Iterator[None]:
    """Let the leader do something else as well for as long as this lasts.

    Raises:
        LoadFailed: that could not be done, at the end.
    """
    if beside is Beside.WRITES:
        way = Way(connections=64, seconds=seconds + 10)
        with load.running(leader.address, _write("beside"), way, token=prepared.tokens["root"]) as writers:
            time.sleep(LEAD_SECONDS)  # nothing tells when it has come to its full rate
            yield
            writers.end()
    elif beside is Beside.SNAPSHOTS:
        with _snapshots(leader, prepared.tokens["root"]):
            time.sleep(LEAD_SECONDS)  # nothing tells when it has come to its full rate
            yield
    else:
        yield


@contextlib.contextmanager
def _snapshots(leader: NodeProcess, token: str) -> Iterator[None]:
    """Take one snapshot after the other."""
    ending = threading.Event()
    failures: list[Exception] = []

    def take() -> None:
        try:
            while not ending.is_set():
                leader.request("GET", "sys/storage/raft/snapshot", token=token)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
    if failures:
        raise load.LoadFailed(f"no snapshot beside the operation: {failures[0]}")


def _summed_up(operation: Operation, program: str, played: Sequence[_Round]) -> Measured:
    rates = sorted(each.load.rate for each in played)
    is_alone = operation.beside is Beside.NOTHING
    return Measured(
        name=operation.name,
        program=program,
        rate=statistics.median(rates),
        rate_spread=rates[-1] - rates[0],
        p50_ms=statistics.median(each.load.p50_ms for each in played),
        p90_ms=statistics.median(each.load.p90_ms for each in played),
        p99_ms=statistics.median(each.load.p99_ms for each in played),
        p999_ms=statistics.median(each.load.p999_ms for each in played),
        cpu_microseconds=statistics.median(each.cpu_microseconds for each in played) if is_alone else None,
        asked_cpu_microseconds=statistics.median(each.asked_cpu_microseconds for each in played) if is_alone else None,
        written_bytes=statistics.median(each.written_bytes for each in played) if is_alone else None,
    )
