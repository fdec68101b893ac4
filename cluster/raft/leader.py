"""What a leader does: replicate, commit, keep its leadership or give it up.

Rules kept here: the commit index moves only over an entry of the leader's own term (dissertation, section 3.6.2), counted
by the voters alone; the leader's own copy counts when it is durable; a peer's `next` never falls to its `match`; a lost
message never stops replication for ever; reads are answered only after the first commit of the term.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from conclave.cluster.raft.confchange import leaves_joint
from conclave.cluster.raft.config import ReadOnly
from conclave.cluster.raft.errors import (
    Compacted,
    DropReason,
    ProposalDropped,
    SnapshotTemporarilyUnavailable,
    Unavailable,
)
from conclave.cluster.raft.log import payload_size
from conclave.cluster.raft.messages import (
    NO_NODE,
    ConfChangeV2,
    Entry,
    EntryKind,
    Message,
    MessageKind,
    decode_conf_change,
    encode_conf_change,
)
from conclave.cluster.raft.progress import Progress, ProgressState
from conclave.cluster.raft.ready import MessageIgnored, Role

if TYPE_CHECKING:
    from conclave.cluster.raft.core import Raft


def tick(raft: Raft) -> None:
    """Let one tick pass: check for a quorum every election timeout, send heartbeats at their interval."""
    raft.heartbeat_elapsed += 1
    raft.election_elapsed += 1
    if raft.election_elapsed >= raft.config.election_ticks:
        raft.election_elapsed = 0
        if raft.config.check_quorum:
            _check_quorum(raft)
        raft.transferee = NO_NODE  # a transfer that takes longer than this has failed
    if raft.role is Role.LEADER and raft.heartbeat_elapsed >= raft.config.heartbeat_ticks:
        raft.heartbeat_elapsed = 0
        broadcast_heartbeat(raft)


def _check_quorum(raft: Raft) -> None:
    if not raft.tracker.quorum_is_active(raft.id):
        raft.become_follower(raft.term, NO_NODE)
        return
    for peer, progress in raft.tracker.progress.items():
        if peer != raft.id:
            progress.recently_active = False


# -- proposals --


def propose(raft: Raft, entries: list[Entry]) -> int:
    """Append entries as proposals and send them on; return the first index.

    Raises:
        ProposalDropped: nothing was appended.
    """
    if raft.role is not Role.LEADER:
        raise ProposalDropped(DropReason.NOT_LEADER)
    if raft.id not in raft.tracker.progress:
        raise ProposalDropped(DropReason.REMOVED)
    if raft.transferee != NO_NODE:
        raise ProposalDropped(DropReason.TRANSFERRING)
    first = raft.log.last_index() + 1
    checked = [
        entry if entry.kind is EntryKind.NORMAL else _checked_change(raft, entry, first + offset)
        for offset, entry in enumerate(entries)
    ]
    if not append(raft, checked):
        raise ProposalDropped(DropReason.FULL)
    broadcast_append(raft)
    return first


def _propose_forwarded(raft: Raft, message: Message) -> None:
    try:
        propose(raft, list(message.entries))
    except ProposalDropped as dropped:  # its sender has no claim to an answer, and asks again
        raft.ignored(message, dropped.reason.value)


def _checked_change(raft: Raft, entry: Entry, index: int) -> Entry:
    """Return a membership change, or the empty entry that takes its place if it may not be made now."""
    refusal = _refusal(raft, decode_conf_change(entry))
    if refusal and not raft.config.disable_conf_change_validation:
        raft.note(MessageIgnored(MessageKind.PROPOSE, raft.id, refusal))
        return Entry(0, 0)
    raft.pending_conf_index = index
    return entry


def _refusal(raft: Raft, change: ConfChangeV2) -> str:
    is_joint = raft.tracker.configuration.is_joint
    if raft.pending_conf_index > raft.log.applied:
        return "possible unapplied membership change"
    if is_joint and not leaves_joint(change):
        return "must leave the joint configuration first"
    if not is_joint and leaves_joint(change):
        return "not in a joint configuration"
    return ""


def append(raft: Raft, entries: Sequence[Entry]) -> bool:
    """Give entries their term and index and put them into the log; False if too much is uncommitted."""
    size = payload_size(entries)
    if raft.uncommitted_bytes > 0 and size > 0 and raft.uncommitted_bytes + size > raft.config.max_uncommitted_bytes:
        return False
    raft.uncommitted_bytes += size
    index = raft.log.last_index()
    numbered = [Entry(raft.term, index + i, entry.kind, entry.data) for i, entry in enumerate(entries, 1)]
    last = raft.log.append(numbered)
    # The leader's own copy is acknowledged like any other: by a message that waits for the disk.
    raft.send(Message(MessageKind.APPEND_RESPONSE, raft.id, raft.id, index=last))
    return True


def applied(raft: Raft, entries: Sequence[Entry]) -> None:
    """Take in that entries were applied: they count no longer as uncommitted, and a joint configuration may be left."""
    raft.uncommitted_bytes = max(0, raft.uncommitted_bytes - payload_size(entries))
    if raft.tracker.configuration.auto_leave and raft.log.applied >= raft.pending_conf_index:
        kind, data = encode_conf_change(ConfChangeV2())
        try:
            propose(raft, [Entry(0, 0, kind, data)])
        except ProposalDropped as dropped:  # it is tried again with the next entry that is applied
            raft.note(MessageIgnored(MessageKind.PROPOSE, raft.id, dropped.reason.value))


# -- sending --


def broadcast_append(raft: Raft) -> None:
    """Send every peer what it lacks, as far as its window allows."""
    for peer in raft.tracker.members:
        if peer != raft.id:
            send_append(raft, peer)


def send_append(raft: Raft, peer: int, *, send_if_empty: bool = True) -> bool:
    """Send a peer the entries that come next, or a snapshot if they are gone; return whether anything was sent."""
    progress = raft.tracker.progress[peer]
    if progress.is_paused:
        return False
    previous = progress.next - 1
    try:
        previous_term = raft.log.term(previous)
    except (Compacted, Unavailable):
        return _send_snapshot(raft, peer, progress)
    entries: Sequence[Entry] = ()
    if progress.state is not ProgressState.REPLICATE or not progress.inflights.is_full:
        # Through a full window only empty appends go: they carry the commit index and find out about losses.
        try:
            entries = raft.log.entries(progress.next, raft.config.max_size_per_message)
        except (Compacted, Unavailable):
            return _send_snapshot(raft, peer, progress)
    if not entries and not send_if_empty:
        return False
    raft.send(
        Message(
            MessageKind.APPEND,
            peer,
            raft.id,
            log_term=previous_term,
            index=previous,
            commit=raft.log.committed,
            entries=tuple(entries),
        )
    )
    progress.sent_entries(len(entries), payload_size(entries))
    progress.sent_commit = raft.log.committed
    return True


def _send_snapshot(raft: Raft, peer: int, progress: Progress) -> bool:
    if not progress.recently_active:
        return False
    try:
        snapshot = raft.log.snapshot()
    except SnapshotTemporarilyUnavailable:
        return False
    progress.become_snapshot(snapshot.meta.index)
    raft.send(Message(MessageKind.SNAPSHOT, peer, raft.id, snapshot=snapshot))
    return True


def broadcast_heartbeat(raft: Raft) -> None:
    """Start a new numbered round of heartbeats."""
    raft.heartbeat_sequence += 1
    for peer, progress in raft.tracker.progress.items():
        if peer != raft.id:
            # Never more than the peer is known to have: a heartbeat must not commit what may be missing there.
            commit = min(progress.match, raft.log.committed)
            raft.send(Message(MessageKind.HEARTBEAT, peer, raft.id, commit=commit, sequence=raft.heartbeat_sequence))
    _release_reads(raft)


# -- answers --


def step(raft: Raft, message: Message) -> None:
    """Take in one message of the present term."""
    kind = message.kind
    if kind is MessageKind.APPEND_RESPONSE:
        _append_answered(raft, message)
    elif kind is MessageKind.HEARTBEAT_RESPONSE:
        _heartbeat_answered(raft, message)
    elif kind is MessageKind.READ_INDEX:
        read_index(raft, message)
    elif kind is MessageKind.TRANSFER_LEADER:
        transfer(raft, message)
    elif kind is MessageKind.PROPOSE:
        _propose_forwarded(raft, message)
    else:
        raft.ignored(message, "not for a leader")


def _append_answered(raft: Raft, message: Message) -> None:
    progress = raft.tracker.progress.get(message.source)
    if progress is None:
        return
    progress.recently_active = True
    if message.reject:
        _append_refused(raft, message, progress)
    else:
        _append_accepted(raft, message, progress)


def _append_refused(raft: Raft, message: Message, progress: Progress) -> None:
    hint = message.reject_hint
    if message.log_term > 0:
        # Both sides skip whole terms: one round for each term at most.
        hint, _ = raft.log.find_conflict_by_term(message.reject_hint, message.log_term)
    if progress.maybe_decrease(message.index, hint):
        if progress.state is ProgressState.REPLICATE:
            progress.become_probe()
        send_append(raft, message.source)


def _append_accepted(raft: Raft, message: Message, progress: Progress) -> None:
    peer = message.source
    is_news = progress.maybe_update(message.index)
    if not is_news and not (progress.match == message.index and progress.state is ProgressState.PROBE):
        return
    if progress.state is ProgressState.PROBE:
        progress.become_replicate()
    elif progress.state is ProgressState.SNAPSHOT:
        if progress.match + 1 >= raft.log.first_index():
            # It can be served from the log now, wherever it got its state from.
            progress.become_probe()
            progress.become_replicate()
    else:
        progress.inflights.free_up_to(message.index)
    if maybe_commit(raft):
        _release_postponed(raft)
        broadcast_append(raft)
    elif peer != raft.id and progress.may_lack_commit(raft.log.committed):
        send_append(raft, peer)
    if peer != raft.id:
        while send_append(raft, peer, send_if_empty=False):
            pass
    if peer == raft.transferee and progress.match == raft.log.last_index():
        _send_timeout_now(raft, peer)


def maybe_commit(raft: Raft) -> bool:
    """Move the commit index as far as a quorum allows; return whether it moved."""
    index = raft.tracker.committed_index()
    if index <= raft.log.committed or not raft.log.matches(index, raft.term):
        return False
    raft.log.commit_to(index)
    return True


def _heartbeat_answered(raft: Raft, message: Message) -> None:
    peer = message.source
    progress = raft.tracker.progress.get(peer)
    if progress is None:
        return
    progress.recently_active = True
    progress.flow_paused = False
    if progress.match < raft.log.last_index() or progress.state is ProgressState.PROBE:
        send_append(raft, peer)
    raft.reads.acknowledge(peer, message.sequence)
    _release_reads(raft)


def unreachable(raft: Raft, peer: int) -> None:
    """Take in that a message was lost: send no more ahead of the answers."""
    progress = raft.tracker.progress.get(peer)
    if progress is not None and progress.state is ProgressState.REPLICATE:
        progress.become_probe()


def snapshot_done(raft: Raft, peer: int, *, ok: bool) -> None:
    """Take in what became of a snapshot; the next answer or heartbeat answer starts replication again."""
    progress = raft.tracker.progress.get(peer)
    if progress is None or progress.state is not ProgressState.SNAPSHOT:
        return
    if not ok:
        progress.pending_snapshot = 0
    progress.become_probe()
    progress.flow_paused = True


# -- reads --


def read_index(raft: Raft, request: Message) -> None:
    """Answer a read, once it is sure that this node still leads."""
    if raft.tracker.is_singleton and raft.id in raft.tracker.configuration.incoming:
        # Alone: its word is a quorum. Still not before its own first commit, see below.
        if raft.has_committed_own_term():
            raft.answer_read(request, raft.log.committed)
        else:
            raft.reads.postpone(request)
    elif not raft.has_committed_own_term():
        # An earlier leader may have committed what this one does not know to be committed yet.
        raft.reads.postpone(request)
    elif raft.config.read_only is ReadOnly.LEASE:
        raft.answer_read(request, raft.log.committed)
    elif raft.reads.add(request, raft.log.committed, raft.heartbeat_sequence + 1):
        broadcast_heartbeat(raft)


def _release_postponed(raft: Raft) -> None:
    if raft.has_committed_own_term():
        for request in raft.reads.take_postponed():
            read_index(raft, request)


def _release_reads(raft: Raft) -> None:
    if raft.reads.is_waiting:
        for index, request in raft.reads.release(raft.confirmed_sequence):
            raft.answer_read(request, index)


# -- leadership and membership --


def transfer(raft: Raft, message: Message) -> None:
    """Begin to hand leadership to `message.source`; another transfer under way is replaced."""
    target = message.source
    progress = raft.tracker.progress.get(target)
    if progress is None or raft.tracker.is_learner(target) or target in (raft.transferee, raft.id):
        raft.ignored(message, "cannot take leadership over")
        return
    raft.election_elapsed = 0  # so it has one election timeout
    raft.transferee = target
    if progress.match == raft.log.last_index():
        _send_timeout_now(raft, target)
    else:
        send_append(raft, target)


def _send_timeout_now(raft: Raft, target: int) -> None:
    raft.has_sent_timeout_now = True
    raft.send(Message(MessageKind.TIMEOUT_NOW, target, raft.id))


def configuration_switched(raft: Raft) -> None:
    """Adjust to a configuration that was just put into force."""
    is_member = raft.id in raft.tracker.progress
    if not is_member or raft.tracker.is_learner(raft.id):
        if raft.config.step_down_on_removal:
            raft.become_follower(raft.term, NO_NODE)
        return
    if not raft.tracker.voters:
        return
    if maybe_commit(raft):
        _release_postponed(raft)
        broadcast_append(raft)
    else:
        for peer in raft.tracker.members:
            if peer != raft.id:
                send_append(raft, peer, send_if_empty=False)
    if raft.transferee not in raft.tracker.voters:
        raft.transferee = NO_NODE
    _release_reads(raft)
