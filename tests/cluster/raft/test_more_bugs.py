"""More bugs that other implementations shipped, played against the core.

The numbers are those of docs/raft-bugs.md, which says for each where it is known from, and which test holds it if none here
does.
"""

import pytest

from conclave.cluster.raft import ConfChange, ConfChangeKind, ConfState, Entry, Message, MessageKind, Role
from tests.cluster.raft.harness import (
    BASE_INDEX,
    ELECTION_TICKS,
    HEARTBEAT_TICKS,
    LEASE_TICKS,
    Cluster,
    give_log,
)
from tests.cluster.raft.test_bugs import isolated, links
from tests.cluster.raft.test_follower import snapshot


def vote(to: int, candidate: int, term: int) -> Message:
    """Return a request for a vote by somebody whose log lacks nothing, and against which no promise stands."""
    return Message(MessageKind.VOTE, to, candidate, term, log_term=term, index=99, forced=True)


# -- elections --


def test_bug_b1_a_leader_that_lost_its_quorum_and_those_who_elected_it_keep_their_votes() -> None:
    cluster = Cluster()
    cluster.elect(1)
    term = cluster[1].term
    cluster.tick(2 * ELECTION_TICKS, 1)
    cluster.take()
    assert (cluster.role(1), cluster[1].term) == (Role.FOLLOWER, term)
    for voter in (2, 3):
        cluster[voter].forget_leader()

    cluster.deliver(vote(1, 2, term), vote(3, 2, term), vote(2, 3, term))

    assert [answer.reject for answer in cluster.take(MessageKind.VOTE_RESPONSE)] == [True] * 3


def test_bug_b2_a_node_that_holds_nothing_yet_remembers_its_vote_across_a_crash() -> None:
    cluster = Cluster(2)
    cluster.add(3)
    cluster.deliver(vote(3, 1, 5))
    (granted,) = cluster.take(MessageKind.VOTE_RESPONSE)
    assert not granted.reject

    cluster.members[3].restart()
    cluster.deliver(vote(3, 2, 5))

    assert cluster[3].term == 5
    assert [answer.reject for answer in cluster.take(MessageKind.VOTE_RESPONSE)] == [True]


def test_bug_b3_a_candidate_that_won_the_pre_vote_has_voted_for_itself() -> None:
    cluster = Cluster()
    cluster[1].campaign()
    cluster.settle(lambda message: message.kind is MessageKind.VOTE)
    assert cluster.role(1) is Role.CANDIDATE

    cluster.deliver(vote(1, 2, cluster[1].term))

    assert [answer.reject for answer in cluster.take(MessageKind.VOTE_RESPONSE, to=2)] == [True]


def test_bug_b4_a_candidate_takes_nothing_from_a_leader_of_an_earlier_term() -> None:
    cluster = Cluster(pre_vote=False)
    give_log(cluster.members[1], term=195)
    cluster[1].campaign()
    cluster.take()

    entry = Entry(185, BASE_INDEX + 1)
    cluster.deliver(Message(MessageKind.APPEND, 1, 2, 185, 1, BASE_INDEX, BASE_INDEX + 1, (entry,)))

    assert (cluster.role(1), cluster[1].term, cluster[1].last_index) == (Role.CANDIDATE, 196, BASE_INDEX)
    assert [answer.term for answer in cluster.take(MessageKind.APPEND_RESPONSE)] == [196]


def test_bug_b6_a_leader_that_lost_contact_gets_the_vote_of_a_node_that_still_believes_in_it() -> None:
    cluster = Cluster(lease_ticks=LEASE_TICKS)
    cluster[1].campaign()
    cluster.settle(lambda message: message.kind is MessageKind.VOTE and message.to == 2)
    assert (cluster[2].leader, cluster[2].vote) == (1, 0)
    while cluster.role(1) is Role.LEADER:
        cluster.run(1, lambda message: 3 in (message.to, message.source) or (message.source, message.to) == (2, 1))
    cluster.take()
    cluster.tick(LEASE_TICKS, 1, 2)
    assert cluster[2].leader == 1

    cluster[1].campaign()
    cluster.settle(isolated(3))

    assert cluster.role(1) is Role.LEADER


def test_bug_b9_a_candidate_answers_a_pre_candidate_of_its_own_term() -> None:
    # 1 stands with the shorter log, and would wait for ever; 2 must win although 3, which let 1 stand, is down by now.
    cluster = Cluster()
    give_log(cluster.members[1], term=2)
    give_log(cluster.members[2], 2)
    cluster[1].campaign()
    cluster.deliver(*cluster.take(MessageKind.PRE_VOTE, to=3))
    cluster.deliver(*cluster.take(MessageKind.PRE_VOTE_RESPONSE))
    cluster.deliver(*cluster.take(MessageKind.VOTE, to=2))
    cluster.take()
    assert cluster.role(1) is Role.CANDIDATE
    assert cluster[2].term == cluster[1].term

    cluster[2].campaign()
    cluster.settle(isolated(3))

    assert cluster.role(2) is Role.LEADER


@pytest.mark.parametrize("seed", range(5))
def test_bug_b12_those_who_hear_only_a_bridge_are_led_by_it(seed: int) -> None:
    cluster = Cluster(5, seed=seed, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    bridge = 3

    cluster.run(6 * ELECTION_TICKS, lambda message: bridge not in (message.to, message.source))

    assert cluster.leaders == [bridge]
    assert {cluster[member].leader for member in range(1, 6)} == {bridge}


def test_bug_b15_a_node_that_lost_its_vote_while_it_was_away_learns_it_and_disturbs_nobody() -> None:
    cluster = Cluster(seed=15, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    cluster[1].propose_conf_change(ConfChange(ConfChangeKind.ADD_LEARNER, 3))
    cluster.run(5 * ELECTION_TICKS, isolated(3))
    term = cluster[1].term
    assert cluster[3].conf_state == ConfState((1, 2, 3))

    cluster.run(2 * HEARTBEAT_TICKS)

    assert cluster[3].conf_state == ConfState((1, 2), (), (3,))
    cluster.run(5 * ELECTION_TICKS)
    assert (cluster.leaders, cluster[1].term) == ([1], term)


# -- reads --


def test_bug_b22_a_read_that_is_asked_again_is_not_answered_by_what_confirmed_the_first_try() -> None:
    # Both tries of 5 have one number. 1 was deposed between them, and hears only what was said before.
    cluster = Cluster(5, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    cluster[5].read_index(9)
    cluster.deliver(*cluster.take(MessageKind.READ_INDEX))
    cluster.deliver(*cluster.take(MessageKind.HEARTBEAT))
    late = cluster.take(MessageKind.HEARTBEAT_RESPONSE)
    assert cluster.take(MessageKind.READ_INDEX_RESPONSE) == []
    cluster.tick(LEASE_TICKS, 2, 3, 4, 5)
    cluster[2].campaign()
    cluster.settle_without(1, 5)
    cluster.propose(2, b"newer")
    cluster.settle_without(1, 5)
    assert cluster.members[2].values == [b"newer"]

    cluster[5].read_index(9)
    cluster.deliver(*cluster.take(MessageKind.READ_INDEX))
    cluster.take(MessageKind.HEARTBEAT)
    cluster.deliver(*late)

    assert len(cluster.take(MessageKind.READ_INDEX_RESPONSE)) == 1, "the second try was answered with what is old"


# -- the log --


def test_bug_b29_a_single_voter_says_nothing_is_committed_before_its_own_disk_has_it() -> None:
    cluster = Cluster(1)
    cluster.elect(1)
    member = cluster.members[1]
    member.disk_is_stuck = True
    index = cluster.propose(1, b"x")
    cluster.settle()
    assert cluster[1].commit_index < index
    assert member.values == []

    member.disk_is_stuck = False
    member.write()
    cluster.settle()

    assert member.values == [b"x"]


@pytest.mark.parametrize("slow", [1, 2, 3])
def test_bug_b30_what_was_acknowledged_is_there_after_all_have_lost_what_they_had_not_synced(slow: int) -> None:
    cluster = Cluster(seed=30)
    cluster.elect(1)
    cluster.members[slow].disk_is_stuck = True
    index = cluster.propose(1, b"acknowledged")
    cluster.settle()
    assert cluster[1].commit_index >= index

    for member in cluster.members.values():
        member.restart()
    cluster.take()
    cluster.run(6 * ELECTION_TICKS)

    assert [member.values for member in cluster.members.values()] == [[b"acknowledged"]] * 3


def test_bug_b38_logs_agree_after_three_quick_leaders_that_each_left_a_tail() -> None:
    cluster = Cluster(seed=38, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    cluster.propose(1, b"one")
    cluster.take()
    cluster.tick(LEASE_TICKS, 2, 3)
    cluster[2].campaign()
    cluster.settle(lambda message: message.kind is MessageKind.APPEND)
    cluster.propose(2, b"two")
    cluster.take()
    cluster[1].resign()
    for _ in range(2):  # at first it learns the term
        cluster.take()
        cluster[1].campaign()
        cluster.settle(lambda message: message.kind is MessageKind.APPEND or 2 in (message.to, message.source))
    cluster.propose(1, b"three")
    cluster.take()
    assert cluster.leaders == [1, 2]
    assert [cluster[member].log.last_term() for member in (1, 2, 3)] == [4, 3, 2]

    cluster.run(4 * ELECTION_TICKS)

    assert cluster.members[1].log == cluster.members[2].log == cluster.members[3].log
    assert [member.values for member in cluster.members.values()] == [[b"one", b"three"]] * 3


# -- snapshots --


def test_bug_b43_a_snapshot_under_way_is_not_begun_anew_by_what_else_the_leader_says() -> None:
    cluster = Cluster()
    member = cluster.members[1]
    member.disk_is_stuck = True
    cluster.deliver(snapshot(20))

    for number in range(5):
        cluster.deliver(Message(MessageKind.HEARTBEAT, 1, 2, 3, sequence=number))
        cluster.deliver(Message(MessageKind.APPEND, 1, 2, 3, 1, BASE_INDEX, 20, (Entry(2, BASE_INDEX + 1),)))
        cluster.deliver(snapshot(20))

    assert [job.snapshot.meta.index for job in member.jobs if job.snapshot is not None] == [20]
    member.disk_is_stuck = False
    member.write()
    assert (cluster[1].applied_index, member.storage.snapshot().meta.index) == (20, 20)


def test_bug_b58_a_learner_stays_one_by_a_snapshot_in_which_another_was_promoted() -> None:
    cluster = Cluster(3, learners=2)
    cluster.elect(1)
    cluster[1].propose_conf_change(ConfChange(ConfChangeKind.ADD_VOTER, 4))
    cluster.settle_without(5)
    applied = cluster[1].applied_index
    cluster.members[1].storage.create_snapshot(applied, cluster[1].conf_state)
    cluster.members[1].storage.compact(applied)
    cluster.run(2 * HEARTBEAT_TICKS)
    assert cluster[5].conf_state == cluster[4].conf_state == ConfState((1, 2, 3, 4), (), (5,))

    for learner_or_voter in (4, 5):
        cluster[learner_or_voter].forget_leader()
        cluster[learner_or_voter].campaign()

    assert (cluster.role(4), cluster.role(5)) == (Role.PRE_CANDIDATE, Role.FOLLOWER)


# -- membership --


def test_bug_b53_two_voters_of_which_one_is_lost_with_word_of_a_third_stand_still_and_go_on_when_it_is_back() -> None:
    # 1 alone knows that 3 votes by now. Without it, 2 needs the vote of 1, and 3 does not know that it may stand.
    cluster = Cluster(2, learners=1, seed=53, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    index = cluster[1].propose_conf_change(ConfChange(ConfChangeKind.ADD_VOTER, 3))
    cluster.settle(lambda message: message.commit >= index)
    assert cluster[1].conf_state == ConfState((1, 2, 3))
    assert cluster[2].conf_state == cluster[3].conf_state == ConfState((1, 2), (), (3,))

    cluster.run(12 * ELECTION_TICKS, isolated(1))
    assert cluster.leaders == []
    cluster.run(6 * ELECTION_TICKS)

    assert len(cluster.leaders) == 1
    assert {cluster[member].conf_state for member in (1, 2, 3)} == {ConfState((1, 2, 3))}


# -- slow disks --


@pytest.mark.parametrize("slow", [(1,), (2, 3)], ids=["of the leader", "of the followers"])
def test_bug_b62_slow_disks_bring_no_election(slow: tuple[int, ...]) -> None:
    cluster = Cluster(seed=62, lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    term = cluster[1].term
    for member in slow:
        cluster.members[member].disk_is_stuck = True
    index = cluster.propose(1, b"x")

    cluster.run(20 * ELECTION_TICKS)

    assert (cluster.leaders, cluster[1].term) == ([1], term)
    for member in slow:
        cluster.members[member].disk_is_stuck = False
        cluster.members[member].write()
    cluster.run(HEARTBEAT_TICKS)
    assert cluster[3].commit_index >= index


def test_bug_b63_a_leader_goes_on_sending_when_answers_come_again() -> None:
    cluster = Cluster(max_inflight_messages=2, check_quorum=False)
    cluster.elect(1)
    for value in (b"a", b"b", b"c", b"d"):
        cluster.propose(1, value)
        cluster.run(HEARTBEAT_TICKS, links((2, 1)))

    cluster.run(3 * HEARTBEAT_TICKS)

    assert cluster[1].tracker.progress[2].match == cluster[1].last_index
    assert cluster.members[2].values == [b"a", b"b", b"c", b"d"]
