"""Much data on three real nodes: a follower that catches up by a snapshot, and a large snapshot file there and back.

Memory is `RssAnon` of /proc/PID/status: what a process holds of its own. Pages of the state's file that the kernel keeps
mapped are memory, too, but the kernel's to take back.

A file of 1 GB is damaged at random places and at all edges of its structure, one byte or one cut at a time; that every single
byte counts is held exhaustively, for a small file, by `tests/storage/test_archive.py`.
"""

import contextlib
import http.client
import io
import os
import random
import statistics
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Final, Self

from msgspec import Struct

from bench import load
from bench.load import Target, Way
from bench.nodes import CONCLAVE, Cluster, NodeProcess
from bench.preparing import enable
from bench.stress_report import Check, Say, held_to, told
from conclave.storage.archive import verify_file
from conclave.storage.errors import StorageError

LOAD_CONNECTIONS: Final = 4
LOAD_SECONDS: Final = 10
LOAD_SECONDS_MAX: Final = 900
SLOWER_MAX: Final = 2.0
ROUNDS: Final = 3
MISSED_ENTRIES: Final = 200_000
FOLLOWER_NICENESS: Final = 10
"""Here it starts and installs on the cores of the leader; where it has its own, it takes nothing from it."""
FILL_CONNECTIONS: Final = 256
FILL_SECONDS: Final = 2
"""So that each round writes about as many names as it has: most are new."""
CATCH_UP_SECONDS_MAX: Final = 300.0
BEHIND_ENTRIES_MAX: Final = 1000
"""A follower this close has caught up: what is on its way under load is no more."""

SNAPSHOT_BYTES: Final = 1 << 30
VALUE_BYTES: Final = 128 << 10
WRITERS: Final = 4
MIB: Final = 1 << 20
MEMORY_GROWTH_MIB_MAX: Final = 64
MEMORY_POLL_SECONDS: Final = 0.02
DAMAGED_PLACES: Final = 500
REFUSED: Final = 77
"""How a process ends that has refused a damaged file."""
COPY_BYTES: Final = 1 << 18
REQUEST_SECONDS_MAX: Final = 600
SAMPLED_READS: Final = 100
_PATH: Final = "/v1/sys/storage/raft/snapshot"
_BODY: Final = '{"data":{"password":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","username":"bench"}}'
_SMALL: Final = Target("POST", "secret/data/small/{n}", _BODY, count=10_000)


# -- a follower that was away --


def catch_up(folder: Path, base_port: int, say: Say) -> Iterator[Check]:
    """Let a follower miss entries, then catch up; compare the leader's latency with that before and after."""
    with _cluster(folder / "catch-up", base_port) as cluster:
        _loaded(cluster)  # creates what is written again later
        rounds = []
        for _ in range(ROUNDS):
            rounds.append(_caught_up(cluster, cluster.standbys[0]))
            say(str(rounds[-1]))
        follower, leader = cluster.standbys[0], cluster.leader
        cluster.request("POST", "secret/data/last", {"data": {"k": "v"}})
        read = cluster.request("GET", "secret/data/last", node=follower).json()["data"]["data"]
        snapshots = leader.log_file.read_text().count("opened a snapshot for a follower")
    yield from _compared("catch-up", rounds)
    yield held_to("catch-up", "times that it took no snapshot", ROUNDS - snapshots, 0, "")
    yield held_to("catch-up", "reads of the follower that are not the last write", float(read != {"k": "v"}), 0, "")


class _Round(Struct, frozen=True):
    """How long something took, and the leader's p99 latency of writes meanwhile, and before and after."""

    seconds: float
    normal_ms: float
    meanwhile_ms: float


def _compared(item: str, rounds: Sequence[_Round]) -> Iterator[Check]:
    yield told(item, "seconds it takes", statistics.median(each.seconds for each in rounds), "s")
    yield told(item, "write p99 before and after", statistics.median(each.normal_ms for each in rounds), "ms")
    yield told(item, "write p99 meanwhile", statistics.median(each.meanwhile_ms for each in rounds), "ms")
    slower = statistics.median(each.meanwhile_ms / each.normal_ms for each in rounds)
    yield held_to(
        item, f"write p99 meanwhile, beside that of its round, median of {ROUNDS}", slower, SLOWER_MAX, "times"
    )
    worst = max(each.meanwhile_ms / each.normal_ms for each in rounds)
    yield told(item, "the same in the worst round", worst, "times")


def _caught_up(cluster: Cluster, follower: NodeProcess) -> _Round:
    leader = cluster.leader
    before_ms = _loaded(cluster)
    follower.stop()
    target = _applied(cluster, leader) + MISSED_ENTRIES
    while (applied := _applied(cluster, leader)) < target:
        grown = Target("POST", "secret/data/grown/{n}", _BODY, count=10_000, first=applied)
        load.run(leader.address, [grown], Way(FILL_CONNECTIONS, FILL_SECONDS), token=cluster.root_token)
    with _load(cluster) as running:
        started = time.perf_counter()
        cluster.restart(follower, niceness=FOLLOWER_NICENESS)
        cluster.wait(
            "the follower to catch up",
            lambda: _applied(cluster, follower) > _applied(cluster, leader) - BEHIND_ENTRIES_MAX,
            CATCH_UP_SECONDS_MAX,
        )
        seconds = time.perf_counter() - started
        meanwhile_ms = running.end().p99_ms
    return _Round(seconds, statistics.mean((before_ms, _loaded(cluster))), meanwhile_ms)


def _cluster(folder: Path, base_port: int) -> contextlib.AbstractContextManager[Cluster]:
    """Start three nodes with a kv-v2 mount that takes writes."""

    @contextlib.contextmanager
    def started() -> Iterator[Cluster]:
        with Cluster(CONCLAVE, folder, base_port=base_port) as cluster:
            enable(cluster)
            yield cluster

    return started()


def _load(cluster: Cluster) -> contextlib.AbstractContextManager[load.Running]:
    """Load the leader until told to stop."""
    way = Way(LOAD_CONNECTIONS, LOAD_SECONDS_MAX)
    return load.running(cluster.leader.address, [_SMALL], way, token=cluster.root_token)


def _loaded(cluster: Cluster) -> float:
    """Load the leader while nothing else goes on; return the p99 latency in milliseconds."""
    with _load(cluster) as running:
        time.sleep(LOAD_SECONDS)
        return running.end().p99_ms


def _applied(cluster: Cluster, node: NodeProcess) -> int:
    answer = node.request("GET", "sys/leader", token=cluster.root_token)
    return int(answer.json()["raft_applied_index"]) if answer.status == 200 else 0


# -- a large file --


def snapshot(folder: Path, base_port: int, say: Say) -> Iterator[Check]:
    """Save a large state while writes go on, check and damage the file, and restore it."""
    file = folder / "large.snap"
    with _cluster(folder / "snapshot", base_port) as cluster:
        values = _fill(cluster)
        say(f"wrote {len(values)} values of {VALUE_BYTES >> 10} KiB")
        yield told("snapshot", "seconds until a node with so much serves again", _restarted(cluster), "s")
        yield from _saved(cluster, file, say)
        yield from _verified(file, folder, say)
        yield from _restored(cluster, file, values, say)
        yield from _refused(cluster, file)


def _fill(cluster: Cluster) -> dict[str, str]:
    """Write large values; return what stands at each path."""
    chance = random.Random(2)
    count = SNAPSHOT_BYTES // VALUE_BYTES
    values = {f"secret/data/large/{n}": chance.randbytes(16).hex() * (VALUE_BYTES // 32) for n in range(count)}
    leader = cluster.leader
    with ThreadPoolExecutor(WRITERS) as pool:
        for answer in pool.map(
            lambda pair: leader.request("POST", pair[0], {"data": {"v": pair[1]}}, token=cluster.root_token),
            values.items(),
        ):
            assert answer.status == 200, answer.body
    return values


def _restarted(cluster: Cluster) -> float:
    """Start all nodes anew, so that none holds memory of what was before; return how long one takes, at the median."""
    times = []
    for node in cluster.nodes:
        node.stop()
        started = time.perf_counter()
        cluster.restart(node)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _saved(cluster: Cluster, file: Path, say: Say) -> Iterator[Check]:
    _loaded(cluster)  # creates what is written again later
    rounds = []
    growths = []
    for _ in range(ROUNDS):
        leader = cluster.leader
        before_ms = _loaded(cluster)
        with _load(cluster) as running, _Memory([leader]) as memory:
            started = time.perf_counter()
            _download(cluster, leader, file)
            seconds = time.perf_counter() - started
            meanwhile_ms = running.end().p99_ms
        rounds.append(_Round(seconds, statistics.mean((before_ms, _loaded(cluster))), meanwhile_ms))
        growths.append(memory.growth_bytes(leader) / MIB)
        say(str(rounds[-1]))
    yield told("snapshot", "size of the file", file.stat().st_size / 1e6, "MB")
    yield held_to("snapshot", "memory of the node that saves it, growth", max(growths), MEMORY_GROWTH_MIB_MAX, "MiB")
    yield from _compared("snapshot", rounds)


class _Memory(threading.Thread):
    """Watches how much memory nodes hold of their own."""

    def __init__(self, nodes: list[NodeProcess]) -> None:
        super().__init__(name="memory", daemon=True)
        self._nodes = nodes
        self._before = {node.number: _anonymous_bytes(node) for node in nodes}
        self._peaks = dict(self._before)
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(MEMORY_POLL_SECONDS):
            for node in self._nodes:
                self._peaks[node.number] = max(self._peaks[node.number], _anonymous_bytes(node))

    def growth_bytes(self, node: NodeProcess) -> int:
        return self._peaks[node.number] - self._before[node.number]


def _anonymous_bytes(node: NodeProcess) -> int:
    assert node.process is not None, "the node runs"
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) << 10


def _download(cluster: Cluster, node: NodeProcess, file: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", node.api_port, timeout=REQUEST_SECONDS_MAX)
    with contextlib.closing(connection), file.open("wb") as target:
        connection.request("GET", _PATH, headers={"X-Vault-Token": cluster.root_token})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        while piece := answer.read(COPY_BYTES):
            target.write(piece)


def _upload(cluster: Cluster, node: NodeProcess, source: IO[bytes], length: int) -> int:
    """Return the status of the answer to a restoring."""
    connection = http.client.HTTPConnection("127.0.0.1", node.api_port, timeout=REQUEST_SECONDS_MAX)
    with contextlib.closing(connection):
        headers = {"X-Vault-Token": cluster.root_token, "Content-Length": str(length)}
        connection.request("POST", _PATH, source, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status


# -- damage --


class _Damaged(io.RawIOBase):
    """A file with one byte changed, or cut short, without a copy of it."""

    def __init__(self, file: IO[bytes], position: int, *, flip: int) -> None:
        super().__init__()
        self._file = file
        self._position, self._flip = position, flip  # flip 0: the file ends there
        self._file.seek(0)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()
        return _damaged(self._file.read(size), self._position - start, self._flip)


class _Branching(io.RawIOBase):
    """A file that is read once as it is; and from each position on once more, with damage there, in a process of its own.

    What stands before the damage need not be read for each anew: what has been made of it is in the process that forks.

    Attributes:
        is_damaged: this is such a process.
        accepted: positions and what was done there, if the process did not end with `REFUSED`.
    """

    def __init__(self, file: IO[bytes], damages: Iterable[tuple[int, int]]) -> None:
        super().__init__()
        self.is_damaged = False
        self.accepted: list[tuple[int, int]] = []
        self._descriptor = file.fileno()
        self._offset = 0
        self._damages = sorted(damages, reverse=True)
        self._cut_at: int | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        start = self._offset
        if self._cut_at is not None:
            size = min(size, self._cut_at - start)
        content = os.pread(self._descriptor, size, start)  # not read(): the processes share the file's own place
        self._offset += len(content)
        while self._damages and self._damages[-1][0] < self._offset:
            position, flip = self._damages.pop()
            child = os.fork()
            if child == 0:
                return self._become_damaged(content, start, position, flip)
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != REFUSED:
                self.accepted.append((position, flip))
        return content

    def _become_damaged(self, content: bytes, start: int, position: int, flip: int) -> bytes:
        self.is_damaged = True
        self._damages.clear()
        if not flip:
            self._cut_at = self._offset = position
        return _damaged(content, position - start, flip)


def _damaged(content: bytes, place: int, flip: int) -> bytes:
    """Return content with the byte at a place changed, if it is in there; or all before it, if `flip` is 0."""
    if not flip:
        return content[: max(0, place)]
    if not 0 <= place < len(content):
        return content
    return content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :]


def _verified(file: Path, folder: Path, say: Say) -> Iterator[Check]:
    with file.open("rb") as source:
        started = time.perf_counter()
        verify_file(source)
        seconds = time.perf_counter() - started
        damages = _damages(source, file.stat().st_size)
        accepted = _accepted(source, damages)
    for position, flip in accepted:
        say(f"not refused: {'cut' if not flip else f'byte ^ {flip}'} at {position}")
    said = subprocess.run(
        [CONCLAVE.command[0], "operator", "raft", "snapshot", "inspect", str(file)],
        capture_output=True,
        check=False,
        env={**os.environ, "HOME": str(folder)},
    )
    yield told("snapshot", "seconds to verify it", seconds, "s")
    yield held_to("snapshot", "refusals of the whole file by `snapshot inspect`", said.returncode, 0, "")
    yield told("snapshot", "single bytes changed, and cuts", len(damages), "")
    yield held_to("snapshot", "of these, files that verify accepts", len(accepted), 0, "")


def _damages(source: IO[bytes], size: int) -> list[tuple[int, int]]:
    """Return positions and what to do there (see `_Damaged`): all edges of the structure, and random places."""
    chance = random.Random(3)
    positions = {*range(64), *range(size - 64, size), *(chance.randrange(size) for _ in range(DAMAGED_PLACES))}
    source.seek(0)
    with tarfile.open(fileobj=source, mode="r:gz") as tar:
        # Where they are in the tar; in the file there are some bytes more, five for each block that is stored.
        positions |= {start for member in tar for start in (member.offset, member.offset_data)}
    return [(position, flip) for position in positions for flip in (0, 1 << chance.randrange(8))]


def _accepted(source: IO[bytes], damages: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Verify the file with each damage; return those with which it is accepted, or not refused as it should be."""
    branching = _Branching(source, damages)
    code = 1
    try:
        verify_file(branching)  # type: ignore[arg-type]  # all that is asked for is read()
    except StorageError:
        if not branching.is_damaged:
            raise
        code = REFUSED
    finally:
        if branching.is_damaged:
            os._exit(code)
    return branching.accepted


# -- and back --


def _restored(cluster: Cluster, file: Path, values: dict[str, str], say: Say) -> Iterator[Check]:
    cluster.request("POST", "secret/data/later", {"data": {"v": "later"}})
    leader = cluster.leader
    with _Memory(cluster.nodes) as memory, file.open("rb") as source:
        started = time.perf_counter()
        status = _upload(cluster, leader, source, file.stat().st_size)
        seconds = time.perf_counter() - started
        assert status == 204, status
        cluster.wait(
            "all nodes to have it", lambda: all(_is_at(cluster, node, leader) for node in cluster.nodes), 120.0
        )
    say(f"restored in {seconds:.0f} s")
    yield told("snapshot", "seconds to restore it", seconds, "s")
    for node in cluster.nodes:
        role = "leader" if node is leader else "follower"
        growth = memory.growth_bytes(node) / MIB
        yield held_to("snapshot", f"memory of the {role} meanwhile, growth", growth, MEMORY_GROWTH_MIB_MAX, "MiB")
    wrong = sum(_wrong_reads(cluster, node, values) for node in cluster.nodes)
    yield held_to("snapshot", "reads that are not of the restored state", wrong, 0, "")


def _is_at(cluster: Cluster, node: NodeProcess, leader: NodeProcess) -> bool:
    return _applied(cluster, node) >= _applied(cluster, leader)


def _wrong_reads(cluster: Cluster, node: NodeProcess, values: dict[str, str]) -> int:
    """Count reads of a node that are not what was restored."""
    wrong = int(node.request("GET", "secret/data/later", token=cluster.root_token).status != 404)
    for path in random.Random(4).sample(sorted(values), SAMPLED_READS):
        answer = node.request("GET", path, token=cluster.root_token)
        wrong += answer.status != 200 or answer.json()["data"]["data"] != {"v": values[path]}
    return wrong


def _refused(cluster: Cluster, file: Path) -> Iterator[Check]:
    """Try to restore damaged files; nothing may change."""
    size = file.stat().st_size
    cluster.request("POST", "secret/data/kept", {"data": {"v": "kept"}})
    leader = cluster.leader
    before = _applied(cluster, leader)
    wrong = 0
    with file.open("rb") as source:
        flipped = _Damaged(source, size // 2, flip=1)
        wrong += _upload(cluster, leader, flipped, size) != 400  # type: ignore[arg-type]  # as above
        cut = _Damaged(source, size - 1, flip=0)
        wrong += _upload(cluster, leader, cut, size - 1) != 400  # type: ignore[arg-type]
    read = cluster.request("GET", "secret/data/kept").json()["data"]["data"]
    wrong += read != {"v": "kept"}
    yield held_to("snapshot", "damaged files that are restored, or change something", wrong, 0, "")
    yield told("snapshot", "entries in the log by them", _applied(cluster, leader) - before, "")
