"""One simulated cluster: nodes with the real core, a disk each, a network between them, clients; all from one seed.

Time is virtual, in milliseconds; an event queue plays it. A node's driver does what the real one does: it collects what
came in, steps the core, takes one `Ready` a turn, sends messages, hands the append job to its disk's queue and applies.
Disk writes take time, and a crash loses those that are not done; one that was under way may or may not have happened.
"""

import heapq
import zlib
from collections.abc import Callable
from random import Random

from conclave.cluster.raft import (
    AppendJob,
    BecameLeader,
    Compacted,
    ConfChange,
    ConfChangeError,
    ConfChangeKind,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    MemoryStorage,
    Message,
    MessageKind,
    ProposalDropped,
    Raft,
    RaftConfig,
    Role,
    Snapshot,
    SnapshotMeta,
    StepError,
    decode_conf_change,
)
from tests.simulator.checkers import Checkers, Violation
from tests.simulator.faults import Faults, draw

TICK_MS = 10
ELECTION_TICKS, LEASE_TICKS, HEARTBEAT_TICKS = 50, 20, 5
LEASE_MS = 0.9 * LEASE_TICKS * TICK_MS - 10
FIRST_VOTERS = (1, 2, 3)
SPARE_NODES = (4, 5)
CLIENT_PAUSE_MS = 25
READ_DEADLINE_MS = 1000
FIRST_ENTRY = Entry(1, 1)
"""What the snapshot that all founders start from stands for."""
HEAL_MS_MAX = 12_000
"""Within so much fault-free time a write must commit and all nodes converge."""


class Disk:
    """What is durable, and the writes on their way there, in order."""

    def __init__(self, storage: MemoryStorage) -> None:
        self.storage = storage
        self.queue: list[AppendJob] = []

    def write(self, job: AppendJob) -> None:
        """Make one job durable."""
        if job.snapshot is not None:
            self.storage.apply_snapshot(job.snapshot)
        if job.entries:
            self.storage.append(job.entries)
        if job.must_sync:
            self.storage.set_hard_state(job.hard_state)

    def holds(self, index: int, term: int) -> bool:
        """Whether an entry (or a snapshot that covers it) is durable."""
        try:
            return self.storage.last_index() >= index and self.storage.term(index) == term
        except Compacted:
            return True


class Node:
    """One simulated process."""

    def __init__(self, world: "World", node_id: int, snapshot: Snapshot | None) -> None:
        self.world = world
        self.id = node_id
        self.disk = Disk(MemoryStorage(snapshot))
        self.is_up = False
        self.paused_until = 0.0
        self.tick_ms = TICK_MS * (1 + world.faults.drift * (2 * world.random.random() - 1))
        self.generation = 0
        self.start(is_restart=False)

    def start(self, *, is_restart: bool) -> None:
        """Begin from what the disk holds; the state machine resumes at its last durable flush."""
        storage = self.disk.storage
        snapshot = storage.snapshot()
        hard_state, _ = storage.initial_state()
        # The state may have been flushed beyond the last commit index that was written.
        commit = max(hard_state.commit, snapshot.meta.index)
        storage.set_hard_state(HardState(hard_state.term, hard_state.vote, commit))
        config = RaftConfig(
            id=self.id,
            election_ticks=ELECTION_TICKS,
            heartbeat_ticks=HEARTBEAT_TICKS,
            lease_ticks=LEASE_TICKS,
            startup_promise_ticks=LEASE_TICKS + 2 if is_restart else 0,
            applied=snapshot.meta.index,
            max_size_per_message=200,
            max_inflight_messages=8,
        )
        self.raft = Raft(config, storage, self.world.random)
        self.applied = snapshot.meta.index
        self.conf_before = self.raft.conf_state
        self.disk.queue = []
        self.proposals: dict[int, tuple[int, float]] = {}  # index → (term, time)
        self.reads: dict[int, tuple[int, float]] = {}  # context → (floor, time)
        self.reads_due: list[tuple[int, int]] = []  # (read index, floor)
        self.rounds: dict[int, float] = {}
        self.round_term = 0
        self.is_up = True
        self.generation += 1
        self.schedule_tick()

    def schedule_tick(self) -> None:
        generation = self.generation
        self.world.after(self.tick_ms, lambda: self.tick(generation))

    def tick(self, generation: int) -> None:
        if self.is_up and generation == self.generation:
            if self.paused_until <= self.world.now:
                self.raft.tick()
                self.turn()
            self.schedule_tick()

    def crash(self) -> None:
        """Lose everything that is not durable; a write under way may have happened, its answer is never heard."""
        self.is_up = False
        self.generation += 1
        if self.disk.queue and self.world.random.random() < 0.5:
            self.disk.write(self.disk.queue[0])
        self.disk.queue = []

    def receive(self, message: Message) -> None:
        """Take in a message, now or when the pause is over."""
        if not self.is_up:
            return
        if self.paused_until > self.world.now:
            self.world.after(self.paused_until - self.world.now, lambda: self.receive(message))
            return
        try:
            self.raft.step(message)
        except StepError:
            return
        self.turn()

    def turn(self) -> None:
        """Do all that the core wants done."""
        raft = self.raft
        while self.is_up and raft.has_ready():
            ready = raft.ready()
            for event in ready.events:
                if isinstance(event, BecameLeader):
                    self._became_leader(event.term)
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
                    self.world.checkers.applied(self.id, self.applied, entry)
                    self.applied = entry.index
                    if entry.kind is not EntryKind.NORMAL:
                        self._apply_change(entry.index)
                    self._acknowledge(entry.index, entry.term)
                for response in ready.apply.responses:
                    raft.step(response)
        self._answer_reads()

    def _apply_change(self, index: int) -> None:
        change = decode_conf_change(self.world.checkers.committed[index])
        self.conf_before = self.raft.conf_state
        try:
            self.raft.apply_conf_change(change)
        except ConfChangeError as error:
            raise Violation(f"node {self.id} cannot apply the committed change at {index}: {error}") from error
        # The membership is stored with the state, in the same transaction.
        self.flush()

    def _became_leader(self, term: int) -> None:
        log = self.raft.log
        held = {index: log.term(index) for index in range(log.first_index(), log.last_index() + 1)}
        self.world.checkers.became_leader(self.id, term, held)

    def _append(self, job: AppendJob) -> None:
        self.disk.queue.append(job)
        if self.world.answers_early:
            self._answer(job)
        if len(self.disk.queue) == 1:
            self._write_next()

    def _write_next(self) -> None:
        generation = self.generation
        self.world.after(self.world.sync_ms(), lambda: self._written(generation))

    def _written(self, generation: int) -> None:
        if not self.is_up or generation != self.generation:
            return
        if self.paused_until > self.world.now:
            self.world.after(self.paused_until - self.world.now, lambda: self._written(generation))
            return
        job = self.disk.queue[0]
        self.disk.write(job)
        if job.snapshot is not None:
            self.applied = max(self.applied, job.snapshot.meta.index)
        self.disk.queue.pop(0)
        if self.disk.queue:
            self._write_next()
        if not self.world.answers_early:
            self._answer(job)
        self.turn()

    def _answer(self, job: AppendJob) -> None:
        for response in job.responses:
            if response.kind is MessageKind.VOTE_RESPONSE and not response.reject:
                self.world.checkers.voted(self.id, response.term, response.to)
            if response.to == self.id:
                try:
                    self.raft.step(response)
                except StepError:
                    continue
            else:
                self.world.send(response)

    # -- clients --

    def propose(self, value: bytes) -> None:
        """A client writes here; it learns of the outcome when this node applies the index."""
        try:
            term, index = self.raft.propose([value])
        except ProposalDropped:
            return
        self.proposals[index] = (term, self.world.now)
        self.turn()

    def _acknowledge(self, index: int, term: int) -> None:
        proposal = self.proposals.pop(index, None)
        if proposal is None or proposal[0] != term:
            return
        # A membership change may be applied in the same breath as entries that the configuration before it committed.
        held = frozenset(node.id for node in self.world.nodes.values() if node.disk.holds(index, term))
        self.world.checkers.write_acknowledged(index, held, [self.raft.conf_state, self.conf_before])

    def read(self, context: int) -> None:
        """A client reads here: under the lease if there is one, else by a read index."""
        floor = self.world.checkers.floor
        if self.has_lease():
            self.world.checkers.read_answered(floor, self.applied, f"lease read on node {self.id}")
            return
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
        if self.raft.term != self.round_term:
            self.rounds, self.round_term = {}, self.raft.term
        if self.raft.role is Role.LEADER:
            self.rounds.setdefault(self.raft.heartbeat_sequence, self.world.now)

    def has_lease(self) -> bool:
        """What the real node asks before it answers from its own state."""
        raft = self.raft
        if raft.role is not Role.LEADER or not raft.lease_usable or self.round_term != raft.term:
            return False
        if not raft.has_committed_own_term() or self.applied < self.raft.commit_index:
            return False
        if raft.tracker.is_singleton:
            return True
        sent = self.rounds.get(raft.confirmed_sequence)
        # The node's own clock may run slow by the drift it can have.
        return bool(raft.confirmed_sequence) and sent is not None and self.world.now < sent + LEASE_MS * 0.85

    def flush(self) -> None:
        """Make the applied state durable: what a restart resumes from, and what a lagging peer would be sent."""
        if self.applied > self.disk.storage.snapshot().meta.index and self.applied <= self.disk.storage.last_index():
            self.disk.storage.create_snapshot(self.applied, self.raft.conf_state)

    def compact(self) -> None:
        """Flush, and forget the log before it."""
        self.flush()
        index = self.disk.storage.snapshot().meta.index
        if self.disk.storage.first_index() <= index <= self.disk.storage.last_index():
            self.disk.storage.compact(index)


class World:
    """One seed."""

    def __init__(self, seed: int, faults: Faults | None = None, *, trace: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.faults = faults if faults is not None else draw(self.random)
        self.checkers = Checkers()
        self.now = 0.0
        self.hash = 0
        self.answers_early = False  # a planted fault: promises leave before they are durable
        self._trace = trace
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._cut: set[tuple[int, int]] = set()
        self._operations = 0
        first = Snapshot(SnapshotMeta(1, 1, ConfState(FIRST_VOTERS)))
        self.nodes: dict[int, Node] = {}
        for node_id in FIRST_VOTERS:
            self.nodes[node_id] = Node(self, node_id, first)
        self.checkers.last_committed = 1
        self.checkers.committed[1] = FIRST_ENTRY

    # -- time and network --

    def after(self, delay_ms: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self._count += 1
        heapq.heappush(self._queue, (self.now + delay_ms, self._count, action))

    def run(self, until_ms: float, stop: Callable[[], bool] = lambda: False) -> bool:
        """Play events up to a time; return whether `stop` came true before."""
        while self._queue and self._queue[0][0] <= until_ms:
            self.now, _, action = heapq.heappop(self._queue)
            action()
            if stop():
                return True
        self.now = until_ms
        return stop()

    def note(self, *facts: object) -> None:
        """Put what happened into the event hash, and into the trace."""
        line = f"{self.now:.3f} " + " ".join(map(str, facts))
        self.hash = zlib.crc32(line.encode(), self.hash)
        if self._trace is not None:
            self._trace(line)

    def send(self, message: Message) -> None:
        """Put a message on the network."""
        faults, random = self.faults, self.random
        self.note(message.kind.name, message.source, message.to, message.term, message.index, len(message.entries))
        copies = 2 if random.random() < faults.duplication else 1
        if message.kind is MessageKind.SNAPSHOT:
            # The real sender streams the state beside the core and always says in the end how that went.
            self.after(50 + random.random() * 300, lambda: self._report_snapshot(message))
        for _ in range(copies):
            if random.random() < faults.loss or (message.source, message.to) in self._cut:
                continue
            delay = 0.2 + random.random() * faults.delay_ms_max
            if random.random() < faults.heavy_delay:
                delay += random.random() * 1000
            self.after(delay, lambda: self._arrive(message))

    def _arrive(self, message: Message) -> None:
        node = self.nodes.get(message.to)
        if node is not None and (message.source, message.to) not in self._cut:
            node.receive(message)

    def _report_snapshot(self, message: Message) -> None:
        node = self.nodes[message.source]
        if node.is_up and node.paused_until <= self.now:
            node.raft.report_snapshot(message.to, ok=self.random.random() < 0.5)
            node.turn()
        else:
            self.after(100, lambda: self._report_snapshot(message))

    def sync_ms(self) -> float:
        """How long the next disk write takes."""
        slow = self.random.random() * 1000 if self.random.random() < self.faults.slow_sync else 0
        return 0.2 + self.random.random() * self.faults.sync_ms_max + slow

    # -- disturbances --

    def disturb(self) -> None:
        """Do one of the things that go wrong in this seed, and plan the next."""
        faults, random = self.faults, self.random
        node = self.nodes[random.choice(sorted(self.nodes))]
        kinds: list[tuple[float, Callable[[Node], None]]] = [
            (faults.crash, self._crash),
            (faults.cut, self._cut_link),
            (faults.partition, self._partition),
            (faults.pause, self._pause),
            (faults.transfer, self._transfer),
            (faults.resign, lambda n: n.raft.resign() if n.is_up else None),
            (faults.membership, self._change_membership),
            (faults.hint, lambda n: n.raft.leader_connection_lost() if n.is_up else None),
            (faults.compact, lambda n: n.compact() if n.is_up else None),
        ]
        probability, disturbance = kinds[random.randrange(len(kinds))]
        if random.random() < probability:
            disturbance(node)
            if node.is_up:
                node.turn()
        if not self._is_healing:
            self.after(random.random() * 2 * faults.disturb_ms, self.disturb)

    _is_healing = False

    def _crash(self, node: Node) -> None:
        self.note("crash", node.id)
        node.crash()
        self.after(self.random.random() * 600, lambda: self._restart(node))

    def _restart(self, node: Node) -> None:
        if not node.is_up:
            self.note("restart", node.id)
            node.start(is_restart=True)

    def _cut_link(self, node: Node) -> None:
        link = (node.id, self.random.choice(sorted(self.nodes)))
        self.note("cut", *link)
        self._cut.add(link)
        self.after(self.random.random() * 1500, lambda: self._cut.discard(link))

    def _partition(self, node: Node) -> None:
        others = [other for other in sorted(self.nodes) if other != node.id]
        side = {node.id, *self.random.sample(others, self.random.randrange(len(others)))}
        links = {(a, b) for a in self.nodes for b in self.nodes if (a in side) != (b in side)}
        self.note("partition", sorted(side))
        self._cut |= links
        self.after(self.random.random() * 2000, lambda: self._cut.difference_update(links))

    def _pause(self, node: Node) -> None:
        node.paused_until = self.now + self.random.random() * 1500
        self.note("pause", node.id)

    def _transfer(self, node: Node) -> None:
        if node.is_up:
            node.raft.transfer_leader(self.random.choice(sorted(self.nodes)))

    def _change_membership(self, node: Node) -> None:
        if not node.is_up or node.raft.role is not Role.LEADER:
            return
        state = node.raft.conf_state
        outside = [spare for spare in SPARE_NODES if spare not in (*state.voters, *state.learners)]
        if state.learners and self.random.random() < 0.6:
            change = ConfChange(ConfChangeKind.ADD_VOTER, state.learners[0])
        elif outside and self.random.random() < 0.6:
            if outside[0] not in self.nodes:
                self.nodes[outside[0]] = Node(self, outside[0], None)
            change = ConfChange(ConfChangeKind.ADD_LEARNER, outside[0])
        elif len(state.voters) > len(FIRST_VOTERS):
            change = ConfChange(ConfChangeKind.REMOVE, self.random.choice(state.voters))
        else:
            return
        self.note("membership", change.kind.name, change.node)
        try:
            node.raft.propose_conf_change(change)
        except ProposalDropped:
            return

    # -- clients --

    def operate(self) -> None:
        """One client operation on some node, and the next one later."""
        node = self.nodes[self.random.choice(sorted(self.nodes))]
        self._operations += 1
        if node.is_up and node.paused_until <= self.now:
            if self.random.random() < 0.5:
                leaders = [n for n in self.nodes.values() if n.is_up and n.raft.role is Role.LEADER]
                for leader in leaders:  # a deposed leader is written to like the real one
                    leader.propose(f"{self._operations}@{leader.id}".encode())
            else:
                node.read(self._operations)
        self.after(self.random.random() * 2 * CLIENT_PAUSE_MS, self.operate)

    # -- the whole play --

    def play(self, fault_ms: float) -> None:
        """Faults first, then healing: a write must commit and all members converge within a bound."""
        self.after(1, self.operate)
        if self.faults.disturb_ms:
            self.after(self.faults.disturb_ms, self.disturb)
        self.run(fault_ms)
        self.heal()

    def heal(self) -> None:
        """End all faults and demand progress."""
        self._is_healing = True
        self._cut.clear()
        self.faults = Faults()
        for node in self.nodes.values():
            node.paused_until = 0
            self._restart(node)
        start, before = self.now, self.checkers.writes_acknowledged
        if not self.run(start + HEAL_MS_MAX, lambda: self.checkers.writes_acknowledged > before):
            raise Violation(f"no write was acknowledged within {HEAL_MS_MAX} ms of quiet")
        goal = self.checkers.last_committed
        if not self.run(self.now + HEAL_MS_MAX, lambda: self._have_converged(goal)):
            raise Violation(f"the members did not all apply entry {goal} within {HEAL_MS_MAX} ms of quiet")

    def _have_converged(self, goal: int) -> bool:
        newest = max(self.nodes.values(), key=lambda node: node.applied)
        state = newest.raft.conf_state
        return all(self.nodes[member].applied >= goal for member in (*state.voters, *state.learners))
