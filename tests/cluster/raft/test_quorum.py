"""Majorities and joint majorities: known cases, and agreement with a second way of counting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.cluster.raft import quorum
from conclave.cluster.raft.quorum import UNLIMITED_INDEX, VoteResult

ids = st.integers(1, 9)
groups = st.frozensets(ids, max_size=7)
held = st.dictionaries(ids, st.integers(0, 20))
ballots = st.dictionaries(ids, st.booleans())


def committed_by_trying(voters: frozenset[int], indexes: dict[int, int]) -> int:
    """Return the highest index that more than half of the voters hold, by trying each that anybody holds."""
    if not voters:
        return UNLIMITED_INDEX
    tried = sorted({indexes.get(voter, 0) for voter in voters} | {0}, reverse=True)
    return next(i for i in tried if 2 * sum(indexes.get(voter, 0) >= i for voter in voters) > len(voters) or i == 0)


@given(voters=groups, indexes=held)
def test_two_ways_of_counting_agree(voters: frozenset[int], indexes: dict[int, int]) -> None:
    assert quorum.committed_index(voters, indexes) == committed_by_trying(voters, indexes)


@given(voters=groups, indexes=held)
def test_a_group_joint_with_itself_or_with_nobody_decides_as_it_does_alone(
    voters: frozenset[int], indexes: dict[int, int]
) -> None:
    alone = quorum.committed_index(voters, indexes)

    assert quorum.joint_committed_index(voters, voters, indexes) == alone
    assert quorum.joint_committed_index(voters, frozenset(), indexes) == alone
    assert quorum.joint_committed_index(frozenset(), voters, indexes) == alone


@given(one=groups, other=groups, indexes=held)
def test_the_halves_of_a_joint_group_are_equal(
    one: frozenset[int], other: frozenset[int], indexes: dict[int, int]
) -> None:
    joint = quorum.joint_committed_index(one, other, indexes)

    assert joint == quorum.joint_committed_index(other, one, indexes)
    assert joint == min(quorum.committed_index(one, indexes), quorum.committed_index(other, indexes))


@given(one=groups, other=groups, indexes=held, more=held)
def test_more_copies_never_take_a_commit_back(
    one: frozenset[int], other: frozenset[int], indexes: dict[int, int], more: dict[int, int]
) -> None:
    later = {voter: max(indexes.get(voter, 0), more.get(voter, 0)) for voter in {*indexes, *more}}

    assert quorum.joint_committed_index(one, other, later) >= quorum.joint_committed_index(one, other, indexes)


@given(one=groups, other=groups, votes=ballots)
def test_an_election_is_won_when_a_commit_by_the_same_members_would_be_one(
    one: frozenset[int], other: frozenset[int], votes: dict[int, bool]
) -> None:
    indexes = {voter: int(granted) for voter, granted in votes.items()}
    result = quorum.joint_vote_result(one, other, votes)

    assert (result is VoteResult.WON) is (quorum.joint_committed_index(one, other, indexes) >= 1)


@given(voters=groups, votes=ballots)
def test_an_election_is_lost_when_the_missing_votes_could_not_win_it(
    voters: frozenset[int], votes: dict[int, bool]
) -> None:
    best = {voter: votes.get(voter, True) for voter in voters}

    is_lost = quorum.vote_result(voters, votes) is VoteResult.LOST
    assert is_lost is (quorum.vote_result(voters, best) is VoteResult.LOST)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ({}, VoteResult.PENDING),
        ({1: True, 2: True}, VoteResult.PENDING),  # one half is won, the other has not answered
        ({1: True, 2: True, 4: True, 5: True}, VoteResult.WON),
        ({1: True, 2: True, 4: False, 5: False}, VoteResult.LOST),
    ],
)
def test_a_joint_election_needs_both_halves(votes: dict[int, bool], expected: VoteResult) -> None:
    assert quorum.joint_vote_result((1, 2, 3), (4, 5, 6), votes) is expected
