"""More bugs that other implementations shipped, played against the parts around the core.

The numbers are those of docs/raft-bugs.md; those of the core are played in `raft/test_more_bugs.py`.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec import structs

from conclave.cluster.autopilot import Observation, choose_promotion, choose_removal
from conclave.cluster.membership import Member, MembershipRecord, apply_change, change_for
from conclave.cluster.participation import Participation
from conclave.cluster.raft import ConfChangeKind, ConfState
from conclave.cluster.replica import AutopilotRules, Standing
from conclave.cluster.timing import ELECTION_TICKS, HEARTBEAT_TICKS
from conclave.storage.errors import Corrupt
from conclave.storage.state import StateReader
from tests.cluster import cluster_of_nodes as nodes
from tests.cluster.cluster_of_nodes import Cluster, commit, commit_somewhere, until
from tests.cluster.raft import harness
from tests.cluster.test_node_snapshots import write_and_cut

TURNS = 20


def part_of(member: nodes.Member) -> Participation:
    assert member.node._part is not None
    return member.node._part


def test_bug_b18_whoever_waits_for_a_transfer_is_woken_by_a_step_down_for_another_reason() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        old, target = cluster.leader, cluster.followers[0]
        cluster.network.isolate(old.raft_id)
        driver = part_of(old).driver
        waiting = asyncio.ensure_future(part_of(old)._hands_over_to(target.raft_id))
        await asyncio.sleep(0)
        is_under_way = driver.is_handing_over

        driver.resign()
        for _ in range(TURNS):
            await asyncio.sleep(0)

        assert is_under_way
        assert waiting.done()
        await cluster.stop()

    asyncio.run(play())


def test_bug_b42_a_snapshot_that_is_read_for_long_holds_up_neither_heartbeats_nor_writes() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c")
        away = cluster.followers[0]
        await away.node.stop()
        await write_and_cut(cluster, 300)
        leader, part, disk = cluster.leader, part_of(cluster.leader), asyncio.Event()
        asked = list[object]()

        async def in_thread(function: Callable[[], Any]) -> Any:
            asked.append(function)
            await disk.wait()
            return function()

        part.sender._run_in_thread = in_thread
        await away.restart()
        await until(lambda: bool(asked))
        raft = part.driver._raft
        term, rounds = raft.term, raft.heartbeat_sequence

        await until(lambda: raft.heartbeat_sequence > rounds + 3 * ELECTION_TICKS // HEARTBEAT_TICKS)
        await commit(leader, b"meanwhile")

        assert (cluster.leader, raft.term) == (leader, term)
        disk.set()
        await until(lambda: away.machine.applied[0] >= leader.machine.applied[0])
        await cluster.stop()

    asyncio.run(play())


def test_bug_b55_a_learner_whose_address_was_changed_is_promoted_under_the_new_one() -> None:
    cluster = harness.Cluster(1, learners=1)
    cluster.elect(1)
    a, b = Member(1, "a", "a:1", "", bytes(16)), Member(2, "b", "b:1", "", bytes(16))
    moved = structs.replace(b, cluster_address="b:2")
    record = MembershipRecord(conf_state=ConfState((1,), (), (2,)), members=(a, b))

    for kind in (ConfChangeKind.UPDATE, ConfChangeKind.ADD_VOTER):
        change = change_for(kind, moved)
        cluster[1].propose_conf_change(change)
        cluster.settle()
        record = apply_change(record, change, cluster[1].conf_state)

    assert record == MembershipRecord(conf_state=ConfState((1, 2)), members=(a, moved))
    assert cluster[2].conf_state == record.conf_state


def test_bug_b59_all_voters_are_replaced_one_by_one_and_a_majority_of_them_is_always_alive() -> None:
    rules = AutopilotRules(cleanup_dead_servers=True, min_quorum=3, dead_server_last_contact_threshold_seconds=300.0)
    seen = {number: Observation(number, True, True, 1000, 0.1, 100.0) for number in range(1, 6)}

    for dead in range(1, 6):
        seen[dead] = structs.replace(seen[dead], last_contact_seconds=301.0, silent_seconds=301.0, healthy_seconds=0.0)
        others = [member for member in seen.values() if member.raft_id != dead]
        assert choose_removal(rules, list(seen.values()), commit=1000) == dead
        assert 2 * len([member for member in others if member.is_voter]) > len(others)
        del seen[dead]
        new = Observation(dead + 5, False, True, 1000, 0.1, 100.0)
        seen[new.raft_id] = new
        assert choose_promotion(rules, list(seen.values()), commit=1000) == new.raft_id
        seen[new.raft_id] = structs.replace(new, is_voter=True)
        assert choose_removal(rules, list(seen.values()), commit=1000) == 0

    assert sorted(seen) == [6, 7, 8, 9, 10]


def test_bug_b65_a_leader_that_cannot_open_its_state_for_a_follower_makes_room_for_one_that_can() -> None:
    async def play() -> None:
        cluster = await Cluster().found("a", "b", "c", "d")
        away = cluster.followers[0]
        await away.node.stop()
        await write_and_cut(cluster, 300)
        sick, index = cluster.leader, cluster.leader.machine.applied[0]
        for member in cluster.members:
            if member is not away:
                await until(lambda m=member: m.machine.applied[0] >= index)  # type: ignore[misc]
                member.machine.flush()

        def refuse() -> StateReader:
            raise Corrupt("a page is damaged")

        sick.state.open_reader = refuse  # type: ignore[method-assign]
        await away.restart()

        await until(lambda: bool(sick.node.fault))
        await commit_somewhere(cluster, b"after")
        await until(lambda: bool(cluster.leaders()) and away.machine.applied[0] >= cluster.leader.machine.applied[0])
        assert sick.node.standing is not Standing.LEADER
        assert "a page is damaged" in sick.node.fault
        await cluster.stop()

    asyncio.run(play())
