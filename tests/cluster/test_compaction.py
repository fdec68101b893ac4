"""How far the log may be cut."""

from hypothesis import given
from hypothesis.strategies import builds, integers, lists, none, one_of, tuples

from conclave.cluster.compaction import HARD_CAP_ENTRIES, LogFacts, Trail, compaction_index

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


def test_a_small_cut_is_not_worth_it() -> None:
    facts = LogFacts(first=19_900, last=30_000, durable=30_000)

    assert compaction_index(facts, trailing_entries=10_000) is None


@given(builds(LogFacts, index, index, index, index, lists(index, max_size=3).map(tuple), one_of(none(), index)))
def test_nothing_is_ever_cut_that_the_state_does_not_hold(facts: LogFacts) -> None:
    found = compaction_index(facts)

    assert found is None or facts.first <= found <= facts.durable


def test_the_trail_by_bytes_begins_behind_what_is_too_much() -> None:
    trail = Trail(trailing_bytes=3 << 20)

    for number in range(1, 11):
        trail.appended(number, [1 << 20])

    assert trail.first == 8


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
