"""The Raft core, without clock, disk, network or randomness of its own.

**Shape.** One `Raft` object for each node. It is told what happened (`step`, `tick`, `propose`, `read_index` ...) and keeps
what is to be done until `ready()` hands it out. The order of inputs, the answers of the `LogStorage` and the injected
random source decide everything that comes out.

**Duties of the driver**, for each `Ready`:

1. Send `messages` at once. They promise nothing that is not durable already, so a leader's entries travel while its own
   disk still writes.
2. Do `append` in the storage: hard state, then snapshot or entries, in one durable step. Jobs are done in the order in
   which they came; any number may wait. When a job and all before it are durable, `step` its responses that are
   addressed to this node, in order, and send the others. If `must_sync` is False, nothing needs to be written, but the
   responses still wait for the jobs before.
3. Apply `apply.entries` in order (`apply_conf_change` for each entry with a membership change, even one that the
   application refuses: then with an empty change), then `step` its responses. After a snapshot the state machine must
   hold the snapshot's state before anything later is applied.
4. Hand `reads` to their callers once the state is applied up to their index. Reads are forgotten at a change of leader
   or term: a caller has a deadline and asks again.

Every peer's messages must come from that peer (the transport knows), but may be lost, repeated, late and out of order.
After a restart the configuration given by `LogStorage.initial_state` is the one at `RaftConfig.applied`.

**What is ours** beside the semantics of etcd's Raft library: two timers (`lease_ticks`, `election_ticks`) instead of one; one
heartbeat sequence of the leader's own making for reads, leases and confirmation (`heartbeat_sequence`,
`confirmed_sequence`); `resign`; `leader_connection_lost`; `handicap_ticks`.

Source: Ongaro's dissertation (2014); the documentation and the test data of etcd-io/raft.
"""

from conclave.cluster.raft.config import NO_LIMIT, RaftConfig, ReadOnly
from conclave.cluster.raft.core import Raft, RandomSource
from conclave.cluster.raft.errors import (
    Compacted,
    ConfChangeError,
    CorruptLog,
    DropReason,
    MalformedMessage,
    ProposalDropped,
    RaftError,
    SnapshotTemporarilyUnavailable,
    StepError,
    StorageError,
    Unavailable,
    UnknownPeer,
)
from conclave.cluster.raft.messages import (
    NO_NODE,
    ConfChange,
    ConfChangeKind,
    ConfChangeTransition,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageKind,
    Snapshot,
    SnapshotMeta,
    decode_conf_change,
    encode_conf_change,
    entry_size,
)
from conclave.cluster.raft.progress import ProgressState
from conclave.cluster.raft.ready import (
    AppendJob,
    ApplyJob,
    BecameCandidate,
    BecameFollower,
    BecameLeader,
    BecamePreCandidate,
    ConfigurationSwitched,
    Event,
    MessageIgnored,
    PeerStatus,
    ReadState,
    Ready,
    Role,
    SoftState,
    Status,
    VoteGranted,
    VoteRefused,
)
from conclave.cluster.raft.storage import LogStorage, MemoryStorage

__all__ = [
    "NO_LIMIT",
    "NO_NODE",
    "AppendJob",
    "ApplyJob",
    "BecameCandidate",
    "BecameFollower",
    "BecameLeader",
    "BecamePreCandidate",
    "Compacted",
    "ConfChange",
    "ConfChangeError",
    "ConfChangeKind",
    "ConfChangeTransition",
    "ConfChangeV2",
    "ConfState",
    "ConfigurationSwitched",
    "CorruptLog",
    "DropReason",
    "Entry",
    "EntryKind",
    "Event",
    "HardState",
    "LogStorage",
    "MalformedMessage",
    "MemoryStorage",
    "Message",
    "MessageIgnored",
    "MessageKind",
    "PeerStatus",
    "ProgressState",
    "ProposalDropped",
    "Raft",
    "RaftConfig",
    "RaftError",
    "RandomSource",
    "ReadOnly",
    "ReadState",
    "Ready",
    "Role",
    "Snapshot",
    "SnapshotMeta",
    "SnapshotTemporarilyUnavailable",
    "SoftState",
    "Status",
    "StepError",
    "StorageError",
    "Unavailable",
    "UnknownPeer",
    "VoteGranted",
    "VoteRefused",
    "decode_conf_change",
    "encode_conf_change",
    "entry_size",
]
