"""Standing for election: who may, who is asked, which answers count."""

import pytest

from conclave.cluster.raft import ConfChange, ConfChangeKind, ConfState, Message, MessageKind, Role
from tests.cluster.raft.harness import BASE_INDEX, ELECTION_TICKS, Cluster, give_log


def test_a_pre_candidate_asks_about_the_next_term_and_stays_in_its_own() -> None:
    cluster = Cluster()
    cluster[1].campaign()

    asked = cluster.take(MessageKind.PRE_VOTE)

    assert [(m.to, m.term) for m in asked] == [(2, 2), (3, 2)]
    assert (cluster.role(1), cluster[1].term, cluster[1].vote) == (Role.PRE_CANDIDATE, 1, 0)


def test_voters_are_asked_in_the_order_of_their_ids_and_learners_are_not() -> None:
    cluster = Cluster(5, learners=2)
    cluster[4].campaign()

    assert [m.to for m in cluster.take(MessageKind.PRE_VOTE)] == [1, 2, 3, 5]


def test_an_own_vote_counts_only_when_it_is_durable() -> None:
    cluster = Cluster(1)
    cluster.members[1].disk_is_stuck = True
    cluster[1].campaign()
    cluster.settle()
    assert cluster.role(1) is not Role.LEADER

    cluster.members[1].disk_is_stuck = False
    cluster.members[1].write()
    cluster.settle()

    assert cluster.role(1) is Role.LEADER


def test_only_the_first_answer_of_a_peer_counts() -> None:
    cluster = Cluster(5, pre_vote=False)
    cluster[1].campaign()
    cluster.take()

    for _ in range(3):
        cluster.deliver(Message(MessageKind.VOTE_RESPONSE, 1, 2, 2))

    assert cluster.role(1) is Role.CANDIDATE


def test_votes_of_learners_and_strangers_do_not_count() -> None:
    cluster = Cluster(3, learners=2, pre_vote=False)
    cluster[1].campaign()
    cluster.take()

    for stranger in (4, 5, 9):
        cluster.deliver(Message(MessageKind.VOTE_RESPONSE, 1, stranger, 2))

    assert cluster.role(1) is Role.CANDIDATE


def test_pre_votes_do_not_count_as_votes() -> None:
    cluster = Cluster()
    cluster[1].campaign()
    cluster.settle(lambda m: m.kind is MessageKind.VOTE)
    assert cluster.role(1) is Role.CANDIDATE

    for peer in (2, 3):
        cluster.deliver(Message(MessageKind.PRE_VOTE_RESPONSE, 1, peer, cluster[1].term))

    assert cluster.role(1) is Role.CANDIDATE


def test_a_lost_pre_vote_ends_in_following_without_a_new_term() -> None:
    cluster = Cluster()
    cluster[1].campaign()
    cluster.take()

    for peer in (2, 3):
        cluster.deliver(Message(MessageKind.PRE_VOTE_RESPONSE, 1, peer, 1, reject=True))

    assert (cluster.role(1), cluster[1].term) == (Role.FOLLOWER, 1)


def test_a_refusal_from_a_later_term_is_learnt_from() -> None:
    cluster = Cluster()
    cluster[1].campaign()

    cluster.deliver(Message(MessageKind.PRE_VOTE_RESPONSE, 1, 2, 8, reject=True))

    assert (cluster.role(1), cluster[1].term) == (Role.FOLLOWER, 8)


def test_a_learner_never_campaigns() -> None:
    cluster = Cluster(2, learners=1)

    cluster.tick(5 * ELECTION_TICKS, 3)
    cluster[3].campaign()

    assert cluster.role(3) is Role.FOLLOWER
    assert cluster.take(source=3) == []


def test_a_node_without_a_configuration_never_campaigns() -> None:
    cluster = Cluster(1)
    cluster.add(2)

    cluster.tick(5 * ELECTION_TICKS, 2)

    assert cluster.role(2) is Role.FOLLOWER


def test_a_leader_that_is_told_to_campaign_goes_on_leading() -> None:
    cluster = Cluster()
    cluster.elect(1)

    cluster[1].campaign()

    assert cluster.role(1) is Role.LEADER
    assert cluster.take() == []


def test_nobody_campaigns_over_a_committed_change_that_it_has_not_applied() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.members[2].is_slow_to_apply = True
    cluster[1].propose_conf_change(ConfChange(ConfChangeKind.ADD_LEARNER, 9))
    cluster.settle()

    cluster.tick(2 * ELECTION_TICKS, 2)
    assert cluster.take(MessageKind.PRE_VOTE) == []

    cluster.members[2].apply()
    cluster.tick(ELECTION_TICKS, 2)
    assert len(cluster.take(MessageKind.PRE_VOTE, source=2)) == 2


def test_a_joint_election_needs_both_halves() -> None:
    cluster = Cluster(5, pre_vote=False)
    cluster[1].restore_configuration(ConfState((1, 2, 3), (1, 4, 5)))
    cluster[1].campaign()
    cluster.take()
    cluster.deliver(Message(MessageKind.VOTE_RESPONSE, 1, 2, 2))
    cluster.deliver(Message(MessageKind.VOTE_RESPONSE, 1, 3, 2))
    assert cluster.role(1) is Role.CANDIDATE

    cluster.deliver(Message(MessageKind.VOTE_RESPONSE, 1, 4, 2))

    assert cluster.role(1) is Role.LEADER


@pytest.mark.parametrize("kind", [MessageKind.APPEND, MessageKind.HEARTBEAT, MessageKind.SNAPSHOT])
def test_a_pre_candidate_follows_a_leader_of_its_term(kind: MessageKind) -> None:
    cluster = Cluster()
    cluster[1].campaign()

    cluster.deliver(Message(kind, 1, 3, 1, 1, BASE_INDEX))

    assert (cluster.role(1), cluster[1].leader) == (Role.FOLLOWER, 3)


def test_the_own_promise_does_not_refuse_another_pre_candidate() -> None:
    # Two nodes that lost their leader at different times must be able to elect one of them.
    cluster = Cluster()
    cluster.elect(1)
    cluster.tick(ELECTION_TICKS, 2)
    cluster.take()
    assert cluster.role(2) is Role.PRE_CANDIDATE

    cluster.tick(ELECTION_TICKS, 3)
    cluster.settle_without(1)

    assert cluster.role(3) is Role.LEADER


def test_a_member_behind_a_snapshot_with_an_empty_log_can_win() -> None:
    cluster = Cluster()
    assert cluster[1].log.last_index() == BASE_INDEX

    cluster.elect(1)

    assert cluster[1].term == 2


def test_a_node_of_a_later_term_is_elected_only_if_its_log_is_good_enough() -> None:
    cluster = Cluster()
    give_log(cluster.members[1], term=7)
    give_log(cluster.members[2], 2, 2)
    give_log(cluster.members[3], 2, 2)

    cluster[1].campaign()
    cluster.settle()

    assert cluster.role(1) is not Role.LEADER
