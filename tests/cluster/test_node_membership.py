"""Joining, promotion, demotion, removal and new addresses, between real nodes."""

import asyncio
import datetime as dt
from copy import deepcopy

import pytest

from conclave.cluster.certificates import new_authority
from conclave.cluster.errors import JoinRefused, NotLeader, RemovalRefused
from conclave.cluster.frames import Refusal
from conclave.cluster.links import OLDER_COPY_TEXT
from conclave.cluster.membership import decode_identity
from conclave.cluster.replica import AutopilotRules, Peer, Standing
from tests.cluster.cluster_of_nodes import Cluster, Member, commit, commit_somewhere, is_settled, join, until


def test_a_new_node_starts_detached_and_joins_as_a_learner() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        await commit(cluster.leader, b"one")
        new = cluster.member("d")
        await new.start()
        assert new.node.standing is Standing.DETACHED

        await join(new, cluster.leader, cluster.authority_key, is_voter=False)

        await until(lambda: new.machine.datas == [b"one"] and is_settled(new, 3))
        assert not new.node.is_joining
        (peer,) = [peer for peer in new.node.peers() if peer.node_id == "d"]
        assert not peer.is_voter
        await cluster.stop()

    asyncio.run(play())


def test_a_node_that_has_caught_up_is_promoted() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")

        await cluster.add(cluster.member("d"))

        await until(lambda: all(is_settled(m, 4) for m in cluster.members))
        await cluster.stop()

    asyncio.run(play())


def test_only_the_leader_admits_and_removes() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b")
        new = cluster.member("c")
        await new.start()

        with pytest.raises(NotLeader):
            await join(new, cluster.followers[0], cluster.authority_key)
        with pytest.raises(NotLeader):
            await cluster.members[1].node.remove("a")

        await cluster.stop()

    asyncio.run(play())


def test_a_change_that_loses_its_leader_ends_and_may_be_asked_for_again() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        old = cluster.leader
        new = cluster.member("d")
        await new.start()
        cluster.network.isolate(old.raft_id)

        with pytest.raises(NotLeader):
            await join(new, old, cluster.authority_key)

        await until(lambda: any(leader is not old for leader in cluster.leaders()))
        await join(new, next(one for one in cluster.leaders() if one is not old), cluster.authority_key)
        cluster.network.heal()
        await until(lambda: all(is_settled(member, 4) for member in cluster.members))
        await cluster.stop()

    asyncio.run(play())


def test_a_node_id_is_taken_only_once() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b")
        impostor = cluster.member("b")
        await impostor.start()

        with pytest.raises(JoinRefused, match="taken"):
            await join(impostor, cluster.leader, cluster.authority_key)

        assert impostor.node.standing is Standing.DETACHED
        await cluster.stop()

    asyncio.run(play())


def test_nobody_is_admitted_with_the_key_of_another_authority() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a")
        stranger = cluster.member("b")
        await stranger.start()
        _, another_key = new_authority("another", dt.datetime.now(dt.UTC))

        with pytest.raises(JoinRefused, match="authority"):
            await join(stranger, cluster.leader, another_key)

        assert len(cluster.leader.node.peers()) == 1
        await cluster.stop()

    asyncio.run(play())


def test_a_member_joins_no_other_cluster() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a")

        with pytest.raises(JoinRefused):
            cluster.leader.node.join_request()
        with pytest.raises(JoinRefused):
            await cluster.leader.node.bootstrap("another")

        await cluster.stop()

    asyncio.run(play())


def test_a_node_that_is_asked_to_join_twice_at_the_same_time_joins_once() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        new = cluster.member("d")
        await new.start()

        outcomes = await asyncio.gather(
            *(join(new, cluster.leader, cluster.authority_key) for _ in range(2)), return_exceptions=True
        )

        assert [type(outcome) for outcome in outcomes] == [type(None), JoinRefused]
        await until(lambda: is_settled(new, 4))
        await cluster.stop()

    asyncio.run(play())


def test_a_lost_ticket_is_given_again() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        new = cluster.member("d")
        await new.start()
        lost = new.node.join_request()
        await cluster.leader.node.admit(
            node_id=lost.node_id,
            cluster_address=lost.cluster_address,
            request_pem=lost.request_pem,
            incarnation=lost.incarnation,
            is_voter=True,
            authority_key_pem=cluster.authority_key,
        )

        await join(new, cluster.leader, cluster.authority_key)

        await until(lambda: is_settled(new, 4))
        await cluster.stop()

    asyncio.run(play())


def test_a_removed_node_learns_that_it_is_one() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        gone = cluster.followers[0]

        assert await cluster.leader.node.remove(gone.name)

        await until(lambda: gone.node.standing is Standing.REMOVED)
        assert gone.machine.standings[-1][0] is Standing.REMOVED
        assert decode_identity(gone.log.get_identity()).is_removed
        assert not await cluster.leader.node.remove(gone.name)
        await commit(cluster.leader, b"after")
        await cluster.stop()

    asyncio.run(play())


def test_a_node_removed_while_it_was_down_learns_it_when_it_comes_back_and_stays_removed() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        gone = cluster.followers[0]
        await gone.node.stop()
        assert await cluster.leader.node.remove(gone.name)
        term = cluster.leader.node.term

        await gone.restart()
        await until(lambda: gone.node.standing is Standing.REMOVED)
        await gone.node.stop()
        await gone.restart()

        assert gone.node.standing is Standing.REMOVED
        assert cluster.leader.node.term == term
        await cluster.stop()

    asyncio.run(play())


def test_a_leader_that_is_to_be_removed_hands_over_and_is_removed_by_the_next() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        gone = cluster.leader

        assert await gone.node.remove(gone.name)

        await until(lambda: gone.node.standing is Standing.REMOVED)
        cluster.members.remove(gone)
        leader = await commit_somewhere(cluster, b"after")
        assert sorted(peer.node_id for peer in leader.node.peers()) == sorted(m.name for m in cluster.members)
        await gone.node.stop()
        await cluster.stop()

    asyncio.run(play())


def test_the_only_voter_is_not_removed() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a")

        with pytest.raises(RemovalRefused):
            await cluster.leader.node.remove("a")

        await cluster.stop()

    asyncio.run(play())


def test_the_only_voter_leads_again_after_stepping_down() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a")
        await cluster.leader.node.step_down()

        await until(lambda: bool(cluster.leaders()))

        await commit(cluster.leader, b"one")
        await cluster.stop()

    asyncio.run(play())


def test_the_leader_knows_what_its_members_say_about_themselves() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        leader = cluster.leader
        cluster.followers[0].announce(is_sealed=True)
        sealed = cluster.followers[0].name

        await until(lambda: any(peer.is_sealed for peer in leader.node.peers()))

        peers = {peer.node_id: peer for peer in leader.node.peers()}
        assert [name for name, peer in peers.items() if peer.is_sealed] == [sealed]
        assert all(peer.version == "0.1.0" and peer.hostname == name for name, peer in peers.items())
        assert peers[sealed].api_address.startswith("http://127.0.0.1:")
        assert [name for name, peer in peers.items() if peer.is_leader] == [leader.name]
        await until(lambda: all(peer.is_healthy for peer in leader.node.peers()))
        await cluster.stop()

    asyncio.run(play())


def test_a_node_that_comes_back_with_another_address_is_recorded_under_it() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        moved = cluster.followers[0]
        await moved.node.stop()
        moved.address = "127.0.0.1:21099"

        await moved.restart()

        def is_known() -> bool:
            peers = {peer.node_id: peer.cluster_address for peer in cluster.leader.node.peers()}
            return peers[moved.name] == "127.0.0.1:21099"

        await until(is_known)
        await cluster.stop()

    asyncio.run(play())


def test_a_refusal_other_than_removal_changes_nothing() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b")
        follower = cluster.followers[0]
        transport = cluster.network.nodes[cluster.leader.raft_id]

        transport.refuse(follower.raft_id, Refusal.WRONG_INCARNATION, "not you")

        await commit(cluster.leader, b"one")
        await until(lambda: follower.machine.datas == [b"one"])
        assert follower.node.standing is Standing.FOLLOWER
        await cluster.stop()

    asyncio.run(play())


def test_a_member_that_joined_without_a_vote_gets_one_when_it_is_promoted() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        await cluster.add(cluster.member("d"), is_voter=False)
        await commit(cluster.leader, b"one")
        await until(lambda: cluster.members[3].machine.datas == [b"one"])
        assert is_settled(cluster.leader, 3)

        assert await cluster.leader.node.promote("d")

        await until(lambda: all(is_settled(m, 4) for m in cluster.members))
        assert not await cluster.leader.node.promote("nobody")
        await cluster.stop()

    asyncio.run(play())


def test_a_demoted_member_keeps_up_without_a_vote_until_it_is_promoted_again() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c", "d")
        demoted = cluster.followers[0]

        assert await cluster.leader.node.demote(demoted.name)

        await until(lambda: all(is_settled(m, 3) for m in cluster.members))
        await commit(cluster.leader, b"one")
        await until(lambda: demoted.machine.datas == [b"one"])
        (peer,) = [peer for peer in cluster.leader.node.peers() if peer.node_id == demoted.name]
        assert not peer.may_vote
        await cluster.leader.node.promote(demoted.name)
        await until(lambda: all(is_settled(m, 4) for m in cluster.members))
        assert not await cluster.leader.node.demote("nobody")
        await cluster.stop()

    asyncio.run(play())


def test_a_leader_that_is_to_lose_its_vote_hands_over_first() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        old = cluster.leader

        assert await old.node.demote(old.name)

        await until(lambda: all(is_settled(m, 2) for m in cluster.members))
        leader = await commit_somewhere(cluster, b"after")
        assert leader is not old
        await until(lambda: old.machine.datas == [b"after"])
        await cluster.stop()

    asyncio.run(play())


def test_the_only_voter_keeps_its_vote() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a")

        with pytest.raises(RemovalRefused):
            await cluster.leader.node.demote("a")

        await cluster.stop()

    asyncio.run(play())


def test_no_voter_goes_without_which_no_majority_can_be_reached() -> None:
    async def play() -> None:
        rules = AutopilotRules(last_contact_threshold_seconds=0.5, server_stabilization_time_seconds=0.0)
        cluster = await Cluster().found("a", "b", "c")
        leader, (dead, alive) = cluster.leader, cluster.followers
        leader.node.judge_by(rules)
        await dead.node.stop()
        await until(lambda: not _peer(leader, dead.name).is_healthy)

        with pytest.raises(RemovalRefused, match="no majority"):
            await leader.node.remove(alive.name)
        with pytest.raises(RemovalRefused, match="no majority"):
            await leader.node.demote(alive.name)

        assert await leader.node.remove(dead.name)
        await commit(leader, b"after")
        await cluster.stop()

    asyncio.run(play())


def test_a_dead_voter_is_removed_by_itself_if_that_is_wanted() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c", "d")
        dead = cluster.followers[0]
        await dead.node.stop()
        cluster.members.remove(dead)

        for member in cluster.members:  # whoever leads: on a busy machine that may change meanwhile
            member.node.judge_by(
                AutopilotRules(
                    cleanup_dead_servers=True,
                    dead_server_last_contact_threshold_seconds=0.5,
                    server_stabilization_time_seconds=0.0,
                )
            )

        def names(member: Member) -> set[str]:
            return {peer.node_id for peer in member.node.peers()}

        await until(lambda: all(dead.name not in names(member) for member in cluster.members))
        assert all(len(names(member)) == 3 for member in cluster.members)
        await cluster.stop()

    asyncio.run(play())


def _peer(member: Member, name: str) -> Peer:
    return next(peer for peer in member.node.peers() if peer.node_id == name)


def _held(member: Member, other: Member) -> int:
    """Return how far another has said that its disk holds the log."""
    assert member.node._part is not None
    return member.node._part.roster._known[other.raft_id].held_index


def test_a_node_on_an_older_copy_of_its_data_takes_no_part_and_says_why() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        restored, leader = cluster.followers[0], cluster.leader
        await commit(leader, b"one")
        await until(lambda: restored.machine.datas == [b"one"])
        await restored.node.stop()
        copied = deepcopy((restored.log, restored.state))
        await restored.restart()
        await commit(leader, b"two")
        await until(lambda: restored.machine.datas[-1:] == [b"two"])
        restored.announce(is_sealed=False)  # so that its peers know what it holds
        await until(lambda: _held(leader, restored) == restored.machine.applied[0])
        await restored.node.stop()

        restored.log, restored.state = copied
        await restored.restart()

        await until(lambda: "older copy" in restored.node.fault)
        assert restored.node.standing is Standing.FOLLOWER
        await commit(leader, b"three")
        assert await leader.node.remove(restored.name)
        await cluster.stop()

    asyncio.run(play())


def test_an_older_copy_is_the_fault_also_where_its_log_was_found_too_short_first() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        restored, part = cluster.followers[0], cluster.followers[0].node._part
        assert part is not None
        part.driver.halt("the log is damaged: entry 7 is committed, but the log ends at 6")

        part.links.peer_refused(cluster.leader.raft_id, Refusal.OLDER_COPY, OLDER_COPY_TEXT)

        assert restored.node.fault == OLDER_COPY_TEXT
        await cluster.stop()

    asyncio.run(play())
