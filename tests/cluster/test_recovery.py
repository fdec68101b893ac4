"""A lost quorum: one survivor is made a cluster of its own, and goes on with all that it knew."""

import asyncio

import pytest
from msgspec import structs

from conclave.cluster.errors import RecoveryRefused
from conclave.cluster.membership import Identity, decode_identity, encode_identity
from conclave.cluster.recovery import TERM_STEP, Survivor, changes, examine, recover
from conclave.cluster.replica import Standing
from conclave.storage.memory import MemoryLog, MemoryState
from tests.cluster.cluster_of_nodes import Cluster, FakeMachine, Member, commit, is_settled, until


class OfflineMachine(FakeMachine):
    """What takes a survivor's entries."""

    @property
    def applied_index(self) -> int:
        return self.applied[0]

    @property
    def applied_term(self) -> int:
        return self.applied[1]


def examined(member: Member) -> Survivor:
    return examine(member.log, OfflineMachine(member.state))


def recovered(member: Member) -> OfflineMachine:
    """Do what the command does on a stopped member's data."""
    machine = OfflineMachine(member.state)
    recover(member.log, machine, examine(member.log, machine))
    machine.flush()
    return machine


async def lost(cluster: Cluster, survivor: Member) -> None:
    """Stop every node, the survivor last."""
    for member in sorted(cluster.members, key=lambda member: member is survivor):
        await member.node.stop(hand_over=False)


def test_a_survivor_goes_on_alone_with_all_that_its_log_holds() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        survivor = cluster.leader
        await commit(survivor, b"one")
        cluster.network.isolate(survivor.raft_id)
        ticket = survivor.node.propose(b"never committed")
        await until(lambda: survivor.log.last_index >= ticket.index)
        await lost(cluster, survivor)
        term = examined(survivor).term

        machine = recovered(survivor)
        cluster.network.heal()
        await survivor.restart()

        assert machine.datas == [b"one", b"never committed"]
        await until(lambda: survivor.node.standing is Standing.LEADER)
        assert survivor.node.term > term + TERM_STEP
        assert [peer.node_id for peer in survivor.node.peers()] == [survivor.name]
        cluster.members = [survivor]
        await commit(survivor, b"two")
        await cluster.stop()

    asyncio.run(play())


def test_a_former_member_that_comes_back_is_told_that_it_was_removed() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        survivor, former = cluster.members[0], cluster.members[1]
        await lost(cluster, survivor)
        recovered(survivor)
        await survivor.restart()
        await until(lambda: survivor.node.standing is Standing.LEADER)

        await former.restart()

        await until(lambda: former.node.standing is Standing.REMOVED)
        assert survivor.node.standing is Standing.LEADER
        await cluster.stop()

    asyncio.run(play())


def test_who_joins_later_learns_the_same_membership() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        survivor = cluster.members[0]
        await lost(cluster, survivor)
        recovered(survivor)
        await survivor.restart()
        await until(lambda: survivor.node.standing is Standing.LEADER)
        cluster.members = [survivor]

        new = cluster.member("d")
        await cluster.add(new)

        await until(lambda: all(is_settled(member, 2) for member in cluster.members))
        # Its addresses are recorded when it has told them, which is one more change, on one node before the other.
        await until(lambda: new.machine.membership == survivor.machine.membership)
        await cluster.stop()

    asyncio.run(play())


def test_a_survivor_without_a_vote_gets_one() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b")
        survivor = cluster.member("c")
        await cluster.add(survivor, is_voter=False)
        await commit(cluster.leader, b"one")
        await until(lambda: survivor.machine.datas == [b"one"])
        await lost(cluster, survivor)

        recovered(survivor)
        await survivor.restart()

        await until(lambda: survivor.node.standing is Standing.LEADER)
        await survivor.node.stop()

    asyncio.run(play())


def test_a_recovery_that_was_broken_off_before_its_end_is_done_again() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        survivor = cluster.members[0]
        await lost(cluster, survivor)
        machine = OfflineMachine(survivor.state)
        recover(survivor.log, machine, examine(survivor.log, machine))  # and nothing is flushed
        assert not examined(survivor).others

        recovered(survivor)
        await survivor.restart()

        await until(lambda: survivor.node.standing is Standing.LEADER)
        await survivor.node.stop()

    asyncio.run(play())


def test_looking_changes_nothing() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        survivor = cluster.members[0]
        await lost(cluster, survivor)

        first, second = examined(survivor), examined(survivor)

        assert first == second
        assert sorted(other.node_id for other in first.others) == ["b", "c"]
        assert first.last_index == survivor.log.last_index

    asyncio.run(play())


def test_the_survivor_is_found_under_the_address_that_is_given() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a")
        await lost(cluster, cluster.members[0])
        survivor = examined(cluster.members[0])

        assert changes(survivor) == []
        assert len(changes(survivor, "127.0.0.1:21099")) == 1

    asyncio.run(play())


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        (None, "never belonged"),
        (Identity(1, bytes(16), "a"), "never belonged"),
        (Identity(1, bytes(16), "a", "cluster", 7, is_removed=True), "removed"),
        (Identity(1, bytes(16), "a", "cluster", 7, installing=(5, 1)), "installed"),
        (Identity(1, bytes(16), "a", "cluster", 7), "admission"),
    ],
)
def test_who_holds_nothing_of_a_cluster_is_no_survivor(identity: Identity | None, text: str) -> None:
    log = MemoryLog()
    if identity is not None:
        log.set_identity(encode_identity(identity))

    with pytest.raises(RecoveryRefused, match=text):
        examine(log, OfflineMachine(MemoryState()))


def test_a_removed_node_is_not_brought_back_by_its_own_data() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        gone = cluster.followers[0]
        await cluster.leader.node.remove(gone.name)
        await until(lambda: gone.node.standing is Standing.REMOVED)
        await cluster.stop()
        removed = decode_identity(gone.log.get_identity())
        assert removed == structs.replace(removed, is_removed=True)

        with pytest.raises(RecoveryRefused, match="wipe"):
            examined(gone)

    asyncio.run(play())
