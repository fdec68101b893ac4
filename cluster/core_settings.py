"""What the Raft core of a node is told: its times in ticks, and how much it may have under way to one peer.

The numbers are those of raft.md section 6. What they cost a node in memory is bounded by them: messages and bytes on their
way to each peer, and the entries that are applied in one turn of the loop.
"""

from typing import Final

from conclave.cluster.raft import RaftConfig
from conclave.cluster.timing import ELECTION_TICKS, HEARTBEAT_TICKS, LEASE_TICKS

APPEND_BYTES_MAX: Final = 256 * 1024
"""Entries in one APPEND, and entries applied in one turn of the loop; a single larger entry goes alone."""
INFLIGHT_MESSAGES_MAX: Final = 64
INFLIGHT_BYTES_MAX: Final = 4 << 20


def core_settings(raft_id: int, applied_index: int) -> RaftConfig:
    """Return the settings of a core that begins with everything up to `applied_index` in its state machine.

    It may have promised something just before its process ended, so it behaves for L as if it had.
    """
    return RaftConfig(
        id=raft_id,
        election_ticks=ELECTION_TICKS,
        heartbeat_ticks=HEARTBEAT_TICKS,
        lease_ticks=LEASE_TICKS,
        startup_promise_ticks=LEASE_TICKS,
        applied=applied_index,
        max_size_per_message=APPEND_BYTES_MAX,
        max_inflight_messages=INFLIGHT_MESSAGES_MAX,
        max_inflight_bytes=INFLIGHT_BYTES_MAX,
    )
