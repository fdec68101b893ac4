"""What a follower does with what it hears."""

import pytest

from conclave.cluster.raft import ConfState, Entry, Message, MessageKind, Snapshot, SnapshotMeta
from tests.cluster.raft.harness import BASE_INDEX, ELECTION_TICKS, Cluster, give_log

FIRST = BASE_INDEX + 1


@pytest.fixture
def trio() -> Cluster:
    return Cluster()


def append(
    term: int = 2, *, index: int = BASE_INDEX, log_term: int = 1, entries: tuple[Entry, ...] = (), commit: int = 0
) -> Message:
    return Message(MessageKind.APPEND, 1, 2, term, log_term, index, commit, entries)


def snapshot(index: int, term: int = 2, *, voters: tuple[int, ...] = (1, 2, 3), sent_in: int = 3) -> Message:
    content = Snapshot(SnapshotMeta(index, term, ConfState(voters)), b"state")
    return Message(MessageKind.SNAPSHOT, 1, 2, sent_in, snapshot=content)


def answer(cluster: Cluster) -> Message:
    (only,) = cluster.take(MessageKind.APPEND_RESPONSE, source=1)
    return only


# -- appends --


def test_the_answer_names_the_end_of_the_message_not_of_the_log(trio: Cluster) -> None:
    give_log(trio.members[1], 2, 2, 2)

    trio.deliver(append(entries=(Entry(2, FIRST),)))

    assert answer(trio).index == FIRST
    assert trio[1].last_index == BASE_INDEX + 3


def test_an_append_older_than_the_commit_index_is_answered_with_the_commit_index(trio: Cluster) -> None:
    give_log(trio.members[1], 2, 2, commit=BASE_INDEX + 2)

    trio.deliver(append(index=BASE_INDEX, log_term=9))

    told = answer(trio)
    assert (told.reject, told.index) == (False, BASE_INDEX + 2)


def test_the_commit_index_follows_the_message_and_not_the_own_log(trio: Cluster) -> None:
    give_log(trio.members[1], 2, 2, 2)

    trio.deliver(append(entries=(Entry(2, FIRST),), commit=BASE_INDEX + 3))

    assert trio[1].commit_index == FIRST


def test_a_refusal_hints_at_the_last_entry_whose_term_may_match(trio: Cluster) -> None:
    give_log(trio.members[1], 2, 2, 5, 5)

    trio.deliver(append(6, index=BASE_INDEX + 4, log_term=3))

    told = answer(trio)
    assert (told.reject, told.index, told.reject_hint, told.log_term) == (True, BASE_INDEX + 4, BASE_INDEX + 2, 2)


def test_acknowledgements_wait_for_all_earlier_writes_even_if_nothing_is_new(trio: Cluster) -> None:
    trio.members[1].disk_is_stuck = True
    message = append(entries=(Entry(2, FIRST),))
    trio.deliver(message)
    trio.deliver(message)
    assert trio.take(MessageKind.APPEND_RESPONSE) == []

    trio.members[1].write(1)
    assert len(trio.take(MessageKind.APPEND_RESPONSE)) == 1
    trio.members[1].write()
    assert len(trio.take(MessageKind.APPEND_RESPONSE)) == 1


def test_refusals_wait_for_the_disk_as_well(trio: Cluster) -> None:
    trio.members[1].disk_is_stuck = True

    trio.deliver(append(index=99))

    assert trio.take(MessageKind.APPEND_RESPONSE) == []


# -- heartbeats --


def test_a_heartbeat_commits_what_the_leader_knows_to_be_here_and_is_echoed(trio: Cluster) -> None:
    give_log(trio.members[1], 2, 2)

    trio.deliver(Message(MessageKind.HEARTBEAT, 1, 2, 2, commit=FIRST, sequence=17))

    (echo,) = trio.take(MessageKind.HEARTBEAT_RESPONSE)
    assert (echo.to, echo.sequence) == (2, 17)
    assert trio[1].commit_index == FIRST


def test_a_heartbeat_puts_the_next_election_off(trio: Cluster) -> None:
    trio.tick(ELECTION_TICKS - 1, 1)
    trio.deliver(Message(MessageKind.HEARTBEAT, 1, 2, 2))

    trio.tick(ELECTION_TICKS - 1, 1)

    assert trio.take(MessageKind.PRE_VOTE) == []


# -- votes --


def test_a_granted_vote_puts_the_own_election_off_and_a_granted_pre_vote_does_not(trio: Cluster) -> None:
    trio.tick(ELECTION_TICKS - 1, 1)
    trio.deliver(Message(MessageKind.PRE_VOTE, 1, 2, 2, log_term=1, index=BASE_INDEX))
    assert not trio.take(MessageKind.PRE_VOTE_RESPONSE)[0].reject
    trio.tick(1, 1)
    assert len(trio.take(MessageKind.PRE_VOTE)) == 2

    trio.deliver(Message(MessageKind.VOTE, 1, 3, 2, log_term=1, index=BASE_INDEX))
    trio.tick(ELECTION_TICKS - 1, 1)
    assert trio.take(MessageKind.PRE_VOTE) == []


def test_a_granted_pre_vote_is_answered_with_the_term_asked_about_and_remembers_nothing(trio: Cluster) -> None:
    trio.deliver(Message(MessageKind.PRE_VOTE, 1, 2, 9, log_term=1, index=BASE_INDEX))

    (granted,) = trio.take(MessageKind.PRE_VOTE_RESPONSE)
    assert (granted.reject, granted.term) == (False, 9)
    assert (trio[1].term, trio[1].vote) == (1, 0)


def test_a_refused_pre_vote_is_answered_with_the_own_term(trio: Cluster) -> None:
    give_log(trio.members[1], 2)

    trio.deliver(Message(MessageKind.PRE_VOTE, 1, 2, 9, log_term=1, index=BASE_INDEX))

    (refused,) = trio.take(MessageKind.PRE_VOTE_RESPONSE)
    assert (refused.reject, refused.term) == (True, 2)


def test_a_pre_vote_of_an_earlier_term_is_answered_so_that_nobody_waits_for_ever(trio: Cluster) -> None:
    give_log(trio.members[1], term=9)

    trio.deliver(Message(MessageKind.PRE_VOTE, 1, 2, 3, log_term=1, index=BASE_INDEX))

    (refused,) = trio.take(MessageKind.PRE_VOTE_RESPONSE)
    assert (refused.reject, refused.term) == (True, 9)


def test_a_vote_leaves_only_when_it_is_durable(trio: Cluster) -> None:
    trio.members[1].disk_is_stuck = True
    trio.deliver(Message(MessageKind.VOTE, 1, 2, 5, log_term=1, index=BASE_INDEX))
    assert trio.take(MessageKind.VOTE_RESPONSE) == []
    assert trio.members[1].storage.initial_state()[0].vote == 0

    trio.members[1].write()

    assert len(trio.take(MessageKind.VOTE_RESPONSE)) == 1
    assert trio.members[1].storage.initial_state()[0].vote == 2


def test_a_learner_votes_since_it_may_have_been_promoted() -> None:
    cluster = Cluster(2, learners=1)

    cluster.deliver(Message(MessageKind.VOTE, 3, 1, 5, log_term=1, index=BASE_INDEX))

    assert not cluster.take(MessageKind.VOTE_RESPONSE)[0].reject


# -- snapshots --


def test_a_snapshot_replaces_the_log_and_the_configuration(trio: Cluster) -> None:
    give_log(trio.members[1], 2, 2)

    trio.deliver(snapshot(20, 3, voters=(1, 2)))

    assert answer(trio).index == 20
    assert (trio[1].commit_index, trio[1].last_index) == (20, 20)
    assert trio[1].conf_state == ConfState((1, 2))
    assert trio.members[1].storage.snapshot().data == b"state"


def test_a_snapshot_is_acknowledged_only_when_it_is_durable_and_nothing_is_applied_before(trio: Cluster) -> None:
    trio.members[1].disk_is_stuck = True
    trio.deliver(snapshot(20, 3))
    trio.deliver(append(3, index=20, log_term=3, entries=(Entry(3, 21, data=b"x"),), commit=21))
    assert trio.take(MessageKind.APPEND_RESPONSE) == []
    assert trio.members[1].values == []

    trio.members[1].disk_is_stuck = False
    trio.members[1].write()

    assert [m.index for m in trio.take(MessageKind.APPEND_RESPONSE)] == [20, 21]
    assert trio.members[1].values == [b"x"]


def test_a_snapshot_older_than_the_commit_index_is_ignored(trio: Cluster) -> None:
    give_log(trio.members[1], 2, 2, 2, commit=BASE_INDEX + 3)

    trio.deliver(snapshot(BASE_INDEX + 2))

    assert answer(trio).index == BASE_INDEX + 3
    assert trio[1].last_index == BASE_INDEX + 3


def test_a_snapshot_of_what_the_log_has_only_commits(trio: Cluster) -> None:
    give_log(trio.members[1], 2, 2, 2)

    trio.deliver(snapshot(BASE_INDEX + 2))

    assert answer(trio).index == BASE_INDEX + 2
    assert trio[1].commit_index == BASE_INDEX + 2
    assert trio[1].last_index == BASE_INDEX + 3


def test_a_snapshot_in_which_a_node_is_no_member_is_not_for_it(trio: Cluster) -> None:
    trio.deliver(snapshot(20, voters=(2, 3)))

    assert answer(trio).index == BASE_INDEX
    assert trio[1].conf_state == ConfState((1, 2, 3))


def test_a_node_that_waits_for_a_snapshot_does_not_campaign(trio: Cluster) -> None:
    trio.members[1].disk_is_stuck = True
    trio.deliver(snapshot(20))

    trio.tick(3 * ELECTION_TICKS, 1)

    assert trio.take(MessageKind.PRE_VOTE) == []


def test_two_snapshots_one_after_the_other_end_with_the_newer(trio: Cluster) -> None:
    trio.members[1].disk_is_stuck = True
    trio.deliver(snapshot(20))
    trio.deliver(snapshot(30))
    trio.deliver(snapshot(20))

    trio.members[1].disk_is_stuck = False
    trio.members[1].write()

    assert (trio[1].commit_index, trio[1].applied_index) == (30, 30)
    assert trio.members[1].storage.last_index() == 30


# -- what is not for it --


def test_a_wish_for_a_transfer_is_sent_on_to_the_leader(trio: Cluster) -> None:
    trio.elect(1)

    trio[2].transfer_leader(3)
    trio.settle()

    assert trio[3].leader == 3


def test_a_leader_is_forgotten_without_a_new_term(trio: Cluster) -> None:
    trio.elect(1)
    term = trio[2].term

    trio[2].forget_leader()

    assert (trio[2].leader, trio[2].term, trio[2].vote) == (0, term, 1)
