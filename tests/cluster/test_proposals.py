"""The batch of a turn: indexes that are known at once, and a limit to what waits."""

import pytest

from conclave.cluster.errors import Overloaded
from conclave.cluster.proposals import UNCOMMITTED_BYTES_MAX, UNCOMMITTED_ENTRIES_MAX, Proposals
from conclave.cluster.raft import NO_LIMIT, Raft
from conclave.cluster.replica import Ticket
from tests.cluster.raft.harness import Cluster


def leader() -> Raft:
    cluster = Cluster(3)
    cluster.elect(1)
    return cluster[1]


def test_an_index_is_known_before_its_entry_is_appended() -> None:
    raft = leader()
    proposals, last = Proposals(raft), raft.last_index

    tickets = [proposals.add(data, last) for data in (b"one", b"two")]
    proposals.flush()

    assert tickets == [Ticket(raft.term, last + 1), Ticket(raft.term, last + 2)]
    assert [entry.data for entry in raft.log.slice(last + 1, last + 3, NO_LIMIT)] == [b"one", b"two"]
    assert not proposals


def test_bytes_that_wait_are_bounded() -> None:
    raft = leader()
    proposals = Proposals(raft)
    large = bytes(UNCOMMITTED_BYTES_MAX // 2)
    proposals.add(large, raft.last_index)
    proposals.flush()
    proposals.add(bytes(len(large) - 1024), raft.last_index)

    with pytest.raises(Overloaded):
        proposals.add(bytes(2048), raft.last_index)

    assert proposals.add(b"small", raft.last_index).index == raft.last_index + 2


def test_entries_that_wait_are_bounded() -> None:
    raft = leader()
    proposals = Proposals(raft)
    applied_index = raft.last_index + 1 - UNCOMMITTED_ENTRIES_MAX

    proposals.add(b"", applied_index)

    with pytest.raises(Overloaded):
        proposals.add(b"", applied_index)


def test_what_a_core_refuses_is_dropped() -> None:
    follower = Cluster(3)[2]
    proposals, last = Proposals(follower), follower.last_index
    proposals.add(b"one", last)

    proposals.flush()

    assert not proposals
    assert follower.last_index == last
