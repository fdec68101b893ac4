"""What the core hands out: `Ready` and its parts, `Status`, and the events.

Nothing here has behaviour beyond small questions about itself. Duties that come with a `Ready` are in the package's
docstring.
"""

from enum import Enum

import msgspec

from conclave.cluster.raft.messages import ConfState, Entry, HardState, Message, MessageKind, Snapshot


class Role(Enum):
    """What a node is in its term."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class SoftState(msgspec.Struct, frozen=True):
    """What may be forgotten: who leads (0: nobody known), and what this node is."""

    leader: int
    role: Role


class ReadState(msgspec.Struct, frozen=True):
    """Answer to `read_index(context)`: a state applied up to `index` is fresh enough."""

    index: int
    context: int


class AppendJob(msgspec.Struct, frozen=True):
    """One piece of work for the storage, to be done in the order in which jobs were handed out.

    Attributes:
        hard_state: the full current one; stored in the same transaction as the entries (a commit index that is lost while
            its entries stay would make membership changes unsafe).
        entries: to be appended at `entries[0].index`, cutting off whatever is stored there and behind.
        snapshot: replaces the whole log (and the state); never together with older entries.
        responses: once all of this and all earlier jobs are durable, those for this node go to `step`, in their order,
            and the others to their peers.
        must_sync: False where nothing new was promised; a commit index alone need not be written at all.
    """

    hard_state: HardState
    entries: tuple[Entry, ...]
    snapshot: Snapshot | None
    responses: tuple[Message, ...]
    must_sync: bool


class ApplyJob(msgspec.Struct, frozen=True):
    """Committed entries, to be applied in order; afterwards `responses` go to `step`."""

    entries: tuple[Entry, ...]
    responses: tuple[Message, ...]


class BecameFollower(msgspec.Struct, frozen=True):
    """The node follows in this term; `leader` is 0 while nobody is known to lead."""

    term: int
    leader: int


class BecamePreCandidate(msgspec.Struct, frozen=True):
    """The node asks whether it could win an election of term + 1."""

    term: int


class BecameCandidate(msgspec.Struct, frozen=True):
    """The node stands for election in this term."""

    term: int


class BecameLeader(msgspec.Struct, frozen=True):
    """The node won this term."""

    term: int


class VoteGranted(msgspec.Struct, frozen=True):
    """This node gave `candidate` its vote (or pre-vote) for `term`."""

    candidate: int
    term: int
    pre_vote: bool


class VoteRefused(msgspec.Struct, frozen=True):
    """This node refused `candidate` its vote (or pre-vote) for `term`."""

    candidate: int
    term: int
    pre_vote: bool


class ConfigurationSwitched(msgspec.Struct, frozen=True):
    """This configuration is in force from now on."""

    conf_state: ConfState


class MessageIgnored(msgspec.Struct, frozen=True):
    """A message, or a wish of the caller, had no effect; `reason` says why in a few constant words."""

    kind: MessageKind | None
    source: int
    reason: str


Event = (
    BecameFollower
    | BecamePreCandidate
    | BecameCandidate
    | BecameLeader
    | VoteGranted
    | VoteRefused
    | ConfigurationSwitched
    | MessageIgnored
)
"""What an operator or a test may want to know; nothing depends on it."""


class Ready(msgspec.Struct, frozen=True):
    """Everything that the core wants done, once.

    Attributes:
        soft: the new soft state, if it changed.
        messages: may leave at once, before anything of this `Ready` is durable.
        append: for the storage.
        apply: for the state machine; only stable entries, unless the storage is synchronous.
        reads: answered reads.
        events: what happened since the last `Ready`.
    """

    soft: SoftState | None
    messages: list[Message]
    append: AppendJob | None
    apply: ApplyJob | None
    reads: list[ReadState]
    events: list[Event]


class PeerStatus(msgspec.Struct, frozen=True):
    """What a leader knows of one member.

    Attributes:
        match: the last entry known to be on its disk.
        next: the next entry to be sent.
        state: "probe", "replicate" or "snapshot".
        recently_active: it has answered since the last CheckQuorum round.
        is_paused: nothing is sent until it answers.
        pending_snapshot: the index of the snapshot under way; 0: none.
        inflight: unanswered messages with entries.
    """

    id: int
    match: int
    next: int
    state: str
    is_learner: bool
    recently_active: bool
    is_paused: bool
    pending_snapshot: int
    inflight: int


class Status(msgspec.Struct, frozen=True):
    """A picture of one core, for operators. `peers` is in the order of ids, and empty where the node does not lead."""

    id: int
    term: int
    vote: int
    role: Role
    leader: int
    commit: int
    applied: int
    last_index: int
    transferee: int
    conf_state: ConfState
    peers: tuple[PeerStatus, ...]
