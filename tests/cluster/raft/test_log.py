"""The log as the core sees it, against what it must do and against a naive model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.cluster.raft import (
    NO_LIMIT,
    Compacted,
    CorruptLog,
    Entry,
    EntryKind,
    MemoryStorage,
    Snapshot,
    SnapshotMeta,
    Unavailable,
)
from conclave.cluster.raft.log import RaftLog, Unstable


def entries(first: int, *terms: int) -> list[Entry]:
    return [Entry(term, first + i) for i, term in enumerate(terms)]


def log_of(*terms: int, stored: int | None = None, budget: int = NO_LIMIT, apply_unstable: bool = False) -> RaftLog:
    """Return a log of these terms, the first `stored` of them (all by default) durable."""
    storage = MemoryStorage()
    count = len(terms) if stored is None else stored
    storage.append(entries(1, *terms[:count]))
    log = RaftLog(storage, budget, apply_unstable=apply_unstable)
    if terms[count:]:
        log.append(entries(count + 1, *terms[count:]))
    return log


def terms_of(log: RaftLog) -> list[int]:
    return [log.term(index) for index in range(log.first_index(), log.last_index() + 1)]


# -- the unstable tail --


def test_entries_at_the_end_are_appended_to_the_tail() -> None:
    tail = Unstable(5)
    tail.truncate_and_append(entries(5, 1, 1))
    tail.accept_in_progress()

    tail.truncate_and_append(entries(7, 2))

    assert [e.index for e in tail.entries] == [5, 6, 7]
    assert [e.index for e in tail.next_entries()] == [7]


def test_entries_before_the_tail_replace_all_of_it_and_are_handed_out_again() -> None:
    tail = Unstable(5)
    tail.truncate_and_append(entries(5, 1, 1))
    tail.accept_in_progress()

    tail.truncate_and_append(entries(4, 2, 2))

    assert tail.offset == 4
    assert [(e.index, e.term) for e in tail.next_entries()] == [(4, 2), (5, 2)]


def test_entries_within_the_tail_cut_it_and_only_they_are_handed_out_again() -> None:
    tail = Unstable(5)
    tail.truncate_and_append(entries(5, 1, 1, 1))
    tail.accept_in_progress()

    tail.truncate_and_append(entries(6, 2))

    assert [(e.index, e.term) for e in tail.entries] == [(5, 1), (6, 2)]
    assert [(e.index, e.term) for e in tail.next_entries()] == [(6, 2)]


def test_what_is_stored_leaves_the_tail() -> None:
    tail = Unstable(5)
    tail.truncate_and_append(entries(5, 1, 1, 1))
    tail.accept_in_progress()

    tail.stable_to(6, 1)

    assert [e.index for e in tail.entries] == [7]
    assert tail.offset == 7


@pytest.mark.parametrize(("index", "term"), [(5, 2), (4, 1), (9, 1)])
def test_an_answer_of_the_storage_about_another_entry_changes_nothing(index: int, term: int) -> None:
    tail = Unstable(5)
    tail.truncate_and_append(entries(5, 1, 1, 1))

    tail.stable_to(index, term)

    assert [e.index for e in tail.entries] == [5, 6, 7]


def test_a_snapshot_replaces_the_tail_and_is_handed_out_once() -> None:
    tail = Unstable(5)
    tail.truncate_and_append(entries(5, 1, 1))
    snapshot = Snapshot(SnapshotMeta(9, 3))

    tail.restore(snapshot)

    assert (tail.first_index(), tail.last_index(), tail.term(9)) == (10, 9, 3)
    assert tail.next_snapshot() is snapshot
    tail.accept_in_progress()
    assert tail.next_snapshot() is None
    tail.stable_snapshot_to(8)
    assert tail.snapshot is snapshot
    tail.stable_snapshot_to(9)
    assert tail.snapshot is None


# -- stored and unstable as one --


@pytest.mark.parametrize("stored", range(6))
def test_where_the_stored_part_ends_makes_no_difference(stored: int) -> None:
    log = log_of(1, 1, 2, 3, 3, stored=stored)

    assert terms_of(log) == [1, 1, 2, 3, 3]
    assert log.last_index() == 5
    assert log.last_term() == 3
    assert [e.index for e in log.entries(2, NO_LIMIT)] == [2, 3, 4, 5]
    assert [e.index for e in log.slice(2, 5, NO_LIMIT)] == [2, 3, 4]


@pytest.mark.parametrize("stored", range(6))
def test_a_limit_cuts_entries_but_lets_one_pass(stored: int) -> None:
    log = log_of(1, 1, 2, 3, 3, stored=stored)

    assert [e.index for e in log.entries(1, 0)] == [1]
    assert [e.index for e in log.entries(1, 40)] == [1, 2]


def test_terms_beyond_the_log_are_told_apart_from_those_that_are_gone() -> None:
    storage = MemoryStorage(Snapshot(SnapshotMeta(10, 4)))
    storage.append(entries(11, 5))
    log = RaftLog(storage, NO_LIMIT, apply_unstable=False)

    assert log.term(10) == 4
    with pytest.raises(Compacted):
        log.term(9)
    with pytest.raises(Unavailable):
        log.term(12)
    with pytest.raises(Compacted):
        log.entries(10, NO_LIMIT)
    assert log.entries(12, NO_LIMIT) == ()


# -- taking over a leader's entries --


def test_an_append_behind_an_entry_that_is_missing_is_refused() -> None:
    log = log_of(1, 2)

    assert log.maybe_append(2, 3, entries(3, 3), 0) is None
    assert log.maybe_append(3, 3, entries(4, 3), 0) is None
    assert terms_of(log) == [1, 2]


def test_an_append_that_is_equal_and_shorter_does_not_cut() -> None:
    log = log_of(1, 2, 2, 2)

    assert log.maybe_append(1, 1, entries(2, 2), 0) == 2
    assert terms_of(log) == [1, 2, 2, 2]


def test_an_append_replaces_from_the_first_conflict_on() -> None:
    log = log_of(1, 2, 2, 2)

    assert log.maybe_append(1, 1, entries(2, 2, 3), 0) == 3
    assert terms_of(log) == [1, 2, 3]


def test_the_commit_index_goes_no_further_than_the_message() -> None:
    log = log_of(1, 1, 1, 1)

    log.maybe_append(1, 1, entries(2, 1), 4)

    assert log.committed == 2


def test_the_commit_index_never_falls() -> None:
    log = log_of(1, 1, 1)
    log.commit_to(3)

    log.commit_to(1)
    log.maybe_append(1, 1, (), 1)

    assert log.committed == 3


def test_a_commit_beyond_the_log_means_that_entries_were_lost() -> None:
    with pytest.raises(CorruptLog, match="acknowledged entries were lost"):
        log_of(1).commit_to(2)


def test_a_leader_that_contradicts_a_committed_entry_is_not_obeyed() -> None:
    log = log_of(1, 1)
    log.commit_to(2)

    with pytest.raises(CorruptLog, match="conflicts"):
        log.maybe_append(1, 1, entries(2, 9), 0)


@pytest.mark.parametrize(
    ("index", "term", "expected"),
    [(5, 3, (5, 3)), (5, 2, (4, 2)), (5, 1, (1, 1)), (5, 0, (0, 0)), (3, 9, (3, 2)), (9, 3, (9, 0))],
)
def test_the_search_for_a_common_entry_skips_whole_terms(index: int, term: int, expected: tuple[int, int]) -> None:
    assert log_of(1, 2, 2, 2, 3).find_conflict_by_term(index, term) == expected


@pytest.mark.parametrize(
    ("index", "term", "expected"),
    [(3, 2, True), (4, 2, True), (2, 2, False), (1, 3, True), (9, 1, False)],
)
def test_a_log_is_as_good_as_ours_by_term_and_then_by_length(index: int, term: int, expected: bool) -> None:
    assert log_of(1, 2, 2).is_up_to_date(index, term) is expected


# -- applying --


def test_only_what_is_stored_is_applied() -> None:
    log = log_of(1, 1, 1, stored=1)
    log.commit_to(3)

    assert [e.index for e in log.next_committed_entries()] == [1]


def test_a_driver_that_stores_before_it_applies_gets_unstable_entries_too() -> None:
    log = log_of(1, 1, 1, stored=1, apply_unstable=True)
    log.commit_to(3)

    assert [e.index for e in log.next_committed_entries()] == [1, 2, 3]


def test_entries_are_handed_out_once() -> None:
    log = log_of(1, 1, 1)
    log.commit_to(2)
    log.accept_applying(log.next_committed_entries())

    assert log.next_committed_entries() == ()
    assert not log.has_next_committed_entries()
    log.commit_to(3)
    assert [e.index for e in log.next_committed_entries()] == [3]


def test_what_is_being_applied_is_bounded() -> None:
    log = log_of(1, 1, 1, budget=32)
    log.commit_to(3)
    first = log.next_committed_entries()
    log.accept_applying(first)
    assert [e.index for e in first] == [1, 2]
    assert log.next_committed_entries() == ()

    log.applied_to(2, 32)

    assert [e.index for e in log.next_committed_entries()] == [3]


def test_nothing_is_applied_while_a_snapshot_waits_to_be_installed() -> None:
    log = log_of(1, 1, 1)
    log.commit_to(3)
    log.restore(Snapshot(SnapshotMeta(9, 2)))

    assert log.next_committed_entries() == ()
    assert not log.has_next_committed_entries()


@pytest.mark.parametrize("applied", [0, 1, 2, 3])
def test_a_committed_change_that_is_not_applied_is_found(applied: int) -> None:
    storage = MemoryStorage()
    storage.append([Entry(1, 1), Entry(1, 2), Entry(1, 3, EntryKind.CONF_CHANGE_V2), Entry(1, 4)])
    log = RaftLog(storage, 1, apply_unstable=False)
    log.commit_to(4)
    log.applied_to(applied, 0)

    assert log.has_unapplied_conf_change() is (applied < 3)


def test_a_change_that_is_not_committed_is_not_looked_at() -> None:
    storage = MemoryStorage()
    storage.append([Entry(1, 1), Entry(1, 2, EntryKind.CONF_CHANGE_V2)])
    log = RaftLog(storage, 1, apply_unstable=False)
    log.commit_to(1)

    assert not log.has_unapplied_conf_change()


# -- against a naive model --


@st.composite
def appends(draw: st.DrawFn) -> list[tuple[int, list[int], bool]]:
    """Draw writes as (how far back from the end, terms, whether the storage finishes its work afterwards)."""
    one = st.tuples(st.integers(0, 4), st.lists(st.integers(0, 2), min_size=1, max_size=4), st.booleans())
    return draw(st.lists(one, max_size=12))


@given(writes=appends())
def test_a_log_with_a_lazy_storage_is_the_same_as_a_list(writes: list[tuple[int, list[int], bool]]) -> None:
    storage, model = MemoryStorage(), list[int]()
    log = RaftLog(storage, NO_LIMIT, apply_unstable=False)
    for back, steps, finishes in writes:
        first = max(1, len(model) + 1 - back)
        term = model[first - 2] if first > 1 else 1
        terms = [term + step for step in steps]
        log.append(entries(first, *terms))
        model[first - 1 :] = terms
        if finishes:
            handed = list(log.unstable.next_entries())
            log.unstable.accept_in_progress()
            storage.append(handed)
            log.unstable.stable_to(log.last_index(), log.last_term())

        assert terms_of(log) == model
        assert [e.term for e in log.entries(1, NO_LIMIT)] == model
