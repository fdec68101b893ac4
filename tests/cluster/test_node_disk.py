"""A node whose disk fails, fills up or hangs: it never leads, never promises, and says why."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from conclave.cluster.errors import DiskFailed
from conclave.cluster.replica import Standing
from conclave.storage.errors import Fenced, Full
from conclave.storage.log import EntryTuple, HardStateRecord
from conclave.storage.memory import MemoryLog
from tests.cluster.cluster_of_nodes import Cluster, commit, commit_somewhere, join, until


class SickLog(MemoryLog):
    """A log in memory whose appends do what a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: Exception | None = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def append(self, hard_state: HardStateRecord | None, entries: Sequence[EntryTuple]) -> None:
        self.may_go_on.wait()
        if self.fault is not None:
            raise self.fault
        super().append(hard_state, entries)

    def set_identity(self, identity: bytes) -> None:
        if self.fault is not None:
            raise self.fault
        super().set_identity(identity)


async def found_with_sick_leader() -> tuple[Cluster, SickLog]:
    log = SickLog()
    cluster = Cluster()
    await cluster.found("a", log=log, use_threads=True)
    for name in "bc":
        await cluster.add(cluster.member(name))
    await until(lambda: all(sum(p.is_voter for p in m.node.peers()) == 3 for m in cluster.members))
    return cluster, log


def test_a_leader_whose_disk_fails_is_replaced_and_takes_no_part_any_more() -> None:
    async def play() -> None:
        cluster, log = await found_with_sick_leader()
        sick = cluster.leader
        log.fault = Fenced("the sync failed")

        sick.node.propose(b"lost or not")
        await until(lambda: bool(sick.node.fault))

        assert "the sync failed" in sick.node.fault
        assert sick.node.standing is Standing.FOLLOWER
        await until(lambda: bool(cluster.leaders()))
        await commit(cluster.leader, b"without it")
        await cluster.stop()

    asyncio.run(play())


def test_a_leader_whose_disk_is_full_is_replaced_and_follows_once_there_is_room() -> None:
    async def play() -> None:
        cluster, log = await found_with_sick_leader()
        sick = cluster.leader
        log.fault = Full("no room")

        sick.node.propose(b"one")
        await until(lambda: "no room" in sick.node.fault)
        await commit_somewhere(cluster, b"two")
        log.fault = None
        await until(lambda: not sick.node.fault)

        await until(lambda: sick.machine.applied == cluster.leader.machine.applied)
        await cluster.stop()

    asyncio.run(play())


def test_a_leader_whose_disk_hangs_is_replaced() -> None:
    async def play() -> None:
        cluster, log = await found_with_sick_leader()
        sick = cluster.leader
        log.may_go_on.clear()

        sick.node.propose(b"one")
        await until(lambda: bool(sick.node.fault))
        await commit_somewhere(cluster, b"two")

        assert cluster.leader is not sick
        log.may_go_on.set()
        await until(lambda: not sick.node.fault)
        await until(lambda: sick.machine.applied == cluster.leader.machine.applied)
        await cluster.stop()

    asyncio.run(play())


def test_a_node_that_cannot_store_who_it_is_does_not_start() -> None:
    async def play() -> None:
        cluster = Cluster()
        log = SickLog()
        log.fault = Fenced("the sync failed")
        member = cluster.member("a", log=log)

        with pytest.raises(DiskFailed, match="the sync failed"):
            await member.start()

    asyncio.run(play())


def test_a_node_that_cannot_store_its_membership_does_not_join() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a")
        log = SickLog()
        member = cluster.member("b", log=log)
        await member.start()
        log.fault = Fenced("the sync failed")

        with pytest.raises(DiskFailed):
            await join(member, cluster.leader, cluster.authority_key)

        assert member.node.standing is Standing.DETACHED
        await cluster.stop()

    asyncio.run(play())
