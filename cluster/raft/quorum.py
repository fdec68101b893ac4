"""Majorities and joint majorities, pure: which index do they hold, and what became of a vote.

A joint configuration needs both halves for everything. An empty half needs nothing: it holds every index and wins every
vote, so that a joint configuration with an empty half is the other half. Learners appear nowhere here.

Source: Ongaro's dissertation, sections 3.5, 3.6 and 4.3; the empty half as in etcd's `quorum` package.
"""

from collections.abc import Collection, Mapping
from enum import Enum
from typing import Final

UNLIMITED_INDEX: Final = 2**64 - 1
"""What an empty majority holds."""


class VoteResult(Enum):
    """State of an election, as far as the votes tell."""

    PENDING = "pending"
    LOST = "lost"
    WON = "won"


def committed_index(voters: Collection[int], held: Mapping[int, int]) -> int:
    """Return the highest index that a majority of `voters` holds; a voter missing from `held` holds nothing.

    `UNLIMITED_INDEX` without voters.
    """
    if not voters:
        return UNLIMITED_INDEX
    indexes = sorted([held.get(voter, 0) for voter in voters])
    return indexes[(len(indexes) - 1) // 2]


def joint_committed_index(incoming: Collection[int], outgoing: Collection[int], held: Mapping[int, int]) -> int:
    """Return the highest index that both majorities hold."""
    if not outgoing:
        return committed_index(incoming, held)
    return min(committed_index(incoming, held), committed_index(outgoing, held))


def vote_result(voters: Collection[int], votes: Mapping[int, bool]) -> VoteResult:
    """Return what a majority of `voters` decided; who is missing from `votes` has not answered."""
    if not voters:
        return VoteResult.WON
    needed = len(voters) // 2 + 1
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    missing = sum(1 for voter in voters if voter not in votes)
    if granted >= needed:
        return VoteResult.WON
    return VoteResult.PENDING if granted + missing >= needed else VoteResult.LOST


def joint_vote_result(incoming: Collection[int], outgoing: Collection[int], votes: Mapping[int, bool]) -> VoteResult:
    """Return what both majorities decided together: both must win, and one that loses is enough to lose."""
    first = vote_result(incoming, votes)
    if not outgoing:
        return first
    second = vote_result(outgoing, votes)
    if first is second:
        return first
    return VoteResult.LOST if VoteResult.LOST in (first, second) else VoteResult.PENDING
