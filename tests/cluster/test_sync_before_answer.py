"""No answer before the disks: a write counts once the logs of a majority have been synced, and not a moment earlier."""

import asyncio
import threading
from pathlib import Path

from msgspec import structs

from conclave.storage.file_log import FileLog
from tests.cluster.cluster_of_nodes import SETTINGS, Cluster, Member, until

PATIENT = structs.replace(SETTINGS, performance_multiplier=3.0)
"""A disk that is held up by a test for a moment is not yet a sick one."""
TURNS = 50


class GatedLog(FileLog):
    """A log on disk whose syncs wait at a gate."""

    def __init__(self, folder: Path) -> None:
        self.may_sync = threading.Event()
        self.may_sync.set()
        self.is_waiting = False
        super().__init__(folder)

    def _sync(self) -> None:
        self.is_waiting = not self.may_sync.is_set()
        self.may_sync.wait()
        self.is_waiting = False
        super()._sync()


async def found(folder: Path) -> tuple[Cluster, dict[str, GatedLog]]:
    cluster = Cluster()
    logs = {name: GatedLog(folder / name) for name in "abc"}
    await cluster.found("a", log=logs["a"], use_threads=True, settings=PATIENT)
    for name in "bc":
        await cluster.add(cluster.member(name, log=logs[name], use_threads=True, settings=PATIENT))
    await until(lambda: all(sum(p.is_voter for p in m.node.peers()) == 3 for m in cluster.members))
    return cluster, logs


async def is_applied_anywhere(cluster: Cluster, data: bytes) -> bool:
    """Tell whether a member has applied an entry, after everything that is under way in this process has come through."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
    return any(data in member.machine.datas for member in cluster.members)


def test_a_write_is_answered_when_a_majority_has_synced_it_and_not_before(tmp_path: Path) -> None:
    async def play() -> None:
        cluster, logs = await found(tmp_path)
        leader, follower = cluster.leader, cluster.followers[0]

        for log in logs.values():
            log.may_sync.clear()
        ticket = leader.node.propose(b"one")
        await until(lambda: all(log.is_waiting for log in logs.values()))
        assert not await is_applied_anywhere(cluster, b"one")

        logs[leader.name].may_sync.set()
        await until(lambda: logs[leader.name].last_index >= ticket.index)
        assert not await is_applied_anywhere(cluster, b"one")

        logs[follower.name].may_sync.set()
        await until(lambda: b"one" in leader.machine.datas)
        for log in logs.values():
            log.may_sync.set()
        await cluster.stop()

    asyncio.run(play())


def test_the_followers_syncs_are_enough_while_the_leaders_own_is_under_way(tmp_path: Path) -> None:
    async def play() -> None:
        cluster, logs = await found(tmp_path)
        leader: Member = cluster.leader

        logs[leader.name].may_sync.clear()
        leader.node.propose(b"one")

        await until(lambda: all(b"one" in member.machine.datas for member in cluster.followers))
        logs[leader.name].may_sync.set()
        await until(lambda: b"one" in leader.machine.datas)
        await cluster.stop()

    asyncio.run(play())
