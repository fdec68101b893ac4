"""Settings of one core. All durations are in ticks of the driver, all sizes in bytes."""

from enum import Enum
from typing import Final

import msgspec

NO_LIMIT: Final = 2**63 - 1


class ReadOnly(Enum):
    """How `read_index` makes sure that the leader still is one.

    SAFE asks a quorum. LEASE trusts that nobody else was elected while CheckQuorum holds; it leans on clocks that run at
    the same rate and has no margin, so a server uses SAFE and keeps a lease of its own (`Raft.confirmed_sequence`).
    """

    SAFE = "safe"
    LEASE = "lease"


class RaftConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a core is told at its start.

    Attributes:
        id: this node, never 0, never used again after its removal.
        election_ticks: T; a follower campaigns after T to 2T-1 ticks without a leader.
        heartbeat_ticks: ticks between two heartbeats of a leader.
        lease_ticks: L; for so long after it heard a leader a node helps nobody else to be elected. None: T.
        startup_promise_ticks: for so long after its start a node refuses votes, since it has forgotten what it promised.
        applied: the last entry that the state machine already holds; 0: what the snapshot stands for.
        max_size_per_message: entries in one APPEND; one always goes.
        max_inflight_messages: unanswered APPENDs to one peer.
        max_inflight_bytes: payload in them; the message that crosses the limit still goes.
        max_uncommitted_bytes: payload that may wait for its commit on a leader; above it proposals are dropped.
        max_committed_bytes_per_ready: entries handed out to be applied and not yet answered; None: as a message.
        step_down_on_removal: a leader that applies its own removal gives up.
        disable_conf_change_validation: take membership changes in any order (for tests of the applying side).
        disable_proposal_forwarding: a follower drops proposals instead of sending them on. Forwarding knows nothing of
            requests that must happen once; servers forward above the log.
        asks_for_votes_early: a candidate asks for votes while its own is still being written. Unsafe with disks that forget
            what was not synced; it is there to be compared with traces of cores that do.
        synchronous_storage: the driver makes a `Ready` durable before it applies from that same `Ready`.
    """

    id: int
    election_ticks: int
    heartbeat_ticks: int
    lease_ticks: int | None = None
    startup_promise_ticks: int = 0
    applied: int = 0
    max_size_per_message: int = 1024 * 1024
    max_inflight_messages: int = 64
    max_inflight_bytes: int = NO_LIMIT
    max_uncommitted_bytes: int = NO_LIMIT
    max_committed_bytes_per_ready: int | None = None
    pre_vote: bool = True
    check_quorum: bool = True
    read_only: ReadOnly = ReadOnly.SAFE
    step_down_on_removal: bool = True
    disable_conf_change_validation: bool = False
    disable_proposal_forwarding: bool = True
    asks_for_votes_early: bool = False
    synchronous_storage: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            ValueError: a setting is out of range or contradicts another.
        """
        if self.id <= 0:
            raise ValueError("id must be positive")
        if self.heartbeat_ticks <= 0:
            raise ValueError("heartbeat_ticks must be positive")
        if self.election_ticks <= self.heartbeat_ticks:
            raise ValueError("election_ticks must be greater than heartbeat_ticks")
        if self.lease_ticks is not None and not 0 < self.lease_ticks <= self.election_ticks:
            raise ValueError("lease_ticks must be between 1 and election_ticks")
        if self.max_inflight_messages <= 0:
            raise ValueError("max_inflight_messages must be positive")
        if self.max_inflight_bytes < self.max_size_per_message and self.max_size_per_message != NO_LIMIT:
            raise ValueError("max_inflight_bytes must be at least max_size_per_message")
        if self.read_only is ReadOnly.LEASE and not self.check_quorum:
            raise ValueError("lease reads need check_quorum")
