"""Deliberately broken rules: the proof that the simulator would find them.

Each mutation is a context manager that breaks one rule of the core, of the lease, or of a driver's conduct, until it is
left. A simulator that does not notice every one of them within a bounded number of seeds is blind (raft.md, sections 2, 4
and 5). The docstring of each says what the broken code would do.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from conclave.cluster import persistence
from conclave.cluster.lease import Lease
from conclave.cluster.persistence import Job
from conclave.cluster.raft import (
    NO_NODE,
    ConfState,
    Entry,
    HardState,
    MemoryStorage,
    Message,
    MessageKind,
    Raft,
    Role,
    Snapshot,
    core,
    follower,
    leader,
    quorum,
)
from conclave.cluster.raft.log import RaftLog, Unstable
from conclave.cluster.raft.progress import Progress
from conclave.cluster.raft.reads import Reads
from conclave.cluster.raft.tracker import Tracker
from conclave.storage import file_log
from conclave.storage.errors import Full
from conclave.storage.file_log import FileLog
from conclave.storage.files import Files
from conclave.storage.log import EntryTuple, HardStateRecord, LogStore
from conclave.storage.log_batches import BATCH_HEAD_BYTES, open_batch_head
from tests.simulator.disk import Disk
from tests.simulator.files import SimulatedFiles
from tests.simulator.node import Node
from tests.simulator.world import World

Mutation = Callable[[], AbstractContextManager[None]]


@contextmanager
def replaced(owner: type | ModuleType, name: str, value: Any) -> Iterator[None]:
    """Let an attribute be something else within the block."""
    before = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _hard_state_stored_as(
    changed: Callable[[HardStateRecord, HardStateRecord], HardStateRecord],
) -> AbstractContextManager[None]:
    """Have another hard state written than the one that should follow the one before."""
    remember, append = MemoryStorage.set_hard_state, FileLog.append

    def set_hard_state(self: MemoryStorage, state: HardState) -> None:
        before, after = self._hard_state, (state.term, state.vote, state.commit)
        commit = max(before.commit, self._snapshot.meta.index)
        remember(self, HardState(*changed((before.term, before.vote, commit), after)))

    def changed_append(self: FileLog, hard_state: HardStateRecord | None, entries: Sequence[EntryTuple]) -> None:
        append(self, None if hard_state is None else changed(self.hard_state, hard_state), entries)

    return _both(replaced(MemoryStorage, "set_hard_state", set_hard_state), replaced(FileLog, "append", changed_append))


# -- votes and terms --


def vote_in_memory_only() -> AbstractContextManager[None]:
    """A restarted node has forgotten whom it voted for."""
    return _hard_state_stored_as(lambda before, after: (after[0], NO_NODE, after[2]))  # noqa: ARG005  (the rule's own signature)


def vote_lost_on_stepping_down() -> AbstractContextManager[None]:
    """Stepping down clears the vote even in the same term."""
    become = Raft.become_follower

    def forgetful(self: Raft, term: int, leader_id: int) -> None:
        become(self, term, leader_id)
        self.vote = NO_NODE

    return replaced(Raft, "become_follower", forgetful)


def vote_for_any_log() -> AbstractContextManager[None]:
    """A vote goes to a candidate that lacks entries."""
    return replaced(RaftLog, "is_up_to_date", lambda self, index, term: True)  # noqa: ARG005  (the rule's own signature)


def vote_by_length_of_the_log() -> AbstractContextManager[None]:
    """The longer log wins, whatever the terms of its last entries."""

    def is_longer(self: RaftLog, index: int, term: int) -> bool:
        del term
        return index >= self.last_index()

    return replaced(RaftLog, "is_up_to_date", is_longer)


def vote_twice() -> AbstractContextManager[None]:
    """A vote is given to whoever asks."""
    answer = follower.answer_vote

    def generous(raft: Raft, message: Message) -> None:
        raft.vote = NO_NODE
        raft.leader = NO_NODE
        answer(raft, message)

    return replaced(follower, "answer_vote", generous)


def victory_by_half_of_the_votes() -> AbstractContextManager[None]:
    """Half of the voters elect a leader."""

    def vote_result(voters: Sequence[int], votes: dict[int, bool]) -> quorum.VoteResult:
        if sum(1 for voter in voters if votes.get(voter)) >= len(voters) // 2:
            return quorum.VoteResult.WON
        return quorum.VoteResult.PENDING

    return replaced(quorum, "vote_result", vote_result)


def hard_state_not_written() -> AbstractContextManager[None]:
    """Entries are stored, terms and votes are not."""

    return _hard_state_stored_as(lambda before, after: before)  # noqa: ARG005  (as above)


def votes_asked_for_before_the_own_is_durable() -> AbstractContextManager[None]:
    """A candidate asks for votes while a crash would still make it forget its term and its log."""
    return replaced(core, "_PROMISES", tuple(kind for kind in core._PROMISES if kind is not MessageKind.VOTE))


def rejoin_with_an_empty_disk() -> AbstractContextManager[None]:
    """A node whose disk was lost comes back under its old id."""
    lose = World.lose

    def reborn(self: World, node: Node) -> None:
        lose(self, node)
        node.is_lost = False
        node.disk = Disk(node.id, None, self.random)
        self.after(50, lambda: self.restart(node))

    return replaced(World, "lose", reborn)


# -- commit and log --


def commit_of_an_old_term() -> AbstractContextManager[None]:
    """An entry of an earlier term is committed by counting copies (the paper's figure 8)."""

    def maybe_commit(raft: Raft) -> bool:
        index = raft.tracker.committed_index()
        if index <= raft.log.committed:
            return False
        raft.log.commit_to(index)
        return True

    return replaced(leader, "maybe_commit", maybe_commit)


def commit_by_a_minority() -> AbstractContextManager[None]:
    """The copy of one member is enough."""
    return replaced(Tracker, "committed_index", lambda self: max(p.match for p in self.progress.values()))


def commit_by_one_half_of_a_joint_configuration() -> AbstractContextManager[None]:
    """Only the incoming majority is asked."""

    def incoming_only(incoming: Sequence[int], outgoing: Sequence[int], held: dict[int, int]) -> int:
        del outgoing
        return quorum.committed_index(incoming, held)

    return replaced(quorum, "joint_committed_index", incoming_only)


def commit_counts_learners() -> AbstractContextManager[None]:
    """The copy of a learner counts like a voter's."""

    def with_learners(self: Tracker) -> int:
        best = sorted((progress.match for progress in self.progress.values()), reverse=True)
        return quorum.committed_index(self.voters, dict(zip(self.voters, best, strict=False)))

    return replaced(Tracker, "committed_index", with_learners)


def commit_beyond_the_append() -> AbstractContextManager[None]:
    """A follower takes over the leader's commit index up to the end of its own log."""
    append = RaftLog.maybe_append

    def too_far(self: RaftLog, index: int, term: int, entries: Sequence[Entry], commit: int) -> int | None:
        last = append(self, index, term, entries, commit)
        if last is not None:
            self.commit_to(min(commit, self.last_index()))
        return last

    return replaced(RaftLog, "maybe_append", too_far)


def commit_beyond_the_match() -> AbstractContextManager[None]:
    """Heartbeats carry the leader's commit index, whatever the follower holds; it takes over what it can."""
    heartbeat, broadcast = follower.handle_heartbeat, leader.broadcast_heartbeat
    newest_commit: dict[int, int] = {}

    def greedy(raft: Raft, message: Message) -> None:
        heartbeat(raft, message)
        raft.log.commit_to(min(newest_commit.get(message.term, 0), raft.log.last_index()))

    def telling(raft: Raft) -> None:
        newest_commit[raft.term] = raft.log.committed
        broadcast(raft)

    return _both(replaced(follower, "handle_heartbeat", greedy), replaced(leader, "broadcast_heartbeat", telling))


def truncation_by_a_shorter_append() -> AbstractContextManager[None]:
    """An append whose entries are all there cuts what stands behind them."""
    append = RaftLog.maybe_append

    def cutting(self: RaftLog, index: int, term: int, entries: Sequence[Entry], commit: int) -> int | None:
        last = append(self, index, term, entries, commit)
        if last is not None and entries and self.committed < last < self.last_index():
            self.unstable.truncate_and_append(entries[-1:])
        return last

    return replaced(RaftLog, "maybe_append", cutting)


def no_look_at_the_entry_before() -> AbstractContextManager[None]:
    """A follower appends without comparing the entry before."""
    append = RaftLog.maybe_append

    def blind(self: RaftLog, index: int, term: int, entries: Sequence[Entry], commit: int) -> int | None:
        del term
        known = self.term(index) if self.first_index() - 1 <= index <= self.last_index() else -1
        return append(self, index, known, entries, commit)

    return replaced(RaftLog, "maybe_append", blind)


# -- what is durable --


def answers_before_the_sync() -> AbstractContextManager[None]:
    """Promises leave before what they promise is durable."""
    return replaced(Node, "answers_before_durable", True)


def failed_sync_tried_again() -> AbstractContextManager[None]:
    """A sync that failed is taken for one that succeeded the second time."""

    def persistent(self: FileLog) -> None:
        try:
            self._files.sync_data(self._file)
        except OSError:
            self._files.sync_data(self._file)

    return replaced(FileLog, "_sync", persistent)


def commit_lost_with_its_entries() -> AbstractContextManager[None]:
    """The commit index is not written with the entries that came with it."""
    return _hard_state_stored_as(lambda before, after: (after[0], after[1], before[2]))


def sync_skipped() -> AbstractContextManager[None]:
    """A batch is taken for durable when the kernel has it."""
    return replaced(FileLog, "_sync", lambda self: None)  # noqa: ARG005  (as above)


def last_batch_not_written_again_at_open() -> AbstractContextManager[None]:
    """What is found at the start is synced, and not written once more, although a sync may have failed before."""
    write = file_log._write_all

    def write_what_differs(files: Files, file: int, content: bytes, offset: int) -> None:
        if files.pread(file, len(content), offset) != content:
            write(files, file, content, offset)

    return replaced(file_log, "_write_all", write_what_differs)


def batch_checksum_not_checked() -> AbstractContextManager[None]:
    """A batch is believed if its head is."""

    def open_batch(content: bytes, offset: int, sequence: int, chained: int) -> bytes | None:
        del chained
        head = open_batch_head(content, offset)
        start = offset + BATCH_HEAD_BYTES
        return content[start : start + head[0]] if head is not None and head[1] == sequence else None

    return replaced(file_log, "open_batch", open_batch)


def damage_taken_for_a_torn_batch() -> AbstractContextManager[None]:
    """Whatever does not fit is cut off, with all that is behind it."""
    return replaced(file_log, "is_torn", lambda content, offset, sequence: True)  # noqa: ARG005  (as above)


def torn_batch_taken_for_damage() -> AbstractContextManager[None]:
    """A node whose power failed in the middle of a batch never starts again."""
    return replaced(file_log, "is_torn", lambda content, offset, sequence: False)  # noqa: ARG005  (as above)


def torn_batch_not_blanked() -> AbstractContextManager[None]:
    """What a torn batch left lies behind the next one."""
    write = file_log._write_zeros

    def write_at_the_end(files: Files, file: int, start: int, end: int) -> None:
        if not files.pread(file, 1, start):
            write(files, file, start, end)

    return replaced(file_log, "_write_zeros", write_at_the_end)


def folder_not_synced_after_a_rename() -> AbstractContextManager[None]:
    """A new segment may be gone after the power has failed, with the batches in it."""
    sync = SimulatedFiles.sync_folder

    def only_once(self: SimulatedFiles, folder: Path) -> None:
        if not self._durable_names:
            sync(self, folder)

    return replaced(SimulatedFiles, "sync_folder", only_once)


def segment_named_before_it_is_synced() -> AbstractContextManager[None]:
    """A segment may be there under its name without its content."""
    return replaced(SimulatedFiles, "sync", lambda self, file: None)  # noqa: ARG005  (as above)


def segments_removed_before_the_compaction_is_durable() -> AbstractContextManager[None]:
    """Segments go first, and then a batch says that they may."""
    compact = FileLog.compact

    def early(self: FileLog, index: int) -> None:
        before = self._contents.view
        if index > before.before_index:
            self._contents.view = before.compacted(index)
            self._remove_compacted()
            self._contents.view = before
        compact(self, index)

    return replaced(FileLog, "compact", early)


def full_disk_ignored() -> AbstractContextManager[None]:
    """A job for which there was no room counts as done."""
    really = persistence.perform

    def lenient(store: LogStore, job: Job) -> None:
        with suppress(Full):
            really(store, job)

    return replaced(persistence, "perform", lenient)


def storage_answer_of_another_term() -> AbstractContextManager[None]:
    """The answer of a write vouches for entries that have replaced what it wrote (ABA)."""

    def appended(self: Raft, message: Message) -> None:
        if message.index:
            self.log.unstable.stable_to(message.index, message.log_term)
        if message.snapshot is not None:
            self.log.unstable.stable_snapshot_to(message.snapshot.meta.index)
            if message.snapshot.meta.index > self.log.applied:
                self.log.applied_to(message.snapshot.meta.index, 0)

    return replaced(Raft, "_appended", appended)


def old_snapshot_installed() -> AbstractContextManager[None]:
    """A snapshot replaces the log even if it is older than the commit index."""

    def restore(raft: Raft, snapshot: Snapshot) -> bool:
        raft.log.restore(snapshot)
        raft.restore_configuration(snapshot.meta.conf_state)
        return True

    return replaced(follower, "_restore", restore)


# -- reads and leases --


def read_without_a_quorum() -> AbstractContextManager[None]:
    """A read is answered from the commit index of whoever thinks that it leads."""

    def read_index(raft: Raft, request: Message) -> None:
        raft.answer_read(request, raft.log.committed)

    return replaced(leader, "read_index", read_index)


def read_before_the_first_commit() -> AbstractContextManager[None]:
    """A new leader answers reads before it knows what its predecessors committed."""
    return replaced(Raft, "has_committed_own_term", lambda self: True)  # noqa: ARG005  (as above)


def read_confirmed_by_an_old_round() -> AbstractContextManager[None]:
    """An answer to heartbeats that were sent before the read confirms it."""
    add = Reads.add

    def too_early(self: Reads, request: Message, index: int, needed_sequence: int) -> bool:
        add(self, request, index, max(needed_sequence - 3, 0))
        return True

    return replaced(Reads, "add", too_early)


def read_of_what_is_not_applied() -> AbstractContextManager[None]:
    """A read index is answered at once, from a state that has not reached it."""

    def answer(self: Node) -> None:
        due, self.reads_due = self.reads_due, []
        for _, floor in due:
            self.world.checkers.read_answered(floor, self.applied, f"read on node {self.id}")

    return replaced(Node, "_answer_reads", answer)


def no_promise() -> AbstractContextManager[None]:
    """Nobody promises a leader anything, and the leader leans on it."""
    return replaced(Raft, "has_promised", property(lambda self: False))  # noqa: ARG005  (as above)


def promise_forgotten_at_a_restart() -> AbstractContextManager[None]:
    """A node votes right after its start, although a leader may lean on what it promised before."""
    return replaced(Node, "has_startup_promise", False)


def promise_forgotten_with_the_term() -> AbstractContextManager[None]:
    """A later term, learnt from anybody, ends the promise to the leader of the earlier one."""
    become = Raft.become_follower

    def forgetful(self: Raft, term: int, leader_id: int) -> None:
        if term > self.term:
            self._promise_ticks = 0
        become(self, term, leader_id)

    return replaced(Raft, "become_follower", forgetful)


def lease_after_a_transfer() -> AbstractContextManager[None]:
    """A leader reads under its lease after it has told another to take over."""

    def usable(self: Raft) -> bool:
        return self.role is Role.LEADER and self.has_committed_own_term()

    return replaced(Raft, "lease_usable", property(usable))


def lease_counted_from_the_answer() -> AbstractContextManager[None]:
    """The lease begins when a heartbeat is acknowledged instead of when it was sent."""

    def has_lease(self: Node) -> bool:
        if not self.raft.lease_usable or self.lease_term != self.raft.term or self.applied < self.raft.commit_index:
            return False
        known = self.lease.until
        self.lease.confirmed(self.raft.confirmed_sequence)
        if self.lease.until > known:
            self.lease.until = self.clock() + 0.17
        return self.clock() < self.lease.until

    return replaced(Node, "has_lease", has_lease)


def lease_longer_than_the_promise() -> AbstractContextManager[None]:
    """The lease lasts as long as an election timeout."""
    confirmed = Lease.confirmed

    def generous(self: Lease, sequence: int) -> None:
        self._duration_seconds = 0.5
        confirmed(self, sequence)

    return replaced(Lease, "confirmed", generous)


def lease_kept_on_resigning() -> AbstractContextManager[None]:
    """A leader says that it resigns, and goes on."""

    def resign(self: Raft) -> None:
        if self.role is Role.LEADER:
            for peer in self.tracker.members:
                if peer != self.id:
                    self.send(Message(MessageKind.RESIGNED, peer, self.id))

    return replaced(Raft, "resign", resign)


# -- membership --


def campaign_over_an_unapplied_change() -> AbstractContextManager[None]:
    """A node campaigns although it knows of a committed membership change that it has not applied."""
    return replaced(RaftLog, "has_unapplied_conf_change", lambda self: False)  # noqa: ARG005  (as above)


def several_changes_at_once() -> AbstractContextManager[None]:
    """A leader takes membership changes while others wait to be applied."""
    return replaced(leader, "_refusal", lambda raft, change: "")  # noqa: ARG005  (as above)


def configuration_not_restored() -> AbstractContextManager[None]:
    """A snapshot is installed without the configuration that belongs to it."""
    restore = Raft.restore_configuration

    def once(self: Raft, conf_state: ConfState) -> None:
        if not self.tracker.members:
            restore(self, conf_state)

    return replaced(Raft, "restore_configuration", once)


# -- what a client is told --


def proposal_told_by_its_index_alone() -> AbstractContextManager[None]:
    """A client hears of success for an entry that another leader wrote at the same index."""
    return replaced(Node, "compares_terms_of_proposals", False)


# -- liveness --


def lost_message_never_made_good() -> AbstractContextManager[None]:
    """A full window, or a probe under way, waits for an answer for ever."""
    heartbeat = leader._heartbeat_answered

    def unforgiving(raft: Raft, message: Message) -> None:
        if raft.tracker.progress[message.source].flow_paused:
            raft.tracker.progress[message.source].recently_active = True
        else:
            heartbeat(raft, message)

    return replaced(leader, "_heartbeat_answered", unforgiving)


def later_term_kept_secret() -> AbstractContextManager[None]:
    """A node whose term got stuck above the leader's does not say so."""

    def silent(self: Raft, message: Message) -> None:
        self.ignored(message, "of an earlier term")

    return replaced(Raft, "_answer_lower_term", silent)


def commit_not_told_with_votes() -> AbstractContextManager[None]:
    """Votes do not tell what is committed, so that two members may wait for each other's configuration for ever."""
    return replaced(follower, "learn_commit", lambda raft, message: None)  # noqa: ARG005  (as above)


def uncommitted_bytes_never_freed() -> AbstractContextManager[None]:
    """What was applied still counts as uncommitted."""
    return replaced(leader, "applied", lambda raft, entries: None)  # noqa: ARG005  (as above)


def next_falls_behind_a_late_refusal() -> AbstractContextManager[None]:
    """A refusal moves `next` wherever it points, even behind what is known to match, and never ahead again."""

    def decrease(self: Progress, rejected: int, hint: int) -> bool:
        del rejected
        self.match = min(self.match, hint)
        self.next = hint + 1
        self.flow_paused = False
        return True

    return replaced(Progress, "maybe_decrease", decrease)


def snapshot_report_ignored() -> AbstractContextManager[None]:
    """A snapshot that got lost is waited for forever."""
    return replaced(leader, "snapshot_done", lambda raft, peer, *, ok: None)  # noqa: ARG005  (as above)


def unstable_tail_not_rewound() -> AbstractContextManager[None]:
    """Entries that replace others which were handed to the storage are not handed to it again."""

    def truncate_and_append(self: Unstable, entries: Sequence[Entry]) -> None:
        first = entries[0].index
        if first <= self.offset:
            self.entries = list(entries)
            self.offset = first
            self.offset_in_progress = max(first, min(self.offset_in_progress, first + len(entries)))
        else:
            del self.entries[first - self.offset :]
            self.entries.extend(entries)

    return replaced(Unstable, "truncate_and_append", truncate_and_append)


@contextmanager
def _both(first: AbstractContextManager[None], second: AbstractContextManager[None]) -> Iterator[None]:
    with first, second:
        yield


MUTATIONS: Final[dict[str, Mutation]] = {
    mutation.__name__: mutation
    for mutation in (
        vote_in_memory_only,
        vote_lost_on_stepping_down,
        vote_for_any_log,
        vote_by_length_of_the_log,
        vote_twice,
        victory_by_half_of_the_votes,
        votes_asked_for_before_the_own_is_durable,
        rejoin_with_an_empty_disk,
        hard_state_not_written,
        commit_of_an_old_term,
        commit_by_a_minority,
        commit_by_one_half_of_a_joint_configuration,
        commit_counts_learners,
        commit_beyond_the_append,
        commit_beyond_the_match,
        commit_lost_with_its_entries,
        truncation_by_a_shorter_append,
        no_look_at_the_entry_before,
        answers_before_the_sync,
        failed_sync_tried_again,
        sync_skipped,
        last_batch_not_written_again_at_open,
        batch_checksum_not_checked,
        damage_taken_for_a_torn_batch,
        torn_batch_taken_for_damage,
        torn_batch_not_blanked,
        folder_not_synced_after_a_rename,
        segment_named_before_it_is_synced,
        segments_removed_before_the_compaction_is_durable,
        full_disk_ignored,
        storage_answer_of_another_term,
        unstable_tail_not_rewound,
        old_snapshot_installed,
        read_without_a_quorum,
        read_before_the_first_commit,
        read_confirmed_by_an_old_round,
        read_of_what_is_not_applied,
        no_promise,
        promise_forgotten_at_a_restart,
        promise_forgotten_with_the_term,
        lease_after_a_transfer,
        lease_counted_from_the_answer,
        lease_longer_than_the_promise,
        lease_kept_on_resigning,
        campaign_over_an_unapplied_change,
        several_changes_at_once,
        configuration_not_restored,
        proposal_told_by_its_index_alone,
        lost_message_never_made_good,
        later_term_kept_secret,
        uncommitted_bytes_never_freed,
        commit_not_told_with_votes,
        next_falls_behind_a_late_refusal,
        snapshot_report_ignored,
    )
}
