"""Who is healthy, who is promoted when, and which dead member is removed."""

import pytest
from msgspec import structs

from conclave.cluster.autopilot import CAUGHT_UP_ENTRIES, Observation, choose_promotion, choose_removal, is_healthy
from conclave.cluster.replica import AutopilotRules

RULES = AutopilotRules()


def member(
    raft_id: int,
    *,
    is_voter: bool = False,
    may_vote: bool = True,
    match: int = 1000,
    last_contact_seconds: float | None = 0.1,
    healthy_seconds: float = 0.0,
    silent_seconds: float = 0.0,
) -> Observation:
    return Observation(raft_id, is_voter, may_vote, match, last_contact_seconds, healthy_seconds, silent_seconds)


def dead(raft_id: int, *, is_voter: bool = True, silent_seconds: float = 301.0) -> Observation:
    return member(raft_id, is_voter=is_voter, last_contact_seconds=silent_seconds, silent_seconds=silent_seconds)


ONE_VOTER = [member(1, is_voter=True)]
CLEANUP = AutopilotRules(cleanup_dead_servers=True, min_quorum=3, dead_server_last_contact_threshold_seconds=300.0)
THREE_VOTERS = [member(raft_id, is_voter=True) for raft_id in (1, 2, 3)]


@pytest.mark.parametrize(
    ("match", "contact", "expected"),
    [(1000, 0.0, True), (1000, 10.0, True), (1000, 10.1, False), (1000, None, False), (0, 0.0, True), (-1, 0.0, False)],
)
def test_a_healthy_member_is_heard_and_keeps_up(match: int, contact: float | None, expected: bool) -> None:
    assert is_healthy(RULES, match=match, commit=1000, last_contact_seconds=contact) is expected


def test_a_small_cluster_promotes_at_once() -> None:
    assert choose_promotion(RULES, [*ONE_VOTER, member(9)], commit=1000) == 9


def test_a_cluster_that_can_lose_a_voter_waits_for_stability() -> None:
    young, old = member(9, healthy_seconds=9.9), member(9, healthy_seconds=10.0)

    assert choose_promotion(RULES, [*THREE_VOTERS, young], commit=1000) == 0
    assert choose_promotion(RULES, [*THREE_VOTERS, old], commit=1000) == 9


def test_one_is_promoted_at_a_time_in_order_of_ids() -> None:
    assert choose_promotion(RULES, [member(9), member(8), *ONE_VOTER], commit=1000) == 8


@pytest.mark.parametrize(
    "learner",
    [
        member(9, may_vote=False),
        member(9, match=1000 - CAUGHT_UP_ENTRIES - 1),
        member(9, last_contact_seconds=None),
        member(9, last_contact_seconds=11.0),
    ],
)
def test_who_may_not_does_not_keep_up_or_is_not_heard_stays_a_learner(learner: Observation) -> None:
    assert choose_promotion(RULES, [*ONE_VOTER, learner], commit=1000) == 0


def test_a_learner_that_holds_nothing_yet_is_not_promoted() -> None:
    assert choose_promotion(RULES, [*ONE_VOTER, member(9, match=0)], commit=50) == 0


def test_voters_are_not_promoted_again() -> None:
    assert choose_promotion(RULES, THREE_VOTERS, commit=1000) == 0


def test_the_dead_are_not_removed_unless_that_is_wanted() -> None:
    assert choose_removal(RULES, [*THREE_VOTERS, dead(4)], commit=1000) == 0


def test_a_dead_voter_is_removed_if_three_others_are_left() -> None:
    assert choose_removal(CLEANUP, [*THREE_VOTERS, dead(4)], commit=1000) == 4


def test_no_one_is_dead_before_the_threshold() -> None:
    assert choose_removal(CLEANUP, [*THREE_VOTERS, dead(4, silent_seconds=300.0)], commit=1000) == 0


def test_a_cluster_of_three_never_shrinks() -> None:
    assert choose_removal(CLEANUP, [*THREE_VOTERS[:2], dead(3)], commit=1000) == 0


def test_no_fewer_voters_than_asked_for_are_left() -> None:
    rules = structs.replace(CLEANUP, min_quorum=5)
    five = [member(raft_id, is_voter=True) for raft_id in range(1, 6)]

    assert choose_removal(rules, [*five[:4], dead(5)], commit=1000) == 0
    assert choose_removal(rules, [*five, dead(6)], commit=1000) == 6


def test_nobody_is_removed_if_no_healthy_majority_is_left() -> None:
    members = [*THREE_VOTERS[:2], dead(3), dead(4), dead(5)]

    assert choose_removal(CLEANUP, members, commit=1000) == 0


def test_whoever_has_been_silent_for_longest_goes_first() -> None:
    five = [member(raft_id, is_voter=True) for raft_id in range(1, 6)]

    assert choose_removal(CLEANUP, [*five, dead(6), dead(7, silent_seconds=400.0)], commit=1000) == 7


def test_a_dead_learner_is_removed_from_a_small_cluster_too() -> None:
    assert choose_removal(CLEANUP, [*ONE_VOTER, dead(9, is_voter=False)], commit=1000) == 9
