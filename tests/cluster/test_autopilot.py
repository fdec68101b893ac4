"""Who is healthy, and who is promoted when."""

import pytest

from conclave.cluster.autopilot import CAUGHT_UP_ENTRIES, Observation, choose_promotion, is_healthy
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
) -> Observation:
    return Observation(raft_id, is_voter, may_vote, match, last_contact_seconds, healthy_seconds)


ONE_VOTER = [member(1, is_voter=True)]
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
