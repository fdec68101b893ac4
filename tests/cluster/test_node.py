"""A cluster of real nodes: elections, proposals, reads, handing over."""

import asyncio

import pytest

from conclave.cluster import upkeep
from conclave.cluster.errors import NoQuorum, NotLeader, Overloaded, Unreachable
from conclave.cluster.replica import Standing
from tests.cluster.cluster_of_nodes import Cluster, commit, commit_somewhere, until


def test_a_founder_leads_its_cluster_and_applies_what_it_proposes() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a")

        await commit(cluster.leader, b"one")

        assert cluster.leader.machine.datas == [b"one"]
        assert cluster.leader.node.has_lease()
        assert [peer.node_id for peer in cluster.leader.node.peers()] == ["a"]
        await cluster.stop()

    asyncio.run(play())


def test_three_nodes_apply_what_their_leader_proposes() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")

        for number in range(20):
            await commit(cluster.leader, b"%d" % number)

        expected = [b"%d" % number for number in range(20)]
        await until(lambda: all(m.machine.datas == expected for m in cluster.members))
        assert [m.node.standing for m in cluster.members] == [Standing.LEADER, Standing.FOLLOWER, Standing.FOLLOWER]
        await cluster.stop()

    asyncio.run(play())


def test_a_proposal_on_a_follower_is_refused() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b")

        with pytest.raises(NotLeader):
            cluster.followers[0].node.propose(b"no")

        await cluster.stop()

    asyncio.run(play())


def test_proposals_of_one_turn_get_the_indexes_that_they_were_promised() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        leader = cluster.leader

        tickets = [leader.node.propose(b"%d" % number) for number in range(100)]

        await until(lambda: leader.machine.applied[0] >= tickets[-1].index)
        expected = [(ticket.index, ticket.term, b"%d" % number) for number, ticket in enumerate(tickets)]
        assert [entry for entry in leader.machine.entries if entry[2]] == expected
        await cluster.stop()

    asyncio.run(play())


def test_more_than_the_cluster_takes_is_refused() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        leader = cluster.leader
        cluster.network.isolate(leader.raft_id)

        for _ in range(63):
            leader.node.propose(bytes(1 << 20))

        with pytest.raises(Overloaded):
            leader.node.propose(bytes((1 << 20) + 1))

        await cluster.stop()

    asyncio.run(play())


def test_a_new_leader_comes_when_the_old_one_dies() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        await commit(cluster.leader, b"before")
        old = cluster.leader
        await until(lambda: all(m.machine.datas == [b"before"] for m in cluster.members))

        await old.node.stop(hand_over=False)
        cluster.members.remove(old)
        await commit_somewhere(cluster, b"after")

        await until(lambda: all(m.machine.datas == [b"before", b"after"] for m in cluster.members))
        await cluster.stop()

    asyncio.run(play())


def test_an_isolated_leader_loses_its_lease_and_then_its_standing() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        old = cluster.leader
        await until(old.node.has_lease)

        cluster.network.isolate(old.raft_id)
        await until(lambda: not old.node.has_lease())

        assert cluster.leaders() == [old]  # the others have kept their promise for as long as the lease lasted
        with pytest.raises(NoQuorum):
            await old.node.read_barrier()
        await until(lambda: old.node.standing is Standing.FOLLOWER)
        assert old.machine.standings[-1][0] is Standing.FOLLOWER
        await cluster.stop()

    asyncio.run(play())


def test_what_an_isolated_leader_proposed_is_replaced_by_what_the_others_commit() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        old = cluster.leader
        cluster.network.isolate(old.raft_id)
        ticket = old.node.propose(b"lost")
        await until(lambda: any(leader is not old for leader in cluster.leaders()))
        await commit(next(leader for leader in cluster.leaders() if leader is not old), b"kept")

        cluster.network.heal()

        await until(lambda: old.machine.applied[0] >= ticket.index)
        assert old.machine.datas == [b"kept"]
        assert old.machine.entries[-1][1] > ticket.term or old.machine.applied[1] > ticket.term
        await cluster.stop()

    asyncio.run(play())


def test_a_read_barrier_on_a_follower_waits_for_all_that_was_acknowledged() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        for number in range(10):
            ticket = await commit(cluster.leader, b"%d" % number)

            for follower in cluster.followers:
                index = await follower.node.read_barrier()

                assert index >= ticket.index
                assert follower.machine.datas[number] == b"%d" % number
        await cluster.stop()

    asyncio.run(play())


def test_many_readers_share_a_barrier() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        ticket = await commit(cluster.leader, b"one")

        indexes = await asyncio.gather(*[cluster.followers[0].node.read_barrier() for _ in range(200)])

        assert min(indexes) >= ticket.index
        await cluster.stop()

    asyncio.run(play())


def test_stepping_down_hands_leadership_to_another_node() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        old = cluster.leader

        await old.node.step_down()

        await until(lambda: len(cluster.leaders()) == 1)
        assert cluster.leader is not old
        assert not old.node.has_lease()
        await commit(cluster.leader, b"after")
        await cluster.stop()

    asyncio.run(play())


def test_a_leader_that_cannot_hand_over_gives_up_leadership_all_the_same() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        old = cluster.leader
        cluster.network.isolate(old.raft_id)

        await old.node.step_down()

        assert old.node.standing is Standing.FOLLOWER
        await cluster.stop()

    asyncio.run(play())


def test_a_stopping_leader_hands_over_first() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        old = cluster.leader

        await old.node.stop(hand_over=True)
        cluster.members.remove(old)

        await until(lambda: len(cluster.leaders()) == 1, seconds=0.3)  # no timeout had to pass
        await cluster.stop()

    asyncio.run(play())


def test_a_sealed_leader_hands_over_to_an_unsealed_node() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        sealed = cluster.leader

        sealed.announce(is_sealed=True)

        await until(lambda: bool(cluster.leaders()) and cluster.leader is not sealed)
        assert cluster.leader.node.standing is Standing.LEADER
        await cluster.stop()

    asyncio.run(play())


def test_a_damaged_leader_hands_over_to_the_node_that_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "LED_SECONDS_MIN", 0.0)

    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        damaged = cluster.leader
        also_damaged, whole = cluster.followers
        also_damaged.announce(is_damaged=True)
        await until(lambda: damaged.node.standing is Standing.LEADER)

        damaged.announce(is_damaged=True)

        await until(lambda: cluster.leaders() == [whole])
        await cluster.stop()

    asyncio.run(play())


def test_a_sealed_leader_hands_over_to_a_damaged_node_if_nobody_else_is_unsealed() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        damaged, sealed = cluster.followers
        damaged.announce(is_damaged=True)
        sealed.announce(is_sealed=True)

        cluster.leader.announce(is_sealed=True)

        await until(lambda: cluster.leaders() == [damaged])
        await cluster.stop()

    asyncio.run(play())


def test_whoever_has_made_a_damaged_node_lead_has_time_for_what_it_is_about() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        leader, term = cluster.leader, cluster.leader.node.term

        leader.announce(is_damaged=True)
        await commit(leader, b"one")

        assert (cluster.leader, leader.node.term) == (leader, term)
        await cluster.stop()

    asyncio.run(play())


def test_a_damaged_leader_stays_while_nobody_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "LED_SECONDS_MIN", 0.0)

    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        for member in (*cluster.followers, cluster.leader):
            member.announce(is_damaged=True)
        leader, term = cluster.leader, cluster.leader.node.term

        await commit(leader, b"one")

        assert (cluster.leader, leader.node.term) == (leader, term)
        await cluster.stop()

    asyncio.run(play())


def test_a_sealed_leader_stays_while_nobody_is_unsealed() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        for member in cluster.members:
            member.announce(is_sealed=True)
        term = cluster.leader.node.term

        await commit(cluster.leader, b"one")

        assert cluster.leader.node.term == term
        await cluster.stop()

    asyncio.run(play())


def test_the_leader_is_asked_by_others_and_answers() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")

        async def answer(body: bytes, asker: str) -> bytes:
            return asker.encode() + b" asks " + body

        cluster.leader.node.serve(answer)
        follower = cluster.followers[0]

        assert await follower.node.ask_leader(b"this", timeout_seconds=5) == follower.name.encode() + b" asks this"
        with pytest.raises(NotLeader):
            await cluster.leader.node.ask_leader(b"itself", timeout_seconds=5)
        await cluster.stop()

    asyncio.run(play())


def test_a_question_to_a_leader_that_dies_has_an_unknown_outcome() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        asked = asyncio.Event()

        async def answer(_body: bytes, _asker: str) -> bytes:
            asked.set()
            await asyncio.Event().wait()
            return b"never"

        old = cluster.leader
        old.node.serve(answer)
        question = asyncio.ensure_future(cluster.followers[0].node.ask_leader(b"this", timeout_seconds=30))
        await asked.wait()

        await old.node.stop(hand_over=False)
        cluster.members.remove(old)

        with pytest.raises(Unreachable):
            await question
        await cluster.stop()

    asyncio.run(play())
