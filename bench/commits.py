"""Proposing and committing with nothing of a vault around it: three nodes in this process, and in three.

In one process the nodes share an event loop, which is all the network that they have. In three, this one leads, each of the
others is `python -m bench.commits NAME PORT FOLDER`, and they talk over TLS as servers do. Logs are on disk in both. What a
follower needs to join goes over its standard input and output.
"""

import argparse
import asyncio
import contextlib
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from bench.figures import REPETITIONS, Figure
from conclave.cluster.node import NodeSettings, tls_transport_factory
from conclave.cluster.replica import JoinRequest, JoinTicket
from conclave.runtime import share_interpreter
from conclave.storage.file_log import FileLog
from tests.cluster.cluster_of_nodes import Cluster, Member, admit, is_settled, until

SIZE: Final = 3
CONCURRENT: Final = (1, 64)
SECONDS: Final = 0.6
PAYLOAD_BYTES: Final = 300
SETTINGS: Final = NodeSettings()
"""As a server has them: processes wait for each other longer than nodes that share a loop."""


def commit() -> Iterator[Figure]:
    """Propose and commit on three nodes, one entry at a time and many."""
    for concurrent in CONCURRENT:
        yield asyncio.run(in_one_process(concurrent))
    for concurrent in CONCURRENT:
        yield uvloop.run(in_three_processes(concurrent))


async def in_one_process(concurrent: int) -> Figure:
    """Measure with so many entries at a time on nodes that share this event loop."""
    with tempfile.TemporaryDirectory(prefix="conclave-bench-") as folder:
        cluster = Cluster()
        for number in range(SIZE):
            cluster.member(f"n{number}", log=FileLog(Path(folder) / f"log-{number}"), use_threads=True)
        await _found(cluster)
        figure = await _measure(cluster.leader, concurrent, f"three nodes, {concurrent} at a time, each entry")
        await cluster.stop()
    return figure


async def _found(cluster: Cluster) -> None:
    """Make a cluster of members that exist already."""
    members, cluster.members = cluster.members, []
    for member in members:
        cluster.members.append(member)
        if len(cluster.members) == 1:
            await member.start()
            cluster.authority_key = (await member.node.bootstrap("cluster"))["authority_key"]
        else:
            await cluster.add(member)
    await until(lambda: is_settled(cluster.leader, len(members)))


async def in_three_processes(concurrent: int) -> Figure:
    """Measure with so many entries at a time on processes, of which this one leads."""
    share_interpreter()
    with tempfile.TemporaryDirectory(prefix="conclave-bench-") as folder:
        async with _leading(Path(folder)) as leader:
            return await _measure(leader, concurrent, f"three processes, {concurrent} at a time, each entry")


@contextlib.asynccontextmanager
async def _leading(folder: Path) -> AsyncIterator[Member]:
    """Yield the leader of three voters, of which two are processes of their own."""
    leader = _member("n0", _free_port(), folder)
    async with contextlib.AsyncExitStack() as open_things:
        open_things.push_async_callback(_stop, leader)
        await leader.start()
        authority_key = (await leader.node.bootstrap("cluster"))["authority_key"]
        for number in range(1, SIZE):
            follower = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.commits", f"n{number}", str(_free_port()), str(folder)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            open_things.push_async_callback(_end, follower)
            await _admit(leader, follower, authority_key)
        await until(lambda: is_settled(leader, SIZE))
        yield leader


async def _admit(leader: Member, follower: asyncio.subprocess.Process, authority_key: bytes) -> None:
    assert follower.stdin is not None, "it is a pipe"
    assert follower.stdout is not None, "it is a pipe"
    request = msgspec.json.decode(await follower.stdout.readline(), type=JoinRequest)
    ticket = await admit(request, leader.node, authority_key)
    follower.stdin.write(msgspec.json.encode(ticket) + b"\n")
    await follower.stdin.drain()


async def _follow(name: str, port: int, folder: Path) -> None:
    """Be a follower until standard input ends."""
    share_interpreter()
    member = _member(name, port, folder)
    await member.start()
    request = member.node.join_request()
    sys.stdout.buffer.write(msgspec.json.encode(request) + b"\n")
    sys.stdout.buffer.flush()
    ticket = await asyncio.to_thread(sys.stdin.buffer.readline)
    await member.node.join(msgspec.json.decode(ticket, type=JoinTicket), request.private_key_pem)
    await asyncio.to_thread(sys.stdin.buffer.read)
    await _stop(member)


def _member(name: str, port: int, folder: Path) -> Member:
    connect = tls_transport_factory(("127.0.0.1", port))
    return Member(name, port, connect, log=FileLog(folder / name), settings=SETTINGS, use_threads=True)


async def _stop(member: Member) -> None:
    await member.node.stop(hand_over=False)
    member.log.close()
    member.state.close()


async def _end(follower: asyncio.subprocess.Process) -> None:
    assert follower.stdin is not None, "it is a pipe"
    follower.stdin.close()
    await follower.wait()


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
    return port


async def _measure(leader: Member, concurrent: int, name: str) -> Figure:
    taken, cpu_taken = [], []
    for _ in range(REPETITIONS):
        cpu_started = time.process_time()
        microseconds, count = await _commit_for(leader, concurrent)
        taken.append(microseconds)
        cpu_taken.append((time.process_time() - cpu_started) / count * 1e6)
    first, median, third = statistics.quantiles(taken, n=4)
    return Figure("commit", name, median, third - first, min(cpu_taken))


async def _commit_for(leader: Member, concurrent: int) -> tuple[float, int]:
    """Keep so many proposals in flight for a while, and return the microseconds of each, and how many there were."""
    payload = random.randbytes(PAYLOAD_BYTES)
    applied: dict[int, asyncio.Future[None]] = {}
    take = leader.machine.apply

    def apply(index: int, term: int, data: bytes) -> None:
        take(index, term, data)
        waiting = applied.pop(index, None)
        if waiting is not None:
            waiting.set_result(None)

    async def client(deadline: float) -> int:
        count = 0
        while time.perf_counter() < deadline:
            ticket = leader.node.propose(payload)
            applied[ticket.index] = future = asyncio.get_running_loop().create_future()
            await future
            count += 1
        return count

    leader.machine.apply = apply  # type: ignore[method-assign]  # the clients wait for what it hears
    started = time.perf_counter()
    counts = await asyncio.gather(*(client(started + SECONDS) for _ in range(concurrent)))
    elapsed = time.perf_counter() - started
    leader.machine.apply = take  # type: ignore[method-assign]
    return elapsed / sum(counts) * 1e6, sum(counts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    uvloop.run(_follow(options.name, options.port, options.folder))
