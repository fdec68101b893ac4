"""Where a request's time goes: the same load on less and less of a server.

    an answer     nothing but an event loop and sockets (`floor_server.py`)
    HTTP          a request read and an answer written, an echo behind
    one node      the whole server, which commits alone
    three nodes   the whole cluster, as in `operations.py`

What the node that is asked needs of a processor bounds what one event loop can do: 1,000,000 µs a second. What all nodes
need, and the load generator, bounds what a machine can do on which they share the cores.
"""

import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from bench import load
from bench.load import Target, Way
from bench.nodes import CONCLAVE, Cluster, usage_of, wait_until
from bench.operations import OPERATIONS, measure
from bench.preparing import Setting, prepare

START_SECONDS_MAX: Final = 20
KINDS: Final = {"answer": "an answer, nothing else", "http": "HTTP, an echo behind"}
SIZES: Final = {1: "one node", 3: "three nodes"}
CHOSEN: Final = (
    "token lookup-self",
    "kv-v2 read, leader",
    "kv-v2 read, standby",
    "kv-v2 write, 1 connection",
    "kv-v2 write, 16 connections",
    "kv-v2 write, 64 connections",
    "kv-v2 write through a standby",
    "token create",
    "approle login",
    "transit encrypt",
    "transit sign",
)


class Floor(Struct, frozen=True):
    """What one request costs where only so much of a server is there."""

    operation: str
    what: str
    rate: float
    asked_cpu_microseconds: float
    other_cpu_microseconds: float


def floors(base_port: int, *, rounds: int, seconds: int, report: Callable[[str], None]) -> list[Floor]:
    """Measure every stage."""
    found = [_bare(kind, base_port, rounds, seconds) for kind in KINDS]
    for size, what in SIZES.items():
        found += _cluster(size, what, base_port, rounds, seconds, report)
    return found


def _bare(kind: str, port: int, rounds: int, seconds: int) -> Floor:
    target, way = [Target("GET", "secret/data/few/1")], Way(16, seconds)
    rates, costs = [], []
    with _serving(kind, port) as process:
        for _ in range(rounds):
            before = usage_of(process.pid)
            done = load.run(f"http://127.0.0.1:{port}", target, way, token="none")  # noqa: S106  (nobody looks at it)
            rates.append(done.rate)
            costs.append((usage_of(process.pid).cpu_seconds - before.cpu_seconds) / done.requests * 1e6)
    return Floor("any", KINDS[kind], statistics.median(rates), statistics.median(costs), 0.0)


@contextlib.contextmanager
def _serving(kind: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-m", "bench.floor_server", kind, str(port)]) as process:

        def listens() -> bool:
            if process.poll() is not None:
                raise load.LoadFailed(f"the {kind} server has ended")
            return _listens(port)

        try:
            wait_until(f"the {kind} server to listen", listens, START_SECONDS_MAX)
            yield process
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as dialing:
        return dialing.connect_ex(("127.0.0.1", port)) == 0


def _cluster(
    size: int, what: str, base_port: int, rounds: int, seconds: int, report: Callable[[str], None]
) -> Sequence[Floor]:
    chosen = [each for each in OPERATIONS if each.name in CHOSEN and (size > 1 or not each.on_standby)]
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="conclave-bench-") as folder,
        Cluster(CONCLAVE, Path(folder), base_port=base_port, size=size) as cluster,
    ):
        prepared = [(cluster, prepare(cluster, Setting.PLAIN))]
        for operation in chosen:
            (done,) = measure(operation, prepared, rounds=rounds, seconds=seconds, report=report)
            assert done.cpu_microseconds is not None, "nothing else is done beside these"
            assert done.asked_cpu_microseconds is not None, "as above"
            others = done.cpu_microseconds - done.asked_cpu_microseconds
            found.append(Floor(operation.name, what, done.rate, done.asked_cpu_microseconds, others))
    return found
