"""What size does: the same operations on a cluster that holds more and more secrets.

`python -m bench --growth 1000,100000` fills a cluster step by step and measures reads and writes after each: a design whose
reads walk what is there, or whose memory holds it, shows here and nowhere else. The secrets are written by `wrk`, each once.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from bench import load
from bench.load import Target
from bench.nodes import CONCLAVE, Cluster

FILL_CONNECTIONS: Final = 128
FILL_SECONDS: Final = 5
FILL_FIRST: Final = 500
FILL_SHARE: Final = 0.7
"""How much of what a round of filling has written the next one is given to write, so that it gets round."""
READ_CONNECTIONS: Final = 16
_BODY: Final = '{"data":{"password":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","username":"bench"}}'


class Step(Struct, frozen=True):
    """What a cluster of so many secrets does; sizes are of one node."""

    secrets: int
    read_p50_ms: float
    read_rate: float
    write_p50_ms: float
    resident_bytes: int
    disk_bytes: int


def grow(folder: Path, base_port: int, sizes: Sequence[int], seconds: int, say: Callable[[str], None]) -> list[Step]:
    """Fill a cluster of three nodes up to each of `sizes` and measure there."""
    steps = []
    with Cluster(CONCLAVE, folder, base_port=base_port) as cluster:
        cluster.request("POST", "sys/mounts/secret", {"type": "kv-v2"})
        cluster.wait("the mount", lambda: _writes(cluster, "ready"))
        held = 0
        for size in sorted(sizes):
            held = _fill(cluster, held, size)
            steps.append(_measure(cluster, held, seconds))
            say(f"{held:,} secrets: read p50 {steps[-1].read_p50_ms:.2f} ms, write p50 {steps[-1].write_p50_ms:.2f} ms")
    return steps


def _writes(cluster: Cluster, name: str) -> bool:
    answer = cluster.leader.request("POST", f"secret/data/{name}", {"data": {"k": "v"}}, token=cluster.root_token)
    return answer.status < 400


def _fill(cluster: Cluster, held: int, size: int) -> int:
    """Write secrets that are not there yet until about `size` are; return how many are."""
    chunk = FILL_FIRST
    while held < size:
        chunk = min(chunk, load.PREPARED_REQUESTS_MAX, size - held)
        done = load.run(
            cluster.leader.address,
            Target("POST", "secret/data/grown/{n}", _BODY, count=chunk, first=held),
            connections=FILL_CONNECTIONS,
            seconds=FILL_SECONDS,
            token=cluster.root_token,
        )
        if done.requests >= chunk + FILL_CONNECTIONS:  # it went round, and further than what its end has cut off
            held += chunk
        chunk = max(1, int(done.requests * FILL_SHARE))
    return held


def _measure(cluster: Cluster, held: int, seconds: int) -> Step:
    leader = cluster.leader
    count = min(held, load.PREPARED_REQUESTS_MAX)
    known = Target("GET", "secret/data/grown/{n}", count=count, first=held - count)
    read = load.run(leader.address, known, connections=READ_CONNECTIONS, seconds=seconds, token=cluster.root_token)
    written = Target("POST", "secret/data/grown/{n}", _BODY, count=count, first=held - count)
    write = load.run(leader.address, written, connections=1, seconds=seconds, token=cluster.root_token)
    disk = sum(file.stat().st_blocks * 512 for file in leader.data.rglob("*") if file.is_file())
    return Step(held, read.p50_ms, read.rate, write.p50_ms, leader.usage().resident_bytes, disk)
