"""The core's own part: the term gate, what it refuses, and what it hands out."""

import pytest

from conclave.cluster.raft import (
    BecameLeader,
    ConfState,
    CorruptLog,
    Entry,
    HardState,
    MalformedMessage,
    MemoryStorage,
    Message,
    MessageKind,
    Raft,
    RaftConfig,
    Role,
    Snapshot,
    SnapshotMeta,
    UnknownPeer,
)
from conclave.cluster.raft.core import RandomSource
from tests.cluster.raft.harness import BASE_INDEX, HEARTBEAT_TICKS, Cluster, FirstChoice, give_log

FIRST = BASE_INDEX + 1


@pytest.fixture
def trio() -> Cluster:
    return Cluster()


# -- start --


def start(storage: MemoryStorage, *, applied: int = 0) -> Raft:
    random: RandomSource = FirstChoice()
    return Raft(RaftConfig(id=1, election_ticks=10, heartbeat_ticks=1, applied=applied), storage, random)


@pytest.mark.parametrize("commit", [0, 9])
def test_a_commit_index_outside_the_log_is_told_and_never_repaired(commit: int) -> None:
    storage = MemoryStorage(Snapshot(SnapshotMeta(5, 2, ConfState((1,)))))
    storage.append([Entry(2, 6)])
    storage.set_hard_state(HardState(2, 0, commit))

    with pytest.raises(CorruptLog, match="acknowledged entries were lost"):
        start(storage)


def test_a_restart_continues_behind_what_was_applied() -> None:
    storage = MemoryStorage(Snapshot(SnapshotMeta(5, 2, ConfState((1,)))))
    storage.append([Entry(2, 6), Entry(2, 7)])
    storage.set_hard_state(HardState(2, 1, 7))

    raft = start(storage, applied=6)

    assert (raft.term, raft.vote, raft.commit_index, raft.applied_index) == (2, 1, 7, 6)
    job = raft.ready().apply
    assert job is not None
    assert [entry.index for entry in job.entries] == [7]


# -- what is refused, without a trace --


@pytest.mark.parametrize(
    "message",
    [
        Message(MessageKind.APPEND, 2, 3, 9),
        Message(MessageKind.APPEND, 1, 2, 9, 1, BASE_INDEX, entries=(Entry(2, FIRST + 1),)),
        Message(MessageKind.APPEND, 1, 2, 9, 1, BASE_INDEX, entries=(Entry(2, FIRST), Entry(2, FIRST + 2))),
        Message(MessageKind.APPEND, 1, 2, 9, 1, BASE_INDEX, entries=(Entry(3, FIRST), Entry(2, FIRST + 1))),
        Message(MessageKind.APPEND, 1, 2, 9, 3, BASE_INDEX, entries=(Entry(2, FIRST),)),
        Message(MessageKind.APPEND, 1, 2, 9, 1, BASE_INDEX, entries=(Entry(10, FIRST),)),
        Message(MessageKind.HEARTBEAT, 1, 2),
    ],
    ids=[
        "for another",
        "gap before",
        "gap within",
        "terms fall",
        "before its predecessor",
        "of a later term",
        "no term",
    ],
)
def test_a_message_that_contradicts_itself_changes_nothing(trio: Cluster, message: Message) -> None:
    before = trio[1].status()

    with pytest.raises(MalformedMessage):
        trio[1].step(message)

    assert trio[1].status() == before
    assert not trio[1].has_ready()


@pytest.mark.parametrize("kind", [MessageKind.APPEND_RESPONSE, MessageKind.HEARTBEAT_RESPONSE])
def test_an_answer_of_a_stranger_is_refused(trio: Cluster, kind: MessageKind) -> None:
    with pytest.raises(UnknownPeer):
        trio[1].step(Message(kind, 1, 9, 1))


# -- the term gate --


def test_a_pre_vote_never_raises_the_term(trio: Cluster) -> None:
    trio.deliver(Message(MessageKind.PRE_VOTE, 1, 2, 99, log_term=1, index=BASE_INDEX))
    trio.deliver(Message(MessageKind.PRE_VOTE_RESPONSE, 1, 2, 99))

    assert trio[1].term == 1


def test_a_higher_term_from_a_leader_names_the_leader(trio: Cluster) -> None:
    trio.deliver(Message(MessageKind.HEARTBEAT, 1, 2, 5))

    assert (trio[1].term, trio[1].leader) == (5, 2)


@pytest.mark.parametrize("kind", [MessageKind.HEARTBEAT, MessageKind.APPEND])
def test_a_leader_of_an_earlier_term_is_answered_with_ours(trio: Cluster, kind: MessageKind) -> None:
    give_log(trio.members[1], term=9)

    trio.deliver(Message(kind, 1, 2, 3, 1, BASE_INDEX))

    (answer,) = trio.take(MessageKind.APPEND_RESPONSE)
    assert (answer.to, answer.term) == (2, 9)


def test_a_node_that_got_stuck_in_a_higher_term_is_freed_by_an_election(trio: Cluster) -> None:
    trio.elect(1)
    give_log(trio.members[3], 2, term=20)

    for _ in range(60):
        trio.tick(1)
        trio.settle()

    leaders = [i for i in (1, 2, 3) if trio.role(i) is Role.LEADER]
    assert len(leaders) == 1
    assert {trio[i].term for i in (1, 2, 3)} == {trio[leaders[0]].term}
    assert trio[leaders[0]].term > 20


def test_a_vote_is_kept_within_a_term_and_dropped_with_it(trio: Cluster) -> None:
    trio.deliver(Message(MessageKind.VOTE, 1, 2, 5, log_term=1, index=BASE_INDEX))
    assert trio[1].vote == 2

    trio[1].become_follower(5, 0)
    assert trio[1].vote == 2

    trio[1].become_follower(6, 0)
    assert trio[1].vote == 0


# -- what is handed out --


def test_everything_is_handed_out_once(trio: Cluster) -> None:
    trio[1].campaign()
    first = trio[1].ready()
    assert first.soft is not None
    assert first.messages

    second = trio[1].ready()

    assert (second.soft, second.messages, second.append, second.apply) == (None, [], None, None)
    assert not trio[1].has_ready()


def test_a_commit_index_alone_needs_no_sync(trio: Cluster) -> None:
    give_log(trio.members[1], 2)
    trio[1].step(Message(MessageKind.HEARTBEAT, 1, 2, 2, commit=FIRST))

    job = trio[1].ready().append

    assert job is not None
    assert not job.must_sync
    assert job.hard_state.commit == FIRST


@pytest.mark.parametrize(
    "message",
    [
        Message(MessageKind.HEARTBEAT, 1, 2, 5),
        Message(MessageKind.VOTE, 1, 2, 5, log_term=1, index=BASE_INDEX),
        Message(MessageKind.APPEND, 1, 2, 1, 1, BASE_INDEX, entries=(Entry(1, FIRST),)),
        Message(MessageKind.SNAPSHOT, 1, 2, 1, snapshot=Snapshot(SnapshotMeta(9, 1, ConfState((1, 2, 3))))),
    ],
    ids=["term", "vote", "entries", "snapshot"],
)
def test_what_must_not_be_forgotten_is_synced(trio: Cluster, message: Message) -> None:
    trio[1].step(message)

    job = trio[1].ready().append

    assert job is not None
    assert job.must_sync


def test_entries_come_with_the_whole_hard_state_even_if_the_commit_index_was_told_before(trio: Cluster) -> None:
    trio.deliver(Message(MessageKind.APPEND, 1, 2, 2, 1, BASE_INDEX, entries=(Entry(2, FIRST),)))
    trio.deliver(Message(MessageKind.HEARTBEAT, 1, 2, 2, commit=FIRST))
    trio[1].step(Message(MessageKind.APPEND, 1, 2, 2, 2, FIRST, entries=(Entry(2, FIRST + 1),)))

    job = trio[1].ready().append

    assert job is not None
    assert job.hard_state == HardState(2, 0, FIRST)


def test_the_storages_answer_comes_last_and_names_the_end_of_the_whole_log(trio: Cluster) -> None:
    trio[1].step(Message(MessageKind.APPEND, 1, 2, 2, 1, BASE_INDEX, entries=(Entry(2, FIRST), Entry(2, FIRST + 1))))

    job = trio[1].ready().append

    assert job is not None
    last = job.responses[-1]
    assert (last.kind, last.to) == (MessageKind.STORAGE_APPEND_RESPONSE, 1)
    assert (last.index, last.log_term, last.term) == (FIRST + 1, 2, 2)


def test_a_storage_answer_of_an_earlier_term_leaves_entries_unstable_but_its_snapshot_counts(trio: Cluster) -> None:
    member = trio.members[1]
    member.disk_is_stuck = True
    content = Snapshot(SnapshotMeta(9, 2, ConfState((1, 2, 3))))
    trio.deliver(Message(MessageKind.SNAPSHOT, 1, 2, 2, snapshot=content))
    trio.deliver(Message(MessageKind.APPEND, 1, 2, 2, 2, 9, entries=(Entry(2, 10),)))
    trio.deliver(Message(MessageKind.HEARTBEAT, 1, 3, 3))

    member.write(2)

    assert trio[1].log.unstable.snapshot is None
    assert trio[1].applied_index == 9
    assert [entry.index for entry in trio[1].log.unstable.entries] == [10]


def test_later_writes_vouch_for_the_entries_of_earlier_terms(trio: Cluster) -> None:
    member = trio.members[1]
    member.disk_is_stuck = True
    trio.deliver(Message(MessageKind.APPEND, 1, 2, 2, 1, BASE_INDEX, entries=(Entry(2, FIRST),)))
    trio.deliver(Message(MessageKind.HEARTBEAT, 1, 3, 3))

    member.disk_is_stuck = False
    member.write()

    assert trio[1].log.unstable.entries == []


def test_only_stored_entries_are_applied(trio: Cluster) -> None:
    member = trio.members[1]
    member.disk_is_stuck = True
    entry = Entry(2, FIRST, data=b"x")
    trio.deliver(Message(MessageKind.APPEND, 1, 2, 2, 1, BASE_INDEX, FIRST, (entry,)))
    assert member.values == []

    member.disk_is_stuck = False
    member.write()
    trio.settle()

    assert member.values == [b"x"]


def test_events_tell_what_happened(trio: Cluster) -> None:
    trio.elect(1)

    assert BecameLeader(2) in trio.members[1].events


def test_the_status_of_a_leader_names_every_member_in_order(trio: Cluster) -> None:
    trio.elect(2)
    trio.tick(HEARTBEAT_TICKS, 2)
    trio.settle()

    status = trio[2].status()

    assert (status.role, status.leader, status.term) == (Role.LEADER, 2, 2)
    assert [(peer.id, peer.state, peer.match) for peer in status.peers] == [(i, "replicate", FIRST) for i in (1, 2, 3)]
    assert trio[1].status().peers == ()


def test_a_node_that_stalled_waits_longer_before_it_blames_the_leader(trio: Cluster) -> None:
    trio[1].handicap_ticks = 5

    trio.tick(14, 1)
    assert trio.take(MessageKind.PRE_VOTE) == []

    trio.tick(1, 1)
    assert trio.take(MessageKind.PRE_VOTE) != []
