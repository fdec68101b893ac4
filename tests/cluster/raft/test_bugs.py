"""Bugs that other implementations shipped, played against the core.

The numbers are those of docs/consensus.md, those with a B of docs/raft-bugs.md. They say for each where it is known from, and
where those are played that are not here: in the simulator, its histories, the judge's transcripts, or the tests of the file
they concern.
"""

from collections.abc import Callable

import pytest

from conclave.cluster.raft import (
    ConfChange,
    ConfChangeKind,
    ConfChangeTransition,
    ConfChangeV2,
    ConfState,
    Entry,
    Message,
    MessageKind,
    ProposalDropped,
    Role,
)
from tests.cluster.raft.harness import BASE_INDEX, ELECTION_TICKS, HEARTBEAT_TICKS, LEASE_TICKS, Cluster, give_log

Drop = Callable[[Message], bool]


def links(*cut: tuple[int, int]) -> Drop:
    """Cut these links, each in one direction."""
    return lambda message: (message.source, message.to) in cut


def isolated(*members: int) -> Drop:
    """Cut these members off from the others and from each other."""
    return lambda message: message.source in members or message.to in members


def test_bug_4_a_deposed_leader_answers_no_read() -> None:
    cluster = Cluster(seed=1, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    cluster.run(LEASE_TICKS + 1, isolated(1))
    cluster[2].campaign()
    cluster.settle(isolated(1))
    cluster.propose(2, b"newer")
    cluster.settle(isolated(1))

    cluster[1].read_index(1)
    cluster.run(3 * ELECTION_TICKS)

    assert cluster.members[1].reads == []


def test_bug_8_two_leaders_cannot_each_change_one_member_without_a_commit_of_their_own() -> None:
    cluster = Cluster(4, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    cluster[1].propose_conf_change(ConfChange(ConfChangeKind.ADD_VOTER, 5))
    cluster.settle(isolated(1))
    cluster.tick(LEASE_TICKS, 2, 3, 4)
    cluster[2].campaign()
    cluster.settle(isolated(1))
    cluster[2].propose_conf_change(ConfChange(ConfChangeKind.REMOVE, 1))
    cluster.settle(isolated(1))
    assert cluster[2].conf_state == ConfState((2, 3, 4))

    cluster.tick(LEASE_TICKS, 1)
    cluster[1].propose([b"x"])
    cluster.settle(lambda message: {message.source, message.to} & {2, 3, 4} != set())

    assert cluster[1].conf_state == ConfState((1, 2, 3, 4)), (
        "its change never took effect, so its majority is the old one"
    )
    assert cluster[1].commit_index < cluster[2].commit_index


def test_bug_9_a_node_that_was_removed_while_it_was_away_disturbs_nobody() -> None:
    cluster = Cluster(seed=2, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    cluster[1].propose_conf_change(ConfChange(ConfChangeKind.REMOVE, 3))
    cluster.run(5 * ELECTION_TICKS, isolated(3))
    term = cluster[1].term

    cluster.run(5 * ELECTION_TICKS)

    assert cluster.leaders == [1]
    assert cluster[1].term == term


@pytest.mark.parametrize(
    "cut",
    [
        links((2, 1)),
        links((1, 2)),
        links((1, 2), (3, 1)),
        links((2, 1), (2, 3)),
        links((1, 2), (1, 3)),
        links((2, 1), (3, 1)),
        links((1, 2), (2, 1)),
    ],
    ids=[
        "2 is not heard by 1",
        "1 is not heard by 2",
        "a ring",
        "2 only hears",
        "1 only hears",
        "1 only speaks",
        "no 1-2",
    ],
)
def test_bug_11_a_partial_partition_leaves_one_leader_that_can_commit(cut: Drop) -> None:
    cluster = Cluster(seed=3, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    cluster.run(8 * ELECTION_TICKS, cut)
    newest = max(cluster.leaders, key=lambda leader: cluster[leader].term)
    term = cluster[newest].term

    index = cluster.propose(newest, b"x")
    cluster.run(4 * ELECTION_TICKS, cut)

    assert cluster[newest].commit_index >= index
    assert cluster[newest].term == term, "leadership is stable although the partition stays"


def test_bug_11_a_bridge_between_two_halves_gets_a_leader() -> None:
    # The old leader is heard by the bridge alone: the bridge must not lean on it for ever.
    cluster = Cluster(5, seed=4, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    bridge = 3
    cut = links(*((1, b) for b in (2, 4, 5)), *((a, 1) for a in (2, 4, 5)))

    cluster.run(6 * ELECTION_TICKS, cut)

    (leader,) = [leader for leader in cluster.leaders if leader != 1]
    assert cluster[bridge].leader == leader
    assert cluster.role(1) is not Role.LEADER


def test_bug_12_a_node_that_was_away_for_long_comes_back_without_an_election() -> None:
    cluster = Cluster(seed=5, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    term = cluster[1].term
    cluster.run(100 * ELECTION_TICKS, isolated(3))

    cluster.run(3 * ELECTION_TICKS)

    assert cluster.leaders == [1]
    assert cluster[1].term == cluster[3].term == term


def test_bug_12_a_node_stuck_in_a_later_term_frees_itself() -> None:
    cluster = Cluster(seed=6, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    give_log(cluster.members[3], 2, term=30)

    cluster.run(5 * ELECTION_TICKS)

    assert len(cluster.leaders) == 1
    assert len({cluster[member].term for member in (1, 2, 3)}) == 1


@pytest.mark.parametrize("ahead", [True, False], ids=["snapshot first", "appends first"])
def test_bug_19_snapshots_and_appends_in_any_order_never_take_the_commit_index_back(ahead: bool) -> None:
    cluster = Cluster()
    cluster.elect(1)
    for value in (b"a", b"b", b"c"):
        cluster.propose(1, value)
        cluster.settle(isolated(3))
    applied = cluster[1].applied_index
    appends = [
        Message(MessageKind.APPEND, 3, 1, 2, 2, applied, applied + 1, (Entry(2, applied + 1, data=b"d"),)),
        Message(MessageKind.APPEND, 3, 1, 2, 1, BASE_INDEX, 3, (Entry(2, 2), Entry(2, 3, data=b"a"))),
    ]
    cluster.members[1].storage.create_snapshot(applied, cluster[1].conf_state)
    content = cluster.members[1].storage.snapshot()
    snapshots = [Message(MessageKind.SNAPSHOT, 3, 1, 2, snapshot=content)] * 2
    commits = []
    for message in (*snapshots, *appends) if ahead else (*appends, *snapshots, *appends):
        cluster.deliver(message)
        commits.append(cluster[3].commit_index)

    assert commits == sorted(commits)
    assert cluster[3].commit_index == applied + 1


def test_bug_23_a_leader_without_a_quorum_takes_a_bounded_number_of_bytes() -> None:
    cluster = Cluster(max_uncommitted_bytes=100, check_quorum=False)
    cluster.elect(1)
    for _ in range(10):
        cluster.propose(1, bytes(10))
        cluster.settle(isolated(1))

    with pytest.raises(ProposalDropped):
        cluster.propose(1, b"x")


def test_bug_25_an_entry_that_another_leader_replaced_is_applied_nowhere() -> None:
    cluster = Cluster(lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    index = cluster.propose(1, b"lost")
    cluster.settle(isolated(1))
    cluster.tick(LEASE_TICKS, 2, 3)
    cluster[2].campaign()
    cluster.settle(isolated(1))
    cluster.propose(2, b"kept")
    cluster.settle(isolated(1))

    cluster.run(3 * HEARTBEAT_TICKS)

    assert [cluster.members[member].values for member in (1, 2, 3)] == [[b"kept"]] * 3
    assert cluster[1].log.term(index) == cluster[2].term


@pytest.mark.parametrize("crash_after", range(5))
def test_bug_29_a_joint_configuration_is_left_whoever_leads(crash_after: int) -> None:
    cluster = Cluster(seed=7, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    removal = ConfChange(ConfChangeKind.REMOVE, 3)
    cluster[1].propose_conf_change(ConfChangeV2((removal,), ConfChangeTransition.IMPLICIT))
    for _ in range(crash_after):
        cluster.deliver(*cluster.take())

    cluster.members[1].restart()
    cluster.take()
    cluster.run(6 * ELECTION_TICKS)

    members = [member for member in (1, 2) if cluster[member].conf_state.voters_outgoing]
    assert members == []
    assert len({cluster[1].conf_state, cluster[2].conf_state}) == 1


@pytest.mark.parametrize("kind", [ConfChangeKind.REMOVE, ConfChangeKind.ADD_LEARNER], ids=["removed", "demoted"])
def test_bug_30_a_leader_that_leaves_in_a_joint_change_leads_until_that_is_over(kind: ConfChangeKind) -> None:
    cluster = Cluster(seed=8, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    cluster[1].propose_conf_change(ConfChangeV2((ConfChange(kind, 1),), ConfChangeTransition.IMPLICIT))
    cluster.propose(1, b"meanwhile")

    cluster.run(6 * ELECTION_TICKS)

    (leader,) = cluster.leaders
    assert leader in (2, 3)
    assert cluster[leader].conf_state.voters == (2, 3)
    assert cluster.members[leader].values == [b"meanwhile"]


def test_bug_b5_a_leader_demoted_in_a_joint_change_can_win_again_before_it_is_left() -> None:
    # 4 takes its vote over, and 3 is lost: of those before the change, 1 and 2 are a majority only together.
    cluster = Cluster(3, learners=1, seed=9, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    changes = (ConfChange(ConfChangeKind.ADD_LEARNER, 1), ConfChange(ConfChangeKind.ADD_VOTER, 4))
    cluster[1].propose_conf_change(ConfChangeV2(changes, ConfChangeTransition.EXPLICIT))
    cluster.settle()
    assert cluster[1].conf_state == ConfState((2, 3, 4), (1, 2, 3), (), (1,))
    cluster[1].resign()
    cluster.take()
    cluster.tick(LEASE_TICKS, 2, 4)

    cluster[1].campaign()
    cluster.settle(isolated(3))

    assert cluster.role(1) is Role.LEADER


def test_a_leader_that_lost_contact_may_be_elected_again_by_those_who_still_heard_it() -> None:
    cluster = Cluster(seed=10, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    one_way = links((2, 1), (3, 1))
    cluster.run(3 * ELECTION_TICKS, one_way)
    assert cluster.role(1) is not Role.LEADER

    cluster.run(4 * ELECTION_TICKS)

    assert len(cluster.leaders) == 1


def test_bug_b41_entries_applied_in_small_portions_have_no_gap_across_a_restart() -> None:
    cluster = Cluster(1, max_committed_bytes_per_ready=1)
    cluster.elect(1)
    cluster.propose(1, *(str(number).encode() for number in range(10)))
    cluster.settle()
    member = cluster.members[1]
    assert [entry.index for entry in member.applied] == list(range(2, 13))
    member.storage.create_snapshot(6, cluster[1].conf_state)

    member.restart()
    cluster.elect(1)

    assert [entry.index for entry in member.applied] == list(range(7, 14))


def test_bug_b44_a_receiver_that_dies_while_it_takes_a_snapshot_gets_it_again() -> None:
    cluster = Cluster(seed=11, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    for value in (b"a", b"b", b"c"):
        cluster.propose(1, value)
        cluster.settle(isolated(3))
    applied = cluster[1].applied_index
    cluster.members[1].storage.create_snapshot(applied, cluster[1].conf_state, b"abc")
    cluster.members[1].storage.compact(applied)
    cluster.members[3].disk_is_stuck = True
    cluster.run(2 * HEARTBEAT_TICKS)
    assert cluster.members[3].jobs, "the snapshot is on its way to the disk"

    cluster.members[3].restart(startup_promise_ticks=LEASE_TICKS)
    cluster[1].report_snapshot(3, ok=False)
    cluster.run(3 * HEARTBEAT_TICKS)

    assert cluster.members[3].storage.snapshot().data == b"abc"


def test_a_member_that_is_behind_learns_of_a_removal_from_those_who_refuse_it_their_votes() -> None:
    # 1 is lost. 4 led, and has applied its own removal, which 3 does not know to be committed. 2 does, but 3 has the longer
    # log: so 2 needs the vote of 3, and 3, as it believes, that of 4, whose log is the longest.
    cluster = Cluster(4, seed=12, lease_ticks=LEASE_TICKS)
    cluster.elect(4)
    cluster[4].propose_conf_change(ConfChange(ConfChangeKind.REMOVE, 4))
    cluster.settle(lambda m: m.to == 1 or m.commit > 2 or m.kind is MessageKind.APPEND_RESPONSE)
    cluster.propose(4, b"for 3")
    cluster.settle(lambda m: m.to in (1, 2) or m.kind is MessageKind.APPEND_RESPONSE)
    cluster.propose(4, b"for nobody")
    cluster.take()
    for member in (2, 3):
        cluster.deliver(Message(MessageKind.APPEND_RESPONSE, 4, member, 2, index=3))
    cluster.deliver(*cluster.take(MessageKind.APPEND, to=2))
    cluster.take()
    cluster.members[2].restart()
    cluster.deliver(Message(MessageKind.HEARTBEAT, 2, 4, 2, commit=3))
    cluster.take()
    assert [cluster[member].last_index for member in (2, 3, 4)] == [3, 4, 5]
    assert cluster[3].conf_state == ConfState((1, 2, 3, 4))
    assert cluster[4].conf_state == ConfState((1, 2, 3))

    cluster.run(12 * ELECTION_TICKS, isolated(1))

    assert cluster[3].conf_state == ConfState((1, 2, 3))
    assert [leader for leader in cluster.leaders if leader in (2, 3)]
