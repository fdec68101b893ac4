"""A node whose disk hangs gives leadership up again, if the others' votes alone have made it leader."""

import asyncio
import threading
from collections.abc import Sequence

from conclave.cluster.raft import Role
from conclave.storage.log import EntryTuple, HardStateRecord
from conclave.storage.memory import MemoryLog
from tests.cluster.cluster_of_nodes import Cluster, commit_somewhere, until


class HangingLog(MemoryLog):
    """A log in memory whose appends wait until they may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def append(self, hard_state: HardStateRecord | None, entries: Sequence[EntryTuple]) -> None:
        self.may_go_on.wait()
        super().append(hard_state, entries)


def test_a_node_that_wins_while_its_disk_hangs_does_not_keep_leadership() -> None:
    async def play() -> None:
        cluster, log = Cluster(), HangingLog()
        await cluster.found("a", log=log, use_threads=True)
        for name in "bc":
            await cluster.add(cluster.member(name))
        await until(lambda: all(sum(p.is_voter for p in m.node.peers()) == 3 for m in cluster.members))
        sick = cluster.leader
        log.may_go_on.clear()
        sick.node.propose(b"one")
        await until(lambda: bool(sick.node.fault))
        part = sick.node._part
        assert part is not None
        raft = part.driver._raft

        raft.become_candidate()
        raft.become_leader()
        part.driver.schedule()

        await until(lambda: raft.role is not Role.LEADER)
        await commit_somewhere(cluster, b"two")
        log.may_go_on.set()
        await cluster.stop()

    asyncio.run(play())
