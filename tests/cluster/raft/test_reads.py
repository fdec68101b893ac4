"""Reads that are as new as anything that was acknowledged before they began."""

import pytest

from conclave.cluster.raft import ConfState, Message, MessageKind, ReadOnly, ReadState, Role
from conclave.cluster.raft.confchange import restore
from conclave.cluster.raft.reads import Reads
from conclave.cluster.raft.tracker import Tracker
from tests.cluster.raft.harness import ELECTION_TICKS, HEARTBEAT_TICKS, LEASE_TICKS, Cluster, give_log


@pytest.fixture
def trio() -> Cluster:
    cluster = Cluster(lease_ticks=LEASE_TICKS)
    cluster.elect(1)
    return cluster


def test_a_read_is_answered_when_a_quorum_has_answered_heartbeats_sent_after_it(trio: Cluster) -> None:
    trio[1].read_index(7)
    heartbeats = trio.take(MessageKind.HEARTBEAT)
    assert trio.members[1].reads == []

    trio.deliver(heartbeats[0])
    trio.settle()

    assert trio.members[1].reads == [ReadState(trio[1].commit_index, 7)]


def test_the_index_is_the_commit_index_of_the_moment_when_the_read_came(trio: Cluster) -> None:
    trio[1].read_index(7)
    before = trio[1].commit_index
    heartbeats = trio.take(MessageKind.HEARTBEAT)
    trio.propose(1, b"later")
    trio.settle()

    trio.deliver(*heartbeats)
    trio.settle()

    assert trio.members[1].reads == [ReadState(before, 7)]


def test_an_answer_to_heartbeats_sent_before_the_read_confirms_nothing(trio: Cluster) -> None:
    trio.tick(HEARTBEAT_TICKS, 1)
    trio.deliver(*trio.take(MessageKind.HEARTBEAT))
    late = trio.take(MessageKind.HEARTBEAT_RESPONSE)
    trio[1].read_index(7)
    trio.take(MessageKind.HEARTBEAT)

    trio.deliver(*late)

    assert trio.members[1].reads == []


def test_a_retried_read_is_not_confirmed_by_the_round_of_the_first_try(trio: Cluster) -> None:
    # Both tries have the caller's own number; only the leader's numbers count.
    trio[1].read_index(7)
    first_round = trio.take(MessageKind.HEARTBEAT)
    trio[1].read_index(7)
    trio.take(MessageKind.HEARTBEAT)

    trio.deliver(*first_round)
    trio.settle()

    assert len(trio.members[1].reads) == 1


def test_one_round_answers_all_reads_before_it(trio: Cluster) -> None:
    for context in (1, 2, 3):
        trio[1].read_index(context)
    rounds = trio.take(MessageKind.HEARTBEAT)

    trio.deliver(*rounds[-2:])
    trio.settle()

    assert [read.context for read in trio.members[1].reads] == [1, 2, 3]


def test_a_periodic_heartbeat_answers_reads_as_well(trio: Cluster) -> None:
    trio[1].read_index(7)
    trio.take(MessageKind.HEARTBEAT)

    trio.tick(HEARTBEAT_TICKS, 1)
    trio.settle()

    assert [read.context for read in trio.members[1].reads] == [7]


def test_a_follower_asks_the_leader_and_gets_the_answer(trio: Cluster) -> None:
    trio[2].read_index(9)
    trio.settle()

    assert trio.members[2].reads == [ReadState(trio[1].commit_index, 9)]
    assert trio.members[1].reads == []


def test_a_follower_without_a_leader_answers_nothing(trio: Cluster) -> None:
    trio[2].forget_leader()

    trio[2].read_index(9)

    assert trio.take(MessageKind.READ_INDEX) == []


def test_a_new_leader_postpones_reads_until_it_has_committed_in_its_term() -> None:
    cluster = Cluster()
    give_log(cluster.members[1], 2, 2)
    cluster[1].campaign()
    cluster.settle(lambda message: message.kind is MessageKind.APPEND)
    cluster[1].read_index(7)
    cluster.settle(lambda message: message.kind is MessageKind.APPEND)
    assert cluster.members[1].reads == []

    cluster.tick(HEARTBEAT_TICKS, 1)
    cluster.settle()

    assert cluster.members[1].reads == [ReadState(cluster[1].commit_index, 7)]


def test_reads_are_forgotten_when_leadership_ends(trio: Cluster) -> None:
    trio[1].read_index(7)
    heartbeats = trio.take(MessageKind.HEARTBEAT)
    trio[1].resign()
    trio.deliver(*heartbeats)
    trio.settle()

    assert trio.members[1].reads == []


def test_a_deposed_leader_answers_nothing(trio: Cluster) -> None:
    trio.tick(LEASE_TICKS, 2, 3)
    trio.tick(ELECTION_TICKS, 2)
    trio.settle_without(1)
    assert trio.role(2) is Role.LEADER

    trio[1].read_index(7)
    trio.settle_without(1)

    assert trio.role(1) is Role.LEADER
    assert trio.members[1].reads == []


def test_a_single_voter_answers_at_once() -> None:
    cluster = Cluster(1)
    cluster.elect(1)

    cluster[1].read_index(7)
    cluster.settle()

    assert cluster.members[1].reads == [ReadState(cluster[1].commit_index, 7)]


def test_a_restarted_single_voter_answers_only_after_it_has_committed_again() -> None:
    cluster = Cluster(1)
    cluster.elect(1)
    cluster.propose(1, b"x")
    cluster.settle()
    newest = cluster[1].commit_index
    cluster.members[1].restart()
    cluster.members[1].disk_is_stuck = True
    cluster[1].campaign()
    cluster.settle()
    cluster[1].read_index(7)
    cluster.settle()
    assert cluster.members[1].reads == []

    cluster.members[1].disk_is_stuck = False
    cluster.members[1].write()
    cluster.settle()
    cluster[1].read_index(8)
    cluster.settle()

    assert all(read.index > newest for read in cluster.members[1].reads)
    assert cluster.members[1].reads


def test_learners_confirm_nothing() -> None:
    cluster = Cluster(3, learners=2)
    cluster.elect(1)
    cluster[1].read_index(7)

    cluster.settle_without(2, 3)

    assert cluster.members[1].reads == []


def test_a_joint_configuration_confirms_with_both_halves() -> None:
    reads, tracker = Reads(), Tracker(1, 1)
    configuration, progress = restore(ConfState((1, 2, 3), (1, 4, 5)), lambda: tracker.new_progress(1))
    tracker.install(configuration, progress)
    reads.acknowledge(2, 5)
    assert reads.confirmed(tracker, 1, 6) == 0

    reads.acknowledge(4, 3)

    assert reads.confirmed(tracker, 1, 6) == 3


def test_lease_reads_are_answered_from_the_commit_index_at_once() -> None:
    cluster = Cluster(read_only=ReadOnly.LEASE)
    cluster.elect(1)

    cluster[1].read_index(7)
    cluster.take()

    assert cluster.members[1].reads == [ReadState(cluster[1].commit_index, 7)]


# -- what a lease may lean on --


def test_a_lease_is_not_usable_before_the_first_commit_of_the_term() -> None:
    cluster = Cluster()
    cluster[1].campaign()
    cluster.settle(lambda message: message.kind is MessageKind.APPEND)
    assert cluster.role(1) is Role.LEADER
    assert not cluster[1].lease_usable

    cluster.tick(HEARTBEAT_TICKS, 1)
    cluster.settle()

    assert cluster[1].lease_usable


def test_a_lease_is_over_for_the_rest_of_the_term_once_a_transfer_was_sent(trio: Cluster) -> None:
    trio[1].transfer_leader(2)
    assert trio.take(MessageKind.TIMEOUT_NOW)
    assert not trio[1].lease_usable

    for _ in range(ELECTION_TICKS):
        trio.tick(1, 1)
        trio.settle()

    assert trio[1].transferee == 0
    assert trio.role(1) is Role.LEADER
    assert not trio[1].lease_usable


def test_the_confirmed_heartbeat_is_the_newest_that_a_quorum_has_answered(trio: Cluster) -> None:
    known = trio[1].confirmed_sequence
    trio.tick(HEARTBEAT_TICKS, 1)
    assert trio[1].confirmed_sequence == known

    trio.settle_without(3)

    assert trio[1].confirmed_sequence == trio[1].heartbeat_sequence


def test_nobody_but_a_leader_has_anything_confirmed(trio: Cluster) -> None:
    assert trio[2].confirmed_sequence == 0
    trio[1].resign()
    assert trio[1].confirmed_sequence == 0


def test_an_answer_of_an_earlier_term_confirms_nothing(trio: Cluster) -> None:
    trio.deliver(Message(MessageKind.HEARTBEAT_RESPONSE, 1, 2, trio[1].term - 1, sequence=99))

    assert trio[1].confirmed_sequence < 99


def test_an_answer_cannot_confirm_more_than_was_sent(trio: Cluster) -> None:
    trio.deliver(Message(MessageKind.HEARTBEAT_RESPONSE, 1, 2, trio[1].term, sequence=99))

    assert trio[1].confirmed_sequence <= trio[1].heartbeat_sequence
