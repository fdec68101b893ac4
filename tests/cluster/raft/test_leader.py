"""What a leader does: replication, flow control, quorums, transfers and membership."""

import pytest

from conclave.cluster.raft import (
    ConfChange,
    ConfChangeKind,
    ConfChangeTransition,
    ConfChangeV2,
    ConfState,
    DropReason,
    Entry,
    EntryKind,
    Message,
    MessageKind,
    ProposalDropped,
    Role,
)
from conclave.cluster.raft.progress import ProgressState
from tests.cluster.raft.harness import BASE_INDEX, ELECTION_TICKS, HEARTBEAT_TICKS, LEASE_TICKS, Cluster, give_log


@pytest.fixture
def trio() -> Cluster:
    cluster = Cluster()
    cluster.elect(1)
    return cluster


def progress_of(cluster: Cluster, peer: int, leader: int = 1) -> ProgressState:
    return cluster[leader].tracker.progress[peer].state


def heartbeats(cluster: Cluster, *, without: tuple[int, ...] = ()) -> None:
    cluster.tick(HEARTBEAT_TICKS, 1)
    cluster.settle_without(*without)


# -- proposals --


def test_a_follower_takes_no_proposals(trio: Cluster) -> None:
    with pytest.raises(ProposalDropped) as dropped:
        trio[2].propose([b"x"])

    assert dropped.value.reason is DropReason.NOT_LEADER


def test_proposals_are_appended_all_or_none_and_told_their_place(trio: Cluster) -> None:
    before = trio[1].last_index

    assert trio[1].propose([b"a", b"b"]) == (2, before + 1)
    assert trio[1].last_index == before + 2


def test_what_is_uncommitted_is_bounded_and_freed_when_it_was_applied() -> None:
    cluster = Cluster(max_uncommitted_bytes=10)
    cluster.elect(1)
    cluster.propose(1, b"123456")
    with pytest.raises(ProposalDropped) as dropped:
        cluster.propose(1, b"12345")
    assert dropped.value.reason is DropReason.FULL

    cluster.settle()

    assert cluster.propose(1, b"12345") > 0


def test_one_proposal_of_any_size_passes_when_nothing_else_waits() -> None:
    cluster = Cluster(max_uncommitted_bytes=10)
    cluster.elect(1)

    assert cluster.propose(1, bytes(1000)) > 0


def test_empty_entries_pass_however_much_waits() -> None:
    cluster = Cluster(max_uncommitted_bytes=10)
    cluster.elect(1)
    cluster.propose(1, bytes(1000))

    assert cluster[1].propose_conf_change(ConfChangeV2()) > 0


def test_a_leaders_own_copy_counts_only_when_it_is_durable(trio: Cluster) -> None:
    trio.members[1].disk_is_stuck = True
    index = trio.propose(1, b"x")
    trio.settle_without(3)
    assert trio[1].commit_index == index - 1

    trio.members[1].write()

    assert trio[1].commit_index == index


def test_a_majority_of_followers_commits_before_the_leaders_own_disk_is_done(trio: Cluster) -> None:
    trio.members[1].disk_is_stuck = True
    index = trio.propose(1, b"x")

    trio.settle()

    assert trio[1].commit_index == index
    assert trio.members[2].values == [b"x"]
    assert trio.members[1].values == [], "the leader itself applies only what it has stored"


# -- heartbeats and CheckQuorum --


def test_a_heartbeat_commits_no_more_than_its_receiver_holds(trio: Cluster) -> None:
    trio.propose(1, b"x")
    trio.settle_without(3)

    trio.tick(HEARTBEAT_TICKS, 1)

    commits = {m.to: m.commit for m in trio.take(MessageKind.HEARTBEAT)}
    assert commits == {2: trio[1].commit_index, 3: trio[1].commit_index - 1}


def test_a_leader_that_hears_no_quorum_for_an_election_timeout_steps_down_in_its_term(trio: Cluster) -> None:
    term = trio[1].term
    for _ in range(2 * ELECTION_TICKS):
        trio.tick(1, 1)
        trio.settle_without(2, 3)

    assert (trio.role(1), trio[1].term, trio[1].vote) == (Role.FOLLOWER, term, 1)


def test_one_follower_is_quorum_enough(trio: Cluster) -> None:
    for _ in range(3 * ELECTION_TICKS):
        trio.tick(1, 1)
        trio.settle_without(3)

    assert trio.role(1) is Role.LEADER


def test_learners_do_not_count_towards_a_quorum() -> None:
    cluster = Cluster(3, learners=2)
    cluster.elect(1)
    for _ in range(2 * ELECTION_TICKS):
        cluster.tick(1, 1)
        cluster.settle_without(2, 3)

    assert cluster.role(1) is Role.FOLLOWER


def test_reports_of_the_transport_do_not_change_who_was_active(trio: Cluster) -> None:
    before = [peer.recently_active for peer in trio[1].status().peers]

    trio[1].report_unreachable(2)
    trio[1].report_snapshot(3, ok=False)

    assert [peer.recently_active for peer in trio[1].status().peers] == before


def test_an_old_leader_is_told_that_it_is_one() -> None:
    cluster = Cluster(lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    cluster.tick(LEASE_TICKS, 2, 3)
    cluster[2].campaign()
    cluster.settle_without(1)
    assert cluster.role(2) is Role.LEADER

    cluster.tick(HEARTBEAT_TICKS, 1)
    cluster.settle()

    assert cluster.role(1) is Role.FOLLOWER
    assert cluster[1].term == cluster[2].term


# -- flow control --


def test_a_probe_sends_one_append_until_it_is_answered_and_one_more_for_each_heartbeat_answer(trio: Cluster) -> None:
    trio[1].report_unreachable(2)
    trio.propose(1, b"a")
    trio.propose(1, b"b")
    assert len(trio.take(MessageKind.APPEND, to=2)) == 1

    heartbeats(trio, without=(3,))

    assert trio.members[2].log == trio.members[1].log


def test_a_full_window_stops_entries_and_an_answer_opens_it() -> None:
    cluster = Cluster(max_inflight_messages=2, max_size_per_message=1)
    cluster.elect(1)
    for value in (b"a", b"b", b"c"):
        cluster.propose(1, value)
    sent = cluster.take(MessageKind.APPEND, to=2)
    assert [e.data for m in sent for e in m.entries] == [b"a", b"b"]

    cluster.deliver(sent[0])
    cluster.deliver(*cluster.take(MessageKind.APPEND_RESPONSE, source=2))

    assert [e.data for m in cluster.take(MessageKind.APPEND, to=2) for e in m.entries] == [b"c"]


def test_a_lost_window_stops_nothing_for_ever() -> None:
    cluster = Cluster(max_inflight_messages=2, max_size_per_message=1)
    cluster.elect(1)
    for value in (b"a", b"b", b"c"):
        cluster.propose(1, value)
    cluster.take()

    for _ in range(5):
        heartbeats(cluster)

    assert cluster.members[2].values == [b"a", b"b", b"c"]


def test_a_late_refusal_does_not_move_next_behind_what_matches(trio: Cluster) -> None:
    trio.propose(1, b"a")
    trio.settle()
    matched = trio[1].tracker.progress[2].match

    late = Message(MessageKind.APPEND_RESPONSE, 1, 2, 2, index=matched - 1, reject=True, reject_hint=BASE_INDEX)
    trio.deliver(late)

    assert trio[1].tracker.progress[2].next > matched


def test_appends_and_answers_in_the_wrong_order_end_well(trio: Cluster) -> None:
    for value in (b"a", b"b", b"c"):
        trio.propose(1, value)
    trio.deliver(*reversed(trio.take(MessageKind.APPEND)))
    trio.deliver(*reversed(trio.take(MessageKind.APPEND_RESPONSE)))
    trio.settle()
    heartbeats(trio)

    assert trio.members[2].values == trio.members[3].values == [b"a", b"b", b"c"]


def test_terms_are_skipped_whole_when_logs_differ() -> None:
    cluster = Cluster()
    give_log(cluster.members[1], *[2] * 5, *[6] * 5, term=6)
    give_log(cluster.members[2], *[2] * 5, *[3] * 40, term=6)
    cluster[1].campaign()
    cluster.settle(lambda m: m.to == 2 and m.kind is MessageKind.APPEND)

    cluster.tick(HEARTBEAT_TICKS, 1)
    refusals = 0

    def count(message: Message) -> bool:
        nonlocal refusals
        refusals += message.kind is MessageKind.APPEND_RESPONSE and message.reject
        return False

    cluster.settle(count)

    assert cluster.members[2].log == cluster.members[1].log
    assert refusals <= 2


# -- snapshots --


def lagging(trio: Cluster) -> None:
    """Let member 3 miss entries that are compacted everywhere else."""
    for value in (b"a", b"b", b"c"):
        trio.propose(1, value)
        trio.settle_without(3)
    applied = trio[1].applied_index
    trio.members[1].storage.create_snapshot(applied, trio[1].conf_state, b"abc")
    trio.members[1].storage.compact(applied)


def test_a_peer_that_needs_what_is_gone_gets_a_snapshot_and_then_the_rest(trio: Cluster) -> None:
    lagging(trio)
    heartbeats(trio)
    trio.propose(1, b"d")
    trio.settle()

    assert trio.members[3].storage.snapshot().data == b"abc"
    assert trio.members[3].values == [b"d"]
    assert progress_of(trio, 3) is ProgressState.REPLICATE


def test_nothing_is_sent_while_a_snapshot_is_under_way(trio: Cluster) -> None:
    lagging(trio)
    trio.tick(HEARTBEAT_TICKS, 1)
    trio.settle(lambda m: m.kind is MessageKind.SNAPSHOT)
    assert progress_of(trio, 3) is ProgressState.SNAPSHOT

    trio.propose(1, b"d")

    assert trio.take(MessageKind.APPEND, to=3) == []


def test_a_snapshot_that_failed_is_sent_again_after_the_next_heartbeat_answer(trio: Cluster) -> None:
    lagging(trio)
    trio.tick(HEARTBEAT_TICKS, 1)
    trio.settle(lambda m: m.kind is MessageKind.SNAPSHOT)

    trio[1].report_snapshot(3, ok=False)
    assert trio.take(MessageKind.SNAPSHOT) == []
    trio.tick(HEARTBEAT_TICKS, 1)
    trio.settle()

    assert trio.members[3].storage.snapshot().data == b"abc"


def test_any_answer_that_can_be_served_from_the_log_ends_the_wait_for_a_snapshot(trio: Cluster) -> None:
    lagging(trio)
    trio.tick(HEARTBEAT_TICKS, 1)
    trio.settle(lambda m: m.kind is MessageKind.SNAPSHOT)

    first = trio[1].log.first_index()
    trio.deliver(Message(MessageKind.APPEND_RESPONSE, 1, 3, trio[1].term, index=first - 1))

    assert progress_of(trio, 3) is ProgressState.REPLICATE


def test_no_snapshot_goes_to_a_peer_that_does_not_answer(trio: Cluster) -> None:
    for _ in range(ELECTION_TICKS + 1):
        trio.tick(1, 1)
        trio.settle_without(3)
    lagging(trio)

    trio.propose(1, b"d")

    assert trio.take(MessageKind.SNAPSHOT) == []


# -- transfer --


def test_leadership_goes_to_a_peer_that_is_up_to_date_at_once(trio: Cluster) -> None:
    trio[1].transfer_leader(2)
    trio.settle()

    assert [trio.role(i) for i in (1, 2, 3)] == [Role.FOLLOWER, Role.LEADER, Role.FOLLOWER]


def test_leadership_goes_to_a_peer_once_it_has_caught_up(trio: Cluster) -> None:
    trio.propose(1, b"x")
    trio.settle_without(2)
    trio[1].transfer_leader(2)
    assert trio.take(MessageKind.TIMEOUT_NOW) == []

    heartbeats(trio)

    assert trio.role(2) is Role.LEADER
    assert trio.members[2].values == [b"x"]


def test_proposals_wait_while_leadership_is_handed_over(trio: Cluster) -> None:
    trio[1].transfer_leader(2)

    with pytest.raises(ProposalDropped) as dropped:
        trio.propose(1, b"x")

    assert dropped.value.reason is DropReason.TRANSFERRING


def test_a_transfer_that_takes_longer_than_an_election_timeout_is_given_up(trio: Cluster) -> None:
    trio[1].transfer_leader(2)
    for _ in range(ELECTION_TICKS):
        trio.tick(1, 1)
        trio.settle(lambda m: m.kind is MessageKind.TIMEOUT_NOW)

    assert trio.propose(1, b"x") > 0


def test_a_transfer_is_forgotten_when_leadership_ends_for_another_reason(trio: Cluster) -> None:
    trio[1].transfer_leader(2)
    trio.take()
    trio.deliver(Message(MessageKind.APPEND_RESPONSE, 1, 3, 9))
    assert trio.role(1) is Role.FOLLOWER
    trio.tick(ELECTION_TICKS, 2, 3)
    trio.take()

    trio.elect(1)

    assert trio.propose(1, b"x") > 0


@pytest.mark.parametrize("target", [1, 4, 9])
def test_leadership_does_not_go_to_itself_to_learners_or_to_strangers(target: int) -> None:
    cluster = Cluster(3, learners=1)
    cluster.elect(1)

    cluster[1].transfer_leader(target)

    assert cluster[1].transferee == 0
    assert cluster.take(MessageKind.TIMEOUT_NOW) == []


def test_a_heartbeat_under_way_does_not_stop_a_transfer(trio: Cluster) -> None:
    trio.tick(HEARTBEAT_TICKS, 1)
    held = trio.take(MessageKind.HEARTBEAT)
    trio[1].transfer_leader(2)
    trio.deliver(*trio.take(MessageKind.TIMEOUT_NOW))

    trio.deliver(*held)
    trio.settle()

    assert trio.role(2) is Role.LEADER


# -- membership --


def test_a_change_takes_effect_when_it_is_applied(trio: Cluster) -> None:
    trio[1].propose_conf_change(ConfChange(ConfChangeKind.ADD_VOTER, 4))
    assert trio[1].conf_state == ConfState((1, 2, 3))

    trio.settle()

    assert trio[1].conf_state == trio[3].conf_state == ConfState((1, 2, 3, 4))


def test_a_second_change_becomes_an_empty_entry_that_takes_its_index(trio: Cluster) -> None:
    first = trio[1].propose_conf_change(ConfChange(ConfChangeKind.ADD_LEARNER, 4))
    second = trio[1].propose_conf_change(ConfChange(ConfChangeKind.ADD_LEARNER, 5))
    trio.settle()

    assert second == first + 1
    assert trio.members[1].applied[-1] == Entry(2, second)
    assert trio[1].conf_state == ConfState((1, 2, 3), (), (4,))


def test_a_new_leader_makes_no_change_before_it_has_applied_what_it_inherited() -> None:
    cluster = Cluster()
    give_log(cluster.members[1], 2, 2)
    cluster[1].campaign()
    cluster.settle(lambda m: m.kind is MessageKind.APPEND)

    index = cluster[1].propose_conf_change(ConfChange(ConfChangeKind.ADD_LEARNER, 4))

    assert cluster[1].log.slice(index, index + 1, 1)[0].kind is EntryKind.NORMAL


def test_a_new_member_counts_as_active_until_the_next_check(trio: Cluster) -> None:
    trio[1].propose_conf_change(ConfChange(ConfChangeKind.ADD_LEARNER, 4))
    trio.settle()

    assert trio[1].tracker.progress[4].recently_active


def test_a_removal_may_commit_what_waited_for_the_removed(trio: Cluster) -> None:
    trio[1].propose_conf_change(ConfChange(ConfChangeKind.REMOVE, 3))
    trio.settle()
    assert trio[1].conf_state == ConfState((1, 2))
    index = trio.propose(1, b"x")
    trio.settle_without(3)

    assert trio[1].commit_index == index


def test_a_leader_that_removed_itself_leads_no_more_once_that_is_applied(trio: Cluster) -> None:
    index = trio[1].propose_conf_change(ConfChange(ConfChangeKind.REMOVE, 1))
    assert trio[1].lease_usable, "it leads until then"

    trio.settle()

    assert trio.role(1) is Role.FOLLOWER
    assert trio[1].commit_index == index


def test_a_leader_that_was_removed_does_not_count_itself() -> None:
    cluster = Cluster(step_down_on_removal=False)
    cluster.elect(1)
    cluster[1].propose_conf_change(ConfChange(ConfChangeKind.REMOVE, 1))
    cluster.settle()

    with pytest.raises(ProposalDropped) as dropped:
        cluster.propose(1, b"x")

    assert dropped.value.reason is DropReason.REMOVED
    assert 1 not in cluster[1].tracker.voters


def test_a_transfer_to_a_removed_peer_is_given_up(trio: Cluster) -> None:
    trio[1].propose_conf_change(ConfChange(ConfChangeKind.REMOVE, 2))
    trio[1].transfer_leader(2)
    trio.settle_without(2)

    assert trio[1].transferee == 0
    assert trio.propose(1, b"x") > 0


def test_a_joint_configuration_commits_with_both_halves() -> None:
    cluster = Cluster(3)
    for member in (4, 5):
        cluster.add(member)
    cluster.elect(1)
    changes = tuple(
        ConfChange(kind, node)
        for kind, node in (
            (ConfChangeKind.ADD_VOTER, 4),
            (ConfChangeKind.ADD_VOTER, 5),
            (ConfChangeKind.REMOVE, 2),
            (ConfChangeKind.REMOVE, 3),
        )
    )
    cluster[1].propose_conf_change(ConfChangeV2(changes, ConfChangeTransition.EXPLICIT))
    cluster.settle_without(4, 5)
    assert cluster[1].conf_state == ConfState((1, 4, 5), (1, 2, 3))

    index = cluster.propose(1, b"x")
    cluster.settle_without(4, 5)
    assert cluster[1].commit_index == index - 1

    # What the new members need is gone from no log: they get it from the snapshot on.
    cluster.members[1].storage.create_snapshot(cluster[1].applied_index, cluster[1].conf_state, b"")
    for _ in range(3):
        heartbeats(cluster)
    assert cluster[1].commit_index == index


def test_a_joint_configuration_is_left_by_itself_and_tried_again_if_that_was_dropped() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    change = ConfChangeV2((ConfChange(ConfChangeKind.REMOVE, 3),), ConfChangeTransition.IMPLICIT)
    cluster[1].propose_conf_change(change)
    cluster.propose(1, b"x")
    cluster[1].transfer_leader(3)
    cluster.settle_without(3)
    assert cluster[1].conf_state.voters_outgoing, "the change that leaves was dropped during the transfer"

    for _ in range(2 * ELECTION_TICKS):
        cluster.tick(1, 1)
        cluster.settle_without(3)
    cluster.propose(1, b"y")
    cluster.settle_without(3)

    assert cluster[1].conf_state == ConfState((1, 2))


def test_outside_a_joint_configuration_there_is_nothing_to_leave(trio: Cluster) -> None:
    index = trio[1].propose_conf_change(ConfChangeV2())
    trio.settle()

    assert trio.members[1].applied[-1] == Entry(2, index)


# -- giving up --


def test_a_leader_that_resigns_says_so_and_follows(trio: Cluster) -> None:
    trio[1].resign()

    assert trio.role(1) is Role.FOLLOWER
    assert [m.to for m in trio.take(MessageKind.RESIGNED)] == [2, 3]


def test_after_a_resignation_another_leads_within_the_promise() -> None:
    cluster = Cluster(lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    cluster[1].resign()
    cluster.settle()

    for _ in range(LEASE_TICKS):
        cluster.tick(1)
        cluster.settle()

    assert cluster[1].leader in (2, 3)


def test_nobody_but_a_leader_resigns(trio: Cluster) -> None:
    trio[2].resign()

    assert trio.take() == []
