"""What has been applied: committed entries handed to the state machine in order, up to where, and who belongs by them.

Rules enforced here:

* What the machine holds and what the log holds must meet, or they are not of the same node and time.
* An entry counts as applied when the machine has taken it, not before.
* A membership change that is impossible changes nothing, the same on every node; but its entry has its index.
* A leader that is removed resigns first, while it is still listened to.

What follows from a change for the lease, the peers and this node's own part is for others: `changed` tells them.
"""

import logging
from collections.abc import Callable, Iterable

from conclave.cluster.membership import MembershipRecord, apply_change, decode_record, encode_record
from conclave.cluster.raft import (
    ConfChangeError,
    ConfChangeKind,
    ConfChangeV2,
    CorruptLog,
    Entry,
    EntryKind,
    Raft,
    Role,
    decode_conf_change,
)
from conclave.cluster.replica import StateMachine, Ticket
from conclave.storage.log import LogStore

log = logging.getLogger(__name__)


class AppliedLog:
    """How far the state machine of one node has taken the log.

    Args:
        raft_id: this node.
        machine: hears of committed entries.
        changed: called with each membership change that was applied; `record` is the new one, `index` still the old.

    Attributes:
        index, term: of the last entry that the machine has taken; 0 before `begin`.
        record: who belongs to the cluster.
        last_change: the last membership change since the start of the process.
        last_addition: the index at which a member came last, since the start of the process; 0: none came.
    """

    def __init__(self, raft_id: int, machine: StateMachine, changed: Callable[[ConfChangeV2], None]) -> None:
        self.index = 0
        self.term = 0
        self.record = MembershipRecord()
        self.last_change = Ticket(0, 0)
        self.last_addition = 0
        self._raft_id = raft_id
        self._machine = machine
        self._changed = changed

    def begin(self, store: LogStore) -> None:
        """Take over where the machine is.

        Raises:
            CorruptLog: the log does not reach there, or begins behind it.
        """
        index, _ = self._machine.applied
        if not store.first_index - 1 <= index <= store.last_index:
            raise CorruptLog(
                f"the state holds entry {index}, but the log reaches from {store.first_index} "
                f"to {store.last_index}: they are not of the same node and time"
            )
        self.reload()

    def reload(self) -> None:
        """Take over where the machine is, after its state was replaced."""
        self.index, self.term = self._machine.applied
        self.record = decode_record(self._machine.membership)

    def apply(self, raft: Raft, entries: Iterable[Entry]) -> None:
        """Hand entries that are committed and stored to the machine, and membership changes to the core as well."""
        machine = self._machine
        for entry in entries:
            if entry.kind is EntryKind.NORMAL:
                machine.apply(entry.index, entry.term, entry.data)
            else:
                self._apply_change(raft, entry)
            self.index, self.term = entry.index, entry.term

    def _apply_change(self, raft: Raft, entry: Entry) -> None:
        change = decode_conf_change(entry)
        if raft.role is Role.LEADER and removes(change, self._raft_id):
            raft.resign()  # while it is still listened to, so that nobody waits for a timeout
        try:
            conf_state = raft.apply_conf_change(change)
        except ConfChangeError as error:
            # The same on every node: the entry has its index, and changes nothing.
            log.warning("a membership change is impossible", extra={"index": entry.index, "reason": str(error)})
            record = self.record
        else:
            record = apply_change(self.record, change, conf_state)
            if any(self.record.member(member.raft_id) is None for member in record.members):
                self.last_addition = entry.index
        self._machine.apply_membership(entry.index, entry.term, encode_record(record))
        self.last_change = Ticket(entry.term, entry.index)
        self.record = record
        self._changed(change)


def removes(change: ConfChangeV2, raft_id: int) -> bool:
    """Tell whether a change removes a member."""
    return any(single.kind is ConfChangeKind.REMOVE and single.node == raft_id for single in change.changes)
