"""Who belongs to the cluster, as it is stored: members, the Raft configuration, and a node's own identity. Pure.

Two records:

* `MembershipRecord`: what the log has said about the members, stored beside the applied index. Every entry that changes
  the membership carries the `Member` it is about in its context, so applying it needs nothing else. The ids of removed
  members are kept for a while, so that a removed node can be told what it is.
* `Identity`: who this data directory is, stored in the log environment: clear text, since a sealed node has to take part.

A member's `raft_id` is random at its admission and never used again; its `incarnation` names its data directory. So a
wiped or replaced disk is another member, whatever its node id says: one that has forgotten what it acknowledged never
comes back under the id that acknowledged it.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct, structs

from conclave.cluster.raft import ConfChange, ConfChangeKind, ConfChangeV2, ConfState

RECORD_VERSION: Final = 1
REMOVED_IDS_MAX: Final = 256
"""How many removed ids are remembered; an older one is told that it is unknown instead of removed."""
INCARNATION_BYTES: Final = 16


class Member(Struct, array_like=True, frozen=True):
    """One member.

    Attributes:
        may_vote: False for a member that stays a learner by its operator's wish.
    """

    raft_id: int
    node_id: str
    cluster_address: str
    api_address: str
    incarnation: bytes
    may_vote: bool = True


class MembershipRecord(Struct, array_like=True, frozen=True):
    """The membership at one index of the log; members in ascending order of Raft ids."""

    version: int = RECORD_VERSION
    conf_state: ConfState = ConfState()
    members: tuple[Member, ...] = ()
    removed: tuple[int, ...] = ()

    def member(self, raft_id: int) -> Member | None:
        """Return the member with this Raft id."""
        return next((member for member in self.members if member.raft_id == raft_id), None)

    def named(self, node_id: str) -> Member | None:
        """Return the member with this node id."""
        return next((member for member in self.members if member.node_id == node_id), None)

    def is_voter(self, raft_id: int) -> bool:
        """Tell whether this member votes (in either half of a joint configuration)."""
        return raft_id in self.conf_state.voters or raft_id in self.conf_state.voters_outgoing


class Identity(Struct, array_like=True, frozen=True):
    """Whose data directory this is.

    Attributes:
        incarnation: random, drawn when the directory was created.
        raft_id: 0 as long as this node is not in a cluster.
        seed: the membership at the time of joining: where the peers are before the log has said so.
        is_removed: this member has been removed, for good.
        installing: index and term of a snapshot that is replacing the state; (0, 0) if none is.
    """

    version: int
    incarnation: bytes
    node_id: str
    cluster_id: str = ""
    raft_id: int = 0
    certificate_pem: bytes = b""
    authority_pem: bytes = b""
    private_key_pem: bytes = b""
    seed: bytes = b""
    is_removed: bool = False
    installing: tuple[int, int] = (0, 0)


_encode = msgspec.msgpack.Encoder().encode
_decode_record = msgspec.msgpack.Decoder(MembershipRecord).decode
_decode_identity = msgspec.msgpack.Decoder(Identity).decode
_decode_member = msgspec.msgpack.Decoder(Member).decode


def encode_record(record: MembershipRecord) -> bytes:
    """Return the stored form of a membership record."""
    return _encode(record)


def decode_record(stored: bytes) -> MembershipRecord:
    """Return the record that `encode_record` wrote; an empty one for no bytes.

    Raises:
        ValueError: it is damaged, or a newer version wrote it.
    """
    record = _decode_record(stored) if stored else MembershipRecord()
    if record.version != RECORD_VERSION:
        raise ValueError(
            f"membership record version {record.version} is not {RECORD_VERSION}; a newer version wrote it"
        )
    return record


def encode_identity(identity: Identity) -> bytes:
    """Return the stored form of an identity."""
    return _encode(identity)


def decode_identity(stored: bytes) -> Identity:
    """Return the identity that `encode_identity` wrote.

    Raises:
        ValueError: it is damaged, or a newer version wrote it.
    """
    identity = _decode_identity(stored)
    if identity.version != RECORD_VERSION:
        raise ValueError(f"identity version {identity.version} is not {RECORD_VERSION}; a newer version wrote it")
    return identity


def change_for(kind: ConfChangeKind, member: Member) -> ConfChangeV2:
    """Return the change to be proposed for one member; the entry carries the member itself."""
    return ConfChangeV2((ConfChange(kind, member.raft_id),), context=_encode(member))


def apply_change(record: MembershipRecord, change: ConfChangeV2, conf_state: ConfState) -> MembershipRecord:
    """Return the membership after a change has taken effect.

    Args:
        record: the membership before it.
        change: as it stood in the log.
        conf_state: what the core made of it.
    """
    members = {member.raft_id: member for member in record.members}
    removed = list(record.removed)
    for single in change.changes:
        if single.kind is ConfChangeKind.REMOVE:
            if members.pop(single.node, None) is not None:
                removed.append(single.node)
        elif change.context:
            members[single.node] = _decode_member(change.context)
    return structs.replace(
        record,
        conf_state=conf_state,
        members=tuple(members[raft_id] for raft_id in sorted(members)),
        removed=tuple(removed[-REMOVED_IDS_MAX:]),
    )


def majority_is_among(voters: Sequence[int], reachable: Sequence[int]) -> bool:
    """Tell whether more than half of `voters` are in `reachable`."""
    return 2 * len(set(voters) & set(reachable)) > len(voters)
