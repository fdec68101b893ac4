"""What has been applied: where it begins, when an entry counts, and what a membership change does."""

import pytest

from conclave.cluster.applied import AppliedLog
from conclave.cluster.membership import Member, MembershipRecord, change_for, decode_record, encode_record
from conclave.cluster.raft import (
    ConfChangeKind,
    ConfChangeV2,
    ConfState,
    CorruptLog,
    Entry,
    Raft,
    Role,
    encode_conf_change,
)
from conclave.cluster.replica import Ticket
from conclave.storage.memory import MemoryLog, MemoryState
from tests.cluster.cluster_of_nodes import FakeMachine
from tests.cluster.raft.harness import Cluster

RECORD = MembershipRecord(
    conf_state=ConfState(voters=(1, 2, 3)),
    members=tuple(Member(i, f"node-{i}", f"{i}:1", "", b"i" * 16) for i in (1, 2, 3)),
)
NEW = Member(4, "node-4", "4:1", "", b"i" * 16)


class Follower:
    """What one core and one machine make of entries; changes are noted with the index that counted as applied then."""

    def __init__(self, raft_id: int = 1) -> None:
        self.machine = FakeMachine(MemoryState())
        self.machine.membership = encode_record(RECORD)
        self.changes: list[tuple[ConfChangeV2, int]] = []
        self.applied = AppliedLog(
            raft_id, self.machine, lambda change: self.changes.append((change, self.applied.index))
        )
        self.applied.begin(MemoryLog())


def leader() -> Raft:
    cluster = Cluster(3)
    cluster.elect(1)
    return cluster[1]


def entry_for(index: int, change: ConfChangeV2) -> Entry:
    kind, data = encode_conf_change(change)
    return Entry(1, index, kind, data)


def test_a_state_that_is_ahead_of_its_log_is_refused() -> None:
    machine = FakeMachine(MemoryState())
    machine.applied = (5, 1)

    with pytest.raises(CorruptLog, match="entry 5"):
        AppliedLog(1, machine, lambda _: None).begin(MemoryLog())


def test_entries_are_handed_on_in_order() -> None:
    follower = Follower()

    follower.applied.apply(leader(), [Entry(1, 1, data=b"one"), Entry(2, 2, data=b"two")])

    assert follower.machine.datas == [b"one", b"two"]
    assert (follower.applied.index, follower.applied.term) == (2, 2)


def test_a_member_that_comes_is_on_record_before_others_hear_of_it() -> None:
    follower, change = Follower(), change_for(ConfChangeKind.ADD_LEARNER, NEW)

    follower.applied.apply(leader(), [entry_for(1, change)])

    assert [(seen.changes, index) for seen, index in follower.changes] == [(change.changes, 0)]
    assert follower.applied.record.member(4) == NEW
    assert decode_record(follower.machine.membership) == follower.applied.record
    assert (follower.applied.last_change, follower.applied.last_addition) == (Ticket(1, 1), 1)


def test_an_impossible_change_changes_nothing_but_has_its_index() -> None:
    follower = Follower()
    raft = Cluster(1)[1]
    change = change_for(ConfChangeKind.REMOVE, RECORD.members[0])

    follower.applied.apply(raft, [entry_for(1, change)])

    assert follower.applied.record == RECORD
    assert (follower.applied.index, follower.applied.last_change) == (1, Ticket(1, 1))
    assert len(follower.changes) == 1


def test_a_leader_that_is_removed_leads_no_more() -> None:
    follower, raft = Follower(), leader()

    follower.applied.apply(raft, [entry_for(1, change_for(ConfChangeKind.REMOVE, RECORD.members[0]))])

    assert raft.role is not Role.LEADER
    assert follower.applied.record.removed == (1,)
