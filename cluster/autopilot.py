"""Autopilot: who is healthy, which learner becomes a voter, and which dead member is removed. Pure; the leader asks and acts.

A learner votes as soon as it has caught up while the cluster cannot lose anybody (fewer than three voters): waiting
would only prolong that. In a cluster that can, it has to be healthy for the stabilisation time first, so that a node
that comes and goes never counts for a quorum.

A dead member is removed only if its operator wants that, one at a time, and only if what remains can do without it: a
voter leaves at least `min_quorum` voters, never fewer than three, and a majority of those that remain is healthy. So
clean-up never takes a cluster's quorum or its tolerance of one loss.

Source: Vault's integrated storage, autopilot; its names and defaults (`replica.AutopilotRules`).
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from conclave.cluster.replica import AutopilotRules

TOLERANT_VOTERS: Final = 3
"""From so many voters on, one may fail."""
VOTERS_KEPT_MIN: Final = 3
"""So many voters clean-up always leaves, whatever `min_quorum` says."""
CAUGHT_UP_ENTRIES: Final = 100
"""A learner so close behind the commit index has caught up: under load it never is at the very end."""


class Observation(Struct, frozen=True):
    """What a leader knows of one member.

    Attributes:
        match: the last entry known to be on its disk.
        last_contact_seconds: since it was heard; None: never.
        healthy_seconds: for how long it has been healthy without a break.
        silent_seconds: for how long this node, leading without a break, has heard nothing of it.
    """

    raft_id: int
    is_voter: bool
    may_vote: bool
    match: int
    last_contact_seconds: float | None
    healthy_seconds: float
    silent_seconds: float = 0.0


def is_healthy(rules: AutopilotRules, *, match: int, commit: int, last_contact_seconds: float | None) -> bool:
    """Tell whether a member keeps up and is heard."""
    return (
        last_contact_seconds is not None
        and last_contact_seconds <= rules.last_contact_threshold_seconds
        and match + rules.max_trailing_logs >= commit
    )


def choose_promotion(rules: AutopilotRules, members: Sequence[Observation], *, commit: int) -> int:
    """Return the learner to be made a voter now; 0 if there is none. One at a time, in order of Raft ids."""
    is_tolerant = sum(member.is_voter for member in members) >= TOLERANT_VOTERS
    needed_seconds = rules.server_stabilization_time_seconds if is_tolerant else 0.0
    for member in sorted(members, key=lambda member: member.raft_id):
        if (
            not member.is_voter
            and member.may_vote
            and member.healthy_seconds >= needed_seconds
            and has_caught_up(rules, member, commit=commit)
        ):
            return member.raft_id
    return 0


def has_caught_up(rules: AutopilotRules, member: Observation, *, commit: int) -> bool:
    """Tell whether a learner could vote now without holding anything up."""
    return (
        member.match > 0
        and member.match + CAUGHT_UP_ENTRIES >= commit
        and is_healthy(rules, match=member.match, commit=commit, last_contact_seconds=member.last_contact_seconds)
    )


def choose_removal(rules: AutopilotRules, members: Sequence[Observation], *, commit: int) -> int:
    """Return the dead member to be removed now; 0 if there is none. The one that has been silent for longest."""
    if not rules.cleanup_dead_servers:
        return 0
    threshold_seconds = rules.dead_server_last_contact_threshold_seconds
    dead = [member for member in members if member.silent_seconds > threshold_seconds]
    for member in sorted(dead, key=lambda member: (-member.silent_seconds, member.raft_id)):
        remaining = [other for other in members if other.is_voter and other is not member]
        enough = not member.is_voter or len(remaining) >= max(rules.min_quorum, VOTERS_KEPT_MIN)
        if enough and _is_majority_healthy(rules, remaining, commit=commit):
            return member.raft_id
    return 0


def _is_majority_healthy(rules: AutopilotRules, voters: Sequence[Observation], *, commit: int) -> bool:
    healthy = [
        is_healthy(rules, match=voter.match, commit=commit, last_contact_seconds=voter.last_contact_seconds)
        for voter in voters
    ]
    return 2 * sum(healthy) > len(voters)
