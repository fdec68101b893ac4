"""Autopilot: who is healthy, and which learner becomes a voter. Pure; the leader's node asks and acts.

A learner votes as soon as it has caught up while the cluster cannot lose anybody (fewer than three voters): waiting
would only prolong that. In a cluster that can, it has to be healthy for the stabilisation time first, so that a node
that comes and goes never counts for a quorum. Dead servers are not removed by themselves.

Source: Vault's integrated storage, autopilot; its names and defaults (`replica.AutopilotRules`).
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from conclave.cluster.replica import AutopilotRules

TOLERANT_VOTERS: Final = 3
"""From so many voters on, one may fail."""
CAUGHT_UP_ENTRIES: Final = 100
"""A learner so close behind the commit index has caught up: under load it never is at the very end."""


class Observation(Struct, frozen=True):
    """What a leader knows of one member.

    Attributes:
        match: the last entry known to be on its disk.
        last_contact_seconds: since it was heard; None: never.
        healthy_seconds: for how long it has been healthy without a break.
    """

    raft_id: int
    is_voter: bool
    may_vote: bool
    match: int
    last_contact_seconds: float | None
    healthy_seconds: float


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
            and member.match > 0
            and member.match + CAUGHT_UP_ENTRIES >= commit
            and member.healthy_seconds >= needed_seconds
            and is_healthy(rules, match=member.match, commit=commit, last_contact_seconds=member.last_contact_seconds)
        ):
            return member.raft_id
    return 0
