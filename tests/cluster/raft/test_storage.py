"""The log in memory keeps the rules that every log storage must keep."""

import pytest

from conclave.cluster.raft import (
    NO_LIMIT,
    Compacted,
    ConfState,
    Entry,
    HardState,
    MemoryStorage,
    Snapshot,
    SnapshotMeta,
    SnapshotTemporarilyUnavailable,
    Unavailable,
)

STATE = ConfState((1, 2, 3))


@pytest.fixture
def storage() -> MemoryStorage:
    """A log of 11 to 15 behind a snapshot of 10."""
    log = MemoryStorage(Snapshot(SnapshotMeta(10, 2, STATE), b"state"))
    log.append([Entry(3, index) for index in range(11, 16)])
    return log


def test_a_fresh_log_is_empty_and_knows_nothing() -> None:
    log = MemoryStorage()

    assert (log.first_index(), log.last_index(), log.term(0)) == (1, 0, 0)
    assert log.initial_state() == (HardState(), ConfState())


def test_a_log_behind_a_snapshot_knows_the_term_before_its_first_entry(storage: MemoryStorage) -> None:
    assert (storage.first_index(), storage.last_index()) == (11, 15)
    assert storage.term(10) == 2
    with pytest.raises(Compacted):
        storage.term(9)
    with pytest.raises(Unavailable):
        storage.term(16)


def test_entries_outside_the_log_are_told_apart(storage: MemoryStorage) -> None:
    with pytest.raises(Compacted):
        storage.entries(10, 12, NO_LIMIT)
    with pytest.raises(Unavailable):
        storage.entries(11, 17, NO_LIMIT)


def test_at_least_one_entry_comes_however_small_the_limit(storage: MemoryStorage) -> None:
    assert [e.index for e in storage.entries(11, 16, 0)] == [11]


def test_an_append_cuts_what_it_replaces_and_ignores_what_is_compacted(storage: MemoryStorage) -> None:
    storage.append([Entry(4, index) for index in range(9, 13)])

    assert storage.last_index() == 12
    assert storage.term(10) == 2
    assert storage.term(12) == 4


def test_a_gap_is_a_fault_of_ours(storage: MemoryStorage) -> None:
    with pytest.raises(AssertionError, match="gap"):
        storage.append([Entry(4, 17)])


def test_an_older_snapshot_is_ignored(storage: MemoryStorage) -> None:
    storage.apply_snapshot(Snapshot(SnapshotMeta(9, 1)))

    assert storage.last_index() == 15


def test_a_newer_snapshot_replaces_everything(storage: MemoryStorage) -> None:
    storage.apply_snapshot(Snapshot(SnapshotMeta(20, 5, STATE)))

    assert (storage.first_index(), storage.last_index(), storage.term(20)) == (21, 20, 5)


def test_a_compaction_keeps_the_term_before_the_first_entry(storage: MemoryStorage) -> None:
    storage.create_snapshot(13, STATE)
    storage.compact(13)

    assert (storage.first_index(), storage.term(13)) == (14, 3)
    with pytest.raises(Compacted):
        storage.compact(13)


def test_a_log_that_was_cut_behind_its_newest_snapshot_has_none_to_send(storage: MemoryStorage) -> None:
    storage.compact(13)

    with pytest.raises(SnapshotTemporarilyUnavailable):
        storage.snapshot()
