"""Whether a node that wants to join may: decided here from what is known, performed by the node. Pure.

The new node has proved to the leader's vault that it holds the unseal key (`core`); what is left are the questions of
identity. Each refusal says what to do, and none changes anything.
"""

from enum import Enum

from conclave.cluster.errors import JoinRefused
from conclave.cluster.membership import INCARNATION_BYTES, Member, MembershipRecord

NODE_ID_LENGTH_MAX = 255


class Admission(Enum):
    """What the leader does for a node that it does not refuse."""

    ADD = "add"
    REISSUE = "reissue"  # it is a member already, but its ticket got lost on the way


def decide_admission(
    record: MembershipRecord, *, node_id: str, cluster_address: str, incarnation: bytes, has_taken_part: bool
) -> tuple[Admission, Member | None]:
    """Say whether to add a node, or to give a member that never got its ticket another one.

    Args:
        record: the membership in force.
        node_id: the name that the new node has chosen.
        cluster_address: where its peers will find it, "host:port".
        incarnation: of its data directory.
        has_taken_part: whether the member of that name has ever acknowledged an entry. Then its ticket had arrived, and
            a directory that knows nothing of it is a copy from before: it must not come back under its old identity.

    Returns:
        what to do, and for REISSUE the member.

    Raises:
        JoinRefused: it may not join.
    """
    if not 0 < len(node_id) <= NODE_ID_LENGTH_MAX:
        raise JoinRefused(f"a node id has 1 to {NODE_ID_LENGTH_MAX} characters")
    if len(incarnation) != INCARNATION_BYTES:
        raise JoinRefused(f"the data directory's incarnation must have {INCARNATION_BYTES} bytes")
    check_address(cluster_address)
    member = record.named(node_id)
    if member is None:
        taken = next((other for other in record.members if other.cluster_address == cluster_address), None)
        if taken is not None:
            raise JoinRefused(
                f"the cluster address {cluster_address} belongs to member {taken.node_id!r}; "
                "give this node its own address, or remove that member first"
            )
        return Admission.ADD, None
    if member.incarnation != incarnation:
        raise JoinRefused(
            f"node id {node_id!r} is taken by a member with another data directory; "
            "choose another id, or remove that member first"
        )
    if has_taken_part or record.is_voter(member.raft_id):
        raise JoinRefused(f"node {node_id!r} is already a member of this cluster")
    return Admission.REISSUE, member


def check_address(address: str) -> tuple[str, int]:
    """Return host and port of a "host:port" address; "[::1]:8201" for IPv6.

    Raises:
        JoinRefused: it is not one.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise JoinRefused(f"{address!r} is not an address of the form host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)
