"""The seam between the vault and consensus: all that `core` and `api` may know of a cluster.

A `Replica` orders opaque entries. Its owner hands it a `StateMachine`, which is told of every committed entry, in order,
exactly once, on the event loop. Other replicated stores (etcd, PostgreSQL) plug in by implementing `Replica`, so it is
kept this narrow: propose, read_barrier, role, leader; `Peers` and `Membership` beside it are what the cluster's own
operations (forwarding, join, remove-peer) need.

Every method is called on the event loop; nothing here blocks.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Protocol

from msgspec import Struct


class Standing(Enum):
    """What this node is in the cluster, as far as the vault has to know."""

    DETACHED = "detached"  # no identity yet: neither initialised nor joined
    FOLLOWER = "follower"
    LEADER = "leader"  # and everything committed before this term has been applied
    REMOVED = "removed"


class Peer(Struct, frozen=True):
    """One member of the cluster."""

    node_id: str
    raft_id: int
    cluster_address: str  # "127.0.0.1:8201"
    api_address: str  # "http://127.0.0.1:8200"; "" as long as the node has not told
    is_voter: bool
    is_leader: bool = False
    is_sealed: bool | None = None  # None: not heard from
    version: str = ""
    hostname: str = ""
    last_index: int = 0
    last_term: int = 0
    last_contact_seconds: float | None = None  # since this node heard of it; None: never; 0.0 for itself
    is_healthy: bool = False
    stable_since_ns: int | None = None  # wall clock; since when its health has not changed, as far as the leader knows
    may_vote: bool = True  # False: stays without a vote until an operator promotes it


class AutopilotRules(Struct, array_like=True, frozen=True):
    """By what a leader judges and promotes members; names and defaults as in Vault. Stored: new fields come last."""

    cleanup_dead_servers: bool = False
    dead_server_last_contact_threshold_seconds: float = 24 * 3600.0
    last_contact_threshold_seconds: float = 10.0
    max_trailing_logs: int = 1000
    min_quorum: int = 0
    server_stabilization_time_seconds: float = 10.0


class Ticket(Struct, frozen=True, gc=False):
    """Where a proposal stands in the log. It happened if an entry of this term is applied at this index."""

    term: int
    index: int


class Replica(Protocol):
    """One node's part in a replicated log."""

    @property
    def standing(self) -> Standing:
        """What this node is."""

    @property
    def leader(self) -> Peer | None:
        """The leader this node follows (itself, if it leads), as far as known."""

    @property
    def term(self) -> int:
        """The current Raft term."""

    def propose(self, data: bytes) -> Ticket:
        """Append one entry to the log.

        The state machine hears of the ticket's index by `applied` (same term: it happened; another term: it did not).

        Args:
            data: 1 byte to 1 MiB, opaque.

        Raises:
            NotLeader: this node does not lead; nothing was proposed.
            Overloaded: too many bytes are uncommitted; nothing was proposed.
        """

    def has_lease(self) -> bool:
        """Whether this node leads and no other node can have been elected: what it has applied is the newest."""

    async def read_barrier(self) -> int:
        """Wait until this node has applied all that any node had acknowledged when the call was made.

        Returns:
            the index that has been applied.

        Raises:
            NoQuorum: no leader confirmed within the read deadline.
        """


class StateMachine(Protocol):
    """What a replica drives. Implemented by the vault's store; every call comes on the event loop, in log order."""

    @property
    def applied(self) -> tuple[int, int]:
        """Index and term of the last applied entry."""

    @property
    def durable_index(self) -> int:
        """What would survive a crash without the log: the log may be compacted up to here."""

    @property
    def membership(self) -> bytes:
        """The membership record last stored by `apply_membership`; empty before the first."""

    def apply(self, index: int, term: int, data: bytes) -> None:
        """Take a committed entry. Empty `data` is a new leader's no-op and only moves the applied index."""

    def apply_membership(self, index: int, term: int, membership: bytes) -> None:
        """Take a committed membership change; the record is opaque and kept beside the applied index."""

    async def prepare_replacement(self) -> None:
        """End what is being written to the state environment, and begin nothing more until `state_replaced`."""

    def standing_changed(self, standing: Standing, term: int) -> None:
        """Hear that this node has become what it was not before.

        LEADER comes after everything committed in earlier terms has been applied; FOLLOWER means that proposals in
        flight are settled by what will be applied at their indexes.
        """

    def state_replaced(self) -> None:
        """Hear that a snapshot has replaced the whole state; `applied` has moved, caches are void."""


class Peers(Protocol):
    """Asking other nodes, over the cluster's own authenticated connections."""

    async def ask_leader(self, body: bytes, *, timeout_seconds: float) -> bytes:
        """Send `body` to the leader's request handler and return its answer.

        Raises:
            NotLeader: no leader is known, or the addressed node does not lead this term (it did not look at the body).
            Unreachable: the connection broke or the time ran out after sending: the outcome is unknown.
        """

    def serve(self, handler: Callable[[bytes, str], Awaitable[bytes]]) -> None:
        """Set what answers `ask_leader` of others; it is given the body and the asking node's id."""

    def announce(
        self, *, is_sealed: bool, api_address: str, version: str, hostname: str, is_damaged: bool = False
    ) -> None:
        """Tell the peers about this node; repeated every second and on every new connection.

        A leader that is sealed hands over as soon as a peer is not, a damaged one to a healthy peer that is neither.
        """


class JoinRequest(Struct, frozen=True):
    """What a detached node shows to the cluster that it wants to join; its private key stays with it."""

    node_id: str
    cluster_address: str
    request_pem: bytes
    private_key_pem: bytes
    incarnation: bytes


class JoinTicket(Struct, frozen=True):
    """What a leader hands to a node that has proved that it holds the unseal key."""

    cluster_id: str
    raft_id: int
    certificate_pem: bytes
    authority_pem: bytes
    membership: bytes


class Finding(Protocol):
    """How nodes that have all moved find each other: see `finding.py`. Texts are opaque; whoever calls carries them.

    Whatever is refused raises StatementRefused, which says why.
    """

    @property
    def is_needed(self) -> bool:
        """Whether there is a voter that this node cannot reach."""

    def challenge(self) -> bytes:
        """Return what somebody who wants to say where he is has to sign; nothing is stored for it."""

    def answer(self, signed: bytes) -> bytes:
        """Hear where a member is, dial it there, and return where this node is."""

    def ask(self, challenge: bytes) -> tuple[bytes, bytes]:
        """Return where this node is, over another one's challenge; and what was drawn for the answer to it."""

    def answered(self, signed: bytes, draw: bytes) -> None:
        """Hear the answer, and dial whoever gives it."""


class Membership(Protocol):
    """Changing who belongs to the cluster; what changes it works on the leader only."""

    def peers(self) -> Sequence[Peer]:
        """Return every member, this node included, in order of node id."""

    @property
    def fault(self) -> str:
        """Why this node takes no part, or does not lead: a sick disk, an old copy of its data; empty if nothing is wrong."""

    @property
    def finding(self) -> Finding | None:
        """How this node finds peers that have moved; None if it takes no part in a cluster."""

    @property
    def committed_index(self) -> int:
        """The commit index as this node knows it."""

    async def bootstrap(self, cluster_id: str) -> Mapping[str, bytes]:
        """Found a cluster with this node as its only voter and wait until it leads.

        Returns:
            secrets for the vault to keep in its sealed state: {"authority_key": PEM of the cluster CA's private key}.
        """

    async def admit(
        self,
        *,
        node_id: str,
        cluster_address: str,
        request_pem: bytes,
        incarnation: bytes,
        is_voter: bool,
        authority_key_pem: bytes,
    ) -> JoinTicket:
        """Sign a new node's certificate and add it as a learner; it is promoted once it has caught up.

        Raises:
            JoinRefused: the node id is taken by another data directory, the request is malformed, or the key is not that
                of this node's authority.
            NotLeader: this node does not lead.
        """

    def join_request(self) -> JoinRequest:
        """Draw a key pair and return what this detached node has to show in order to be admitted."""

    async def join(self, ticket: JoinTicket, private_key_pem: bytes) -> None:
        """Make this detached node a member with the identity that the ticket gives it."""

    async def remove(self, node_id: str) -> bool:
        """Remove a member (handing leadership over first if it is this node); False if there is none of that name."""

    async def promote(self, node_id: str) -> bool:
        """Let a member vote: now if it has caught up, else as soon as it has; False if there is none of that name."""

    async def demote(self, node_id: str) -> bool:
        """Take a member's vote until it is promoted again (handing leadership over first if it is this node).

        Returns:
            False if there is none of that name.

        Raises:
            RemovalRefused: without its vote no majority would be left that can be reached.
        """

    def judge_by(self, rules: AutopilotRules) -> None:
        """Judge, promote and clean up members by these rules from now on, whenever this node leads."""

    def lend_authority(self, key_pem: Callable[[], bytes | None]) -> None:
        """Say how the cluster CA's private key is had while a certificate is signed; it gives None while sealed."""

    async def own_authority(self, key_pem: bytes) -> bytes:
        """Return the private key of the authority that this node's certificate is by: this one, if it is that.

        Otherwise make a new authority, durably, with a certificate of this node by it; the caller keeps the new key. If
        that is lost, this is done once more.

        Raises:
            NotAlone: there are other members, who would not know a new authority.
        """

    async def step_down(self) -> None:
        """Hand leadership to the best peer that is not sealed; give it up if none can take it."""
