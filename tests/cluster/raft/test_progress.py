"""What a leader knows of one peer: probe, replicate, snapshot, and the window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.cluster.raft.progress import Inflights, Progress, ProgressState


def progress(match: int = 5, next_index: int = 6, *, messages: int = 4, size: int = 2**62) -> Progress:
    return Progress(next_index, Inflights(messages, size), match=match)


# -- the window --


def test_a_window_is_full_at_its_number_of_messages() -> None:
    window = Inflights(2, 1000)
    window.add(1, 10)
    assert not window.is_full

    window.add(2, 10)

    assert window.is_full


def test_a_window_is_full_when_a_message_crosses_its_bytes() -> None:
    window = Inflights(100, 100)
    fullness = []
    for index in (1, 2):
        window.add(index, 99)
        fullness.append(window.is_full)
    window.free_up_to(1)
    fullness.append(window.is_full)

    assert fullness == [False, True, False]


def test_an_answer_frees_all_messages_up_to_its_index() -> None:
    window = Inflights(10, 1000)
    for index in (3, 6, 9):
        window.add(index, 1)

    window.free_up_to(2)
    assert len(window) == 3
    window.free_up_to(7)
    assert len(window) == 1
    window.reset()
    assert len(window) == 0


@given(sizes=st.lists(st.integers(0, 50), max_size=30), freed=st.integers(0, 40))
def test_a_window_counts_what_is_in_it(sizes: list[int], freed: int) -> None:
    window = Inflights(5, 100)
    model: list[tuple[int, int]] = []
    for index, size in enumerate(sizes, 1):
        if len(model) >= 5 or sum(s for _, s in model) >= 100:
            assert window.is_full
            window.free_up_to(index - 3)
            model = [entry for entry in model if entry[0] > index - 3]
        if not window.is_full:
            window.add(index, size)
            model.append((index, size))
    window.free_up_to(freed)

    assert len(window) == len([entry for entry in model if entry[0] > freed])


# -- states --


def test_a_probe_sends_one_message_and_waits() -> None:
    peer = progress()

    peer.sent_entries(3, 30)

    assert peer.is_paused
    assert peer.next == 6


def test_an_empty_probe_does_not_wait() -> None:
    peer = progress()

    peer.sent_entries(0, 0)

    assert not peer.is_paused


def test_replication_runs_ahead_until_the_window_is_full() -> None:
    peer = progress(messages=2)
    peer.become_replicate()

    peer.sent_entries(3, 30)
    assert (peer.next, peer.is_paused) == (9, False)

    peer.sent_entries(2, 20)
    assert (peer.next, peer.is_paused) == (11, True)


def test_an_empty_message_does_not_open_a_full_window() -> None:
    peer = progress(messages=1)
    peer.become_replicate()
    peer.sent_entries(1, 1)

    peer.sent_entries(0, 0)

    assert peer.is_paused


def test_a_snapshot_stops_everything() -> None:
    peer = progress()

    peer.become_snapshot(20)

    assert peer.is_paused
    assert (peer.next, peer.pending_snapshot) == (21, 20)


@pytest.mark.parametrize(("match", "expected"), [(5, 21), (30, 31)])
def test_after_a_snapshot_is_probed_behind_it_or_behind_what_is_known_to_match(match: int, expected: int) -> None:
    peer = progress(match, match + 1)
    peer.become_snapshot(20)

    peer.become_probe()

    assert (peer.next, peer.pending_snapshot) == (expected, 0)


def test_a_snapshot_that_failed_leaves_nothing_behind() -> None:
    peer = progress()
    peer.become_snapshot(20)
    peer.pending_snapshot = 0

    peer.become_probe()

    assert peer.next == 6


@pytest.mark.parametrize(
    ("index", "news", "match", "next_index"), [(4, False, 5, 9), (5, False, 5, 9), (6, True, 6, 9), (12, True, 12, 13)]
)
def test_an_answer_moves_match_and_next_forward_only(index: int, news: bool, match: int, next_index: int) -> None:
    peer = progress(5, 9)

    assert peer.maybe_update(index) is news
    assert (peer.match, peer.next) == (match, next_index)


@pytest.mark.parametrize(
    ("rejected", "hint", "moved", "next_index"),
    [
        (8, 8, True, 8),  # the probe was refused: one back
        (8, 6, True, 7),  # or as far as the follower says
        (8, 2, True, 6),  # but never behind the match
        (7, 2, False, 9),  # an answer to an earlier probe
        (9, 2, False, 9),  # or to something never asked
    ],
)
def test_a_refusal_moves_a_probe_back_if_it_answers_the_last_one(
    rejected: int, hint: int, moved: bool, next_index: int
) -> None:
    peer = progress(5, 9)

    assert peer.maybe_decrease(rejected, hint) is moved
    assert peer.next == next_index


@pytest.mark.parametrize(("rejected", "moved", "next_index"), [(5, False, 9), (4, False, 9), (7, True, 6)])
def test_a_refusal_in_replication_falls_back_to_the_match(rejected: int, moved: bool, next_index: int) -> None:
    peer = progress(5, 9)
    peer.state = ProgressState.REPLICATE

    assert peer.maybe_decrease(rejected, rejected) is moved
    assert peer.next == next_index


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["update", "decrease", "sent", "probe", "replicate", "snapshot"]), st.integers(0, 30)
        ),
        max_size=40,
    )
)
def test_match_stays_below_next_and_never_falls(steps: list[tuple[str, int]]) -> None:
    peer = progress(0, 1, messages=3)
    matched = 0
    for what, number in steps:
        if what == "update":
            peer.maybe_update(number)
        elif what == "decrease":
            peer.maybe_decrease(number, max(0, number - 2))
        elif what == "sent" and not peer.is_paused:
            peer.sent_entries(number % 4, number)
        elif what == "probe":
            peer.become_probe()
        elif what == "replicate":
            peer.become_replicate()
        elif what == "snapshot":
            peer.become_snapshot(max(number, peer.match))

        assert matched <= peer.match < peer.next
        matched = peer.match


def test_the_commit_index_is_sent_again_only_if_it_may_be_news() -> None:
    peer = progress(5, 9)
    peer.sent_commit = 6

    assert not peer.may_lack_commit(6)
    assert peer.may_lack_commit(7)
    peer.sent_commit = 8
    assert not peer.may_lack_commit(9)
