"""How far the log may be cut."""

import pytest
from hypothesis import given
from hypothesis.strategies import builds, integers, lists, none, one_of, tuples
from msgspec import structs

from conclave.cluster.compaction import CUT_ENTRIES_MIN, HARD_CAP_ENTRIES, LogFacts, Trail, compaction_index
from conclave.cluster.persistence import newest_sizes
from conclave.storage.memory import MemoryLog

index = integers(0, 2_000_000)


def test_a_trail_of_entries_is_kept() -> None:
    facts = LogFacts(first=1, last=30_000, durable=30_000)

    assert compaction_index(facts, trailing_entries=10_000) == 20_000


def test_what_the_state_does_not_hold_is_kept() -> None:
    facts = LogFacts(first=1, last=30_000, durable=5_000)

    assert compaction_index(facts, trailing_entries=10_000) == 5_000


def test_what_an_active_peer_lacks_is_kept() -> None:
    facts = LogFacts(first=1, last=30_000, durable=30_000, matches=(30_000, 7_000))

    assert compaction_index(facts, trailing_entries=10_000) == 7_000


def test_what_a_snapshot_under_way_goes_on_with_is_kept() -> None:
    facts = LogFacts(first=1, last=30_000, durable=30_000, pinned=9_000)

    assert compaction_index(facts, trailing_entries=10_000) == 9_000


def test_a_trail_of_large_entries_is_shorter() -> None:
    facts = LogFacts(first=1, last=30_000, durable=30_000, trail=29_000)

    assert compaction_index(facts, trailing_entries=10_000) == 28_999


def test_beyond_the_hard_cap_peers_and_snapshots_count_for_nothing() -> None:
    last = HARD_CAP_ENTRIES + 40_000
    facts = LogFacts(first=1, last=last, durable=last, matches=(10,), pinned=10)

    assert compaction_index(facts) == 40_000


def test_beyond_the_hard_cap_of_bytes_peers_and_snapshots_count_for_nothing() -> None:
    facts = LogFacts(first=1, last=30_000, durable=25_000, cap=20_001, matches=(10,), pinned=10)

    assert compaction_index(facts) == 20_000
    assert compaction_index(structs.replace(facts, durable=19_000)) == 19_000


def test_a_small_cut_is_not_worth_it() -> None:
    facts = LogFacts(first=19_900, last=30_000, durable=30_000)

    assert compaction_index(facts, trailing_entries=10_000) is None


@given(builds(LogFacts, index, index, index, index, index, lists(index, max_size=3).map(tuple), one_of(none(), index)))
def test_nothing_is_ever_cut_that_the_state_does_not_hold(facts: LogFacts) -> None:
    found = compaction_index(facts)

    assert found is None or facts.first <= found <= facts.durable


def test_the_trail_by_bytes_begins_behind_what_is_too_much() -> None:
    trail = Trail(trailing_bytes=3 << 20)

    for number in range(1, 11):
        trail.appended(number, [1 << 20])

    assert trail.first == 8


def test_the_cap_by_bytes_begins_behind_what_is_too_much() -> None:
    trail = Trail(trailing_bytes=1 << 20, cap_bytes=4 << 20)
    assert trail.cap == 0

    for number in range(1, 11):
        trail.appended(number, [1 << 20])

    assert (trail.first, trail.cap) == (10, 7)


def test_a_short_log_belongs_to_the_trail_wholly() -> None:
    trail = Trail()

    trail.appended(5, [100] * 5)

    assert trail.first == 0


@given(lists(tuples(integers(1, 20), integers(0, 1 << 20)), max_size=60))
def test_what_is_behind_the_trail_by_bytes_is_at_least_its_size(batches: list[tuple[int, int]]) -> None:
    trail = Trail(trailing_bytes=2 << 20)
    sizes: list[int] = []

    for count, size in batches:
        sizes += [size] * count
        trail.appended(len(sizes), [size] * count)

    if trail.first:
        assert sum(sizes[trail.first - 1 :]) >= 2 << 20


@pytest.mark.parametrize(
    ("trailing_entries", "trailing_bytes"), [(1_000, 64 << 20), (10_000, 2 << 20)], ids=["entries", "bytes"]
)
def test_bug_b67_a_log_is_bounded_however_often_its_process_restarts(
    trailing_entries: int, trailing_bytes: int
) -> None:
    # Each life appends less than what is worth a cut, and than what is kept.
    log, value = MemoryLog(), bytes(8 << 10)
    entries_max = 1_000 + CUT_ENTRIES_MIN

    for _ in range(40):
        trail = Trail(trailing_bytes)
        for index, size in newest_sizes(log, entries_max=trailing_entries, bytes_max=trailing_bytes):
            trail.appended(index, (size,))
        for index in range(log.last_index + 1, log.last_index + 101):
            log.append(None, [(1, index, 0, value)])
            trail.appended(index, (len(value),))
        facts = LogFacts(log.first_index, log.last_index, log.last_index, trail.first)
        log.compact(compaction_index(facts, trailing_entries=trailing_entries) or log.first_index - 1)

    assert log.last_index - log.first_index < entries_max
