"""One simulated process: a driver around the real core, with the duties of the real one.

It steps what comes in, takes one `Ready` a turn, sends, hands the append job to its disk and applies; it answers clients,
reads under a lease (the real `Lease`, on a clock that may run fast or slow) or by read index, fences itself when its disk
hangs or fails, and does not lead while it is full. The class attributes are its rules of conduct; `mutations` breaks them
one at a time.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from conclave.cluster.lease import Lease
from conclave.cluster.persistence import FULL_RETRY_SECONDS, Compact
from conclave.cluster.raft import (
    AppendJob,
    BecameLeader,
    ConfChangeError,
    ConfigurationSwitched,
    Entry,
    EntryKind,
    Message,
    MessageKind,
    ProposalDropped,
    Raft,
    RaftConfig,
    Ready,
    Role,
    Snapshot,
    SnapshotMeta,
    StepError,
    decode_conf_change,
)
from conclave.cluster.timing import ELECTION_TICKS, HEARTBEAT_TICKS, LEASE_TICKS, Timing
from conclave.storage.errors import Fenced, Full
from tests.simulator.checkers import Violation
from tests.simulator.disk import Disk

if TYPE_CHECKING:
    from tests.simulator.world import World

TICK_MS = 10
FENCE_MS = 1000 * Timing().fence_seconds
READ_DEADLINE_MS = 1000
STARTUP_PROMISE_TICKS = LEASE_TICKS + 2
"""A restarted node may have promised just before it died; its ticks may run 5 % faster than those before."""


class Node:
    """One process, and its disk, which outlives it."""

    answers_before_durable: ClassVar[bool] = False
    compares_terms_of_proposals: ClassVar[bool] = True
    has_startup_promise: ClassVar[bool] = True

    def __init__(self, world: "World", node_id: int, snapshot: Snapshot | None) -> None:
        self.world = world
        self.id = node_id
        self.disk = Disk(node_id, snapshot, world.random)
        self.is_up = False
        self.is_lost = False
        self.paused_until = 0.0
        self.tick_ms = TICK_MS * (1 + world.faults.drift * (2 * world.random.random() - 1))
        self.generation = 0
        self.start(is_restart=False)

    # -- life --

    def start(self, *, is_restart: bool) -> None:
        """Begin from what the disk holds; the state machine resumes at its last durable flush."""
        applied = self.disk.state.meta.index
        config = RaftConfig(
            id=self.id,
            election_ticks=ELECTION_TICKS,
            heartbeat_ticks=HEARTBEAT_TICKS,
            lease_ticks=LEASE_TICKS,
            startup_promise_ticks=STARTUP_PROMISE_TICKS if is_restart and self.has_startup_promise else 0,
            applied=applied,
            max_size_per_message=200,
            max_inflight_messages=8,
            max_uncommitted_bytes=600,
        )
        self.raft = Raft(config, self.disk.storage(self.take_snapshot), self.world.random)
        self.applied = applied
        self.conf_at_applied = self.raft.conf_state
        self.conf_before = self.raft.conf_state
        self.lease = Lease(Timing().lease_seconds)
        self.lease_term = 0
        self.proposals: dict[int, tuple[int, bytes]] = {}  # index → (term, value)
        self.reads: dict[int, tuple[int, float]] = {}  # context → (floor, time)
        self.reads_due: list[tuple[int, int]] = []  # (read index, floor)
        self.is_full = False
        self.is_up = True
        self.generation += 1
        self._schedule_tick()

    def crash(self) -> None:
        """End the process, or the power: a transaction under way may have happened or not, its answer is never heard."""
        self.is_up = False
        self.generation += 1
        self.disk.end_process(loses_power=self.world.random.random() < 0.5)

    @property
    def is_running(self) -> bool:
        """Whether the process is up and not frozen."""
        return self.is_up and self.paused_until <= self.world.now

    def clock(self) -> float:
        """Return this node's own seconds; they run as fast as its ticks."""
        return self.world.now / 1000 * TICK_MS / self.tick_ms

    def _schedule_tick(self) -> None:
        generation = self.generation
        self.world.after(self.tick_ms, lambda: self._tick(generation))

    def _tick(self, generation: int) -> None:
        if not self.is_up or generation != self.generation:
            return
        if self.is_running and not self._is_fenced():
            self.raft.tick()
            self._resign_if_full()
            self.turn()
        self._schedule_tick()

    def _is_fenced(self) -> bool:
        """Whether the disk owes an answer for too long; a leader resigns then, and nobody's time goes on."""
        if not self.disk.writing or self.world.now - self.disk.busy_since < FENCE_MS:
            return False
        if self.raft.role is Role.LEADER:
            self.world.note(f"fence {self.id}")
            self.raft.resign()
            self.turn()
        return True

    def receive(self, message: Message) -> None:
        """Take in a message, now or when the pause is over."""
        if not self.is_up:
            return
        if not self.is_running:
            generation = self.generation
            self.world.after(
                self.paused_until - self.world.now,
                lambda: self.receive(message) if generation == self.generation else None,
            )
            return
        try:
            self.raft.step(message)
        except StepError:
            return
        self.turn()

    # -- turns --

    def turn(self) -> None:
        """Do all that the core wants done."""
        while self.is_up and self.raft.has_ready():
            self._perform(self.raft.ready())
        self._answer_reads()
        if self.is_up and self.disk.log.is_damaged:
            self.world.damaged(self)

    def _perform(self, ready: Ready) -> None:
        raft, checkers = self.raft, self.world.checkers
        checkers.advanced(self.id, self.generation, raft.term, raft.commit_index)
        for event in ready.events:
            if isinstance(event, BecameLeader):
                self._became_leader(event.term)
            elif isinstance(event, ConfigurationSwitched):
                self.lease.void(raft.heartbeat_sequence)
        self._note_round()
        for message in ready.messages:
            self.world.send(message)
        if ready.append is not None:
            self._append(ready.append)
        for read in ready.reads:
            if read.context in self.reads:
                self.reads_due.append((read.index, self.reads.pop(read.context)[0]))
        if ready.apply is not None:
            for entry in ready.apply.entries:
                self._apply(entry)
            for response in ready.apply.responses:
                raft.step(response)

    def _apply(self, entry: Entry) -> None:
        self.world.checkers.applied(self.id, self.raft.term, self.applied, entry)
        self.applied = entry.index
        if entry.kind is not EntryKind.NORMAL:
            self.conf_before = self.raft.conf_state
            try:
                self.conf_at_applied = self.raft.apply_conf_change(decode_conf_change(entry))
            except ConfChangeError as error:
                raise Violation(f"node {self.id} cannot apply the change at {entry.index}: {error}") from error
        self._acknowledge(entry)

    def _became_leader(self, term: int) -> None:
        log = self.raft.log
        held = {index: log.term(index) for index in range(log.first_index(), log.last_index() + 1)}
        self.world.note(f"leader {self.id} term={term}")
        self.world.checkers.became_leader(self.id, term, held)

    # -- disk --

    def _append(self, job: AppendJob) -> None:
        self._hand_over(job)
        if self.answers_before_durable:
            self._answer(job)

    def _hand_over(self, job: AppendJob | Compact) -> None:
        self.disk.waiting.append(job)
        if not self.disk.writing:
            self._write()

    def _write(self) -> None:
        self.disk.begin(self.world.now)
        generation = self.generation
        self.world.after(self.world.sync_ms(), lambda: self._synced(generation))

    def _synced(self, generation: int) -> None:
        if not self.is_up or generation != self.generation:
            return
        if not self.is_running:
            self.world.after(self.paused_until - self.world.now, lambda: self._synced(generation))
        elif self.world.fails(self.world.faults.crash_in_write):
            self.world.crash(self)
        else:
            self.disk.files.fails_sync = self.world.fails(self.world.faults.failed_sync)
            self._finish(generation)

    def _finish(self, generation: int) -> None:
        try:
            jobs = self.disk.finish()
        except Full:
            self._found_full(generation)
        except Fenced:
            # Whether the data are there nobody knows: stop, and begin anew from what is there.
            self.world.note(f"failed sync {self.id}")
            self.disk.fail()
            self.world.crash(self)
        else:
            self.disk.files.fails_sync = False
            self.is_full = False
            self._written(jobs)

    def _found_full(self, generation: int) -> None:
        """Try again before long, and do not lead meanwhile."""
        self.disk.files.fails_sync = False
        if not self.is_full:
            self.world.note(f"full disk {self.id}")
            self.is_full = True
        self._resign_if_full()
        self.world.after(1000 * FULL_RETRY_SECONDS, lambda: self._synced(generation))
        self.turn()

    def _resign_if_full(self) -> None:
        if self.is_full and self.raft.role is Role.LEADER:
            self.raft.resign()

    def _written(self, jobs: Sequence[AppendJob | Compact]) -> None:
        for job in jobs:
            if isinstance(job, Compact):
                continue
            if job.snapshot is not None and job.snapshot.meta.index > self.applied:
                self.applied = job.snapshot.meta.index
                self.conf_at_applied = self.conf_before = job.snapshot.meta.conf_state
            if not self.answers_before_durable:
                self._answer(job)
        if self.disk.waiting:
            self._write()
        self.turn()

    def _answer(self, job: AppendJob) -> None:
        for response in job.responses:
            if response.kind is MessageKind.VOTE_RESPONSE and not response.reject:
                self.world.checkers.voted(self.id, response.term, response.to)
            if response.to != self.id:
                self.world.send(response)
                continue
            try:
                self.raft.step(response)
            except StepError:
                continue

    def flush(self) -> None:
        """Make the applied state durable: what a restart resumes from, and what a lagging peer would be sent."""
        disk = self.disk
        if disk.state.meta.index < self.applied <= disk.log.last_index:
            disk.state = Snapshot(SnapshotMeta(self.applied, disk.log.term(self.applied), self.conf_at_applied))

    def take_snapshot(self) -> Snapshot:
        """Return the state of this moment."""
        self.flush()
        return self.disk.state

    def compact(self) -> None:
        """Flush, and forget the log before it."""
        self.flush()
        self._hand_over(Compact(self.disk.state.meta.index))

    # -- clients --

    def propose(self, value: bytes) -> None:
        """A client writes here; it learns of the outcome when this node applies the index."""
        try:
            term, index = self.raft.propose([value])
        except ProposalDropped:
            return
        self.proposals[index] = (term, value)
        self.turn()

    def _acknowledge(self, entry: Entry) -> None:
        term, value = self.proposals.pop(entry.index, (0, b""))
        if term == 0 or (term != entry.term and self.compares_terms_of_proposals):
            return
        held = frozenset(node.id for node in self.world.nodes.values() if node.disk.holds(entry.index, entry.term))
        # A membership change may be applied in the same breath as entries that the configuration before it committed.
        self.world.checkers.write_acknowledged(entry, value, held, [self.conf_at_applied, self.conf_before])

    def read(self, context: int) -> None:
        """A client reads here: under the lease if there is one, else by a read index."""
        floor = self.world.checkers.floor
        if self.has_lease():
            # Any process may be frozen between looking at its lease and at its state.
            generation = self.generation
            self.world.after(self.world.frozen_ms(), lambda: self._read_under_lease(context, floor, generation))
        else:
            self._read_by_index(context, floor)

    def _read_under_lease(self, context: int, floor: int, generation: int) -> None:
        if not self.is_up or generation != self.generation:
            return
        if not self.is_running:
            self.world.after(
                self.paused_until - self.world.now, lambda: self._read_under_lease(context, floor, generation)
            )
        elif self.has_lease():
            self.world.checkers.read_answered(floor, self.applied, f"lease read on node {self.id}")
        else:
            self._read_by_index(context, floor)

    def _read_by_index(self, context: int, floor: int) -> None:
        self.reads[context] = (floor, self.world.now)
        self.raft.read_index(context)
        self.turn()

    def _answer_reads(self) -> None:
        due = [read for read in self.reads_due if read[0] <= self.applied]
        self.reads_due = [read for read in self.reads_due if read[0] > self.applied]
        for _, floor in due:
            self.world.checkers.read_answered(floor, self.applied, f"read on node {self.id}")
        for context in [c for c, (_, at) in self.reads.items() if at + READ_DEADLINE_MS < self.world.now]:
            del self.reads[context]

    def _note_round(self) -> None:
        if self.raft.role is not Role.LEADER or self.lease_term != self.raft.term:
            self.lease.reset()
            self.lease_term = self.raft.term
        if self.raft.role is Role.LEADER:
            self.lease.sent(self.raft.heartbeat_sequence, self.clock())

    def has_lease(self) -> bool:
        """What the real node asks before it answers from its own state."""
        raft = self.raft
        if not raft.lease_usable or self.lease_term != raft.term or self.applied < raft.commit_index:
            return False
        if raft.tracker.is_singleton:
            return True
        self.lease.confirmed(raft.confirmed_sequence)
        return self.clock() < self.lease.until
