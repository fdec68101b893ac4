"""The promise behind a leader's lease (raft.md, section 3): for L after it heard the leader a node helps nobody else.

The lease of a leader is as good as this promise, so nothing but the leader's own word may end it early.
"""

import pytest

from conclave.cluster.raft import Message, MessageKind, Role
from conclave.cluster.raft.core import HASTY_CAMPAIGNS
from tests.cluster.raft.harness import ELECTION_TICKS, LEASE_TICKS, Cluster


@pytest.fixture
def trio() -> Cluster:
    """Three members with two timers; 1 leads, and all have just heard it."""
    cluster = Cluster(lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    cluster.tick(2, 1)
    cluster.settle()
    return cluster


def vote_of(cluster: Cluster, voter: int, *, term: int, forced: bool = False) -> list[Message]:
    """Let member 3, with a log as good as any, ask for a vote; return the answers that grant it."""
    log = cluster[3].log
    request = Message(MessageKind.VOTE, voter, 3, term, log_term=log.last_term(), index=log.last_index(), forced=forced)
    cluster.deliver(request)
    return [answer for answer in cluster.take(MessageKind.VOTE_RESPONSE, source=voter) if not answer.reject]


def test_a_vote_is_refused_in_silence_within_the_promise_and_the_term_stays(trio: Cluster) -> None:
    assert vote_of(trio, 2, term=9) == []
    assert trio[2].term == 2


def test_a_vote_is_granted_when_the_promise_is_over(trio: Cluster) -> None:
    trio.tick(LEASE_TICKS, 2)

    assert len(vote_of(trio, 2, term=9)) == 1


def test_a_vote_that_the_leader_asked_for_is_granted_within_the_promise(trio: Cluster) -> None:
    assert len(vote_of(trio, 2, term=9, forced=True)) == 1


@pytest.mark.parametrize("kind", [MessageKind.PRE_VOTE_RESPONSE, MessageKind.APPEND_RESPONSE])
def test_a_higher_term_from_a_third_party_does_not_end_the_promise(trio: Cluster, kind: MessageKind) -> None:
    # A late answer of a peer that was in a later term raises the term, and the leader of the earlier one is unknown now.
    trio.deliver(Message(kind, 2, 3, 5, reject=True))
    assert trio[2].term == 5

    assert vote_of(trio, 2, term=6) == []


def test_the_promise_holds_against_a_vote_of_the_term_that_was_just_learnt(trio: Cluster) -> None:
    trio.deliver(Message(MessageKind.PRE_VOTE_RESPONSE, 2, 3, 5, reject=True))

    assert vote_of(trio, 2, term=5) == []


def test_a_restarted_node_keeps_the_promise_that_it_may_have_given(trio: Cluster) -> None:
    trio.members[2].restart(startup_promise_ticks=LEASE_TICKS)

    assert vote_of(trio, 2, term=trio[2].term) == []
    assert vote_of(trio, 2, term=9) == []

    trio.tick(LEASE_TICKS, 2)
    assert len(vote_of(trio, 2, term=9)) == 1


def test_nobody_campaigns_within_its_own_promise(trio: Cluster) -> None:
    trio[2].campaign()

    assert trio.role(2) is Role.FOLLOWER
    assert trio.take(MessageKind.PRE_VOTE) == []


def test_a_broken_connection_makes_a_follower_campaign_after_the_promise_and_before_the_timeout(trio: Cluster) -> None:
    trio[2].leader_connection_lost()

    trio.tick(LEASE_TICKS, 2)
    assert trio.take(MessageKind.PRE_VOTE) == []

    trio.tick(1, 2)
    assert len(trio.take(MessageKind.PRE_VOTE, source=2)) == 2


def test_those_who_lose_their_leader_at_once_campaign_in_turns(trio: Cluster) -> None:
    for follower in (2, 3):
        trio[follower].leader_connection_lost()

    trio.tick(LEASE_TICKS + 1, 2, 3)
    trio.settle_without(1)

    assert (trio.role(2), trio.role(3)) == (Role.LEADER, Role.FOLLOWER)


def split_votes(trio: Cluster) -> None:
    """Let both followers lose their leader, campaign at the same moment, and vote for themselves."""
    for follower in (2, 3):
        trio[follower].leader_connection_lost()
    trio.tick(ELECTION_TICKS - 1, 2, 3)
    trio.settle_without(1)
    assert (trio.role(2), trio.role(3)) == (Role.CANDIDATE, Role.CANDIDATE)


def test_those_who_lost_their_leader_and_split_their_votes_try_again_soon(trio: Cluster) -> None:
    split_votes(trio)

    trio.tick(2 * LEASE_TICKS, 2)
    trio.settle_without(1)

    assert trio.role(2) is Role.LEADER


def test_those_whose_leader_fell_silent_and_who_split_their_votes_try_again_soon(trio: Cluster) -> None:
    # Nothing told them that it is gone but that T has passed, for both in the same moment.
    trio.tick(ELECTION_TICKS, 2, 3)
    trio.settle_without(1)
    assert (trio.role(2), trio.role(3)) == (Role.CANDIDATE, Role.CANDIDATE)

    trio.tick(2 * LEASE_TICKS, 2)
    trio.settle_without(1)

    assert trio.role(2) is Role.LEADER


def test_one_refusal_is_no_reason_for_haste_while_others_may_be_writing_their_votes() -> None:
    group = Cluster(5, lease_ticks=LEASE_TICKS)
    group.elect(1)
    group.tick(2, 1)
    group.settle()
    # The leader falls silent. 2 and 3 campaign at once; 4 and 5 vote for 2, on disks that take nearly T.
    group.tick(ELECTION_TICKS, 2, 3)
    group.tick(LEASE_TICKS, 4, 5)
    group.settle(lambda message: 1 in (message.to, message.source) or message.kind is MessageKind.VOTE)
    assert (group.role(2), group.role(3)) == (Role.CANDIDATE, Role.CANDIDATE)
    for slow in (4, 5):
        group.members[slow].disk_is_stuck = True
    term, log = group[2].term, group[2].log
    for voter in (3, 4, 5):
        group.deliver(Message(MessageKind.VOTE, voter, 2, term, log_term=log.last_term(), index=log.last_index()))
    group.deliver(*group.take(MessageKind.VOTE_RESPONSE, to=2, source=3))

    group.tick(ELECTION_TICKS - 1, 2)
    for slow in (4, 5):
        group.members[slow].disk_is_stuck = False
        group.members[slow].write()
    group.deliver(*group.take(MessageKind.VOTE_RESPONSE, to=2))

    assert (group.role(2), group[2].term) == (Role.LEADER, term)


def test_haste_ends_after_a_few_campaigns(trio: Cluster) -> None:
    def ticks_until_it_campaigns() -> int:
        for ticks in range(1, 2 * ELECTION_TICKS + 1):
            trio.tick(1, 2)
            if trio.take(MessageKind.PRE_VOTE, source=2):
                for voter in (1, 3):
                    trio.deliver(Message(MessageKind.PRE_VOTE_RESPONSE, 2, voter, trio[2].term, reject=True))
                return ticks
        raise AssertionError("it never campaigns")

    trio[2].leader_connection_lost()
    waited = [ticks_until_it_campaigns() for _ in range(HASTY_CAMPAIGNS + 1)]

    assert max(waited[:HASTY_CAMPAIGNS]) <= 2 * LEASE_TICKS < ELECTION_TICKS <= waited[HASTY_CAMPAIGNS]


def test_the_hint_of_a_broken_connection_is_void_once_the_leader_is_heard_again(trio: Cluster) -> None:
    trio[2].leader_connection_lost()
    trio.tick(2, 1)
    trio.settle()

    trio.tick(ELECTION_TICKS - 1, 2)

    assert trio.role(2) is Role.FOLLOWER


def test_a_resigned_leader_may_be_replaced_at_once(trio: Cluster) -> None:
    trio[1].resign()
    trio.settle()

    trio.tick(1, 2)
    trio.settle()

    assert trio.role(2) is Role.LEADER


def test_a_resignation_by_somebody_else_ends_nothing(trio: Cluster) -> None:
    trio.deliver(Message(MessageKind.RESIGNED, 2, 3, trio[2].term))

    assert vote_of(trio, 2, term=9) == []


def test_a_late_resignation_does_not_end_the_promise_to_the_next_leader(trio: Cluster) -> None:
    trio[1].resign()
    late = trio.take(MessageKind.RESIGNED, to=2)
    trio.tick(LEASE_TICKS + 1)
    trio.elect(3)

    trio.deliver(*late)

    assert trio[2].leader == 3
    assert vote_of(trio, 2, term=9) == []


def test_a_forgotten_leader_is_owed_nothing(trio: Cluster) -> None:
    trio[2].forget_leader()

    assert len(vote_of(trio, 2, term=9)) == 1


def test_a_leader_grants_no_pre_vote_however_long_it_has_led(trio: Cluster) -> None:
    # Member 3 is heard but hears nothing: without this it would win with the leader's own vote.
    for _ in range(ELECTION_TICKS):
        trio.tick(1, 1)
        trio.settle(lambda message: message.to == 3)
        request = Message(MessageKind.PRE_VOTE, 1, 3, 9, log_term=trio[3].log.last_term(), index=trio[3].last_index)
        trio.deliver(request)

        assert trio.take(MessageKind.PRE_VOTE_RESPONSE) == []

    assert trio.role(1) is Role.LEADER


def test_the_others_disks_have_as_long_for_their_votes_as_the_candidate_s_had(trio: Cluster) -> None:
    candidate, voter = trio.members[2], trio.members[3]
    trio.tick(LEASE_TICKS, 2, 3)
    trio[2].campaign()
    trio.deliver(*trio.take(MessageKind.PRE_VOTE, to=3))
    candidate.disk_is_stuck = voter.disk_is_stuck = True
    trio.deliver(*trio.take(MessageKind.PRE_VOTE_RESPONSE, to=2))
    assert trio.role(2) is Role.CANDIDATE
    term = trio[2].term

    trio.tick(ELECTION_TICKS - 1, 2)
    candidate.write()
    trio.deliver(*trio.take(MessageKind.VOTE, to=3))
    trio.tick(ELECTION_TICKS - 1, 2)
    voter.write()
    trio.deliver(*trio.take(MessageKind.VOTE_RESPONSE, to=2))

    assert (trio.role(2), trio[2].term) == (Role.LEADER, term)
