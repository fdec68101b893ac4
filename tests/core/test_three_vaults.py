"""Three vaults over three real nodes in one process: what clients see while leadership moves.

Consensus runs on its real clock here, at half its usual durations; everything else is in memory.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from conclave.cluster.loopback import LoopbackNetwork, LoopbackTransport
from conclave.cluster.membership import Identity
from conclave.cluster.node import Node, NodeSettings
from conclave.cluster.transport import Local
from conclave.core import joining
from conclave.core.contract import Operation, Response
from conclave.core.joining import JoinFailed, JoinTarget
from conclave.core.lifecycle import Lifecycle, NodeInfo
from conclave.core.outcomes import Outcome
from conclave.core.pipeline import Pipeline
from conclave.core.store import Store
from conclave.core.system import System
from conclave.core.vault import Vault
from conclave.engines import REGISTRY as ENGINES
from conclave.methods import REGISTRY as METHODS
from conclave.storage.memory import MemoryLog, MemoryState
from conclave.storage.overlay import Overlay
from tests.fakes import data_of, on_loop, request_for


async def come_true(condition: Callable[[], bool]) -> None:
    """Wait until something has come about that takes real time."""
    for _ in range(4000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("what was waited for has not come about")


class Member:
    """One node with its vault; `reborn` is the same data directory in a new process."""

    def __init__(self, number: int, network: LoopbackNetwork, log: MemoryLog, state: MemoryState) -> None:
        self.number = number
        self.network = network
        self.log, self.state = log, state
        self.store = Store(Overlay(state), wall_clock_ns=time.time_ns, monotonic_seconds=time.monotonic)
        self.node = Node(
            node_id=f"n{number}",
            cluster_address=f"127.0.0.1:{8200 + number}",
            log=log,
            state=state,
            machine=self.store,
            connect=self._connect,
            settings=NodeSettings(performance_multiplier=0.5),
            use_threads=False,
        )
        self.store.connect(self.node)
        self.pipeline = Pipeline(
            {name: kind() for name, kind in ENGINES.items()}, {name: kind() for name, kind in METHODS.items()}
        )
        self.vault = Vault(self.store, self.node, self.node, self.node, self.pipeline)
        self.lifecycle = Lifecycle(self.vault, NodeInfo(f"n{number}", f"http://127.0.0.1:{9200 + number}"))
        self.pipeline.install_system(System(self.lifecycle))

    def _connect(self, identity: Identity) -> LoopbackTransport:
        return LoopbackTransport(Local(identity.cluster_id, identity.raft_id, identity.incarnation), self.network)

    async def start(self) -> None:
        self.store.start()
        await self.node.start()
        self.lifecycle.announce()

    async def die(self) -> None:
        await self.node.stop(hand_over=False)
        await self.vault.stop()
        await self.store.stop()

    def reborn(self) -> "Member":
        return Member(self.number, self.network, self.log, self.state)

    async def ask(self, operation: Operation, path: str, fields: Any = None, **more: Any) -> Outcome:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.vault.handle(request_for(operation, path, fields, **more), future.set_result)
        return await future


class Trio:
    """Three members, unsealed, with kv-v2 at secret/."""

    def __init__(self, members: list[Member], shares: list[str], root: str) -> None:
        self.members = members
        self.shares = shares
        self.root = root

    @property
    def leader(self) -> Member:
        (leader,) = [member for member in self.members if member.vault.is_active]
        return leader

    @property
    def followers(self) -> list[Member]:
        return [member for member in self.members if not member.vault.is_active]

    async def read(self, member: Member, path: str) -> Any:
        return data_of(await member.ask(Operation.READ, path, token=self.root))

    async def write(self, member: Member, path: str, fields: Any = None) -> Outcome:
        return await member.ask(Operation.UPDATE, path, fields, token=self.root)

    async def settle(self) -> None:
        """Wait until all vote and one of them leads."""
        await come_true(lambda: sum(member.vault.is_active for member in self.members) == 1)
        await come_true(lambda: all(peer.is_voter for peer in self.leader.node.peers()))


def asking(members: list[Member]) -> Callable[[JoinTarget, str, dict[str, Any]], Awaitable[Any]]:
    """Return what asks one of these members instead of a server."""

    async def ask(target: JoinTarget, path: str, fields: dict[str, Any]) -> Any:
        (asked,) = [member for member in members if member.lifecycle.node.api_address == target.leader_api_address]
        outcome = await asked.ask(Operation.UPDATE, path.removeprefix("/v1/"), fields)
        if not isinstance(outcome, Response):
            raise JoinFailed(str(outcome.messages), is_refusal=True)
        return msgspec.json.decode(msgspec.json.encode(outcome.data))

    return ask


@asynccontextmanager
async def trio(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Trio]:
    network = LoopbackNetwork()
    members = [Member(number, network, MemoryLog(), MemoryState()) for number in (1, 2, 3)]

    monkeypatch.setattr(joining, "_ask", asking(members))
    for member in members:
        await member.start()
    made = await members[0].lifecycle.initialize(3, 2)
    cluster = Trio(members, made.shares_hex[:2], made.root_token)
    for member in members:
        await member.lifecycle.begin_join(JoinTarget(members[0].lifecycle.node.api_address))
        for share in cluster.shares:
            await member.lifecycle.unseal(share)
    await cluster.settle()
    await cluster.write(members[1], "sys/mounts/secret", {"type": "kv-v2"})
    try:
        yield cluster
    finally:
        await asyncio.gather(*(member.die() for member in cluster.members))


class Writers:
    """Clients that write a key each, one version after another, each through one member."""

    def __init__(self, cluster: Trio, through: list[Member], count: int = 6) -> None:
        self._cluster = cluster
        self._is_stopped = False
        self.acknowledged = [0] * count
        self.failed: list[Outcome] = []
        self._tasks = [
            asyncio.ensure_future(self._write(number, through[number % len(through)])) for number in range(count)
        ]

    async def _write(self, number: int, through: Member) -> None:
        while not self._is_stopped:
            outcome = await self._cluster.write(through, f"secret/data/w{number}", {"data": {}})
            if isinstance(outcome, Response):
                self.acknowledged[number] += 1
            else:
                self.failed.append(outcome)

    async def reach(self, count: int) -> None:
        """Wait until each has had so many more writes acknowledged."""
        goal = [before + count for before in self.acknowledged]
        await come_true(lambda: all(have >= want for have, want in zip(self.acknowledged, goal, strict=True)))

    async def stop(self) -> None:
        self._is_stopped = True
        await asyncio.gather(*self._tasks)


async def versions(cluster: Trio, through: Member, count: int) -> list[int]:
    """Return how often each writer's key was written, as a member sees it."""
    found = [await cluster.read(through, f"secret/metadata/w{number}") for number in range(count)]
    return [metadata["current_version"] for metadata in found]


@on_loop
async def test_no_request_fails_while_leadership_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio(monkeypatch) as cluster:
        before = cluster.leader
        writers = Writers(cluster, cluster.members)
        await writers.reach(3)

        assert isinstance(await cluster.write(cluster.followers[0], "sys/step-down"), Response)
        await writers.reach(3)
        await writers.stop()

        assert cluster.leader is not before
        assert writers.failed == []
        for member in cluster.members:
            assert await versions(cluster, member, 6) == writers.acknowledged


@on_loop
async def test_every_write_happens_once_although_its_leader_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio(monkeypatch) as cluster:
        dead = cluster.leader
        writers = Writers(cluster, cluster.followers)
        await writers.reach(3)

        await dead.die()
        await writers.reach(3)
        await writers.stop()

        assert writers.failed == []
        cluster.members[cluster.members.index(dead)] = again = dead.reborn()
        await again.start()
        for share in cluster.shares:
            await again.lifecycle.unseal(share)
        for member in cluster.members:
            assert await versions(cluster, member, 6) == writers.acknowledged


@on_loop
async def test_a_rotation_reaches_every_node_and_those_that_were_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio(monkeypatch) as cluster:
        sealed = cluster.followers[0]
        assert isinstance(await cluster.write(sealed, "sys/seal"), Response)

        assert isinstance(await cluster.write(cluster.leader, "sys/rotate"), Response)
        await cluster.write(cluster.leader, "secret/data/a", {"data": {"v": 1}})
        for share in cluster.shares:
            await sealed.lifecycle.unseal(share)

        for member in cluster.members:
            assert (await cluster.read(member, "secret/data/a"))["data"] == {"v": 1}
            assert member.vault.keys is not None
            assert member.vault.keys.barrier.keyring.active == 2


@on_loop
async def test_sealing_the_leader_leaves_a_cluster_that_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio(monkeypatch) as cluster:
        sealed, others = cluster.leader, cluster.followers

        assert isinstance(await cluster.write(sealed, "sys/seal"), Response)

        assert isinstance(await cluster.write(others[0], "secret/data/a", {"data": {"v": 1}}), Response)
        assert (await cluster.read(others[1], "secret/data/a"))["data"] == {"v": 1}
