"""Making one survivor of a lost quorum a cluster of its own: what it holds, and the entries that make it so. Offline.

When most voters of a cluster are gone for good, no entry can be committed any more, not even one that removes them. An
operator may then decide that one survivor's log is the truth. Here that decision is written down:

* Everything in the survivor's log counts from then on, what was never committed, too: somebody may have been told of it.
* The removals of all others are entries of the log like any other, so whoever joins later learns the same membership.
* Whoever was a member is refused for good, and told that it was removed, should it come back: what it knows beyond this
  log is lost, and nobody else may build on it. The term jumps, so that nothing said before can be taken for new.

It can be broken off anywhere and begun again. The node must not be running; whether the others are really gone nobody can
see from here. See docs/adr/0011-recovering-through-the-log.md; source of the procedure: Vault's page "Recover from lost
quorum".
"""

from collections.abc import Iterator
from typing import Final, Protocol

from msgspec import Struct, structs

from conclave.cluster.errors import RecoveryRefused
from conclave.cluster.membership import (
    Identity,
    Member,
    MembershipRecord,
    apply_change,
    change_for,
    decode_identity,
    decode_record,
    encode_record,
)
from conclave.cluster.raft import (
    ConfChangeKind,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryKind,
    decode_conf_change,
    encode_conf_change,
)
from conclave.storage.log import EntryTuple, LogStore

TERM_STEP: Final = 1000
"""How far the term jumps: more elections than the lost members can have held since."""
READ_BYTES: Final = 4 << 20
"""How much of the log is read at a time."""


class Machine(Protocol):
    """What takes the entries: `storage.overlay.Overlay`; its owner makes them durable afterwards, all at once."""

    @property
    def applied_index(self) -> int:
        """The last entry taken."""

    @property
    def applied_term(self) -> int:
        """Its term."""

    @property
    def membership(self) -> bytes:
        """The membership record at that entry."""

    def apply(self, index: int, term: int, data: bytes) -> object:
        """Take an entry."""

    def apply_membership(self, index: int, term: int, membership: bytes) -> None:
        """Take a membership change."""


class Survivor(Struct, frozen=True):
    """What one node holds; of several survivors the one with the highest `last_term`, then `last_index`, knows most.

    Attributes:
        commit_index: as far as this node knew.
        applied_index: what its state holds.
        record: the membership at the end of the log.
        sure_record: the membership at `commit_index`.
        unsure_changes: how many of its `unsure_entries` change the membership.
    """

    identity: Identity
    term: int
    last_term: int
    last_index: int
    commit_index: int
    applied_index: int
    record: MembershipRecord
    sure_record: MembershipRecord
    unsure_changes: int = 0

    @property
    def unsure_entries(self) -> int:
        """How many entries its log holds behind `commit_index`: a recovery commits them, whoever was told of them."""
        return max(self.last_index - self.commit_index, 0)

    @property
    def member(self) -> Member:
        """The survivor itself."""
        found = self.record.member(self.identity.raft_id)
        assert found is not None, "examined before"
        return found

    @property
    def others(self) -> list[Member]:
        """Who else belongs to the cluster at the end of the log."""
        return [member for member in self.record.members if member.raft_id != self.identity.raft_id]

    @property
    def removed(self) -> list[Member]:
        """Whom a recovery shuts out: also whoever is removed by an entry that is not known to be committed."""
        members = {member.raft_id: member for member in (*self.sure_record.members, *self.record.members)}
        return [member for raft_id, member in members.items() if raft_id != self.identity.raft_id]


def examine(log: LogStore, machine: Machine) -> Survivor:
    """Return what a node holds.

    Raises:
        RecoveryRefused: it can be no survivor; the text says why, and what to do.
        ValueError: its records are damaged, or a newer version wrote them.
    """
    stored = log.get_identity()
    identity = decode_identity(stored) if stored else Identity(1, b"", "")
    if not identity.raft_id:
        raise RecoveryRefused("this node has never belonged to a cluster")
    if identity.is_removed:
        raise RecoveryRefused("this node has been removed from its cluster; wipe its data folder and let it join again")
    if identity.installing != (0, 0):
        raise RecoveryRefused(
            "a snapshot was being installed; start the node once, so that this is finished, then stop it"
        )
    term, _, commit = log.hard_state
    commit_index = max(commit, machine.applied_index)
    record = sure_record = decode_record(machine.membership)
    unsure_changes = 0
    for entry in _entries_behind(log, machine.applied_index):
        record = _after(record, entry)
        if entry.index <= commit_index:
            sure_record = record
        elif entry.kind is not EntryKind.NORMAL:
            unsure_changes += 1
    if record.member(identity.raft_id) is None:
        raise RecoveryRefused("this node has not heard of its own admission yet: it holds nothing that others do not")
    last = log.last_index
    return Survivor(
        identity=identity,
        term=term,
        last_term=log.term(last) if last >= log.first_index else machine.applied_term,
        last_index=last,
        commit_index=commit_index,
        applied_index=machine.applied_index,
        record=record,
        sure_record=sure_record,
        unsure_changes=unsure_changes,
    )


def recover(log: LogStore, machine: Machine, survivor: Survivor, cluster_address: str = "") -> None:
    """Make a survivor the only member: extend its log durably, and give all of it to the machine.

    Args:
        log: of the node.
        machine: its owner flushes it once after this; only then is the recovery done.
        survivor: from `examine`.
        cluster_address: where the node is found from now on, "host:port"; empty for where it was.
    """
    term = survivor.term + TERM_STEP
    added: list[EntryTuple] = []
    for number, change in enumerate(changes(survivor, cluster_address), 1):
        kind, data = encode_conf_change(change)
        added.append((term, survivor.last_index + number, int(kind), data))
    if added:
        log.append((term, survivor.identity.raft_id, log.hard_state[2]), added)
    record = decode_record(machine.membership)
    for entry in _entries_behind(log, machine.applied_index):
        if entry.kind is EntryKind.NORMAL:
            machine.apply(entry.index, entry.term, entry.data)
        else:
            record = _after(record, entry)
            machine.apply_membership(entry.index, entry.term, encode_record(record))


def changes(survivor: Survivor, cluster_address: str = "") -> list[ConfChangeV2]:
    """Return the membership changes that leave the survivor alone, in order; each can be applied behind the one before."""
    address = cluster_address or survivor.member.cluster_address
    member = structs.replace(survivor.member, may_vote=True, cluster_address=address)
    found = [change_for(ConfChangeKind.REMOVE, other) for other in survivor.others]
    if not survivor.record.is_voter(member.raft_id):
        found.insert(0, change_for(ConfChangeKind.ADD_VOTER, member))  # first: somebody has to vote
    elif member != survivor.member:
        found.append(change_for(ConfChangeKind.UPDATE, member))
    return found


def _entries_behind(log: LogStore, index: int) -> Iterator[Entry]:
    while index < log.last_index:
        for entry in log.read(index + 1, log.last_index + 1, READ_BYTES):
            term, index, kind, data = entry
            yield Entry(term, index, EntryKind(kind), data)


def _after(record: MembershipRecord, entry: Entry) -> MembershipRecord:
    """Return the membership behind an entry, as a running node makes it."""
    if entry.kind is EntryKind.NORMAL:
        return record
    change = decode_conf_change(entry)
    if len(change.changes) != 1 or record.conf_state.voters_outgoing:
        raise RecoveryRefused("the log holds a membership change that this version does not make")
    (single,) = change.changes
    voters, learners = set(record.conf_state.voters), set(record.conf_state.learners)
    if single.kind is not ConfChangeKind.UPDATE:
        voters.discard(single.node)
        learners.discard(single.node)
    if single.kind is ConfChangeKind.ADD_VOTER:
        voters.add(single.node)
    elif single.kind is ConfChangeKind.ADD_LEARNER:
        learners.add(single.node)
    if not voters:
        return record  # impossible: on a running node, too, it changes nothing
    return apply_change(record, change, ConfState(tuple(sorted(voters)), learners=tuple(sorted(learners))))
