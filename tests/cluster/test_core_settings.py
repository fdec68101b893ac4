"""What a core is told when it begins."""

from random import Random

from conclave.cluster.core_settings import core_settings
from conclave.cluster.raft import (
    ConfState,
    HardState,
    MemoryStorage,
    Message,
    MessageKind,
    Raft,
    Snapshot,
    SnapshotMeta,
)
from conclave.cluster.timing import LEASE_TICKS


def test_a_core_that_begins_behaves_as_if_it_had_just_promised_a_leader_its_loyalty() -> None:
    storage = MemoryStorage(Snapshot(SnapshotMeta(1, 1, ConfState((1, 2, 3)))))
    storage.set_hard_state(HardState(1, 0, 1))
    raft = Raft(core_settings(1, 1), storage, Random(1))
    question = Message(MessageKind.VOTE, 1, 2, term=2, index=1, log_term=1)

    raft.step(question)
    early = raft.vote
    for _ in range(LEASE_TICKS):
        raft.tick()
    raft.step(question)

    assert (early, raft.vote) == (0, 2)
